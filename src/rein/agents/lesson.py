"""A lesson: one world, one agent, one trainer, one record. The same code lives it, simulates it and replays it.

Nothing here looks at a clock or at the network. Whoever runs a lesson says what time it is: the trainer page's server
in real time (web/classroom.py), simulation.py as fast as it goes, replay.py from the rows of a record.

Flow     tick(t), press(…), training(…), control(…) → what is shown, the record's rows, an agent that has learned
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from rein import __version__
from rein.agents.combine import ANNEALED, SIMULTANEOUS, Technique
from rein.agents.eligibility import Annealed, Eligibility, Influence
from rein.agents.features import Vector
from rein.agents.human_model import HumanModel, Linear, Neighbours, Network, digest, load_into
from rein.agents.tamer import Agent, Decision, Tamer
from rein.agents.tamer_rl import TamerRL
from rein.agents.tasks import Task, flat, make_features, make_q_features, rate, sarsa_settings
from rein.config import setting, to_dict
from rein.errors import UserError
from rein.feedback.credit import ByStep, CreditAssigner, Delay, Gamma, Uniform
from rein.feedback.record import FORMAT, VERSION, RecordWriter, Row, encode, pack
from rein.run import environment

MOST_PRESS = 1000.0  # a press of more says nothing that ten presses do not


@dataclass(frozen=True)
class LessonConfig:
    """What is taught, and how the agent learns."""

    task: str = setting(
        "mountain-car", "mountain-car, cart-pole, loop-maze, a Gymnasium id, or package.module:Env", positional=True
    )
    technique: Technique = setting(
        "tamer",
        "tamer: what the trainer says, alone; sarsa: the environment's reward, alone; else how the two are combined",
        group="agent",
    )
    h_model: Literal["linear", "knn", "network"] = setting(
        "linear", "model of human reward; knn needs no bounds, network no features", group="agent"
    )
    features: Literal["auto", "rbf", "tiles", "fourier", "table"] = setting(
        "auto", "of linear models; auto: the papers' for their tasks", group="agent"
    )
    h_learning_rate: float | None = setting(
        None,
        "of Ĥ; without it, a prediction moves a quarter of its error (network: 1e-4)",
        paper="0.001",
        group="agent",
    )
    h_load: Path | None = setting(
        None, "start from this Ĥ: an h.safetensors, or the released code's list of weights", group="agent"
    )
    h_weight: float | None = setting(
        None,
        "weight of Ĥ, the papers' β or c_s; without it, the papers' for the task",
        paper="c_s 100, 200; 2, 1",
        group="agent",
    )
    influence: Literal["eligibility", "annealed"] = setting(
        "eligibility",
        "eligibility: Ĥ weighs where training was lately; annealed: everywhere, less each episode",
        group="agent",
    )
    eligibility_growth: float = setting(0.2, "a of the eligibility module", paper="0.2", group="agent")
    sarsa_preset: Literal["paper", "optimistic", "general"] = setting(
        "paper", "numbers of SARSA(λ); general: for tasks that no paper had", group="agent"
    )
    credit: Literal["uniform", "gamma", "previous-step", "immediate"] = setting(
        "uniform", "density of a trainer's delay", group="credit"
    )
    credit_low_s: float | None = setting(
        None, "uniform: the shortest delay; without it, the task's", unit="seconds", paper="0.2", group="credit"
    )
    credit_high_s: float | None = setting(
        None, "uniform: the longest delay", unit="seconds", paper="0.8", group="credit"
    )
    gamma_shape: float = setting(2.0, "gamma: shape of the density", group="credit")
    gamma_scale_s: float = setting(0.28, "gamma: scale of the density", unit="seconds", group="credit")
    credit_scheme: Literal["auto", "aggregate", "aggregate-rewarded", "individual", "individual-rewarded"] = setting(
        "auto",
        "one label a step, silence counting or not, or one a press; auto: aggregate, for networks individual-rewarded",
        group="credit",
    )
    extrapolate: bool = setting(True, "guess the label of a step whose window is half over", group="credit")
    late_s: float = setting(0.3, "how long a press may travel and still count", unit="seconds", group="credit")
    step_s: float | None = setting(
        None, "duration of a step; without it, the task's", unit="seconds", paper="0.2; 0.8", group="clock"
    )
    pause_s: float = setting(
        1.0, "after an episode, to judge its last action", unit="seconds", paper="1", group="clock"
    )
    low: tuple[float, ...] = setting(
        (), "bounds of an observation without bounds, one number each", group="environment"
    )
    high: tuple[float, ...] = setting((), "likewise", group="environment")
    pixels: bool = setting(
        False, "observe the pictures that the environment renders (needs --h-model network)", group="environment"
    )
    seed: int = setting(0, "of the environment, the agent's choices and the network")

    def __post_init__(self) -> None:
        checks = (
            ("h_learning_rate", self.h_learning_rate, 0.0, "above 0"),
            ("step_s", self.step_s, 0.0, "above 0 seconds"),
        )
        for name, value, least, words in checks:
            if value is not None and not least < value < float("inf"):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {value:g}, but it must be {words}.", f"Change {flag}.")
        for name, number in (("pause_s", self.pause_s), ("late_s", self.late_s), ("h_weight", self.h_weight or 0.0)):
            if not 0 <= number < float("inf"):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {number:g}, but it must be 0 or more.", f"Change {flag}.")
        if not 0 < self.eligibility_growth <= 1:
            raise UserError(
                f"--eligibility-growth is {self.eligibility_growth:g}, but it must be above 0 and at most 1.",
                "The papers use 0.2.",
            )
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}, but seeds begin at 0.", "Use a seed of 0 or more.")
        if self.pixels and self.h_model != "network":
            raise UserError(f"--pixels needs --h-model network, but it is {self.h_model}.", "Add --h-model network.")
        if self.pixels and self.technique != "tamer":
            raise UserError(
                f"--technique {self.technique} learns Q from features, which pictures do not have.",
                "Leave out --pixels, or use --technique tamer.",
            )


# ---------------------------------------------------------------------------------------------- from settings


def make_delay(config: LessonConfig, task: Task) -> Delay:
    """The density of a trainer's delay."""
    if config.credit == "gamma":
        return Gamma(config.gamma_shape, config.gamma_scale_s)
    if config.credit != "uniform":
        return ByStep(1 if config.credit == "previous-step" else 0)
    low, high = config.credit_low_s, config.credit_high_s
    return Uniform(task.credit_s[0] if low is None else low, task.credit_s[1] if high is None else high)


