"""`rein tamer compare`: technique × weight × task over many seeds, and the survey's figures 9.1.1 to 9.1.3.

Sequential: Ĥ is there before and stands still; its weight is annealed. Simultaneous: a simulated trainer teaches for
some episodes, at the start or after RL alone; the eligibility module weighs what was taught.

Flow     settings → conditions → returns of every run and episode, kept as each is done → tables and figures
Source   Knox & Stone 2011 (sequential) and 2012 (simultaneous), as the survey, §9.1.2 and §9.1.3, tells them; what the
         papers do not give (the weights, the runs) is ours, and said in docs/papers/tamer-rl.md.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rein.agents import engine
from rein.agents.combine import ANNEALED, Combination, Technique
from rein.agents.human_model import Linear, load_into
from rein.agents.lesson import EnvironmentWorld, Lesson, LessonConfig, make_model
from rein.agents.simulation import SimulateConfig, lived, make_trainer
from rein.agents.tasks import make_task
from rein.config import setting, to_dict
from rein.errors import UserError, writing
from rein.progress import Progress
from rein.run import environment, lock_folder, write_atomically

FOUR: tuple[Combination, ...] = ("reward-shaping", "q-augmentation", "action-biasing", "control-sharing")
WEIGHTS = {"control-sharing": (0.1, 0.25, 0.5, 0.75, 1.0)}  # probabilities
WEIGHTS_ELSE = (0.1, 1.0, 10.0, 100.0, 1000.0)
EPISODES = {"mountain-car": 500, "cart-pole": 150}
# Simultaneous: episodes; taught at the start; RL alone before the other group is taught, and for how many episodes.
TAUGHT = {"mountain-car": (200, 16, 20, 12), "cart-pole": (150, 12, 25, 8)}

OTHERS_TAUGHT = (100, 15, 20, 10)
MADE_HERE = ("taught", "rule")  # Ĥ that needs no file


@dataclass(frozen=True)
class CompareConfig:
    """Settings of `rein tamer compare`."""

    experiment: Literal["sequential", "simultaneous"] = setting(
        "sequential", "Ĥ learned before, or while RL learns", positional=True
    )
    tasks: tuple[str, ...] = setting(("mountain-car", "cart-pole"), "tasks")
    techniques: tuple[Combination, ...] = setting(
        (), "techniques; without any, the survey's: four, or two simultaneously"
    )
    h_weights: tuple[float, ...] = setting(
        (), "weights of Ĥ for every technique; without any, five for each", paper="not given"
    )
    h: tuple[str, ...] = setting(
        ("taught",),
        "sequential: Ĥ, one for all tasks or one each: taught (by a simulated trainer), rule (±1), or a file",
    )
    runs: int = setting(40, "runs of each condition; the same seeds in all")
    episodes: int | None = setting(None, "episodes of a run; without it, the task's", paper="150 of Cart Pole")
    trainer_frequency: float = setting(0.5, "share of steps that the simulated trainer judges", group="trainer")
    trainer_error: float = setting(0.0, "share of its judgements that are wrong", group="trainer")
    out: Path = setting(Path("runs/tamer/compare"), "folder for results and figures; a second start goes on")
    seed: int = setting(0, "of everything")
    threads: int = setting(0, "threads, or processes for tasks that are not compiled; 0: one a core")

    def __post_init__(self) -> None:
        for name in self.techniques:
            if self.experiment == "simultaneous" and name not in ANNEALED:
                raise UserError(
                    f"{name} keeps its weight, so the eligibility module has nothing to set.",
                    f"Simultaneous techniques are {', '.join(ANNEALED)}.",
                )
        if self.runs < 2:
            raise UserError(f"--runs is {self.runs}, but an interval needs at least 2.", "Raise --runs.")
        if len(self.h) not in (1, len(self.tasks)):
            raise UserError(
                f"--h has {len(self.h)} entries and --tasks {len(self.tasks)}.",
                "Give one for all tasks, or one for each.",
            )
        if not self.tasks:
            raise UserError("--tasks is empty.", "Name at least one, like --tasks mountain-car.")
        if self.episodes is not None and self.episodes < 1:
            raise UserError(f"--episodes is {self.episodes}.", "Use at least 1.")
        for weight in self.h_weights:
            if not 0 <= weight < float("inf"):
                raise UserError(f"--h-weights has {weight:g}, but a weight is 0 or more.", "Change --h-weights.")
        if self.experiment == "simultaneous":
            if self.h != ("taught",):
                raise UserError("--h was given, but simultaneously Ĥ is taught as it goes.", "Leave out --h.")
            longest = max(TAUGHT.get(task, OTHERS_TAUGHT)[2] for task in self.tasks)
            if self.episodes is not None and self.episodes <= longest:
                raise UserError(
                    f"--episodes is {self.episodes}, but one group is taught only after {longest} episodes.",
                    f"Use more than {longest}.",
                )


@dataclass(frozen=True)
class Condition:
    """One line of a figure: a task, a technique, a weight of Ĥ, when it is taught."""

    task: str
    technique: Technique
    h_weight: float
    episodes: int
    when: str = ""  # simultaneous: start, later
    train_from: int = 0
    train_episodes: int = 0

    @property
    def label(self) -> str:
        """In words."""
        if self.technique == "sarsa":
            return "SARSA(λ) alone"
        when = {"": f", weight {self.h_weight:g}", "start": ", taught at the start"}
        return self.technique + when.get(self.when, f", taught after {self.train_from} episodes")

    @property
    def key(self) -> str:
        """As a file name."""
        weight = "" if self.technique == "sarsa" else f"-{self.h_weight:g}"
        return f"{self.task}-{self.technique}{weight}{'-' + self.when if self.when else ''}".replace("/", "-").replace(
            ":", "-"
        )


def compare(config: CompareConfig) -> None:
    """Runs techniques of TAMER+RL against SARSA(λ) alone, over many seeds, and draws the survey's figures.

    Mean reward per episode with 95% bands, bars for each weight, tables; all as CSV, SVG and PNG, on one page. The same
    seeds are used in every condition. It can be stopped at any time; the same command goes on.

    Examples
      rein tamer compare
      rein tamer compare simultaneous --out runs/tamer/simultaneous
      rein tamer compare --tasks mountain-car --h H2-100.model --out runs/tamer/h2
      rein tamer compare --techniques action-biasing q-augmentation --h-weights 1 10 100 --runs 100
    """
    from rein.agents.compare_figures import write_figures  # matplotlib takes a while to import

    plan = list(conditions(config))
    with lock_folder(config.out):
        _check_same(config)
        folder = config.out / "conditions"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        waiting = [c for c in plan if not (folder / f"{c.key}.npz").exists()]
        with Progress("comparing", total=len(plan), unit="conditions", start=len(plan) - len(waiting)) as bar:
            for condition in waiting:
                returns = run_condition(config, condition)
                _save(folder / f"{condition.key}.npz", returns)
                bar.advance(1, note=f"{condition.task}: {condition.label}, mean {returns.mean():,.1f}")
        results = {c: np.load(folder / f"{c.key}.npz")["returns"].astype(np.float64) for c in plan}
        write_atomically(config.out / "results.csv", results_csv(results))
        write_atomically(config.out / "episodes.csv", episodes_csv(results))
        write_figures(config.out, config.experiment, results)
    print(table(results))
    print(f"\nfigures           {config.out / 'index.html'} (open it in a browser), and as SVG and PNG beside it")
    print(f"numbers           {config.out / 'results.csv'}, {config.out / 'episodes.csv'}")


def conditions(config: CompareConfig) -> Iterator[Condition]:
    """Every condition, SARSA alone first for each task.

    Raises   UserError for a task that is none.
    """
    for name in config.tasks:
        task = make_task(name)
        if config.experiment == "sequential":
            episodes = config.episodes or EPISODES.get(name, 150)
            yield Condition(name, "sarsa", 0.0, episodes)
            for technique in config.techniques or FOUR:
                for weight in config.h_weights or WEIGHTS.get(technique, WEIGHTS_ELSE):
                    yield Condition(name, technique, weight, episodes)
        else:
            usual, at_start, after, later = TAUGHT.get(name, OTHERS_TAUGHT)
            episodes = config.episodes or usual
            yield Condition(name, "sarsa", 0.0, episodes)
            for technique in config.techniques or FOUR[2:]:
                for weight in config.h_weights or (task.c_s.get(technique, 1.0),):
                    yield Condition(name, technique, weight, episodes, "start", 0, at_start)
                    yield Condition(name, technique, weight, episodes, "later", after, later)


# ------------------------------------------------------------------------------------------------ one condition


def run_condition(config: CompareConfig, condition: Condition) -> NDArray[np.float64]:
    """The returns of every run and episode, shape (runs, episodes): compiled where the engine knows the task."""
    source = config.h[0] if len(config.h) == 1 else config.h[config.tasks.index(condition.task)]
    if condition.task in ("mountain-car", "cart-pole"):
        return _compiled(config, condition, source)
    return _plain(config, condition, source)


def engine_setup(task: str, technique: str) -> engine.Setup:
    """The papers' settings of a task for the compiled engine."""
    number = engine.TECHNIQUE_NUMBERS[technique]
    if task == "mountain-car":
        return engine.setup_of(technique=number)
    return engine.setup_of(
        technique=number, task=engine.CART_POLE, episodes=150, max_steps=300, q_n=8, q_rel_width=0.13, q_norm_low=0.0,
        h_n=8, h_rel_width=0.08, h_norm_low=0.0, alpha=0.05, lambda_=0.86, gamma=0.999, epsilon=0.085,
        epsilon_decay=0.9995, initial_weight=0.0, h_weight_decay=0.97, step_decay=0.99996, episode_decay=0.98,
        h_learning_rate=0.25 / 3.09,
    )  # fmt: skip


