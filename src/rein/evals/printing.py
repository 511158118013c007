"""Scores on the terminal: one line a task, metric and number of shots."""

from __future__ import annotations

from typing import Any


def table(found: dict[str, Any]) -> str:
    """The scores as a person reads them: one line a task, metric and number of shots."""
    lines = [("task", "metric", "K", "score", "95% interval", "n", "chance", "paper", "verdict")]
    for entry in found["tasks"]:
        percent = entry["unit"] == "%"
        for row in entry["scores"]:
            paper = row["published"]
            k = f"{'chosen ' if row['setting'] == 'chosen' else ''}{row['k']}"
            if row["effective_k_mean"] != row["k"]:
                k += f" ({row['effective_k_mean']:.1f} fit)"
            lines.append(
                (
                    entry["task"], entry["metric"], k, shown(row["value"], percent),
                    f"{shown(row['low'], percent)} – {shown(row['high'], percent)}", f"{row['n']:,}",
                    "" if entry["chance"] is None else shown(entry["chance"], percent),
                    "" if paper is None else f"{paper['value']:g} {paper['size']}",
                    _verdict(row),
                )
            )  # fmt: skip
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    shape = ["<", "<", ">", ">", ">", ">", ">", ">", "<"]
    text = ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, shape, widths, strict=True)).rstrip()
            for line in lines]  # fmt: skip
    failed = {entry["task"]: entry for entry in found["tasks"] if entry["failed_count"]}
    for name, entry in failed.items():
        first = entry["failed"][0]
        text.append(f"{name}: {entry['failed_count']:,} not answered; the first: {first['id']}: {first['reason']}")
    text += [f"{one['task']}: {one['reason']}" for one in found["skipped"] if not one.get("no_files")]
    if absent := [one["task"] for one in found["skipped"] if one.get("no_files")]:
        text.append(f"Without files below --data, and left out: {', '.join(absent)}.")
    return "\n".join(text)


def shown(value: float | None, percent: bool) -> str:
    """A score, percentages as the papers print them; a question mark where nothing is known.

    Example  >>> shown(0.3371, True), shown(18.613, False)
             ('33.7', '18.61')
    """
    if value is None:
        return "?"
    return f"{100 * value:.1f}" if percent else f"{value:.4g}"


def _verdict(row: dict[str, Any]) -> str:
    words = [] if row["verdict"] == "no number" else [row["verdict"]]
    if row["against_chance"] in ("near", "below"):
        words.append(f"{row['against_chance']} chance")
    return ", ".join(words)
