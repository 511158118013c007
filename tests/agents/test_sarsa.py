"""SARSA(λ) with replacing traces against the algorithm written out in loops, and the rule of greedy ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rein.agents.features import RBF, OneHot
from rein.agents.sarsa import CART_POLE, OPTIMISTIC, PESSIMISTIC, Sarsa, SarsaSettings, greedy
from rein.agents.tamer_rl import TamerRL
from rein.agents.tasks import make_features, make_task, rate, sarsa_settings

N_ACTIONS = 3
SETTINGS = SarsaSettings(alpha=0.1, lambda_=0.8, gamma=0.95, epsilon=0.4, epsilon_decay=0.9, initial_weight=0.3)


def grid() -> RBF:
    return RBF([-1.0, -1.0], [1.0, 1.0], n=3, rel_width=0.4)


@dataclass
class Episode:
    """What was lived: the states, the actions taken, what each was paid; `last` is where it stood at the end."""

    states: list
    actions: list
    rewards: list
    last: np.ndarray
    terminated: bool
    next_action: int = 0  # what would have been done there


def by_hand(episodes: list[Episode], settings: SarsaSettings) -> list[list[float]]:
    """Sutton & Barto's algorithm with replacing traces, number by number."""
    size = grid().size
    w = [[settings.initial_weight] * size for _ in range(N_ACTIONS)]

    def q(phi, action):
        return sum(w[action][i] * phi[i] for i in range(size))

    for episode in episodes:
        e = [[0.0] * size for _ in range(N_ACTIONS)]
        for t, (state, action, reward) in enumerate(zip(episode.states, episode.actions, episode.rewards, strict=True)):
            phi = grid()(state).tolist()
            target = reward
            if t + 1 < len(episode.states):
                target += settings.gamma * q(grid()(episode.states[t + 1]).tolist(), episode.actions[t + 1])
            elif not episode.terminated and not settings.cap_ends:
                target += settings.gamma * q(grid()(episode.last).tolist(), episode.next_action)
            delta = target - q(phi, action)
            for a in range(N_ACTIONS):
                for i in range(size):
                    e[a][i] *= settings.gamma * settings.lambda_
                    if a == action:
                        e[a][i] = max(phi[i], e[a][i])
            for a in range(N_ACTIONS):
                for i in range(size):
                    w[a][i] += settings.alpha * delta * e[a][i]
    return w


def lived(settings: SarsaSettings, *, terminated: bool, episodes: int = 4) -> tuple[TamerRL, list[Episode]]:
    """An agent that walks through random states for random pay."""
    agent = TamerRL("sarsa", N_ACTIONS, grid(), settings, np.random.default_rng(0))
    random, found = np.random.default_rng(1), []
    for _ in range(episodes):
        states = [random.uniform(-1, 1, 2) for _ in range(12)]
        actions, rewards, reward = [], [], None
        for t, state in enumerate(states):
            actions.append(agent.begin_step(t, state, 0.2 * t, reward=reward).action)
            reward = random.normal()
            rewards.append(reward)
        last = random.uniform(-1, 1, 2)
        agent.end_episode(reward, last, terminated=terminated)
        found.append(Episode(states, actions, rewards, last, terminated))
    return agent, found


@pytest.mark.parametrize("initial_weight", [0.0, -10.0, 0.3])
@pytest.mark.parametrize("lambda_", [0.0, 0.8, 1.0])
def test_sarsa_is_the_algorithm_written_out(lambda_, initial_weight):
    settings = SarsaSettings(0.1, lambda_, 0.95, 0.4, 0.9, initial_weight)
    agent, episodes = lived(settings, terminated=True)
    assert len({action for episode in episodes for action in episode.actions}) == N_ACTIONS
    assert np.abs(agent.sarsa.weights_AF - by_hand(episodes, settings)).max() < 1e-12


def test_an_episode_cut_off_counts_what_would_have_come():
    settings = SarsaSettings(0.1, 0.8, 0.95, epsilon=0.0)
    agent, episodes = lived(settings, terminated=False, episodes=1)
    others = []
    for action in range(N_ACTIONS):
        episodes[0].next_action = action
        others.append(np.abs(agent.sarsa.weights_AF - by_hand(episodes, settings)).max())
    assert sum(difference < 1e-12 for difference in others) == 1


def test_a_cap_that_ends_the_episode_counts_nothing_beyond():
    settings = SarsaSettings(0.1, 0.8, 0.95, 0.4, 0.9, cap_ends=True)
    agent, episodes = lived(settings, terminated=False)
    assert np.abs(agent.sarsa.weights_AF - by_hand(episodes, settings)).max() < 1e-12