def _compiled(config: CompareConfig, condition: Condition, source: str) -> NDArray[np.float64]:
    setup = engine_setup(condition.task, condition.technique)._replace(
        episodes=condition.episodes, h_weight=condition.h_weight, frequency=config.trainer_frequency,
        error=config.trainer_error,
    )  # fmt: skip
    weights = None
    if condition.technique != "sarsa":
        setup = setup._replace(h_kind=engine.LINEAR_H)
        if condition.technique not in ANNEALED:
            setup = setup._replace(h_weight_decay=1.0)
        if config.experiment == "simultaneous":
            setup = setup._replace(
                eligibility=True, state_only=condition.technique == "control-sharing", train_from=condition.train_from,
                train_until=condition.train_from + condition.train_episodes,
            )  # fmt: skip
        elif source == "rule":
            setup = setup._replace(h_kind=engine.RULE_H)
        else:
            weights = _h_weights(config, condition.task, source)
            if condition.technique == "q-initialisation" and condition.task == "cart-pole":
                raise UserError(
                    "q-initialisation copies Ĥ's weights into Q, and on cart-pole the papers' grids for them differ.",
                    "Use q-augmentation: with a constant weight it is the same.",
                )
    found = engine.run(setup, seed=config.seed, runs=range(config.runs), h_weights=weights, threads=config.threads)
    return found.returns


