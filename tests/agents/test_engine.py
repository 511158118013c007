"""The compiled engine is the plain agent, step by step: same choices, same weights to rounding.

The engine leaves out Gaussians below about 1e-9. In states where nothing was learned yet, that turns an Ĥ of 1e-15 into
one of 0, and so a near tie into a tie: where Ĥ is being learned, the plain agent is therefore given the same windows.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rein.agents import engine
from rein.agents.eligibility import Annealed, Eligibility
from rein.agents.environments import CartPole, MountainCar
from rein.agents.features import RBF
from rein.agents.human_model import Linear
from rein.agents.lesson import EnvironmentWorld, Lesson, LessonConfig
from rein.agents.sarsa import CART_POLE, PESSIMISTIC
from rein.agents.simulation import lived
from rein.agents.tamer import Tamer
from rein.agents.tamer_rl import TamerRL
from rein.agents.tasks import balance, energy_pump, make_task
from rein.feedback.credit import CreditAssigner, Uniform
from rein.feedback.simulate import Manner, SimulatedTrainer, rule_judge

SEED, RUN = 5, 3


class Stream:
    """One of the engine's random streams, with the methods of numpy's generators that the plain classes call."""

    def __init__(self, which: int) -> None:
        self.streams, self.which = engine.streams_of(SEED, RUN), which

    def random(self, n=None):
        if n is None:
            return engine.draw(self.streams, self.which)
        return np.array([engine.draw(self.streams, self.which) for _ in range(n)])

    def integers(self, n):
        return int(self.random() * n)

    def uniform(self, low, high, n=None):
        return low + (high - low) * self.random(n)


class Windowed(RBF):
    """The grid as the engine sees it: zero outside the windows."""

    def __call__(self, observation):
        grids = []
        scaled = self.norm_low + (observation - self.low) * ((self.norm_high - self.norm_low) / (self.high - self.low))
        out = np.zeros(engine.WINDOW)
        spacing = (self.norm_high - self.norm_low) / (self.n - 1)
        for x in scaled:
            first = engine.gaussians(x, self.n, spacing, self.norm_low, self.width, out)
            grid = np.zeros(self.n)
            grid[first : first + engine.WINDOW] = out
            grids.append(grid)
        return np.append(np.multiply.outer(*grids).ravel(), self.bias)


class World(EnvironmentWorld):
    """The papers' environment on the engine's stream."""

    def __init__(self, env) -> None:
        self.env, self._fresh = env, False
        env.np_random = Stream(0)

    def reset(self):
        return self.env.reset()[0]


def sarsa_by_hand(setup, settings, env, technique, model=None, influence=None):
    """The plain agent's returns, and the agent."""
    rbf = RBF(*BOUNDS[type(env)], n=setup.q_n, rel_width=setup.q_rel_width, norm_low=setup.q_norm_low)
    random = Stream(1)
    tamer = Tamer(model, CreditAssigner(Uniform()), random) if model else None
    n_actions = env.action_space.n
    agent = TamerRL(technique, n_actions, rbf, settings, random, tamer=tamer, influence=influence)
    world, returns = World(env), []
    for _ in range(setup.episodes):
        observation, reward, total, ended = world.reset(), None, 0.0, False
        while not ended:
            decision = agent.begin_step(0, observation, 0.0, reward=reward)
            if tamer:
                tamer.assigner.steps.clear()  # nobody teaches: no history to keep
            observation, reward, terminated, truncated = world.step(decision.action)
            total, ended = total + reward, terminated or truncated
        agent.end_episode(reward, observation, terminated=terminated)
        returns.append(total)
    return returns, agent


BOUNDS = {
    MountainCar: ([-1.2, -0.07], [0.6, 0.07]),
    CartPole: (make_task("cart-pole").low, make_task("cart-pole").high),
}


def an_h(seed=1):
    """Some Ĥ on Mountain Car's grid: noise around the rule, so that every technique has something to do."""
    features = RBF(*BOUNDS[MountainCar], n=40, rel_width=0.08, norm_low=-1.0)
    model = Linear(features, 3)
    random = np.random.default_rng(seed)
    velocities = np.tile(np.linspace(-1, 1, 40), 40)
    model.complete_AF[0, :-1], model.complete_AF[2, :-1] = -velocities * 0.1, velocities * 0.1
    model.complete_AF += random.normal(0, 0.02, model.complete_AF.shape)
    return model