def make_model(config: LessonConfig, task: Task) -> HumanModel:
    """Ĥ, as it is before the lesson."""
    if config.h_model == "knn":
        model: HumanModel = Neighbours(task.n_actions, len(task.low))
    elif config.h_model == "network":
        learning_rate = config.h_learning_rate or 1e-4
        model = Network(
            task.n_actions, task.shape, low=task.low, high=task.high, learning_rate=learning_rate, seed=config.seed
        )
    else:
        use_paper = config.features == "auto" and task.h_features is not None
        features = (
            task.h_features() if use_paper and task.h_features else make_features(task, config.features, config.seed)
        )
        model = Linear(features, task.n_actions, config.h_learning_rate or rate(task, features))
    if config.h_load is not None:
        load_into(model, config.h_load)
    return model


def make_influence(config: LessonConfig, task: Task) -> Influence:
    """The weight of Ĥ: the papers' numbers where --h-weight is not given."""
    name, weight = config.technique, config.h_weight
    if weight is None:
        weight = task.c_s.get(name, 1.0 if name == "reward-shaping" else 10.0)
    if config.influence == "eligibility" and name in SIMULTANEOUS:
        use_paper = config.features == "auto" and task.eligibility_features is not None
        features = (
            task.eligibility_features()
            if use_paper and task.eligibility_features
            else make_features(task, config.features, config.seed)
        )
        step_decay, episode_decay = task.eligibility_decay
        return Eligibility(
            features, task.n_actions, c_s=weight, growth=config.eligibility_growth, step_decay=step_decay,
            episode_decay=episode_decay, state_only=name == "control-sharing",
        )  # fmt: skip
    return Annealed(weight, task.h_weight_decay if name in ANNEALED else 1.0, task.n_actions)


def make_assigner(config: LessonConfig, task: Task) -> CreditAssigner:
    """The credit assigner, with no steps yet."""
    scheme = config.credit_scheme
    if scheme == "auto":
        scheme = "individual-rewarded" if config.h_model == "network" else "aggregate"
    return CreditAssigner(make_delay(config, task), scheme=scheme, extrapolate=config.extrapolate, late_s=config.late_s)


def make_agent(config: LessonConfig, task: Task) -> Agent:
    """The agent of a lesson, untaught.

    Raises   UserError when the technique, the model and the task do not go together.
    """
    random = np.random.default_rng([config.seed, 1])
    tamer = None
    if config.technique != "sarsa":
        tamer = Tamer(make_model(config, task), make_assigner(config, task), random)
    if config.technique == "tamer":
        assert tamer is not None
        return tamer
    return make_rl(config, task, random, tamer)


