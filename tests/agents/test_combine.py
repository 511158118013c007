"""The eight combinations of Ĥ and SARSA(λ): each formula alone, and what it does to one step of learning."""

from __future__ import annotations

import numpy as np
import pytest

from rein.agents.combine import (
    COMBINATIONS,
    SIMULTANEOUS,
    TECHNIQUES,
    changed_reward,
    choice_values,
    control_probability,
    td_value,
)
from rein.agents.eligibility import Annealed
from rein.agents.features import RBF, OneHot
from rein.agents.human_model import Linear, Neighbours, Network
from rein.agents.lesson import EnvironmentWorld, Lesson, LessonConfig, make_agent
from rein.agents.sarsa import SarsaSettings
from rein.agents.tamer import Tamer
from rein.agents.tamer_rl import TamerRL
from rein.agents.tasks import make_task
from rein.errors import UserError
from rein.feedback.credit import CreditAssigner, Uniform

# Two states with two actions: state 0 is left with action 1 for state 1.
Q = np.array([[1.0, 4.0], [2.0, 3.0]])  # [action, state]
H = np.array([[0.5, -0.25], [-1.0, 0.75]])
ALPHA, GAMMA, WEIGHT, REWARD = 0.1, 0.9, 8.0, -3.0
STATES = [np.array([0.0]), np.array([1.0])]


def agent_of(
    technique: str, *, weight: float = WEIGHT, decay: float = 1.0, lambda_: float = 0.0, **settings
) -> TamerRL:
    """An agent with Q and Ĥ as above, on a table of two states, without exploration."""
    random = np.random.default_rng(0)
    numbers = SarsaSettings(ALPHA, lambda_, GAMMA, **({"epsilon": 0.0} | settings))
    model = Linear(OneHot([2]), 2)
    model.load({"weights_AF": H})
    parts = {}
    if technique != "sarsa":
        parts = {
            "tamer": Tamer(model, CreditAssigner(Uniform()), random),
            "influence": Annealed(weight, decay, 2),
        }
    agent = TamerRL(technique, 2, OneHot([2]), numbers, random, **parts)
    agent.sarsa.weights_AF[:2] = Q + (weight * H if technique == "q-initialisation" else 0)
    return agent


def two_steps(agent: TamerRL, *, first: int, second: int) -> np.ndarray:
    """Lives state 0 → state 1 with these actions; returns how Q of state 0 moved, over the learning rate."""
    before = agent.sarsa.weights_AF.copy()
    agent.begin_step(0, STATES[0], 0.0, reward=None, forced=first)
    agent.begin_step(1, STATES[1], 0.2, reward=REWARD, forced=second)
    return (agent.sarsa.weights_AF - before)[:, 0] / ALPHA


# ---------------------------------------------------------------------------------------------- the formulas


