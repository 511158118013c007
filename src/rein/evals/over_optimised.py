"""What `rein over-optimise` came to: proxy and truth over √KL, with a guard and without, from the files of its stages.

Flow     unguarded/, stop/, raise-kl/ (metrics.jsonl), best-of-n/, measured/ → `read_result` → `as_text`, `write_page`

Two measurements stand beside each other. The curves are of the held-out docstrings that each run watched. The table is
of others, which no evaluation has seen: the best of many noisy evaluations looks better than it is on its own prompts.
Gains are paired: all answered the same docstrings, and a docstring with its answers is one cluster of the interval.
Source   Gao 2022, figures 1 and 2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from rein import __version__
from rein.evals.figures import Chart, Mark
from rein.evals.results import finite
from rein.evals.statistics import paired
from rein.over_optimisation import Fit, Law, OverOptimisation, Peak, fit
from rein.report.charts import linear
from rein.report.legible import number, percent, table, visible
from rein.report.over_optimisation import section
from rein.report.parts import policy, static, templates
from rein.run import read_rows, write_atomically

Json = Any
Told = Mapping[str, Json]  # {"value", "low", "high"}
GOLD = "rein.text.gold:gold"
START, KEPT = "start", "kept"  # of the table: the supervised model; what the guard that stops has kept
UNGUARDED, STOPPED, RAISED = "unguarded", "stopped", "raised"
Guard = Literal["off", "stop", "raise-kl"]
RUNS: dict[Guard, str] = {"off": UNGUARDED, "stop": STOPPED, "raise-kl": RAISED}  # --guard → folder
BEST_OF_N, MEASURED = "best-of-n", "measured"
PAGE = "over-optimisation.html"
TRUTHS = {"gold": "the gold score", "second": "the second reward model"}


@dataclass(frozen=True)
class Point:
    """An evaluation of a run, on the held-out docstrings that it watches."""

    episodes: int
    kl_nats: float
    proxy: float
    gold: float
    gold_stderr: float
    second: float
    second_stderr: float


@dataclass(frozen=True)
class Caught:
    """What a guard that watches this truth says of the unguarded run, evaluation by evaluation."""

    truth: str
    near_episodes: int | None  # when it first said "near"; None: never
    past_episodes: int | None  # when it first said "past", and would have stopped
    kept_episodes: int  # the best evaluation by then, or by the end: its mean with its neighbours is the highest
    kept_gold: float  # there
    peak: Peak | None  # as it was predicted then


@dataclass(frozen=True)
class Result:
    """All that the page tells."""

    runs: Mapping[str, Sequence[Point]]
    kl_coefs: Mapping[str, float]  # at the end of each
    caught: Sequence[Caught]
    best_of_n: Sequence[Json]  # points of curve.json
    measured: Mapping[str, Json]  # policies.json, by name
    gains: Mapping[str, Told]  # gold over the unguarded run's end
    accuracies: Mapping[str, tuple[float, float]]  # reward model → right on held-out comparisons, and length alone
    reward: str  # how the proxy is called in `measured`
    prompts: int
    rows: Sequence[Mapping[str, Json]]  # metrics of the unguarded run


# ---------------------------------------------------------------------------------------------------------- reading


def read_result(out: Path) -> Result:
    """The numbers of a run that is done, from its files alone."""
    rows = {name: list(read_rows(out / name / "run" / "metrics.jsonl")) for name in RUNS.values()}
    runs = {name: points(some) for name, some in rows.items()}
    found = json.loads((out / MEASURED / "run" / "policies.json").read_text(encoding="utf-8"))
    measured = {one["name"]: one for one in found["policies"]}
    answers = {name: list(read_rows(out / MEASURED / "run" / "answers" / f"{name}.jsonl")) for name in measured}
    curve = json.loads((out / BEST_OF_N / "run" / "curve.json").read_text(encoding="utf-8"))
    quality = {
        name: json.loads((out / name / "run" / "quality.json").read_text(encoding="utf-8"))["test"]
        for name in ("reward", "second")
    }
    return Result(
        runs=runs,
        kl_coefs={name: [row["kl_coef"] for row in some if "kl_coef" in row][-1] for name, some in rows.items()},
        caught=[watch(runs[UNGUARDED], truth) for truth in TRUTHS],
        best_of_n=curve["points"],
        measured=measured,
        gains={
            name: _gained(answers[name], answers[UNGUARDED]) for name in measured if name in NAMES and name != UNGUARDED
        },
        accuracies={name: (one["accuracy"]["value"], one["length_accuracy"]["value"]) for name, one in quality.items()},
        reward=next(judge for judge in found["judges"] if judge != GOLD),
        prompts=sum(bool(row.get("scores")) for row in answers[START]),
        rows=rows[UNGUARDED],
    )


def points(rows: Sequence[Mapping[str, Json]]) -> list[Point]:
    """The evaluations among the rows of a run's metrics."""
    names = ("heldout_kl_nats", "heldout_proxy", "heldout_gold", "heldout_gold_stderr", "heldout_second",
             "heldout_second_stderr")  # fmt: skip
    return [Point(row["episodes"], *(float(row[name]) for name in names)) for row in rows if "heldout_gold" in row]