@pytest.mark.parametrize(
    ("technique", "h_weight", "decay"),
    [
        ("sarsa", 0.0, 1.0),
        ("reward-shaping", 1.0, 0.98),
        ("feature-augmentation", 0.1, 1.0),
        ("q-initialisation", 10.0, 1.0),
        ("q-augmentation", 10.0, 1.0),
        ("extra-action", 1.0, 1.0),
        ("action-biasing", 10.0, 0.98),
        ("control-sharing", 0.7, 0.98),
        ("potential-shaping", 1.0, 1.0),
    ],
)
def test_sequential_mountain_car_is_the_plain_agent(technique, h_weight, decay):
    model = None if technique == "sarsa" else an_h()
    influence = None if technique == "sarsa" else Annealed(h_weight, decay, 3)
    setup = engine.setup_of(
        technique=engine.TECHNIQUE_NUMBERS[technique], episodes=3, h_weight=h_weight, h_weight_decay=decay,
        h_kind=engine.NO_H if model is None else engine.LINEAR_H,
    )  # fmt: skip
    returns, agent = sarsa_by_hand(setup, PESSIMISTIC, MountainCar(), technique, model, influence)
    weights = None if model is None else model.complete_AF
    found = engine.run(setup, seed=SEED, runs=[RUN], h_weights=weights)
    assert found.returns[0].tolist() == returns
    # Gaussians below 1e-9 are left out: every weight agrees to 2e-6 of what learning moved the weights by.
    moved = np.abs(agent.sarsa.weights_AF - PESSIMISTIC.initial_weight).max()
    assert np.abs(found.q - agent.sarsa.weights_AF).max() < 2e-6 * moved


def test_sequential_cart_pole_is_the_plain_agent():
    setup = engine.setup_of(
        task=engine.CART_POLE, episodes=12, max_steps=300, q_n=8, q_rel_width=0.13, q_norm_low=0.0, h_n=8,
        h_norm_low=0.0, alpha=0.05, lambda_=0.86, gamma=0.999, epsilon=0.085, epsilon_decay=0.9995, initial_weight=0.0,
    )  # fmt: skip
    returns, agent = sarsa_by_hand(setup, CART_POLE, CartPole(), "sarsa")
    found = engine.run(setup, seed=SEED, runs=[RUN])
    assert found.returns[0].tolist() == returns
    assert np.abs(found.q - agent.sarsa.weights_AF).max() < 1e-8 * np.abs(agent.sarsa.weights_AF).max()


@pytest.mark.parametrize("technique", ["tamer", "action-biasing", "control-sharing", "reward-shaping"])
@pytest.mark.parametrize("train_from", [0, 2])
def test_simultaneous_mountain_car_is_the_plain_lesson(technique, train_from):
    c_s = {"control-sharing": 2.0, "reward-shaping": 1.0}.get(technique, 100.0)
    setup = engine.setup_of(
        technique=engine.TECHNIQUE_NUMBERS[technique], episodes=6, train_from=train_from, train_until=train_from + 3,
        h_kind=engine.LINEAR_H, eligibility=technique != "tamer", state_only=technique == "control-sharing",
        h_weight=c_s, error=0.1, positivity=0.2, h_learning_rate=0.05,
    )  # fmt: skip

    def windowed():
        return Windowed(*BOUNDS[MountainCar], n=40, rel_width=0.08, norm_low=-1.0)

    task = make_task("mountain-car")
    task = dataclasses.replace(task, h_features=windowed, q_features=windowed, eligibility_features=windowed)
    config = LessonConfig(technique=technique, h_learning_rate=0.05, h_weight=c_s, late_s=0.0)
    lesson = Lesson(config, task, World(task.env))
    lesson.agent.random = Stream(1)
    lesson.tamer.random = lesson.agent.random
    trainer = SimulatedTrainer(
        rule_judge(energy_pump), Uniform(0.25, 0.7), Manner(frequency=0.5, error=0.1, positivity=0.2), 0
    )
    trainer.random = Stream(2)
    returns = [r for r, _ in lived(lesson, trainer, 6, train_from, train_from + 3, by="rule")]
    found = engine.run(setup, seed=SEED, runs=[RUN])
    assert found.returns[0].tolist() == returns
    assert lesson.n_presses > 100
    h = lesson.tamer.model.complete_AF
    assert np.abs(found.h - h).max() < 1e-11 * np.abs(h).max()
    if technique != "tamer":
        traces = lesson.agent.influence.traces_AF
        assert isinstance(lesson.agent.influence, Eligibility)
        assert np.abs(found.traces[:, :-1] - traces[:, :-1]).max() < 1e-11
        assert np.abs(found.q - lesson.agent.sarsa.weights_AF).max() < 1e-8
        assert traces.max() > 0.5