def test_there_are_eight_combinations_and_four_of_them_in_the_later_papers():
    assert len(COMBINATIONS) == 8
    assert set(TECHNIQUES) == {"tamer", "sarsa", *COMBINATIONS}
    assert {"reward-shaping", "q-augmentation", "action-biasing", "control-sharing"} < set(COMBINATIONS)
    assert set(SIMULTANEOUS) == {"reward-shaping", "action-biasing", "control-sharing"}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_actions_are_chosen_by(technique):
    weights_A = np.array([8.0, 2.0])
    expected = Q[:, 0] + weights_A * H[:, 0] if technique in ("action-biasing", "q-augmentation") else Q[:, 0]
    assert np.array_equal(choice_values(technique, Q[:, 0], H[:, 0], weights_A), expected)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_the_reward_becomes(technique):
    expected = {
        "reward-shaping": REWARD + WEIGHT * 0.5,
        "potential-shaping": REWARD + WEIGHT * (GAMMA * 0.75 - 0.25),
    }.get(technique, REWARD)
    found = changed_reward(technique, REWARD, 0.5, WEIGHT, gamma=GAMMA, best_h=0.25, best_next_h=0.75)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_stands_in_the_td_error(technique):
    assert td_value(technique, 2.0, 0.5, WEIGHT) == (6.0 if technique == "q-augmentation" else 2.0)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_how_likely_control_is_shared(technique):
    for weight, expected in ((0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (2.0, 1.0)):
        found = control_probability(technique, weight)
        assert found == (expected if technique == "control-sharing" else 0.0)


# ------------------------------------------------------------------------------------------- a step of learning

NEXT, NOW = GAMMA * Q[1, 1], Q[0, 0]  # action 0 in state 0, then action 1 in state 1
ERRORS = {
    "sarsa": REWARD + NEXT - NOW,
    "reward-shaping": REWARD + WEIGHT * H[0, 0] + NEXT - NOW,
    "feature-augmentation": REWARD + NEXT - NOW,  # its weight starts at 0
    "q-initialisation": REWARD + GAMMA * (Q[1, 1] + WEIGHT * H[1, 1]) - (Q[0, 0] + WEIGHT * H[0, 0]),
    "q-augmentation": REWARD + GAMMA * (Q[1, 1] + WEIGHT * H[1, 1]) - (Q[0, 0] + WEIGHT * H[0, 0]),
    "extra-action": REWARD + NEXT - NOW,
    "action-biasing": REWARD + NEXT - NOW,
    "control-sharing": REWARD + NEXT - NOW,
    "potential-shaping": REWARD + WEIGHT * (GAMMA * H[:, 1].max() - H[:, 0].max()) + NEXT - NOW,
}


@pytest.mark.parametrize("technique", ERRORS)
def test_a_step_of_learning(technique):
    moved = two_steps(agent_of(technique), first=0, second=1)
    assert moved[:2].tolist() == pytest.approx([ERRORS[technique], 0.0])


@pytest.mark.parametrize("technique", ERRORS)
def test_the_last_step_of_an_episode(technique):
    """A terminal state has no value and no potential."""
    agent = agent_of(technique)
    before = agent.sarsa.weights_AF.copy()
    agent.begin_step(0, STATES[0], 0.0, reward=None, forced=0)
    agent.end_episode(REWARD, STATES[1], terminated=True)
    expected = REWARD - NOW + {
        "reward-shaping": WEIGHT * H[0, 0],
        "q-initialisation": -WEIGHT * H[0, 0],
        "q-augmentation": -WEIGHT * H[0, 0],
        "potential-shaping": -WEIGHT * H[:, 0].max(),
    }.get(technique, 0.0)  # fmt: skip
    assert (agent.sarsa.weights_AF - before)[0, 0] / ALPHA == pytest.approx(expected)


def test_the_weight_of_the_h_feature_is_learned():
    agent = agent_of("feature-augmentation", lambda_=0.5)
    two_steps(agent, first=0, second=1)
    delta = ERRORS["feature-augmentation"]
    assert agent.h_feature_weight == pytest.approx(ALPHA * delta * WEIGHT * H[0, 0])
    w, q = agent.h_feature_weight, float(agent.sarsa.weights_AF[1, 1])
    agent.end_episode(5.0, STATES[0], terminated=True)
    second = 5.0 - (q + w * WEIGHT * H[1, 1])
    trace = GAMMA * 0.5 * WEIGHT * H[0, 0] + WEIGHT * H[1, 1]
    assert agent.h_feature_weight == pytest.approx(w + ALPHA * second * trace)
    seen = agent.begin_step(2, STATES[0], 0.4, reward=None)
    expected = agent.sarsa.weights_AF[:, 0] + agent.h_feature_weight * WEIGHT * H[:, 0]
    assert seen.q_A.tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("technique", "action"),
    [
        ("sarsa", 1),
        ("reward-shaping", 1),
        ("feature-augmentation", 1),
        ("q-initialisation", 0),
        ("q-augmentation", 0),
        ("action-biasing", 0),
        ("potential-shaping", 1),
    ],
)
def test_the_choice_in_a_state_where_q_and_h_disagree(technique, action):
    decision = agent_of(technique).begin_step(0, STATES[0], 0.0, reward=None)
    assert (decision.action, decision.source) == (action, "rl")
    assert Q[:, 0].argmax() == 1
    assert (Q[:, 0] + WEIGHT * H[:, 0]).argmax() == H[:, 0].argmax() == 0


def test_a_biased_choice_does_not_change_what_is_learned():
    agent = agent_of("action-biasing")
    before = agent.sarsa.weights_AF.copy()
    chosen = agent.begin_step(0, STATES[0], 0.0, reward=None).action
    then = agent.begin_step(1, STATES[1], 0.2, reward=REWARD).action
    expected = REWARD + GAMMA * Q[then, 1] - Q[chosen, 0]
    assert (agent.sarsa.weights_AF - before)[chosen, 0] / ALPHA == pytest.approx(expected)


