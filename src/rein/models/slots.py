"""What a replica is fed, and what comes of it: a batch in slots, a slot in micro-batches.

Windows of tokens go in. A slot is worked on by one process, and its gradient is summed by itself, so that a batch's
sum can have one order under every layout (distributed.py). Losses and norms come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from rein.models import ops


@dataclass(frozen=True)
class Part:
    """One micro-batch."""

    tokens_BT: Tensor
    targets_BT: Tensor
    documents_BT: Tensor | None
    weight: float  # of its mean loss in the batch's: its share of the sequences
    seed: int | None  # of its dropout


@dataclass(frozen=True)
class Slot:
    """A part of the batch that one process works on; its gradient is summed by itself."""

    windows_BT: Tensor  # (B, T + 1): each row's tokens and the one after them
    documents_BT: Tensor | None  # (B, T)
    batch_sequences: int  # of the whole batch
    at_once: int  # sequences in a micro-batch
    seed: int | None

    @property
    def sequences(self) -> int:
        """How many there are in it."""
        return len(self.windows_BT)

    def parts(self) -> Iterator[Part]:
        """Its micro-batches."""
        for start in range(0, self.sequences, self.at_once):
            rows = slice(start, start + self.at_once)
            windows_BT = self.windows_BT[rows]
            seed = None if self.seed is None else ops.site_seed(self.seed, start)
            documents_BT = None if self.documents_BT is None else self.documents_BT[rows]
            weight = len(windows_BT) / self.batch_sequences
            yield Part(windows_BT[:, :-1], windows_BT[:, 1:], documents_BT, weight, seed)


@dataclass(frozen=True)
class Gradients:
    """What else came of a batch: this process's parts of the mean loss, and of its slots' gradients."""

    losses: list[float]
    squares: list[tuple[float, int]]  # ‖gradient of the slot's part of the loss‖², and the slot's sequences
