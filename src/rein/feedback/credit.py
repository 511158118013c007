"""Credit assignment: which steps did the trainer mean when the key went down?

A person sees what the agent did, judges it, and presses a key: that takes time, and how long is not known. So a press
is shared out over the steps it may have meant, by the density of that delay.

Flow     steps as they begin and end, presses as they come → `CreditAssigner` → samples (step, label, weight) for Ĥ
Source   Knox & Stone 2009 (individual reward), Knox's dissertation (aggregate reward, the default); the constants
         and the rules of training on and off are those of the released code, `agents/CreditAssign.java`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rein.errors import UserError

MIN_USED_FOR_EXTRAPOLATION = 0.5  # below it, what will still come says more than what has come
ALL_USED = 0.99999  # of the credit a step can get: then its label is final
MIN_USED_TO_KEEP = 0.9  # of a step, when training is switched off: else it is thrown out

Scheme = Literal["aggregate", "aggregate-rewarded", "individual", "individual-rewarded"]


# ------------------------------------------------------------------------------------------- densities of delay


class Density(Protocol):
    """How long a trainer takes from seeing to pressing: a distribution over seconds ≥ 0."""

    def cdf(self, delay_s: float) -> float:
        """P(delay ≤ delay_s)."""

    def cdf_integral(self, delay_s: float) -> float:
        """∫ cdf(x) dx from −∞ to delay_s, in seconds."""

    def inverse_cdf(self, probability: float) -> float:
        """The delay, in seconds, that is not exceeded with this probability: draws delays from uniform numbers."""


@dataclass(frozen=True)
class Uniform:
    """Any delay between `low_s` and `high_s` is as likely as any other.

    Units    seconds
    Example  >>> Uniform(0.0, 1.0).cdf(0.5)
             0.5
    Raises   UserError unless 0 ≤ low_s < high_s.
    Source   the released code's default is 0.2 to 0.8 s.
    """

    low_s: float = 0.2
    high_s: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.low_s < self.high_s < math.inf:
            raise UserError(
                f"The credit window is {self.low_s:g} to {self.high_s:g} s, but it must begin at 0 or later and end "
                "after it begins.",
                "Change --credit-low-s or --credit-high-s.",
            )

    def cdf(self, delay_s: float) -> float:
        """P(delay ≤ delay_s)."""
        return min(1.0, max(0.0, (delay_s - self.low_s) / (self.high_s - self.low_s)))

    def cdf_integral(self, delay_s: float) -> float:
        """∫ cdf up to delay_s."""
        width = self.high_s - self.low_s
        inside = min(width, max(0.0, delay_s - self.low_s))
        return inside * inside / (2 * width) + max(0.0, delay_s - self.high_s)

    def inverse_cdf(self, probability: float) -> float:
        """The delay not exceeded with this probability."""
        return self.low_s + probability * (self.high_s - self.low_s)


@dataclass(frozen=True)
class Gamma:
    """Delays with one hump and a long tail: density ∝ x^(shape−1) · e^(−x/scale_s).

    Units    scale_s in seconds; the mean is shape · scale_s.
    Raises   UserError unless both are above 0.
    """

    shape: float = 2.0
    scale_s: float = 0.28

    def __post_init__(self) -> None:
        if not (0 < self.shape < math.inf and 0 < self.scale_s < math.inf):
            raise UserError(
                f"The gamma density has shape {self.shape:g} and scale {self.scale_s:g} s; both must be above 0.",
                "Change --gamma-shape or --gamma-scale-s.",
            )

    def cdf(self, delay_s: float) -> float:
        """P(delay ≤ delay_s)."""
        return _gammainc(self.shape, delay_s / self.scale_s) if delay_s > 0 else 0.0

    def cdf_integral(self, delay_s: float) -> float:
        """∫ cdf up to delay_s: x · F_k(x) − k · θ · F_{k+1}(x)."""
        if delay_s <= 0:
            return 0.0
        mean_s = self.shape * self.scale_s
        return delay_s * self.cdf(delay_s) - mean_s * _gammainc(self.shape + 1, delay_s / self.scale_s)

    def inverse_cdf(self, probability: float) -> float:
        """The delay not exceeded with this probability."""
        from scipy.special import gammaincinv

        return float(gammaincinv(self.shape, probability)) * self.scale_s


def _gammainc(shape: float, x: float) -> float:
    from scipy.special import gammainc  # scipy takes a while to import, and most lessons use the uniform density

    return float(gammainc(shape, x))


@dataclass(frozen=True)
class ByStep:
    """No density: all credit goes to one step, `back` steps before the one that is going on.

    0 is `immediate`; 1 is `previous-step`, which the papers use for Tetris, where a step is a whole piece.
    """

    back: Literal[0, 1]


Delay = Uniform | Gamma | ByStep


def credit(density: Density, start_s: float, end_s: float, press_s: float) -> float:
    """The share of a press at `press_s` that a step from `start_s` to `end_s` gets.

        credit = F(press_s − start_s) − F(press_s − end_s)

    Over steps without gaps that begin early enough, the shares of one press sum to 1.

    Units    seconds on one clock; returns a number in [0, 1].
    Example  >>> round(credit(Uniform(0.2, 0.8), 1.0, 1.2, press_s=1.5), 3)
             0.333
    Source   released code, CreditAssign.getCredit.
    """
    return density.cdf(press_s - start_s) - density.cdf(press_s - end_s)


def used_credit(density: Density, start_s: float, end_s: float, now_s: float) -> float:
    """The part of all the credit a step can ever get whose time has passed.

        used = ∫_{t ≤ now} credit(t) dt / ∫ credit(t) dt,   and ∫ credit(t) dt = end_s − start_s

    Units    seconds on one clock; returns a number in [0, 1] that rises with `now_s`.
    Example  >>> round(used_credit(Uniform(0.2, 0.8), 0.0, 0.2, now_s=0.6), 9)
             0.5
    Source   released code, CreditAssign.getCreditPastElig, for the uniform density.
    Differs  The released ramp-down term is x²/2, right only at its end; here it falls as it should.
    """
    if end_s <= start_s:
        return 1.0 if now_s >= end_s else 0.0  # too short to be meant
    past = density.cdf_integral(now_s - start_s) - density.cdf_integral(now_s - end_s)
    return min(1.0, max(0.0, past / (end_s - start_s)))


# -------------------------------------------------------------------------------------------------- the assigner


@dataclass(slots=True)
class Sample:
    """What a step taught: the label that Ĥ should give to its state and action.

    `number` is the step's; `new_credit` is the part of its credit that was used up since the last call (the weight
    with which the eligibility module's traces grow); `weight` is that of the sample in the regression.
    """

    number: int
    what: Any
    label: float
    weight: float = 1.0
    new_credit: float = 0.0


@dataclass(slots=True)
class Step:
    """A step that can still be credited. `what` (its state and action) is passed on, never looked at."""

    number: int
    what: Any
    start_s: float
    end_s: float = math.inf
    reward: float = 0.0  # Σ over presses of value · credit
    used: float = 0.0
    met: bool = False  # whether its first chance of credit has come
    thrown_out: bool = False
    set_in_stone: bool = False
    shares: list[tuple[float, float]] = field(default_factory=list)  # (value, credit) since the last call


@dataclass(frozen=True)
class Collected:
    """Samples at the end of a step: `final` ones, and `temporary` ones that the next call replaces."""

    final: list[Sample]
    temporary: list[Sample]
    thrown_out: list[int]  # numbers of steps that will never be labelled
    growth: list[Sample]  # every step of a training session with the credit newly used; for the eligibility module


class CreditAssigner:
    """Turns steps and presses into samples.

    Call order at each step boundary: `end`, `collect`, then `begin` for the next step; `press` at any time.

        assigner.begin(0, (observation, action), now_s=0.0)
        assigner.press(+1.0, at_s=0.5)           # → [(0, 0.5)]: what step 0 got of it
        assigner.end(now_s=0.6)

    Schemes (Knox's dissertation; the names of the released code's switches in brackets)
      aggregate             one label a step, Σ h · credit; silence is a label of 0 [aggregate], the default
      aggregate-rewarded    the same, but a step without any reward gives no sample [aggregRewOnly]
      individual            one sample per press and step, label h, weight credit; silence 0 [indivAlways]
      individual-rewarded   the same without the silence [indivRewOnly]; the form of 2009
    """

    def __init__(
        self,
        delay: Delay,
        *,
        scheme: Scheme = "aggregate",
        extrapolate: bool = True,
        late_s: float = 0.0,
    ) -> None:
        """`late_s`: how long a press may travel; a step's label is final that much after its window has passed."""
        self.delay = delay
        self.scheme = scheme
        self.extrapolate = extrapolate and scheme.startswith("aggregate")
        self.late_s = late_s
        self.training = False
        self.steps: deque[Step] = deque()

    def begin(self, number: int, what: Any, now_s: float) -> None:
        """A step begins: `what` was chosen."""
        assert not self.steps or self.steps[-1].end_s < math.inf, f"step {number} begins before the last one ended"
        self.steps.append(Step(number, what, now_s))

    def end(self, now_s: float) -> None:
        """The step that is going on, if any, ends."""
        if self.steps and self.steps[-1].end_s == math.inf:
            self.steps[-1].end_s = now_s

    def press(self, value: float, at_s: float) -> list[tuple[int, float]]:
        """Shares a press out; returns (step number, credit) for each step that gets some of it.

        Part of it may fall on steps that are final already, or on a time before the first step: then the credits sum
        to less than 1. Steps that are thrown out take their share with them.
        """
        given = []
        for back, step in enumerate(reversed(self.steps)):
            if step.set_in_stone:
                continue
            share = self._share(step, back, at_s)
            if share > 0:
                step.reward += value * share
                step.shares.append((value, share))
                given.append((step.number, share))
        return given[::-1]

    def _share(self, step: Step, back: int, at_s: float) -> float:
        if isinstance(self.delay, ByStep):
            return 1.0 if back == self.delay.back else 0.0
        return credit(self.delay, step.start_s, step.end_s, at_s)

    def set_training(self, on: bool, now_s: float) -> None:
        """Training is switched on or off; what off means for steps that have some of their credit is decided now.

        Off: a step with 0 < used < 0.9 is thrown out, one with more is final as it is.
        """
        if self.training and not on and not isinstance(self.delay, ByStep):
            for step in self.steps:
                used = used_credit(self.delay, step.start_s, min(step.end_s, now_s), now_s)
                if used >= MIN_USED_TO_KEEP:
                    step.set_in_stone, step.used = True, used
                elif used > 0:
                    step.thrown_out = True
        self.training = on

    def collect(self, now_s: float) -> Collected:
        """The samples at a step boundary; all steps have ended. Final ones are returned once."""
        final, temporary, growth, kept = [], [], [], deque[Step]()
        thrown_out, last = [], len(self.steps) - 1
        for index, step in enumerate(self.steps):
            before = step.used
            done = self._advance(step, last - index, now_s)
            if not self.training and not step.met and (step.used > 0 or done):
                step.thrown_out = True
            step.met = step.met or step.used > 0
            if step.thrown_out:
                thrown_out.append(step.number)
                continue
            new_credit = step.used - before
            if self.training and new_credit > 0:
                growth.append(Sample(step.number, step.what, 0.0, new_credit=new_credit))
            if self.scheme.startswith("individual"):
                final += self._individual(step, new_credit)
            elif (step.reward != 0 or self.scheme == "aggregate") and step.used > 0:
                if done:
                    final.append(Sample(step.number, step.what, step.reward / step.used))
                elif self.extrapolate and step.used > MIN_USED_FOR_EXTRAPOLATION:
                    temporary.append(Sample(step.number, step.what, step.reward / step.used))
            if not done:
                kept.append(step)
        self.steps = kept
        return Collected(final, temporary, thrown_out, growth)

    def _advance(self, step: Step, back: int, now_s: float) -> bool:
        """Moves `step.used` to `now_s`; returns whether its label is final."""
        if step.set_in_stone:
            return True
        if isinstance(self.delay, ByStep):
            done = back >= self.delay.back
            step.used = 1.0 if done else 0.0
            return done
        step.used = max(step.used, used_credit(self.delay, step.start_s, step.end_s, now_s))
        if self.late_s == 0:
            return step.used >= ALL_USED
        return used_credit(self.delay, step.start_s, step.end_s, now_s - self.late_s) >= ALL_USED

    def _individual(self, step: Step, new_credit: float) -> list[Sample]:
        samples = [Sample(step.number, step.what, value, weight=share) for value, share in step.shares]
        if not samples and self.scheme == "individual" and new_credit > 0:
            samples = [Sample(step.number, step.what, 0.0, weight=new_credit)]
        step.shares.clear()
        return samples
