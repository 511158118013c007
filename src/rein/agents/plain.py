"""Plain RL, without a teacher: what the agent that is taught is measured by.

Flow     a task → SARSA(λ) step by step beside a lesson, and the band that many such runs make
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rein.agents.features import Vector
from rein.agents.lesson import EnvironmentWorld, LessonConfig, make_rl
from rein.agents.tasks import make_task

BAND_RUNS, BAND_EPISODES = 40, 60


class PlainRL:
    """SARSA(λ) on a world of its own, one step for each of the lesson's: what becomes of an agent without a teacher."""

    def __init__(self, config: LessonConfig) -> None:
        self.task = make_task(config.task, low=config.low, high=config.high)
        self.agent = make_rl(config, self.task, np.random.default_rng([config.seed, 3]), None)
        self.world = EnvironmentWorld(self.task, config.seed)
        self.returns: list[tuple[float, int]] = []
        self._observation: Vector | None = None
        self._reward: float | None = None
        self._total, self._i = 0.0, 0

    def tick(self) -> tuple[Vector, float, int, str | None]:
        """One step: the state it led to, the return so far, the episode (from 1), and whether it ended."""
        if self._observation is None:
            self._observation, self._reward = self.world.reset(), None
            self._total, self._i = 0.0, 0
        decision = self.agent.begin_step(0, self._observation, 0.0, reward=self._reward)
        after, reward, terminated, truncated = self.world.step(decision.action)
        self._total, self._i = self._total + reward, self._i + 1
        ended = "terminated" if terminated else "truncated" if truncated else None
        if ended:
            self.agent.end_episode(reward, after, terminated=terminated)
            self.returns.append((self._total, self._i))
            self._observation = self._reward = None
        else:
            self._observation, self._reward = after, reward
        episode = len(self.returns) + (0 if ended else 1)
        return after, self._total, episode, ended


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
    plain = PlainRL(LessonConfig(name, seed=seed))
    while len(plain.returns) < BAND_EPISODES:
        plain.tick()
    return [total for total, _ in plain.returns]