def make_rl(config: LessonConfig, task: Task, random: np.random.Generator, tamer: Tamer | None) -> TamerRL:
    """SARSA(λ), with the help of `tamer` or alone."""
    features = make_q_features(task, config.features, config.seed, config.sarsa_preset)
    settings = sarsa_settings(task, features, config.sarsa_preset)
    if tamer is None:
        return TamerRL("sarsa", task.n_actions, features, settings, random)
    influence = make_influence(config, task)
    return TamerRL(config.technique, task.n_actions, features, settings, random, tamer=tamer, influence=influence)


# ------------------------------------------------------------------------------------------------- the world


class World(Protocol):
    """Where an agent acts: an environment, or the record of one."""

    def reset(self) -> Vector:
        """A new episode; its first observation."""

    def step(self, action: int) -> tuple[Vector, float, bool, bool]:
        """One step: observation, reward, terminated, truncated."""


class EnvironmentWorld:
    """A Gymnasium environment; the first episode is seeded, the next go on from there."""

    def __init__(self, task: Task, seed: int) -> None:
        self.env, self._seed = task.env, seed
        self._fresh = True

    def reset(self) -> Vector:
        """A new episode.

        Raises   UserError when the environment gives a number that is none.
        """
        observation, _ = self.env.reset(seed=self._seed if self._fresh else None)
        self._fresh = False
        return self._checked(flat(observation), 0.0)

    def step(self, action: int) -> tuple[Vector, float, bool, bool]:
        """One step.

        Raises   UserError when the environment gives a number that is none.
        """
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return self._checked(flat(observation), float(reward)), float(reward), bool(terminated), bool(truncated)

    def _checked(self, seen: Vector, paid: float) -> Vector:
        if not np.isfinite(paid) or not np.isfinite(seen).all():
            raise UserError(
                f"The environment gave the observation {seen.tolist()} and the reward {paid}: not all are finite.",
                "Correct the environment; the record of the lesson so far is whole.",
            )
        return seen


# ------------------------------------------------------------------------------------------------- the lesson


@dataclass(frozen=True)
class Shown:
    """What a trainer sees after a tick: the state that the action led to."""

    k: int
    t: float
    episode: int  # from 1
    i: int  # steps of this episode so far
    before: Vector
    state: Vector
    decision: Decision
    reward: float
    total: float  # of the episode so far
    ended: str | None


@dataclass(frozen=True)
class Pressed:
    """What became of a press."""

    id: str
    value: float
    t: float
    credits: list[tuple[int, float]]
    ignored: str | None
    late: bool


