"""What a policy is asked: the rows of a file of prompts as tokens, and which of them each episode gets.

Flow     JSON lines ─ text/prompts.py → Prompt (tokens, row) → `Prompts`: train, heldout
         (seed, episode) → `Prompts.of_episodes` → its prompt

Prompts are gone through in shuffled order, each once before any comes again; which one an episode gets follows from the
seed and its number alone. Rows that a format can make no query of are left out, and counted by reason; so are held-out
rows whose query is trained on.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rein import checkpoint
from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError, speaks
from rein.text.prompts import FORMATS, PromptFormat, Query, fitting, of_taught, read_queries


@dataclass(frozen=True)
class Prompt:
    """A query's tokens, and the row it was made of."""

    ids: tuple[int, ...]
    query: Query


@dataclass(frozen=True)
class Prompts:
    """Those to train on and those that are held out; why rows were left out, and how many."""

    train: tuple[Prompt, ...]
    heldout: tuple[Prompt, ...]
    left_out: Counter[str]

    def of_episodes(self, seed: int, first: int, count: int) -> list[Prompt]:
        """The prompts of episodes `first` … `first` + `count` − 1."""
        found = []
        for episode in range(first, first + count):
            epoch, place = divmod(episode, len(self.train))
            found.append(self.train[_order(seed, epoch, len(self.train))[place]])
        return found

    @property
    def longest(self) -> int:
        """Tokens of the longest query."""
        return max(len(prompt.ids) for prompt in (*self.train, *self.heldout))

    def sha256(self) -> str:
        """Of all tokens and rows: another file under the same name is another run."""
        digest = hashlib.sha256()
        for part in (self.train, self.heldout):
            for prompt in part:
                digest.update(repr((prompt.ids, sorted(prompt.query.fields.items()), prompt.query.reference)).encode())
            digest.update(b"\x00")
        return digest.hexdigest()


_ORDERS: dict[tuple[int, int, int], list[int]] = {}


def _order(seed: int, epoch: int, n: int) -> list[int]:
    """The shuffled order of one pass; the last few are kept."""
    key = seed, epoch, n
    if key not in _ORDERS:
        while len(_ORDERS) > 2:
            _ORDERS.pop(next(iter(_ORDERS)))
        _ORDERS[key] = np.random.default_rng([seed, epoch]).permutation(n).tolist()
    return _ORDERS[key]


def response_tokens(format: PromptFormat) -> int:
    """The most tokens of a response.

    Raises   UserError where neither the format nor a flag says it.
    """
    if format.response_tokens is None:
        raise UserError(
            f"The format {format.name} does not say how long a response may be.", "Give --response-tokens, such as 48."
        )
    return format.response_tokens


def taught_format(policy: Path) -> str:
    """The format that a model was taught, by the settings of the run that made it; "" where nothing says so."""
    folder = checkpoint.chosen(policy)
    said = checkpoint.read_about(folder).get("config", {}) if (folder / "rein.json").exists() else {}
    name = said.get("format")
    return name if name in FORMATS else ""


def note_format(policy: Path, format: PromptFormat) -> None:
    """Says where a model is asked in another format than it was taught."""
    taught = taught_format(policy)
    if taught not in ("", format.name) and speaks():
        print(f"note       {policy} was taught the format {taught}, but is asked in {format.name}: give --format "
              f"{taught}, unless that is meant", file=sys.stderr)  # fmt: skip


def read_prompts(
    path: Path,
    heldout: Path | None,
    format: PromptFormat,
    tokenizer: Tokenizer,
    *,
    n_ctx: int,
    policy: Path | None = None,
) -> Prompts:
    """The prompts of --prompts, and the held-out ones: those of --heldout, or the rows that are not in split train.

    `n_ctx` is the shortest context of the models that will read query and response. A query that does not fit beside
    a whole response is left out where the format leaves long ones out. Where `policy` was taught another format, that
    is said.

    Raises   UserError when a file cannot be read, a format cuts queries to a length that does not fit, or no row is
             left to train on, or all that are held out are trained on.
    """
    format, left_out = _with_room(format, n_ctx, "" if policy is None else taught_format(policy)), Counter[str]()
    if policy is not None:
        note_format(policy, format)
    rows = _encoded(path, format, tokenizer, n_ctx, left_out)
    if heldout is None:
        train = [row for row in rows if row.query.split == "train"]
        held = [row for row in rows if row.query.split != "train"]
    else:
        train, held = rows, _encoded(heldout, format, tokenizer, n_ctx, left_out)
    if not train:
        raise _none_left(path, "to train on", format, left_out)
    asked = {row.ids for row in train}
    unseen = [row for row in held if row.ids not in asked]
    if held and not unseen:
        raise UserError(
            f"{heldout or path} holds out no prompt that is not trained on, too ({len(held):,} are).",
            "Give --heldout other prompts than --prompts." if heldout else "Give rows of other splits other prompts.",
        )
    if len(unseen) < len(held):
        left_out["held out, but trained on"] += len(held) - len(unseen)
    return Prompts(tuple(train), tuple(unseen), left_out)


def read_all(path: Path, format: PromptFormat, tokenizer: Tokenizer, *, n_ctx: int) -> tuple[Prompt, ...]:
    """The prompts of a file, whatever their split, that fit as in `read_prompts`.

    Raises   UserError when it cannot be read, or none fits.
    """
    format, left_out = _with_room(format, n_ctx), Counter[str]()
    found = _encoded(path, format, tokenizer, n_ctx, left_out)
    if not found:
        raise _none_left(path, "that fits", format, left_out)
    return tuple(found)


def _none_left(path: Path, what: str, format: PromptFormat, left_out: Counter[str]) -> UserError:
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in left_out.items()) or "all are in another split"
    return UserError(
        f"{path} has no prompt {what} ({reasons}; a query may have {format.query_tokens} tokens).",
        "Give other --prompts or another --format, or lower --response-tokens.",
    )


def _with_room(format: PromptFormat, n_ctx: int, taught: str = "") -> PromptFormat:
    """The format, with queries that leave room for a whole response."""
    room = n_ctx - response_tokens(format)
    most = format.query_tokens
    if room < 1 or (most is not None and most > room and (format.cut or format.filled)):
        said, advice = of_taught(format, taught)
        raise UserError(
            f"By the format {format.name}, query_tokens={most or 1} and response_tokens={response_tokens(format)} need "
            f"n_ctx ≥ {(most or 1) + response_tokens(format)}, but the models have n_ctx={n_ctx}.{said}",
            f"Give {advice}--query-tokens {room}." if room > 1 else "Lower --response-tokens.",
        )
    return replace(format, query_tokens=min(most or room, room))


def _encoded(
    path: Path, format: PromptFormat, tokenizer: Tokenizer, n_ctx: int, left_out: Counter[str]
) -> list[Prompt]:
    found = []
    longest = response_tokens(format)
    for query, ids, why in fitting(read_queries(path, format), format, tokenizer, response_tokens=longest, n_ctx=n_ctx):
        if why:
            left_out[why] += 1
        else:
            found.append(Prompt(ids, query))
    return found
