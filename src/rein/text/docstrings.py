"""The task that every Python installation has the data of: a docstring's summary line, foretold from the rest of it.

Flow     documents of a corpus or of the installed packages (pydocs.py) → summary line and body, by PEP 257
         → rows {"id", "name", "post" (the body), "reference" (the summary), "split", …}, or a reason

    PEP 257     "The summary line … is separated from the rest of the docstring by a blank line", and is "a phrase
                ending in a period"

A row is held out with its whole package: docstrings of one package resemble each other. Of a corpus, what it held out
is held out here, so that no model has been pre-trained on it. Packages copy from each other all the same: a held-out
row much of whose text is in a training row is dropped.

Source   PEP 257, "Multi-line Docstrings"; the task takes the place of Stiennon 2020's TL;DR where there are no posts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rein.text.documents import Document, Dropped, n_utf8_bytes
from rein.text.pydocs import STDLIB, PyDocs
from rein.text.recipe import Source
from rein.text.shards import read_manifest
from rein.text.shingles import shingle_sets
from rein.text.sources import read_all
from rein.text.split import SPLITS, heldout_packages
from rein.text.store import read_documents

Row = dict[str, Any]

MIN_BODY_CHARS = 80
MIN_SUMMARY_WORDS, MAX_SUMMARY_CHARS = 3, 100
MAX_SHARED_FRAC = 0.3  # of a held-out row's five-word shingles, in training rows
_PROSE = re.compile(r"^[^\W\d_][^{}\[\]<>=|\\]*\.$")  # what a summary looks like: no code, no markup


def parted(text: str) -> tuple[str, str] | str:
    """A docstring as summary and body, or why it is none of the task's.

    Example  >>> body = "The words are those that str.split finds; punctuation stays with the word before it. " * 2
             >>> parted("Count the words of a text.\\n\\n" + body)[0]
             'Count the words of a text.'
             >>> parted("Count the words.")
             'nothing but a summary'
    """
    summary, _, rest = text.partition("\n")
    body = rest.strip()
    if not body:
        return "nothing but a summary"
    if rest and rest.split("\n", 1)[0].strip():
        return "summary of several lines"
    summary = summary.strip()
    if not summary.endswith("."):
        return "summary without a full stop"
    if len(summary) > MAX_SUMMARY_CHARS or len(summary.split()) < MIN_SUMMARY_WORDS:
        return f"summary not of {MIN_SUMMARY_WORDS} words to {MAX_SUMMARY_CHARS} characters"
    if not _PROSE.match(summary):
        return "summary with code or markup"
    if len(body) < MIN_BODY_CHARS:
        return f"body under {MIN_BODY_CHARS} characters"
    return summary, body


def docstring_rows(
    documents: Iterable[tuple[str | None, Document]], *, heldout_frac: float = 0.05, seed: int = 0
) -> Iterator[Row | Dropped]:
    """The rows of documents, or why there is none, in their order.

    `documents` come with their split; where that is None, whole packages for about `heldout_frac` of the text are held
    out. Of rows with the same summary the first one stays: the others are generated, or say nothing.
    """
    rows: list[Row | Dropped] = []
    split_of: list[str | None] = []
    seen: set[str] = set()
    for split, document in documents:
        found = _row(document, seen)
        rows.append(found)
        split_of.append(split)
    kept = [(row, split) for row, split in zip(rows, split_of, strict=True) if isinstance(row, dict)]
    sizes: Counter[str] = Counter()
    for row, _ in kept:
        sizes[row["package"]] += n_utf8_bytes(row["post"])
    taken = heldout_packages(sizes, heldout_frac, seed, always_train=STDLIB)
    for row, split in kept:
        row["split"] = split or SPLITS[row["package"] in taken]
    copies = _copies([row for row, _ in kept])
    for one in rows:
        if isinstance(one, dict) and one["id"] in copies:
            yield Dropped(one["id"], "held out, but much of it is in a training row", one["post"])
        else:
            yield one


def _row(document: Document, seen: set[str]) -> Row | Dropped:
    about = document.metadata
    name = about.get("object", "")
    if not name:
        return Dropped(document.id, "not a docstring", document.text)
    if name.startswith("topics."):
        return Dropped(document.id, "documentation topic", document.text)
    found = parted(document.text)
    if isinstance(found, str):
        return Dropped(document.id, found, document.text)
    summary, body = found
    if summary.lower() in seen:
        return Dropped(document.id, "summary of an earlier row", document.text)
    seen.add(summary.lower())
    package = {key: about[key] for key in ("package", "version", "license") if key in about}
    return {"id": document.id, "name": name, "post": body, "reference": summary, "package": "", **package}


def _copies(rows: list[Row]) -> set[str]:
    """The ids of held-out rows that share too much with training rows."""
    sets = {
        split: shingle_sets([f"{row['reference']}\n{row['post']}" for row in rows if row["split"] == split])
        for split in SPLITS
    }
    known = np.unique(sets[SPLITS[0]].values)
    held = [row for row in rows if row["split"] == SPLITS[1]]
    if not len(known) or not held:
        return set()
    found = set()
    for number, row in enumerate(held):
        ours = sets[SPLITS[1]].row(number)
        places = np.minimum(np.searchsorted(known, ours), len(known) - 1)
        if len(ours) and (known[places] == ours).mean() > MAX_SHARED_FRAC:
            found.add(row["id"])
    return found


def installed() -> Iterator[tuple[None, Document]]:
    """The docstrings of the installed packages; they have no split yet."""
    for item in read_all(PyDocs(Source("pydocs", "pydocs"))):
        if isinstance(item, Document):
            yield None, item


def of_corpus(folder: Path) -> Iterator[tuple[str, Document]]:
    """The documents of a corpus, with their splits.

    Raises   UserError when the folder is no corpus, or a file of it is damaged.
    """
    for split, about in read_manifest(folder)["splits"].items():
        for document in read_documents(folder / "documents" / record["file"] for record in about["files"]):
            yield split, document