def watch(points: Sequence[Point], truth: str) -> Caught:
    """The guard over evaluations that were made without it: a guard that only looks changes nothing of a run.

    Example  >>> rise = [(n, d, d * (1 - 0.7 * math.log(d)) if d else 0.0) for n in range(12) for d in [n / 2]]
             >>> run = [Point(512 * n, d * d, d, gold, 0.01, d, 0.01) for n, d, gold in rise]
             >>> caught = watch(run, "gold")
             >>> caught.past_episodes, caught.kept_episodes
             (4608, 1536)
    """
    guard, near, past = OverOptimisation(), None, None
    for point in points:
        value, stderr = {"gold": (point.gold, point.gold_stderr), "second": (point.second, point.second_stderr)}[truth]
        guard.add(point.episodes, point.kl_nats, point.proxy, value, stderr)
        said = guard.verdict()
        if near is None and said.say != "go":
            near = point.episodes
        if said.say == "past":
            past = point.episodes
            break
    verdict = guard.verdict()
    assert verdict.best_episodes is not None, "a run has evaluations"
    kept = next(point for point in points if point.episodes == verdict.best_episodes)
    return Caught(truth, near, past, kept.episodes, kept.gold, verdict.peak)


def _gained(ours: Sequence[Json], theirs: Sequence[Json]) -> Told:
    a, b, clusters = list[float](), list[float](), list[str]()
    for one, other in zip(ours, theirs, strict=True):
        if one.get("scores") and other.get("scores"):  # a query that does not fit has none
            a += one["scores"][GOLD]
            b += other["scores"][GOLD]
            clusters += [one["id"]] * len(one["scores"][GOLD])
    found = paired(a, b, clusters, bounded=False)
    return {"value": found.value, "low": finite(found.low), "high": finite(found.high)}


def best(points: Sequence[Point]) -> Point:
    """The evaluation with the highest gold score."""
    return max(points, key=lambda point: point.gold)


def laws(result: Result) -> list[tuple[str, Law, Fit]]:
    """Gao's laws through the unguarded run's scores, and through those of the best of n."""
    run = result.runs[UNGUARDED]
    kl_N = [point.kl_nats for point in run]
    fits: list[tuple[str, Law, Fit | None]] = [
        ("PPO, reward", "rl", fit(kl_N, [point.proxy for point in run])),
        ("PPO, gold", "rl", fit(kl_N, [p.gold for p in run], [p.gold_stderr for p in run])),
    ]
    kl_n = [one["kl_nats"] for one in result.best_of_n]
    for name, words in (("proxy", "best of n, reward"), ("gold", "best of n, gold")):
        fits.append((words, "bon", fit(kl_n, [one[name]["value"] for one in result.best_of_n], law="bon")))
    return [(words, law, found) for words, law, found in fits if found is not None]


# ------------------------------------------------------------------------------------------------------ in a terminal

HEADS = ("", "episodes", "KL, nats", "reward", "gold", "gold, over unguarded")
NAMES = {
    START: "supervised start", UNGUARDED: "unguarded, at the end", STOPPED: "--guard stop, where it stopped",
    KEPT: "--guard stop, what it kept", RAISED: "--guard raise-kl, at the end",
}  # fmt: skip


