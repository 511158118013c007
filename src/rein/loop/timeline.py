"""The timeline of a loop: one page with all its rounds, and the same as a table for a terminal.

Flow     OUT/round-…/…/done.json and the numbers beside it → `read_rounds` → `as_text`; `render` → timeline.html

The page is one file that asks for nothing else and runs no script; what models and people wrote is escaped, and
controls in it are shown as signs. It is written anew after each stage, from the files alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup

from rein import __version__, evals
from rein.errors import UserError
from rein.evals.figures import Chart, Mark, colour_of
from rein.evals.reward_quality import perfect
from rein.loop import stages
from rein.report.charts import Axis, linear
from rein.report.figures import ticks
from rein.report.legible import count, cut, date, number, one_line, percent, table, visible
from rein.report.parts import policy, static, templates
from rein.run import write_atomically

Json = Any
PAGE = "timeline.html"
STAGES = ("draw", "collect", "judgements", "reward", "policy", "evaluate")
STAGE_WORDS = {
    "draw": "items drawn", "collect": "answers collected", "judgements": "judgements put together",
    "reward": "reward model trained", "policy": "policy trained", "evaluate": "policy evaluated",
}  # fmt: skip
FRAME = (420, 220, 48, 28)
SAMPLE_CHARS = 1_200
_HERE = Path(__file__).parent
_EVALS = Path(str(evals.__file__)).parent


@dataclass(frozen=True)
class RoundSeen:
    """A round as far as it is: which stages are done, and their numbers."""

    number: int
    done: Mapping[str, str]  # stage → when it ended, ISO 8601
    collect: Mapping[str, Json] = field(default_factory=dict)  # with "perfect", from the agreement
    reward: Mapping[str, Json] = field(default_factory=dict)
    policy: Mapping[str, Json] = field(default_factory=dict)
    evaluation: Mapping[str, Json] = field(default_factory=dict)

    def of(self, *path: str) -> Json:
        """A value below `collect`, `reward`, `policy` or `evaluation`; None where there is none."""
        found: Json = {"collect": self.collect, "reward": self.reward, "policy": self.policy,
                       "evaluation": self.evaluation}  # fmt: skip
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    @property
    def state(self) -> str:
        """What was done last."""
        left = [name for name in STAGES if name not in self.done]
        return "done" if not left else f"next: {STAGE_WORDS[left[0]]}"


def read_rounds(out: Path) -> list[RoundSeen]:
    """The rounds of a loop that were begun.

    Raises   UserError where a record is damaged.
    """
    found = []
    for folder in sorted(out.glob("round-*")):
        if not folder.name.removeprefix("round-").isdigit():
            continue
        done = {}
        for name in STAGES:
            if stages.read(folder / name) is not None:
                done[name] = str(_json(folder / name / stages.DONE).get("finished", ""))
        said = {
            key: _json(folder / stage / file) if stage in done else {}
            for key, stage, file in (
                ("collect", "collect", "summary.json"), ("reward", "reward", "summary.json"),
                ("policy", "policy", "summary.json"), ("evaluation", "evaluate", "evaluation.json"),
            )
        }  # fmt: skip
        said["collect"]["perfect"] = perfect(said["collect"].get("agreement"))
        found.append(RoundSeen(int(folder.name.removeprefix("round-")), done, **said))
    return found


def _json(path: Path) -> dict[str, Json]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{path} is damaged.", f"Remove {path.parent}: it is then made anew.") from None
    return found if isinstance(found, dict) else {}


# ------------------------------------------------------------------------------------------------------ in a terminal


def as_text(rounds: Sequence[RoundSeen]) -> list[str]:
    """A line for each round."""
    head = ("round", "answers", "agreement", "reward model", "length alone", "KL nats", "over initial", "equal length",
            "over ref", "gold gained", "state")  # fmt: skip
    rows = [head]
    for one in rounds:
        rows.append(
            (
                f"{one.number}", number(one.of("collect", "answers")), _share(one.of("collect", "agreement")),
                _share(one.of("reward", "accuracy")), _share(one.of("reward", "length_accuracy"), alone=True),
                _plain(one.of("evaluation", "kl_nats")), _share(one.of("evaluation", "over_initial", "raw")),
                _share(one.of("evaluation", "over_initial", "controlled"), alone=True),
                _share(one.of("evaluation", "over_references", "raw")),
                _plain(one.of("evaluation", "gold", "gained"), sign=True), one.state,
            )
        )  # fmt: skip
    kept = [place for place in range(len(head)) if place in (0, 10) or any(row[place] != "–" for row in rows[1:])]
    return table(
        [[row[place] for place in kept] for row in rows], "".join("<" if place == 10 else ">" for place in kept)
    )


def _share(value: Json, *, alone: bool = False) -> str:
    if not isinstance(value, Mapping) or value.get("value") is None:
        return "–"
    if alone or not _finite(value.get("low"), value.get("high")):
        return percent(value["value"])
    return f"{percent(value['value'])} ({percent(value['low'])} to {percent(value['high'])})"


def _plain(value: Json, *, sign: bool = False) -> str:
    if not isinstance(value, Mapping) or not _finite(value.get("value")):
        return "–"
    form = "+.2f" if sign else ".2f"
    if not _finite(value.get("low"), value.get("high")):
        return f"{value['value']:{form}}"
    return f"{value['value']:{form}} ({value['low']:{form}} to {value['high']:{form}})"


def _between(value: Json) -> str:
    """The interval of a number, behind which words follow."""
    known = isinstance(value, Mapping) and _finite(value.get("low"), value.get("high"))
    return f"{value['low']:.2f} to {value['high']:.2f}" if known else ""


def _finite(*values: Json) -> bool:
    return all(isinstance(one, int | float) and math.isfinite(one) for one in values)


# ------------------------------------------------------------------------------------------------------------ a page


def write_timeline(out: Path) -> Path:
    """Writes OUT/timeline.html, whole or not at all, and returns its path."""
    path = out / PAGE
    write_atomically(path, render(out))
    return path


def render(out: Path) -> str:
    """The page, as HTML. The same files give the same page, to the byte."""
    rounds, settings = read_rounds(out), _json(out / "config.json")
    style = _style()
    answers = sum(one.of("collect", "answers") or 0 for one in rounds)
    last = next((one for one in reversed(rounds) if one.evaluation), None)
    return (
        _templates()
        .get_template("timeline.html")
        .render(
            policy=policy(style),
            style=Markup(style),
            title=out.resolve().name,
            settings={key: one_line(str(value), 120) for key, value in settings.items() if value not in (None, "")},
            planned=settings.get("rounds"),
            rounds=[_row(one) for one in rounds],
            answers=f"{answers:,}",
            last=None if last is None else _tiles(last),
            finished=sum(one.state == "done" for one in rounds),
            charts=charts(rounds),
            samples=[_samples(one) for one in rounds if one.of("evaluation", "samples")],
            version=__version__,
        )
    )


def _row(one: RoundSeen) -> Json:
    groups = one.of("collect", "groups") or {}
    return {
        "number": one.number,
        "state": one.state,
        "done": _steps(one.done),
        "answers": number(one.of("collect", "answers")),
        "by_people": number(n) if (n := one.of("collect", "by_people")) else "",
        "labelers": number(one.of("collect", "labelers")),
        "groups": [f"{name} {n:,}" for name, n in groups.items()],
        "agreement": _share(one.of("collect", "agreement")),
        "perfect": _share(one.of("collect", "perfect")),
        "drift": _share(one.of("collect", "drift", "raw")),
        "accuracy": _share(one.of("reward", "accuracy")),
        "length": _share(one.of("reward", "length_accuracy")),
        "more": _share(one.of("reward", "at_equal_length")),
        "train": count(pairs, "pair") if isinstance(pairs := one.of("reward", "train", "pairs"), int) else "",
        "kl": _plain(one.of("evaluation", "kl_nats")),
        "stopped": one.of("policy", "stopped") or "",
        "over_initial": _share(one.of("evaluation", "over_initial", "raw")),
        "over_initial_equal": _share(one.of("evaluation", "over_initial", "controlled")),
        "over_references": _share(one.of("evaluation", "over_references", "raw")),
        "over_references_equal": _share(one.of("evaluation", "over_references", "controlled")),
        "gold": _plain(one.of("evaluation", "gold", "policy")),
        "gained": _plain(one.of("evaluation", "gold", "gained"), sign=True),
        "findings": one.of("evaluation", "findings") or [],
    }


def _steps(done: Mapping[str, str]) -> list[Json]:
    """The stages that are done, and when: the day is said where it is another than before."""
    found, day = [], ""
    for name, when in done.items():
        full = date(when) if when else ""
        before, _, time = full.rpartition(", ")
        found.append({"name": STAGE_WORDS[name], "when": time if before == day else full})
        day = before
    return found


def _tiles(one: RoundSeen) -> Json:
    gold, kl = one.of("evaluation", "gold", "gained"), one.of("evaluation", "kl_nats")
    return {
        "round": one.number,
        "over_initial": _share(one.of("evaluation", "over_initial", "raw"), alone=True),
        "over_initial_equal": _share(one.of("evaluation", "over_initial", "controlled"), alone=True),
        "accuracy": _share(one.of("reward", "accuracy"), alone=True),
        "agreement": _share(one.of("collect", "agreement"), alone=True),
        "perfect": _share(one.of("collect", "perfect"), alone=True),
        "gained": f"{gold['value']:+.2f}" if isinstance(gold, Mapping) and _finite(gold.get("value")) else "",
        "gained_between": _between(gold),
        "kl": f"{kl['value']:.2f}" if isinstance(kl, Mapping) and _finite(kl.get("value")) else "–",
        "kl_between": _between(kl),
    }


def _samples(one: RoundSeen) -> Json:
    texts = []
    for row in one.of("evaluation", "samples"):
        texts.append({name: cut(str(row.get(name) or "").strip(), SAMPLE_CHARS) for name in
                      ("prompt", "initial", "policy", "reference")})  # fmt: skip
    return {"number": one.number, "texts": texts}


# ------------------------------------------------------------------------------------------------------------ charts


def charts(rounds: Sequence[RoundSeen]) -> list[Chart]:
    """What moved over the rounds, each with 95% intervals; those of which nothing is known are left out."""
    shares = [
        ("judges", "Reward model and labelers", "share of pairs on which they are right, or agree", 0.5, (
            ("reward model, held-out pairs", ("reward", "accuracy")),
            ("length alone", ("reward", "length_accuracy")),
            ("labelers with each other", ("collect", "agreement")),
            ("a perfect model, if each labeler errs alone", ("collect", "perfect")),
        )),
        ("wins", "Policy against where it began, and against people", "share of held-out comparisons won", 0.5, (
            ("over the supervised model", ("evaluation", "over_initial", "raw")),
            ("the same at equal length", ("evaluation", "over_initial", "controlled")),
            ("over references", ("evaluation", "over_references", "raw")),
        )),
        ("drift", "Supervised model against references, asked in every round",
         "share won: what moves here is the labelers", 0.5, (("over references", ("collect", "drift", "raw")),)),
    ]  # fmt: skip
    values = [
        ("gold", "Gold score", "mean over held-out prompts", (
            ("policy", ("evaluation", "gold", "policy")),
            ("supervised model", ("evaluation", "gold", "initial")),
            ("references", ("evaluation", "gold", "references")),
        )),
        ("kl", "How far the policy went", "KL from the supervised model, nats a response",
         (("policy", ("evaluation", "kl_nats")),)),
    ]  # fmt: skip
    found = [_chart(rounds, name, title, unit, lines, level) for name, title, unit, level, lines in shares]
    found += [_chart(rounds, name, title, unit, lines, None) for name, title, unit, lines in values]
    return [one for one in found if one is not None]


def _chart(
    rounds: Sequence[RoundSeen], name: str, title: str, unit: str, lines: Sequence[tuple[str, tuple[str, ...]]],
    level: float | None,
) -> Chart | None:  # fmt: skip
    marks, ends, said = list[Mark](), list[float](), list[str]()
    for place, (label, path) in enumerate(lines):
        points, bars = list[tuple[float, float]](), list[tuple[float, float]]()
        aside = 0.06 * (place - (len(lines) - 1) / 2)  # or bars of one round would lie on each other
        for one in rounds:
            value = one.of(*path)
            if isinstance(value, Mapping) and _finite(value.get("value")):
                points.append((one.number + aside, float(value["value"])))
                if _finite(value.get("low"), value.get("high")):
                    bars += [(one.number + aside, float(value["low"])), (one.number + aside, float(value["high"]))]
        if not points:
            continue
        colour = colour_of(place)
        if len(points) > 1:
            marks.append(Mark("", colour, "line", points))
        marks += [Mark("", colour, "bars", bars), Mark(label, colour, "dots", points)]
        ends += [y for _, y in (*points, *bars)]
        said.append(f"{label}: " + ", ".join(f"{y:.3g} in round {round(x)}" for x, y in points))
    if not marks:
        return None
    most = max(one.number for one in rounds)
    x = Axis(0.5, most + 0.5, [(float(n), str(n)) for n in range(1, most + 1, max(1, most // 10))])
    return Chart(name, title, f"{unit}, by round", f"{title}. {'; '.join(said)}.", x, _axis(ends, level), marks,
                 None if level is None else (level, "chance"), (), FRAME)  # fmt: skip


def _axis(ends: Sequence[float], level: float | None) -> Axis:
    if level is not None:
        low, high = max(0.0, min(*ends, level) - 0.05), min(1.0, max(*ends, level) + 0.05)
        return Axis(low, high, [(value, f"{100 * value:g}%") for value in ticks(low, high, 5)])
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    room = (high - low) * 0.08 or 1.0
    return linear(low - room if low < 0 else 0.0, high + room, 5)


# ------------------------------------------------------------------------------------------------------------- parts


@cache
def _templates() -> Environment:
    environment = templates(_HERE, finalize=_shown, key=_key)
    assert environment.loader is not None, "templates have a loader"
    environment.loader = ChoiceLoader([environment.loader, FileSystemLoader(_EVALS)])
    return environment


def _shown(value: Any) -> Any:
    """Every text that the template writes, as it may stand on a page."""
    return visible(value) if type(value) is str else value


def _key(chart: Chart) -> list[Json]:
    marks = [{"label": mark.label, "look": f"{mark.colour} {mark.style}"} for mark in chart.marks if mark.label]
    return marks + ([{"label": chart.level[1], "look": "soft level"}] if chart.level else [])


@cache
def _style() -> str:
    own = [(_EVALS / "chart.css").read_text(encoding="utf-8"), (_HERE / "timeline.css").read_text(encoding="utf-8")]
    return "\n".join([static("report.css"), static("tables.css"), *own])
