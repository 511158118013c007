"""Pre-training text that is learned beside something else: windows of a corpus, as pre-training would read them.

Flow     corpus folder → `pretraining_text` → windows of a run, by their numbers;  held out: windows to measure on

Source   Ouyang 2022, App. C.3: a tenth of it in the supervised start of PPO; App. C.4: PPO-ptx.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.distributed import World
from rein.errors import UserError
from rein.models.gpt import GPTConfig
from rein.text.mixture import order_of
from rein.text.order import Order
from rein.text.shards import Shards, read_manifest


@dataclass(frozen=True)
class PretrainingText:
    """Windows of `length` tokens, each with the token after it, in the order in which pre-training would read them."""

    shards: Shards
    order: Order
    length: int

    def whole(self, first: int, count: int) -> Tensor:
        """The windows `first` … `first` + `count` − 1 of a run: (count, length + 1) int64."""
        return torch.from_numpy(self.shards.windows(self.order.starts(first, count), self.length + 1))

    def windows(self, first: int, count: int, tokens_at_once: int, world: World) -> Iterator[tuple[Tensor, bool]]:
        """A process's share of the windows `first` … `first` + `count` − 1, some at a time, (B, length + 1).

        And whether they count: all processes get as many, see `processes.turns`.
        """
        whole = self.whole(first, count)
        mine, at_once = whole[world.batch_rank :: world.layout.batch_ranks], max(1, tokens_at_once // self.length)
        for start in range(0, -(-count // world.layout.batch_ranks), at_once):
            piece = mine[start : start + at_once]
            yield (piece, True) if len(piece) else (whole[:1], False)

    def heldout(self, most: int) -> Tensor:
        """Up to `most` windows of the held-out part, spread over it without touching: (N, length + 1), maybe none."""
        shards = Shards(self.shards.folder, "heldout")
        fit = max(0, (shards.n_tokens - 1) // self.length)
        starts_N = np.unique(np.linspace(0, fit, min(most, fit), endpoint=False).astype(np.int64)) * self.length
        return torch.from_numpy(shards.windows(starts_N, self.length + 1))


def pretraining_text(
    corpus: Path, tokenizer: Tokenizer, shape: GPTConfig, *, length: int | None, seed: int
) -> PretrainingText:
    """The text of --ptx-data in windows of `length` tokens, of the model's context if it is None.

    Raises   UserError when a window does not fit the model, or the corpus has another tokenizer or too little text.
    """
    length = length or shape.n_ctx
    if length > shape.n_ctx:
        raise UserError(f"--ptx-tokens is {length}, but the model has n_ctx={shape.n_ctx}.", "Lower --ptx-tokens.")
    manifest = read_manifest(corpus)
    if load_tokenizer(corpus).sha256() != tokenizer.sha256():
        raise UserError(
            f"--ptx-data {corpus} has another tokenizer than the model.",
            "Build it with `rein text build --tokenizer` and the model's tokenizer.json.",
        )
    return PretrainingText(Shards(corpus, "train"), order_of(manifest, length, seed), length)


def fingerprint(corpus: Path) -> str:
    """A digest of all that a corpus holds: its manifest has those of its shards."""
    return hashlib.sha256(json.dumps(read_manifest(corpus), sort_keys=True).encode()).hexdigest()
