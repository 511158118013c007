"""The report of evaluations: one self-contained page, the scores as CSV, every figure as an SVG file.

Flow     folders of `rein eval` → results.py → table, figures (figures.py), a sample of answers → report.html
         the same scores → scores.csv, figures/*.svg

The page asks for nothing else and runs no script: its style is inlined and named by hash in a content security
policy that forbids the rest. What a folder holds is not trusted, least of all what a model wrote: `visible` shows
control and direction characters of every text as signs, and jinja2 escapes the rest.

Source   Brown 2020 §3, Figures 3.x and 4.2, Appendix H.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from rein import __version__
from rein.config import setting
from rein.errors import UserError, writing
from rein.evals import published
from rein.evals.figures import PAPERS, Chart, clean_charts, colour_of, shots_charts, size_charts, strip
from rein.evals.results import Answered, Entry, Evaluation, Json, Overlap, Row, answers, load, overlaps
from rein.report.legible import count, date, number, percent, short, visible
from rein.report.parts import policy, static, templates
from rein.run import write_atomically

SAMPLED = 3  # answers of each task that are right, and that are wrong
LISTED = 20  # failures of each task
PROTOCOLS = {"gpt3": "GPT-3’s protocol, Brown 2020 §2.4", "gpt2": "GPT-2’s protocol, Radford 2019 §3"}

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class EvalReportConfig:
    """Settings of `rein eval report`."""

    folders: tuple[Path, ...] = setting(
        help="folders of `rein eval`; several are laid over each other", positional=True
    )
    out: Path | None = setting(None, "folder for report.html, scores.csv and figures; of one evaluation its own")


def report_command(config: EvalReportConfig) -> None:
    """Writes the report of evaluations anew: a page, the scores as CSV, every figure as an SVG file.

    Models are drawn over each other: scores by number of shots with one line a model, and by parameters with the
    paper's models behind. The page is one file that opens from disk and asks the network for nothing.

    Examples
      rein eval report evals/first-gpt3
      rein eval report evals/small-gpt3 evals/medium-gpt3 --out evals/sizes
    """
    if not config.folders:
        raise UserError("rein eval report needs a folder.", "Name one, like `rein eval report evals/first-gpt3`.")
    if config.out is None and len(config.folders) > 1:
        raise UserError(
            f"{len(config.folders)} evaluations are to be one report, but --out does not say where.",
            "Name a folder for it, like --out evals/compared.",
        )
    print(write_report(config.folders, config.out or config.folders[0]))


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Writes `out`/report.html, scores.csv and figures/*.svg, and returns the path of the page.

    Raises   UserError when one of `folders` is no evaluation, a file in it is damaged, or `out` cannot be written.
    """
    evaluations = load(folders)
    dirty = [overlap for evaluation in evaluations for overlap in overlaps(evaluation)]
    figures = {"shots": shots_charts(evaluations), "sizes": size_charts(evaluations), "clean": clean_charts(dirty)}
    page = render(evaluations, figures, dirty)
    with writing(out):
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for old in (out / "figures").glob("*.svg"):  # of tasks that are no longer there
            old.unlink()
    for chart in (chart for charts in figures.values() for chart in charts):
        write_atomically(out / "figures" / f"{chart.name}.svg", svg(chart))
    write_atomically(out / "scores.csv", scores_csv(evaluations))
    write_atomically(out / "report.html", page)
    return out / "report.html"


# -------------------------------------------------------------------------------------------------------- CSV