def test_the_extra_action_does_what_h_says_and_has_a_value_of_its_own():
    agent = agent_of("extra-action")
    agent.sarsa.weights_AF[2] = [50.0, 60.0]
    first = agent.begin_step(0, STATES[0], 0.0, reward=None)
    second = agent.begin_step(1, STATES[1], 0.2, reward=REWARD)
    assert (first.action, second.action) == (H[:, 0].argmax(), H[:, 1].argmax())
    assert agent.sarsa.weights_AF.shape == (3, 2)
    assert agent.sarsa.weights_AF[2, 0] == pytest.approx(50 + ALPHA * (REWARD + GAMMA * 60 - 50))
    assert np.array_equal(agent.sarsa.weights_AF[:2], Q)


@pytest.mark.parametrize("weight", [0.25, 0.7])
def test_control_is_shared_as_often_as_the_weight_says(weight):
    agent = agent_of("control-sharing", weight=weight)
    agent.settings = SarsaSettings(0.0, 0.0, GAMMA, epsilon=0.0)
    decisions = [agent.begin_step(t, STATES[0], 0.0, reward=0.0 if t else None) for t in range(4000)]
    shared = [d.action for d in decisions if d.source == "shared"]
    assert len(shared) / 4000 == pytest.approx(weight, abs=4 * (weight * (1 - weight) / 4000) ** 0.5)
    assert set(shared) == {0}


@pytest.mark.parametrize(("technique", "weight"), [("control-sharing", 1.0), ("control-sharing", 2.0),
                                                    ("action-biasing", 1e9)])  # fmt: skip
def test_certain_control_and_boundless_biasing_are_greedy_on_h(technique, weight):
    agent, random = agent_of(technique, weight=weight), np.random.default_rng(1)
    for t in range(200):
        state = int(random.integers(2))
        decision = agent.begin_step(t, STATES[state], 0.0, reward=random.normal() if t else None)
        assert decision.action == H[:, state].argmax()


def test_the_trainer_may_hand_control_to_h():
    agent = agent_of("reward-shaping")
    agent.tamer_control = True
    decision = agent.begin_step(0, STATES[0], 0.0, reward=None)
    assert (decision.action, decision.source) == (0, "shared")


@pytest.mark.parametrize("technique", ["reward-shaping", "action-biasing", "control-sharing"])
def test_the_weight_falls_with_every_episode(technique):
    agent = agent_of(technique, weight=0.8, decay=0.98)
    seen = []
    for _ in range(3):
        seen.append(agent.begin_step(0, STATES[0], 0.0, reward=None).h_weights_A[0])
        agent.end_episode(REWARD, STATES[1], terminated=True)
    assert seen == pytest.approx([0.8, 0.8 * 0.98, 0.8 * 0.98**2])


# -------------------------------------------------------------------------------------- whole runs in the maze


def maze_run(technique: str, weight: float, episodes: int = 6, epsilon: float = 0.1):
    """Returns and Q's weights of a run through the loop maze, with some Ĥ that stands still."""
    task, random = make_task("loop-maze"), np.random.default_rng(3)
    settings = SarsaSettings(0.3, 0.9, 0.95, epsilon, 0.99)
    model = Linear(OneHot([6, 6]), 4)
    model.load({"weights_AF": np.random.default_rng(4).normal(size=(4, 36))})
    parts = {}
    if technique != "sarsa":
        parts = {
            "tamer": Tamer(model, CreditAssigner(Uniform()), random),
            "influence": Annealed(weight, 1.0, 4),
        }
    agent, world = TamerRL(technique, 4, OneHot([6, 6]), settings, random, **parts), EnvironmentWorld(task, 0)
    returns = []
    for _ in range(episodes):
        observation, reward, total, ended = world.reset(), None, 0.0, False
        while not ended:
            action = agent.begin_step(0, observation, 0.0, reward=reward).action
            observation, reward, terminated, truncated = world.step(action)
            total, ended = total + reward, terminated or truncated
        agent.end_episode(reward, observation, terminated=terminated)
        returns.append(total)
    return returns, agent.sarsa.weights_AF


@pytest.mark.parametrize("technique", [t for t in COMBINATIONS if t != "extra-action"])
def test_without_weight_every_combination_is_sarsa_alone_to_the_bit(technique):
    returns, weights = maze_run(technique, 0.0)
    alone, weights_alone = maze_run("sarsa", 0.0)
    assert returns == alone
    assert weights.tobytes() == weights_alone.tobytes()


