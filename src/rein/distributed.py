"""Processes that train together: who they are, what they agree on, and sums that do not depend on their number.

`torchrun` starts the processes and tells each of them its place; started without it, there is one. A `Layout` says
what they share: dp the batch, fsdp the batch and the storage of weights, tp each matrix product, pp the layers.

    rank = ((pp · DP + dp) · FSDP + fsdp) · TP + tp          neighbours share the most traffic

This module knows processes and tensors, no model. Sources: PyTorch's device meshes; the fixed tree of sums is ours
(docs/papers/gpt3.md).
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from rein.errors import UserError, speaks, suggestion

T = TypeVar("T")
_WAIT = timedelta(minutes=30)  # for a process that evaluates or writes while the others wait


# ---------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class Layout:
    """How many processes share what; 1 is: nobody shares it."""

    pp: int = 1  # pipeline stages: each has some of the layers
    dp: int = 1  # replicas: each has all weights, and its part of the batch
    fsdp: int = 1  # shards: each has its part of the batch, and stores its part of the weights
    tp: int = 1  # each has its heads, its columns of the MLP, and its rows of the vocabulary

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.pp * self.dp * self.fsdp * self.tp

    @property
    def batch_ranks(self) -> int:
        """In how many parts a batch is read."""
        return self.dp * self.fsdp

    def __str__(self) -> str:
        shared = [f"{field.name}={n}" for field in fields(self) if (n := getattr(self, field.name)) > 1]
        return ",".join(shared) or "one process"


def parse_layout(text: str) -> Layout:
    """A layout from `--parallel`.

    Example  >>> parse_layout("dp=2,tp=2")
             Layout(pp=1, dp=2, fsdp=1, tp=2)
    Raises   UserError for an unknown kind, a number below 1, or one given twice.
    """
    known = [field.name for field in fields(Layout)]
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in known:
            raise UserError(f"--parallel {text} names {name!r}.", suggestion(name, known))
        if not number.isdigit() or int(number) < 1 or name in found:
            raise UserError(
                f"--parallel {text}: {part!r} should be a kind and a whole number from 1, each kind once.",
                "Write, for example, dp=2,tp=2.",
            )
        found[name] = int(number)
    return Layout(**found)


# ----------------------------------------------------------------------------------------------------- world


@dataclass(frozen=True)
class World:
    """This process among the others. With one process every method is the identity, and no group exists."""

    layout: Layout
    device: torch.device
    rank: int = 0
    mesh: DeviceMesh | None = None  # of (pp, dp, fsdp, tp)
    cpu_group: dist.ProcessGroup | None = None  # all processes, for small things that live in memory
    save_group: dist.ProcessGroup | None = None  # the same, for a thread that writes a checkpoint

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def place(self, name: str) -> int:
        """This process's number along pp, dp, fsdp or tp."""
        return 0 if self.mesh is None else self.mesh.get_local_rank(name)

    @property
    def batch_rank(self) -> int:
        """Which part of a batch this process reads."""
        return self.place("dp") * self.layout.fsdp + self.place("fsdp")

    def group(self, name: str) -> dist.ProcessGroup:
        """The processes that differ from this one along pp, dp, fsdp or tp only."""
        assert self.mesh is not None, "one process has no groups"
        return self.mesh.get_group(name)

    def gather(self, value: T) -> list[T]:
        """Everyone's `value`, by rank, at everyone."""
        if self.cpu_group is None:
            return [value]
        found: list[Any] = [None] * self.layout.size
        dist.all_gather_object(found, value, group=self.cpu_group)
        return found

    def at_first(self, work: Callable[[], T]) -> T:
        """Does `work` in the first process and gives its result, or its UserError, to all."""
        if self.cpu_group is None:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = work()
            except UserError as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self.cpu_group)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Until everyone is here."""
        if self.cpu_group is not None:
            dist.barrier(self.cpu_group)


def launched() -> bool:
    """Whether torchrun (or another launcher with its variables) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(layout: Layout, words: Sequence[str]) -> NoReturn:
    """Is `torchrun` of as many processes on this machine, each running `python -m rein WORDS`, until they end.

    Exits with their status: 130 after a Ctrl-C, else that of the first one that failed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // layout.size)))
    logging.disable(logging.CRITICAL)  # in this process alone: the others speak for themselves
    try:
        torchrun(["--standalone", f"--nproc-per-node={layout.size}", "-m", "rein", *words])
    except SignalException:
        sys.exit(130)
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else 1)
    sys.exit(0)


def start(layout: Layout, device: torch.device) -> World:
    """Joins the processes that torchrun started, or stays alone.

    Raises   UserError when their number is not the layout's.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size != layout.size:
        raise UserError(
            f"--parallel {layout} is {layout.size} processes, but torchrun started {size}.",
            f"Start torchrun with --nproc-per-node {layout.size} (times --nnodes), or change --parallel.",
        )
    if size == 1:
        return World(layout, device)
    backend = "gloo"
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=_WAIT)
    names = ("pp", "dp", "fsdp", "tp")
    mesh = init_device_mesh(device.type, tuple(getattr(layout, name) for name in names), mesh_dim_names=names)
    cpu_group, save_group = (dist.new_group(backend="gloo", timeout=_WAIT) for _ in range(2))
    return World(layout, device, dist.get_rank(), mesh, cpu_group, save_group)


