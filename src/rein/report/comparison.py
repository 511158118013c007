"""What made one run better than another.

Flow     run folders → settings that differ, numbers at the end and at equal tokens → text
         a metric's curves → block characters, a figure (SVG, PNG, PDF), or the page of `page.compare`
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rein.config import setting
from rein.errors import UserError, suggestion, writing
from rein.report.figures import UNITS, Curve, smooth
from rein.report.legible import VALUE_CHARS, number, one_line, short, table
from rein.report.page import Run, load_run, run_names
from rein.report.page import compare as comparison_page
from rein.run import METRICS, write_atomically

SPARK_COLUMNS = 60
CELL_CHARS = 40  # of a setting, in a terminal
# As on the report page: told apart by colour-blind people, and by brightness.
COLOURS = ("#0072b2", "#d55e00", "#00825f", "#b0528b", "#2f93c9", "#a87000")


@dataclass(frozen=True)
class CompareConfig:
    """Settings of `rein runs compare`."""

    runs: tuple[Path, ...] = setting(help="two run folders or more", positional=True)
    plot: str | None = setting(None, "a metric to draw over training tokens, in the terminal or as --out")
    out: Path | None = setting(None, "a page with all curves (.html), or the figure of --plot (.svg, .png, .pdf)")


def compare_runs(config: CompareConfig) -> None:
    """Compares runs: the settings that differ, the numbers at the end and at equal tokens, and curves.

    At equal tokens means at the most that all of them have seen: each number is the last one at or before it.

    Examples
      rein runs compare runs/first runs/faster
      rein runs compare runs/first runs/faster --plot heldout_loss
      rein runs compare runs/first runs/faster --plot heldout_loss --out loss.svg
      rein runs compare runs/first runs/faster --out compare.html
    """
    kind = None if config.out is None else config.out.suffix.lower()
    _check_compare(config, kind)
    runs = [load_run(path) for path in config.runs]
    names = [one_line(name) for name in run_names(runs)]
    print("\n".join(_comparison(runs, names)))
    if config.plot is not None:
        curves = {name: run.curve(config.plot) for name, run in zip(names, runs, strict=True)}
        if not any(x for x, _ in curves.values()):
            have = {metric for run in runs for row in run.rows for metric in row}
            raise UserError(f"None of these runs has the metric {config.plot}.", suggestion(config.plot, have))
        if config.out is None:
            print("\n".join(["", *sparklines(config.plot, curves)]))
        else:
            draw(config.plot, curves, config.out)
    elif config.out is not None:
        with writing(config.out):
            config.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(config.out, comparison_page(config.runs))
    if config.out is not None:
        print(f"\n{config.out}")


def _check_compare(config: CompareConfig, kind: str | None) -> None:
    if len(config.runs) < 2:
        raise UserError(
            f"rein runs compare needs two runs, and {len(config.runs)} was given.",
            "Type, like: rein runs compare runs/first runs/faster",
        )
    if config.plot is not None and config.plot not in UNITS:
        raise UserError(f"--plot {config.plot} is no metric.", suggestion(config.plot, UNITS))
    if config.plot is None and kind is not None and kind != ".html":
        raise UserError(
            f"--out {config.out} is to be a figure, but of what?",
            "Add, like, --plot heldout_loss; or name a page: --out compare.html",
        )
    if config.plot is not None and kind is not None and kind not in (".svg", ".png", ".pdf"):
        raise UserError(
            f"--out {config.out} is no figure.", "Name one that ends with .svg, .png or .pdf; a page needs no --plot."
        )


def _comparison(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    keys = sorted({key for run in runs for key in run.settings} - {"out"})
    settings = [(key, [short(run.settings[key]) if key in run.settings else "–" for run in runs]) for key in keys]
    settings = [(one_line(key), values) for key, values in settings if len(set(values)) > 1]
    sides = "<" + ">" * len(runs)
    lines = ["settings that differ" if settings else "all settings are the same"]
    if settings:
        lines += table([("", *names), *((key, *map(_cut, values)) for key, values in settings)], sides)
    lines += ["", "at the end", *table([("", *names), *_numbers(runs, math.inf)], sides)]
    seen = [run.last("tokens") for run in runs]
    if all(seen) and len(set(seen)) > 1:
        equal = min(tokens for tokens in seen if tokens is not None)
        lines += ["", f"at {number(equal)} tokens, which all have seen"]
        lines += table([("", *names), *_numbers(runs, equal)], sides)
    if "data" in dict(settings):
        lines += ["", "Bits per byte compare across tokenizers; perplexity and loss only under one."]
    return lines


def _cut(text: str) -> str:
    """A setting's value in a table for a terminal, on one line; the page has all of it."""
    text = one_line(text, VALUE_CHARS)
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"


