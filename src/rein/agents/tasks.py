"""What can be taught: a name → `Task`, an environment and all that a lesson needs to know of it.

    mountain-car, cart-pole   the papers' versions (RL-Library's, as Knox & Stone ran them)
    loop-maze                 Knox's first lesson: a maze of 30 rooms, 19 steps to the goal
    Acrobot-v1, Taxi-v4, …    whatever `gymnasium.make` knows
    package.module:Env        an environment of your own: a class or function that gives a `gymnasium.Env`

Source   `params/Params.java` of the released code for the papers' settings; Gymnasium 1.x for the rest.
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from rein.agents.environments import TWELVE_DEGREES, CartPole, LoopMaze, MountainCar, Pixels
from rein.agents.features import RBF, Features, Fourier, OneHot, Tiles, Vector
from rein.agents.sarsa import CART_POLE, OPTIMISTIC, PESSIMISTIC, SarsaSettings
from rein.errors import UserError, suggestion


@dataclass(frozen=True)
class Task:
    """An environment and what goes with it: words for people, bounds, the papers' settings where there are some."""

    name: str
    title: str
    goal: str
    env: gym.Env[Any, Any]
    actions: tuple[str, ...]
    names: tuple[str, ...]  # of the numbers of an observation
    low: Vector
    high: Vector
    counts: tuple[int, ...] | None = None  # of values, where all numbers are whole
    draw: str = "numbers"  # how the page draws it: mountain-car, cart-pole, acrobot, loop-maze, frames, numbers
    step_s: float = 0.2
    credit_s: tuple[float, float] = (0.2, 0.8)
    h_features: Callable[[], Features] | None = None
    q_features: Callable[[], Features] | None = None
    eligibility_features: Callable[[], Features] | None = None
    sarsa: SarsaSettings | None = None
    h_weight_decay: float = 0.98  # per episode
    eligibility_decay: tuple[float, float] = (0.9998, 1.0)  # per step, per episode
    c_s: dict[str, float] = field(default_factory=lambda: {"action-biasing": 100.0, "control-sharing": 2.0})
    rule: Callable[[Vector], int] | None = None  # a good action, where one is known
    walls: dict[str, Any] | None = None
    shape: tuple[int, ...] = ()  # of an observation; pictures have three

    @property
    def n_actions(self) -> int:
        """How many actions there are."""
        return len(self.actions)


def flat(observation: Any) -> Vector:
    """An observation as one vector of numbers; pictures (three dimensions) stay as they are.

    Example  >>> flat((3, np.array([0.5, 1.5]))).tolist()
             [3.0, 0.5, 1.5]
    """
    if isinstance(observation, np.ndarray) and observation.ndim == 3:
        return observation
    parts = observation if isinstance(observation, tuple) else (observation,)
    return np.concatenate([np.atleast_1d(np.asarray(part, dtype=np.float64)).ravel() for part in parts])


def energy_pump(observation: Vector) -> int:
    """Mountain Car's rule: push the way the car moves. Source: getHandCodedHRew of the released code."""
    return 2 if observation[1] > 0 else 0


def balance(observation: Vector) -> int:
    """Cart Pole's rule: push towards where the pole is falling, and the cart gently back to the middle."""
    x, x_dot, theta, theta_dot = observation
    return 1 if theta + 0.2 * theta_dot + 0.02 * x + 0.04 * x_dot > 0 else 0


def swing(observation: Vector) -> int:
    """Acrobot's rule: torque the way the lower link turns, which pumps energy."""
    return 2 if observation[5] > 0 else 0


_CART = (np.array([-2.4, -6.0, -TWELVE_DEGREES, -6.0]), np.array([2.4, 6.0, TWELVE_DEGREES, 6.0]))
_CAR = (np.array([-1.2, -0.07]), np.array([0.6, 0.07]))


