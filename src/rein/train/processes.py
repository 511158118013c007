"""What loops share that may run in several processes: who speaks and writes, who does what, and what is everyone's.

Flow     --parallel → `begin` → World; the run folder at the first process; a list of things → each process's share

Every random choice is a function of the seed and of the number of an episode or of a batch, never of the process: which
process does a thing changes nothing but who does it. All processes know the whole list, so each can tell by itself what
the others do.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch.distributed as dist
from torch import Tensor

from rein.config import command_line
from rein.distributed import Layout, World, launch, launched, parse_layout, start
from rein.errors import UserError
from rein.models.machine import resolve_device
from rein.models.rows import Completion, batches
from rein.run import RunFolder

T = TypeVar("T")


class Spread(Protocol):
    """The settings that say where a loop runs."""

    # fmt: off
    @property
    def parallel(self) -> str: ...
    @property
    def device(self) -> str: ...
    # fmt: on


def layout_of(parallel: str) -> Layout:
    """The layout of a loop that is shared by dp and fsdp alone.

    Raises   UserError for another.
    """
    layout = parse_layout(parallel)
    if layout.tp > 1 or layout.pp > 1:
        raise UserError(
            f"--parallel {parallel} shares products or layers, but this is trained with dp and fsdp alone.",
            "Use dp=… for the batch, fsdp=… for the batch and the storage of weights.",
        )
    return layout


def launch_others(command: str, config: Spread) -> None:
    """Where `config` asks for several processes, is torchrun of them, and does not return; else does nothing."""
    layout = layout_of(config.parallel)
    if layout.size > 1 and not launched():
        launch(layout, shlex.split(command_line(command, config))[1:])


def begin(config: Spread) -> World:
    """This process among those that train together.

    Raises   UserError when they are not as many as --parallel says.
    """
    parallel = config.parallel
    if launched() and not parallel:
        parallel = f"dp={os.environ['WORLD_SIZE']}"
    return start(layout_of(parallel), resolve_device(config.device))


@contextmanager
def run_folder(out: Path, config: Any, world: World) -> Iterator[RunFolder | None]:
    """The run folder, open at the first process; None at the others."""
    opened: list[RunFolder] = []

    def open_it() -> None:
        opened.append(RunFolder(out, config))

    world.at_first(open_it)
    with ExitStack() as stack:
        for run in opened:
            stack.enter_context(run)
        yield opened[0] if opened else None


def share(n: int, world: World) -> range:
    """Which of `n` things this process does: every one of so many that there are processes."""
    return range(world.batch_rank, n, world.layout.batch_ranks)


def everyones(world: World, work: Callable[[], list[T]]) -> list[T]:
    """Each process does its `share`; what all of them found, in the order of the whole list, at everyone.

    Raises   UserError, in all processes, where one of them has one.
    """

    def attempt() -> list[T] | UserError:
        try:
            return work()
        except UserError as error:
            return error

    found = world.gather(attempt())
    parts: list[list[T]] = []
    for part in found:
        if isinstance(part, UserError):
            raise part
        parts.append(part)
    n = sum(map(len, parts))
    return [parts[number % len(parts)][number // len(parts)] for number in range(n)]


def turns(
    which: Sequence[int], grouped: Callable[[Sequence[int]], list[list[int]]], world: World
) -> list[tuple[list[int], bool]]:
    """The groups of `which` that this process passes through a model, and whether they count.

    `grouped` makes groups of some of them. There are as many in every process, because fsdp gathers weights from all of
    them: who has fewer goes once more through one thing, for nothing.
    """
    ranks = world.layout.batch_ranks
    shares = [which[rank::ranks] for rank in range(ranks)]
    all_groups = [grouped(some) if some else [] for some in shares]
    mine = [(group, True) for group in all_groups[world.batch_rank]]
    return mine + [([which[0]], False)] * (max(map(len, all_groups)) - len(mine))


def of_like_length(
    completions: Sequence[Completion], tokens_at_once: int
) -> Callable[[Sequence[int]], list[list[int]]]:
    """Makes groups of some of these completions, of like length, for one forward pass each."""

    def grouped(which: Sequence[int]) -> list[list[int]]:
        return [[which[n] for n in group] for group in batches([len(completions[n]) for n in which], tokens_at_once)]

    return grouped


def added(world: World, x: Tensor) -> Tensor:
    """The sum over the processes, at everyone: exact where all but one of the summands are 0."""
    if world.cpu_group is None:
        return x
    total = x.cpu()
    dist.all_reduce(total, group=world.cpu_group)
    return total.to(x.device)
