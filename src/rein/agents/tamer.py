"""TAMER: an agent that is taught by hand. It learns what the trainer would say, and does what would be praised most.

    1  the step that was going on ends
    2  the presses received since are shared out over the steps they may have meant   (feedback/credit.py)
    3  Ĥ learns the labels that follow                                               (human_model.py)
    4  the action of the highest Ĥ is taken; nothing is looked ahead: the trainer has judged the future already
    5  the new step is recorded

Flow     observations, presses, the clock → actions, and Ĥ
Source   Knox & Stone 2009; step order and tie rule of the released code, `agents/tamer/TamerAgent.java`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rein.agents.features import Vector
from rein.agents.human_model import Arrays, Chosen, HumanModel
from rein.agents.sarsa import greedy
from rein.feedback.credit import Collected, CreditAssigner, Sample


@dataclass(frozen=True)
class Decision:
    """What the agent does, and why: Ĥ, Q and the weight of Ĥ in the state where it chose."""

    action: int
    source: str  # tamer, rl, explore, shared (control sharing), demonstration, replay
    h_A: Vector | None
    q_A: Vector | None = None
    h_weights_A: Vector | None = None
    proposed: int | None = None  # while the trainer demonstrates: what the agent would have done


class Agent(Protocol):
    """What a lesson needs of an agent. Times are seconds on the lesson's clock."""

    def begin_step(
        self, number: int, observation: Vector, now_s: float, *, reward: float | None, forced: int | None = None
    ) -> Decision:
        """A step boundary: learns from the step before, then chooses. `reward` is None at the start of an episode;
        `forced` is an action decided elsewhere."""

    def end_episode(self, reward: float, observation: Vector, *, terminated: bool) -> None:
        """The last step of an episode was paid; its human rewards may still come."""

    def press(self, value: float, at_s: float) -> list[tuple[int, float]]:
        """A press: (step number, credit) for each step that it credits."""

    def set_training(self, on: bool, now_s: float) -> None:
        """The trainer begins or stops."""

    def tell(self, observation: Vector, action: int, label: float) -> None:
        """A judgement of one action that needs no credit assignment: it is learned at the next boundary."""

    def arrays(self) -> Arrays:
        """Everything that was learned."""


class Tamer:
    """Ĥ, the credit of recent steps, and the greedy choice."""

    def __init__(self, model: HumanModel, assigner: CreditAssigner, random: np.random.Generator) -> None:
        self.model, self.assigner, self.random = model, assigner, random
        self.last_action: int | None = None
        self._told: list[Sample] = []

    def learn(self, now_s: float) -> Collected:
        """Ends the step that is going on and learns from what was said so far."""
        self.assigner.end(now_s)
        collected = self.assigner.collect(now_s)
        told, self._told = self._told, []
        self.model.learn([*collected.final, *told], collected.temporary)
        return collected

    def begin_step(
        self, number: int, observation: Vector, now_s: float, *, reward: float | None, forced: int | None = None
    ) -> Decision:
        """One boundary of TAMER."""
        self.learn(now_s)
        h_A = self.model.values(observation)
        action, source = greedy(h_A, self.last_action, self.random), "tamer"
        proposed = None
        if forced is not None:
            proposed, action, source = action, forced, "demonstration"
        self.record(number, observation, action, now_s)
        return Decision(action, source, h_A, proposed=proposed)

    def record(self, number: int, observation: Vector, action: int, now_s: float) -> None:
        """A step begins."""
        self.last_action = action
        self.assigner.begin(number, Chosen(observation, action), now_s)

    def end_episode(self, reward: float, observation: Vector, *, terminated: bool) -> None:
        """Nothing: the history goes on across episodes, so that a judgement in the pause reaches the last actions."""

    def press(self, value: float, at_s: float) -> list[tuple[int, float]]:
        """Shares a press out."""
        return self.assigner.press(value, at_s)

    def set_training(self, on: bool, now_s: float) -> None:
        """Begins or ends a training session."""
        self.assigner.set_training(on, now_s)

    def tell(self, observation: Vector, action: int, label: float) -> None:
        """Keeps a judgement for the next boundary."""
        self._told.append(Sample(-1, Chosen(observation, action), label))

    def arrays(self) -> Arrays:
        """Ĥ's parameters."""
        return {f"h.{name}": array for name, array in self.model.arrays().items()}


def grown(collected: Collected) -> Sequence[tuple[Vector, int, float]]:
    """The steps whose traces the eligibility module raises, each with the credit newly used."""
    return [(s.what.observation, s.what.action, s.new_credit) for s in collected.growth]
