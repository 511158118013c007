"""SARSA(λ): on-policy reinforcement learning with linear action values and replacing traces.

    δ = r + γ Q(s′, a′) − Q(s, a)          Q(s, a) = w_a · φ(s)
    e ← max(φ(s) at a, γ λ e)              w ← w + α δ e

Flow     φ_F of the state, the action taken, the reward, the next value → new weights
Source   Rummery & Niranjan 1994; Singh & Sutton 1996 for replacing traces; Knox & Stone's settings from the released
         code, `IncGDLinearModel.updateEligTraces` and `params/Params.java`.
Differs  The released traces are never reset; here they are at the start of each episode, as the algorithm is defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rein.agents.features import Vector, products
from rein.errors import UserError


@dataclass(frozen=True)
class SarsaSettings:
    """The numbers of SARSA(λ). `alpha`, `lambda_` and `gamma` are the field's α, λ and γ."""

    alpha: float = 0.05
    lambda_: float = 0.9
    gamma: float = 1.0
    epsilon: float = 0.03
    epsilon_decay: float = 0.9995  # per episode
    initial_weight: float = 0.0
    cap_ends: bool = False  # whether an episode that is cut off ends for learning, too: no value beyond

    def epsilon_at(self, episode: int) -> float:
        """ε in an episode, counted from 0."""
        return self.epsilon * self.epsilon_decay**episode


# Knox & Stone 2010: every value starts far below the truth, so that what was tried looks better than what was not.
PESSIMISTIC = SarsaSettings(0.15, 0.84, 1.0, 0.00625, 0.99, initial_weight=-10.0, cap_ends=True)
# The later papers: every value starts above the truth, so that what was not tried looks better.
OPTIMISTIC = SarsaSettings(0.05, 0.9, 1.0, 0.0, 1.0, cap_ends=True)
CART_POLE = SarsaSettings(0.05, 0.86, 0.999, 0.085, 0.9995, cap_ends=True)


class Sarsa:
    """The weights and traces of SARSA(λ) over any features; who acts, and how, is decided elsewhere."""

    def __init__(self, settings: SarsaSettings, n_actions: int, n_features: int) -> None:
        self.settings = settings
        self.weights_AF = np.full((n_actions, n_features), settings.initial_weight)
        self.traces_AF = np.zeros((n_actions, n_features))

    def values(self, phi_F: Vector) -> Vector:
        """Q(s, ·), shape (A,)."""
        return products(self.weights_AF, phi_F)

    def begin_episode(self) -> None:
        """Traces start anew."""
        self.traces_AF[:] = 0.0

    def update(self, phi_F: Vector, action: int, delta: float) -> None:
        """One step of learning from a temporal-difference error δ of (s, a)."""
        self.traces_AF *= self.settings.gamma * self.settings.lambda_
        np.maximum(self.traces_AF[action], phi_F, out=self.traces_AF[action])
        self.weights_AF += (self.settings.alpha * delta) * self.traces_AF


def greedy(values_A: Sequence[float] | Vector, last_action: int | None, random: np.random.Generator) -> int:
    """The action of the highest value; of equal ones the last action taken, else one of them at random.

    Example  >>> greedy([0.5, 0.5, 0.0], 1, np.random.default_rng(0))
             1
    Raises   UserError when a value is not finite: the learning rate was too high.
    Source   released code, ActionSelect.greedyActSelect.
    """
    values_A = np.asarray(values_A)
    if not np.isfinite(values_A).all():
        raise UserError(
            f"What was learned is no longer a number: the values of the actions are {values_A.tolist()}.",
            "Lower --h-learning-rate or --h-weight; the record of the lesson so far is whole.",
        )
    best = np.flatnonzero(values_A == values_A.max())
    if len(best) == 1 or last_action in best:
        return int(best[0]) if len(best) == 1 else int(last_action)  # type: ignore[arg-type]
    return int(best[random.integers(len(best))])
