"""From a name to a task: the papers', Gymnasium's, a user's own, and what is said of those that cannot be taught."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from rein.agents.features import OneHot
from rein.agents.lesson import LessonConfig, make_agent
from rein.agents.tasks import TASKS, balance, energy_pump, flat, make_features, make_task, swing
from rein.errors import UserError

WORLDS = """
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple


class World(gym.Env):
    action_space = Discrete(2)
    observation_space = Box(-1.0, 1.0, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(0)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


class Unbounded(World):
    observation_space = Box(np.array([-np.inf, 0.0]), np.array([np.inf, 1.0]), dtype=np.float64)


class Square(World):
    observation_space = Box(0.0, 1.0, (2, 3))


class Numbers(World):
    observation_space = Tuple((Discrete(3, start=2), MultiBinary(2), MultiDiscrete([2, 4])))


class Mixed(World):
    observation_space = Tuple((Discrete(3), Box(0.0, 1.0, (2,))))


class Started(World):
    observation_space = MultiDiscrete([3, 2], start=[1, 5])


class Words(World):
    observation_space = Text(5)


class Named(World):
    observation_space = Dict(x=Discrete(2))


class Pictures(World):
    observation_space = Box(0, 255, (8, 8, 3), np.uint8)


class FromOne(World):
    action_space = Discrete(2, start=1)


class Several(World):
    action_space = MultiDiscrete([2, 2])


def made():
    return World()


def not_a_world():
    return "a world"


def needs(size):
    return World()
"""


@pytest.fixture(autouse=True)
def worlds(tmp_path, monkeypatch):
    (tmp_path / "rein_test_worlds.py").write_text(WORLDS)
    (tmp_path / "rein_test_broken.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)


def own(name: str) -> str:
    return f"rein_test_worlds:{name}"


def error_of(call, *arguments, **options) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return caught.value


# -------------------------------------------------------------------------------------------------- good names


@pytest.mark.parametrize("name", TASKS)
def test_the_papers_tasks_are_complete(name):
    task = make_task(name)
    assert task.name == name
    assert task.n_actions == task.env.action_space.n
    assert len(task.names) == len(task.low) == len(task.high) == task.shape[0]
    assert task.rule(flat(task.env.reset(seed=0)[0])) in range(task.n_actions)
    assert all(make() is not None for make in (task.h_features, task.q_features, task.eligibility_features))
    assert task.goal.endswith(".")


def test_the_papers_clocks():
    assert {name: make_task(name).step_s for name in TASKS} == {
        "mountain-car": 0.2, "cart-pole": 0.2, "loop-maze": 0.8,
    }  # fmt: skip
    assert {name: make_task(name).credit_s for name in TASKS} == {
        "mountain-car": (0.2, 0.8), "cart-pole": (0.2, 0.8), "loop-maze": (0.15, 0.4),
    }  # fmt: skip
    maze = make_task("loop-maze").h_features()
    assert (maze.n, maze.dimensions) == (6, 2)


@pytest.mark.parametrize(
    ("name", "n_actions", "size"),
    [
        ("MountainCar-v0", 3, 2),
        ("CartPole-v1", 2, 4),
        ("Acrobot-v1", 3, 6),
        ("FrozenLake-v1", 4, 1),
        ("CliffWalking-v1", 4, 1),
        ("Taxi-v4", 6, 1),
        ("Blackjack-v1", 2, 3),
    ],
)
def test_gymnasiums_tasks(name, n_actions, size):
    task = make_task(name)
    assert task.n_actions == n_actions
    assert len(task.low) == size
    assert flat(task.env.reset(seed=0)[0]).shape == (size,)
    assert not any(action.startswith("action ") for action in task.actions)


def test_gymnasiums_versions_keep_their_own_rules():
    car = make_task("MountainCar-v0")
    car.env.reset(seed=0)
    steps = [car.env.step(1) for _ in range(200)]
    assert steps[-1][3]
    assert sum(step[1] for step in steps) == -200
    assert car.h_features().size == 1601


def test_an_environment_of_the_users_own():
    for name in ("World", "made"):
        task = make_task(own(name))
        assert task.actions == ("action 0", "action 1")
        assert (task.low.tolist(), task.high.tolist(), task.counts) == ([-1, -1], [1, 1], None)
        assert make_features(task, "auto").size == 20 * 20 + 1


def test_observations_of_several_parts_are_flattened():
    assert make_task(own("Square")).shape == (6,)
    mixed = make_task(own("Mixed"))
    assert (mixed.low.tolist(), mixed.high.tolist(), mixed.counts) == ([0, 0, 0], [2, 1, 1], None)
    numbers = make_task(own("Numbers"))
    assert numbers.low.tolist() == [2, 0, 0, 0, 0]
    assert numbers.high.tolist() == [4, 1, 1, 1, 3]
    assert numbers.counts == (3, 2, 2, 2, 4)


@pytest.mark.parametrize("name", ["Numbers", "Started"])
def test_whole_numbers_that_do_not_begin_at_0_have_a_place_in_the_table(name):
    task = make_task(own(name))
    table = make_features(task, "auto")
    assert isinstance(table, OneHot)
    task.env.reset(seed=0)
    seen = {int(table(flat(task.env.step(0)[0])).argmax()) for _ in range(300)}
    assert len(seen) > 0.85 * table.size


def test_bounds_that_are_given_are_taken():
    task = make_task(own("Unbounded"), low=(-3.0, 0.0), high=(3.0, 1.0))
    assert (task.low.tolist(), task.high.tolist()) == ([-3, 0], [3, 1])
    assert make_features(task, "auto").size == 401


def test_rules_are_good():
    assert [energy_pump(np.array([0.0, v])) for v in (-0.01, 0.0, 0.01)] == [0, 0, 2]
    assert [balance(np.array([0.0, 0.0, theta, 0.0])) for theta in (-0.1, 0.1)] == [0, 1]
    acrobot = make_task("Acrobot-v1")
    state, _ = acrobot.env.reset(seed=0)
    terminated, steps = False, 0
    while not terminated:
        state, _, terminated, *_ = acrobot.env.step(swing(state))
        steps += 1
    assert steps < 300


# ----------------------------------------------------------------------------------------------------- bad names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mountaincar", "mountain-car"),
        ("cartpole", "cart-pole"),
        ("Acrobat-v1", "Acrobot-v1"),
        ("MountainCar-v7", "MountainCar-v0"),
        ("FrozenLak-v1", "FrozenLake-v1"),
    ],
)
def test_a_mistyped_name_is_an_error_that_suggests_the_right_one(name, near):
    error = error_of(make_task, name)
    assert repr(name) in error.problem
    assert near in error.fix


@pytest.mark.parametrize("name", ["zzzzzz", "no/SuchThing-v3", "", "what? ever"])
def test_a_name_that_nothing_has_is_an_error_that_says_what_there_is(name):
    error = error_of(make_task, name)
    assert "mountain-car" in error.fix
    assert "package.module:Env" in error.fix


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_a_version_that_is_gone_is_an_error_that_names_the_new_one():
    assert "Taxi-v4" in error_of(make_task, "Taxi-v3").fix


@pytest.mark.parametrize(
    "name",
    [
        "rein_test_nowhere:Env", "rein_test_worlds:Nothing", "rein_test_broken:Env", own("not_a_world"), own("needs"),
        own(""), ":Env", ".worlds:Env",
    ],
)  # fmt: skip
def test_an_environment_of_ones_own_that_is_none_is_an_error(name):
    error = error_of(make_task, name)
    assert name in error.problem
    assert error.fix.endswith(".")


# ------------------------------------------------------------------------------------ worlds that cannot be taught


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0", own("Several")])
def test_actions_that_are_not_a_few_are_an_error_that_says_how_to_wrap(name):
    error = error_of(make_task, name)
    assert name in error.problem
    assert "Discrete" in error.fix


def test_actions_that_begin_at_1_are_an_error():
    assert "from 1" in error_of(make_task, own("FromOne")).problem


@pytest.mark.parametrize("name", ["Words", "Named", "Pictures"])
def test_observations_that_are_no_numbers_are_an_error_that_says_what_to_do(name):
    error = error_of(make_task, own(name))
    assert "not a few numbers" in error.problem
    assert "--pixels" in error.fix
    assert "FlattenObservation" in error.fix


def test_unbounded_observations_are_an_error_that_names_the_flags():
    config = LessonConfig(own("Unbounded"))
    error = error_of(make_agent, config, make_task(config.task))
    assert "Number 0 of the observation ranges from -inf to inf" in error.problem
    assert "--low" in error.fix
    assert "--high" in error.fix


@pytest.mark.parametrize("h_model", ["knn", "network"])
def test_unbounded_observations_are_fine_without_features(h_model):
    config = LessonConfig(own("Unbounded"), h_model=h_model)
    assert make_agent(config, make_task(config.task)).model.values(np.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("low", "high"), [((1.0,), (2.0,)), ((0.0, 0.0), (1.0,)), ((), (1.0, 1.0)),
                                           ((0.0,) * 3, (1.0,) * 3)])  # fmt: skip
def test_bounds_of_another_length_are_an_error_that_says_how_many(low, high):
    error = error_of(make_task, own("Unbounded"), low=low, high=high)
    assert f"--low has {len(low)} numbers and --high {len(high)}" in error.problem
    assert "has 2" in error.problem


def test_bounds_the_wrong_way_round_are_an_error():
    task = make_task(own("Unbounded"), low=(1.0, 0.0), high=(-1.0, 1.0))
    assert "--low" in error_of(make_features, task, "rbf").fix


def test_bounds_for_a_task_that_has_its_own_are_an_error():
    error = error_of(make_task, "mountain-car", low=(0.0, 0.0), high=(1.0, 1.0))
    assert "--low" in error.problem


def test_pictures_of_a_world_that_draws_none_are_an_error():
    assert "--pixels" in error_of(make_task, own("World"), pixels=True).fix


@pytest.mark.parametrize("name", ["FrozenLake-v1", "Taxi-v4"])
def test_a_world_that_a_page_cannot_draw_renders_pictures(name):
    task = make_task(name, frames=True)
    assert task.draw == "frames"
    task.env.reset(seed=0)
    picture = task.env.render()
    assert picture.ndim == 3
    assert picture.dtype == np.uint8
    assert isinstance(task.env, gym.Env)


def test_pictures_are_observed_where_they_are_asked_for():
    task = make_task("FrozenLake-v1", pixels=True)
    assert task.shape == (2, 84, 84)
    assert task.env.reset(seed=0)[0].shape == (2, 84, 84)
