"""The report's figures: which curves there are, which of their points are drawn, and each as a still SVG.

Flow     curves of metrics over tokens → `figures` → lines for uPlot (static/report.js), geometry for the SVG
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rein.report.legible import number
from rein.run import METRICS

STRETCHES = 400  # of a curve: a figure keeps at most about three points of each
Curve = tuple[list[float], list[float | None]]  # tokens, rising; the metric there, None where it was no number

# The figures: key, title, metrics, whether large. Metrics of one figure share a unit.
FIGURES = (
    ("loss", "Loss", ("train_loss", "heldout_loss"), True),
    ("bits", "Held-out bits per byte", ("heldout_bits_per_byte",), True),
    ("rate", "Learning rate", ("learning_rate",), False),
    ("grad", "Gradient norm", ("grad_norm",), False),
    ("batch", "Sequences per batch", ("sequences_per_batch",), False),
    (
        "noise", "Gradient noise scale",
        ("noise_scale_sequences", "noise_scale_low_sequences", "noise_scale_high_sequences",
         "layernorm_noise_scale_sequences"), False,
    ),
    ("speed", "Training speed", ("tokens_per_s",), False),
    ("score", "Score", ("score_mean", "heldout_proxy", "heldout_gold", "heldout_second"), False),
    ("kl", "KL from the start", ("kl_nats", "heldout_kl_nats"), False),
    ("kl_coef", "KL coefficient", ("kl_coef",), False),
    ("explained", "Returns explained by the value network", ("value_explained_frac",), False),
    ("entropy", "Entropy", ("entropy_nats",), False),
    ("clipped", "Clipped", ("clip_frac", "value_clip_frac"), False),
    ("length", "Length of a response", ("response_tokens", "heldout_response_tokens"), False),
    ("unended", "Responses without an end", ("no_eot_frac", "heldout_no_eot_frac"), False),
    ("drift", "Sampler against trainer", ("sampler_drift",), False),
    ("episodes", "Episodes per second", ("episodes_per_s",), False),
)  # fmt: skip
STILLS = {"loss": (640, 320, 46, 30), "bits": (400, 320, 46, 30), "small": (300, 190, 52, 28)}  # width … bottom
LINE_NAMES = {
    "train_loss": "train", "heldout_loss": "held-out", "noise_scale_sequences": "all parameters",
    "noise_scale_low_sequences": "95% interval from", "noise_scale_high_sequences": "to",
    "layernorm_noise_scale_sequences": "LayerNorms alone", "score_mean": "sampled", "heldout_proxy": "held-out",
    "heldout_gold": "held-out, gold", "heldout_second": "held-out, other reward", "kl_nats": "sampled",
    "heldout_kl_nats": "held-out", "response_tokens": "sampled", "heldout_response_tokens": "held-out",
    "no_eot_frac": "sampled", "heldout_no_eot_frac": "held-out", "clip_frac": "ratios", "value_clip_frac": "values",
}  # fmt: skip
UNITS = {metric.name: metric.unit for metric in METRICS}


@dataclass(frozen=True)
class Line:
    """One curve. `style` is raw (faint), mean (of neighbouring rows), line, or points (few, joined)."""

    label: str
    metric: str
    colour: int
    style: str
    x: list[float]
    y: list[float | None]


@dataclass(frozen=True)
class Figure:
    """Curves in one unit over training tokens."""

    key: str
    title: str
    unit: str
    large: bool
    lines: list[Line]
    top: float | None  # of the frame, where a steep start would else press the rest flat


def thin(x: Sequence[float], y: Sequence[float | None], stretches: int = STRETCHES) -> list[int]:
    """Which points of a curve to draw: the lowest and highest of each stretch, the two ends, and a gap if it has one.

    No peak is lost and every point is a real one. Stretches are even over the points, and finer near the
    start, so that a logarithmic axis has something to show there.

    Example  >>> thin(range(8), [0, 9, 1, 1, 1, 1, None, 2], stretches=2)
             [0, 1, 2, 4, 6, 7]
    """
    n = len(x)
    if n <= 3 * stretches:
        return list(range(n))
    even = np.linspace(0, n, stretches + 1)
    early = np.geomspace(1, n, stretches // 4 + 1)
    edges = np.unique(np.concatenate([even, early]).astype(int))
    keep = {0, n - 1}
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        known = [(value, i) for i in range(start, stop) if (value := y[i]) is not None]
        if known:
            keep.update((min(known)[1], max(known)[1]))
        if len(known) < stop - start:
            keep.add(next(i for i in range(start, stop) if y[i] is None))
    return sorted(keep)


def smooth(y: Sequence[float | None], half: int) -> list[float | None]:
    """The mean of each value and its neighbours, `half` on either side.

    At the start the window shrinks on both sides, because a loss falls steeply there and half a window would
    lean; at the end it loses its right side only, so that the last value is still a mean.

    Example  >>> smooth([1, 2, None, 4, 5], half=1)
             [1.0, 1.5, 3.0, 4.5, 4.5]
    """
    values = np.array([math.nan if v is None else v for v in y], dtype=float)
    known = ~np.isnan(values)
    sums = np.concatenate([[0.0], np.where(known, values, 0.0).cumsum()])
    counts = np.concatenate([[0], known.cumsum()])
    index = np.arange(len(values))
    reach = np.minimum(half, index)
    start, stop = index - reach, np.minimum(index + reach + 1, len(values))
    count, total = counts[stop] - counts[start], sums[stop] - sums[start]
    return [float(t / c) if c else None for t, c in zip(total, count, strict=True)]


def figures(curves: Sequence[Callable[[str], Curve]], names: Sequence[str]) -> tuple[list[Figure], list[str]]:
    """The figures that have something to show, and a sentence for each metric that never changes.

    `curves` and `names` have one item per run; a run's item gives the curve of a metric.
    """
    shown, constant = [], []
    for key, title, metrics, large in FIGURES:
        lines = [line for i, curve in enumerate(curves) for line in _lines(curve, metrics, i, names)]
        known = {v for line in lines for v in line.y if v is not None}
        if len(known) == 1 and not large and max(len(line.y) for line in lines) > 1:
            constant.append(f"{title} was {number(known.pop())} throughout.")
        elif known:
            unit = UNITS[metrics[0]]
            told = unit == "1" or unit.replace("/", " per ") in title.lower()
            top = _top(lines) if large else _noise_top(lines) if key == "noise" else None
            shown.append(Figure(key, title, "" if told else unit, large, lines, top))
    return shown, constant


def _top(lines: Sequence[Line]) -> float | None:
    """Where to end the frame: above all that follows the first 4% of the tokens, if the start is much higher.

    A loss falls from log(n_vocab) within a few updates; drawn whole, the rest would be a flat line.
    """
    points = [(x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if y is not None]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    rest = [y for x, y in points if x > first + (last - first) * 0.04]
    if not rest:
        return None
    low, high, highest = min(y for _, y in points), max(rest), max(y for _, y in points)
    return high + (high - low) * 0.08 if highest - low > 2 * (high - low) > 0 else None


def _noise_top(lines: Sequence[Line]) -> float | None:
    """Where to end the frame of the noise scale: early estimates, and upper ends of intervals, may be anything."""
    last = [known[-1] for line in lines if (known := [y for y in line.y if y is not None])]
    highest = max(y for line in lines for y in line.y if y is not None)
    end = 3 * sorted(last)[len(last) // 2]
    return end if 0 < end < highest else None


def _lines(curve: Callable[[str], Curve], metrics: Sequence[str], index: int, names: Sequence[str]) -> list[Line]:
    lines = []
    for place, metric in enumerate(metrics):
        x, y = curve(metric)
        if not x:
            continue
        y = _bounded(y)
        alone = len(names) == 1
        colour = place if alone else index
        name = LINE_NAMES.get(metric, metric)
        label = name if alone else names[index] if len(metrics) == 1 else f"{names[index]} · {name}"
        style = "points" if metric.startswith("heldout_") else "line"
        if metric == "train_loss" and len(x) >= 60:
            half = max(2, len(x) // 100)
            if alone:
                lines.append(_line(label, metric, colour, "raw", x, y))
            label, style, y = f"{label}, mean of {2 * half + 1} rows", "mean" if alone else "line", smooth(y, half)
        lines.append(_line(label, metric, colour, style, x, y))
    return lines


def _bounded(y: list[float | None]) -> list[float | None]:
    """`y` within ±1e100, so that no sum or difference of its values overflows."""
    if max((abs(v) for v in y if v is not None), default=0.0) <= 1e100:
        return y
    return [None if v is None else max(min(v, 1e100), -1e100) for v in y]


def _line(label: str, metric: str, colour: int, style: str, x: list[float], y: list[float | None]) -> Line:
    kept = thin(x, y)
    return Line(label, metric, colour, style, [x[i] for i in kept], [_rounded(y[i]) for i in kept])


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between `low` and `high`.

    Example  >>> ticks(0.3, 4.2, about=4)
             [1.0, 2.0, 3.0, 4.0]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [float(f"{i * step:.9g}") for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def still(figure: Figure) -> dict[str, Any]:
    """The geometry of a figure for the template: frame, ticks, one path per line."""
    width, height, left, bottom = STILLS["small" if not figure.large else figure.key]
    xs = [x for line in figure.lines for x in line.x]
    ys = [y for line in figure.lines for y in line.y if y is not None]
    x0, x1 = _range(min(xs), max(xs), 0.0)
    y0, y1 = _range(min(ys), max(ys) if figure.top is None else figure.top, 0.06)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x0) / (x1 - x0) * (width - left - 22),
            8 + (y1 - y) / (y1 - y0) * (height - 8 - bottom),
        )

    paths = []
    for line in figure.lines:
        pen, path = "M", []
        for i in thin(line.x, line.y, 100):
            y = line.y[i]
            if y is None:
                pen = "M"
                continue
            path.append("{}{:.1f} {:.1f}".format(pen, *at(line.x[i], y)))
            pen = "L"
        dots = [at(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
        dots = [dot for dot in dots if dot[1] >= 8]
        dots = dots if line.style == "points" and len(dots) <= 60 else []
        paths.append({"line": line, "path": "".join(path), "dots": [(f"{x:.1f}", f"{y:.1f}") for x, y in dots]})
    return {
        "width": width, "height": height, "left": left, "right": width - 22, "bottom": height - bottom,
        "x_ticks": [(f"{at(t, y0)[0]:.1f}", number(t)) for t in ticks(x0, x1, 6 if figure.large else 3)],
        "y_ticks": [(f"{at(x0, t)[1]:.1f}", number(t)) for t in ticks(y0, y1, 5 if figure.large else 4)],
        "paths": paths,
    }  # fmt: skip


def _range(low: float, high: float, pad: float) -> tuple[float, float]:
    """A range that is not empty, a little wider than the data."""
    low, high = float(low), float(high)
    room = (high - low) * pad
    if high - low <= max(abs(high) * 1e-9, 1e-290):
        room = max(abs(high) * 0.1, 1e-9)
    return low - room, high + room


def said(figure: Figure) -> str:
    """A figure in words, for those who cannot see it."""
    parts = []
    for line in figure.lines:
        known = [y for y in line.y if y is not None]
        if known and line.style != "raw":
            parts.append(f"{line.label} from {number(known[0])} to {number(known[-1])}")
    return f"{figure.title}{f' in {figure.unit}' if figure.unit else ''} over training tokens: {'; '.join(parts)}."


def above(figure: Figure) -> str:
    """The height of what the frame leaves out, or nothing."""
    return "" if figure.top is None else number(max(y for line in figure.lines for y in line.y if y is not None))
