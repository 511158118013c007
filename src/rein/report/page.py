"""The report: one HTML file per run, drawn from its folder; several runs laid over each other on one page.

Flow     config.json env.json metrics.jsonl samples.jsonl → `Run` → figures, key numbers, samples → report.html

The page is one file that asks for nothing else: its script and style are inlined and named by hash in a
content security policy that forbids the rest. Everything readable is in the HTML itself; the script only
draws the curves anew so that they can be hovered and zoomed (without it, and in print, each is an SVG), and
steps through the samples. What a run holds is not trusted, least of all what a model wrote: jinja2 escapes
it, `visible` shows control and direction characters as signs, and the script never makes HTML of it.

The training loop calls `write_report` after each evaluation, so the work stays small: figures keep the lowest
and highest of each stretch of rows (`thin`), never all of them.

uPlot draws the curves: npm package `uplot`, version 1.6.32, MIT, by Leon Sorokin; unchanged copies of its
dist/uPlot.iife.min.js and dist/uPlot.min.css, with licence and checksums, are in static/vendor/uplot/.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from rein import __version__
from rein.config import setting
from rein.errors import UserError
from rein.progress import duration
from rein.report.figures import STRETCHES, UNITS, Curve, above, figures, said, still
from rein.report.legible import VALUE_CHARS, count, date, evenly, fixed, number, short, size, visible
from rein.report.over_optimisation import section
from rein.report.parts import policy, static, templates
from rein.run import METRICS, read_rows, write_atomically

SAMPLE_CHARS = 4_000  # of a prompt or a text; the rest stays in samples.jsonl
SAMPLE_EVALUATIONS = 200  # shown, evenly spread over the run
SAMPLES_PER_EVALUATION = 20
TABLE_ROWS = 200  # of the table of evaluations, evenly spread
# What stands beside a sample, and what it was worth (train/policy_heldout.py).
BESIDE = (("start", "At the start"), ("reference", "Reference"))
SCORED = {"proxy": "score", "gold": "gold", "second": "other reward"}

CORPUS_KEYS = ("data", "corpus")  # where a run's settings name its corpus
# The model in words; the sizes come from `model_of`.
SHAPE = (
    ("n_layer", "{:,} layers"),
    ("n_embd", "{:,} wide"),
    ("n_head", "{:,} heads"),
    ("n_ctx", "context {:,}"),
    ("n_vocab", "vocabulary {:,}"),
)
HELDOUT = frozenset(name for name in UNITS if name.startswith("heldout_"))

_HERE = Path(__file__).parent
_UPLOT = "vendor/uplot/"


@dataclass(frozen=True)
class ReportConfig:
    """Settings of `rein report`."""

    runs: tuple[Path, ...] = setting(
        help="folders of runs or corpora; several runs with --out are compared", positional=True
    )
    out: Path | None = setting(None, help="HTML file to write (without it: report.html in each run folder)")


def report(config: ReportConfig) -> None:
    """Writes report.html of each run anew, or one page that compares several.

    The page is one file: it opens from disk, asks the network for nothing, and can be sent to anyone.

    Examples
      rein report runs/first
      rein report runs/first runs/gpt2 --out compare.html
    """
    if not config.runs:
        raise UserError("rein report needs a run folder.", "Name one, like `rein report runs/demo`.")
    if config.out is None:
        for run in config.runs:
            print(write_report(run))
        return
    if config.out.is_dir():
        raise UserError(f"--out {config.out} is a folder.", f"Name a file, like {config.out / 'compare.html'}.")
    page = render(config.runs[0]) if len(config.runs) == 1 else compare(config.runs)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out, page)
    print(config.out)


def write_report(run: Path) -> Path:
    """Writes `run`/report.html, whole or not at all, and returns its path.

    Raises   UserError when `run` is no run folder, a file in it cannot be read, or the page cannot be written.
    """
    path = run / "report.html"
    write_atomically(path, render(run))
    return path


def render(run: Path) -> str:
    """The page of one run, as HTML. The same files give the same page, to the byte.

    Raises   UserError when `run` is no run folder or a file in it cannot be read.
    """
    return _page([load_run(run)])


def compare(runs: Sequence[Path]) -> str:
    """One page with the curves of several runs over each other, their key numbers, and where their settings differ.

    Raises   UserError when one of `runs` is no run folder or a file in it cannot be read.
    """
    return _page([load_run(run) for run in runs])


# --------------------------------------------------------------------------------------- what a run holds


@dataclass(frozen=True)
class Run:
    """A run folder, read and cleaned: every number in `rows` is finite or None."""

    path: Path
    settings: dict[str, Any]
    starts: list[dict[str, Any]]
    rows: list[dict[str, float | None]]
    samples: list[dict[str, Any]]
    notes: list[str]
    model: dict[str, float]  # n_layer …, n_params; what is known of them

    def last(self, metric: str) -> float | None:
        """The last value of a metric, or None where it has none."""
        return next((value for row in reversed(self.rows) if (value := row.get(metric)) is not None), None)

    def values(self, metric: str) -> list[float]:
        """All values of a metric, in the order of the file."""
        return [value for row in self.rows if (value := row.get(metric)) is not None]

    def curve(self, metric: str) -> Curve:
        """Tokens seen, rising, and the metric there; None where it was not a number."""
        points = {tokens: row[metric] for row in self.rows if metric in row and (tokens := row["tokens"]) is not None}
        xs = sorted(points)
        return xs, [points[x] for x in xs]


def load_run(path: Path) -> Run:
    """What a run folder holds.

    Raises   UserError when it is none, or one of its files is damaged.
    """
    if not (path / "config.json").is_file():
        what = "does not exist" if not path.exists() else "has no config.json, so it is no run folder"
        raise UserError(f"{path} {what}.", "Name the --out folder of a run, like runs/demo.")
    settings = _json(path / "config.json")
    if not isinstance(settings, dict):
        raise UserError(
            f"{path / 'config.json'} holds no JSON object of settings.", "Restore it; the curves need nothing else."
        )
    rows, notes = _clean(read_rows(path / "metrics.jsonl"))
    try:
        starts = _json(path / "env.json") if (path / "env.json").is_file() else []
    except UserError:
        starts = []
        notes.append("env.json is not valid JSON, so what this run ran on is not shown.")
    samples = [
        row
        for row in read_rows(path / "samples.jsonl")
        if isinstance(row, dict) and _finite(row.get("opt_step")) is not None
    ]
    return Run(
        path=path,
        settings=settings,
        starts=[start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else [],
        rows=rows,
        samples=samples,
        notes=notes,
        model=model_of(path, settings),
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.", "Restore the file, or remove the run.") from None


def model_of(path: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """The model's sizes: from its newest checkpoint, if there is one, else those that the settings give."""
    sizes = {name: settings.get(name) for name in ("n_params", *(name for name, _ in SHAPE))}
    for folder in sorted((path / "checkpoints").glob("step-" + "[0-9]" * 8))[-1:]:
        try:
            theirs = json.loads((folder / "config.json").read_bytes())
            theirs = {"n_ctx": theirs.get("n_positions"), "n_vocab": theirs.get("vocab_size"), **theirs}
            theirs |= theirs.get("rein", {})
            sizes |= {name: theirs[name] for name in sizes if name in theirs}
            with (folder / "model.safetensors").open("rb") as file:
                tensors = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            sizes["n_params"] = sum(math.prod(t["shape"]) for name, t in tensors.items() if name != "__metadata__")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError):
            pass  # being pruned, or not as we write it: the page does without
    return {name: value for name, size in sizes.items() if (value := _finite(size))}