def test_what_the_windows_leave_out_is_negligible():
    dense, windowed = (kind(*BOUNDS[MountainCar], n=40, rel_width=0.08, norm_low=-1.0) for kind in (RBF, Windowed))
    worst = 0.0
    for position in np.linspace(-1.2, 0.6, 61):
        for velocity in np.linspace(-0.07, 0.07, 41):
            state = np.array([position, velocity])
            worst = max(worst, float(np.abs(dense(state) - windowed(state)).max()))
    assert 1e-12 < worst < 3e-8


def test_the_result_does_not_depend_on_the_number_of_threads():
    setup = engine.setup_of(episodes=5)
    one, four = (engine.run(setup, seed=1, runs=range(6), threads=n) for n in (1, 4))
    assert np.array_equal(one.returns, four.returns)
    assert np.array_equal(one.q, four.q)


def test_a_run_does_not_depend_on_the_runs_beside_it():
    setup = engine.setup_of(episodes=5)
    alone = engine.run(setup, seed=1, runs=[4])
    among = engine.run(setup, seed=1, runs=[0, 4, 9])
    assert np.array_equal(alone.returns[0], among.returns[1])


@pytest.mark.parametrize("technique", [t for t in engine.TECHNIQUE_NUMBERS if t not in ("sarsa", "tamer")])
def test_a_weight_of_nothing_is_sarsa_alone_to_the_bit(technique):
    if technique in ("extra-action",):
        pytest.skip("an extra action is there whatever its weight")
    sarsa = engine.run(engine.setup_of(episodes=4), seed=1, runs=[0])
    setup = engine.setup_of(technique=engine.TECHNIQUE_NUMBERS[technique], episodes=4, h_kind=engine.LINEAR_H)
    nothing = engine.run(setup, seed=1, runs=[0], h_weights=an_h().complete_AF)
    assert np.array_equal(sarsa.returns, nothing.returns)
    assert np.array_equal(sarsa.q, nothing.q)


@pytest.mark.parametrize("weight", [1.0, 10.0, 100.0])
def test_q_augmentation_with_a_constant_weight_is_q_initialisation(weight):
    common = {"episodes": 30, "h_kind": engine.LINEAR_H, "h_weight": weight, "h_weight_decay": 1.0}
    augmented, initialised = (
        engine.run(engine.setup_of(technique=n, **common), seed=2, runs=range(4), h_weights=an_h().complete_AF)
        for n in (4, 3)
    )
    assert np.array_equal(augmented.returns, initialised.returns)


def test_boundless_biasing_and_certain_control_are_greedy_on_h():
    h = an_h().complete_AF
    common = {"episodes": 10, "h_kind": engine.LINEAR_H, "h_weight_decay": 1.0, "epsilon": 0.0}
    greedy, biased, shared = (
        engine.run(engine.setup_of(technique=n, h_weight=w, **common), seed=2, runs=range(4), h_weights=h).returns
        for n, w in ((-1, 0.0), (6, 1e9), (7, 1.0))
    )
    assert np.array_equal(greedy, biased)
    assert np.array_equal(greedy, shared)


def test_the_rules_are_those_of_the_tasks():
    random = np.random.default_rng(0)
    for state in random.normal(size=(200, 4)):
        assert engine.rule_of(engine.MOUNTAIN_CAR, state) == energy_pump(state)
        assert engine.rule_of(engine.CART_POLE, state) == balance(state)


def test_settings_of_the_presets_are_the_engines():
    setup = engine.setup_of()
    for field in dataclasses.fields(PESSIMISTIC):
        assert getattr(setup, field.name) == getattr(PESSIMISTIC, field.name), field.name
