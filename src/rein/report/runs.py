"""Many runs at a glance: which there are, how far each is, how good.

Flow     folders → `find_runs` → `RunReader`, a run each → `Summary` → `rein runs`, `rein runs watch` (web/runs.py)

A run is looked at, never touched: whether it is running is asked of its lock. A `RunReader` reads what was appended
since its last look, so that looking every few seconds costs little, however long the run. What a folder holds is not
trusted: names and texts are shown with their control characters as signs, and a damaged folder is a line that says so.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rein.config import setting
from rein.errors import UserError, suggestion
from rein.mirrors import Tail
from rein.progress import duration
from rein.report.figures import UNITS
from rein.report.legible import count, fixed, number, one_line, short, table
from rein.report.page import model_of
from rein.run import STOPPED

CURVE_POINTS = 120  # of the training loss, in a summary

State = Literal["running", "done", "interrupted", "stopped", "ended", "damaged"]
STATES: tuple[State, ...] = ("running", "stopped", "interrupted", "ended", "done", "damaged")  # the order of sorting


# ----------------------------------------------------------------------------------------------------- what there is


@dataclass(frozen=True)
class Summary:
    """A run in a line. What is not known is None."""

    path: Path
    state: State
    why: str = ""  # it was stopped, or its folder is damaged
    model: str = ""
    n_params: float | None = None
    opt_step: float | None = None
    tokens: float | None = None
    train_tokens: float | None = None
    episodes: float | None = None
    train_episodes: float | None = None  # planned, of a run that learns from responses
    wall_s: float | None = None
    train_loss: float | None = None
    heldout_loss: float | None = None
    heldout_bits_per_byte: float | None = None
    best_heldout_bits_per_byte: float | None = None
    tokens_per_s: float | None = None
    started: str | None = None  # the first start, ISO 8601
    age_s: float | None = None  # since then
    settings: dict[str, Any] | None = None
    curve: tuple[tuple[float, float], ...] = ()  # tokens, training loss; neighbouring rows averaged
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder, as it may be shown."""
        return one_line(str(self.path))

    @property
    def done_frac(self) -> float | None:
        """How much of the tokens or episodes planned are seen, from 0 to 1."""
        seen, planned = self.tokens, self.train_tokens
        if self.train_episodes:
            seen, planned = self.episodes, self.train_episodes
        if seen is None or not planned:
            return None
        return min(max(seen / planned, 0.0), 1.0)


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The run folders at and below `folders`, each once, in the order of their names.

    Raises   UserError when one of `folders` is no folder.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"{folder} {'is no folder' if folder.exists() else 'does not exist'}.",
                "Name a folder that has runs below it, like: rein runs runs",
            )
        for path, below, files in os.walk(folder):
            below[:] = sorted(name for name in below if name != "checkpoints" and not name.startswith("."))
            if "metrics.jsonl" in files or ("config.json" in files and Path(path, "checkpoints").is_dir()):
                found.setdefault(Path(path).resolve(), Path(path))
    return sorted(found.values())


