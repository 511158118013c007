"""Mirrors of a run's metrics in TensorBoard, Weights & Biases, MLflow and trackio.

    metrics.jsonl ─ `Tail` → rows not sent yet ─ a thread for each kind → dashboard
                                                        └→ mirrors.json: how far each kind is

metrics.jsonl stays the truth. A mirror reads it, so it can be made while a run trains (`Mirrors`) or years later
(`rein runs mirror`), and what it missed is sent by the next start. It sends the settings and the rows, with finite
numbers only, and nothing about the machine, the source code or the command line. None of the four is installed by
default: each is imported by its own thread, when it is asked for.

A run that is resumed drops the rows behind its checkpoint and writes them again. Then

    tensorboard              gets a new event file whose purge_step hides the dropped rows; it shows the file as it is
    wandb, mlflow, trackio   cannot take a row back: rows of updates that they have are not sent twice. The losses of
                             updates made again are the same to the last bit; speeds and times stay those of the first

A kill between sending and noting it makes the rows of a second be sent twice: W&B ignores them, MLflow keeps one of
two equal ones, trackio keeps both.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
import secrets
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from rein.config import setting
from rein.errors import UserError, suggestion
from rein.run import lock_folder, write_atomically

STATE = "mirrors.json"
PROJECT = "rein"  # where a kind has projects and its environment variable names none
EVERY_S = 1.0  # between two batches of one kind
CLOSE_S = 15.0  # how long the end of a run waits for the last rows
CHUNK_BYTES = 1 << 20  # of metrics.jsonl, in one batch
MARKS = 40

Row = dict[str, Any]
Mark = tuple[int, int, int]  # an end of a line in bytes, the opt_step of that line, a checksum of the bytes before it
BEGINNING: Mark = (0, -1, 0)


# ------------------------------------------------------------------------------------------------ reading the truth


class Tail:
    """The rows that were appended to a file of JSON lines since the last look.

    It remembers `marks`, dense near the end and ever sparser before, to find how much of a file is still as it was
    read after somebody cut it and appended other rows.
    """

    def __init__(self, path: Path, marks: Sequence[Mark] = ()) -> None:
        self.path, self.marks = path, list(marks) or [BEGINNING]
        self.n_damaged = 0  # lines that were no JSON object

    def went_back(self) -> int | None:
        """None where what was read still stands; else the last opt_step that does (−1: none), to be read on from there.

        From there on, `rows` gives rows again; an evaluation of that very opt_step may be among them.
        """
        kept = 1
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            kept = len(self.marks)
            while kept > 1 and not _holds(file, self.marks[kept - 1]):
                kept -= 1
        if kept == len(self.marks):
            return None
        del self.marks[kept:]
        return self.marks[-1][1]

    def rows(self) -> list[Row]:
        """Some more rows, in order; none at the end. A line that is still being written is left for later."""
        while True:
            start, opt_step, _ = self.marks[-1]
            try:
                with self.path.open("rb") as file:
                    if not _holds(file, self.marks[-1]):  # cut a moment ago: `went_back` will tell
                        return []
                    file.seek(start)
                    data = file.read(CHUNK_BYTES)
                    while data and b"\n" not in data and (more := file.read(CHUNK_BYTES)):
                        data += more
                    data = data[: data.rfind(b"\n") + 1]
                    if not data:
                        return []
                    checksum = _checksum(file, start + len(data))
            except FileNotFoundError:
                return []
            found = list(self._parse(data))
            opt_step = max((row["opt_step"] for row in found), default=opt_step)
            self.marks.append((start + len(data), opt_step, checksum))
            self._thin()
            if found:
                return found

    def _thin(self) -> None:
        """Drops the mark that is missed least, so that gaps are about in proportion to their distance from the end."""
        at = [mark[0] for mark in self.marks]
        if len(at) > MARKS:
            del self.marks[min(range(1, len(at) - 1), key=lambda i: (at[i + 1] - at[i - 1]) / (at[-1] - at[i - 1]))]

    def _parse(self, data: bytes) -> Iterator[Row]:
        for line in data.splitlines():
            try:
                row = json.loads(line)
                row["opt_step"] = int(row["opt_step"])
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                self.n_damaged += 1
                continue
            yield row


def _holds(file: Any, mark: Mark) -> bool:
    return mark[0] <= os.fstat(file.fileno()).st_size and _checksum(file, mark[0]) == mark[2]


def _checksum(file: Any, end: int) -> int:
    """Of the bytes before `end`: a row has its wall_s, so no other row has the same."""
    start = max(0, end - 256)
    file.seek(start)
    return zlib.crc32(file.read(end - start))


# ------------------------------------------------------------------------------------------------------- the kinds


@dataclass(frozen=True)
class About:
    """What a dashboard is told of a run once."""

    path: Path
    name: str
    id: str  # the same for all starts of the run
    settings: dict[str, Any]
    began_s: float  # seconds since 1970 of its first start

    def at_s(self, row: Row) -> float:
        """When a row was written, on a clock that stands still between two starts: so far apart was the training."""
        wall_s = row.get("wall_s")
        return self.began_s + (wall_s if isinstance(wall_s, int | float) and math.isfinite(wall_s) else 0.0)


class Dashboard(Protocol):
    """An open run in a dashboard."""

    def __init__(self, about: About, purge_step: int | None) -> None: ...
    def send(self, rows: Sequence[Row]) -> None: ...
    def close(self) -> None: ...


def _numbers(row: Row) -> dict[str, float]:
    return {
        name: value
        for name, value in row.items()
        if name != "opt_step" and type(value) in (int, float) and math.isfinite(value)
    }


class TensorBoard:
    """Event files in RUN/tensorboard; `tensorboard --logdir runs` shows all runs below runs."""

    def __init__(self, about: About, purge_step: int | None) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._about, self._writer = about, writer(str(about.path / "tensorboard"), purge_step=purge_step)
        if purge_step == 0:
            text = "".join(f"    {line}\n" for line in json.dumps(about.settings, indent=2).splitlines())
            self._writer.add_text("settings", text, 0, walltime=about.began_s)

    def send(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in _numbers(row).items():
                self._writer.add_scalar(name, value, row["opt_step"], walltime=self._about.at_s(row))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A W&B run; WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE … hold, and its files are in RUN/wandb or WANDB_DIR."""

    def __init__(self, about: About, purge_step: int | None) -> None:
        wandb = importlib.import_module("wandb")
        if wandb.setup().settings.mode in ("online", "shared") and not wandb.login(prompt=False):
            raise UserError("W&B has no API key.", "Run `wandb login`, or set WANDB_MODE=offline.")
        quiet = {"console": "off", "silent": True, "x_disable_stats": True}
        private = {
            "disable_git": True, "disable_code": True, "save_code": False, "x_disable_meta": True,
            "x_disable_machine_info": True, "x_save_requirements": False, "host": "",
        }  # fmt: skip
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), dir=os.environ.get("WANDB_DIR", str(about.path)),
            name=about.name, id=about.id, resume="allow", config=about.settings,
            settings=wandb.Settings(**quiet, **private),
        )  # fmt: skip

    def send(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log(_numbers(row), step=row["opt_step"])

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """An MLflow run; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold, without them ./mlflow.db."""

    def __init__(self, about: About, purge_step: int | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = importlib.import_module("mlflow")
        entities = importlib.import_module("mlflow.entities")
        self._about, self._metric = about, entities.Metric
        self._client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        where = experiment.experiment_id if experiment else self._client.create_experiment(name)
        tag = "rein.id"
        known = self._client.search_runs([where], f"tags.`{tag}` = '{about.id}'")
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        began_ms = int(about.began_s * 1000)
        self._id = self._client.create_run(where, began_ms, {tag: about.id}, run_name=about.name).info.run_id
        params = [entities.Param(key, str(value)[:500]) for key, value in about.settings.items()]
        for first in range(0, len(params), 100):
            self._client.log_batch(self._id, params=params[first : first + 100])

    def send(self, rows: Sequence[Row]) -> None:
        metrics = [
            self._metric(name, value, int(self._about.at_s(row) * 1000), row["opt_step"])
            for row in rows
            for name, value in _numbers(row).items()
        ]
        for first in range(0, len(metrics), 1000):  # the most that its servers take at once
            self._client.log_batch(self._id, metrics=metrics[first : first + 1000])

    def close(self) -> None:
        self._client.set_terminated(self._id)


class Trackio:
    """A trackio run; TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL hold."""

    def __init__(self, about: About, purge_step: int | None) -> None:
        self._trackio = importlib.import_module("trackio")
        with contextlib.redirect_stdout(sys.stderr):  # where it says how to look at it
            self._run = self._trackio.init(  # it resumes by name, so the name has to be this run's alone
                PROJECT, name=f"{about.name}-{about.id[:6]}", config=about.settings, resume="allow", embed=False,
                auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

    def send(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log(_numbers(row), step=row["opt_step"])

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()


@dataclass(frozen=True)
class Kind:
    """A dashboard that there can be a mirror in."""

    dashboard: type[Dashboard]
    package: str  # as it is imported, and as pip knows it
    takes_back: bool  # whether rows that were sent can be hidden again
    look: str  # the command that shows it


KINDS = {
    "tensorboard": Kind(TensorBoard, "tensorboard", True, "tensorboard --logdir {run}"),
    "wandb": Kind(Wandb, "wandb", False, "wandb.ai, or with WANDB_MODE=offline: wandb sync {run}/wandb/offline-*"),
    "mlflow": Kind(MLflow, "mlflow", False, "mlflow ui"),
    "trackio": Kind(Trackio, "trackio", False, f"trackio show --project {PROJECT}"),
}


# -------------------------------------------------------------------------------------------------------- sending


class _Notes:
    """mirrors.json: per kind an id, how far it is, and the marks of its `Tail`. The threads of all kinds share it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._all: dict[str, Any] = {}
        try:
            self._all |= json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (ValueError, TypeError):
            raise UserError(
                f"{path} is damaged, so it is not known what was sent.", f"Remove {path}: all rows are sent again."
            ) from None

    def of(self, kind: str) -> dict[str, Any]:
        with self._lock:
            fresh = {"id": secrets.token_hex(8), "opt_step": -1, "rows": 0, "skip": 0, "marks": []}
            return {**fresh, **self._all.get(kind, {})}

    def keep(self, kind: str, note: dict[str, Any]) -> None:
        with self._lock:
            self._all[kind] = note
            write_atomically(self._path, json.dumps(self._all) + "\n")


class _Sender:
    """Brings one kind up to date."""

    def __init__(self, run: Path, name: str, notes: _Notes) -> None:
        self._run, self._name, self._kind, self._notes = run, name, KINDS[name], notes
        self._note = notes.of(name)
        marks = [(int(end), int(opt_step), int(checksum)) for end, opt_step, checksum in self._note["marks"]]
        self._tail = Tail(run / "metrics.jsonl", marks)
        self._purge_step = 0 if len(self._tail.marks) == 1 else None
        self._dashboard: Dashboard | None = None

    def send(self) -> int:
        """Sends the rows that were not sent yet; returns how many."""
        back_to = self._tail.went_back()
        if back_to is not None:
            self._note["skip"] = self._note["rows"]
            if self._kind.takes_back:
                self.close()
                self._purge_step = back_to + 1
        sent = 0
        while rows := self._tail.rows():
            fresh = rows if self._kind.takes_back else self._not_sent(rows)
            if fresh:
                self._open().send(fresh)
            self._note["marks"] = self._tail.marks
            self._notes.keep(self._name, self._note)
            sent += len(fresh)
        return sent

    def _not_sent(self, rows: Sequence[Row]) -> list[Row]:
        """Those after the last row that was sent. A training row and an evaluation can have the same opt_step."""
        fresh, note = [], self._note
        for row in rows:
            if row["opt_step"] > note["opt_step"]:
                note["opt_step"], note["rows"], note["skip"] = row["opt_step"], 1, 0
            elif row["opt_step"] == note["opt_step"] and note["skip"] == 0:
                note["rows"] += 1
            else:
                note["skip"] -= row["opt_step"] == note["opt_step"]
                continue
            fresh.append(row)
        return fresh

    def _open(self) -> Dashboard:
        if self._dashboard is None:
            self._dashboard = self._kind.dashboard(_about(self._run, self._note["id"]), self._purge_step)
            self._purge_step = None
        return self._dashboard

    def close(self) -> None:
        if self._dashboard is not None:
            self._dashboard.close()
            self._dashboard = None


def _about(run: Path, id: str) -> About:
    def read(name: str, kind: type) -> Any:
        try:
            found = json.loads((run / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        return found if isinstance(found, kind) else kind()

    starts = read("env.json", list)
    try:
        began_s = datetime.fromisoformat(starts[0]["started"]).timestamp()
    except (IndexError, KeyError, TypeError, ValueError):
        began_s = time.time()
    return About(run, "/".join(run.resolve().parts[-2:]), id, read("config.json", dict), began_s)


class Mirrors:
    """The mirrors of a run that trains: each kind has a thread, so that none slows the loop or stops it.

    A kind that fails says so in one line on standard error, and the run goes on without it; what it misses is sent
    by the next start or by `rein runs mirror`.

    Example  >>> with Mirrors(Path("runs/first"), ()) as mirrors:
             ...     mirrors.pump()
    """

    def __init__(self, run: Path, kinds: Sequence[str]) -> None:
        """Nothing is imported or sent before the first `pump`.

        Raises   UserError for an unknown kind, one that is not installed, or when another process sends this run.
        """
        self._run = run
        self._open = contextlib.ExitStack()
        self._workers = [_Worker(run, name, sender) for name, sender in _senders(run, kinds, self._open)]

    def pump(self) -> None:
        """Says that there may be new rows. Returns at once."""
        for worker in self._workers:
            worker.wake.set()

    def close(self) -> None:
        """Sends the rest; what a dashboard has not taken within 15 seconds stays for later."""
        ends = time.monotonic() + CLOSE_S
        for worker in self._workers:
            worker.closing.set()
            worker.wake.set()
        for worker in self._workers:
            worker.thread.join(max(0.0, ends - time.monotonic()))
            if worker.thread.is_alive():
                _warn(self._run, worker.name, f"did not take the last rows within {CLOSE_S:.0f} s")
        self._workers = []
        self._open.close()

    def __enter__(self) -> Mirrors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    def __init__(self, run: Path, name: str, sender: _Sender) -> None:
        self.name, self._run, self._sender = name, run, sender
        self.wake, self.closing = threading.Event(), threading.Event()
        # A daemon: a dashboard that never answers must not keep the process from ending.
        self.thread = threading.Thread(target=self._work, name=f"mirror-{name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            last = False
            while not last:
                self.wake.wait()
                self.wake.clear()
                last = self.closing.is_set()
                self._sender.send()
                self.closing.wait(EVERY_S)
            self._sender.close()
        except Exception as error:
            _warn(self._run, self.name, _said(error))


def mirror(run: Path, kinds: Sequence[str]) -> dict[str, int]:
    """Sends the rows of `run` that were not sent yet, and waits for it; how many, by kind.

    Raises   UserError for an unknown kind, one that is not installed or fails, when another process sends this run,
             or when `run` has no metrics.jsonl.
    """
    if not (run / "metrics.jsonl").is_file():
        raise UserError(f"{run} has no metrics.jsonl.", "Name the --out folder of a run, like runs/first.")
    sent = {}
    with contextlib.ExitStack() as open:
        for name, sender in _senders(run, kinds, open):
            try:
                sent[name] = sender.send()
                sender.close()
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"{name} failed: {_said(error)}.", "Put that right; the same command sends what is missing."
                ) from error
    return sent


def _senders(run: Path, kinds: Sequence[str], open: contextlib.ExitStack) -> Iterator[tuple[str, _Sender]]:
    if not kinds:
        return
    for name in kinds:
        if name not in KINDS:
            raise UserError(f"There is no mirror {name!r}.", suggestion(name, KINDS))
        package = KINDS[name].package
        if importlib.util.find_spec(package) is None:
            raise UserError(f"The mirror {name} needs {package}, which is not installed.", f"pip install {package}")
    try:
        open.enter_context(lock_folder(run, "mirrors.lock"))
    except UserError:
        raise UserError(f"Another process sends {run} to a mirror now.", "Wait for it to end.") from None
    notes = _Notes(run / STATE)
    yield from [(name, _Sender(run, name, notes)) for name in dict.fromkeys(kinds)]


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text.rstrip(".") if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": .")


def _warn(run: Path, name: str, what: str) -> None:
    print(
        f"The mirror {name} stopped: {what}. The run goes on; `rein runs mirror {run} --to {name}` sends the rest.",
        file=sys.stderr,
        flush=True,
    )


# ------------------------------------------------------------------------------------------------------ the command


@dataclass(frozen=True)
class MirrorConfig:
    """Settings of `rein runs mirror`."""

    runs: tuple[Path, ...] = setting(help="run folders", positional=True)
    to: tuple[str, ...] = setting(help="where to: tensorboard, wandb, mlflow, trackio")


def mirror_command(config: MirrorConfig) -> None:
    """Sends the metrics of runs to TensorBoard, W&B, MLflow or trackio: the rows that are not there yet.

    Each is installed by itself (`pip install tensorboard`) and set up as usual, by its environment variables.
    While a run trains, its own setting --mirrors does the same.

    Examples
      rein runs mirror runs/first --to tensorboard
      rein runs mirror runs/first runs/second --to mlflow trackio
    """
    if not config.runs or not config.to:
        raise UserError(
            "rein runs mirror needs run folders and --to.", "Type, like: rein runs mirror runs/first --to tensorboard"
        )
    for run in config.runs:
        for name, count in mirror(run, config.to).items():
            print(f"{run}  {name}  {count:,} rows sent  ({KINDS[name].look.format(run=run)})")
