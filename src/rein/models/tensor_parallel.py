"""Tensor parallelism: each process multiplies with its part of every weight ("within each matrix multiply").

    ColumnLinear   x everywhere → this process's columns of the output: its heads, or its part of the MLP
    RowLinear      this process's columns of x → the whole output, summed over the processes
    ShardedVocabulary   rows of the token embedding: no process makes another's logits

Two sums of activations a sub-block and direction are all that is exchanged. models/parallel.py puts these in the
place of a model's own layers. Source: Shoeybi 2019 (Megatron-LM) §3.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function

from rein.models import ops
from rein.models.gpt import Linear


class ColumnLinear(Linear):
    """This process's columns of x weight + bias: its heads, or its part of the MLP."""

    def __init__(self, whole: Linear, group: dist.ProcessGroup) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias, self.packed, self._group = whole.weight, whole.bias, None, group

    def forward(self, x: Tensor, *, activation: Literal["none", "gelu"] = "none") -> Tensor:
        return super().forward(_Copied.apply(x, self._group), activation=activation)  # type: ignore[no-untyped-call]


class RowLinear(Linear):
    """x weight + bias from this process's rows of the weight and columns of x, summed over the processes."""

    def __init__(self, whole: Linear, group: dist.ProcessGroup) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias, self.packed, self._group = whole.weight, whole.bias, None, group

    def forward(self, x: Tensor, *, activation: Literal["none", "gelu"] = "none") -> Tensor:
        assert activation == "none", "a row layer's output goes into the residual stream"
        y = (x.flatten(0, 1) @ ops.local(self.weight)).view(*x.shape[:2], -1)
        y = _Summed.apply(y, self._group)  # type: ignore[no-untyped-call]
        return y + self.bias.to(y.dtype)  # type: ignore[no-any-return]


class _Copied(Function):
    """x to every process; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Summed(Function):
    """The sum of every process's x; its gradient goes to each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class ShardedVocabulary(ops.Vocabulary):
    """The token embedding with its rows spread over tensor-parallel processes: no process makes another's logits."""

    def __init__(self, n_vocab: int, group: dist.ProcessGroup) -> None:
        self._group = group
        self._chunk = -(-n_vocab // dist.get_world_size(group))
        self._start = self._chunk * dist.get_rank(group)
        self._n_vocab = n_vocab

    def all_reduce(self, x: Tensor, how: Literal["sum", "max"]) -> Tensor:
        """Over the processes that share the vocabulary; without a gradient."""
        x = x.contiguous()
        dist.all_reduce(x, dist.ReduceOp.SUM if how == "sum" else dist.ReduceOp.MAX, group=self._group)
        return x

    def index(self, ids: Tensor, n_here: int) -> tuple[Tensor, Tensor]:
        """Row numbers among the `n_here` rows of this process (0 for those elsewhere), and which are here."""
        here = (ids >= self._start) & (ids < self._start + n_here)
        return (ids - self._start).masked_fill(~here, 0), here

    def embed(self, tokens_BT: Tensor, wte_VD: Tensor) -> Tensor:
        """The rows of these ids, (B, T, D), at every process."""
        index_BT, here_BT = self.index(tokens_BT, wte_VD.shape[0])
        x_BTD = super().embed(index_BT, wte_VD).masked_fill(~here_BT[..., None], 0.0)
        return _Summed.apply(x_BTD, self._group)  # type: ignore[no-any-return, no-untyped-call]

    def dropout(self, wte_VD: Tensor, p: float, seed: int | None, *, site: int) -> Tensor:
        """This process's rows of the mask that one process would draw."""
        if seed is None or p == 0.0:
            return wte_VD
        ones = wte_VD.new_ones(self._n_vocab, wte_VD.shape[1])
        mask = super().dropout(ones, p, seed, site=site)
        return wte_VD * mask[self._start : self._start + wte_VD.shape[0]]

    def logits(self, x_BTD: Tensor, wte_VD: Tensor) -> Tensor:
        """(B, T, V), at every process."""
        mine = super().logits(x_BTD, wte_VD)
        padded = nn.functional.pad(mine, (0, self._chunk - mine.shape[-1]))
        everyones = [torch.empty_like(padded) for _ in range(dist.get_world_size(self._group))]
        dist.all_gather(everyones, padded.contiguous(), group=self._group)
        return torch.cat(everyones, dim=-1)[..., : self._n_vocab]

    def loss(self, x_BTD: Tensor, wte_VD: Tensor, targets_BT: Tensor) -> Tensor:
        """`lm_loss`, without whole logits anywhere."""
        return ops.lm_loss(x_BTD, wte_VD, targets_BT, self)

    def token_losses(self, x_BTD: Tensor, wte_VD: Tensor, targets_BT: Tensor) -> Tensor:
        """`token_losses`, likewise."""
        return ops.token_losses(x_BTD, wte_VD, targets_BT, self)