def _finite(value: Any) -> float | None:
    """`value` if it is a finite number (true is none), else None."""
    if type(value) is not float and type(value) is not int:
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an int beyond every float
        return None


def _all_finite(values: Iterable[Any]) -> bool:
    """Whether all are finite numbers; a quick no is allowed, for all but every row of a run passes."""
    try:
        return math.isfinite(sum(values)) and bool not in map(type, values)
    except (TypeError, OverflowError):
        return False


def _clean(rows: Iterable[Any]) -> tuple[list[dict[str, float | None]], list[str]]:
    """The rows with every value a finite number or None, and notes about what was not."""
    clean: list[dict[str, float | None]] = []
    bad: dict[str, tuple[int, Any, Any]] = {}
    lost = 0
    for row in rows:
        if not isinstance(row, dict) or (tokens := _finite(row.get("tokens"))) is None or not 0 <= tokens < 1e30:
            lost += 1
            continue
        if _all_finite(row.values()):
            clean.append(row)
            continue
        new = {name: _finite(value) for name, value in row.items() if name in UNITS}
        for name, value in new.items():
            if value is None:
                times, step, what = bad.get(name, (0, row.get("opt_step"), row[name]))
                bad[name] = (times + 1, step, what)
        clean.append(new)
    notes = [
        f"{name} was not a number ({short(what)}) in {count(times, 'row')}, first at update {short(step)}; "
        "the curve has a gap there."
        for name, (times, step, what) in sorted(bad.items())
    ]
    if lost:
        notes.append(f"{count(lost, 'row')} of metrics.jsonl named no tokens and could not be placed on the curves.")
    return clean, notes


# ------------------------------------------------------------------------------------- parts of the page


