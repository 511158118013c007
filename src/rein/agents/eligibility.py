"""How much the human model weighs on a decision: `h_weight`, the papers' β.

Sequential learning anneals it by a constant factor after each episode (`Annealed`). Simultaneous learning, where the
trainer may step in at any time, makes it high where training happened lately and low elsewhere (`Eligibility`).

Source   Knox & Stone 2010 and 2011 (annealing), 2012 (the eligibility module); `agents/tamerrl/HInfluence.java`.
Differs  The papers write β; h_weight here, because β also names a KL coefficient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from rein.agents.features import Features, Vector, normalised


class Influence(Protocol):
    """The weight of Ĥ in a state, for each action."""

    def weights(self, observation: Vector) -> Vector:
        """h_weight of each action, shape (A,)."""

    def step(self, grown: Iterable[tuple[Vector, int, float]]) -> None:
        """A step ended; `grown` are (observation, action, credit newly used) of steps in a training session."""

    def end_episode(self) -> None:
        """An episode ended."""


class Annealed:
    """The same weight everywhere, lowered by `decay` after each episode; 1 keeps it."""

    def __init__(self, h_weight: float, decay: float, n_actions: int) -> None:
        self.h_weight, self.decay, self.n_actions = h_weight, decay, n_actions

    def weights(self, observation: Vector) -> Vector:
        """h_weight of each action."""
        return np.full(self.n_actions, self.h_weight)

    def step(self, grown: Iterable[tuple[Vector, int, float]]) -> None:
        """Nothing happens within an episode."""

    def end_episode(self) -> None:
        """Lowers the weight."""
        self.h_weight *= self.decay


def influence(trace_F: Vector, features_F: Vector, *, c_s: float) -> float:
    """How much the human model weighs on this decision, by how recently it was trained here.

        h_weight = c_s · (trace · features) / ‖features‖₁

    Shapes   trace_F (F,) in [0, 1]; features_F (F,) ≥ 0; returns a float in [0, c_s].
    Units    action biasing: environment return per unit of human reward; control sharing: a probability, not yet
             capped at 1.
    Example  >>> influence(np.array([1.0, 0.0]), np.array([0.5, 0.5]), c_s=2.0)
             1.0
    Source   Knox & Stone 2012, eligibility module.
    Differs  Where no feature is active the quotient is 0/0; the weight is then 0: nothing was ever trained there.
    """
    norm = float(np.sum(features_F))
    return c_s * min(1.0, float(trace_F @ features_F) / norm) if norm > 0 else 0.0


class Eligibility:
    """The eligibility module: traces over normalised features that grow where training happens and decay everywhere.

        growth   e_i ← min(1, e_i + credit · f_i · a)        for each step of a training session
        decay    e_i ← e_i · step_decay                      after each step, training or not

    With `state_only` there is one trace for all actions, as control sharing needs: it asks only where, not what.

    Shapes   traces (A, F), or (1, F) with `state_only`.
    Source   Knox & Stone 2012; a = 0.2.
    Differs  The survey prints the growth without the credit: there each trained step counts once. Here it counts in the
             portions in which its credit is used up, which add up to one.
    """

    def __init__(
        self,
        features: Features,
        n_actions: int,
        *,
        c_s: float,
        growth: float = 0.2,
        step_decay: float = 0.9998,
        episode_decay: float = 1.0,
        state_only: bool = False,
    ) -> None:
        self.features, self.n_actions, self.state_only = features, n_actions, state_only
        self.c_s, self.growth, self.step_decay, self.episode_decay = c_s, growth, step_decay, episode_decay
        self.traces_AF = np.zeros((1 if state_only else n_actions, features.size))

    def weights(self, observation: Vector) -> Vector:
        """h_weight of each action, in [0, c_s]."""
        phi_F = normalised(self.features, self.features(observation))
        rows = [influence(trace_F, phi_F, c_s=self.c_s) for trace_F in self.traces_AF]
        return np.full(self.n_actions, rows[0]) if self.state_only else np.array(rows)

    def step(self, grown: Iterable[tuple[Vector, int, float]]) -> None:
        """Decays all traces, then grows those of the steps that were credited."""
        self.traces_AF *= self.step_decay
        for observation, action, credit in grown:
            trace_F = self.traces_AF[0 if self.state_only else action]
            trace_F += credit * self.growth * normalised(self.features, self.features(observation))
            np.minimum(trace_F, 1.0, out=trace_F)

    def end_episode(self) -> None:
        """Decays all traces by the factor of an episode."""
        self.traces_AF *= self.episode_decay
