"""The engine: every task once, in order, whoever does it and whoever dies on the way."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from rein.errors import UserError
from rein.text import engine
from rein.text.engine import Engine, Task, perform, perform_text, stage_key

# Functions that workers import. Every call leaves a line, so that a test can count what was done.
JOBS = """
import os, signal, time
from pathlib import Path

from rein.errors import UserError
from rein.text.store import whole


def work(folder, task, advance):
    with open(task["log"], "a") as log:
        log.write(task["name"] + "\\n")
    time.sleep(task.get("sleep_s", 0))
    for name in task.get("after", []):
        while not (folder / f"{name}.json").exists():
            time.sleep(0.005)
    if "died" in task and (task["again"] or not Path(task["died"]).exists()):
        Path(task["died"]).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    if task.get("mistake") == "user":
        raise UserError("The text is blue.", "Paint it.")
    if task.get("mistake") == "ours":
        raise ZeroDivisionError("of nothing")
    with whole(folder / f"{task['name']}.out") as file:
        file.write(task["name"].encode() * 1000)
    advance(3)
    return {"name": task["name"], "pid": os.getpid() if task.get("tell") else None}
"""
WORK = "engine_jobs:work"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """The folder of a module that only workers told of it can import."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "engine_jobs.py").write_text(JOBS)
    yield folder
    with suppress(ValueError):
        sys.path.remove(str(folder.resolve()))


@pytest.fixture
def pool(monkeypatch):
    """Whatever there is to do is done by worker processes; what they leave open is collected here."""
    monkeypatch.setattr(engine, "POOL_S", 0)
    yield
    gc.collect()


def tasks_of(tmp_path: Path, n: int, **of: dict) -> list[Task]:
    """Tasks t0, t1, …; `of` gives some of them more arguments."""
    log = str(tmp_path / "log")
    return [Task(f"t{i}", 10, {"name": f"t{i}", "log": log, **of.get(f"t{i}", {})}) for i in range(n)]


def calls(tmp_path: Path) -> Counter[str]:
    return Counter((tmp_path / "log").read_text().split())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------ each task once


def test_records_come_in_the_order_of_the_tasks_and_each_task_is_done_once(tmp_path, jobs):
    records = Engine(1, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 4), "key")
    assert [record["name"] for record in records] == ["t0", "t1", "t2", "t3"]
    assert calls(tmp_path) == {"t0": 1, "t1": 1, "t2": 1, "t3": 1}


def test_workers_give_the_same_records_and_files_as_this_process(tmp_path, jobs, pool):
    slow = {"t0": {"sleep_s": 0.3}, "t2": {"sleep_s": 0.1}}  # so that they do not end in order
    one = Engine(1, None, (jobs,)).run(tmp_path / "one", "t", WORK, tasks_of(tmp_path, 7, **slow), "key")
    two = Engine(2, None, (jobs,)).run(tmp_path / "two", "t", WORK, tasks_of(tmp_path, 7, **slow), "key")
    assert [record["name"] for record in two] == [f"t{i}" for i in range(7)]
    assert one == two
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert set(calls(tmp_path).values()) == {2}


def test_what_is_done_is_not_done_again(tmp_path, jobs):
    def run(n: int) -> list[dict]:
        return Engine(1, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, n), "key")

    first = run(3)
    assert run(3) == first
    assert calls(tmp_path) == {"t0": 1, "t1": 1, "t2": 1}
    (tmp_path / "stage" / "t1.json").unlink()
    assert run(4)[:3] == first
    assert calls(tmp_path) == {"t0": 1, "t1": 2, "t2": 1, "t3": 1}


def test_another_key_does_everything_anew_and_leaves_nothing_of_the_old(tmp_path, jobs):
    def run(key: str, n: int) -> None:
        Engine(1, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, n), key)

    run("one", 3)
    run("two", 2)
    assert calls(tmp_path) == {"t0": 2, "t1": 2, "t2": 1}
    assert {path.name for path in (tmp_path / "stage").iterdir()} == {
        "stage.json", "t0.json", "t0.out", "t1.json", "t1.out"
    }  # fmt: skip
    run("one", 2)
    assert calls(tmp_path)["t0"] == 3


def test_half_files_of_an_earlier_start_are_removed(tmp_path, jobs):
    Engine(1, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 1), "key")
    (tmp_path / "stage" / "t1.out.4711.part").write_text("half")
    Engine(1, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 1), "key")
    assert not list((tmp_path / "stage").glob("*.part"))


def test_the_key_of_a_stage_depends_on_every_part_and_on_the_order():
    keys = [stage_key(*parts) for parts in ((), ("a",), ("a", 1), (1, "a"), ("a", [1]), ("a", {"b": 1}), ("\ud800",))]
    assert len(set(keys)) == len(keys)
    assert stage_key({"a": 1, "b": 2}) == stage_key({"b": 2, "a": 1})


