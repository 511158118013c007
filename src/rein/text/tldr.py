"""Reddit posts with their authors' summaries: the filters of "Learning to summarize", in its order, each counted.

Flow     a row of a TL;DR file, raw (Völske 2017: body, content, summary) or released (post, summary) → one form
         → `post_fault`, then `summary_fault` → a row {"id", "subreddit", "title", "post", "reference"}, or a reason

    posts       duplicate body · no TL;DR · comment · subreddit not listed · title of an edit · topic · body too long
    summaries   begins with Edit, Update or P.S. · profanity · not of 24 to 48 tokens

Posts that pass the first row alone are what a policy is trained on; those that pass both are demonstrations.

Source   Stiennon 2020, App. A.
Differs  What finds a TL;DR in a body, the topics and the profanity were "heuristics" that were not released: those
         here are ours, and short. Rows in the released form have passed the paper's, so that ours are not asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rein.bpe.tokenizer import Tokenizer
from rein.text.documents import Dropped
from rein.text.prompts import numbered_rows
from rein.text.split import SPLITS, unit_hash

Json = Any
Row = dict[str, Json]

# How often each subreddit is in the training set of 116,722 posts.
SUBREDDITS = {
    "relationships": 63324, "AskReddit": 15440, "relationship_advice": 8691, "tifu": 7685, "dating_advice": 2849,
    "personalfinance": 2312, "Advice": 2088, "legaladvice": 1997, "offmychest": 1582, "loseit": 1452, "jobs": 1084,
    "self": 1048, "BreakUps": 838, "askwomenadvice": 688, "dogs": 638, "running": 567, "pettyrevenge": 548,
    "needadvice": 528, "travel": 452, "Parenting": 435, "weddingplanning": 433, "Pets": 366, "Dogtraining": 362,
    "cats": 324, "AskDocs": 283, "college": 264, "GetMotivated": 169, "books": 161, "Cooking": 114,
}  # fmt: skip
MAX_POST_TOKENS = 512
SUMMARY_TOKENS = (24, 48)
FILE_SPLITS = ("train", "valid", "test")  # what the released files are called

_MARK = re.compile(r"\btl[ ;:,.\-/]{0,2}dr\b[\s:;,.\-–—*_]*", re.IGNORECASE)
_EDIT = re.compile(r"^\W*(?:edit(?:ed|s)?|update[ds]?)\b", re.IGNORECASE)
_AFTERWORD = re.compile(r"^\W*(?:edit(?:ed|s)?|update[ds]?|p\s?\.?\s?s)\b", re.IGNORECASE)
_TOPIC = re.compile(
    r"\b(?:suicid\w*|kill(?:ed|ing)? (?:my|him|her|them)sel(?:f|ves)|self[- ]harm\w*|rape[ds]?|raping|rapist\w*|"
    r"porn\w*|masturbat\w*|orgasm\w*|blow ?jobs?|hand ?jobs?|anal sex|oral sex|dildos?|erections?|ejaculat\w*)\b",
    re.IGNORECASE,
)
_PROFANITY = re.compile(
    r"\b(?:\w*fuck\w*|\w*shit(?:s|ty|ting)?|cunts?|bitch\w*|assholes?|dickheads?|fag(?:got)?s?|nigg\w+|sluts?|whores?)\b",
    re.IGNORECASE,
)


def in_one_form(row: Mapping[str, Json], where: str) -> Row:
    """A row of either kind of file. Of a raw body, the TL;DR is told again: what its summary field has may be cut off.

    Example  >>> raw = {"id": "a", "subreddit": "self", "title": "Me", "body": "I ran.\\n\\nTL;DR: Ran."}
             >>> in_one_form(raw, "f:1")["post"], in_one_form(raw, "f:1")["reference"]
             ('I ran.', 'Ran.')
    """
    post, summary = _text(row, "post") or _text(row, "content"), _text(row, "summary") or _text(row, "reference")
    if _text(row, "body"):
        post, summary = parted(_text(row, "body")) or (post, summary)
    found: Row = {
        "id": str(row.get("id") or where),
        "subreddit": _text(row, "subreddit"),
        "title": _text(row, "title"),
        "post": post.strip(),
        "reference": summary.strip(),
    }
    if not _text(row, "post"):
        found["raw"] = True
    if _text(row, "split"):
        found["split"] = row["split"]
    return found


def parted(body: str) -> tuple[str, str] | None:
    """A body as post and summary: at its last TL;DR that says something, whose first paragraph is the summary.

    Where the body begins with it, the post is what comes behind the summary.

    Example  >>> parted("TLDR - short\\n\\nA long story.")
             ('A long story.', 'short')
             >>> parted("A story without one.") is None
             True
    """
    for mark in reversed(list(_MARK.finditer(body))):
        summary, _, rest = body[mark.end() :].partition("\n\n")
        if summary.strip():
            before = body[: mark.start()].strip()
            return before or rest.strip(), summary.strip()
    return None


def post_fault(row: Row, tokenizer: Tokenizer) -> str | None:
    """Why a post is not used, or None; all but what depends on other posts.

    Example  >>> from rein.bpe.byte_level import ByteLevelBPE
             >>> post_fault({"title": "[UPDATE] It broke", "subreddit": "self", "post": "…", "reference": "…"},
             ...            ByteLevelBPE(()))
             'title of an edit or update'
    """
    if not row["post"] or not row["reference"]:
        return "no TL;DR"
    if not row["title"]:
        return "no top-level post"
    if row["subreddit"] not in SUBREDDITS:
        return "subreddit not listed"
    if _EDIT.match(row["title"]):
        return "title of an edit or update"
    if row.get("raw") and _TOPIC.search(f"{row['title']}\n{row['post']}\n{row['reference']}"):
        return "graphic sex or suicide"
    if len(tokenizer.encode(row["post"])) > MAX_POST_TOKENS:
        return f"body over {MAX_POST_TOKENS} tokens"
    return None


def summary_fault(row: Row, tokenizer: Tokenizer) -> str | None:
    """Why a summary is no demonstration, or None."""
    if _AFTERWORD.match(row["reference"]):
        return "summary begins with Edit, Update or P.S."
    if row.get("raw") and _PROFANITY.search(row["reference"]):
        return "profanity"
    n_tokens = len(tokenizer.encode(row["reference"]))
    if not SUMMARY_TOKENS[0] <= n_tokens <= SUMMARY_TOKENS[1]:
        return f"summary not of {SUMMARY_TOKENS[0]} to {SUMMARY_TOKENS[1]} tokens"
    return None


def tldr_rows(
    paths: Iterable[Path], tokenizer: Tokenizer, *, posts_only: bool = False, heldout_frac: float = 0.05, seed: int = 0
) -> Iterator[Row | Dropped]:
    """The rows of files, or why there is none, in their order.

    A row's split is its own, else that of a file called train, valid or test, else drawn by the hash of its body.

    posts_only  whatever their summaries are: the prompts of reinforcement learning
    Raises      UserError when a file is missing, empty, or no JSON lines.
    """
    bodies: set[bytes] = set()
    for path in paths:
        for where, raw in numbered_rows(path):
            row = in_one_form(raw, where)
            key = hashlib.blake2b(row["post"].encode("utf-8", "surrogatepass"), digest_size=16).digest()
            reason = "duplicate body" if row["post"] and key in bodies else post_fault(row, tokenizer)
            bodies.add(key)
            if reason is None and not posts_only:
                reason = summary_fault(row, tokenizer)
            if reason is not None:
                yield Dropped(where, reason, row["post"])
                continue
            drawn = SPLITS[unit_hash(key.hex(), seed) < heldout_frac]
            row.pop("raw", None)
            yield {**row, "split": row.get("split") or (path.stem if path.stem in FILE_SPLITS else drawn)}


def _text(row: Mapping[str, Json], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