def test_traces_are_replaced_and_decay_by_gamma_lambda():
    sarsa = Sarsa(SETTINGS, 2, 3)
    sarsa.update(np.array([1.0, 0.5, 0.0]), 0, 0.0)
    sarsa.update(np.array([0.2, 0.9, 0.0]), 0, 0.0)
    assert sarsa.traces_AF[0].tolist() == pytest.approx([0.76, 0.9, 0.0])
    sarsa.update(np.array([0.0, 0.0, 1.0]), 1, 0.0)
    assert sarsa.traces_AF.tolist() == [pytest.approx([0.76**2, 0.76 * 0.9, 0.0]), [0.0, 0.0, 1.0]]
    sarsa.begin_episode()
    assert not sarsa.traces_AF.any()


def test_values_are_greedy_but_for_epsilon():
    settings = SarsaSettings(alpha=0.0, epsilon=0.3, epsilon_decay=0.5)
    agent = TamerRL("sarsa", N_ACTIONS, OneHot([1]), settings, np.random.default_rng(0))
    agent.sarsa.weights_AF[:, 0] = [0.0, 1.0, 0.5]
    for expected in (0.3, 0.15, 0.075):  # one episode after another
        chosen = [agent.begin_step(t, np.zeros(1), 0.0, reward=0.0 if t else None) for t in range(3000)]
        agent.end_episode(0.0, np.zeros(1), terminated=True)
        assert {d.action for d in chosen if d.source == "rl"} == {1}
        assert {d.action for d in chosen if d.source == "explore"} == {0, 1, 2}
        share = np.mean([d.source == "explore" for d in chosen])
        assert share == pytest.approx(expected, abs=4 * (expected / 3000) ** 0.5)


def test_epsilon_falls_with_each_episode():
    assert [PESSIMISTIC.epsilon_at(k) for k in (0, 1, 100)] == pytest.approx(
        [0.00625, 0.00625 * 0.99, 0.00625 * 0.99**100]
    )


def test_the_papers_numbers():
    sets = (PESSIMISTIC, OPTIMISTIC, CART_POLE)
    assert [s.alpha for s in sets] == [0.15, 0.05, 0.05]
    assert [s.lambda_ for s in sets] == [0.84, 0.9, 0.86]
    assert [s.gamma for s in sets] == [1.0, 1.0, 0.999]
    assert [s.epsilon for s in sets] == [0.00625, 0.0, 0.085]
    assert [s.epsilon_decay for s in sets if s.epsilon] == [0.99, 0.9995]
    assert [s.initial_weight for s in sets] == [-10.0, 0.0, 0.0]
    car, pole = make_task("mountain-car"), make_task("cart-pole")
    assert sarsa_settings(car, car.q_features()) == PESSIMISTIC
    assert sarsa_settings(car, car.q_features(), "optimistic") == OPTIMISTIC
    assert sarsa_settings(pole, pole.q_features()) == CART_POLE


def test_pessimistic_values_start_at_about_minus_99():
    rbf = make_task("mountain-car").q_features()
    sarsa = Sarsa(PESSIMISTIC, 3, rbf.size)
    assert sarsa.values(rbf(np.array([-0.5, 0.0]))).tolist() == pytest.approx([-99] * 3, abs=1)


def test_the_general_rate_moves_a_value_a_quarter_of_the_way():
    for name in ("Acrobot-v1", "FrozenLake-v1", "cart-pole"):
        task = make_task(name)
        features = make_features(task, "auto")
        settings = sarsa_settings(task, features, "general")
        assert (settings.epsilon, settings.epsilon_decay, settings.lambda_) == (0.03, 0.9995, 0.9)
        phi_F = features((task.low + task.high) / 2)
        sarsa = Sarsa(settings, 1, features.size)
        sarsa.update(phi_F, 0, 8.0)
        assert sarsa.values(phi_F)[0] == pytest.approx(2.0)
        assert settings.alpha == rate(task, features)


def test_of_equal_values_the_last_action_is_kept():
    random = np.random.default_rng(0)
    for last in (0, 2):
        assert {greedy([1.0, 0.0, 1.0], last, random) for _ in range(20)} == {last}


def test_of_equal_values_without_the_last_action_one_is_drawn_evenly():
    random = np.random.default_rng(0)
    for last in (1, None):
        drawn = [greedy([1.0, 0.0, 1.0], last, random) for _ in range(2000)]
        assert set(drawn) == {0, 2}
        assert drawn.count(0) == pytest.approx(1000, abs=90)


def test_a_single_best_action_is_taken_and_nothing_drawn():
    random = np.random.default_rng(0)
    before = random.bit_generator.state
    assert greedy(np.array([-3.0, -1.0, -2.0]), 2, random) == 1
    assert greedy([0.0, 0.0], 1, random) == 1
    assert random.bit_generator.state == before
