"""Mirrors: every row arrives once, whatever stops and starts; a run never notices that one fails."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein import mirrors
from rein.config import setting
from rein.errors import UserError
from rein.mirrors import KINDS, Kind, MirrorConfig, Mirrors, Tail, mirror, mirror_command
from rein.run import RunFolder, lock_folder


@dataclass(frozen=True)
class Settings:
    out: Path = setting(Path("out"), "run folder")
    n_layer: int = setting(2, "layers")


class Memory:
    """A dashboard in memory; what is in it outlives a start, as it does elsewhere."""

    kept: list[tuple[int, dict]]
    opened: list[tuple[mirrors.About, int | None]]
    closed: int

    def __init__(self, about, purge_step):
        type(self).opened.append((about, purge_step))
        if purge_step is not None and KINDS["memory"].takes_back:
            type(self).kept[:] = [(step, row) for step, row in self.kept if step < purge_step]

    def send(self, rows):
        type(self).kept.extend((row["opt_step"], {k: v for k, v in row.items() if k != "opt_step"}) for row in rows)

    def close(self):
        type(self).closed += 1


@pytest.fixture
def memory(monkeypatch):
    """`memory(takes_back=…)` makes the kind "memory" known, and returns the class with what arrived."""

    def make(*, takes_back: bool = True, dashboard: type = Memory) -> type:
        made = type("Made", (dashboard,), {"kept": [], "opened": [], "closed": 0})
        monkeypatch.setitem(KINDS, "memory", Kind(made, "json", takes_back, "look at {run}"))
        return made

    return make


def start(path: Path) -> RunFolder:
    return RunFolder(path, Settings())


def log(run: RunFolder, first: int, last: int, *, wall_s: float = 0.0) -> None:
    """Rows of the updates `first` … `last`, every fifth with an evaluation beside it."""
    for n in range(first, last + 1):
        run.log(opt_step=n, tokens=n * 100, wall_s=wall_s + n, train_loss=5 - n / 100)
        if n % 5 == 0:
            run.log(opt_step=n, tokens=n * 100, wall_s=wall_s + n + 0.5, heldout_loss=4 - n / 100)


def train(path: Path, first: int, last: int, *, kinds: tuple[str, ...] = ("memory",)) -> None:
    """A start that is mirrored while it logs those updates."""
    with start(path) as run, Mirrors(run.path, kinds) as mirrored:
        log(run, first, last)
        mirrored.pump()


def resume(path: Path, after: int, last: int) -> None:
    """A mirrored start from the checkpoint at `after`; its rows are later ones."""
    with start(path) as run:
        run.truncate_after(after)
        with Mirrors(run.path, ["memory"]) as mirrored:
            log(run, after + 1, last, wall_s=1000)
            mirrored.pump()


def stopped_and_resumed(path: Path, kind: str) -> None:
    """Updates 0 … 20 are sent; then the run goes back to 10 and on to 30, and is sent again."""
    with start(path) as run:
        log(run, 0, 20)
        mirror(path, [kind])
        run.truncate_after(10)
        log(run, 11, 30, wall_s=1000)
        mirror(path, [kind])


def told(kept: list[tuple[int, dict]], name: str) -> list[int]:
    return [step for step, row in kept if name in row]


# ------------------------------------------------------------------------------------------------------- the tail


def test_a_tail_gives_each_row_once_and_waits_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    tail = Tail(path)
    assert tail.rows() == []
    path.write_text('{"opt_step": 1}\n{"opt_step": 2}\n{"opt_s')
    assert [row["opt_step"] for row in tail.rows()] == [1, 2]
    assert tail.rows() == []
    with path.open("a") as file:
        file.write('tep": 3}\n')
    assert tail.went_back() is None
    assert [row["opt_step"] for row in tail.rows()] == [3]


def test_a_tail_counts_what_is_no_row_and_goes_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [
        '{"opt_step": 1}',
        "{",
        "[1]",
        "3",
        '"x"',
        "null",
        '{"tokens": 3}',
        '{"opt_step": null}',
        '{"opt_step": 4}',
    ]
    path.write_bytes("\n".join([*lines, "["]).encode() + b"\n\xff\n")
    tail = Tail(path)
    assert [row["opt_step"] for row in tail.rows()] == [1, 4]
    assert tail.n_damaged == 9


def test_a_line_longer_than_a_chunk_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(mirrors, "CHUNK_BYTES", 16)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"opt_step": 1, "x": "y" * 100}) + "\n" + json.dumps({"opt_step": 2}) + "\n")
    tail = Tail(path)
    found = []
    while rows := tail.rows():
        found += rows
    assert [row["opt_step"] for row in found] == [1, 2]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 30)),
            st.tuples(st.just("cut"), st.floats(0, 1)),
            st.tuples(st.just("read"), st.just(0)),
        ),
        max_size=80,
    )
)
@settings(deadline=None, max_examples=60)
def test_whatever_is_cut_and_appended_a_tail_ends_with_what_the_file_says(tmp_path_factory, deeds):
    path = tmp_path_factory.mktemp("tail") / "rows.jsonl"
    path.write_text("")
    tail, seen, written, clock = Tail(path), [], [], 0

    def read():
        back_to = tail.went_back()
        if back_to is not None:
            while seen and seen[-1]["opt_step"] > back_to:
                seen.pop()
        while rows := tail.rows():
            seen.extend(rows)

    for deed, size in deeds:
        if deed == "append":
            for _ in range(size):
                clock += 1  # no two rows are alike: a row has its time
                written.append({"opt_step": written[-1]["opt_step"] + 1 if written else 0, "wall_s": clock})
        elif deed == "cut":
            del written[int(len(written) * size) :]
        else:
            read()
        path.write_text("".join(json.dumps(row) + "\n" for row in written))
    read()
    assert seen == written
    assert len(tail.marks) <= mirrors.MARKS


# ------------------------------------------------------------------------------------------------ while it trains


def test_every_row_arrives_once_with_the_settings_of_the_run(tmp_path, memory):
    kind = memory()
    with start(tmp_path / "a" / "run") as run, Mirrors(run.path, ["memory"]) as mirrored:
        log(run, 0, 12)
        mirrored.pump()
        log(run, 13, 20)
    assert told(kind.kept, "train_loss") == list(range(21))
    assert told(kind.kept, "heldout_loss") == [0, 5, 10, 15, 20]
    (about, purge_step) = kind.opened[0]
    assert purge_step == 0
    assert about.name == "a/run"
    assert about.settings["n_layer"] == 2
    assert abs(about.began_s - time.time()) < 60
    assert (len(kind.opened), kind.closed) == (1, 1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mirror-")]


def test_without_kinds_there_is_nothing(tmp_path):
    train(tmp_path, 0, 3, kinds=())
    assert not (tmp_path / mirrors.STATE).exists()
    assert not (tmp_path / "mirrors.lock").exists()


def test_a_pump_returns_at_once_and_rows_arrive_before_the_end(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(mirrors, "EVERY_S", 0.01)

    class Slow(Memory):
        def send(self, rows):
            time.sleep(0.2)
            super().send(rows)

    kind = memory(dashboard=Slow)
    with start(tmp_path) as run, Mirrors(run.path, ["memory"]) as mirrored:
        log(run, 1, 5)
        began = time.monotonic()
        for _ in range(1000):
            mirrored.pump()
        assert time.monotonic() - began < 10  # waiting for each would take 200 s
        deadline = time.monotonic() + 10
        while not kind.kept and time.monotonic() < deadline:
            time.sleep(0.01)
        assert told(kind.kept, "train_loss") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("where", ["__init__", "send", "close"])
def test_a_mirror_that_fails_says_so_once_and_the_rest_goes_later(tmp_path, memory, monkeypatch, capsys, where):
    monkeypatch.setattr(mirrors, "EVERY_S", 0.01)
    fails = {"now": True}

    class Failing(Memory):
        pass

    def fail(self, *args):
        if fails["now"]:
            raise ConnectionError("no way\nthere")
        return getattr(Memory, where)(self, *args)

    setattr(Failing, where, fail)
    kind = memory(dashboard=Failing)
    with start(tmp_path) as run, Mirrors(run.path, ["memory"]) as mirrored:
        for n in range(4):
            log(run, n, n)
            mirrored.pump()
            time.sleep(0.05)
    said = capsys.readouterr().err
    assert said == (
        "The mirror memory stopped: ConnectionError: no way there. The run goes on; "
        f"`rein runs mirror {tmp_path} --to memory` sends the rest.\n"
    )
    fails["now"] = False
    mirror(tmp_path, ["memory"])
    assert told(kind.kept, "train_loss") == [0, 1, 2, 3]


def test_one_that_hangs_keeps_neither_the_others_nor_the_end(tmp_path, memory, monkeypatch, capsys):
    monkeypatch.setattr(mirrors, "CLOSE_S", 0.3)
    never = threading.Event()

    class Hanging(Memory):
        kept, opened, closed = [], [], 0

        def send(self, rows):
            never.wait()

    kind = memory()
    monkeypatch.setitem(KINDS, "hanging", Kind(Hanging, "json", True, ""))
    began = time.monotonic()
    train(tmp_path, 0, 3, kinds=("hanging", "memory"))
    assert time.monotonic() - began < 10
    assert told(kind.kept, "train_loss") == [0, 1, 2, 3]
    assert "The mirror hanging stopped: did not take the last rows within 0 s." in capsys.readouterr().err
    never.set()
    mirror(tmp_path, ["memory"])  # the lock was given back


# ------------------------------------------------------------------------------------------------- stops and starts


@pytest.mark.parametrize("takes_back", [True, False])
def test_the_next_start_sends_what_came_after(tmp_path, memory, takes_back):
    kind = memory(takes_back=takes_back)
    train(tmp_path, 0, 10)
    with start(tmp_path) as run:  # without a mirror
        log(run, 11, 14)
    train(tmp_path, 15, 20)
    assert told(kind.kept, "train_loss") == list(range(21))
    assert [purge_step for _, purge_step in kind.opened] == [0, None]
    assert len({about.id for about, _ in kind.opened}) == 1


@pytest.mark.parametrize("resumed_at", [0, 7, 10, 19])
def test_one_that_takes_rows_back_shows_the_file_as_it_is_after_a_resume(tmp_path, memory, resumed_at):
    kind = memory(takes_back=True)
    train(tmp_path, 0, 20)
    resume(tmp_path, resumed_at, 30)
    file = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kind.kept == [(row.pop("opt_step"), row) for row in file]


@pytest.mark.parametrize("resumed_at", [0, 7, 10, 19])
def test_one_that_cannot_keeps_the_first_of_each_row_after_a_resume(tmp_path, memory, resumed_at):
    kind = memory(takes_back=False)
    train(tmp_path, 0, 20)
    resume(tmp_path, resumed_at, 18)
    mirror(tmp_path, ["memory"])  # stopped once more in the midst of what is made again
    with start(tmp_path) as run, Mirrors(run.path, ["memory"]):
        log(run, 19, 30, wall_s=2000)
    assert told(kind.kept, "train_loss") == list(range(31))
    assert told(kind.kept, "heldout_loss") == list(range(0, 31, 5))
    walls = {step: row["wall_s"] for step, row in kind.kept if "train_loss" in row}
    assert walls[20] == 20
    assert walls[21] == 2021


def test_an_evaluation_that_was_not_sent_before_the_kill_is_sent_when_it_is_made_again(tmp_path, memory):
    kind = memory(takes_back=False)
    with start(tmp_path) as run:
        log(run, 0, 9)
        run.log(opt_step=10, tokens=1000, wall_s=10, train_loss=4.9)  # killed while it evaluates
        mirror(tmp_path, ["memory"])
        run.truncate_after(7)
        log(run, 8, 12, wall_s=1000)
    mirror(tmp_path, ["memory"])
    assert told(kind.kept, "train_loss") == list(range(13))
    assert told(kind.kept, "heldout_loss") == [0, 5, 10]


def test_after_many_rows_little_is_sent_again(tmp_path, memory, monkeypatch):
    kind = memory(takes_back=True)
    monkeypatch.setattr(mirrors, "CHUNK_BYTES", 2000)
    with start(tmp_path) as run:
        log(run, 0, 3000)
        assert mirror(tmp_path, ["memory"]) == {"memory": 3602}
        run.truncate_after(2950)
        log(run, 2951, 3000, wall_s=9)
    assert mirror(tmp_path, ["memory"])["memory"] < 150
    with start(tmp_path) as run:
        run.truncate_after(1500)
        log(run, 1501, 1510, wall_s=99)
    assert mirror(tmp_path, ["memory"])["memory"] < 500
    with start(tmp_path) as run:
        log(run, 1511, 3000, wall_s=99)
    mirror(tmp_path, ["memory"])
    assert told(kind.kept, "train_loss") == list(range(3001))


def test_a_kill_between_sending_and_noting_it_sends_the_last_rows_again(tmp_path, memory):
    kind = memory()
    with start(tmp_path) as run:
        log(run, 1, 4)
        mirror(tmp_path, ["memory"])
        note = (tmp_path / mirrors.STATE).read_text()
        log(run, 6, 9)
        mirror(tmp_path, ["memory"])
        (tmp_path / mirrors.STATE).write_text(note)
    assert mirror(tmp_path, ["memory"]) == {"memory": 4}
    assert set(told(kind.kept, "train_loss")) == {1, 2, 3, 4, 6, 7, 8, 9}


# ------------------------------------------------------------------------------------------------------- refusals


def test_an_unknown_kind_gets_a_suggestion(tmp_path):
    with pytest.raises(UserError, match="no mirror 'tensorbord'") as caught:
        Mirrors(tmp_path, ["tensorbord"])
    assert caught.value.fix == "Did you mean tensorboard?"


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_one_that_is_not_installed_names_the_command(tmp_path, monkeypatch, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"needs {name}, which is not installed") as caught:
        Mirrors(tmp_path, [name])
    assert caught.value.fix == f"pip install {name}"


def test_no_dashboard_is_imported_with_the_module():
    program = (
        "import sys, rein.mirrors; print([n for n in ('torch', 'tensorboard', 'wandb', 'mlflow') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_two_processes_do_not_send_the_same_run(tmp_path, memory):
    memory()
    with start(tmp_path) as run:
        log(run, 0, 1)
    with lock_folder(tmp_path, "mirrors.lock"), pytest.raises(UserError, match="Another process sends"):
        mirror(tmp_path, ["memory"])
    mirror(tmp_path, ["memory"])


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_notes_that_cannot_be_read_are_answered(tmp_path, memory, text):
    memory()
    with start(tmp_path) as run:
        log(run, 0, 1)
    (tmp_path / mirrors.STATE).write_text(text)
    with pytest.raises(UserError, match=r"mirrors\.json is damaged") as caught:
        mirror(tmp_path, ["memory"])
    assert "are sent again" in caught.value.fix


def test_what_is_no_run_is_answered(tmp_path, memory):
    memory()
    with pytest.raises(UserError, match=r"has no metrics\.jsonl"):
        mirror(tmp_path / "none", ["memory"])
    assert not (tmp_path / "none").exists()


def test_the_command_says_how_many_and_where_to_look(tmp_path, memory, capsys):
    memory()
    with start(tmp_path) as run:
        log(run, 0, 4)
    mirror_command(MirrorConfig((tmp_path,), ("memory",)))
    assert capsys.readouterr().out == f"{tmp_path}  memory  6 rows sent  (look at {tmp_path})\n"
    with pytest.raises(UserError, match="needs run folders and --to"):
        mirror_command(MirrorConfig((tmp_path,), ()))


def test_the_command_stops_where_a_dashboard_fails(tmp_path, memory):
    class Failing(Memory):
        def send(self, rows):
            raise OSError("no")

    memory(dashboard=Failing)
    with start(tmp_path) as run:
        log(run, 0, 4)
    with pytest.raises(UserError, match="memory failed: OSError: no"):
        mirror(tmp_path, ["memory"])


def test_only_finite_numbers_are_numbers():
    row = {"opt_step": 3, "a": 1, "b": 2.5, "c": math.nan, "d": math.inf, "e": "x", "f": True, "g": None}
    assert mirrors._numbers(row) == {"a": 1, "b": 2.5}


# -------------------------------------------------------------------------------------------------- the real ones


@pytest.mark.filterwarnings("ignore")  # what is within theirs is no matter of ours
def test_tensorboard_reads_back_what_the_file_says_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopped_and_resumed(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"tokens", "wall_s", "train_loss", "heldout_loss"} == set(events.Tags()["scalars"])
    loss = events.Scalars("train_loss")
    assert [event.step for event in loss] == list(range(31))
    assert [event.value for event in loss] == pytest.approx([5 - n / 100 for n in range(31)])
    assert [event.step for event in events.Scalars("heldout_loss")] == list(range(0, 31, 5))
    assert loss[30].wall_time - loss[10].wall_time == pytest.approx(1020)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_every_row_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    stopped_and_resumed(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("rein").experiment_id])
    assert found.data.params["n_layer"] == "2"
    history = client.get_metric_history(found.info.run_id, "train_loss")
    assert sorted(metric.step for metric in history) == list(range(31))


@pytest.mark.filterwarnings("ignore")
def test_trackio_has_every_row_once(tmp_path, monkeypatch):
    import sqlite3

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="trackio is not installed")
    stopped_and_resumed(tmp_path / "run", "trackio")
    rows = sqlite3.connect(tmp_path / "trackio" / "rein.db").execute("select step, metrics from metrics").fetchall()
    steps = [step for step, metrics in rows if "train_loss" in json.loads(metrics)]
    assert sorted(steps) == list(range(31))
