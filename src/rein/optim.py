"""Optimisers and schedules of the papers, counted in tokens.

GPT-2's and GPT-3's Adam is torch's AdamW. GPT-1's released Adam is another function (`GPT1Adam`), with its own
schedule: the two differ in where the bias correction, epsilon and the decay enter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn


def warmup_cosine(tokens: float, *, warmup_tokens: float, decay_tokens: float, final_frac: float) -> float:
    """The share of the peak learning rate after `tokens` training tokens: GPT-3's schedule.

        tokens / warmup                                           while tokens < warmup
        final + (1 − final) · ½ (1 + cos(π · (tokens − warmup) / (decay − warmup)))     until decay
        final                                                      after

    Example  >>> gpt3 = dict(warmup_tokens=375e6, decay_tokens=260e9, final_frac=0.1)
             >>> [round(warmup_cosine(t, **gpt3), 3) for t in (0, 187.5e6, 375e6, 260e9, 300e9)]
             [0.0, 0.5, 1.0, 0.1, 0.1]
    Source   Brown 2020, App. B.
    """
    if tokens < warmup_tokens:
        return tokens / warmup_tokens
    if tokens >= decay_tokens:
        return final_frac
    progress = (tokens - warmup_tokens) / (decay_tokens - warmup_tokens)
    return final_frac + (1 - final_frac) * 0.5 * (1 + math.cos(math.pi * progress))


def gpt1_cosine(progress: float, *, warmup_frac: float) -> float:
    """`warmup_cosine` of GPT-1's released code, at progress = updates made / all updates.

        progress / warmup                  while progress ≤ warmup (so the first update has rate 0)
        ½ (1 + cos(π · progress))           after, not rescaled: it jumps to slightly below 1

    Example  >>> [round(gpt1_cosine(x, warmup_frac=0.002), 3) for x in (0, 0.001, 0.002, 0.5, 1)]
             [0.0, 0.5, 1.0, 0.5, 0.0]
    Source   openai/finetune-transformer-lm, opt.py.
    """
    if progress <= warmup_frac:
        return progress / warmup_frac if warmup_frac > 0 else 1.0
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def gpt1_linear(progress: float, *, warmup_frac: float) -> float:
    """`warmup_linear` of GPT-1's released code, which its fine-tuning uses.

        (progress / warmup, at most 1) · (1 − progress)

    Example  >>> [round(gpt1_linear(x, warmup_frac=0.002), 3) for x in (0, 0.001, 0.002, 0.5, 1)]
             [0.0, 0.499, 0.998, 0.5, 0.0]
    Source   openai/finetune-transformer-lm, opt.py.
    """
    risen = progress / warmup_frac if progress <= warmup_frac and warmup_frac > 0 else 1.0
    return risen * (1 - min(progress, 1.0))


def ramped_batch(tokens: float, *, start: int, full: int, ramp_tokens: float) -> int:
    """Sequences of the next batch after `tokens` training tokens: linear from `start` to `full`.

    Example  >>> [ramped_batch(t, start=16, full=256, ramp_tokens=4e9) for t in (0, 2e9, 4e9, 5e9)]
             [16, 136, 256, 256]
    Source   Brown 2020, App. B: linear from 32k tokens over the first 4 to 12 billion.
    """
    if tokens >= ramp_tokens:
        return full
    return round(start + (full - start) * tokens / ramp_tokens)


def decayed_and_not(model: nn.Module | Iterable[tuple[str, Tensor]]) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and embeddings, which decay; biases and LayerNorm gains, which do not.

    Of a model, or of parameters with their names.
    """
    named = list(model.named_parameters() if isinstance(model, nn.Module) else model)
    decayed = [p for name, p in named if p.dim() > 1 and not name.endswith("bias")]
    rest = [p for name, p in named if p.dim() <= 1 or name.endswith("bias")]
    return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]


class PlainAdam(torch.optim.Optimizer):
    """Adam in operations that round once each, so that an element's new value depends on that element alone.

        m = b1 m + (1 − b1) g,   v = b2 v + (1 − b2) g²                     t = 1, 2, …

        form "gpt1"     rate = lr · √(1 − b2ᵗ) / (1 − b1ᵗ)
                        p = p − rate · (m / (√v + eps) + weight_decay · p)
        form "adamw"    p = (1 − lr · weight_decay) p − lr / (1 − b1ᵗ) · m / (√v / √(1 − b2ᵗ) + eps)

    "gpt1" is Adam as GPT-1's released code has it; not torch's Adam, not AdamW. The decay is multiplied by the
    bias-corrected rate, and eps is added to the uncorrected √v. So the decay is 0.316 of AdamW's at update 1, falls to
    0.152 at update 12, and is 0.975 of it at update 3,000.

    "adamw" is equal to torch.optim.AdamW but for rounding. torch's fused and multi-tensor forms multiply and add in one
    rounding where a tensor fills a vector of the processor, and in two at its end: cut among more processes, other
    elements are at the end.

    Source   openai/finetune-transformer-lm, opt.py; Loshchilov & Hutter 2019.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        form: Literal["gpt1", "adamw"],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"form": form, "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Makes one update from the gradients at hand."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._change(p, p.grad, group)
        return loss

    def _change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        b1, b2 = group["betas"]
        state = adam_state(self, p)
        state["step"] += 1
        t, m, v = int(state["step"]), state["exp_avg"], state["exp_avg_sq"]
        m.mul_(b1).add_(g * (1 - b1))
        v.mul_(b2).add_(g.square().mul_(1 - b2))
        if group["form"] == "gpt1":
            direction = m / v.sqrt().add_(group["eps"])
            if group["weight_decay"]:
                direction.add_(p * group["weight_decay"])
            p.sub_(direction.mul_(group["lr"] * math.sqrt(1 - b2**t) / (1 - b1**t)))
        else:
            deviation = v.sqrt().div_(math.sqrt(1 - b2**t)).add_(group["eps"])
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_((m / deviation).mul_(group["lr"] / (1 - b1**t)))


GPT1Adam = partial(PlainAdam, form="gpt1")
SteadyAdamW = partial(PlainAdam, form="adamw")


def adam_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The number of updates and the two moments of one parameter, by torch's names; made, at 0, where it has none.

    They are the tensors themselves. As torch has it, the number is on the parameter's device in a fused optimiser.
    """
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), device=parameter.device if optimizer.defaults.get("fused") else None)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    return state
