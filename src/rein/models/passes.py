"""What a loop does with a model over processes that `Replica` does not do for it: passes of its own, the norm of all.

Flow     Replica.of(model) → `passed(model, function, …)` → losses → backward in every process → `clip` → update

A `Replica` trains on a language model's loss. Loops with other losses write their pass as a function of the model.
For dp and fsdp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from rein.distributed import World
from rein.models.gpt import GPT
from rein.models.parallel import Replica

P = ParamSpec("P")
T = TypeVar("T")


def passed(model: GPT, function: Callable[Concatenate[GPT, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`function(model, …)` as a forward pass: of a model that fsdp has cut, its weights are gathered on the way.

    The function must call whole blocks: theirs are gathered when they are called.
    """
    if isinstance(model, FSDPModule):
        return model.passed(function, *args, **kwargs)  # type: ignore[operator, no-any-return]
    return function(model, *args, **kwargs)


def add_up(world: World, whole: Sequence[nn.Parameter]) -> None:
    """Adds up, over the processes, the gradients of parameters that every process has whole; None is no summand."""
    for p in whole:
        if world.layout.size > 1 and any(world.gather(p.grad is not None)):
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            for axis in ("dp", "fsdp"):
                if getattr(world.layout, axis) > 1:
                    dist.all_reduce(p.grad, group=world.group(axis))


def clip(world: World, replica: Replica | None, whole: Sequence[nn.Parameter], clip_norm: float) -> Tensor:
    """Adds the processes' gradients up, scales them down if their norm is above `clip_norm` (0: never). ‖all‖₂ before.

    `whole` are parameters that every process has whole, such as a head. For dp and fsdp.
    """
    add_up(world, whole)
    whole = [p for p in whole if p.grad is not None]
    cut_: list[nn.Parameter] = []
    if replica is not None:
        replica.sum_gradients()
        cut_ = replica.hand_over()
    if world.layout.fsdp == 1:
        norm = nn.utils.get_total_norm([p.grad for p in (*whole, *cut_) if p.grad is not None])
    else:
        square, rest = (
            nn.utils.get_total_norm([p.grad for p in some if p.grad is not None]).to(world.device).square()
            for some in (cut_, whole)
        )
        dist.all_reduce(square, group=world.group("fsdp"))
        norm = (square + rest).sqrt()
    nn.utils.clip_grads_with_norm_([*whole, *cut_], clip_norm or math.inf, norm)
    return norm
