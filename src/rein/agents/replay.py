"""`rein tamer replay`: a record lived again: to prove it, or to ask what another agent would have learned from it.

As it was: every press and every step goes through the code that lived it, and the weights come out the same to the
last bit. Under other settings: the recorded states, actions and presses teach another credit window, model or
technique, for as many epochs as wanted, as Knox & Stone trained their models from logs.

Flow     record.jsonl (+ changed settings) → the lesson's own code → a digest that fits, or a new h.safetensors
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scipy.special import stdtrit

from rein.agents.combine import Technique
from rein.agents.human_model import digest, load_arrays
from rein.agents.lesson import EnvironmentWorld, Lesson
from rein.agents.lesson_files import save_learned
from rein.agents.recorded import anew, as_recorded, config_from, task_of
from rein.agents.simulation import keeping
from rein.config import setting
from rein.errors import UserError
from rein.feedback.record import read_record
from rein.run import lock_folder


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of `rein tamer replay`; those left out are as recorded."""

    record: Path = setting(help="record.jsonl of a lesson", positional=True)
    technique: Technique | None = setting(None, "another technique", group="another agent")
    h_model: Literal["linear", "knn", "network"] | None = setting(
        None, "another model of human reward", group="another agent"
    )
    features: Literal["auto", "rbf", "tiles", "fourier", "table"] | None = setting(
        None, "other features", group="another agent"
    )
    h_learning_rate: float | None = setting(None, "another learning rate of Ĥ", group="another agent")
    h_weight: float | None = setting(None, "another weight of Ĥ", group="another agent")
    influence: Literal["eligibility", "annealed"] | None = setting(None, "how Ĥ is weighed", group="another agent")
    credit: Literal["uniform", "gamma", "previous-step", "immediate"] | None = setting(
        None, "another density of delay", group="another credit"
    )
    credit_low_s: float | None = setting(None, "another window", unit="seconds", group="another credit")
    credit_high_s: float | None = setting(None, "another window", unit="seconds", group="another credit")
    credit_scheme: Literal["aggregate", "aggregate-rewarded", "individual", "individual-rewarded"] | None = setting(
        None, "another scheme", group="another credit"
    )
    extrapolate: bool | None = setting(None, "guess unfinished labels", group="another credit")
    epochs: int = setting(1, "how often to go through the record", paper="1, 100", group="another agent")
    out: Path | None = setting(None, "folder for what is learned (without it, nothing is written)")
    store: str | None = setting(None, "put the recorded lesson into this feedback store: a file, or postgresql://…")

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"--epochs is {self.epochs}, but at least 1 is needed.", "Leave it out for one.")

    def changes(self) -> dict[str, Any]:
        """The settings that differ from the record's."""
        keep = ("record", "epochs", "out", "store")
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in keep}
        return {name: value for name, value in found.items() if value is not None}


def replay(config: ReplayConfig) -> None:
    """Lives a recorded lesson again: as it was, to the last bit, or with another agent, model or credit window.

    Examples
      rein tamer replay runs/tamer/mountain-car/record.jsonl
      rein tamer replay runs/tamer/mountain-car/record.jsonl --credit-low-s 0.1 --credit-high-s 0.5 --out runs/narrow
      rein tamer replay runs/tamer/mountain-car/record.jsonl --h-model knn --epochs 10 --out runs/knn
      rein tamer replay runs/tamer/mountain-car/record.jsonl --store labels.db
    """
    keep = keeping(config.store)
    if config.out is not None and config.out.resolve() == config.record.parent.resolve():
        raise UserError(
            f"--out {config.out} is the folder of the lesson itself, whose Ĥ would be written over.",
            "Choose another --out.",
        )
    rows = list(read_record(config.record))
    began = time.monotonic()
    changes = config.changes()
    as_it_was = not changes and config.epochs == 1
    lesson = as_recorded(rows, config.record) if as_it_was else anew(rows, config.record, changes, config.epochs)
    took_s = time.monotonic() - began
    presses = sum(row["kind"] == "press" for row in rows)
    print(
        f"record            {config.record}: {lesson.k:,} steps, {presses:,} presses, {len(lesson.returns):,} episodes"
    )
    if as_it_was:
        ends = sum(row["kind"] == "end" for row in rows)
        proof = (
            "equal to the record's, to the last bit" if ends else "the lesson was cut off, so nothing to compare with"
        )
        print(f"replayed          every action as recorded, in {took_s:.1f} s")
        print(f"weights           {digest(lesson.agent.arrays())[:16]}…: {proof}")
    else:
        told = ", ".join(f"{name} {value}" for name, value in changes.items()) or "the same settings"
        print(f"learned anew      {told}; {config.epochs} epoch{'s' if config.epochs > 1 else ''} in {took_s:.1f} s")
        print(f"weights           {digest(lesson.agent.arrays())[:16]}…")
    if config.out is not None:
        with lock_folder(config.out):
            for path in save_learned(lesson, config.out):
                print(f"written           {path}")
        if lesson.tamer is not None:
            print(f"how good is it    rein tamer evaluate {config.out / 'h.safetensors'}")
    keep(config.record)


# ---------------------------------------------------------------------------------------------------- how good


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of `rein tamer evaluate`."""

    model: Path = setting(help="h.safetensors of a lesson, or the released code's list of weights", positional=True)
    task: str | None = setting(None, "the task; without it, the one it was taught on (a list of weights: mountain-car)")
    episodes: int = setting(200, "episodes to act greedily on Ĥ")
    seed: int = setting(0, "of the environment and of ties")

    def __post_init__(self) -> None:
        if self.episodes < 2:
            raise UserError(f"--episodes is {self.episodes}, but an interval needs at least 2.", "Use --episodes 200.")


def evaluate(config: EvaluateConfig) -> None:
    """How good is it to do what the trainer would praise most: the mean return of greedy episodes on Ĥ.

    Examples
      rein tamer evaluate runs/tamer/mountain-car/h.safetensors
      rein tamer evaluate H2-100.model --task mountain-car --episodes 1000
    """
    returns = list(greedy_returns(config))
    n = len(returns)
    mean = sum(returns) / n
    spread = (sum((r - mean) ** 2 for r in returns) / (n - 1)) ** 0.5
    half = float(stdtrit(n - 1, 0.975)) * spread / n**0.5
    print(f"greedy on Ĥ       mean return {mean:,.1f} ± {half:.1f} (95%), sd {spread:.1f}, {n:,} episodes")


def greedy_returns(config: EvaluateConfig) -> Iterator[float]:
    """The return of each greedy episode."""
    _, about = load_arrays(config.model)
    try:
        made = json.loads(about.get("config", "{}"))
    except ValueError as error:
        raise UserError(f"{config.model} does not say how it was made: {error}.", "Name another file.") from None
    base = config_from(made, str(config.model))
    base = dataclasses.replace(
        base, task=config.task or base.task, technique="tamer", h_load=config.model, seed=config.seed
    )
    task = task_of(base)
    lesson = Lesson(base, task, EnvironmentWorld(task, config.seed))
    while len(lesson.returns) < config.episodes:
        if lesson.tick(lesson.k * lesson.step_s()).ended:
            yield lesson.returns[-1][0]
