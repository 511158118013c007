"""The page of a reward model: how accurate, how well calibrated, and how much of it is the length of the texts.

Flow     quality.json of a run of `rein reward` (reward_quality.py) → quality.html, one self-contained file

The page asks for nothing else and runs no script. Names in it are a file's: `visible` shows control and direction
characters as signs, and jinja2 escapes the rest.
Source   Stiennon 2020, section 4.3 and App. G.6 (accuracy beside the agreement of people, by data, length).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rein import __version__
from rein.evals.figures import Chart, Mark
from rein.evals.reward_quality import perfect
from rein.report.charts import Axis, linear
from rein.report.legible import count, visible
from rein.report.parts import policy, static, templates
from rein.run import write_atomically

Json = Any

ROWS = 40  # of a table
TICKS = [(n / 10, f"{10 * n}%") for n in range(11)]

_HERE = Path(__file__).parent
# Name in quality.json, as a person reads it, and what it is.
NUMBERS = (
    ("accuracy", "Accuracy", "pairs whose better text has the higher score"),
    ("length_accuracy", "Length alone", "logistic regression on ln(length / length), fitted to the training pairs"),
    ("over_length", "More than length alone", "accuracy less that, on the same pairs"),
    ("at_equal_length", "At equal length", "accuracy by a regression on the difference in length, at none"),
    ("at_equal_length_strata", "… over strata", "as often right where the longer text is better as where it is not"),
    ("agreement", "Labelers agree", "two labelers on one pair, ties left out"),
    ("perfect", "A perfect model", "agrees so often with a labeler, if each errs alone: labelers agree q² + (1 − q)²"),
    ("nll", "Loss", "−log σ(lead), nats a pair; ln 2 = 0.693 is guessing"),
    ("length_nll", "Loss of length alone", "nats a pair"),
    ("ece", "Calibration error", "how far from being right as often as sure, over ten bins"),
    ("longer_wins", "The longer text is better", "of these pairs"),
)
_NATS = ("nll", "length_nll")


def write_page(out: Path, found: Mapping[str, Json]) -> Path:
    """Writes `out`/quality.html, whole or not at all, and returns its path."""
    path = out / "quality.html"
    write_atomically(path, render(out.name, found))
    return path


def render(name: str, found: Mapping[str, Json]) -> str:
    """The page, as HTML. The same numbers give the same page, to the byte."""
    style = _style()
    parts = [{**found[name], "perfect": perfect(found[name]["agreement"])} for name in ("test", "dev")]
    normalised = found["normalised"]
    return templates(_HERE, finalize=_shown).get_template("reward.html").render(
        policy=policy(style),
        style=Markup(style),
        title=name,
        version=__version__,
        train=found["train"],
        tiles=[_tile(parts[0], *each) for each in (NUMBERS[0], NUMBERS[2], NUMBERS[3], NUMBERS[5])],
        numbers=[
            {"name": words, "says": says, "test": _text(parts[0].get(key), key), "dev": _text(parts[1].get(key), key)}
            for key, words, says in NUMBERS
        ],
        n=[f"{count(part['n'], 'pair')} of {count(part['prompts'], 'prompt')}" for part in parts],
        charts=[chart for chart in (reliability(found["test"]["bins"]), learning(found["curve"])) if chart],
        tables=[
            (title, _rows(found["test"][key]), max(0, len(found["test"][key]) - ROWS))
            for title, key in (("By batch", "by_batch"), ("By the two policies", "by_policies"))
        ],
        labelers=_labelers(found),
        cells=[_cell(one) for one in found.get("cells", ())],
        normalised=normalised,
        notes=found["notes"],
    )  # fmt: skip


def reliability(bins: Sequence[Mapping[str, float]]) -> Chart | None:
    """How often the model was right over how sure it was; the diagonal is a model that knows."""
    if not bins:
        return None
    points = [(one["sure"], one["right"]) for one in bins]
    low = min(0.4, *(y for _, y in points))
    return Chart(
        "reliability", "Calibration", "right, over how sure",
        "; ".join(f"sure {x:.0%}: right {y:.0%}" for x, y in points),
        _shares(0.5, 1.0), _shares(low, 1.0),
        [Mark("as sure as right", "soft", "line dashed", [(0.5, 0.5), (1.0, 1.0)]), Mark("", "c0", "line", points),
         Mark("the model", "c0", "dots", points)],
    )  # fmt: skip


def learning(curve: Sequence[Sequence[float]]) -> Chart | None:
    """Accuracy on the dev half over the judgements seen."""
    if len(curve) < 2:
        return None
    points = [(float(n), float(accuracy)) for n, accuracy in curve]
    ys = [y for _, y in points]
    return Chart(
        "learning", "Accuracy as it learned", "of dev pairs, over judgements seen",
        f"from {ys[0]:.0%} to {ys[-1]:.0%}", linear(0, points[-1][0]),
        _shares(min(0.4, *ys), max(0.8, *ys)), [Mark("dev", "c0", "line", points), Mark("", "c0", "dots", points)],
        level=(0.5, "guessing"),
    )  # fmt: skip


def _shares(low: float, high: float) -> Axis:
    return Axis(low, high, [(value, text) for value, text in TICKS if low - 1e-9 <= value <= high + 1e-9])


@cache
def _style() -> str:
    own = [(_HERE / name).read_text(encoding="utf-8") for name in ("chart.css", "report.css")]
    return "\n".join([static("report.css"), static("tables.css"), *own])


def _shown(value: Any) -> Any:
    return visible(value) if type(value) is str else value


def _tile(part: Mapping[str, Json], key: str, words: str, says: str) -> tuple[str, str, str]:
    value, interval = _text(part.get(key), key)
    return words, value, interval or says


def _text(one: Mapping[str, Json] | None, key: str) -> tuple[str, str]:
    """A number and its interval, as a person reads them."""
    if one is None:
        return "–", ""
    ends = () if one["low"] is None else (one["low"], one["high"])
    if key in (*_NATS, "ece"):
        return f"{one['value']:.3f}", " to ".join(f"{end:.3f}" for end in ends)
    sign = "+" if key == "over_length" else ""
    return f"{100 * one['value']:{sign}.1f}%", " to ".join(f"{100 * end:{sign}.1f}" for end in ends)


def _rows(table: Sequence[Mapping[str, Json]]) -> list[tuple[str, str, str, int]]:
    return [(one["name"], *_text(one, ""), one["n"]) for one in table[:ROWS]]


def _labelers(found: Mapping[str, Json]) -> list[tuple[str, int, str]]:
    """What was learned of each labeler, the most trusted first."""
    temperatures, accuracies = found["temperatures"], found["accuracies"]
    named = sorted(temperatures, key=temperatures.__getitem__) or sorted(accuracies, key=lambda one: -accuracies[one])
    return [
        (name, found["labelers"].get(name, 0),
         f"temperature {temperatures[name]:.2f}" if temperatures else f"right {accuracies[name]:.0%}")
        for name in named[:ROWS]
    ]  # fmt: skip


def _cell(one: Mapping[str, Json]) -> tuple[str, ...]:
    return (
        f"{one['learning_rate']:g}", str(one["seed"]), _text(one["dev_accuracy"], "")[0],
        _text(one["dev_nll"], "nll")[0], *_text(one["test_accuracy"], ""), "chosen" if one["chosen"] else "",
    )  # fmt: skip
