"""The figures of an evaluation: scores over numbers of shots, scores over parameters, clean against all.

Flow     Evaluations (results.py) → `shots_charts`, `size_charts`, `clean_charts` → Charts: axes and marks →
         chart.html, which draws a Chart on the page and as an SVG file of its own

Scores are drawn as people read them: percentages as such. Only the deciding metric of a task is drawn.
Source   Brown 2020, figures 3.1 to 3.16 (over parameters), 1.2 and 3.8 (over shots), 4.2 (clean against all).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rein.evals import published
from rein.evals.results import Entry, Evaluation, Json, Overlap, Row
from rein.evals.tasks.table import TASKS, load
from rein.report.charts import Axis, linear
from rein.report.figures import ticks
from rein.report.legible import number

FRAME = (320, 200, 44, 28)  # width, height, left and bottom margins
COLOURS = 6  # told apart; then the same ones, dashed
SETTINGS = ("zero", "one", "few")
PAPERS = {"gpt1": "Radford 2018", "gpt2": "Radford 2019", "gpt3": "Brown 2020"}
LABELLED = 8  # tasks with their name beside their dot
NAME_CHARS = 16  # of such a name

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """What is drawn: a line, a band (its outline), bars (low and high in turn), dots or rings; dashed, or faint."""

    label: str  # of the key; empty where it stands there already
    colour: str  # a class of the style: c0 … c5, soft
    style: str
    points: Points


@dataclass(frozen=True)
class Chart:
    """A figure. `name` is that of its file; `level` a value across the whole width, as chance is."""

    name: str
    title: str
    unit: str
    said: str  # for those who cannot see it
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    level: tuple[float, str] | None = None
    texts: Sequence[tuple[float, float, str]] = ()  # one in the way of another before it is left out
    frame: tuple[int, int, int, int] = FRAME

    def geometry(self) -> Json:
        """What the template writes down: positions as text, one path per mark."""
        width, height, left, bottom = self.frame
        right, top, floor = width - 12, 10, height - bottom

        def across(x: float) -> float:
            return left + self.x.at(x) * (right - left)

        def down(y: float) -> float:
            return floor - self.y.at(y) * (floor - top)

        return {
            "width": width, "height": height, "left": left, "right": right, "floor": floor,
            "x_ticks": [(f"{across(value):.1f}", text) for value, text in self.x.ticks],
            "y_ticks": [(f"{down(value):.1f}", text) for value, text in self.y.ticks],
            "marks": [
                _drawn(mark, [(f"{across(x):.1f}", f"{down(y):.1f}") for x, y in mark.points]) for mark in self.marks
            ],
            "level": None if self.level is None else f"{down(self.level[0]):.1f}",
            "texts": _apart([(across(x), down(y), text) for x, y, text in self.texts], width),
        }  # fmt: skip


def _drawn(mark: Mark, points: list[tuple[str, str]]) -> Json:
    joined = "L".join(f"{x} {y}" for x, y in points)
    if "dots" in mark.style or "rings" in mark.style:
        path = ""
    elif "bars" in mark.style:
        path = "".join(f"M{x} {low}V{high}" for (x, low), (_, high) in zip(points[::2], points[1::2], strict=True))
    else:
        path = f"M{joined}Z" if "band" in mark.style else f"M{joined}"
    return {"mark": mark, "path": path, "dots": points if not path else []}


def _apart(texts: Iterable[tuple[float, float, str]], width: float) -> list[tuple[str, str, str, str]]:
    """Texts beside points, to their right where there is room, without those in the way of one before them."""
    kept, boxes = [], list[tuple[float, float, float]]()
    for x, y, text in texts:
        text = text if len(text) <= NAME_CHARS else text[: NAME_CHARS - 1] + "…"
        long = 8.0 * len(text) + 12  # narrow screens have larger letters
        left = x if x + long < width else x - long
        if all(abs(y - at) > 13 or left > right or left + long < start for at, start, right in boxes):
            kept.append((f"{x:.1f}", f"{y:.1f}", "start" if left == x else "end", text))
            boxes.append((y, left, left + long))
    return kept


def colour_of(place: int) -> str:
    """The classes of the style for the model at a place.

    Example  >>> colour_of(1), colour_of(7)
             ('c1', 'c1 dashed')
    """
    return f"c{place % COLOURS}{' dashed' if place >= COLOURS else ''}"


# ---------------------------------------------------------------------------------------------- over shots


def shots_charts(evaluations: Sequence[Evaluation]) -> list[Chart]:
    """Scores over the number of shots, one chart a task, one line a model; of tasks that were asked behind several."""
    charts = []
    for key in _tasks(evaluations):
        found = _of_task(evaluations, key)
        ks = sorted({row.k for _, entry in found for row in (*entry.rows, *entry.dev)})
        if len(ks) > 1:
            charts.append(_shots_chart(key, found, evaluations, ks))
    return charts


def _shots_chart(
    key: tuple[str, str], found: list[tuple[int, Entry]], evaluations: Sequence[Evaluation], ks: list[int]
) -> Chart:
    entry, scale, marks, said = found[0][1], found[0][1].scale, list[Mark](), list[str]()
    for place, one in found:
        name, colour = evaluations[place].name, colour_of(place)
        for rows, label, style in ((one.dev, f"{name}, dev set", "line faint"), (one.rows, name, "line")):
            if rows:
                marks.append(_band(rows, scale, colour, lambda row: shots_at(row.k)))
                points = [(shots_at(row.k), row.value * scale) for row in rows]
                marks.append(Mark(label, colour, style, points))
                marks.append(Mark("", colour, style.replace("line", "dots"), points))
                words = ", ".join(f"{_value(row.value, one)} at {row.k}" for row in rows)
                said.append(f"{label} {words}")
        chosen = [(shots_at(row.k), row.value * scale) for row in one.rows if row.k == one.chosen_k]
        if chosen:
            marks.append(Mark("K chosen on the dev set", colour, "rings", chosen))
    return Chart(
        _file("shots", key, evaluations), entry.title, f"{_unit(entry)}, by shots in the prompt",
        f"{entry.title}, {entry.metric} by number of shots: {'; '.join(said)}.",
        Axis(shots_at(ks[0]), shots_at(ks[-1]), shots_ticks(ks)),
        _values_axis([row for _, one in found for row in (*one.rows, *one.dev)], entry, ()),
        marks, _level(entry),
    )  # fmt: skip


def shots_at(k: int) -> float:
    """Where a number of shots stands: 0 and 1 a step apart, and a step for every doubling.

    Example  >>> [shots_at(k) for k in (0, 1, 2, 4, 8)]
             [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    return 1 + math.log2(k) if k else 0.0


def shots_ticks(ks: Sequence[int], most: int = 8) -> list[tuple[float, str]]:
    """A tick at every number of shots that has room; the first and the last always.

    Example  >>> [text for _, text in shots_ticks([0, 1, 2, 4, 8, 16, 32, 50], most=5)]
             ['0', '2', '8', '50']
    """
    last = shots_at(ks[-1])
    room = (last - shots_at(ks[0])) / most
    kept = [ks[0]]
    for k in ks[1:-1]:
        if shots_at(k) - shots_at(kept[-1]) >= room and last - shots_at(k) >= room:
            kept.append(k)
    return [(shots_at(k), str(k)) for k in dict.fromkeys((*kept, ks[-1]))]


# ------------------------------------------------------------------------------------------ over parameters


def size_charts(evaluations: Sequence[Evaluation]) -> list[Chart]:
    """Scores over parameters, one chart a task, one line a setting, the paper's models behind.

    Tasks that the paper prints nothing of are drawn where there are models of two sizes.
    """
    charts = []
    for key in _tasks(evaluations):
        found = _of_task(evaluations, key)
        papers = {setting: of_paper(*key, found[0][1].metric, setting) for setting in SETTINGS}
        shown = [setting for setting in SETTINGS if any(_row_of(entry, setting) for _, entry in found)]
        papers = {setting: papers[setting] for setting in shown if papers[setting]}
        if papers or (shown and len({evaluations[place].n_params for place, _ in found}) > 1):
            charts.append(_size_chart(key, found, evaluations, papers))
    return charts


def _size_chart(
    key: tuple[str, str], found: list[tuple[int, Entry]], evaluations: Sequence[Evaluation], papers: dict[str, Points]
) -> Chart:
    entry, scale = found[0][1], found[0][1].scale
    theirs, ours, said = list[Mark](), list[Mark](), list[str]()
    sizes = [float(evaluations[at].n_params) for at, _ in found]
    sizes += [x for points in papers.values() for x, _ in points]
    for place, setting in enumerate(SETTINGS):
        colour = colour_of(place)
        aside = (max(sizes) / min(sizes) * 2) ** (0.02 * (place - 1))  # or the bars of a model would lie on each other
        if setting in papers:
            label = f"{PAPERS[key[0]]}, {setting}-shot"
            theirs += [
                Mark(label, colour, "line faint", papers[setting]),
                Mark("", colour, "dots faint", papers[setting]),
            ]
        rows = [(evaluations[at], row) for at, one in found if (row := _row_of(one, setting)) is not None]
        rows.sort(key=lambda pair: pair[0].n_params)
        if rows:
            points = [(one.n_params * aside, row.value * scale) for one, row in rows]
            bars = [(one.n_params * aside, end * scale) for one, row in rows for end in (row.low, row.high)
                    if _bounded(row)]  # fmt: skip
            if len({x for x, _ in points}) > 1:
                ours.append(Mark("", colour, "line", points))
            ours += [Mark("", colour, "bars", bars), Mark(f"{setting}-shot", colour, "dots", points)]
            words = ", ".join(f"{_value(row.value, entry)} of {one.name}" for one, row in rows)
            said.append(f"{setting}-shot {words}")
    behind = [y for points in papers.values() for _, y in points]
    return Chart(
        _file("sizes", key, evaluations), entry.title, f"{_unit(entry)}, by parameters",
        f"{entry.title}, {entry.metric} by parameters: {'; '.join(said)}.",
        _parameters(min(sizes), max(sizes)),
        _values_axis([row for _, one in found for row in one.rows], entry, behind),
        theirs + ours, _level(entry),
    )  # fmt: skip


def of_paper(protocol: str, task: str, metric: str, setting: str) -> Points:
    """The paper's scores of a task, as (parameters, score as printed); none where it has none.

    Example  >>> of_paper("gpt3", "arc_easy", "accuracy", "few")[0]
             (125000000.0, 42.7)
    """
    if task not in TASKS.get(protocol, {}):
        return []  # a task of the user's own
    name = load(protocol, task).published
    numbers = published.numbers(protocol, name, metric, setting)
    if not numbers and protocol == "gpt2" and setting == "zero":
        numbers = published.numbers(protocol, name, metric, "few")  # where its prompt begins with examples
    return sorted((published.SIZES[protocol][size], score) for size, score in numbers.items())


def _row_of(entry: Entry, setting: str) -> Row | None:
    """The row of a setting of the paper's; few-shot is the K chosen on the dev set, where one was, as in the paper."""
    settings = {row.setting: row for row in entry.rows}
    return settings.get("chosen", settings.get("few")) if setting == "few" else settings.get(setting)


def _parameters(low: float, high: float) -> Axis:
    low, high = low / 1.5, high * 1.5
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    every = max(1, math.ceil(len(powers) / 4))
    marked = [10.0**power for power in powers if power % every == 0] or [math.sqrt(low * high)]
    return Axis(low, high, [(value, number(value).replace(".00", "")) for value in marked], log=True)


# -------------------------------------------------------------------------------------------- clean against all


def clean_charts(overlaps: Sequence[Overlap]) -> list[Chart]:
    """What each score changes by where only clean problems count, over the part that is clean: a dot a task."""
    known = [(one, one.change) for one in overlaps if one.change is not None]
    if not known:
        return []
    points = [(100 * one.clean_frac, 100 * change[0]) for one, change in known]
    bars = [(100 * one.clean_frac, 100 * end) for one, change in known for end in change[1:] if _all_finite(change)]
    theirs = {one.entry.title: (100 * one.paper[0], 100 * one.paper[1]) for one in overlaps if one.paper}
    most = max(5.0, *(abs(y) for _, y in (*points, *bars, *theirs.values()) if math.isfinite(y))) * 1.08
    furthest = sorted(known, key=lambda pair: -abs(pair[1][0]))[:LABELLED]
    words = ", ".join(
        f"{one.entry.title} {100 * one.clean_frac:.0f}% clean, {100 * to:+.1f}%" for one, (to, *_) in known
    )
    chart = Chart(
        "clean", "Clean against all", "change of the score in %, by the part of the problems that is clean in %",
        f"Change of the score on clean problems, by the part that is clean: {words}.",
        linear(0, 100, 5), linear(-most, most, 6),
        [
            Mark("Brown 2020, Table C.1" if theirs else "", "soft", "dots faint", list(theirs.values())),
            Mark("", "c0", "bars", bars), Mark("here, with 95% intervals", "c0", "dots", points),
        ],
        (0.0, "no change"),
        [(100 * one.clean_frac, 100 * change[0], one.entry.title) for one, change in furthest if change[0]],
        (440, 250, 44, 28),
    )  # fmt: skip
    return [chart]


# --------------------------------------------------------------------------------------------------- strips

STRIP = (132, 18)  # width, height


def strip(row: Row, entry: Entry, beside: Iterable[Row]) -> Json:
    """A score in a cell of the table: its interval, chance and the paper's number, on one scale for the whole task."""
    rows = [row, *beside]
    theirs = _printed(row, entry)
    axis = _values_axis(rows, entry, [value for one in rows if (value := _printed(one, entry)) is not None])
    width, height = STRIP

    def at(value: float | None) -> str | None:
        return None if value is None else f"{4 + axis.at(value) * (width - 8):.1f}"

    return {
        "width": width, "height": height, "low": at(row.low * entry.scale), "high": at(row.high * entry.scale),
        "value": at(row.value * entry.scale), "paper": at(theirs),
        "chance": at(None if entry.chance is None else entry.chance * entry.scale),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------- inside


def _tasks(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """(protocol, task), each once."""
    return list(dict.fromkeys((one.protocol, task) for one in evaluations for task in one.deciding))


def _of_task(evaluations: Sequence[Evaluation], key: tuple[str, str]) -> list[tuple[int, Entry]]:
    """The models that a task was put to, by place, with its deciding metric."""
    protocol, task = key
    found = [(at, one.deciding[task]) for at, one in enumerate(evaluations)
             if one.protocol == protocol and task in one.deciding]  # fmt: skip
    return [(at, entry) for at, entry in found if entry.metric == found[0][1].metric]


def _printed(row: Row, entry: Entry) -> float | None:
    """The paper's number in the units of a drawing, which are those it is printed in."""
    if row.published is None:
        return None
    return published.fraction(entry.metric, row.published.value) * entry.scale


def _bounded(row: Row) -> bool:
    return _all_finite((row.low, row.high))


def _all_finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))


def _band(rows: Sequence[Row], scale: float, colour: str, x_of: Any) -> Mark:
    """The outline of the intervals: along their upper ends, and back along the lower ones."""
    known = [row for row in rows if _bounded(row)]
    outline = [(x_of(row), row.high * scale) for row in known] + [(x_of(row), row.low * scale) for row in known[::-1]]
    return Mark("", colour, "band", outline)


def _values_axis(rows: Iterable[Row], entry: Entry, more: Iterable[float]) -> Axis:
    """An axis for scores and their intervals, chance and what else is drawn; a percentage stays from 0 to 100."""
    ends = [end * entry.scale for row in rows for end in (row.low, row.high, row.value) if math.isfinite(end)]
    ends += list(more) + ([] if entry.chance is None else [entry.chance * entry.scale])
    low, high = min(ends), max(ends)
    room = (high - low) * 0.07 or abs(high) * 0.1 or 1.0
    if entry.unit == "%":
        low, high = max(low - room, 0.0), min(high + room, 100.0)
    else:
        low, high = max(low - room, 0.0) if low >= 0 else low - room, high + room
    return Axis(low, high, [(value, number(value)) for value in ticks(low, high, 6)])


def _level(entry: Entry) -> tuple[float, str] | None:
    return None if entry.chance is None else (entry.chance * entry.scale, "chance")


def _unit(entry: Entry) -> str:
    """The metric, with its unit where its name does not say it."""
    told = entry.unit == "1" or entry.unit.replace("/", "_per_").lower() in entry.metric.lower()
    return entry.metric if told or entry.unit == "BLEU" else f"{entry.metric} in {entry.unit}"


def _value(value: float, entry: Entry) -> str:
    return f"{100 * value:.1f}%" if entry.unit == "%" else number(value)


def _file(kind: str, key: tuple[str, str], evaluations: Sequence[Evaluation]) -> str:
    """A name for the file of a chart, of letters that every disk takes."""
    protocol, task = key
    words = [kind, protocol, task] if len({one.protocol for one in evaluations}) > 1 else [kind, task]
    return "-".join(re.sub(r"[^\w.+-]+", "_", word) for word in words)