def cells(result: Result) -> list[tuple[str, ...]]:
    """The table: the supervised start, the best of n, and where each policy ended, on docstrings not seen before."""
    episodes = {name: result.runs[name][-1].episodes for name in RUNS.values()}
    episodes |= {START: 0, KEPT: best(result.runs[STOPPED]).episodes}
    rows = list[tuple[str, ...]]()
    for name, words in NAMES.items():
        if name not in result.measured:
            continue
        one = result.measured[name]
        kl, gains = one["kl_nats"], result.gains.get(name)
        rows.append((
            words, f"{episodes[name]:,}", f"{kl['value']:.1f}" if name != START else "0",
            f"{one['scores'][result.reward]['value']:.2f}", _between(one["scores"][GOLD], ".3f"),
            "" if gains is None else _between(gains, "+.3f"),
        ))  # fmt: skip
    last = result.best_of_n[-1]
    rows.insert(1, (f"best of {last['n']}", "", f"{last['kl_nats']:.1f}", f"{last['proxy']['value']:.2f}",
                    _between(last["gold"], ".3f"), ""))  # fmt: skip
    return rows


def sentences(result: Result) -> list[str]:
    """What happened, in words."""
    run = result.runs[UNGUARDED]
    first, top, last = run[0], best(run), run[-1]
    said = [
        f"Unguarded, the reward went from {first.proxy:.2f} to {last.proxy:.2f}. The gold score went from "
        f"{first.gold:.3f} to {top.gold:.3f} ± {top.gold_stderr:.3f} after {top.episodes:,} episodes, at a KL of "
        f"{top.kl_nats:.1f} nats, and was {last.gold:.3f} ± {last.gold_stderr:.3f} at the end, at {last.kl_nats:.1f}."
    ]
    for one in result.caught:
        near = "" if one.near_episodes is None else f" near the peak after {one.near_episodes:,} episodes,"
        past = "never past it" if one.past_episodes is None else f"past it after {one.past_episodes:,}"
        said.append(
            f"A guard that watches {TRUTHS[one.truth]} says{near} {past}; its best evaluation by then, with its "
            f"neighbours, is that after {one.kept_episodes:,}, with a gold score of {one.kept_gold:.3f}."
            f"{_predicted(one.peak)}"
        )
    coef, raised = result.kl_coefs[RAISED], result.runs[RAISED][-1]
    said.append(
        f"With --guard raise-kl the KL coefficient went from {result.kl_coefs[UNGUARDED]:.3g} to {coef:.3g}; the gold "
        f"score ended at {raised.gold:.3f} ± {raised.gold_stderr:.3f}, at a KL of {raised.kl_nats:.1f} nats."
    )
    for name, (accuracy, length) in result.accuracies.items():
        what = "The reward model that is climbed" if name == "reward" else "The second one"
        said.append(
            f"{what} is right on {percent(accuracy)} of held-out comparisons; length alone on {percent(length)}."
        )
    return said


def _predicted(peak: Peak | None) -> str:
    if peak is None or not math.isfinite(peak.kl_nats):
        return " It foresaw no peak then."
    to = f"to {number(peak.high_kl_nats)}" if math.isfinite(peak.high_kl_nats) else "without an upper end"
    return f" It predicted the peak at {number(peak.kl_nats)} nats then (95% interval {number(peak.low_kl_nats)} {to})."


def fitted(result: Result) -> list[tuple[str, ...]]:
    """A line for each law: its numbers and its peak."""
    rows = list[tuple[str, ...]]()
    for words, law, found in laws(result):
        peak = found.peak().kl_nats
        form = "d (a − b log d)" if law == "rl" else "d (a − b d)"
        rows.append((words, form, f"{found.a:.3f}", f"{found.b:.3f}", number(peak) if math.isfinite(peak) else "none"))
    return rows


FIT_HEADS = ("law", "R(d), d = √KL", "a", "b", "peak, nats")