def _car_rbf(*, n: int = 40, rel_width: float = 0.08, norm_low: float = -1.0) -> Callable[[], Features]:
    return lambda: RBF(*_CAR, n=n, rel_width=rel_width, norm_low=norm_low)


def _cart_rbf(rel_width: float) -> Callable[[], Features]:
    return lambda: RBF(*_CART, n=8, rel_width=rel_width)


def _mountain_car(env: gym.Env[Any, Any], name: str, title: str) -> Task:
    return Task(
        name, title, "Get the car up to the flag. It is too weak: it has to swing back first.", env,
        ("push left", "coast", "push right"), ("position", "velocity"), *_CAR, draw="mountain-car",
        h_features=_car_rbf(), q_features=_car_rbf(), eligibility_features=_car_rbf(), sarsa=PESSIMISTIC,
        rule=energy_pump, shape=(2,),
    )  # fmt: skip


def _cart_pole(env: gym.Env[Any, Any], name: str, title: str) -> Task:
    return Task(
        name, title, "Keep the pole up and the cart on the track.", env,
        ("push left", "push right"), ("cart position", "cart velocity", "pole angle", "pole velocity"), *_CART,
        draw="cart-pole", h_features=_cart_rbf(0.08), q_features=_cart_rbf(0.13), eligibility_features=_cart_rbf(0.08),
        sarsa=CART_POLE, h_weight_decay=0.97, eligibility_decay=(0.99996, 0.98),
        c_s={"action-biasing": 200.0, "control-sharing": 1.0}, rule=balance, shape=(4,),
    )  # fmt: skip


def _loop_maze() -> Task:
    env = LoopMaze()
    distance = env.distances()

    def rule(observation: Vector) -> int:
        room = (int(observation[0]), int(observation[1]))
        return min(range(4), key=lambda action: distance[env.after(room, action)])

    low, high = np.zeros(2), np.full(2, 5.0)
    table = lambda: OneHot((6, 6))  # noqa: E731
    return Task(
        "loop-maze", "Loop Maze", "Find the way to the goal. It is next door, but the door is a wall.", env,
        ("right", "left", "down", "up"), ("column", "row"), low, high, counts=(6, 6), draw="loop-maze", step_s=0.8,
        credit_s=(0.15, 0.4), h_features=lambda: RBF(low, high, n=6, rel_width=0.08), q_features=table,
        eligibility_features=table, sarsa=SarsaSettings(0.3, 0.9, 1.0, 0.0, 1.0), rule=rule, walls=env.walls(),
        c_s={"action-biasing": 20.0, "control-sharing": 2.0}, shape=(2,),
    )  # fmt: skip


TASKS: dict[str, Callable[[], Task]] = {
    "mountain-car": lambda: _mountain_car(MountainCar(), "mountain-car", "Mountain Car"),
    "cart-pole": lambda: _cart_pole(CartPole(), "cart-pole", "Cart Pole"),
    "loop-maze": _loop_maze,
}
# What Gymnasium does not say of its own environments: action names.
_ACTIONS = {
    "Acrobot": ("torque left", "no torque", "torque right"),
    "LunarLander": ("nothing", "left engine", "main engine", "right engine"),
    "FrozenLake": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pick up", "drop off"),
    "Blackjack": ("stick", "hit"),
}


def make_task(
    name: str, *, low: Sequence[float] = (), high: Sequence[float] = (), frames: bool = False, pixels: bool = False
) -> Task:
    """The task of a name: one of `TASKS`, a Gymnasium id, or `package.module:Env`.

    `low` and `high` bound observations that have no bounds of their own. With `frames`, an environment that a page
    cannot draw itself is made to render pictures; with `pixels`, these are the observations too.

    Raises   UserError for a name that nothing has, actions that are not discrete, observations that are not numbers,
             bounds of another length, an environment that cannot be made or drawn here.
    """
    if name in TASKS and pixels:
        raise UserError(
            f"{name} draws no pictures to learn from.", "Leave out --pixels, or name a Gymnasium id, like CartPole-v1."
        )
    if name in TASKS:
        if low or high:
            raise UserError(f"{name} has bounds of its own; --low and --high were given.", "Leave them out.")
        return TASKS[name]()
    env = _make(name, frames=frames, pixels=pixels)
    family = name.split("/")[-1].split("-v")[0]
    if family in ("MountainCar", "CartPole") and not pixels and not low and not high:
        title = f"{'Mountain Car' if family == 'MountainCar' else 'Cart Pole'} ({name})"
        task = (_mountain_car if family == "MountainCar" else _cart_pole)(env, name, title)
        return task
    return _from_spaces(env, name, family, low, high, frames=frames, pixels=pixels)