def _h_weights(config: CompareConfig, task_name: str, source: str) -> NDArray[np.float64]:
    """Ĥ's weights for the engine: from a file, or taught by the simulated trainer until it is good."""
    if source == "taught":
        episodes = TAUGHT[task_name][1]
        setup = engine_setup(task_name, "tamer")._replace(
            episodes=episodes, train_until=episodes, h_kind=engine.LINEAR_H, frequency=config.trainer_frequency,
            error=config.trainer_error,
        )  # fmt: skip
        return engine.run(setup, seed=config.seed, runs=[10**6]).h
    task = make_task(task_name)
    model = make_model(LessonConfig(task_name), task)
    assert isinstance(model, Linear), "the papers' tasks have a linear model"
    load_into(model, Path(source))
    return model.complete_AF


def _plain(config: CompareConfig, condition: Condition, source: str) -> NDArray[np.float64]:
    """A task that the engine does not know: the plain classes, one process a core."""
    needs_teacher = condition.technique != "sarsa" and (config.experiment == "simultaneous" or source in MADE_HERE)
    if needs_teacher and make_task(condition.task).rule is None:
        raise UserError(
            f"Nobody wrote down a good policy for {condition.task}, so nobody can teach it.",
            "Give Ĥ as a file: --h runs/tamer/…/h.safetensors.",
        )
    jobs = [(config, condition, source, run) for run in range(config.runs)]
    workers = config.threads or os.cpu_count() or 1
    with ProcessPoolExecutor(min(workers, config.runs), multiprocessing.get_context("spawn")) as pool:
        return np.array(list(pool.map(_plain_run, jobs)))


def _plain_run(job: tuple[CompareConfig, Condition, str, int]) -> list[float]:
    config, condition, source, run = job
    seed = config.seed * 100_003 + run
    settings = SimulateConfig(
        condition.task, technique=condition.technique, h_weight=condition.h_weight or None, late_s=0.0, seed=seed,
        influence="eligibility" if config.experiment == "simultaneous" else "annealed",
        trainer_frequency=config.trainer_frequency, trainer_error=config.trainer_error, trainer_seed=seed,
        h_load=None if source in MADE_HERE or condition.technique == "sarsa" else Path(source),
    )  # fmt: skip
    task = make_task(condition.task)
    trainer = None if task.rule is None else make_trainer(settings, task)
    lesson = Lesson(settings, task, EnvironmentWorld(task, seed))
    if config.experiment == "sequential" and source in MADE_HERE and lesson.tamer is not None:
        assert trainer is not None
        teaching = SimulateConfig(condition.task, late_s=0.0, seed=config.seed, trainer_seed=config.seed)
        taught = Lesson(teaching, make_task(condition.task), EnvironmentWorld(make_task(condition.task), config.seed))
        for _ in lived(taught, make_trainer(teaching, task), 15, 0, 15, by="rule"):
            pass
        assert taught.tamer is not None
        lesson.tamer.model.load(taught.tamer.model.arrays())
    until = condition.train_from + condition.train_episodes
    if trainer is None:
        while len(lesson.returns) < condition.episodes:
            lesson.tick(lesson.k * lesson.step_s())
    else:
        for _ in lived(lesson, trainer, condition.episodes, condition.train_from, until, by="rule"):
            pass
    return [total for total, _ in lesson.returns]


