"""A guard of the truth: fits how what people want goes on rising, and then falls, while a policy climbs its proxy.

Flow     at each evaluation: KL from the start, the proxy's score, the truth's score (a gold score, or a reward model
         that the policy was not trained on) → `OverOptimisation.add` → `verdict`: go, near the peak, past it
         after it: `best_episodes`, the evaluation to go back to; `raised_kl_coef`, a coefficient that holds the peak

The laws, with d = √KL, the truth at the start as 0, and a, b from the fit:

    rl     R(d) = d (a − b log d)      peak at d = exp(a / b − 1)     policies that are optimised
    bon    R(d) = d (a − b d)          peak at d = a / (2 b)          the best of N samples

Both are linear in a and b, so the fit is least squares, and the interval of the peak is where the slope cannot be told
from 0 (Fieller 1954). Plain numbers in, plain numbers out: no files, no clock, no tensors.

Source   Gao 2022, section 1 and 3.2.
Differs  The truth at the start is fitted too: it is measured with noise, as every other point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rein.errors import UserError

Numbers = npt.NDArray[np.float64]
Law = Literal["rl", "bon"]
Say = Literal["go", "near", "past"]

LEAST_POINTS = 8  # evaluations that a curve of three numbers is fitted to
WINDOW_POINTS = 3  # evaluations whose mean is compared with the best such mean before
FALL = 8.0  # times the noise between neighbours that it has to lie below that mean,
FALL_STDERRS = 2.0  # and standard errors of the difference, as if each evaluation asked other prompts
ROUNDING = 1e-6  # of the truth's size: changes below it are those of float32
NORMAL = 1.4826  # a normal distribution's standard deviation over its median absolute value
LEAST_RAISE, MOST_RAISE = 1.25, 4.0  # times the KL coefficient, at once
FARTHEST = 1e3  # √KL of a peak that is told; beyond it is as good as none


@dataclass(frozen=True)
class Peak:
    """Where the truth is predicted to be highest, with its interval; infinite where it is not known to have a peak."""

    kl_nats: float
    low_kl_nats: float
    high_kl_nats: float
    truth: float  # there


@dataclass(frozen=True)
class Fit:
    """A law with its numbers: truth = start + R(√KL). `covariance` is that of (start, a, b)."""

    law: Law
    start: float
    a: float
    b: float
    covariance: Numbers
    freedom: int

    def truth(self, kl_nats: npt.ArrayLike) -> Numbers:
        """The curve at these KLs."""
        curve: Numbers = _design(np.sqrt(np.asarray(kl_nats, float)), self.law) @ [self.start, self.a, self.b]
        return curve

    def slope(self, d: float) -> tuple[float, float]:
        """dR/dd at d = √KL, and its standard error."""
        place = np.array([0.0, 1.0, _falls(d, self.law)])
        return self.a + self.b * place[2], math.sqrt(max(float(place @ self.covariance @ place), 0.0))

    def surely(self, value: float, stderr: float, confidence: float) -> bool:
        """Whether a number of this fit is above 0 with so much confidence, by Student's t."""
        return value > quantile(self.freedom, confidence) * stderr and value > 0

    def peak(self, confidence: float = 0.95) -> Peak:
        """Where the slope is 0, and all places where it may be, with so much confidence.

            (a + b u)² ≤ t² (V_aa + 2 u V_ab + u² V_bb)        u(d) = −1 − log d, or −2 d

        The interval has no upper end where b may be 0.
        """
        t_sq = quantile(self.freedom, (1 + confidence) / 2) ** 2
        (v_aa, v_ab), (_, v_bb) = self.covariance[1:, 1:].tolist()
        squared = self.b**2 - t_sq * v_bb
        half = self.a * self.b - t_sq * v_ab
        constant = self.a**2 - t_sq * v_aa
        root = math.sqrt(max(half**2 - squared * constant, 0.0))
        if squared > 0 and self.b > 0:
            low, high = _where((root - half) / squared, self.law), _where((-root - half) / squared, self.law)
        elif squared < 0 and half**2 > squared * constant:  # beyond the lower root, and before the higher one
            low, high = _where((half - root) / -squared, self.law), math.inf
        else:  # nothing is known of b; or it is surely below 0, and there is no peak
            low, high = (math.inf if squared > 0 else 0.0), math.inf
        d = _where(-self.a / self.b, self.law) if self.b > 0 else math.inf
        truth = float(self.truth([d**2])[0]) if math.isfinite(d) else math.inf
        return Peak(d**2, low**2, high**2, truth)