def _numbers(runs: Sequence[Run], most_tokens: float) -> list[tuple[str, ...]]:
    """Each metric's last value up to `most_tokens`, a row each; with its tokens where those are 2% below, or more."""
    rows = []
    for metric in METRICS:
        found = []
        for run in runs:
            x, y = run.curve(metric.name)
            points = [(tokens, value) for tokens, value in zip(x, y, strict=True) if tokens <= most_tokens]
            found.append(next((point for point in reversed(points) if point[1] is not None), None))
        if any(found):
            unit = "" if metric.unit == "1" else f" [{metric.unit}]"
            rows.append((metric.name + unit, *(_value(point, most_tokens) for point in found)))
    return rows


def _value(point: tuple[float, float | None] | None, most_tokens: float) -> str:
    if point is None:
        return "–"
    early = math.isfinite(most_tokens) and point[0] < 0.98 * most_tokens
    return number(point[1]) + (f" at {number(point[0])}" if early else "")


def frame(curves: Iterable[Curve]) -> tuple[float, float]:
    """The lowest value, and the highest after the first 4% of the tokens: a loss starts so high that the rest would
    look flat.

    Example  >>> frame([([0, 50, 100], [9.0, 3.0, 2.0])])
             (2.0, 3.0)
    """
    points = [(x, y) for xs, ys in curves for x, y in zip(xs, ys, strict=True) if y is not None]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    later = [y for x, y in points if x > first + (last - first) * 0.04] or [y for _, y in points]
    return min(y for _, y in points), max(later)


def sparklines(metric: str, curves: dict[str, Curve]) -> list[str]:
    """A line of block characters for each run, all on the same scales, with its last value.

    Example  >>> lines = sparklines("heldout_loss", {"a": ([0, 100], [4.0, 2.0]), "b": ([0, 50], [4.0, 3.0])})
             >>> print(lines[0])
             heldout_loss [nats/token] over training tokens, 0 to 100; from 2 (low) to 3 (high)
    """
    drawn = {name: curve for name, curve in curves.items() if any(y is not None for y in curve[1])}
    low, high = frame(drawn.values())
    first = min(xs[0] for xs, _ in drawn.values())
    last = max(xs[-1] for xs, _ in drawn.values())
    edges = np.linspace(first, last, SPARK_COLUMNS + 1)
    unit = "" if UNITS[metric] == "1" else f" [{UNITS[metric]}]"
    head = f"{metric}{unit} over training tokens, {number(first)} to {number(last)}; "
    rows = []
    for name, (xs, ys) in drawn.items():
        known = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
        x, y = np.array(known, dtype=float).T
        marks = [_block(_between(x, y, a, b), low, high) for a, b in pairwise(edges)]
        rows.append((name, "".join(marks), number(float(y[-1]))))
    return [head + f"from {number(low)} (low) to {number(high)} (high)", *table(rows, "<<>")]


def _between(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], start: float, stop: float) -> float | None:
    """The mean of the values there, or what lies between their neighbours; None outside of the curve."""
    inside = (x >= start) & (x <= stop)
    if inside.any():
        return float(y[inside].mean())
    middle = (start + stop) / 2
    return float(np.interp(middle, x, y)) if x[0] < middle < x[-1] else None


def _block(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    share = (value - low) / (high - low) if high > low else 0.5
    return "▁▂▃▄▅▆▇█"[min(max(int(share * 8), 0), 7)]


def draw(metric: str, curves: dict[str, Curve], out: Path) -> None:
    """Writes a figure of a metric over training tokens: SVG, PNG or PDF by the name of `out`. The same curves give the
    same file, to the byte.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": ["DejaVu Sans"], "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
        "axes.edgecolor": "#8a857b", "axes.labelcolor": "#201d18", "xtick.color": "#645e53", "ytick.color": "#645e53",
        "axes.grid": True, "grid.color": "#ece8de", "axes.axisbelow": True, "svg.fonttype": "none",
        "svg.hashsalt": "rein", "legend.frameon": False, "figure.facecolor": "white", "text.parse_math": False,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.subplots()
        drawn = {name: curve for name, curve in curves.items() if any(y is not None for y in curve[1])}
        for place, (name, (xs, ys)) in enumerate(drawn.items()):
            colour, dashes = COLOURS[place % len(COLOURS)], "-" if place < len(COLOURS) else "--"
            few = len(xs) <= 60
            if metric == "train_loss" and not few:
                axes.plot(xs, _gaps(ys), color=colour, linewidth=0.6, alpha=0.25)
                ys = smooth(ys, max(2, len(xs) // 100))
            label = name if not name.startswith("_") else f" {name}"  # matplotlib leaves out labels that begin with _
            axes.plot(
                xs, _gaps(ys), dashes, color=colour, linewidth=1.6, label=label, marker="o" if few else "", markersize=3
            )
        low, high = frame(drawn.values())
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        axes.set_ylim(low - room, high + room)
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.set_xlabel("training tokens")
        axes.set_ylabel(metric if UNITS[metric] == "1" else f"{metric} [{UNITS[metric]}]")
        axes.legend()
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            nobody = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}[out.suffix.lower()]
            figure.savefig(out, dpi=160, metadata=nobody)


def _gaps(ys: Sequence[float | None]) -> list[float]:
    return [math.nan if y is None else y for y in ys]
