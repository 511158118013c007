"""Maps of Ĥ and of its influence, over two of the numbers of a state.

Flow     a lesson → `Maps` → rows of values, as many as are wanted at a time → one message for the page
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rein.agents.eligibility import Eligibility
from rein.agents.features import Vector
from rein.agents.human_model import HumanModel
from rein.agents.lesson import Lesson
from rein.agents.tamer_rl import TamerRL
from rein.agents.tasks import Task

POINTS = 28  # per side, where a number is not a whole one
Row = tuple[list[Vector], list[Vector]]


@dataclass(frozen=True)
class Maps:
    """What to draw: over which axes, in how many points."""

    task: Task
    model: HumanModel
    influence: Eligibility | None
    axes: tuple[int, int]
    columns: int
    rows: int
    low: Vector
    high: Vector

    @classmethod
    def of(cls, lesson: Lesson) -> Maps | None:
        """The maps of a lesson; None where its states have no two bounded numbers to draw over."""
        task, agent = lesson.task, lesson.agent
        if lesson.tamer is None or len(task.low) < 2 or not np.isfinite([task.low, task.high]).all():
            return None
        axes = (2, 3) if task.draw == "cart-pole" else (0, 1)
        columns, rows = (POINTS if task.counts is None else task.counts[axis] for axis in axes)
        influence = agent.influence if isinstance(agent, TamerRL) else None
        eligibility = influence if isinstance(influence, Eligibility) else None
        low, high = task.low.copy(), task.high.copy()
        if task.draw == "loop-maze":  # row 0 of the maze is on top, that of a map at the bottom
            low[1], high[1] = high[1], low[1]
        return cls(task, lesson.tamer.model, eligibility, axes, columns, rows, low, high)

    def row(self, row: int, state: Vector) -> Row:
        """Ĥ and h_weight at each point of a row; the other numbers are those of `state`."""
        low, high = self.low, self.high
        x, y = self.axes
        values, weights = [], []
        for column in range(self.columns):
            point = state.copy()
            point[x] = low[x] + (high[x] - low[x]) * column / (self.columns - 1)
            point[y] = low[y] + (high[y] - low[y]) * row / (self.rows - 1)
            values.append(self.model.values(point))
            if self.influence is not None:
                weights.append(self.influence.weights(point))
        return values, weights

    def message(self, rows: list[Row]) -> dict[str, Any]:
        """Maps as bytes, row 0 at `low` of y: Ĥ around 0 per action, the best action, the influence."""
        h_RCA = np.array([values for values, _ in rows])
        top = max(float(np.abs(h_RCA).max()), 1e-9)
        cells = np.clip(127.5 + 127.5 * h_RCA / top, 0, 255)
        task, axes = self.task, list(self.axes)
        found: dict[str, Any] = {
            "type": "maps", "rows": self.rows, "cols": self.columns, "axes": axes,
            "x": task.names[axes[0]], "y": task.names[axes[1]],
            "low": self.low[axes].tolist(), "high": self.high[axes].tolist(),
            "h": {"low": -top, "high": top, "cells": [_bytes(cells[:, :, a]) for a in range(task.n_actions)]},
            "best": _bytes(h_RCA.argmax(axis=2)), "influence": None,
        }  # fmt: skip
        if self.influence is not None:
            w_RCA = np.array([weights for _, weights in rows])
            shown = w_RCA[:, :, :1] if self.influence.state_only else w_RCA
            scaled = np.clip(255 * shown / max(self.influence.c_s, 1e-9), 0, 255)
            each = [_bytes(scaled[:, :, a]) for a in range(scaled.shape[2])]
            found["influence"] = {"high": self.influence.c_s, "cells": each}
        return found


def _bytes(cells: NDArray[Any]) -> str:
    return base64.b64encode(cells.astype(np.uint8).tobytes()).decode()
