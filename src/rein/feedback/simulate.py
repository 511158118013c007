"""Simulated trainers: they watch, judge, hesitate, err and tire, and press the same keys as a person.

A judge says how good an action was, on a scale from −1 (the worst) to 1 (the best) that does not depend on the size of
rewards. The trainer turns that into presses, with the weaknesses of people as knobs. Everything comes from one seed.

Flow     what a person would see → `SimulatedTrainer.see` → presses with the delay after which they come
Source   the knobs: Knox's dissertation (delay), COACH (feedback that depends on the policy), and what studies of people
         as trainers vary: frequency, strictness, bias, accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rein.errors import UserError
from rein.feedback.credit import Density

Judge = Callable[[Any, int], float]


@dataclass(frozen=True)
class Manner:
    """How a trainer behaves. The defaults are a perfect one who judges every step."""

    frequency: float = 1.0  # P(a step is judged at all)
    error: float = 0.0  # P(a judgement is turned around)
    positivity: float = 0.0  # P(a punishment is swallowed)
    strictness: float = 0.0  # what a judgement must exceed to be praised; −1 … 1
    fatigue: float = 0.0  # frequency falls by this fraction with each episode
    policy_dependence: float = 0.0  # 0: judges the action; 1: judges it against what this agent has been doing

    def __post_init__(self) -> None:
        for name in ("frequency", "error", "positivity", "fatigue", "policy_dependence"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                flag = "--trainer-" + name.replace("_", "-")
                raise UserError(f"{flag} is {value:g}, but it is a share: 0 to 1.", f"Change {flag}.")
        if not -1 <= self.strictness <= 1:
            raise UserError(
                f"--trainer-strictness is {self.strictness:g}, but judgements lie between -1 and 1.",
                "Change --trainer-strictness.",
            )


class SimulatedTrainer:
    """Watches steps and gives presses. One seed, one trainer: the same steps get the same presses."""

    def __init__(self, judge: Judge, delay: Density, manner: Manner, seed: int) -> None:
        self.judge, self.delay, self.manner = judge, delay, manner
        self.random = np.random.default_rng([seed, 0x7EAC])
        self.usual = 0.0  # running mean of this agent's judgements, for policy dependence

    def see(self, observation: Any, action: int, episode: int) -> tuple[float, float] | None:
        """What the trainer says of a step: (value, delay in seconds), or None.

        Four random numbers are drawn for every step, whatever comes of it, so that trainers that differ in one knob are
        otherwise the same.

        Shapes   `episode` counts from 0.
        """
        judged, turned, swallowed, when = (float(x) for x in self.random.random(4))
        manner = self.manner
        quality = self.judge(observation, action)
        relative = quality - manner.policy_dependence * self.usual
        self.usual += 0.05 * (quality - self.usual)
        if judged >= manner.frequency * (1 - manner.fatigue) ** episode:
            return None
        value = 1.0 if relative > manner.strictness else -1.0 if relative < manner.strictness else 0.0
        if turned < manner.error:
            value = -value
        if value == 0 or (value < 0 and swallowed < manner.positivity):
            return None
        return value, self.delay.inverse_cdf(when)


def rule_judge(rule: Callable[[Any], int]) -> Judge:
    """1 for the action of a rule, −1 for any other."""
    return lambda observation, action: 1.0 if action == rule(observation) else -1.0


def value_judge(values: Callable[[Any], Any]) -> Judge:
    """Graded by regret: 1 for the action of the highest value (of a Q or an Ĥ), −1 for the lowest.

        quality = 1 − 2 (max v − v_a) / (max v − min v)

    Scale-free: values ten times as large give the same judgements. Where all are equal, 0: nothing to say.

    Example  >>> value_judge(lambda s: [0.0, 5.0, 10.0])(None, 1)
             0.0
    """

    def judge(observation: Any, action: int) -> float:
        values_A = [float(v) for v in values(observation)]
        best, worst = max(values_A), min(values_A)
        return 0.0 if best == worst else 1.0 - 2.0 * (best - values_A[action]) / (best - worst)

    return judge