def test_q_augmentation_with_a_constant_weight_is_q_initialisation():
    augmented, w_augmented = maze_run("q-augmentation", 3.0)
    initialised, w_initialised = maze_run("q-initialisation", 3.0)
    assert augmented == initialised
    h = np.random.default_rng(4).normal(size=(4, 36))
    assert w_initialised == pytest.approx(w_augmented + 3.0 * h, abs=1e-9)


# ----------------------------------------------------------------------------------------- Q initialised by Ĥ


def test_q_starts_as_the_weighted_h_on_top_of_its_own_start():
    model = Linear(OneHot([2]), 2)
    model.load({"weights_AF": H})
    random = np.random.default_rng(0)
    agent = TamerRL(
        "q-initialisation", 2, OneHot([2]), SarsaSettings(initial_weight=-10.0), random,
        tamer=Tamer(model, CreditAssigner(Uniform()), random), influence=Annealed(3.0, 1.0, 2),
    )  # fmt: skip
    assert agent.sarsa.weights_AF == pytest.approx(-10 + 3 * H)


@pytest.mark.parametrize(
    "model",
    [
        lambda: Linear(OneHot([3]), 2),
        lambda: Neighbours(2, 1),
        lambda: Network(2, (1,)),
        lambda: Linear(RBF([0.0], [1.0], n=2, rel_width=0.1, bias=0.0), 2),
    ],
    ids=["another size", "neighbours", "network", "another kind of the same size"],
)
def test_q_cannot_be_initialised_by_a_model_over_other_features(model):
    random = np.random.default_rng(0)
    with pytest.raises(UserError, match="linear over the same features") as caught:
        TamerRL(
            "q-initialisation", 2, OneHot([2]), SarsaSettings(), random,
            tamer=Tamer(model(), CreditAssigner(Uniform()), random), influence=Annealed(3.0, 1.0, 2),
        )  # fmt: skip
    assert "--technique q-augmentation" in caught.value.fix


@pytest.mark.parametrize(
    "config",
    [
        LessonConfig("loop-maze", technique="q-initialisation"),
        LessonConfig("mountain-car", technique="q-initialisation", h_model="knn"),
        LessonConfig("cart-pole", technique="q-initialisation"),  # relative widths 0.08 and 0.13
    ],
    ids=["loop-maze", "knn", "cart-pole"],
)
def test_a_lesson_with_unshared_features_cannot_initialise_q(config):
    with pytest.raises(UserError, match="same features"):
        make_agent(config, make_task(config.task))


def test_mountain_cars_q_and_h_share_their_features():
    config = LessonConfig("mountain-car", technique="q-initialisation", influence="annealed")
    assert make_agent(config, make_task("mountain-car")).sarsa.weights_AF.shape == (3, 1601)


# -------------------------------------------------------------------------------- while Ĥ is still being learned


def test_shaping_uses_what_the_trainer_has_said_by_the_time_of_learning():
    agent = agent_of("reward-shaping")
    agent.tamer.set_training(True, 0.0)
    agent.begin_step(0, STATES[0], 0.0, reward=None, forced=0)
    agent.tell(STATES[0], 0, 100.0)  # learned at the next boundary, before SARSA learns
    before = agent.sarsa.weights_AF.copy()
    agent.begin_step(1, STATES[1], 0.2, reward=REWARD, forced=1)
    h = H[0, 0] + 0.001 * (100.0 - H[0, 0])
    assert agent.tamer.model.complete_AF[0, 0] == pytest.approx(h)
    moved = (agent.sarsa.weights_AF - before)[0, 0] / ALPHA
    assert moved == pytest.approx(REWARD + WEIGHT * h + NEXT - NOW)


@pytest.mark.parametrize("technique", [t for t in TECHNIQUES if t != "q-initialisation"])
def test_every_technique_lives_a_lesson(technique):
    task = make_task("loop-maze")
    lesson = Lesson(LessonConfig("loop-maze", technique=technique), task, EnvironmentWorld(task, 0))
    lesson.set_training(True, 0.0)
    for k in range(60):
        lesson.tick(0.8 * k)
        lesson.press(f"{k}", 1.0 if k % 3 else -1.0, 0.8 * k + 0.3)
    assert lesson.k == 60
    for name, array in lesson.agent.arrays().items():
        assert np.isfinite(array).all(), name