class RunReader:
    """One run folder; each `summary` reads what was appended since the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_over()

    def _start_over(self) -> None:
        self._tail = Tail(self.path / "metrics.jsonl")
        self._last: dict[str, float] = {}
        self._best = math.inf
        self._curve: list[tuple[float, float]] = []
        self._rows_each = 1  # rows in one point of the curve
        self._rest: list[tuple[float, float]] = []  # those of the point that is not full yet

    def summary(self) -> Summary:
        """The run as it is now. Never raises: what cannot be read is said in it."""
        try:
            return self._summary()
        except (OSError, UserError) as error:
            return Summary(self.path, "damaged", why=one_line(str(error), 300))

    def _summary(self) -> Summary:
        settings = _settings(self.path)
        if self._tail.went_back() is not None:
            self._start_over()
        while rows := self._tail.rows():
            for row in rows:
                self._take(row)
        last = self._last.get
        starts = _read(self.path / "env.json", list)
        started = starts[0].get("started") if starts and isinstance(starts[0], dict) else None
        began_s = _seconds(started)
        planned = _finite(settings.get("train_tokens"))
        episodes = _finite(settings.get("episodes"))
        seen = (last("episodes"), episodes) if episodes else (last("tokens"), planned)
        state, why = self._state(*seen, len(starts))
        model = model_of(self.path, settings)
        notes = []
        if self._tail.n_damaged:
            notes.append(f"{count(self._tail.n_damaged, 'line')} of metrics.jsonl could not be read.")
        return Summary(
            path=self.path, state=state, why=why, model=_words(settings, model), n_params=model.get("n_params"),
            opt_step=last("opt_step"), tokens=last("tokens"), train_tokens=planned, wall_s=last("wall_s"),
            episodes=last("episodes"), train_episodes=episodes,
            train_loss=last("train_loss"), heldout_loss=last("heldout_loss"),
            heldout_bits_per_byte=last("heldout_bits_per_byte"),
            best_heldout_bits_per_byte=None if math.isinf(self._best) else self._best,
            tokens_per_s=last("tokens_per_s"), started=started if began_s is not None else None,
            age_s=None if began_s is None else max(time.time() - began_s, 0.0), settings=settings,
            curve=tuple([*self._curve, *([_mean(self._rest)] if self._rest else [])]), notes=tuple(notes),
        )  # fmt: skip

    def _take(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name in UNITS and (known := _finite(value)) is not None:
                self._last[name] = known
        self._best = min(self._best, _finite(row.get("heldout_bits_per_byte")) or math.inf)
        loss, tokens = _finite(row.get("train_loss")), _finite(row.get("tokens"))
        if loss is None or tokens is None:
            return
        self._rest.append((tokens, loss))
        if len(self._rest) == self._rows_each:
            self._curve.append(_mean(self._rest))
            self._rest = []
        if len(self._curve) >= 2 * CURVE_POINTS:
            self._curve = [_mean(self._curve[i : i + 2]) for i in range(0, len(self._curve), 2)]
            self._rows_each *= 2

    def _state(self, tokens: float | None, planned: float | None, n_starts: int) -> tuple[State, str]:
        if _is_held(self.path / "run.lock"):
            return "running", ""
        note = _read(self.path / STOPPED, dict)
        if note and note.get("starts") == n_starts:
            return "stopped", one_line(str(note.get("why")), 500)
        if planned is None:
            return "ended", ""
        return ("done" if tokens is not None and tokens >= planned else "interrupted"), ""


def _settings(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        settings = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError("config.json is missing.", "Restore it, or remove the folder.") from None
    except (ValueError, RecursionError):
        raise UserError("config.json is not valid JSON.", "Restore it, or remove the folder.") from None
    if not isinstance(settings, dict):
        raise UserError("config.json holds no settings.", "Restore it, or remove the folder.")
    return settings


def _read(path: Path, kind: type) -> Any:
    """A JSON file, or an empty `kind` where there is none or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return kind()
    return found if isinstance(found, kind) else kind()


def _is_held(lock: Path) -> bool:
    """Whether a process has the lock. A shared lock that is given back at once asks; it never waits."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _words(settings: dict[str, Any], model: dict[str, float]) -> str:
    """A model in a few words: the preset, and its size or what is known of it."""
    words = [one_line(short(settings["preset"]))] if settings.get("preset") else []
    if "n_params" in model:
        words.append(number(model["n_params"]))
    elif "n_layer" in model:
        words.append(count(int(model["n_layer"]), "layer"))
    return " ".join(words)


def _finite(value: Any) -> float | None:
    try:
        return float(value) if type(value) in (int, float) and math.isfinite(value) else None
    except OverflowError:
        return None


def _seconds(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The last tokens, the mean loss."""
    return points[-1][0], sum(loss for _, loss in points) / len(points)


# --------------------------------------------------------------------------------------------------------- rein runs


@dataclass(frozen=True)
class RunsConfig:
    """Settings of `rein runs`."""

    folders: tuple[Path, ...] = setting((), help="where to look (without one: runs)", positional=True)
    sort: str = setting("started", "name, state, model, tokens, loss, bits, speed, started, or a setting of the runs")
    reverse: bool = setting(False, "the other way round")
    where: tuple[str, ...] = setting((), "only runs with this setting, as key=value; also state=running")
    json: bool = setting(False, "print one JSON object per run")


def list_runs(config: RunsConfig) -> None:
    """Lists the runs below folders: what each trains, how far it is, how good it is.

    The states: running (a process writes there), done, interrupted (the same command goes on with it), stopped (by
    a guard or by an error, with why), ended (of runs that plan no number of tokens), damaged.
    See also: rein runs compare, rein runs watch, rein runs mirror.

    Examples
      rein runs
      rein runs runs old-runs --sort bits
      rein runs --where preset=tiny-gpt2 learning_rate=6e-4 --sort learning_rate
      rein runs --where state=running --json
    """
    runs = [RunReader(path).summary() for path in find_runs(config.folders or (Path("runs"),))]
    runs = sorted_by(chosen(runs, config.where), config.sort, reverse=config.reverse)
    if config.json:
        for run in runs:
            print(json.dumps(as_json(run), ensure_ascii=False))
    elif not runs:
        where = ", ".join(str(folder) for folder in config.folders) or "runs"
        print(f"no runs{' like that' if config.where else ''} below {where}")
    else:
        print(as_text(runs))