def _head(run: Run, name: str) -> dict[str, Any]:
    """The key numbers of a run."""
    settings = run.settings
    bits, perplexity = run.values("heldout_bits_per_byte"), run.values("heldout_perplexity")
    planned, seen = _finite(settings.get("train_tokens")), run.last("tokens")
    fraction = min(max(seen / planned, 0.0), 1.0) if seen is not None and planned else None
    if seen is None:
        status = "nothing recorded yet"
    elif fraction is None:
        status = f"{number(seen)} tokens seen"
    elif fraction == 1.0:
        status = f"complete: {number(seen)} tokens seen"
    else:
        status = f"{number(seen)} of {number(planned)} tokens seen"
    model = [short(settings["preset"])] if settings.get("preset") else []
    if run.model.get("n_params"):
        model.append(f"{number(run.model['n_params'])} parameters")
    model += [words.format(run.model[name]) for name, words in SHAPE if name in run.model]
    lowest = min(bits) if bits else None
    seconds = run.last("wall_s")
    speed = run.values("tokens_per_s")
    return {
        "name": name,
        "model": " · ".join(model),
        "corpus": next((short(settings[key]) for key in CORPUS_KEYS if settings.get(key)), ""),
        "status": status,
        "percent": None if fraction is None else math.floor(fraction * 100),
        "started": date(run.starts[0].get("started")) if run.starts else "",
        "starts": len(run.starts),
        "updates": number(run.last("opt_step")),
        "seen": number(seen),
        "planned": number(planned),
        "time": "–" if seconds is None else duration(seconds),
        "bits_first": fixed(bits[0] if bits else None, 3),
        "bits_last": fixed(bits[-1] if bits else None, 3),
        "bits_lowest": fixed(lowest, 3),
        "rose": lowest is not None and bits[-1] > lowest * 1.001,
        "evaluations": len(bits),
        "perplexity_first": fixed(perplexity[0] if perplexity else None, 1),
        "perplexity_last": fixed(perplexity[-1] if perplexity else None, 1),
        "heldout_loss": fixed(run.last("heldout_loss"), 3),
        "speed": number(median(speed)) if speed else "–",
        "flops": number(median(flops)) if (flops := run.values("model_flops_per_s")) else "",
        "memory": size(max(run.values("peak_rss_bytes"), default=None)),
    }


def _evaluations(run: Run) -> list[dict[str, str]]:
    """Rows of the table of evaluations."""
    found = [row for row in run.rows if not HELDOUT.isdisjoint(row)]
    return [
        {
            "tokens": number(row.get("tokens")),
            "opt_step": "–" if row.get("opt_step") is None else f"{row['opt_step']:,.0f}",
            "time": "–" if (seconds := row.get("wall_s")) is None else duration(seconds),
            "loss": fixed(row.get("heldout_loss"), 3),
            "perplexity": fixed(row.get("heldout_perplexity"), 1),
            "bits": fixed(row.get("heldout_bits_per_byte"), 3),
        }
        for row in evenly(found, TABLE_ROWS)
    ]


def _samples(run: Run) -> tuple[list[dict[str, Any]], str]:
    """What the model wrote, by evaluation, and a note where not all of it is shown."""
    groups: dict[float, list[dict[str, Any]]] = {}
    for row in run.samples:
        groups.setdefault(row["opt_step"], []).append(row)
    tokens = {row["opt_step"]: row["tokens"] for row in run.rows if "opt_step" in row}
    bits = {row.get("opt_step"): b for row in run.rows if (b := row.get("heldout_bits_per_byte")) is not None}
    shown = evenly(sorted(groups), SAMPLE_EVALUATIONS)
    parts = [
        {
            "opt_step": f"{step:,.0f}",
            "tokens": number(tokens[step]) if step in tokens else "",
            "bits": fixed(bits[step], 3) if step in bits else "",
            "texts": [_sample(row) for row in groups[step][:SAMPLES_PER_EVALUATION]],
            "more": max(0, len(groups[step]) - SAMPLES_PER_EVALUATION),
        }
        for step in shown
    ]
    note = (
        f"{len(shown)} of {len(groups):,} evaluations are shown; samples.jsonl has all."
        if len(shown) < len(groups)
        else ""
    )
    return parts, note


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    texts = [v if isinstance(v := row.get(key, ""), str) else json.dumps(v) for key in ("prompt", "text")]
    prompt, text = texts
    scores = [(name, row.get(name), row.get(f"start_{name}")) for name in SCORED if _finite(row.get(name)) is not None]
    return {
        "prompt": visible(prompt, SAMPLE_CHARS),
        "text": visible(text, SAMPLE_CHARS),
        "cut": sum(max(0, len(part) - SAMPLE_CHARS) for part in texts),
        "scores": ", ".join(f"{SCORED[name]} {number(_finite(now))}" for name, now, _ in scores),
        "start_scores": ", ".join(f"{SCORED[name]} {number(_finite(before))}" for name, _, before in scores),
        "beside": [(label, visible(row[key], SAMPLE_CHARS), key == "start") for key, label in BESIDE if
                   isinstance(row.get(key), str)],
    }  # fmt: skip


