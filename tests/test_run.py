"""The run folder: one writer, the same settings, and nothing lost to a kill or a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rein import run
from rein.config import from_json, setting
from rein.errors import UserError
from rein.run import METRICS, RunFolder, read_rows, write_atomically


@dataclass(frozen=True)
class Settings:
    out: Path = setting(Path("out"), "run folder")
    n_layer: int = setting(2, "layers")


# Runs one line in a process that may write no file beyond 2,000 bytes: what a full disk looks like from within.
SMALL_DISK = """
import resource, signal, sys
from pathlib import Path
from rein.errors import UserError
from rein.run import RunFolder, write_atomically
from tests_settings import Settings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
path = Path(sys.argv[1])
try:
    exec(sys.argv[2])
except UserError as error:
    print(error)
    sys.exit(2)
"""


def on_a_small_disk(tmp_path: Path, path: Path, line: str) -> subprocess.CompletedProcess[str]:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "tests_settings.py").write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\nfrom rein.config import setting\n"
        "@dataclass(frozen=True)\nclass Settings:\n"
        "    out: Path = setting(Path('out'), 'run folder')\n    n_layer: int = setting(2, 'layers')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", SMALL_DISK, str(path), line],
        env={**os.environ, "PYTHONPATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=60,
    )


# ---------------------------------------------------------------------------------------------------- the folder


def test_a_new_run_keeps_its_settings_and_what_it_ran_on(tmp_path):
    with RunFolder(tmp_path / "a" / "run", Settings(n_layer=3)) as folder:
        assert not folder.resumed
    assert from_json(Settings, folder.path / "config.json") == Settings(n_layer=3)
    (start,) = json.loads((folder.path / "env.json").read_text())
    assert start["command"] == sys.argv
    assert {"rein", "python", "torch", "numpy", "platform", "threads", "cpu", "gpu", "started"} <= start.keys()


def test_a_run_goes_on_with_the_same_settings_and_every_start_is_noted(tmp_path):
    for resumed in (False, True, True):
        with RunFolder(tmp_path, Settings()) as folder:
            assert folder.resumed is resumed
    assert len(json.loads((tmp_path / "env.json").read_text())) == 3


def test_a_run_that_was_moved_goes_on(tmp_path):
    RunFolder(tmp_path / "a", Settings(out=tmp_path / "a")).close()
    (tmp_path / "a").rename(tmp_path / "b")
    with RunFolder(tmp_path / "b", Settings(out=tmp_path / "b")) as folder:
        assert folder.resumed


def test_other_settings_are_refused_by_name_and_value(tmp_path):
    RunFolder(tmp_path, Settings()).close()
    before = sorted(path.read_bytes() for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=r"other settings \(n_layer: 2 → 3\)") as caught:
        RunFolder(tmp_path, Settings(n_layer=3))
    assert f"--config {tmp_path}/config.json" in caught.value.fix
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == before
    RunFolder(tmp_path, Settings()).close()  # the lock was given back


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match=r"not empty \(thesis\.tex\) and holds no run"):
        RunFolder(tmp_path, Settings())
    (tmp_path / "thesis.tex").unlink()
    RunFolder(tmp_path, Settings()).close()


def test_what_a_killed_first_start_left_is_no_obstacle(tmp_path):
    (tmp_path / "run.lock").write_text("")
    (tmp_path / "config.json.part").write_text('{"n_lay')
    with RunFolder(tmp_path, Settings()) as folder:
        assert not folder.resumed


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_settings_that_cannot_be_read_are_answered(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"config\.json cannot be read") as caught:
        RunFolder(tmp_path, Settings())
    assert "--out" in caught.value.fix


def test_a_file_in_the_place_of_the_folder_is_answered(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="cannot be written"):
            RunFolder(path, Settings())


def test_two_processes_cannot_write_to_one_run(tmp_path):
    with RunFolder(tmp_path, Settings()):
        other = on_a_small_disk(tmp_path, tmp_path, "RunFolder(path, Settings())")
        assert other.returncode == 2, other.stderr
        assert "in use by another process" in other.stdout
    with RunFolder(tmp_path, Settings()):
        pass


def test_the_lock_goes_with_its_process_however_that_ends(tmp_path):
    RunFolder(tmp_path, Settings()).close()
    program = """
import fcntl, os, sys
lock = open(sys.argv[1] + "/run.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match="in use by another process"):
            RunFolder(tmp_path, Settings())
    finally:
        holder.kill()
        holder.communicate()
    RunFolder(tmp_path, Settings()).close()


# --------------------------------------------------------------------------------------------------- the metrics


def test_metrics_are_declared_once_with_unit_and_formula():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric.unit and metric.formula for metric in METRICS)
    assert "opt_step" in names


