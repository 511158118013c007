"""Plain RL, without a teacher: what the agent that is taught is measured by.

Flow     a task → SARSA(λ) step by step beside a lesson, and the band that many such runs make
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rein.agents.lesson import EnvironmentWorld, Lesson, LessonConfig
from rein.agents.tasks import make_task

BAND_RUNS, BAND_EPISODES = 40, 60


def plain_lesson(config: LessonConfig) -> Lesson:
    """The same task with nobody to teach: a lesson of SARSA(λ) alone, on a world of its own.

    Raises   UserError when the task has no features to learn over.
    """
    alone = dataclasses.replace(config, technique="sarsa", h_model="linear", h_load=None)
    task = make_task(config.task, low=config.low, high=config.high)
    return Lesson(alone, task, EnvironmentWorld(task, config.seed))


def sarsa_band(name: str) -> dict[str, Any] | None:
    """What SARSA alone does in its first episodes, over many runs: mean return, and the range of the middle 80%.

    None for a task that would take long: what the compiled engine does not know, but for the Loop Maze.
    """
    if name in ("mountain-car", "cart-pole"):
        from rein.agents import engine  # compiles, or loads what was compiled: not needed to teach
        from rein.agents.compare import engine_setup

        found = engine.run(engine_setup(name, "sarsa")._replace(episodes=BAND_EPISODES), seed=0, runs=range(BAND_RUNS))
        returns = found.returns
    elif name == "loop-maze":
        returns = np.array([_returns(name, seed) for seed in range(BAND_RUNS // 4)])
    else:
        return None
    low, high = np.quantile(returns, [0.1, 0.9], axis=0)
    label = f"SARSA alone, middle 80% of {len(returns)} runs"
    return {"label": label, "low": low.tolist(), "mean": returns.mean(axis=0).tolist(), "high": high.tolist()}


def _returns(name: str, seed: int) -> list[float]:
    lesson = plain_lesson(LessonConfig(name, seed=seed))
    while len(lesson.returns) < BAND_EPISODES:
        lesson.tick(lesson.k * lesson.step_s())
    return [total for total, _ in lesson.returns]
