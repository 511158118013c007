"""The batches of a run: which windows each process reads, and reading them before they are needed.

    order.starts(window numbers) → the rows of this process → tokens and targets, on its device

Of a batch of B sequences, in S slots, slot s is the sequences s · B/S … (s + 1) · B/S − 1, whoever works on it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rein.distributed import Layout, World
from rein.models import ops
from rein.models.slots import Slot
from rein.text.order import Order
from rein.text.shards import Shards


def slots_of(rank: int, layout: Layout, slots: int) -> list[int]:
    """The slots of one batch process. Where storage is shared, neighbours take turns; else each has a row of them.

    Either way, summing what one process has and then what neighbours have is the same tree over all slots: FSDP sums
    over its processes after every slot, the replicas of dp once at the end.

    Example  >>> [slots_of(rank, Layout(dp=2), 8) for rank in range(2)]
             [[0, 1, 2, 3], [4, 5, 6, 7]]
             >>> [slots_of(rank, Layout(fsdp=2), 8) for rank in range(2)]
             [[0, 2, 4, 6], [1, 3, 5, 7]]
    """
    ranks = layout.batch_ranks
    each = slots // ranks
    return list(range(rank, slots, ranks)) if layout.fsdp > 1 else list(range(rank * each, (rank + 1) * each))


class Reader:
    """`reader.slots(...)`: this process's part of a batch. The batch after it is read meanwhile, in a thread."""

    def __init__(
        self, shards: Shards, order: Order, world: World, *, n_ctx: int, at_once: int, slots: int, eot_id: int | None
    ) -> None:
        """`eot_id`: where documents end, if they are to be told apart."""
        self.shards, self.order, self._world = shards, order, world
        self._n_ctx, self._at_once, self._eot_id = n_ctx, at_once, eot_id
        self._count = slots or world.layout.batch_ranks
        self._mine = slots_of(world.batch_rank, world.layout, self._count)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._ahead: tuple[tuple[int, int], Future[npt.NDArray[np.int64]]] | None = None
        self.waited_s = 0.0  # for text, so far

    def slots(self, first: int, sequences: int, *, seed: int | None, next_sequences: int, split: bool) -> list[Slot]:
        """Windows `first` … `first` + `sequences` − 1 of the run, as far as they are this process's.

        `next_sequences` is how many are likely to be asked for after them. `split` sets the first micro-batch, at most
        half, apart as a slot of its own, where this process has one slot only.
        """
        began = time.monotonic()
        windows = self._ready(first, sequences)
        self.waited_s += time.monotonic() - began
        following = first + sequences, next_sequences
        self._ahead = following, self._thread.submit(self._read, *following)
        windows_BT = torch.from_numpy(windows).to(self._world.device, non_blocking=True)
        each = sequences // self._count
        edges = [place * each for place in range(len(self._mine) + 1)]
        numbers = self._mine
        alone = self._world.layout.fsdp == self._world.layout.pp == 1  # else gradients are summed, or piped, as one
        if split and alone and len(self._mine) == 1 and each > 1:
            first_part = min(self._at_once, each // 2)
            edges, numbers = [0, first_part, each], [self._mine[0], self._mine[0]]
        slots = []
        for place, number in enumerate(numbers):
            rows = slice(edges[place], edges[place + 1])
            # The dropout of a sequence follows from its place in the batch, not from who works on it.
            start = number * each + (edges[place] if numbers != self._mine else 0)
            slot_seed = None if seed is None else ops.site_seed(seed, start)
            part_BT = windows_BT[rows]
            slots.append(Slot(part_BT, self._documents(part_BT), sequences, self._at_once, slot_seed))
        return slots

    def _ready(self, first: int, sequences: int) -> npt.NDArray[np.int64]:
        if self._ahead is not None and self._ahead[0] == (first, sequences):
            return self._ahead[1].result()
        return self._read(first, sequences)

    def _read(self, first: int, sequences: int) -> npt.NDArray[np.int64]:
        each = sequences // self._count
        starts = [self.order.starts(first + slot * each, each) for slot in self._mine]
        return self.shards.windows(np.concatenate(starts), self._n_ctx + 1)

    def _documents(self, windows_BT: Tensor) -> Tensor | None:
        return None if self._eot_id is None else documents(windows_BT[:, :-1], self._eot_id)

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def documents(tokens_BT: Tensor, eot_id: int) -> Tensor:
    """The number of each token's document in its row; an end-of-text token is the last of the one it ends.

    Example  >>> documents(torch.tensor([[5, 0, 7, 8, 0, 9]]), eot_id=0).tolist()
             [[0, 0, 1, 1, 1, 2]]
    """
    ends_BT = (tokens_BT == eot_id).long()
    return ends_BT.cumsum(dim=1) - ends_BT
