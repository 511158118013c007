"""The papers' own worlds, and pictures of any other as observations.

Source   `org/rlcommunity/environments/{mountaincar,cartpole}` and `environments/loopmaze` of the released code.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rein.agents.features import Vector
from rein.errors import UserError

TWELVE_DEGREES = math.radians(12)


class MountainCar(gym.Env[Vector, int]):
    """An underpowered car between two hills: it must swing back to get up.

        velocity ← velocity + 0.001 (action − 1) − 0.0025 cos(3 position),  position ← position + velocity

    | Observation | Range          |      | Action | Meaning    |
    | position    | [−1.2, 0.6]    |      | 0      | push left  |
    | velocity    | [−0.07, 0.07]  |      | 1      | coast      |
                                          | 2      | push right |

    Reward −1 a step and 0 for the one that reaches the goal (position ≥ 0.5); at most 500 steps; the start is
    U[−0.7, −0.3], at rest.

    Source   Knox & Stone 2010; RL-Library's Mountain Car.
    Differs  Gymnasium's MountainCar-v0 starts in U[−0.6, −0.4], pays −1 for the last step too, and stops after 200.
    """

    observation_space = gym.spaces.Box(np.array([-1.2, -0.07]), np.array([0.6, 0.07]), dtype=np.float64)
    action_space = gym.spaces.Discrete(3)  # type: ignore[assignment]
    max_steps = 500

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, dict[str, Any]]:
        """A new start; `options={"state": (position, velocity)}` begins there."""
        super().reset(seed=seed)
        self.position, self.velocity = self.np_random.uniform(-0.7, -0.3), 0.0
        if options and "state" in options:
            self.position, self.velocity = options["state"]
        self.steps = 0
        return np.array([self.position, self.velocity]), {}

    def step(self, action: int) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """One push."""
        self.velocity += 0.001 * (action - 1) - 0.0025 * math.cos(3 * self.position)
        self.velocity = min(0.07, max(-0.07, self.velocity))
        self.position = min(0.6, max(-1.2, self.position + self.velocity))
        if self.position <= -1.2 and self.velocity < 0:
            self.velocity = 0.0
        self.steps += 1
        terminated = self.position >= 0.5
        state = np.array([self.position, self.velocity])
        return state, 0.0 if terminated else -1.0, terminated, self.steps >= self.max_steps and not terminated, {}


class CartPole(gym.Env[Vector, int]):
    """A pole on a cart that must not fall: push left or right.

    Euler steps of 0.02 s; the force is ±10 N plus uniform noise in [−10, 10] N, so that one push in two may be weak or
    turned around.

    | Observation       | Range          |      | Action | Meaning    |
    | cart position     | ±2.4 m         |      | 0      | push left  |
    | cart velocity     | about ±6 m/s   |      | 1      | push right |
    | pole angle        | ±12°           |
    | pole velocity     | about ±6 rad/s |

    Reward +1 a step, −1 for the one in which it falls; at most 300 steps. Starts in U[−0.5, 0.5] (cart) and
    U[−0.0625, 0.0625] (pole).

    Source   Knox & Stone 2011, 2012; RL-Library's Cart Pole with random starts and transition noise 1.
    Differs  Gymnasium's CartPole-v1 has no noise, starts in ±0.05, pays +1 for falling too, and stops after 500.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), dtype=np.float64)
    action_space = gym.spaces.Discrete(2)  # type: ignore[assignment]
    max_steps = 300
    noise = 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, dict[str, Any]]:
        """A new start; `options={"state": (x, x_dot, theta, theta_dot)}` begins there."""
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.5, 0.5, 4) / np.array([1.0, 1.0, 8.0, 8.0])
        if options and "state" in options:
            self.state = np.array(options["state"], dtype=np.float64)
        self.steps = 0
        return self.state.copy(), {}

    def step(self, action: int) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """One push of 0.02 s."""
        push = 10.0 if action > 0 else -10.0
        self.state = cart_pole_step(self.state, push + 2 * self.noise * 10.0 * (self.np_random.random() - 0.5))
        self.steps += 1
        fallen = abs(self.state[0]) > 2.4 or abs(self.state[2]) > TWELVE_DEGREES
        state = self.state.copy()
        return state, -1.0 if fallen else 1.0, bool(fallen), self.steps >= self.max_steps and not fallen, {}


def cart_pole_step(state: Vector, force: float) -> Vector:
    """The cart and pole 0.02 s later under `force` newtons.

    Shapes   (4,) → (4,)
    Source   Barto, Sutton & Anderson 1983; the constants of RL-Library and Gymnasium are the same.
    """
    x, x_dot, theta, theta_dot = state.tolist()
    cos, sin = math.cos(theta), math.sin(theta)
    pushed = (force + 0.05 * theta_dot * theta_dot * sin) / 1.1
    theta_acc = (9.8 * sin - cos * pushed) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1))
    x_acc = pushed - 0.05 * theta_acc * cos / 1.1
    return np.array([x + 0.02 * x_dot, x_dot + 0.02 * x_acc, theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc])