def _make(name: str, *, frames: bool, pixels: bool) -> gym.Env[Any, Any]:
    family = name.split("/")[-1].split("-v")[0]
    drawn_here = family in ("MountainCar", "CartPole", "Acrobot")  # by the page itself
    mode = "rgb_array" if pixels or (frames and not drawn_here) else None
    if ":" in name:
        return _users(name)
    if mode is not None:  # pygame draws into memory: no screen and no loudspeaker are looked for
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    try:
        return gym.make(name, render_mode=mode)
    except gym.error.DependencyNotInstalled as error:
        raise UserError(
            f"{name} cannot be made: {error}.", "Install what it needs: pip install 'rein[environments]'."
        ) from None
    except (gym.error.Error, ImportError, TypeError, ValueError) as error:
        known = [*TASKS, *(id for id in gym.registry if "/" not in id)]
        near = suggestion(name, known) if _near(name, known) else ""
        raise UserError(
            f"There is no task {name!r} ({str(error).splitlines()[0].rstrip('.')}).",
            near or f"Name {', '.join(TASKS)}, a Gymnasium id, or package.module:Env.",
        ) from None


def _near(name: str, known: Sequence[str]) -> bool:
    return bool(difflib.get_close_matches(name, known, n=1, cutoff=0.6))


def _users(name: str) -> gym.Env[Any, Any]:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{name} cannot be made: {error}.",
            "Write package.module:Env, where Env() gives a gymnasium.Env; the package must be importable from here.",
        ) from None
    if not isinstance(made, gym.Env):
        raise UserError(
            f"{name} gives a {type(made).__name__}, not a gymnasium.Env.", "Name the class of your environment."
        )
    return made


def _from_spaces(
    env: gym.Env[Any, Any],
    name: str,
    family: str,
    low: Sequence[float],
    high: Sequence[float],
    *,
    frames: bool,
    pixels: bool,
) -> Task:
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise UserError(
            f"{name} has the actions {env.action_space}; an agent that is taught by hand chooses one of a few.",
            "Wrap it so that its action_space is Discrete, and name the wrapper as package.module:Env.",
        )
    count = int(env.action_space.n)
    actions = _ACTIONS.get(family, ())
    actions = actions if len(actions) == count else tuple(f"action {i}" for i in range(count))
    if env.action_space.start != 0:
        raise UserError(f"{name} counts its actions from {env.action_space.start}.", "Wrap it so that they begin at 0.")
    if pixels:
        env = Pixels(env, name)
        return Task(name, name, "", env, actions, (), np.zeros(0), np.zeros(0), draw="frames", shape=(2, 84, 84))
    space_low, space_high, counts = _bounds(env.observation_space, name)
    if low or high:
        if len(low) != len(space_low) or len(high) != len(space_low):
            raise UserError(
                f"--low has {len(low)} numbers and --high {len(high)}; an observation of {name} has {len(space_low)}.",
                "Give one of each for every number of the observation.",
            )
        space_low, space_high, counts = np.asarray(low, float), np.asarray(high, float), None
    draw = "acrobot" if family == "Acrobot" else "frames" if frames and env.render_mode == "rgb_array" else "numbers"
    return Task(
        name, name, "", env, actions, tuple(f"number {i}" for i in range(len(space_low))), space_low, space_high,
        counts=counts, draw=draw, rule=swing if family == "Acrobot" else None, shape=(len(space_low),),
    )  # fmt: skip