@contextmanager
def lost_peers(what: Path) -> Iterator[None]:
    """Turns the error that a process meets when another one has gone into a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        if not (launched() and _PEER_GONE.search(str(error))):
            raise
        raise UserError(
            f"Another process of {what} ended before its work was done (rank {os.environ.get('RANK')} lost it).",
            "Its own message, if it had one, says why. Every saved checkpoint is whole: the same command goes on.",
        ) from error


# What gloo and NCCL say then.
_PEER_GONE = re.compile("by peer|NCCL|Broken pipe|Timed out|timeout", re.IGNORECASE)


def stop() -> None:
    """Leaves the other processes, in order: all of them must come here."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Yields a list that the first Ctrl-C or SIGTERM fills, so that the update at hand is finished and saved.

    A second Ctrl-C stops at once. (torchrun answers a Ctrl-C with a SIGTERM of its own, which asks for nothing more.)
    """
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, _: object) -> None:
        if number in received or (received and not launched()):
            raise KeyboardInterrupt
        if not received and speaks():
            print("\nFinishing this update and saving; once more stops at once.", file=sys.stderr)
        received.append(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:
        pass  # not in the main thread: there, signals are somebody else's
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------------------------ sums


def all_reduce_flat(tensors: Sequence[Tensor], reduce: Callable[[Tensor], None], bucket_bytes: int = 25 << 20) -> None:
    """Applies `reduce`, which works in place on one flat tensor, to all `tensors`, some megabytes at a time."""
    for bucket in _buckets(tensors, bucket_bytes):
        if len(bucket) == 1:
            flat = bucket[0].contiguous().view(-1)
            reduce(flat)
            if flat.data_ptr() != bucket[0].data_ptr():
                bucket[0].copy_(flat.view_as(bucket[0]))
            continue
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        reduce(flat)
        for tensor, part in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Iterable[Tensor], bucket_bytes: int) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    filled = 0
    for tensor in tensors:
        if bucket and (filled + tensor.nbytes > bucket_bytes or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(tensor)
        filled += tensor.nbytes
    if bucket:
        yield bucket


def tree_all_reduce(x: Tensor, group: dist.ProcessGroup) -> None:
    """Sums `x` over a group in place, in the order of a balanced binary tree over the ranks.

        T(lo, hi) = T(lo, mid) + T(mid, hi)            by recursive doubling: with rank XOR 1, then 2, 4, …

    Two numbers give the same sum in either order, so all ranks end with the same bits; and a tree over 4 ranks of
    one slot each is the upper part of the tree over 2 ranks that summed two slots each the same way.
    The group's size is a power of two.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    assert size & (size - 1) == 0, f"a tree over {size} processes"
    theirs = torch.empty_like(x)
    for distance in (1 << level for level in range(size.bit_length() - 1)):
        _exchange(x, theirs, rank ^ distance, group)
        x += theirs


