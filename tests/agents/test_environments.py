"""The papers' worlds: Gymnasium's dynamics under the papers' starts, rewards and caps; the maze; pictures."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest

from rein.agents.environments import CartPole, LoopMaze, MountainCar, Pixels, cart_pole_step
from rein.agents.tasks import balance, energy_pump, make_task
from rein.errors import UserError

TWELVE_DEGREES = 12 * 2 * math.pi / 360


def starts(env, n: int = 3000) -> np.ndarray:
    env.reset(seed=0)
    return np.array([env.reset()[0] for _ in range(n)])


# ------------------------------------------------------------------------------------------------ mountain car


def test_mountain_car_moves_as_gymnasiums_does():
    ours, random = MountainCar(), np.random.default_rng(0)
    theirs = gym.make("MountainCar-v0").unwrapped
    ours.reset(seed=0)
    theirs.reset(seed=0)
    states = [*random.uniform([-1.2, -0.07], [0.5, 0.07], (2000, 2)), (-1.2, 0.0), (-1.19, -0.07), (0.499, 0.07)]
    arrived = 0
    for state in states:
        for action in range(3):
            theirs.state = tuple(state)
            ours.reset(options={"state": tuple(state)})
            seen, reward, terminated, truncated, _ = ours.step(action)
            _, _, theirs_terminated, _, _ = theirs.step(action)
            assert seen.tolist() == pytest.approx(list(theirs.state), rel=1e-15, abs=1e-17)
            assert terminated == theirs_terminated
            assert reward == (0.0 if terminated else -1.0)
            assert not truncated
            arrived += terminated
    assert arrived > 50


def test_a_run_up_the_hill_is_gymnasiums_step_for_step():
    ours, theirs = MountainCar(), gym.make("MountainCar-v0").unwrapped
    theirs.reset(seed=0)
    theirs.state = (-0.5, 0.0)
    state, _ = ours.reset(options={"state": (-0.5, 0.0)})
    total, terminated = 0.0, False
    while not terminated:
        action = energy_pump(state)
        state, reward, terminated, _, _ = ours.step(action)
        theirs.step(action)
        total += reward
        assert state.tolist() == pytest.approx(list(theirs.state), rel=1e-12, abs=1e-15)
    assert -200 < total < -90


def test_mountain_cars_start_is_the_papers():
    found = starts(MountainCar())
    assert -0.7 <= found[:, 0].min() < -0.695
    assert -0.305 < found[:, 0].max() <= -0.3
    assert found[:, 0].mean() == pytest.approx(-0.5, abs=4 * 0.4 / math.sqrt(12 * 3000))
    assert not found[:, 1].any()


def test_mountain_car_stops_after_500_steps():
    env = MountainCar()
    env.reset(seed=0)
    steps = [env.step(1) for _ in range(500)]
    assert [truncated for *_, truncated, _ in steps] == [False] * 499 + [True]
    assert not any(terminated for *_, terminated, _, _ in steps)
    assert sum(reward for _, reward, *_ in steps) == -500


# --------------------------------------------------------------------------------------------------- cart pole


def test_cart_pole_without_noise_moves_as_gymnasiums_does():
    ours, theirs = CartPole(), gym.make("CartPole-v1").unwrapped
    ours.noise = 0.0
    random = np.random.default_rng(0)
    ours.reset(seed=0)
    fallen = 0
    bounds = np.array([2.5, 6.0, 0.22, 6.0])
    for state in random.uniform(-bounds, bounds, (2000, 4)):
        for action in range(2):
            theirs.reset(seed=0)
            theirs.state = state.copy()
            ours.reset(options={"state": state})
            seen, reward, terminated, _, _ = ours.step(action)
            _, _, theirs_terminated, _, _ = theirs.step(action)
            assert seen.tolist() == pytest.approx(np.array(theirs.state).tolist(), rel=1e-12, abs=1e-14)
            assert terminated == theirs_terminated
            assert reward == (-1.0 if terminated else 1.0)
            fallen += terminated
    assert 500 < fallen < 3500


def test_cart_pole_falls_beyond_twelve_degrees_or_the_end_of_the_track():
    env = CartPole()
    for state, expected in (
        ((2.39, 0, 0, 0), False),
        ((2.41, 0, 0, 0), True),
        ((-2.41, 0, 0, 0), True),
        ((0, 0, TWELVE_DEGREES - 0.001, 0), False),
        ((0, 0, TWELVE_DEGREES + 0.001, 0), True),
        ((0, 0, -TWELVE_DEGREES - 0.001, 0), True),
    ):
        env.reset(seed=0, options={"state": state})
        assert env.step(0)[2] == expected, state


def test_the_noise_of_a_push_is_uniform_within_10_newtons():
    env = CartPole()
    env.reset(seed=0)
    still = np.zeros(4)
    per_newton = cart_pole_step(still, 1.0)[1]
    for action, push in ((0, -10.0), (1, 10.0)):
        forces = []
        for _ in range(3000):
            env.reset(options={"state": still})
            forces.append(env.step(action)[0][1] / per_newton)
        noise = np.array(forces) - push
        assert -10 - 1e-9 <= noise.min() < -9.9
        assert 9.9 < noise.max() <= 10 + 1e-9
        assert noise.mean() == pytest.approx(0.0, abs=4 * 20 / math.sqrt(12 * 3000))
        assert noise.std() == pytest.approx(20 / math.sqrt(12), rel=0.05)


def test_cart_poles_start_is_the_papers():
    found = starts(CartPole())
    for i, widest in enumerate((0.5, 0.5, 0.0625, 0.0625)):
        assert 0.99 * widest < np.abs(found[:, i]).max() <= widest
        assert found[:, i].mean() == pytest.approx(0.0, abs=4 * 2 * widest / math.sqrt(12 * 3000))


def test_cart_pole_stops_after_300_steps():
    env = CartPole()
    env.noise = 0.0
    state, _ = env.reset(seed=0, options={"state": np.zeros(4)})
    steps = []
    for _ in range(300):
        steps.append(env.step(balance(state)))
        state = steps[-1][0]
    assert [truncated for *_, truncated, _ in steps] == [False] * 299 + [True]
    assert sum(reward for _, reward, *_ in steps) == 300


# --------------------------------------------------------------------------------------------------- loop maze


def test_thirty_rooms_lead_to_the_goal():
    maze = LoopMaze()
    assert len(maze.distances()) == 30
    assert len(maze.walls()["blocked"]) == 6
    assert not set(maze.walls()["blocked"]) & set(maze.distances())


def test_the_goal_is_next_door_and_19_steps_away():
    maze, task = LoopMaze(), make_task("loop-maze")
    assert maze.distances()[maze.start] == 19
    assert abs(maze.goal[0] - maze.start[0]) + abs(maze.goal[1] - maze.start[1]) == 1
    state, _ = maze.reset(seed=0)
    rewards, terminated = [], False
    while not terminated:
        state, reward, terminated, _, _ = maze.step(task.rule(state))
        rewards.append(reward)
    assert rewards == [-1.0] * 18 + [0.0]
    assert tuple(state) == maze.goal


def test_a_step_into_a_wall_stays():
    maze = LoopMaze()
    for room in maze.distances():
        for action, (dx, dy) in enumerate(maze.MOVES):
            beyond = (room[0] + dx, room[1] + dy)
            found = maze.after(room, action)
            assert found in (room, beyond)
            if found == room and beyond in maze.distances():
                assert sorted([room, beyond]) in [sorted([(a, b), (c, d)]) for a, b, c, d in maze.walls()["between"]]
            if found == beyond:  # and what can be walked can be walked back
                assert maze.after(beyond, (1, 0, 3, 2)[action]) == room
    assert maze.after(maze.start, 0) == maze.start  # the door to the goal is a wall


def test_the_maze_has_a_loop():
    maze = LoopMaze()
    doors = {frozenset((room, maze.after(room, action))) for room in maze.distances() for action in range(4)}
    assert sum(len(door) == 2 for door in doors) >= 30  # a tree of 30 rooms has 29


def test_the_maze_stops_after_200_steps():
    maze = LoopMaze()
    maze.reset(seed=0)
    steps = [maze.step(0) for _ in range(200)]
    assert [truncated for *_, truncated, _ in steps] == [False] * 199 + [True]


# --------------------------------------------------------------------------------------------- all, and pictures


@pytest.mark.parametrize("make", [MountainCar, CartPole, LoopMaze])
def test_one_seed_one_world(make):
    runs = []
    for _ in range(2):
        env = make()
        states = [env.reset(seed=7)[0]]
        for k in range(30):
            states.append(env.step(k % env.action_space.n)[0])
        states.append(env.reset()[0])
        runs.append(np.array(states, dtype=float))
    assert np.array_equal(*runs)


@pytest.mark.parametrize("make", [MountainCar, CartPole, LoopMaze])
def test_observations_are_of_their_space(make):
    env = make()
    state, _ = env.reset(seed=0)
    for k in range(40):
        assert env.observation_space.contains(state), state
        assert state.dtype == env.observation_space.dtype
        state, *_ = env.step(k * 7 % env.action_space.n)


def test_a_state_that_was_given_is_no_window_into_the_world():
    env = CartPole()
    state, _ = env.reset(seed=0)
    state[:] = 99.0
    assert np.abs(env.step(0)[0]).max() < 2


class Blinking(gym.Env):
    """Draws its step number in grey."""

    observation_space = gym.spaces.Discrete(1)
    action_space = gym.spaces.Discrete(2)
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        self.k = 0
        return 0, {}

    def step(self, action):
        self.k += 1
        return 0, 0.5, False, False, {}

    def render(self):
        return np.full((30, 40, 3), 10 * self.k, np.uint8)


def test_pictures_are_the_last_two_grey_and_small():
    env = Pixels(Blinking(), "blinking")
    first, _ = env.reset(seed=0)
    assert first.shape == (2, 84, 84)
    assert first.dtype == np.uint8
    assert not first.any()
    env.step(0)
    second, reward, *_ = env.step(1)
    assert (second[0] == 10).all()
    assert (second[1] == 20).all()
    assert reward == 0.5


def test_pictures_of_a_world_that_draws_none_are_an_error():
    with pytest.raises(UserError, match="draws no pictures") as caught:
        Pixels(MountainCar(), "mountain-car")
    assert "--pixels" in caught.value.fix
