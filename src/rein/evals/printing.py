"""Scores on the terminal: one line a task, metric and number of shots."""

from __future__ import annotations

import math
from typing import Any, Literal

from rein.report.legible import one_line
from rein.report.legible import table as columns

REASON_CHARS = 500  # of a line that says why something is left out


def table(found: dict[str, Any]) -> str:
    """The scores as a person reads them: one line a task, metric and number of shots."""
    head = ("task", "metric", "K", "score", "95% interval", "n", "chance", "paper", "verdict")
    lines = columns([head, *(_cells(entry, row) for entry in found["tasks"] for row in entry["scores"])], "<<>>>>>><")
    failed = {entry["task"]: entry for entry in found["tasks"] if entry["failed_count"]}
    for name, entry in failed.items():
        first = entry["failed"][0]
        told = f"{name}: {entry['failed_count']:,} not answered; the first: {first['id']}: {first['reason']}"
        lines.append(one_line(told, REASON_CHARS))
    others = [one for one in found["skipped"] if not one.get("no_files")]
    lines += [one_line(f"{one['task']}: {one['reason']}", REASON_CHARS) for one in others]
    if absent := [one["task"] for one in found["skipped"] if one.get("no_files")]:
        lines.append(f"Without files below --data, and left out: {', '.join(map(one_line, absent))}.")
    return "\n".join(lines)


def _cells(entry: dict[str, Any], row: dict[str, Any]) -> tuple[str, ...]:
    unit, paper = entry["unit"], row["published"]
    k = f"{'chosen ' if row['setting'] == 'chosen' else ''}{row['k']}"
    if row["effective_k_mean"] != row["k"]:
        k += f" ({row['effective_k_mean']:.1f} fit)"
    return (
        one_line(entry["task"]), entry["metric"], k, shown(row["value"], unit),
        f"{shown(row['low'], unit)} – {shown(row['high'], unit)}", f"{row['n']:,}",
        "" if entry["chance"] is None else shown(entry["chance"], unit),
        "" if paper is None else f"{paper['value']:g} {paper['size']}",
        _verdict(row),
    )  # fmt: skip


def shown(value: float | None, unit: str, sign: Literal["", "+"] = "") -> str:
    """A score, percentages as the papers print them; a question mark where nothing is known.

    Example  >>> shown(0.3371, "%"), shown(18.613, "1"), shown(0.02, "%", "+"), shown(None, "%")
             ('33.7', '18.61', '+2.0', '?')
    """
    if value is None or not math.isfinite(value):
        return "?"
    return f"{100 * value:{sign}.1f}" if unit == "%" else f"{value:{sign}.4g}"


def _verdict(row: dict[str, Any]) -> str:
    words = [] if row["verdict"] == "no number" else [row["verdict"]]
    if row["against_chance"] in ("near", "below"):
        words.append(f"{row['against_chance']} chance")
    return ", ".join(words)