def _settings(run: Run) -> list[dict[str, Any]]:
    """Every setting, and whether the first start's command line gave it."""
    command = run.starts[0].get("command") if run.starts else None
    words = [str(word).split("=", 1)[0] for word in command] if isinstance(command, list) else []
    given = {word[2:].replace("-", "_") for word in words if word.startswith("--")}
    given |= {name[3:] for name in given if name.startswith("no_")}
    return [
        {"name": visible(key, VALUE_CHARS), "value": short(value), "given": key in given}
        for key, value in sorted(run.settings.items())
    ]


def _environment(run: Run) -> list[dict[str, Any]]:
    """One entry per start: when, with which command, and what changed since the one before."""
    entries: list[dict[str, Any]] = []
    before: dict[str, str] = {}
    for start in run.starts:
        facts = {visible(k, VALUE_CHARS): short(v) for k, v in start.items() if k not in ("started", "command")}
        command = start.get("command")
        words = [str(word) for word in command] if isinstance(command, list) else []
        entries.append(
            {
                "started": date(start.get("started")),
                "command": short(" ".join([Path(words[0]).name, *words[1:]])) if words else "",
                "facts": facts,
                "changed": [f"{k} {before.get(k, '–')} → {v}" for k, v in facts.items() if before.get(k) != v]
                if before
                else [],
            }
        )
        before = facts
    return entries


def _differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs."""
    keys = sorted({key for run in runs for key in run.settings} - {"out"})
    rows = [(key, [short(run.settings[key]) if key in run.settings else "–" for run in runs]) for key in keys]
    return [(visible(key, VALUE_CHARS), values) for key, values in rows if len(set(values)) > 1]


def run_names(runs: Sequence[Run]) -> list[str]:
    """The shortest ends of the runs' paths that tell them apart."""
    parts = [run.path.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return [short(name) for name in names]


# ----------------------------------------------------------------------------------------------- the page


@cache
def _assets() -> tuple[Template, str, str, str]:
    """The template, the style, uPlot, and our script, read once per process."""
    licence, uplot = static(_UPLOT + "LICENSE").strip(), static(_UPLOT + "uPlot.iife.min.js")
    style = static(_UPLOT + "uPlot.min.css") + static("report.css")
    return templates(_HERE).get_template("template.html"), style, f"/*\n{licence}\n*/\n{uplot}", static("report.js")


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or the line.

    Example  >>> script_json("</script>&")
             '"\\\\u003c/script\\\\u003e\\\\u0026"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _page(runs: Sequence[Run]) -> str:
    template, style, uplot, script = _assets()
    names = run_names(runs)
    drawn, constant = figures([run.curve for run in runs], names)
    data = [
        {
            "key": figure.key,
            "large": figure.large,
            "top": figure.top,
            "lines": [
                {"label": line.label, "colour": line.colour, "style": line.style, "x": line.x, "y": line.y}
                for line in figure.lines
            ],
        }
        for figure in drawn
    ]
    samples, samples_note = _samples(runs[0]) if len(runs) == 1 else ([], "")
    return template.render(
        policy=policy(style, uplot, script),
        style=Markup(style),
        uplot=Markup(uplot),
        script=Markup(script),
        data=Markup(script_json(data)),
        title=names[0] if len(runs) == 1 else " · ".join(names),
        runs=[_head(run, name) for run, name in zip(runs, names, strict=True)],
        figures=[
            {"figure": figure, "svg": still(figure), "said": said(figure), "above": above(figure)} for figure in drawn
        ],
        constant=constant,
        thinned=max((len(run.rows) for run in runs), default=0) > 3 * STRETCHES,
        rows=sum(len(run.rows) for run in runs),
        notes=[
            note if len(runs) == 1 else f"{name}: {note}"
            for run, name in zip(runs, names, strict=True)
            for note in run.notes
        ],
        evaluations=_evaluations(runs[0]) if len(runs) == 1 else [],
        over_optimisation=section(runs[0].rows) if len(runs) == 1 else "",
        samples=samples,
        samples_note=samples_note,
        settings=_settings(runs[0]) if len(runs) == 1 else [],
        environment=_environment(runs[0]) if len(runs) == 1 else [],
        differences=_differences(runs) if len(runs) > 1 else [],
        metrics=METRICS,
        version=__version__,
    )
