"""The gradient noise scale: how large a batch is still worth its cost, measured while training.

    squared norms of a small and of a large batch's mean gradient ─ unbiased → |G|², tr(Σ)
       ─ NoiseScale (moving averages) → B_simple = tr(Σ) / |G|², with a 95% interval ─ BatchController → a batch

G is the gradient over all text, Σ the covariance of one example's gradient around it. A batch of B examples has

    E|G_B|² = |G|² + tr(Σ) / B

so two batch sizes give both unknowns. Far below B_simple, twice the batch is nearly worth two updates; far above it,
nearly none. Everything here is counted in the unit of the batches that are given; ours are sequences, so B_simple in
tokens is n_ctx times that.

What it costs: nothing, where both norms are at hand. Data parallel, |G_small|² is a process's norm before the
gradients are averaged and |G_big|² the norm after. Where they arrive averaged, or on one device, |G_small|² is the norm
after one micro-batch and |G_big|² after all. `LayerNormExamples` needs neither: its small batch is one example.

An instrument, not an oracle: Merrill 2025 find the noise scale hard to trust as a stand-in for the critical batch,
and measure that by short branched runs, as `rein critical-batch` does.

Source: McCandlish 2018, arXiv 1812.06162; LayerNorm alone: Gray 2024, arXiv 2411.00999; against: Merrill 2025,
arXiv 2505.23971. Brown 2020 §2.3 chose GPT-3's batches with the help of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import Function


def unbiased(small_sq: float, b_small: float, big_sq: float, b_big: float) -> tuple[float, float]:
    """|G|² and tr(Σ) from the squared norms of two mean gradients at the same weights.

        |G|²  = (b_big · big_sq − b_small · small_sq) / (b_big − b_small)
        tr(Σ) = (small_sq − big_sq) / (1/b_small − 1/b_big)

    Each is right on average, and |G|² of a single update is often negative: average them before dividing.
    `small_sq` may be the mean over several small batches. They may be parts of the large one.

    Units    b_small, b_big: examples; both results: squared norms.
    Example  >>> unbiased(small_sq=2 + 800 / 4, b_small=4, big_sq=2 + 800 / 64, b_big=64)
             (2.0, 800.0)
    Source   McCandlish 2018, the two equations above solved for |G|² and tr(Σ).
    """
    assert 0 < b_small < b_big, f"two batches of different size are needed, not {b_small} and {b_big} examples"
    gradient_sq = (b_big * big_sq - b_small * small_sq) / (b_big - b_small)
    trace = (small_sq - big_sq) / (1 / b_small - 1 / b_big)
    return gradient_sq, trace


# ------------------------------------------------------------------------------------------- the moving average


@dataclass(frozen=True)
class Estimate:
    """B_simple with its 95% interval, in the unit of the batches that were measured.

    Infinite values are meant: `high` where |G|² cannot be told from 0, `b_simple` where its average is not even
    positive. With both averages at or below 0, `b_simple` is NaN: nothing is known yet.

    Example  >>> print(Estimate(429.4, 335.0, 540.2))
             429 sequences (95% interval 335 to 540)
             >>> print(Estimate(math.inf, 210.0, math.inf))
             at least 210 sequences (the gradient cannot be told from 0 in its noise, so there is no upper end)
             >>> print(Estimate(95.0, 0.0, math.inf))
             not known yet
    """

    b_simple: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"{_short(self.b_simple)} sequences (95% interval {_short(self.low)} to {_short(self.high)})"
        if self.low > 0:
            why = "the gradient cannot be told from 0 in its noise, so there is no upper end"
            return f"at least {_short(self.low)} sequences ({why})"
        return "not known yet"

    def row(self) -> dict[str, float]:
        """The columns of metrics.jsonl. Infinity, which JSON has not, and a lower end of 0 are left out.

        Example  >>> Estimate(math.inf, 210.0, math.inf).row()
                 {'noise_scale_low_sequences': 210.0}
        """
        values = {name: getattr(self, field) for field, name in _COLUMNS.items() if field != "low" or self.low > 0}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Estimate | None:
        """The estimate in a row of metrics.jsonl, None where nothing was known.

        Example  >>> Estimate.from_row({"opt_step": 5, "noise_scale_low_sequences": 210.0})
                 Estimate(b_simple=inf, low=210.0, high=inf)
        """
        if not row.keys() & set(_COLUMNS.values()):
            return None
        return cls(**{field: row.get(name, 0.0 if field == "low" else math.inf) for field, name in _COLUMNS.items()})


_COLUMNS = {
    "b_simple": "noise_scale_sequences",
    "low": "noise_scale_low_sequences",
    "high": "noise_scale_high_sequences",
}


def _short(sequences: float) -> str:
    return f"{sequences:,.0f}" if sequences >= 10 else f"{sequences:.2g}"


class NoiseScale:
    """Moving averages of |G|² and tr(Σ), apart, and the interval of their ratio.

        x̄ = Σ wᵢ xᵢ / Σ wᵢ,   x = (|G|², tr(Σ)),   wᵢ = decay^(measurements since)
        V = Σ wᵢ² (xᵢ − x̄)(xᵢ − x̄)ᵀ / ((Σ wᵢ)² − Σ wᵢ²)
        interval = all r ≥ 0 for which tr̄ − r · Ḡ² is within t of 0, in its own deviations √(V_tt − 2 r V_gt + r² V_gg)

    The division by Σ wᵢ makes the average right from the first measurement on. A measurement is unbiased whatever
    its batches were, so they may grow meanwhile; V takes each deviation as it is and so allows for measurements that
    get more precise as they do. t is Student's, with the effective number of measurements (Σ wᵢ)² / Σ wᵢ² less one.
    The interval has no upper end where Ḡ² is within t deviations of 0: the data then do not exclude a gradient of 0.

    Measurements are taken as independent. The interval speaks of the averaged |G|² and tr(Σ), so of the weights some
    1 / (1 − decay) measurements ago; a drift meanwhile is not in it.

    Example  >>> noise = NoiseScale()
             >>> for wobble in (0.9, 1.1, 1.0, 0.95, 1.05):
             ...     noise.update(small_sq=202 * wobble, b_small=4, big_sq=14.5 * wobble, b_big=64)
             >>> print(noise.estimate())
             400 sequences (95% interval 400 to 400)
    Source   averages apart: McCandlish 2018; the interval: Fieller's of a ratio of two means.
    """

    def __init__(self, decay: float = 0.98) -> None:
        assert 0 <= decay < 1, f"decay={decay} is not in [0, 1)"
        self._decay = decay
        self._weight = self._weight_sq = 0.0  # Σ w, Σ w²
        self._mean = np.zeros(2)  # of (|G|², tr(Σ)) with weights w
        self._mean_sq = np.zeros(2)  # with weights w²
        self._spread_sq = np.zeros((2, 2))  # Σ w² (x − _mean_sq)(x − _mean_sq)ᵀ

    def update(self, small_sq: float, b_small: float, big_sq: float, b_big: float) -> None:
        """Takes in one measurement: the squared norms of a small and of a large batch's mean gradient."""
        pair = np.array(unbiased(small_sq, b_small, big_sq, b_big))
        assert np.isfinite(pair).all(), f"gradient norms that are no numbers ({small_sq}, {big_sq}) end a run before"
        self._weight = self._decay * self._weight + 1
        self._mean += (pair - self._mean) / self._weight
        self._weight_sq = self._decay**2 * self._weight_sq + 1
        before = pair - self._mean_sq
        self._mean_sq += before / self._weight_sq
        self._spread_sq = self._decay**2 * self._spread_sq + np.outer(before, pair - self._mean_sq)

    def estimate(self) -> Estimate:
        """What is known now; an interval from 0 to infinity while that is nothing."""
        gradient_sq, trace = self._mean.tolist()
        if gradient_sq > 0:
            b_simple = max(trace, 0.0) / gradient_sq
        else:
            b_simple = math.inf if trace > 0 else math.nan
        effective = self._weight**2 / self._weight_sq if self._weight_sq else 0.0
        if effective <= 1 or math.isnan(b_simple):
            return Estimate(b_simple, 0.0, math.inf)
        apart = self._mean_sq - self._mean
        spread = self._spread_sq + self._weight_sq * np.outer(apart, apart)
        low, high = _fieller(gradient_sq, trace, spread / (self._weight**2 - self._weight_sq), effective - 1)
        return Estimate(b_simple, min(low, b_simple), max(high, b_simple))  # it is in its interval, but for rounding

    def state(self) -> dict[str, float]:
        """All that it remembers, as plain numbers that JSON keeps to the last bit."""
        return {
            "decay": self._decay,
            "weight": self._weight,
            "weight_sq": self._weight_sq,
            **dict(zip(("gradient_sq", "trace"), self._mean.tolist(), strict=True)),
            **dict(zip(("gradient_sq_of_sq", "trace_of_sq"), self._mean_sq.tolist(), strict=True)),
            **dict(zip(_SPREADS, self._spread_sq.flatten().tolist(), strict=True)),
        }

    @classmethod
    def from_state(cls, state: dict[str, float]) -> NoiseScale:
        """One that goes on, bit for bit, where `state` was taken."""
        noise = cls(state["decay"])
        noise._weight, noise._weight_sq = state["weight"], state["weight_sq"]
        noise._mean = np.array([state["gradient_sq"], state["trace"]])
        noise._mean_sq = np.array([state["gradient_sq_of_sq"], state["trace_of_sq"]])
        noise._spread_sq = np.array([state[name] for name in _SPREADS]).reshape(2, 2)
        return noise