# ------------------------------------------------------------------------------------------------------ results


def half_width(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of the 95% interval of the mean over the first axis, by Student's t.

    t_{0.975, n−1} · s / √n
    """
    from scipy.special import stdtrit

    n = len(values)
    found: NDArray[np.float64] = float(stdtrit(n - 1, 0.975)) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return found


Results = dict[Condition, NDArray[np.float64]]


def rows_of(results: Results) -> Iterator[dict[str, Any]]:
    """One row a condition: means over runs, with 95% intervals, and the paired difference from SARSA alone."""
    for condition, returns in results.items():
        alone = next(r for c, r in results.items() if c.task == condition.task and c.technique == "sarsa")
        per_run = returns.mean(axis=1)
        difference = per_run - alone.mean(axis=1)
        yield {
            "task": condition.task, "technique": condition.technique, "h_weight": condition.h_weight,
            "taught": condition.when, "runs": len(returns), "episodes": returns.shape[1],
            "mean": per_run.mean(), "mean_ci": float(half_width(per_run)),
            "first_20": returns[:, :20].mean(), "first_20_ci": float(half_width(returns[:, :20].mean(axis=1))),
            "last_20": returns[:, -20:].mean(), "last_20_ci": float(half_width(returns[:, -20:].mean(axis=1))),
            "over_sarsa": difference.mean(), "over_sarsa_ci": float(half_width(difference)),
        }  # fmt: skip


def results_csv(results: Results) -> str:
    """`rows_of` as CSV."""
    return _csv([{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows_of(results)])


def episodes_csv(results: Results) -> str:
    """Mean and 95% interval of every episode of every condition, as CSV."""
    rows = []
    for condition, returns in results.items():
        for episode, (mean, half) in enumerate(zip(returns.mean(axis=0), half_width(returns), strict=True), 1):
            rows.append(
                {
                    "task": condition.task, "technique": condition.technique, "h_weight": condition.h_weight,
                    "taught": condition.when, "episode": episode, "mean": round(float(mean), 4),
                    "ci": round(float(half), 4),
                }
            )  # fmt: skip
    return _csv(rows)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def table(results: Results) -> str:
    """The results as a person reads them in a terminal."""
    lines, task = [], ""
    for condition, row in zip(results, rows_of(results), strict=True):
        if condition.task != task:
            task = condition.task
            head = f"{task}, {row['episodes']} episodes, {row['runs']} runs"
            lines += ["", f"{head:<50} {'all':>16} {'first 20':>16} {'last 20':>16}   over SARSA alone"]
        cells = [f"{row[name]:>8,.1f} ± {row[name + '_ci']:<5.1f}" for name in ("mean", "first_20", "last_20")]
        over = "" if condition.technique == "sarsa" else f"   {row['over_sarsa']:+8,.1f} ± {row['over_sarsa_ci']:.1f}"
        lines.append(f"  {condition.label:<48} " + " ".join(f"{cell:>16}" for cell in cells) + over)
    return "\n".join(lines).lstrip("\n")


def _save(path: Path, returns: NDArray[np.float64]) -> None:
    part = path.with_suffix(".part")
    with writing(path):
        with part.open("wb") as file:
            np.savez_compressed(file, returns=returns.astype(np.float32))
        os.replace(part, path)


def _check_same(config: CompareConfig) -> None:
    """A folder holds one comparison: a second start with other settings is a mistake, not a continuation."""
    path = config.out / "config.json"
    settings = {k: v for k, v in to_dict(config).items() if k not in ("out", "threads")}
    files = [h for h in config.h if h not in MADE_HERE]
    settings["h_sha256"] = [hashlib.sha256(Path(h).read_bytes()).hexdigest() for h in files if Path(h).is_file()]
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        old = {k: v for k, v in kept.items() if k != "environment"}
        changed = [f"{k}: {old.get(k)!r} → {settings[k]!r}" for k in settings if old.get(k) != settings[k]]
        if changed:
            raise UserError(
                f"{config.out} holds a comparison with other settings ({'; '.join(changed[:3])}).",
                "Choose another --out, or give the same settings to go on.",
            )
        return
    write_atomically(path, json.dumps(settings | {"environment": environment()}, indent=2) + "\n")
