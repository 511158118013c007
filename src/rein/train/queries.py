"""What a policy is asked: the rows of a file of prompts as tokens, and which of them each episode gets.

Flow     JSON lines ─ text/prompts.py → Prompt (tokens, row) → `Prompts`: train, heldout
         (seed, episode) → `Prompts.of_episodes` → its prompt

Prompts are gone through in shuffled order, each once before any comes again; which one an episode gets follows from the
seed and its number alone. Rows that a format can make no query of are left out, and counted by reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.text.prompts import PromptFormat, Query, Unfit, encode_query, read_queries


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


def read_prompts(
    path: Path, heldout: Path | None, format: PromptFormat, tokenizer: Tokenizer, *, n_ctx: int
) -> Prompts:
    """The prompts of --prompts, and the held-out ones: those of --heldout, or the rows that are not in split train.

    `n_ctx` is the shortest context of the models that will read query and response. A query that does not fit beside
    a whole response is left out where the format leaves long ones out.

    Raises   UserError when a file cannot be read, a format cuts queries to a length that does not fit, or no row is
             left to train on.
    """
    room = n_ctx - response_tokens(format)
    most = format.query_tokens
    if room < 1 or (most is not None and most > room and (format.cut or format.filled)):
        raise UserError(
            f"query_tokens={most or 1} and response_tokens={response_tokens(format)} need n_ctx ≥ "
            f"{(most or 1) + response_tokens(format)}, but the models have n_ctx={n_ctx}.",
            f"Lower --query-tokens to {room}." if room > 1 else "Lower --response-tokens.",
        )
    format = replace(format, query_tokens=min(most or room, room))
    left_out: Counter[str] = Counter()
    rows = _encoded(path, format, tokenizer, left_out)
    if heldout is None:
        train = [row for row in rows if row.query.split == "train"]
        held = [row for row in rows if row.query.split != "train"]
    else:
        train, held = rows, _encoded(heldout, format, tokenizer, left_out)
    if not train:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in left_out.items()) or "all are in another split"
        raise UserError(
            f"{path} has no prompt to train on ({reasons}; a query may have {format.query_tokens} tokens).",
            "Give other --prompts or another --format, or lower --response-tokens.",
        )
    return Prompts(tuple(train), tuple(held), left_out)


def _encoded(path: Path, format: PromptFormat, tokenizer: Tokenizer, left_out: Counter[str]) -> list[Prompt]:
    found = []
    for query in read_queries(path, format):
        try:
            found.append(Prompt(encode_query(format, query.fields, tokenizer), query))
        except Unfit as problem:
            left_out[str(problem)] += 1
    return found