class Lesson:
    """The state of a lesson. Every change comes in through a method and goes out as a row of the record."""

    def __init__(self, config: LessonConfig, task: Task, world: World) -> None:
        self.config, self.task, self.world = config, task, world
        self._log: RecordWriter | None = None
        self._failed: Exception | None = None  # a row could not be written
        self.agent = make_agent(config, task)
        self.k = 0  # the next step's number
        self.t = 0.0
        self.episode = 0
        self.training = False
        self.demonstrating = False
        self.held_action = 0  # what a demonstrating trainer does
        self.returns: list[tuple[float, int]] = []  # of each finished episode: return, steps
        self.n_presses = self.n_late = 0
        delay = self.tamer.assigner.delay if self.tamer else ByStep(0)
        self._reach_s = 0.0 if isinstance(delay, ByStep) else delay.inverse_cdf(0.999)  # how far back a press looks
        self._seen_ids: dict[str, Pressed] = {}
        self._observation: Vector | None = None  # None: a new episode begins with the next tick
        self._reward: float | None = None
        self._total, self._i = 0.0, 0
        self.forced: Callable[[int], tuple[int, str]] | None = None  # replay under other settings: the recorded action

    def header(self) -> Row:
        """The first row of a record."""
        return {
            "kind": "header", "format": FORMAT, "version": VERSION, "rein": __version__, "config": to_dict(self.config),
            "actions": list(self.task.actions), "names": list(self.task.names), "environment": environment(),
            "digest": digest(self.agent.arrays()),
        }  # fmt: skip

    def _write(self, row: Row) -> None:
        if self._log is None:
            return
        try:
            self._log.write(row)
        except Exception as error:
            self._failed = error
            raise

    def _check(self, row: Row | None = None) -> None:
        """Nothing changes that cannot be recorded: not after a row was lost, and not by a row that no line can hold."""
        if self._failed is not None:
            raise self._failed
        if row is not None:
            encode(row)

    def go_on(self, world: World, log: RecordWriter) -> None:
        """From now on: in this world, written to this record."""
        self.world, self._log = world, log

    def step_s(self) -> float:
        """How long a step lasts, unless the speed is changed."""
        return self.task.step_s if self.config.step_s is None else self.config.step_s

    def observe(self) -> Vector:
        """What the agent sees now; begins an episode where none is going on."""
        if self._observation is None:
            self._observation, self._reward = self.world.reset(), None
            self._total, self._i = 0.0, 0
        return self._observation

    def tick(self, t: float) -> Shown:
        """A step boundary at time `t`: the agent learns, chooses, acts."""
        self._check()
        self.t = t
        before = self.observe()
        fresh = self._i == 0
        self.episode += fresh
        forced, source = (self.held_action if self.demonstrating else None), None
        if self.forced is not None:
            forced, source = self.forced(self.k)
        decision = self.agent.begin_step(self.k, before, t, reward=self._reward, forced=forced)
        if source is not None:
            decision = replace(decision, source=source)
        if self.demonstrating and decision.proposed is not None:
            # The trainer shows what to do: praise where the agent would have done the same, blame where not.
            self.agent.tell(before, decision.proposed, 1.0 if decision.proposed == decision.action else -1.0)
        after, reward, terminated, truncated = self.world.step(decision.action)
        self._total, self._i = self._total + reward, self._i + 1
        ended = "terminated" if terminated else "truncated" if truncated else None
        row: Row = {"kind": "step", "k": self.k, "t": t, "episode": self.episode, "action": decision.action}
        row |= {"source": decision.source, "reward": reward, "next": pack(after), "ended": ended}
        if fresh:
            row["obs"] = pack(before)
        if decision.proposed is not None:
            row["proposed"] = decision.proposed
        self._write(row)
        shown = Shown(
            self.k, t, self.episode, self._i, before, after, decision, reward, self._total, ended
        )  # fmt: skip
        self.k += 1
        if ended:
            self.agent.end_episode(reward, after, terminated=terminated)
            self.returns.append((self._total, self._i))
            self._observation = self._reward = None
        else:
            self._observation, self._reward = after, reward
        return shown

    def press(self, id: str, value: float, t: float, *, by: str = "person", **about: Any) -> Pressed:
        """A press meant at time `t`. One id counts once, however often it comes.

        Raises   UserError for a value that is no number within ±1000.
        """
        if id in self._seen_ids:
            return self._seen_ids[id]
        if not -MOST_PRESS <= value <= MOST_PRESS:  # false for nan, too
            raise UserError(
                f"A press of {value} is none.", f"Presses are numbers from -{MOST_PRESS:g} to {MOST_PRESS:g}."
            )
        row: Row = {"kind": "press", "id": id, "by": by, "value": value, "t": t, **about}
        self._check(row)
        credits: list[tuple[int, float]] = []
        ignored = None
        if not self.training:
            ignored = "training is off"
        elif self.config.technique == "sarsa":
            ignored = "sarsa does not listen"
        else:
            credits = self.agent.press(value, t)
        given = sum(share for _, share in credits)
        late = ignored is None and given < 0.999 and t > self._reach_s  # some of it fell on steps that are final
        pressed = Pressed(id, value, t, credits, ignored, late)
        self._seen_ids[id] = pressed
        self.n_presses += 1
        self.n_late += late
        self._write(row | {"credits": credits} | ({"ignored": ignored} if ignored else {}))
        return pressed

    def set_training(self, on: bool, t: float, why: str = "") -> None:
        """Training begins or ends."""
        if on != self.training:
            row: Row = {"kind": "training", "on": on, "t": t} | ({"why": why} if why else {})
            self._check(row)
            self.training = on
            self.agent.set_training(on, t)
            self._write(row)

    def control(self, name: str, value: Any, t: float) -> None:
        """A command that a replay must know of, or that a reader would want to: speed, pause, who acts."""
        row: Row = {"kind": "control", "name": name, "value": value, "t": t}
        self._check(row)
        if name == "demonstrating":
            self.demonstrating = bool(value)
        elif name == "held_action":
            if not 0 <= int(value) < self.task.n_actions:
                raise UserError(
                    f"Action {value} was asked for, but {self.task.name} has actions 0 to {self.task.n_actions - 1}.",
                    "Use one of them.",
                )
            self.held_action = int(value)
        elif name == "tamer_control" and isinstance(self.agent, TamerRL):
            self.agent.tamer_control = bool(value)
        elif name == "resumed":
            self._observation = self._reward = None
        self._write(row)

    def note(self, text: str, t: float) -> None:
        """Something a reader of the record would want to know."""
        self._write({"kind": "note", "text": text, "t": t})

    def finish(self, t: float) -> str:
        """Ends the record with what was learned, as a digest; returns it."""
        found = digest(self.agent.arrays())
        if self._failed is None:
            self._write({"kind": "end", "t": t, "steps": self.k, "presses": self.n_presses, "digest": found})
        return found

    @property
    def tamer(self) -> Tamer | None:
        """The part of the agent that listens to the trainer."""
        return (
            self.agent
            if isinstance(self.agent, Tamer)
            else self.agent.tamer
            if isinstance(self.agent, TamerRL)
            else None
        )