def _design(d_N: Numbers, law: Law) -> Numbers:
    """Columns whose sum, times start, a and b, is the truth."""
    falls_N = -d_N * np.log(np.where(d_N > 0, d_N, 1.0)) if law == "rl" else -(d_N**2)
    return np.stack([np.ones_like(d_N), d_N, falls_N], axis=1)


def _rounding(truth_N: Numbers) -> float:
    """A difference of truths that says nothing."""
    return ROUNDING * float(np.abs(truth_N).max())


def _falls(d: float, law: Law) -> float:
    """u in the slope a + b u."""
    return -1.0 - math.log(d) if law == "rl" else -2.0 * d


def _where(u: float, law: Law) -> float:
    """The d of a u; infinite where that is out of reach."""
    d = math.exp(min(-1.0 - u, 700.0)) if law == "rl" else max(-u / 2, 0.0)
    return d if d <= FARTHEST else math.inf


def quantile(freedom: int, confidence: float) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, confidence))


def fit(
    kl_nats_N: Sequence[float] | Numbers,
    truth_N: Sequence[float] | Numbers,
    stderr_N: Sequence[float] | Numbers | None = None,
    *,
    law: Law = "rl",
) -> Fit | None:
    """The law through these points by least squares; None where there are too few, or too few different KLs or truths.

    Where all have a standard error, points weigh by 1 / stderr². How large the noise is, is told from the residuals
    alone: the same held-out prompts at each evaluation make a standard error too large for comparing two of them.
    Residuals that go along with their neighbours', as those of a curve of another shape do, count as fewer:

        V = (Xᵀ W X)⁻¹ · χ² / (N − 3) · (1 + ρ) / (1 − ρ)      ρ their correlation with the next one's, from 0 to 0.8

    Units    kl_nats_N of a whole response. Slightly negative estimates count as 0.
    Example  >>> kl = np.array([0.0, 0.5, 1, 2, 4, 8, 16, 32])
             >>> d = np.sqrt(kl)
             >>> found = fit(kl, 0.3 + d * (1.0 - 0.5 * np.log(np.maximum(d, 1e-9))))
             >>> round(found.start, 6), round(found.a, 6), round(found.b, 6)
             (0.3, 1.0, 0.5)
             >>> round(found.peak().kl_nats, 4), round(math.exp(2 * (1.0 / 0.5 - 1)), 4)
             (7.3891, 7.3891)
    Source   Gao 2022, section 1. A page on the web prints the law of best-of-N for reinforcement learning too.
    """
    d_N = np.sqrt(np.maximum(np.asarray(kl_nats_N, float), 0.0))
    truth = np.asarray(truth_N, float)
    if len(d_N) < LEAST_POINTS or len(np.unique(d_N.round(6))) < 4 or np.ptp(truth) <= _rounding(truth):
        return None
    spread_N = np.ones_like(d_N) if stderr_N is None else np.asarray(stderr_N, float)
    spread_N = spread_N if spread_N.min() > 0 else np.ones_like(d_N)
    X_N3, y_N = _design(d_N, law) / spread_N[:, None], truth / spread_N
    scale_3 = np.linalg.norm(X_N3, axis=0)
    if not (scale_3 > 0).all() or np.linalg.cond(X_N3 / scale_3) > 1e6:
        return None
    inverse_3N = np.linalg.pinv(X_N3)
    found_3 = inverse_3N @ y_N
    start, a, b = found_3.tolist()
    left_N = y_N - X_N3 @ found_3
    freedom = len(d_N) - 3
    chi_sq = float(left_N @ left_N)
    rho = float(np.clip(left_N[1:] @ left_N[:-1] / chi_sq, 0.0, 0.8)) if chi_sq > 0 else 0.0
    covariance = inverse_3N @ inverse_3N.T * (chi_sq / freedom * (1 + rho) / (1 - rho))
    return Fit(law, start, a, b, covariance, freedom)