def test_the_progress_of_a_task_adds_up_to_its_bytes(tmp_path, jobs):
    (tmp_path / "stage").mkdir()
    told: list[float] = []
    sys.path.insert(0, str(jobs))
    perform(tmp_path / "stage", WORK, tasks_of(tmp_path, 1)[0], told.append)
    assert told == [3, 7]
    told.clear()
    perform(tmp_path / "stage", WORK, tasks_of(tmp_path, 1)[0], told.append)
    assert told == []
    assert calls(tmp_path) == {"t0": 1}


# ------------------------------------------------------------------------------------------------- where it is done


@pytest.mark.parametrize(
    ("workers", "n_tasks", "pool_s", "here"),
    [(1, 4, 0, True), (2, 4, 1.0, True), (2, 1, 0, True), (2, 4, 0, False)],
    ids=["one worker", "little to do", "one task", "much to do"],
)
def test_little_work_stays_in_this_process(tmp_path, jobs, monkeypatch, workers, n_tasks, pool_s, here):
    monkeypatch.setattr(engine, "POOL_S", pool_s)
    tell = {f"t{i}": {"tell": True, "sleep_s": 0.05} for i in range(n_tasks)}
    tasks = tasks_of(tmp_path, n_tasks, **tell)
    records = Engine(workers, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks, "key")
    pids = {record["pid"] for record in records}
    if here:
        assert pids == {os.getpid()}
    else:
        assert len(pids) == workers
        assert os.getpid() not in pids
    gc.collect()


def test_only_what_is_open_goes_to_workers(tmp_path, jobs, pool):
    run = Engine(2, None, (jobs,)).run
    run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 3), "key")
    records = run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 6, t5={"sleep_s": 0.1}), "key")
    assert [record["name"] for record in records] == [f"t{i}" for i in range(6)]
    assert set(calls(tmp_path).values()) == {1}


@pytest.mark.parametrize("missing", ["folder", "place"])
def test_a_worker_says_that_it_does_not_see_a_folder(tmp_path, missing):
    job = {
        "folder": str(tmp_path),
        "place": str(tmp_path),
        "function": WORK,
        "import_from": [],
        "name": "t",
        "bytes": 1,
    }
    done = json.loads(perform_text(json.dumps({**job, missing: str(tmp_path / "nowhere"), "arguments": {}})))
    assert done["name"] == "t"
    assert f"does not see {tmp_path}/nowhere" in done["user_error"][0]
    assert "all machines share" in done["user_error"][1]


def test_ray_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="--ray auto needs Ray") as raised:
        Engine(1, "auto").run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 2), "key")
    assert "rein[cluster]" in raised.value.fix


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_of_the_user_arrives_as_it_was_raised_and_what_is_done_stays(tmp_path, jobs, pool, workers):
    def run(mistake: str | None) -> list[dict]:
        wrong = {"t2": {"mistake": mistake, "after": ["t0", "t1"]}}
        return Engine(workers, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 4, **wrong), "key")

    with pytest.raises(UserError) as raised:
        run("user")
    assert (raised.value.problem, raised.value.fix) == ("The text is blue.", "Paint it.")
    assert not (tmp_path / "stage" / "t2.json").exists()
    assert [record["name"] for record in run(None)] == ["t0", "t1", "t2", "t3"]
    assert calls(tmp_path) == {"t0": 1, "t1": 1, "t2": 2, "t3": 1}


def test_any_other_error_of_a_worker_arrives_with_its_traceback_and_task(tmp_path, jobs, pool):
    wrong = {"t1": {"mistake": "ours"}}
    with pytest.raises(RuntimeError) as raised:
        Engine(2, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 3, **wrong), "key")
    said = str(raised.value)
    assert "stage, task t1" in said
    assert "engine_jobs.py" in said
    assert 'raise ZeroDivisionError("of nothing")' in said
    assert calls(tmp_path)["t1"] == 1  # an error is no death: once is enough


def test_any_other_error_here_is_itself(tmp_path, jobs):
    with pytest.raises(ZeroDivisionError, match="of nothing"):
        Engine(1, None, (jobs,)).run(
            tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 2, t0={"mistake": "ours"}), "key"
        )


def test_an_error_ends_the_stage_soon_not_when_everything_else_is_done(tmp_path, jobs, pool):
    of = {f"t{i}": {"sleep_s": 0.1} for i in range(1, 16)}
    with pytest.raises(UserError, match="The text is blue"):
        Engine(2, None, (jobs,)).run(
            tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 16, t0={"mistake": "user"}, **of), "key"
        )
    assert len(calls(tmp_path)) < 16


# ---------------------------------------------------------------------------------------------------------- deaths


def test_a_worker_that_is_killed_is_replaced_and_its_task_done_again(tmp_path, jobs, pool, capfd):
    deadly = {"t1": {"died": str(tmp_path / "died"), "again": False, "after": ["t0"]}}
    tasks = tasks_of(tmp_path, 5, **deadly)
    records = Engine(2, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks, "key")
    assert [record["name"] for record in records] == [f"t{i}" for i in range(5)]
    assert "a worker died" in capfd.readouterr().err
    assert calls(tmp_path)["t0"] == 1
    assert calls(tmp_path)["t1"] == 2
    undisturbed = tasks_of(tmp_path, 5)
    Engine(1, None, (jobs,)).run(tmp_path / "undisturbed", "t", WORK, undisturbed, "key")
    assert contents(tmp_path / "stage") == contents(tmp_path / "undisturbed")