def scores_csv(evaluations: Sequence[Evaluation]) -> str:
    """Every score, one line for each model, task, metric and number of shots; numbers as in scores.json."""
    out = io.StringIO()
    lines = [_csv_line(one, entry, row, split) for one in evaluations for entry in one.entries
             for rows, split in ((entry.rows, entry.split), (entry.dev, "dev")) for row in rows]  # fmt: skip
    writer = csv.DictWriter(out, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


_CSV_COLUMNS = (
    "name", "model", "n_params", "protocol", "protocol_version", "task", "title", "metric", "unit", "better", "split",
    "setting", "k", "effective_k_mean", "effective_k_min", "n", "effective_n", "value", "low", "high", "draw_sd",
    "minimum_detectable", "chance", "against_chance", "published_paper", "published_size", "published_value",
    "verdict", "failed_count",
)  # fmt: skip


def _csv_line(evaluation: Evaluation, entry: Entry, row: Row, split: str) -> Json:
    paper = row.published
    values = {**vars(evaluation), **vars(entry), **vars(row), "split": split}
    if paper is not None:
        values |= {"published_paper": paper.paper, "published_size": paper.size, "published_value": paper.value}
    return {name: values.get(name) for name in _CSV_COLUMNS}


# ------------------------------------------------------------------------------------------------------- the page


def render(evaluations: Sequence[Evaluation], figures: dict[str, list[Chart]], dirty: Sequence[Overlap]) -> str:
    """The page, as HTML. The same files give the same page, to the byte."""
    style = _style()
    return _templates().get_template("report.html").render(
        policy=policy(style),
        style=Markup(style),
        title=" · ".join(one.name for one in evaluations),
        models=[_head(place, one) for place, one in enumerate(evaluations)],
        notes=_notes(evaluations),
        tasks=_table(evaluations),
        figures=figures,
        overlaps=list(map(_clean_line, dirty)),
        samples=_samples(evaluations),
        failures=list(_failures(evaluations)),
        version=__version__,
    )  # fmt: skip


@cache
def _templates() -> Environment:
    return templates(_HERE, finalize=_shown, key=_key)


def _shown(value: Any) -> Any:
    """Every text that a template writes, as it may stand on a page."""
    return visible(value) if type(value) is str else value


@cache
def _style() -> str:
    """The style of all our reports, of the charts and of this page."""
    own = [(_HERE / name).read_text(encoding="utf-8") for name in ("chart.css", "report.css")]
    return "\n".join([static("report.css"), static("tables.css"), *own])


@cache
def _drawn_style() -> str:
    """The style of an SVG file that stands alone: bright colours as such, for programs that know no variables."""
    palette = dict(re.findall(r"--([\w-]+): (#\w+)", static("report.css").partition("@media")[0]))
    classes = "".join(f".{name} {{ color: {palette[name]}; }}\n" for name in [f"c{n}" for n in range(6)] + ["soft"])
    style = classes + (_HERE / "chart.css").read_text(encoding="utf-8")
    return re.sub(r"var\(--([\w-]+)\)", lambda found: palette[found[1]], style)


def svg(chart: Chart) -> str:
    """A chart as a file of its own."""
    return _templates().get_template("chart.svg").render(chart=chart, style=Markup(_drawn_style()))


def _key(charts: Sequence[Chart]) -> list[Json]:
    """What the marks of several charts mean, each once."""
    marks = {(mark.label, mark.colour, mark.style): None for chart in charts for mark in chart.marks if mark.label}
    found = [{"label": label, "look": f"{colour} {style}"} for label, colour, style in marks]
    levels = dict.fromkeys(chart.level[1] for chart in charts if chart.level)
    return found + [{"label": label, "look": "soft level"} for label in levels]


# ------------------------------------------------------------------------------------------------ head and notes


def _head(place: int, evaluation: Evaluation) -> Json:
    """The key numbers of a model, and how it was evaluated."""
    deciding = evaluation.deciding.values()
    rows = [(entry, row) for entry in deciding for row in entry.rows]
    beside = [_judged(row.verdict, entry.better) for entry, row in rows if row.published is not None]
    chance = [row.against_chance for _, row in rows if row.against_chance]
    starts, settings = _json(evaluation.folder / "env.json"), _json(evaluation.folder / "config.json")
    start = starts[-1] if isinstance(starts, list) and starts and isinstance(starts[-1], dict) else {}
    command = start.pop("command", [])
    return {
        "name": evaluation.name,
        "colour": colour_of(place),
        "n_params": number(evaluation.n_params),
        "protocol": f"{PROTOCOLS.get(evaluation.protocol, evaluation.protocol)}, version {evaluation.protocol_version}",
        "fingerprint": evaluation.fingerprint,
        "started": date(start.pop("started")) if "started" in start else "",
        "command": short(" ".join(["rein", *map(str, command[1:])])) if isinstance(command, list) and command else "",
        "tasks": len(deciding),
        "answered": sum(entry.problems for entry in deciding),
        "failed": sum(entry.failed_count for entry in deciding),
        "beside": len(beside),
        **{word: beside.count(word) for word in ("inside", "better", "worse")},
        "guessable": len(chance),
        "above_chance": chance.count("above"),
        "settings": {k: short(v) for k, v in settings.items()} if isinstance(settings, dict) else {},
        "environment": {k: short(v) for k, v in start.items()},
    }


def _json(path: Path) -> Any:
    """A file that the page can do without."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _judged(verdict: str, better: str) -> str:
    """A verdict as better, worse, inside or "".

    Example  >>> _judged("below", "lower"), _judged("below", "higher"), _judged("inside", "higher")
             ('better', 'worse', 'inside')
    """
    if verdict in ("above", "below"):
        return "better" if (verdict == "above") == (better == "higher") else "worse"
    return "inside" if verdict == "inside" else ""


def _notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """What a person should hear before reading the scores, a sentence each."""
    notes = []
    for one in evaluations:
        who = f"{one.name}: " if len(evaluations) > 1 else ""
        sizes = {row.published.size for entry in one.entries for row in entry.rows if row.published}
        for size in sorted(sizes):
            theirs = published.SIZES.get(one.protocol, {}).get(size)
            if theirs and max(theirs, one.n_params) > published.NEAR * min(theirs, one.n_params):
                notes.append(
                    f"{who}The paper’s numbers are those of its {size} with {number(theirs)} parameters, but this "
                    f"model has {number(one.n_params)}: a verdict says little of how well either is made."
                )
        if not (one.folder / "answers.jsonl").exists():
            notes.append(f"{who}answers.jsonl is missing, so no answers are shown.")
        notes += [f"{who}{skipped['task']}: {skipped['reason']}" for skipped in one.skipped if not skipped["no_files"]]
        if absent := [skipped["task"] for skipped in one.skipped if skipped["no_files"]]:
            notes.append(f"{who}left out, without files: {', '.join(absent)}")
    return notes


def _failures(evaluations: Sequence[Evaluation]) -> Iterator[Json]:
    """Of each task the first problems that got no answer, with why."""
    for one in evaluations:
        for entry in one.deciding.values():
            if entry.failed_count:
                yield {
                    "model": one.name, "title": entry.title, "count": count(entry.failed_count, "problem"),
                    "first": entry.failed[:LISTED], "more": entry.failed_count - len(entry.failed[:LISTED]),
                }  # fmt: skip


# ----------------------------------------------------------------------------------------------------- the table


def _table(evaluations: Sequence[Evaluation]) -> list[Json]:
    """One group for each task and metric, with a line for each model and number of shots."""
    groups: dict[tuple[str, str, str], list[tuple[int, Entry]]] = {}
    for place, one in enumerate(evaluations):
        for entry in one.entries:
            groups.setdefault((one.protocol, entry.task, entry.metric), []).append((place, entry))
    protocols = len({one.protocol for one in evaluations}) > 1
    return [_group(evaluations, found, protocol if protocols else "") for (protocol, _, _), found in groups.items()]


def _group(evaluations: Sequence[Evaluation], found: list[tuple[int, Entry]], protocol: str) -> Json:
    first = found[0][1]
    every = [row for _, entry in found for row in entry.rows]
    noted: dict[str, list[str]] = {}
    for row in every:
        if row.published and row.published.note:
            noted.setdefault(row.published.note, []).append(_setting(row))
    return {
        "title": first.title,
        "task": first.task,
        "protocol": PROTOCOLS.get(protocol, protocol),
        "metric": first.metric,
        "unit": "" if first.unit == "1" else first.unit,
        "better": first.better,
        "split": first.split,
        "problems": count(max(entry.problems for _, entry in found), "problem"),
        "chance": "" if first.chance is None else _value(first.chance, first),
        "papers": [f"{', '.join(dict.fromkeys(settings))}: {note}" for note, settings in noted.items()],
        "rows": [
            {"model": evaluations[place].name, "colour": colour_of(place), "first": at == 0, "of": len(entry.rows)}
            | _line(row, entry, every)
            for place, entry in found
            for at, row in enumerate(entry.rows)
        ],
    }


def _line(row: Row, entry: Entry, every: Iterable[Row]) -> Json:
    paper, judged = row.published, _judged(row.verdict, entry.better)
    fitted = ""
    if row.effective_k_mean < row.k:
        fitted = f"{row.effective_k_mean:.1f} fit, at least {row.effective_k_min}"
    return {
        "setting": _setting(row),
        "k": row.k,
        "fitted": fitted,
        "n": f"{row.n:,}",
        "effective_n": "" if row.effective_n > 0.995 * row.n else f"worth {row.effective_n:,.0f}",
        "value": _value(row.value, entry),
        "interval": f"{_value(row.low, entry)} – {_value(row.high, entry)}",
        "draw_sd": "" if row.draw_sd is None else f"draws ±{_value(row.draw_sd, entry)}",
        "strip": strip(row, entry, every),
        "paper": "–" if paper is None else f"{paper.value:g}",
        "size": "" if paper is None else f"{PAPERS.get(paper.paper, paper.paper)}, {paper.size}",
        "verdict": "" if not judged else row.verdict,
        "judged": judged,
        "chance": {"near": "near chance", "below": "below chance"}.get(row.against_chance, ""),
        "detectable": _value(row.minimum_detectable, entry),
    }


def _setting(row: Row) -> str:
    """The paper's name for it; nothing for a K in between."""
    return {"curve": "", "chosen": "chosen K"}.get(row.setting, f"{row.setting}-shot")


def _value(value: float, entry: Entry) -> str:
    """A score as people read it: percentages with one decimal and no sign, as the papers print them."""
    if entry.unit == "%":
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if entry.unit.startswith("bits") else f"{value:.4g}"


# ----------------------------------------------------------------------------------------------- clean against all


def _clean_line(one: Overlap) -> Json:
    """A line of the table of overlaps."""
    change = [] if one.change is None else [_signed(100 * value) for value in one.change if math.isfinite(value)]
    return {
        "title": one.entry.title, "model": one.model, "n": one.n, "examples": f"{one.examples:,}",
        "clean_frac": percent(one.clean_frac), "passage_only": f"{one.passage_only:,}",
        "question_or_answer": f"{one.question_or_answer:,}",
        "all": "–" if one.all is None else _value(one.all, one.entry),
        "clean": "–" if one.clean is None else _value(one.clean, one.entry),
        "change": f"{change[0]}%" if change else "–", "interval": " to ".join(change[1:]) if len(change) == 3 else "",
        "verdict": one.verdict,
        "paper": "" if one.paper is None
        else f"{100 * one.paper[0]:.0f}% clean, {_signed(100 * one.paper[1], 0)}%",
    }  # fmt: skip


def _signed(value: float, digits: int = 1) -> str:
    """A difference.

    Example  >>> _signed(-3.14), _signed(2.0), _signed(-0.001)
             ('−3.1', '+2.0', '±0.0')
    """
    text = f"{abs(value):.{digits}f}"
    return ("±" if not float(text) else "+" if value > 0 else "−") + text


# ------------------------------------------------------------------------------------------------ a sample of answers


def _samples(evaluations: Sequence[Evaluation]) -> list[Json]:
    """Of each task some problems that the first model with it answered rightly and wrongly, and what others answered.

    They are the first of the file, behind the most shots.
    """
    tasks: dict[tuple[str, str], dict[str, Json]] = {}
    titles: dict[tuple[str, str], str] = {}
    for one in evaluations:
        deciding = one.deciding
        chooses = {task for task in deciding if (one.protocol, task) not in tasks}
        for said in answers(one.folder):
            entry = deciding.get(said.task)
            if entry is None or not entry.rows or said.split != entry.split or said.k != entry.rows[-1].k:
                continue
            problems = tasks.setdefault((one.protocol, said.task), {})
            titles[one.protocol, said.task] = entry.title
            mark = _mark(said.value.get(entry.metric))
            chosen = [problem["said"][0]["mark"] for problem in problems.values()]
            if said.task in chooses and said.id not in problems and _readable(said) and chosen.count(mark) < SAMPLED:
                problems[said.id] = _problem(said)
            if said.id in problems:
                problems[said.id]["said"].append(_said(one.name, said, entry, mark))
    return [{"title": titles[key], "problems": sorted(problems.values(), key=_by_mark)}
            for key, problems in tasks.items() if problems]  # fmt: skip


def _by_mark(problem: Json) -> int:
    return ("right", "partly", "wrong", "").index(problem["said"][0]["mark"])


def _readable(said: Answered) -> bool:
    """Whether there is something to show: texts that are only scored have no answers."""
    return bool(said.options or said.text is not None)


def _mark(value: float | None) -> str:
    return "" if value is None else "right" if value == 1 else "wrong" if value == 0 else "partly"


def _problem(said: Answered) -> Json:
    return {
        "id": said.id,
        "prompt": said.prompt,
        "options": [{"text": text.strip(), "gold": at == said.gold} for at, text in enumerate(said.options)],
        "answers": [] if said.options else said.answers,
        "said": [],
    }


def _said(name: str, said: Answered, entry: Entry, mark: str) -> Json:
    """What one model answered."""
    value = said.value.get(entry.metric)
    text = said.text
    if text is None and said.choice is not None:
        text = said.options[said.choice].strip()
    return {
        "model": name, "mark": mark,
        "value": f"{100 * value:.0f}%" if mark == "partly" and value is not None else "",
        "text": text or "",
        "logprobs": [(f"{each:.2f}".replace("-", "−"), at == said.choice) for at, each in enumerate(said.logprobs)]
        if said.options else [],
    }  # fmt: skip