def tree_reduce_scatter(output: Tensor, x: Tensor, group: dist.ProcessGroup) -> None:
    """The rank's part of `tree_all_reduce(x)`: `x` is as many equal parts as there are ranks.

    By recursive halving: after the exchange with rank XOR 2ᵏ the parts remain whose number has the rank's bit k.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    assert size & (size - 1) == 0, f"a tree over {size} processes"
    parts = dict(enumerate(x.view(size, -1).unbind()))
    for distance in (1 << level for level in range(size.bit_length() - 1)):
        given = [number for number in parts if (number ^ rank) & distance]
        kept = [number for number in parts if not (number ^ rank) & distance]
        mine = torch.cat([parts[number] for number in kept])
        sent = torch.cat([parts.pop(number) for number in given])
        theirs = torch.empty_like(mine)
        _exchange(sent, theirs, rank ^ distance, group)
        mine += theirs
        parts = dict(zip(kept, mine.view(len(kept), -1).unbind(), strict=True))
    output.copy_(parts[rank])


def _exchange(sent: Tensor, received: Tensor, partner: int, group: dist.ProcessGroup) -> None:
    peer = dist.get_global_rank(group, partner)
    operations = [dist.P2POp(dist.isend, sent, peer, group), dist.P2POp(dist.irecv, received, peer, group)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()


class TreeSum:
    """Sums gradients as they come, in the order of a balanced binary tree over their numbers.

    Example  >>> total = TreeSum()
             >>> for x in (1.0, 2.0, 3.0, 4.0):                 # (1 + 2) + (3 + 4)
             ...     total.add([torch.tensor(x)])
             >>> total.result()
             [tensor(10.)]
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, list[Tensor]]] = []  # (level, sums); levels fall

    def add(self, tensors: list[Tensor]) -> None:
        """Takes the next summands, which are overwritten."""
        level = 0
        while self._waiting and self._waiting[-1][0] == level:
            for left, right in zip(self._waiting.pop()[1], tensors, strict=True):
                right += left
            level += 1
        self._waiting.append((level, tensors))

    def result(self) -> list[Tensor]:
        """The sums of all that came: of a power of two of them."""
        assert len(self._waiting) == 1, "a tree has a power of two of leaves"
        return self._waiting.pop()[1]


def fixed_sum(numbers: Iterable[float]) -> float:
    """The correctly rounded sum: the same whoever held which summand."""
    return math.fsum(numbers)


def row_squares(x: Tensor) -> Tensor:
    """Σ x² of every row, in float64: a function of that row alone.

    By halving the row until one number is left: a library's sum may go another way when there are fewer rows.

    Shapes   x (R, …), or (R,), a row each; returns (R,).
    Example  >>> row_squares(torch.tensor([[3.0, 4.0], [1.0, 0.0]])).tolist()
             [25.0, 1.0]
    """
    rows_RN = x.flatten(1) if x.dim() > 1 else x[:, None]
    width = max(1, rows_RN.shape[1])
    sums = []
    for piece in torch.split(rows_RN, max(1, (1 << 22) // width)):
        squares = torch.nn.functional.pad(piece.double().square_(), (0, (1 << (width - 1).bit_length()) - width))
        while squares.shape[1] > 1:
            half = squares.shape[1] // 2
            squares = squares[:, :half] + squares[:, half:]
        sums.append(squares[:, 0])
    return torch.cat(sums)
