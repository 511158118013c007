"""The survey's figures 9.1.1 to 9.1.3 of a comparison, as SVG and PNG, and one page with all of them.

Flow     returns of every condition → curves with 95% bands, bars for each weight → files beside results.csv, index.html
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rein import __version__
from rein.agents.compare import Condition, Results, half_width, rows_of
from rein.agents.tasks import make_task
from rein.errors import writing
from rein.report.figures import smooth
from rein.report.parts import static, templates
from rein.run import write_atomically

HERE = Path(__file__).parent
# Okabe & Ito's colours, as on the report page: told apart by colour-blind people, and by brightness.
COLOURS = ("#0072b2", "#d55e00", "#00825f", "#b0528b", "#2f93c9", "#a87000")
ALONE = "#55504a"
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: Any = {
    "font.family": ["DejaVu Sans"], "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#8a857b", "axes.labelcolor": "#201d18", "xtick.color": "#645e53", "ytick.color": "#645e53",
    "axes.grid": True, "grid.color": "#ece8de", "axes.axisbelow": True, "svg.fonttype": "none", "svg.hashsalt": "rein",
    "legend.frameon": False, "figure.facecolor": "white",
}  # fmt: skip


def write_figures(out: Path, experiment: str, results: Results) -> None:
    """Writes every figure of every task as SVG and PNG, and index.html with all of them in it."""
    shown = []
    for name in dict.fromkeys(condition.task for condition in results):
        mine = {c: r for c, r in results.items() if c.task == name}
        title = make_task(name).title
        file = name.replace("/", "-").replace(":", "-")
        with rc_context(STYLE):
            for kind, figure in (("curves", curves(mine, title)), ("bars", bars(mine, title))):
                shown.append({"task": title, "kind": kind, **_write(out / f"{kind}-{file}", figure)})
    page = templates(HERE).get_template("compare.html").render(
        policy="default-src 'none'; style-src 'unsafe-inline'; img-src data:",  # each SVG brings a style of its own
        style=Markup(static("report.css") + (HERE / "compare.css").read_text(encoding="utf-8")),
        experiment=experiment, figures=shown, rows=_table(results), version=__version__,
    )  # fmt: skip
    write_atomically(out / "index.html", page)


def best_of(results: Results) -> list[Condition]:
    """SARSA alone, and each technique at the weight whose mean return over the whole run is highest; or every group
    that is taught."""
    chosen: dict[tuple[str, str], Condition] = {}
    for condition, returns in results.items():
        key = (condition.technique, condition.when)
        if key not in chosen or returns.mean() > results[chosen[key]].mean():
            chosen[key] = condition
    return list(chosen.values())


def curves(results: Results, title: str) -> Figure:
    """Mean return of each episode over the runs, with 95% bands; a moving mean of five episodes, for the eye."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes: Axes = figure.subplots()
    chosen = best_of(results)
    bottom, top = [], []
    for place, condition in enumerate(chosen):
        returns = results[condition]
        half = half_width(returns)
        mean = np.array(smooth(returns.mean(axis=0).tolist(), 2), dtype=float)
        half = np.array(smooth(half.tolist(), 2), dtype=float)
        episodes = np.arange(1, len(mean) + 1)
        colour, dash = _look(condition, chosen, place)
        axes.fill_between(episodes, mean - half, mean + half, color=colour, alpha=0.16, linewidth=0)
        axes.plot(episodes, mean, color=colour, linewidth=1.6, linestyle=dash, label=condition.label)
        bottom.append(np.quantile(mean, 0.02))
        top.append(mean.max())
    room = (max(top) - min(bottom)) * 0.06
    axes.set_ylim(min(bottom) - room, max(top) + room)
    axes.set_xlim(1, len(mean))
    axes.set_xlabel("episode")
    axes.set_ylabel("return")
    axes.set_title(f"{title}: mean return over {len(returns)} runs, 95% bands", loc="left", fontsize=11)
    axes.legend(loc="lower right", fontsize=9)
    return figure


def bars(results: Results, title: str) -> Figure:
    """Mean return over the whole run: a group for each technique, a bar for each weight; SARSA alone as a line."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes: Axes = figure.subplots()
    alone = next(returns for c, returns in results.items() if c.technique == "sarsa").mean(axis=1)
    groups: dict[str, list[Condition]] = {}
    for condition in results:
        if condition.technique != "sarsa":
            groups.setdefault(condition.technique, []).append(condition)
    at, ticks, names = 0.0, [], []
    lowest = highest = float(alone.mean())
    for place, (technique, members) in enumerate(groups.items()):
        start = at
        for condition in members:
            per_run = results[condition].mean(axis=1)
            mean, half = float(per_run.mean()), float(half_width(per_run))
            hatch = "//" if condition.when == "later" else None
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(
                [at, at], [float(alone.mean()), mean], color=colour, linewidth=9, alpha=0.45 if hatch else 0.8,
                solid_capstyle="butt",
            )  # fmt: skip
            axes.errorbar(at, mean, half, color="#201d18", marker=MARKS[place % len(MARKS)], markersize=4, capsize=3)
            text = f"{condition.h_weight:g}" if not condition.when else condition.when
            up = mean >= alone.mean()
            axes.annotate(
                text, (at, mean + half if up else mean - half), textcoords="offset points", ha="center", fontsize=8,
                color="#645e53", xytext=(0, 4 if up else -12),
            )  # fmt: skip
            lowest, highest = min(lowest, mean - half), max(highest, mean + half)
            at += 1
        ticks.append((start + at - 1) / 2)
        names.append(technique)
        at += 1
    half = float(half_width(alone))
    axes.axhspan(alone.mean() - half, alone.mean() + half, color=ALONE, alpha=0.16, linewidth=0)
    axes.axhline(float(alone.mean()), color=ALONE, linewidth=1.4, linestyle="--", label="SARSA(λ) alone")
    axes.set_xticks(ticks, names)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    room = (highest - lowest) * 0.12
    axes.set_ylim(lowest - room, highest + room)
    axes.set_xlim(-0.8, max(at - 1.2, 0.8))
    axes.set_ylabel("mean return of the whole run")
    what = "when it was taught" if any(c.when for c in results) else "the weight of Ĥ"
    axes.set_title(f"{title}: by technique, and {what}; 95% intervals", loc="left", fontsize=11)
    axes.legend(loc="lower left", fontsize=9)
    return figure


def _look(condition: Condition, chosen: Sequence[Condition], place: int) -> tuple[str, str]:
    """Colour by technique, dashes by when it was taught."""
    if condition.technique == "sarsa":
        return ALONE, "--"
    names = list(dict.fromkeys(c.technique for c in chosen if c.technique != "sarsa"))
    return COLOURS[names.index(condition.technique) % len(COLOURS)], ":" if condition.when == "later" else "-"


def _write(path: Path, figure: Figure) -> dict[str, str]:
    found = {"name": path.name}
    for kind in ("svg", "png"):
        out = io.BytesIO()
        figure.savefig(out, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
        with writing(path):
            path.with_suffix(f".{kind}").write_bytes(out.getvalue())
        found[kind] = base64.b64encode(out.getvalue()).decode()
    return found


def _table(results: Results) -> list[dict[str, Any]]:
    rows = []
    for condition, row in zip(results, rows_of(results), strict=True):
        rows.append({**row, "label": condition.label, "alone": condition.technique == "sarsa"})
    return rows
