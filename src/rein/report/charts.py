"""What the figures of pages are made of: axes, curves, bars, and where a template draws them. SVG, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rein.report.figures import ticks
from rein.report.legible import number

FRAME = (480, 226, 66, 34)  # width, height, left and bottom margins

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A range of values, drawn linearly or by their logarithm, with its ticks."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies from 0 to 1; what is outside lies at the end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class Mark:
    """What is drawn: an area above the axis, a line, or dots; `label` is empty where the title says it."""

    label: str
    colour: str  # a class of the style: c0 … c5, soft
    style: str  # area, line, dots
    points: Points


@dataclass(frozen=True)
class Chart:
    """A figure: what it shows in words, its axes, its marks, texts at points, and one upright rule."""

    title: str
    unit: str  # of both axes
    said: str  # for those who cannot see it
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    texts: Sequence[tuple[float, float, str]] = field(default=())
    rule: tuple[float, str] | None = None

    def geometry(self) -> dict[str, Any]:
        """What the template writes down: positions as text, one path per mark."""
        width, height, left, bottom = FRAME
        right, top, floor = width - 12, 14, height - bottom

        def across(value: float) -> float:
            return left + self.x.at(value) * (right - left)

        def down(value: float) -> float:
            return floor - self.y.at(value) * (floor - top)

        marks = []
        for mark in self.marks:
            dots = [(f"{across(x):.1f}", f"{down(y):.1f}") for x, y in mark.points]
            path = "" if mark.style == "dots" or not dots else "M" + "L".join(f"{x} {y}" for x, y in dots)
            marks.append({"mark": mark, "path": path, "dots": dots if mark.style == "dots" else []})
        return {
            "width": width, "height": height, "left": left, "right": right, "top": top, "floor": floor,
            "x_ticks": [(f"{across(value):.1f}", text) for value, text in self.x.ticks],
            "y_ticks": [(f"{down(value):.1f}", text) for value, text in self.y.ticks],
            "marks": marks,
            "texts": [(f"{across(x):.1f}", f"{down(y) - 5:.1f}", text) for x, y, text in self.texts],
            "rule": None if self.rule is None else (f"{across(self.rule[0]):.1f}", self.rule[1]),
            "rule_right": self.rule is not None and self.x.at(self.rule[0]) > 0.6,
        }  # fmt: skip


def steps_of(edges: Sequence[float], heights: Sequence[float]) -> Points:
    """The outline of a histogram, from the axis and back to it.

    Example  >>> steps_of([0, 1, 2], [3, 5])
             [(0, 0), (0, 3), (1, 3), (1, 5), (2, 5), (2, 0)]
    """
    points: Points = [(edges[0], 0)]
    for left, right, height in zip(edges, edges[1:], heights, strict=False):
        points += [(left, height), (right, height)]
    return [*points, (edges[-1], 0)]


def linear(low: float, high: float, about: int = 4) -> Axis:
    """An axis with about so many ticks."""
    return Axis(low, high, [(value, number(value)) for value in ticks(low, high, about)])


def counts(most: float) -> Axis:
    """An axis of counts, by their logarithm: one document stands above the axis, none lies on it."""
    high = max(most, 1) * 1.6
    decades = range(math.floor(math.log10(high)) + 1)
    every = max(1, len(decades) // 4)
    return Axis(0.5, high, [(10.0**decade, number(10.0**decade)) for decade in decades[::every]], log=True)


def tick(part: float) -> str:
    """A part of 1 at an axis, in percent."""
    return f"{100 * part:g}%"


def fractions(least: float) -> Axis:
    """An axis of parts of 1, by their logarithm, down to the decade of the least."""
    lowest = math.floor(math.log10(max(least, 1e-12)))
    every = max(1, -lowest // 4)
    return Axis(10.0**lowest, 1.0, [(10.0**power, tick(10.0**power)) for power in range(0, lowest - 1, -every)], True)