def _bounds(space: gym.Space[Any], name: str) -> tuple[Vector, Vector, tuple[int, ...] | None]:
    """The bounds of each number of an observation; the counts of values where all are whole."""
    if isinstance(space, gym.spaces.Discrete):
        return np.array([float(space.start)]), np.array([float(space.start + space.n - 1)]), (int(space.n),)
    if isinstance(space, gym.spaces.MultiDiscrete):
        counts, first = tuple(int(n) for n in space.nvec.ravel()), space.start.ravel().astype(np.float64)
        return first, first + np.array(counts, dtype=np.float64) - 1, counts
    if isinstance(space, gym.spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return np.zeros(size), np.ones(size), (2,) * size
    if isinstance(space, gym.spaces.Box) and len(space.shape) <= 2 and space.shape != (0,):
        return space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel(), None
    if isinstance(space, gym.spaces.Tuple):
        parts = [_bounds(part, name) for part in space.spaces]
        whole = all(part[2] is not None for part in parts)
        counts_all = tuple(n for part in parts for n in part[2] or ()) if whole else None
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), counts_all
    raise UserError(
        f"{name} observes {space}, which is not a few numbers.",
        "Use --pixels to teach from its pictures, or wrap it with gymnasium.wrappers.FlattenObservation.",
    )


def make_features(task: Task, kind: str, seed: int = 0) -> Features:
    """The features of a task: `auto` takes the papers' where there are some, else what its observations allow.

    Raises   UserError when the kind does not fit the observations.
    """
    if len(task.shape) == 3:
        raise UserError(f"{task.name} is observed as pictures, which have no --features.", "Use --h-model network.")
    dimensions = len(task.low)
    if kind == "auto":
        if task.counts and math.prod(task.counts) <= 10_000:
            kind = "table"
        else:
            kind = "rbf" if dimensions <= 4 else "tiles"
    if kind == "table":
        if not task.counts:
            raise UserError(
                f"The observations of {task.name} are not whole numbers.", "Use --features rbf, tiles or fourier."
            )
        return OneHot(task.counts, first=task.low.astype(int).tolist())
    if kind == "tiles":
        return Tiles(task.low, task.high)
    if kind == "fourier":
        return Fourier(task.low, task.high, seed=seed)
    return RBF(task.low, task.high, n={1: 40, 2: 20, 3: 12}.get(dimensions, 8), rel_width=0.08)


def make_q_features(task: Task, kind: str, seed: int, preset: str) -> Features:
    """The features of Q: the papers' for their tasks; the optimistic Mountain Car has a grid of its own."""
    if kind != "auto" or task.q_features is None:
        return make_features(task, kind, seed)
    if preset == "optimistic" and task.draw == "mountain-car":
        return RBF(*_CAR, n=34, rel_width=0.062)
    return task.q_features()


def sarsa_settings(task: Task, features: Features, preset: str = "paper") -> SarsaSettings:
    """SARSA's numbers: the papers' for their tasks, else the released code's defaults with α for these features.

    α is 0.25 / ‖φ‖² of a state in the middle: a quarter of the way to the target at each visit.
    """
    if preset == "optimistic" and task.draw == "mountain-car":
        return OPTIMISTIC
    if task.sarsa is not None and preset == "paper":
        return task.sarsa
    return SarsaSettings(alpha=rate(task, features), lambda_=0.9, epsilon=0.03, epsilon_decay=0.9995)


def rate(task: Task, features: Features, share: float = 0.25) -> float:
    """The learning rate that moves a prediction by `share` of its error: share / ‖φ‖² in the middle of all states."""
    phi_F = features((task.low + task.high) / 2)
    return share / float(phi_F @ phi_F)
