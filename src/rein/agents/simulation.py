"""`rein tamer simulate`: a simulated trainer teaches, as fast as it goes, and leaves the record of a lesson.

Flow     settings → a lesson and a trainer that watches it (feedback/simulate.py) → record.jsonl, h.safetensors
"""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rein.agents.human_model import load_into
from rein.agents.lesson import Lesson, LessonConfig, make_model
from rein.agents.lesson_files import finish_lesson, open_lesson
from rein.agents.tasks import Task, make_task
from rein.config import setting
from rein.errors import UserError
from rein.feedback.credit import Density, Uniform
from rein.feedback.simulate import Manner, SimulatedTrainer, rule_judge, value_judge
from rein.progress import Progress


@dataclass(frozen=True)
class TrainerConfig(LessonConfig):
    """A lesson, and the manner of a simulated trainer."""

    trainer: str = setting("rule", "rule: a good policy written down; else a file with Ĥ to judge by", group="trainer")
    trainer_frequency: float = setting(0.5, "share of steps that are judged", group="trainer")
    trainer_error: float = setting(0.0, "share of judgements that are wrong", group="trainer")
    trainer_positivity: float = setting(0.0, "share of punishments that are swallowed", group="trainer")
    trainer_strictness: float = setting(
        0.0, "what a judgement must exceed to be praised", unit="-1 to 1", group="trainer"
    )
    trainer_fatigue: float = setting(0.0, "frequency lost with each episode", group="trainer")
    trainer_policy_dependence: float = setting(
        0.0, "judge against what the agent has been doing", unit="0 to 1", group="trainer"
    )
    trainer_delay_low_s: float = setting(0.25, "shortest delay of the trainer", unit="seconds", group="trainer")
    trainer_delay_high_s: float = setting(0.7, "longest delay of the trainer", unit="seconds", group="trainer")
    trainer_seed: int = setting(0, "of the trainer alone", group="trainer")


@dataclass(frozen=True)
class SimulateConfig(TrainerConfig):
    """Settings of `rein tamer simulate`."""

    out: Path | None = setting(None, "folder for the record and Ĥ (without it: runs/tamer/TASK-trainer-SEED)")
    store: str | None = setting(None, "put the lesson into this feedback store too: a file, or postgresql://…")
    episodes: int = setting(20, "episodes to live")
    train_from: int = setting(0, "first episode that is taught, counted from 0", paper="0, 20, 25")
    train_episodes: int | None = setting(None, "how many episodes are taught; without it, all", paper="16, 12, 8")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes < 1:
            raise UserError(f"--episodes is {self.episodes}, but a lesson has at least 1.", "Use --episodes 20.")
        for flag, value in (("--train-from", self.train_from), ("--train-episodes", self.train_episodes or 0)):
            if value < 0:
                raise UserError(f"{flag} is {value}, but episodes are counted from 0.", f"Change {flag}.")


def make_trainer(config: TrainerConfig, task: Task) -> SimulatedTrainer:
    """The simulated trainer of a lesson.

    Raises   UserError when the task has no rule, or the file no Ĥ for it.
    """
    if config.trainer_seed < 0:
        raise UserError(f"--trainer-seed is {config.trainer_seed}, but seeds begin at 0.", "Change --trainer-seed.")
    low, high = config.trainer_delay_low_s, config.trainer_delay_high_s
    if not 0 <= low < high < float("inf"):
        raise UserError(
            f"The trainer's delay is {low:g} to {high:g} s, but it must begin at 0 or later and end after it begins.",
            "Change --trainer-delay-low-s or --trainer-delay-high-s.",
        )
    delay: Density = Uniform(low, high)
    manner = Manner(
        config.trainer_frequency, config.trainer_error, config.trainer_positivity, config.trainer_strictness,
        config.trainer_fatigue, config.trainer_policy_dependence,
    )  # fmt: skip
    if config.trainer == "rule":
        if task.rule is None:
            raise UserError(
                f"Nobody wrote down a good policy for {task.name}.",
                "Name a file with Ĥ: --trainer runs/tamer/…/h.safetensors.",
            )
        judge = rule_judge(task.rule)
    else:
        oracle = make_model(LessonConfig(config.task, low=config.low, high=config.high, features=config.features), task)
        load_into(oracle, Path(config.trainer))
        judge = value_judge(oracle.values)
    return SimulatedTrainer(judge, delay, manner, config.trainer_seed)


def simulate(config: SimulateConfig) -> None:
    """Lets a simulated trainer teach, as fast as it goes, and keeps the record a person's lesson would have.

    Examples
      rein tamer simulate mountain-car --episodes 16
      rein tamer simulate mountain-car --technique action-biasing --train-episodes 16 --episodes 200
      rein tamer simulate loop-maze --trainer-error 0.2 --trainer-fatigue 0.05
      rein tamer simulate loop-maze --store labels.db
    """
    keep = keeping(config.store)
    task = make_task(config.task, low=config.low, high=config.high, pixels=config.pixels)
    trainer = make_trainer(config, task)
    out = (
        config.out
        or Path("runs/tamer")
        / f"{config.task.replace('/', '-').replace(':', '-')}-{trainer_name(config)}-{config.seed}"
    )
    lesson, log = open_lesson(dataclasses.replace(config, store=None), task, out)
    until = config.train_from + (config.episodes if config.train_episodes is None else config.train_episodes)
    began = time.monotonic()
    try:
        with Progress("simulating", total=config.episodes, unit="episodes") as bar:
            for total, steps in lived(
                lesson, trainer, config.episodes, config.train_from, until, by=trainer_name(config)
            ):
                bar.advance(1, note=f"return {total:,.0f} in {steps:,} steps")
    finally:
        finish_lesson(lesson, log, out, time.monotonic() - began)
        keep(out / "record.jsonl")


def keeping(store: str | None) -> Callable[[Path], None]:
    """What puts the record of an ended lesson into a feedback store, and says so; nothing where there is none.

    Raises   UserError, before the lesson begins, where the store cannot be opened.
    """
    if store is None:
        return lambda record: None
    from rein.feedback.lessons import check_store, keep_lesson  # its databases take a while to import

    check_store(store)
    return lambda record: print(keep_lesson(store, record), flush=True)


def trainer_name(config: TrainerConfig) -> str:
    """How the rows name this trainer."""
    return config.trainer if config.trainer == "rule" else Path(config.trainer).stem


def lived(
    lesson: Lesson, trainer: SimulatedTrainer, episodes: int, train_from: int, train_until: int, *, by: str
) -> Iterator[tuple[float, int]]:
    """Lives a lesson on a clock of its own; yields (return, steps) of each episode as it ends.

    Presses are dealt with when they come, between the ticks; those that a pause after the episode gives time for still
    count.
    """
    step_s, pause_s, t = lesson.step_s(), lesson.config.pause_s, 0.0
    waiting: list[tuple[float, int, float]] = []
    while len(lesson.returns) < episodes:
        if lesson.training != (train_from <= len(lesson.returns) < train_until):
            lesson.set_training(not lesson.training, t)
        shown = lesson.tick(t)
        said = trainer.see(shown.before, shown.decision.action, shown.episode - 1) if lesson.training else None
        if said is not None:
            heapq.heappush(waiting, (t + said[1], shown.k, said[0]))
        t += step_s + (pause_s if shown.ended else 0.0)
        while waiting and waiting[0][0] < t:
            at, k, value = heapq.heappop(waiting)
            lesson.press(f"{by}-{k}", value, at, by=by)
        if shown.ended:
            yield lesson.returns[-1]