class LoopMaze(gym.Env[NDArray[np.int64], int]):
    """Thirty rooms, a loop, and a goal next door to the start but 19 steps away.

    The observation is (column, row); actions are right, left, down, up; a step into a wall stays. Reward −1 a step and
    0 for the one that reaches the goal; at most 200 steps.

    Source   `environments/loopmaze` of the released code, without its secret paths.
    """

    MAP = """\
+--+--+--+--+--+--+
|            S |G |
+  +--+--+--+--+  +
|  |##|           |
+  +  +  +--+--+  +
|  |##|  |## ##|  |
+  +  +  +--+--+  +
|  |##|           |
+  +  +  +  +  +  +
|  |##|           |
+  +--+--+--+--+  +
|                 |
+--+--+--+--+--+--+""".splitlines()
    MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
    width = height = 6
    observation_space = gym.spaces.MultiDiscrete([6, 6])
    action_space = gym.spaces.Discrete(4)  # type: ignore[assignment]
    max_steps = 200

    def __init__(self) -> None:
        rooms = [(x, y) for x in range(self.width) for y in range(self.height)]
        self.start = next(room for room in rooms if self._sign(*room) == "S")
        self.goal = next(room for room in rooms if self._sign(*room) == "G")

    def _sign(self, x: int, y: int) -> str:
        return self.MAP[2 * y + 1][3 * x + 1 : 3 * x + 3].strip()

    def after(self, room: tuple[int, int], action: int) -> tuple[int, int]:
        """The room that a move from `room` ends in."""
        (x, y), (dx, dy) = room, self.MOVES[action]
        wall = self.MAP[2 * y + 1][3 * x + (3 if dx > 0 else 0)] if dx else self.MAP[2 * y + 1 + dy][3 * x + 1]
        return room if wall in "|-" else (x + dx, y + dy)

    def distances(self) -> dict[tuple[int, int], int]:
        """Steps to the goal from every room that leads there."""
        found, queue = {self.goal: 0}, deque([self.goal])
        while queue:
            room = queue.popleft()
            for action in range(4):  # moves can be undone, so neighbours are neighbours both ways
                nearby = self.after(room, action)
                if nearby not in found:
                    found[nearby] = found[room] + 1
                    queue.append(nearby)
        return found

    def walls(self) -> dict[str, Any]:
        """The maze as a page draws it."""
        rooms = [(x, y) for x in range(self.width) for y in range(self.height)]
        blocked = [room for room in rooms if self._sign(*room) == "##"]
        between = [
            [x, y, x + dx, y + dy]
            for x, y in rooms
            for action, (dx, dy) in ((0, (1, 0)), (2, (0, 1)))
            if x + dx < self.width and y + dy < self.height and self.after((x, y), action) == (x, y)
        ]
        return {"width": 6, "height": 6, "blocked": blocked, "between": between, "start": self.start, "goal": self.goal}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Back to the start."""
        super().reset(seed=seed)
        self.room, self.steps = self.start, 0
        return np.array(self.room), {}

    def step(self, action: int) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        """One move."""
        self.room = self.after(self.room, int(action))
        self.steps += 1
        there = self.room == self.goal
        return np.array(self.room), 0.0 if there else -1.0, there, self.steps >= self.max_steps and not there, {}


class Pixels(gym.Wrapper[Any, Any, Any, Any]):
    """What the environment renders, as an observation: the last two pictures, grey, 84 × 84.

    Shapes   (2, 84, 84), whole numbers 0 to 255.
    Source   Mnih et al. 2015 for the size; Deep TAMER (Warnell et al. 2018) teaches from frames.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        if env.render_mode != "rgb_array":
            raise UserError(f"{name} draws no pictures to learn from.", "Leave out --pixels.")
        self.observation_space = gym.spaces.Box(0, 255, (2, 84, 84), np.uint8)

    def _picture(self) -> NDArray[np.uint8]:
        from PIL import Image

        picture = (
            Image.fromarray(np.asarray(self.env.render())).convert("L").resize((84, 84), Image.Resampling.BILINEAR)
        )
        return np.asarray(picture)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """A new start; both pictures show it."""
        _, info = self.env.reset(**options)
        self._now = self._picture()
        return np.stack([self._now, self._now]), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; the older picture is the one before it."""
        _, reward, terminated, truncated, info = self.env.step(action)
        before, self._now = self._now, self._picture()
        return np.stack([before, self._now]), reward, terminated, truncated, info