def chosen(runs: Sequence[Summary], where: Sequence[str]) -> list[Summary]:
    """The runs that have all these settings, each given as key=value.

    Raises   UserError for what is no key=value, or a key that no run has.
    """
    for condition in where:
        key, equals, text = condition.partition("=")
        if not equals:
            raise UserError(f"--where {condition} is no key=value.", "Write, like: --where learning_rate=6e-4")
        known = {name for run in runs for name in run.settings or {}} | {"state"}
        if runs and key not in known:
            raise UserError(f"--where {condition}: no run here has a setting {key!r}.", suggestion(key, known))
        runs = [run for run in runs if _equals({"state": run.state, **(run.settings or {})}, key, text)]
    return list(runs)


def _equals(settings: dict[str, Any], key: str, text: str) -> bool:
    if key not in settings:
        return False
    value = settings[key]
    if value == text or (value is None and text.lower() == "none"):
        return True
    try:
        meant = json.loads(text)
    except ValueError:
        return False
    return bool(value == meant) and isinstance(value, bool) == isinstance(meant, bool)


SORTS: dict[str, Callable[[Summary], Any]] = {
    "name": lambda run: str(run.path),
    "state": lambda run: STATES.index(run.state),
    "model": lambda run: run.n_params,
    "tokens": lambda run: run.tokens,
    "loss": lambda run: run.train_loss,
    "bits": lambda run: run.best_heldout_bits_per_byte,
    "speed": lambda run: run.tokens_per_s,
    "started": lambda run: run.age_s,  # the newest first
}


def sorted_by(runs: Sequence[Summary], key: str, *, reverse: bool = False) -> list[Summary]:
    """The runs in the order of a column or of one of their settings; those that do not have it come last.

    Raises   UserError for a key that is neither a column nor a setting of any run.
    """
    known = {name for run in runs for name in run.settings or {}}
    if key not in SORTS and key not in known and runs:
        raise UserError(f"--sort {key}: no run here has a setting {key!r}.", suggestion(key, {*SORTS, *known}))
    of = SORTS.get(key)
    values = [of(run) if of is not None else (run.settings or {}).get(key) for run in runs]
    having = [(_order(value), i) for i, value in enumerate(values) if value is not None]
    having.sort(key=lambda pair: pair[0], reverse=reverse)
    return [runs[i] for _, i in having] + [run for run, value in zip(runs, values, strict=True) if value is None]


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then texts; a list by what it looks like."""
    known = _finite(int(value) if isinstance(value, bool) else value)
    return (0, known, "") if known is not None else (1, 0.0, value if isinstance(value, str) else json.dumps(value))


def as_json(run: Summary) -> dict[str, Any]:
    """A summary as plain JSON values."""
    return {"run": str(run.path), **{name: value for name, value in vars(run).items() if name not in ("path", "curve")}}


def as_text(runs: Sequence[Summary]) -> str:
    """Runs as a table, and below it what is to be said of some."""
    rows: list[tuple[str, ...]]
    rows = [("run", "state", "model", "tokens", "loss", "bits/byte", "best", "tokens/s", "started")]
    rows += [cells(run) for run in runs if run.state != "damaged"]
    lines = table(rows, "<<<>>>>>>") if len(rows) > 1 else []
    for run in runs:
        said = [f"{run.state}: {run.why}"] if run.why else []
        lines += [f"{run.name}  {text}" for text in [*said, *run.notes]]
    return "\n".join(lines)


def cells(run: Summary) -> tuple[str, ...]:
    """What a person reads of a run, a text for each column of `rein runs`."""
    tokens = number(run.episodes if run.train_episodes else run.tokens)
    if run.done_frac is not None:
        planned = count(int(run.train_episodes), "episode") if run.train_episodes else number(run.train_tokens)
        tokens += f" of {planned}, {math.floor(run.done_frac * 100)}%"
    return (
        run.name, run.state, run.model, tokens, fixed(run.train_loss, 3), fixed(run.heldout_bits_per_byte, 3),
        fixed(run.best_heldout_bits_per_byte, 3), number(run.tokens_per_s),
        "–" if run.age_s is None else f"{duration(run.age_s)} ago",
    )  # fmt: skip