_SPREADS = ("spread_gg", "spread_gt", "spread_tg", "spread_tt")


def _fieller(gradient_sq: float, trace: float, V: NDArray[np.float64], freedom: float) -> tuple[float, float]:
    """The 95% interval of trace / gradient_sq, as far as it is not negative.

    (trace − r gradient_sq)² ≤ t² (V_tt − 2 r V_gt + r² V_gg)  is  a r² − 2 b r + c ≤ 0 in the ratio r: between its two
    roots where a > 0, and everything above the positive one where a ≤ 0 < c.
    """
    from scipy.special import stdtrit

    t_sq = float(stdtrit(freedom, 0.975)) ** 2
    a = gradient_sq**2 - t_sq * float(V[0, 0])
    b = gradient_sq * trace - t_sq * float(V[0, 1])
    c = trace**2 - t_sq * float(V[1, 1])
    root = math.sqrt(max(b * b - a * c, 0.0))
    low = c / (b + root) if c > 0 and b + root > 0 else 0.0  # this form of the lower root holds for a ≤ 0 as well
    high = max(b + root, 0.0) / a if a > 0 else math.inf
    return low, high


# ------------------------------------------------------------------------------------------------ LayerNorm alone


class LayerNormExamples:
    """Every example's own gradient of the LayerNorms' gains and biases, from the backward pass that is made anyway.

        dγ_b = Σ_t dy_bt ∘ x̂_bt,   dβ_b = Σ_t dy_bt,   x̂ the normalised input

    A batch of B examples so gives |G_small|² at b_small = 1 and |G_big|² at b_big = B of these parameters, without
    any accumulation. Their noise scale goes along with that of all parameters; it is not equal to it.

        with LayerNormExamples(model, scale=sequences) as examples:
            for part in parts:
                (model.loss(*part) * (len(part[0]) / sequences)).backward()
        noise.update(*measurement(examples.totals()))

    `scale` undoes what the loss divides an example's own mean loss by. Where a micro-batch's loss is its mean over n
    examples times its share n / N of the batch, that is N, whatever n.

    The inputs are kept by autograd beside those that LayerNorm itself keeps, so under activation checkpointing they
    are recomputed, not held, and each backward pass is counted once. Parameters are not touched: they may be sharded.
    x̂ and the sums are in float32 at least, whatever autocast makes of the inputs. The first axis is the examples'.
    Each LayerNorm is to be applied once in a forward pass.

    Source   Gray 2024, arXiv 2411.00999.
    """

    def __init__(self, model: nn.Module, *, scale: float) -> None:
        self._norms = [
            module for module in model.modules()
            if isinstance(module, nn.LayerNorm) and module.weight is not None and module.weight.requires_grad
        ]  # fmt: skip
        assert self._norms, "the model has no LayerNorm with a gain to learn"
        self._scale = scale
        self._hooks: list[Any] = []
        self._squares: list[list[Tensor]] = []
        self._sums: list[Tensor | None] = []

    def __enter__(self) -> LayerNormExamples:
        self._squares = [[] for _ in self._norms]
        self._sums = [None for _ in self._norms]
        self._hooks = [norm.register_forward_hook(partial(self._tap, n)) for n, norm in enumerate(self._norms)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def squared_norms(self) -> Tensor:
        """|g_b|² of every example, in the order in which they went backward: (B,)."""
        seen = [torch.cat(squares) for squares in self._squares if squares]
        assert seen, "no backward pass was made through a LayerNorm"
        counts = {len(squares) for squares in seen}
        assert len(counts) == 1, f"a LayerNorm that is applied twice cannot be measured: they saw {counts} examples"
        return torch.stack(seen).sum(dim=0)

    def totals(self) -> Tensor:
        """The number of examples, Σ_b |g_b|², and Σ_b g_b, as one flat float64 tensor.

        What several processes measured is the sum of theirs: all-reduce it before `measurement`.
        """
        squares_B = self.squared_norms()
        sums = [total.double() for total in self._sums if total is not None]
        return torch.cat([squares_B.new_tensor([len(squares_B)]).double(), squares_B.double().sum().view(1), *sums])

    def _tap(self, place: int, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _Tap.apply(output, inputs[0].detach(), partial(self._note, place))  # type: ignore[no-any-return, no-untyped-call]

    def _note(self, place: int, x: Tensor, dy: Tensor) -> None:
        norm = self._norms[place]
        dtype = torch.promote_types(x.dtype, torch.float32)
        shape = (x.shape[0], -1, math.prod(norm.normalized_shape))
        x_hat = F.layer_norm(x.to(dtype), norm.normalized_shape, eps=norm.eps).reshape(shape)
        dy = dy.to(dtype).reshape(shape) * self._scale
        gradients = [(dy * x_hat).sum(dim=1)] + ([] if norm.bias is None else [dy.sum(dim=1)])
        example = torch.cat(gradients, dim=1)
        self._squares[place].append(example.square().sum(dim=1))
        total, before = example.sum(dim=0), self._sums[place]
        self._sums[place] = total if before is None else before + total


def measurement(totals: Tensor) -> tuple[float, float, float, float]:
    """(small_sq, b_small, big_sq, b_big) for `NoiseScale.update`, from the totals of all examples of a batch.

    Example  >>> measurement(torch.tensor([2.0, 5.0, 3.0, 0.0]))  # two examples, with |g|² 4 and 1
             (2.5, 1.0, 2.25, 2.0)
    """
    examples, squares, *_ = totals.tolist()
    mean = totals[2:] / examples
    return squares / examples, 1.0, float(mean @ mean), examples


class _Tap(Function):
    """The identity; on the way back it shows the gradient, and an input that autograd kept or recomputed."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, note: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.note = note
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        ctx.note(x, grads[0])
        return grads[0], None, None


# ------------------------------------------------------------------------------------------------- the controller


class BatchController:
    """The batch that the measured noise asks for, followed slowly.

        target = clamp(b_simple · factor, start, full)

    The batch grows only after `patience` measurements in a row whose interval lies above batch · (1 + margin) as a
    whole; then it goes to the target, but at most doubles, and to a multiple of `granule` (`start` and `full` may be
    other numbers). It shrinks only where `shrinks` says so: in the mirror image, at most by half.

    An instrument, not an oracle. Against it: the step from B_simple to the batch at which efficiency falls assumes
    plain SGD, and we use Adam; Merrill 2025 (arXiv 2505.23971) find the noise scale hard to trust for it, and warm
    the batch up along a critical batch that they measured by branched runs. For it: Gray 2024 (arXiv 2411.00999)
    saved 18% of the training time with a batch that followed the noise. So check it: `rein critical-batch`.

    Units    start, full, granule: the unit of the estimates, sequences.
    Example  >>> controller = BatchController(start=16, full=512, granule=16, patience=2)
             >>> [controller.decide(Estimate(100.0, 70.0, 150.0)) for _ in range(7)]
             [16, 32, 32, 64, 64, 64, 64]
    """

    def __init__(
        self,
        *,
        start: int,
        full: int,
        granule: int = 1,
        factor: float = 1.0,
        margin: float = 0.1,
        patience: int = 10,
        shrinks: bool = False,
    ) -> None:
        assert 1 <= start <= full, f"a batch from {start} to {full} sequences"
        assert granule >= 1, f"granule={granule}"
        assert patience >= 1, f"patience={patience}"
        self.sequences = start
        self._start, self._full, self._granule = start, full, granule
        self._factor, self._margin, self._patience, self._shrinks = factor, margin, patience, shrinks
        self._streak = 0  # measurements in a row that ask for more (above 0) or for less (below 0)

    def decide(self, estimate: Estimate) -> int:
        """Takes in a measurement; returns the batch to use from now on."""
        now = self.sequences
        if estimate.low * self._factor > now * (1 + self._margin):
            self._streak = max(self._streak, 0) + 1
        elif self._shrinks and estimate.high * self._factor < now * (1 - self._margin):
            self._streak = min(self._streak, 0) - 1
        else:
            self._streak = 0
        if abs(self._streak) >= self._patience:
            target = min(max(estimate.b_simple * self._factor, now / 2), now * 2)  # finite, where it was infinite
            # Rounded towards what it is now, so that no rounding doubles or turns a change.
            granules = math.floor(target / self._granule) if self._streak > 0 else math.ceil(target / self._granule)
            nearest = max if self._streak > 0 else min
            self.sequences = nearest(now, min(max(granules * self._granule, self._start), self._full))
            if self.sequences != now:
                self._streak = 0
        return self.sequences

    def state(self) -> dict[str, float]:
        """Its settings and where it stands, as plain numbers."""
        return {
            "sequences": self.sequences, "streak": self._streak, "start": self._start, "full": self._full,
            "granule": self._granule, "factor": self._factor, "margin": self._margin, "patience": self._patience,
            "shrinks": self._shrinks,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, float]) -> BatchController:
        """One that goes on where `state` was taken."""
        controller = cls(
            start=int(state["start"]), full=int(state["full"]), granule=int(state["granule"]),
            factor=state["factor"], margin=state["margin"], patience=int(state["patience"]),
            shrinks=bool(state["shrinks"]),
        )  # fmt: skip
        controller.sequences, controller._streak = int(state["sequences"]), int(state["streak"])
        return controller
