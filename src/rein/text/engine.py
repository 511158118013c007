"""Stages of a build: one function over many partitions, here or on a cluster, each partition made once.

Flow     a stage = a function's name + tasks (plain data) → one result file and one record per task.

A task's function gets its stage's folder and the task, writes what it makes under its final name only when it
is whole and on disk, and returns a record (plain data: counts, sizes). The record is written last; a task with
a record is never done again. So a build that is killed at any moment goes on with the first task that has no
record, and because a result depends on its task alone, it ends with the same bytes, whoever did which part.

Three ways to run, one code: in this process (one worker, or little to do); in worker processes through Daft's
native runner; on a Ray cluster through Daft's Ray runner, where every machine must see the corpus folder and
the inputs under the same paths. A worker that dies is replaced and its task done again, three times at most.

Daft only carries tasks and records here. Its joins are not used: they cannot be resumed, and an inner join on
a Binary column is silently planned as a cross join (0.5 to 0.7.26).
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rein import __version__
from rein.errors import UserError, writing
from rein.progress import Progress
from rein.text.recipe import use_modules_beside
from rein.text.sources import load_object
from rein.text.store import whole

ATTEMPTS = 3
POOL_S = 3.0  # less work than this is done here: to start workers takes longer
QUIET_BYTES = 100_000  # done before anyone could read what is done
STOP = "stop"  # in a stage's folder: a task has failed, and those that follow need not begin
KEY = "stage.json"

Record = dict[str, Any]
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Task:
    """One partition's worth of work.

    `bytes` is how much there is to read, for the progress and its time left; `bytes_per_s`, roughly, how fast one
    core does that, for the choice between this process and workers.
    """

    name: str
    bytes: float
    arguments: dict[str, Any]
    bytes_per_s: float = 100e6


@dataclass(frozen=True)
class Engine:
    """Where tasks run: `workers` processes of this machine, or a Ray cluster.

    `import_from` are folders whose modules the tasks may name (recipe.py's own).
    """

    workers: int = 1
    ray: str | None = None
    import_from: tuple[Path, ...] = field(default=())

    def run(
        self, folder: Path, title: str, function: str, tasks: Sequence[Task], key: str, *, unit: str = "MB"
    ) -> list[Record]:
        """Every task's record, in order; those of earlier starts are read, the others made.

        `function` is `package.module:name` of a `(folder, arguments, advance) -> Record`; `key` stands for
        everything that decides the results: where it differs from that of an earlier start, they are made anew.

        Raises   UserError what a task raised; or when workers die again and again.
        """
        _prepare(folder, key)
        records: dict[str, Record] = {}
        for task in tasks:
            kept = _record(folder, task.name)
            if kept is not None:
                records[task.name] = kept
        scale = 1e6 if unit == "MB" else 1.0
        start = sum(task.bytes for task in tasks if task.name in records) / scale
        total = sum(task.bytes for task in tasks) / scale
        if total < start + QUIET_BYTES / scale:
            self._run(folder, function, tasks, records, lambda amount: None)
        elif len(records) < len(tasks):
            with Progress(title, total=total, unit=unit, start=start) as bar:
                self._run(folder, function, tasks, records, lambda amount: bar.advance(amount / scale))
        return [records[task.name] for task in tasks]

    def _run(
        self, folder: Path, function: str, tasks: Sequence[Task], records: dict[str, Record], advance: Advance
    ) -> None:
        open_tasks = [task for task in tasks if task.name not in records]
        small = sum(task.bytes / task.bytes_per_s for task in open_tasks) < POOL_S
        if self.ray is None and (self.workers == 1 or len(open_tasks) == 1 or small):
            for folder_of_modules in self.import_from:
                use_modules_beside(folder_of_modules)
            for task in open_tasks:
                records[task.name] = perform(folder, function, task, advance)
            return
        bytes_of = {task.name: task.bytes for task in open_tasks}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for name, record in self._stream(folder, function, open_tasks):
                    records[name] = record
                    advance(bytes_of[name])
                return
            except (UserError, KeyboardInterrupt, _TaskError):
                _end_calmly()
                raise
            except Exception as error:  # Daft's and Ray's own, when a worker process died
                for task in open_tasks:  # it may have ended just before its worker did
                    kept = _record(folder, task.name)
                    if kept is not None and task.name not in records:
                        records[task.name] = kept
                        advance(task.bytes)
                open_tasks = [task for task in open_tasks if task.name not in records]
                if not open_tasks:
                    return
                _end_calmly()
                if attempt == ATTEMPTS:
                    raise UserError(
                        f"Worker processes died {ATTEMPTS} times while {folder.name} was made, at the latest with "
                        f"the task {open_tasks[0].name}: {str(error).splitlines()[-1]}",
                        "If memory ran out, use fewer --workers; a step of yours may have ended its process. What is "
                        "finished is kept: the same command goes on.",
                    ) from error
                print(f"a worker died; {len(open_tasks)} tasks go on", file=sys.stderr, flush=True)

    def _stream(self, folder: Path, function: str, tasks: Sequence[Task]) -> Iterator[tuple[str, Record]]:
        """(name, record) of each task, as they are finished by the workers."""
        daft, n_workers = self._daft()
        job = {
            "folder": str(folder.resolve()),
            "place": os.getcwd(),
            "function": function,
            "import_from": [str(path.resolve()) for path in self.import_from],
        }
        texts = [
            json.dumps({**job, "name": task.name, "bytes": task.bytes, "arguments": task.arguments}) for task in tasks
        ]
        count = min(n_workers, len(tasks))

        @daft.cls(use_process=True, max_concurrency=count)
        class Worker:
            @daft.method(return_dtype=daft.DataType.string())  # type: ignore[untyped-decorator]
            def work(self, text: str) -> str:
                from rein.text.engine import perform_text

                return perform_text(text)

        frame = daft.from_pydict({"task": texts})
        frame = frame.into_batches(1) if self.ray is None else frame.into_partitions(len(texts))
        for row in frame.select(Worker().work(frame["task"]).alias("done")).iter_rows():
            done = json.loads(row["done"])
            if "user_error" in done:
                raise UserError(*done["user_error"])
            if "error" in done:
                raise _TaskError(f"{folder.name}, task {done['name']}:\n{done['error']}")
            if "record" in done:
                yield done["name"], done["record"]

    def _daft(self) -> tuple[Any, int]:
        """Daft with its runner set, and how many workers there are.

        Raises   UserError when Ray is not installed or does not answer.
        """
        os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
        os.environ["DAFT_PROGRESS_BAR"] = "0"
        os.environ["DO_NOT_TRACK"] = "1"
        import daft

        if self.ray is None:
            _close_pipes()
            return daft, self.workers
        try:
            import ray
        except ImportError:
            raise UserError(
                f"--ray {self.ray} needs Ray, which is not installed.", "Install it: pip install 'rein[cluster]'."
            ) from None
        if not ray.is_initialized():
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            try:
                if self.ray == "local":
                    ray.init(num_cpus=self.workers, include_dashboard=False, log_to_driver=False)
                else:
                    _knock(self.ray)
                    ray.init(address=self.ray, log_to_driver=False)
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"The Ray cluster {self.ray} does not answer: {str(error).splitlines()[0]}",
                    "Check --ray: an address as `ray start` prints it, auto, or local. A cluster that asks for a token "
                    "takes it from RAY_AUTH_TOKEN.",
                ) from None
            daft.set_runner_ray()
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return daft, max(1, int(resources.get("CPU", self.workers)))


def _knock(address: str) -> None:
    """Whether anything answers at HOST:PORT: Ray itself goes on trying for a quarter of an hour.

    Raises   OSError when nothing does.
    """
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@cache
def _close_pipes() -> None:
    """Daft (0.7.26) leaves the pipe to a worker open when the worker is gone: one file more for each of them."""
    from daft.execution.udf import UdfHandle

    teardown = UdfHandle.teardown

    def closing(self: UdfHandle, timeout: float = 5.0) -> None:
        try:
            teardown(self, timeout)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    UdfHandle.teardown = closing  # type: ignore[method-assign]


@cache
def _end_calmly() -> None:
    """After an error, Daft's threads may outlive the command by a moment; the interpreter's end would abort them."""
    atexit.register(time.sleep, 0.7)


class _TaskError(RuntimeError):
    """A task failed with an error that is ours, not the user's; its traceback is the message."""


def perform(folder: Path, function: str, task: Task, advance: Advance) -> Record:
    """Does one task and keeps its record; where there is a record already, returns that."""
    done = _record(folder, task.name)
    if done is not None:
        return done
    told = 0.0

    def tell(amount: float) -> None:
        nonlocal told
        told += amount
        advance(amount)

    record: Record = load_object(function, "a stage")(folder, task.arguments, tell)
    with whole(folder / f"{task.name}.json") as file:
        file.write(json.dumps(record).encode())
    advance(task.bytes - told)
    return record


def perform_text(text: str) -> str:
    """`perform` for a worker: a task and its record as JSON; errors are returned, not raised."""
    job = json.loads(text)
    for folder in job["import_from"]:
        use_modules_beside(Path(folder))
    done: dict[str, Any] = {"name": job["name"]}
    stop = Path(job["folder"]) / STOP
    if stop.exists():
        return json.dumps(done)
    task = Task(job["name"], job["bytes"], job["arguments"])
    try:
        folder = Path(job["folder"])
        for needed in (Path(job["place"]), folder):
            if not needed.is_dir():
                raise UserError(
                    f"A worker does not see {needed}.",
                    "On a cluster, start in a folder that all machines share, and name such a one with --out.",
                )
        os.chdir(job["place"])  # paths are relative to where the command was typed
        done["record"] = perform(folder, job["function"], task, lambda _: None)
    except UserError as error:
        done["user_error"] = [error.problem, error.fix]
    except Exception:
        done["error"] = traceback.format_exc()
    if "record" not in done:
        with suppress(OSError):
            stop.touch()  # Daft ends only when it has no tasks left
    return json.dumps(done)


def stage_key(*parts: Any) -> str:
    """A hash of everything that decides a stage's results: its settings and the keys of the stages before it."""
    text = json.dumps([__version__, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _prepare(folder: Path, key: str) -> None:
    """An empty stage, or one that an earlier start began with the same key."""
    path = folder / KEY
    if not path.exists() or json.loads(path.read_text(encoding="utf-8"))["key"] != key:
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        with whole(path) as file:
            file.write(json.dumps({"key": key}).encode())
    for left in (*folder.glob("*.part"), folder / STOP):
        left.unlink(missing_ok=True)


def _record(folder: Path, name: str) -> Record | None:
    try:
        record: Record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record