def as_text(result: Result) -> list[str]:
    """What happened, the table, and the laws."""
    return [
        *sentences(result), "",
        f"on {result.prompts} other held-out docstrings (95% intervals over docstrings)",
        *table([HEADS, *cells(result)], "<>>>>>"), "", *table([FIT_HEADS, *fitted(result)], "<<>>>"),
    ]  # fmt: skip


def _between(one: Told, form: str) -> str:
    if one["low"] is None or one["high"] is None:
        return f"{one['value']:{form}}"
    return f"{one['value']:{form}} ({one['low']:{form}} to {one['high']:{form}})"


# ------------------------------------------------------------------------------------------------------------ a page

_HERE = Path(__file__).parent
_RUN_MARKS = ((UNGUARDED, "unguarded", "c1"), (STOPPED, "--guard stop", "c0"), (RAISED, "--guard raise-kl", "c2"))


def write_page(out: Path, result: Result) -> Path:
    """Writes OUT/over-optimisation.html, one file without a script; returns its path."""
    own = [(_HERE / name).read_text(encoding="utf-8") for name in ("chart.css", "report.css", "over_optimised.css")]
    style = "\n".join([static("report.css"), static("tables.css"), *own])
    run = result.runs[UNGUARDED]
    top, last = best(run), run[-1]
    caught = next(one for one in result.caught if one.truth == "gold")
    gains = result.gains.get(KEPT, result.gains[STOPPED])
    page = _templates().get_template("over_optimised.html").render(
        policy=policy(style), style=Markup(style), version=__version__, title=out.resolve().name, result=result,
        top=top, last=last, first=run[0], caught=caught, gains=f"{gains['value']:+.3f}",
        gains_between=_between(gains, "+.3f").partition(" ")[2].strip("()"), sentences=sentences(result),
        charts=[chart(result, "gold"), chart(result, "proxy")], marks=_RUN_MARKS, heads=HEADS, rows=cells(result),
        fit_heads=FIT_HEADS, fits=fitted(result), section=section(result.rows), prompts=result.prompts,
        links={words: path for words, path in _links().items() if (out / path).is_file()},
    )  # fmt: skip
    write_atomically(out / PAGE, page)
    return out / PAGE


def _links() -> dict[str, str]:
    runs = {f"the {words} run": f"{name}/run/report.html" for name, words, _ in _RUN_MARKS}
    return {
        **runs, "best of n": f"{BEST_OF_N}/run/curve.html", "measured": f"{MEASURED}/run/policies.html",
        "supervised start": "sft/run/report.html", "reward model": "reward/run/quality.html",
    }  # fmt: skip


def chart(result: Result, what: str) -> Chart:
    """A score over √KL: of the three runs, and of the best of n by the same reward model."""
    marks, ends = list[Mark](), list[tuple[float, float]]()
    for name, words, colour in _RUN_MARKS:
        line = [(math.sqrt(max(point.kl_nats, 0.0)), getattr(point, what)) for point in result.runs[name]]
        marks.append(Mark(words, colour, "line dashed" if name == RAISED else "line", line))
        ends += line
        if name == UNGUARDED and what == "gold":
            marks.append(Mark("", colour, "dots faint", line))
    best = [(math.sqrt(one["kl_nats"]), one[what]["value"]) for one in result.best_of_n]
    marks.append(Mark("best of n", "c3", "line", best))
    ends += best
    low, high = (edge(y for _, y in ends) for edge in (min, max))
    room = 0.06 * (high - low) or 1.0
    words = "Gold score" if what == "gold" else "Reward"
    first_last = {word: (result.runs[name][0], result.runs[name][-1]) for name, word, _ in _RUN_MARKS}
    run_ends = [
        f"{word} from {number(getattr(a, what))} to {number(getattr(b, what))}" for word, (a, b) in first_last.items()
    ]
    return Chart(
        what, words, "over √KL, √nats", f"{words} over √KL: {'; '.join(run_ends)}.",
        linear(0.0, max(x for x, _ in ends) * 1.04, 6), linear(low - room, high + room, 5), marks,
        frame=(480, 280, 48, 28),
    )  # fmt: skip


@cache
def _templates() -> Any:
    return templates(_HERE, finalize=lambda value: visible(value) if type(value) is str else value)