def test_rows_come_back_as_they_were_written(tmp_path):
    with RunFolder(tmp_path, Settings()) as folder:
        folder.log(opt_step=1, train_loss=2.5)
        assert list(read_rows(tmp_path / "metrics.jsonl")) == [{"opt_step": 1, "train_loss": 2.5}]  # at once
        folder.sample(opt_step=1, prompt="Ĥ", text="a\nb\u2028\r\n")
    with RunFolder(tmp_path, Settings()) as folder:
        folder.log(opt_step=2, train_loss=2.25)
    assert [row["opt_step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]
    assert list(read_rows(tmp_path / "samples.jsonl")) == [{"opt_step": 1, "prompt": "Ĥ", "text": "a\nb\u2028\r\n"}]


def test_a_metric_that_nobody_declared_is_our_mistake(tmp_path):
    with RunFolder(tmp_path, Settings()) as folder:
        with pytest.raises(AssertionError, match=r"not declared in run\.METRICS: \['loss'\]"):
            folder.log(opt_step=1, loss=2.0)
        with pytest.raises(AssertionError, match="without its opt_step"):
            folder.log(train_loss=2.0)
    assert list(read_rows(tmp_path / "metrics.jsonl")) == []


def test_a_missing_file_has_no_rows(tmp_path):
    assert list(read_rows(tmp_path / "metrics.jsonl")) == []


def test_rows_after_an_update_can_be_dropped_and_written_again(tmp_path):
    with RunFolder(tmp_path, Settings()) as folder:
        for opt_step in (1, 2, 3, 4):
            folder.log(opt_step=opt_step)
            folder.sample(opt_step=opt_step, prompt="", text="x")
        folder.truncate_after(2)
        folder.log(opt_step=3)
    assert [row["opt_step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert [row["opt_step"] for row in read_rows(tmp_path / "samples.jsonl")] == [1, 2]


def test_dropping_rows_of_a_run_without_any(tmp_path):
    with RunFolder(tmp_path, Settings()) as folder:
        folder.truncate_after(0)
        folder.log(opt_step=1)
    assert len(list(read_rows(tmp_path / "metrics.jsonl"))) == 1


# --------------------------------------------------------------------------------------------- a kill at any moment


def test_a_line_cut_short_at_any_byte_is_left_out_and_the_next_start_writes_on_behind_whole_rows(tmp_path):
    with RunFolder(tmp_path, Settings()) as folder:
        folder.sample(opt_step=1, prompt="", text="one")
        folder.sample(opt_step=2, prompt="é", text="two €")
    path = tmp_path / "samples.jsonl"
    data = path.read_bytes()
    first_row = data.index(b"\n") + 1
    for size in range(first_row, len(data)):
        path.write_bytes(data[:size])
        rows = [row["opt_step"] for row in read_rows(path)]
        assert rows == [1] or (size == len(data) - 1 and rows == [1, 2])
    for size in (first_row, first_row + 5, len(data) - 4, len(data) - 1):
        path.write_bytes(data[:size])
        with RunFolder(tmp_path, Settings()) as folder:
            folder.sample(opt_step=9, prompt="", text="")
        assert [row["opt_step"] for row in read_rows(path)] == [1, 9]


def test_a_broken_line_amid_others_is_answered(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"opt_step": 1}\n{"opt_st\n{"opt_step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl has a line that is not JSON: .*opt_st"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_kill_amid_a_write_leaves_the_old_file(tmp_path, monkeypatch, name):
    path = tmp_path / "env.json"
    write_atomically(path, "old")

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(run.os, name, kill)
        with pytest.raises(Killed):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["env.json"]


def test_a_real_kill_amid_many_writes_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file"
    program = """
import sys
from pathlib import Path
from rein.run import write_atomically
for i in range(10**9):
    write_atomically(Path(sys.argv[1]), str(i % 10) * 100_000)
    if i == 5:
        print("on", flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout
    writer.stdout.readline()
    writer.kill()
    writer.communicate()
    text = path.read_text()
    assert len(text) == 100_000
    assert len(set(text)) == 1


# --------------------------------------------------------------------------------------------------- a full disk


def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    ended = on_a_small_disk(tmp_path, path, "write_atomically(path, 3000 * 'x')")
    assert ended.returncode == 2, ended.stderr
    assert f"No room left while writing {path} (File too large; " in ended.stdout
    assert "--out" in ended.stdout
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "modules"]


@pytest.mark.parametrize(
    "line", ["folder.log(opt_step=i, train_loss=0.5)", "folder.sample(opt_step=i, prompt='', text='text')"]
)
def test_a_disk_that_fills_up_during_a_run_loses_no_row_written_before(tmp_path, line):
    path = tmp_path / "run"
    program = f"with RunFolder(path, Settings()) as folder:\n    for i in range(1000):\n        {line}"
    ended = on_a_small_disk(tmp_path, path, program)
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout.startswith("No room left while writing ")
    (rows,) = [rows for rows in map(list, map(read_rows, path.glob("*.jsonl"))) if rows]
    assert [row["opt_step"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 20
    with RunFolder(path, Settings()) as folder:
        folder.log(opt_step=1000)
        folder.sample(opt_step=1000, prompt="", text="")
    for file in path.glob("*.jsonl"):
        assert list(read_rows(file))[-1]["opt_step"] == 1000
