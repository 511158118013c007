"""TAMER's loop: what is learned before what is chosen, which episode's actions a press reaches, demonstrations."""

from __future__ import annotations

import numpy as np
import pytest

from rein.agents.features import OneHot
from rein.agents.human_model import Chosen, Linear, digest
from rein.agents.tamer import Tamer
from rein.feedback.credit import ByStep, CreditAssigner, Sample, Uniform

STEP_S = 0.2


class Listening(Linear):
    """Keeps what it is taught."""

    def __init__(self) -> None:
        super().__init__(OneHot([5]), 3, 0.5)
        self.taught: list[tuple[list[Sample], list[Sample]]] = []

    def learn(self, final, temporary) -> None:
        self.taught.append((list(final), list(temporary)))
        super().learn(final, temporary)


def state(k: int) -> np.ndarray:
    return np.array([float(k)])


def agent(delay=None, **settings) -> Tamer:
    assigner = CreditAssigner(delay or Uniform(0.2, 0.8), **settings)
    tamer = Tamer(Listening(), assigner, np.random.default_rng(0))
    tamer.set_training(True, 0.0)
    return tamer


def test_the_action_that_would_be_praised_most_is_taken():
    tamer = agent()
    tamer.model.load({"weights_AF": np.array([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]], dtype=float)})
    actions = [tamer.begin_step(k, state(k), STEP_S * k, reward=None).action for k in range(3)]
    assert actions == [1, 0, 2]


def test_the_agent_looks_nothing_ahead_and_nothing_is_paid():
    """Myopic: what the environment pays does not matter."""
    runs = []
    for pay in (0.0, -1e6):
        tamer = agent()
        for k in range(10):
            tamer.begin_step(k, state(k % 5), STEP_S * k, reward=pay if k else None)
            tamer.press(1.0, STEP_S * k + 0.1)
        runs.append(digest(tamer.arrays()))
    assert runs[0] == runs[1]


def test_of_equally_praised_actions_the_last_is_kept():
    tamer = agent()
    actions = {tamer.begin_step(k, state(k % 5), STEP_S * k, reward=None).action for k in range(20)}
    assert len(actions) == 1
    firsts = [agent_first(seed) for seed in range(60)]
    assert set(firsts) == {0, 1, 2}


def agent_first(seed: int) -> int:
    tamer = Tamer(Listening(), CreditAssigner(Uniform()), np.random.default_rng(seed))
    return tamer.begin_step(0, state(0), 0.0, reward=None).action


def test_a_step_learns_from_what_was_said_before_it_chooses():
    tamer = agent(ByStep(0))
    first = tamer.begin_step(0, state(0), 0.0, reward=None).action
    tamer.press(-1.0, 0.1)
    decision = tamer.begin_step(1, state(0), STEP_S, reward=None)
    assert decision.h_A[first] == -0.5
    assert decision.action != first
    assert [s.label for s in tamer.model.taught[1][0]] == [-1.0]


def test_samples_are_of_the_state_and_action_that_were():
    tamer = agent(ByStep(0))
    decisions = [tamer.begin_step(k, state(k), STEP_S * k, reward=None) for k in range(5)]
    samples = [sample for final, _ in tamer.model.taught for sample in final]
    assert [(s.what.observation[0], s.what.action) for s in samples] == [(k, decisions[k].action) for k in range(4)]


def test_a_guess_is_learned_until_the_next_step():
    tamer = agent()
    for k in range(4):
        tamer.begin_step(k, state(k), 0.25 * k, reward=None)
        if k == 1:
            tamer.press(1.0, 0.35)
    finals = [s.number for final, _ in tamer.model.taught for s in final]
    guessed = [[s.number for s in temporary] for _, temporary in tamer.model.taught]
    assert finals == []  # at 0.75 s even the first step's window is open
    assert guessed == [[], [], [], [0]]
    assert not tamer.model.complete_AF.any()
    assert tamer.model.working_AF[:, 0].any()


def test_the_history_goes_on_across_episodes():
    tamer = agent()
    tamer.begin_step(0, state(0), 0.0, reward=None)
    tamer.begin_step(1, state(1), 0.2, reward=-1.0)
    tamer.end_episode(-1.0, state(2), terminated=True)
    given = dict(tamer.press(1.0, 0.9))  # in the pause: the last step still goes on
    assert given == {0: pytest.approx(0.1 / 0.6), 1: pytest.approx(0.5 / 0.6)}
    tamer.begin_step(2, state(3), 1.4, reward=None)  # a new episode
    assert 1 in dict(tamer.press(1.0, 1.5))
    for k in range(3, 12):
        tamer.begin_step(k, state(4), 1.4 + STEP_S * (k - 2), reward=-1.0)
    labels = {s.number: s.label for final, _ in tamer.model.taught for s in final}
    assert labels[0] == pytest.approx(0.1 / 0.6, rel=1e-4)
    assert labels[1] > 0.5 / 0.6


def test_a_demonstrated_action_is_taken_and_the_agents_own_is_named():
    tamer = agent()
    tamer.model.load({"weights_AF": np.array([[0.0] * 5, [1.0] * 5, [0.0] * 5])})
    decision = tamer.begin_step(0, state(0), 0.0, reward=None, forced=2)
    assert (decision.action, decision.source, decision.proposed) == (2, "demonstration", 1)
    assert tamer.last_action == 2
    assert tamer.assigner.steps[-1].what.action == 2


def test_what_is_told_is_learned_once_at_the_next_step():
    tamer = agent()
    tamer.tell(state(3), 1, -1.0)
    tamer.tell(state(4), 0, 1.0)
    for k in range(3):
        tamer.begin_step(k, state(0), STEP_S * k, reward=None)
    told = [[(s.what.observation[0], s.what.action, s.label, s.weight) for s in final]
            for final, _ in tamer.model.taught]  # fmt: skip
    assert told == [[(3.0, 1, -1.0, 1.0), (4.0, 0, 1.0, 1.0)], [], []]
    assert tamer.model.values(state(3)).tolist() == [0.0, -0.5, 0.0]


def test_without_training_nothing_is_learned():
    tamer = agent()
    tamer.set_training(False, 0.0)
    for k in range(15):
        tamer.begin_step(k, state(k % 5), STEP_S * k, reward=None)
    assert all(not final and not temporary for final, temporary in tamer.model.taught)
    assert not tamer.arrays()["h.weights_AF"].any()


def test_a_chosen_step_is_two_things():
    chosen = Chosen(state(1), 2)
    observation, action = chosen
    assert (observation[0], action) == (1.0, 2)