# -------------------------------------------------------------------------------------------------------- the guard


@dataclass(frozen=True)
class Verdict:
    """What the evaluations so far say, and why, in sentences."""

    say: Say
    reasons: tuple[str, ...]
    peak: Peak | None  # None while there is no fit
    best_episodes: int | None  # of the evaluation to go back to; None before the first


@dataclass(frozen=True)
class _Point:
    episodes: int
    kl_nats: float
    proxy: float
    truth: float | None  # None where there is nobody to ask: then there is a limit of the KL alone
    truth_stderr: float | None


class OverOptimisation:
    """Watches proxy and truth, evaluation by evaluation.

    The truth is "near" its peak when the fit surely bends (b > 0) and the KL has reached the predicted peak. It is
    "past" it when, besides, the slope there is surely below 0; or, whatever the curve, when the mean of the last three
    evaluations lies far below the best such mean. Both have to hold for `patience_evaluations` in a row.

    Simulated: 50 evaluations each, √KL up to 3 to 10 with 10% noise in KL, the truth with noise of 3 or 10% of its
    whole gain (normal, Student t₃, or correlated by 0.6 with the one before). A loss is a part of that gain.

        the law, a parabola, or a crash, with a peak at 25 to 70% of the way: 2,160 curves
            "near" in all, at a loss of 0.09 (median); "past" in 2,142, 7 evaluations after the peak with noise of 3%,
            10 with 10% (medians); then `best_episodes` names one at a loss of 0.01 (median), in 95% at most 0.03 or
            0.10. Unguarded, they end 1.1 below the peak (median)
        a rise that does not end: 2,160    "past" in 12, 11 of them with noise of 10%; "near" in 115, 109 of them so
        a rise that levels out: 720        "past" in 95; `best_episodes` loses more than 0.1 in 3 of them
        nothing but noise: 360             "past" in 27, 19 of them where noise is correlated

    The best single evaluation, which PPO keeps, is hardly worse than `best_episodes`: 180 such curves with a peak, of
    50 evaluations, lost 0.003 with noise of 3%, 0.009 with 10% (medians), in 95% at most 0.03 or 0.10; its own score
    was 0.04 or 0.16 above what it is worth (medians).

    So "past" is a reason to stop and go back; "near" is one to raise the KL coefficient, which costs little if it is
    wrong. The law is that of Gao's models; what follows another curve is caught by its fall, not foreseen.

    Example  >>> guard = OverOptimisation()
             >>> for n in range(12):
             ...     d = n / 2
             ...     guard.add(512 * n, d * d, proxy=d, truth=d * (1 - 0.7 * math.log(d)) if d else 0.0)
             >>> verdict = guard.verdict()
             >>> verdict.say, round(verdict.peak.kl_nats, 3), verdict.best_episodes
             ('past', 2.356, 1536)
    """

    def __init__(
        self,
        *,
        law: Law = "rl",
        confidence: float = 0.99,
        patience_evaluations: int = 3,
        kl_limit_nats: float | None = None,
    ) -> None:
        """`kl_limit_nats`: a KL beyond which it is past the peak, whatever the truth says; None: there is none.

        Raises   UserError when a setting is outside its range.
        """
        if not 0.5 < confidence < 1:
            raise UserError(f"--guard-confidence is {confidence:g}, but it must be above 0.5 and below 1.", "Use 0.99.")
        if patience_evaluations < 1:
            raise UserError(
                f"--guard-patience-evaluations is {patience_evaluations}, but it must be at least 1.", "Use 3, or more."
            )
        if kl_limit_nats is not None and not kl_limit_nats > 0:
            raise UserError(
                f"--kl-limit-nats is {kl_limit_nats:g}, but it must be above 0.", "Use none for no limit of the KL."
            )
        self._law: Law = law
        self._confidence, self._patience, self._kl_limit_nats = confidence, patience_evaluations, kl_limit_nats
        self._points: list[_Point] = []
        self._near = self._past = 0  # evaluations in a row that said so

    def add(
        self, episodes: int, kl_nats: float, proxy: float, truth: float | None, truth_stderr: float | None = None
    ) -> None:
        """One evaluation, later than those before it. Without a truth only the limit of the KL can be passed.

        Units    kl_nats of a whole response; truth and its standard error over the held-out prompts.
        Raises   UserError when a number is none, or the standard error is below 0.
        """
        for name, value in (("KL", kl_nats), ("proxy's score", proxy), ("true score", truth)):
            if value is not None and not math.isfinite(value):
                raise UserError(
                    f"The {name} after {episodes:,} episodes is {value:g}, but it must be a finite number.",
                    "Look at the samples and at the reward model; go back to an earlier checkpoint.",
                )
        if truth_stderr is not None and not 0 <= truth_stderr < math.inf:
            raise UserError(
                f"The standard error of the true score after {episodes:,} episodes is {truth_stderr:g}, "
                "but it must be a number of at least 0.",
                "Evaluate on at least two held-out prompts.",
            )
        assert not self._points or episodes > self._points[-1].episodes, "evaluations come in the order of episodes"
        self._points.append(_Point(episodes, kl_nats, proxy, truth, truth_stderr))
        found = self.fit()
        near = found is not None and self._at_peak(found)
        past = bool(found and near and self._falling(found)) or self._fallen() or self._too_far()
        self._near = self._near + 1 if near else 0
        self._past = self._past + 1 if past else 0

    def verdict(self) -> Verdict:
        """What to make of it: "go", "near" (at the predicted peak) or "past" (the truth surely falls)."""
        found = self.fit()
        peak = None if found is None else found.peak()
        say: Say = "past" if self._past >= self._patience else "near" if self._near >= self._patience else "go"
        return Verdict(say, tuple(self._reasons(say, found, peak)), peak, self._best_episodes())

    def fit(self, what: Literal["truth", "proxy"] = "truth") -> Fit | None:
        """The law through the truth, or through the proxy, so far; None while there are too few points."""
        kl_nats_N = [point.kl_nats for point in self._points]
        if what == "proxy":
            return fit(kl_nats_N, [point.proxy for point in self._points], law=self._law)
        truth_N, stderr_N = self._truths(), self._stderrs()
        whole = stderr_N if len(stderr_N) == len(kl_nats_N) > 0 else None
        return fit(kl_nats_N, truth_N, whole, law=self._law) if len(truth_N) == len(kl_nats_N) else None

    def raised_kl_coef(self, kl_coef: float) -> float:
        """The KL coefficient to go on with at the peak; verdicts then start anew from the next evaluation.

            β* = (dR_proxy / dd) / (2 d)  at the predicted peak       β ← β · clip(β* / β, 1.25, 4)

        At β* the policy that is best by proxy − β · KL lies at the peak: going on raises the penalty β d² as much as
        the proxy. If that overshoots, KL falls back along the same curve, so a coefficient too high costs time, no
        truth. Where no peak or no slope is known, β doubles.

        Units    kl_coef as PPO uses it: of the proxy's score per nat of a whole response's KL.
        Source   Gao 2022, section 3.2: the proxy bends likewise; section 3.6: a penalty moves along the same curve.
        """
        self._near = self._past = 0
        truth, proxy = self.fit(), self.fit("proxy")
        wanted = 2.0 * kl_coef
        if truth is not None and proxy is not None and math.isfinite(peak := truth.peak().kl_nats) and peak > 0:
            d = math.sqrt(peak)
            wanted = max(proxy.slope(d)[0], 0.0) / (2 * d)
        return min(max(wanted, LEAST_RAISE * kl_coef), MOST_RAISE * kl_coef)

    def state_dict(self) -> dict[str, Any]:
        """All that later verdicts depend on, as plain JSON values."""
        return {"points": [list(astuple(point)) for point in self._points], "near": self._near, "past": self._past}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the guard that gave `state` was."""
        self._points = [_Point(*row) for row in state["points"]]
        self._near, self._past = state["near"], state["past"]

    # ------------------------------------------------------------------------------------------------------ inside

    def _truths(self) -> Numbers:
        return np.array([point.truth for point in self._points if point.truth is not None], float)

    def _stderrs(self) -> Numbers:
        return np.array([point.truth_stderr for point in self._points if point.truth_stderr is not None], float)

    def _d(self) -> float:
        return math.sqrt(max(self._points[-1].kl_nats, 0.0))

    def _at_peak(self, found: Fit) -> bool:
        bends = found.surely(found.b, math.sqrt(found.covariance[2, 2]), self._confidence)
        return bends and self._points[-1].kl_nats >= found.peak().kl_nats

    def _falling(self, found: Fit) -> bool:
        slope, stderr = found.slope(self._d())
        return found.surely(-slope, stderr, self._confidence)

    def _fallen(self) -> bool:
        """Whether the newest evaluations lie far below the best ones before, whatever the curve is.

        The noise is told from how far neighbours differ, so that a rise or a fall does not count as noise. Where most
        of them do not differ at all, that says nothing: a fall is then one beyond what the prompts' number allows.
        """
        truth_N, stderr_N = self._truths(), self._stderrs()
        if len(truth_N) < LEAST_POINTS:
            return False
        window = np.full(WINDOW_POINTS, 1 / WINDOW_POINTS)
        means = np.convolve(truth_N, window, "valid")
        best = int(means[:-WINDOW_POINTS].argmax())
        noise = NORMAL * float(np.median(np.abs(np.diff(truth_N)))) / math.sqrt(2)
        least = max(FALL * noise * math.sqrt(2 / WINDOW_POINTS), _rounding(truth_N))
        if len(stderr_N) == len(truth_N):
            of_means = np.convolve(stderr_N**2, window, "valid") / WINDOW_POINTS
            least = max(least, FALL_STDERRS * math.sqrt(of_means[best] + of_means[-1]))
        return bool(means[best] - means[-1] > least)

    def _too_far(self) -> bool:
        return self._kl_limit_nats is not None and self._points[-1].kl_nats > self._kl_limit_nats

    def _best_episodes(self) -> int | None:
        """The evaluation with the highest mean of it and its neighbours: noise alone makes no best one."""
        truth_N = self._truths()
        if not len(truth_N):
            return None
        near_N = np.minimum(np.arange(len(truth_N)), WINDOW_POINTS // 2)
        means = [truth_N[max(i - n, 0) : i + WINDOW_POINTS // 2 + 1].mean() for i, n in enumerate(near_N)]
        return self._points[int(np.argmax(means))].episodes

    def _reasons(self, say: Say, found: Fit | None, peak: Peak | None) -> Iterator[str]:
        if not self._points:
            yield "Nothing was evaluated yet."
            return
        now = self._points[-1]
        if now.truth is None:
            yield f"No true score is watched; the KL is {now.kl_nats:.3g} nats now."
        elif found is None or peak is None:
            yield (
                f"The curve needs {LEAST_POINTS} evaluations or more, at KLs and with scores that differ; it has "
                f"{len(self._points)}."
            )
        elif math.isfinite(peak.kl_nats):
            to = f"to {peak.high_kl_nats:.3g}" if math.isfinite(peak.high_kl_nats) else "without an upper end"
            yield (
                f"The true score is predicted to be highest, {peak.truth:.3g}, at a KL of {peak.kl_nats:.3g} nats "
                f"(95% interval {peak.low_kl_nats:.3g} {to}); the KL is {now.kl_nats:.3g} nats now."
            )
        else:
            yield f"The true score is not seen to bend yet; the KL is {now.kl_nats:.3g} nats now."
        if say == "go":
            return
        if found is not None and self._at_peak(found) and self._falling(found):
            slope, _ = found.slope(self._d())
            yield f"Past the peak, the true score falls by {-slope:.3g} for each unit of √KL."
        if self._fallen():
            best = next(point for point in self._points if point.episodes == self._best_episodes())
            yield (
                f"The true score is {now.truth:.3g} and was {best.truth:.3g} after {best.episodes:,} episodes, while "
                f"the proxy went from {best.proxy:.3g} to {now.proxy:.3g}."
            )
        if self._too_far():
            yield f"The KL of {now.kl_nats:.3g} nats is above --kl-limit-nats {self._kl_limit_nats:g}."