SCRIPT = """
import json, sys, time
from pathlib import Path
from rein.cli import main
from rein.text import engine

def command(words):
    engine.POOL_S = 0
    job = json.loads(words[0])
    tasks = [engine.Task(*task) for task in job["tasks"]]
    engine.Engine(2, None, (Path(job["jobs"]),)).run(Path(job["stage"]), "t", "engine_jobs:work", tasks, "key")
    return 0

import rein.cli
rein.cli._run = command
sys.exit(main(sys.argv[1:]))
"""


def program(tmp_path: Path, jobs: Path, tasks: list[Task]) -> list[str]:
    """A command line that does the tasks with two workers, and ends as `rein` does."""
    (tmp_path / "script.py").write_text(SCRIPT)
    job = {
        "jobs": str(jobs),
        "stage": str(tmp_path / "stage"),
        "tasks": [[task.name, task.bytes, task.arguments] for task in tasks],
    }
    return [sys.executable, str(tmp_path / "script.py"), json.dumps(job)]


def session_of(pid: int) -> list[int]:
    """The living processes of the session that `pid` leads."""
    living = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == pid and fields[0] != "Z":
                living.append(int(stat.parent.name))
    return living


def wait_until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory, jobs):
    """Where a worker died each time a task was tried, how the program ended, and what it said."""
    tmp_path = tmp_path_factory.mktemp("hopeless")
    deadly = {"t2": {"died": str(tmp_path / "died"), "again": True, "after": ["t0", "t1"]}}
    words = program(tmp_path, jobs, tasks_of(tmp_path, 3, **deadly))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return tmp_path, done.returncode, done.stderr


def test_workers_that_die_again_and_again_end_it_and_what_is_finished_is_kept(hopeless):
    tmp_path, _, error = hopeless
    assert "UserError: Worker processes died 3 times while stage was made" in error
    assert "task t2" in error
    assert "fewer --workers" in error
    assert "Traceback" not in error
    assert calls(tmp_path) == {"t0": 1, "t1": 1, "t2": 3}
    assert (tmp_path / "stage" / "t0.json").exists()
    assert not (tmp_path / "stage" / "t2.json").exists()


def test_workers_that_die_again_and_again_end_it_with_2(hopeless):
    assert hopeless[1] == 2


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, jobs):
    """Where tasks were being done as Ctrl-C came, how the program ended, and what it said."""
    tmp_path = tmp_path_factory.mktemp("interrupted")
    slow = {f"t{i}": {"sleep_s": 0.2} for i in range(2, 40)}
    words = program(tmp_path, jobs, tasks_of(tmp_path, 40, **slow))
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert wait_until(lambda: len(list((tmp_path / "stage").glob("t*.json"))) > 3 or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)  # what the terminal sends
        _, error = process.communicate(timeout=20)
        left = [] if wait_until(lambda: not session_of(process.pid), 10) else session_of(process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return tmp_path, process.returncode, error, left


def test_interrupted_it_leaves_no_process_and_goes_on_where_it_was(interrupted, jobs):
    tmp_path, _, error, left = interrupted
    assert not left
    assert "Interrupted" in error
    assert "Traceback" not in error
    finished = {path.stem for path in (tmp_path / "stage").glob("t*.json")}
    assert 3 < len(finished) < 40
    records = Engine(1, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 40), "key")
    assert [record["name"] for record in records] == [f"t{i}" for i in range(40)]
    assert {calls(tmp_path)[name] for name in finished} == {1}
    assert not list((tmp_path / "stage").glob("*.part"))
    assert all(len(path.read_bytes()) == 1000 * len(path.stem) for path in (tmp_path / "stage").glob("*.out"))


def test_interrupted_it_ends_with_130(interrupted):
    assert interrupted[1] == 130


def test_killed_as_a_whole_it_goes_on_where_it_was(tmp_path, jobs):
    slow = {f"t{i}": {"sleep_s": 0.2} for i in range(2, 40)}
    words = program(tmp_path, jobs, tasks_of(tmp_path, 40, **slow))
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    assert wait_until(lambda: len(list((tmp_path / "stage").glob("t*.json"))) > 3 or process.poll() is not None)
    process.kill()  # not its workers: they notice
    process.wait()
    try:
        assert wait_until(lambda: not session_of(process.pid)), "workers outlive the process that started them"
    finally:
        for pid in session_of(process.pid):
            os.kill(pid, signal.SIGKILL)
    finished = {path.stem for path in (tmp_path / "stage").glob("t*.json")}
    assert 3 < len(finished) < 40
    Engine(1, None, (jobs,)).run(tmp_path / "stage", "t", WORK, tasks_of(tmp_path, 40), "key")
    assert {calls(tmp_path)[name] for name in finished} == {1}
