"""Stages: done once, known by content, whole after any kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rein.errors import UserError
from rein.loop.stages import BEGUN, DONE, Stage, Waiting, read, run


def writes(text, name="made.txt"):
    def make(folder: Path) -> None:
        (folder / name).write_text(text)
        (folder / "log.txt").write_text(f"by {os.getpid()}")

    return make


def stage(text="one", *, files=("made.txt",), settings=None, inputs=None, make=None):
    return Stage("a stage", settings or {"n": 1}, inputs or {"prompts": "abc"}, make or writes(text), files)


def refuse(folder: Path) -> None:
    raise AssertionError("a stage that is done was made again")


def test_what_is_done_is_not_done_again(tmp_path):
    first = run(tmp_path / "a", stage())
    again = run(tmp_path / "a", stage(make=refuse))
    assert (again.key, again.digest) == (first.key, first.digest)
    assert list(first.made) == ["made.txt"]  # a log is nothing that a later stage reads


def test_equal_bytes_are_equal_wherever_and_from_whatever_they_were_made(tmp_path):
    one = run(tmp_path / "a", stage())
    other = run(tmp_path / "b", stage(settings={"n": 2}))
    assert one.key != other.key
    assert one.digest == other.digest
    assert run(tmp_path / "c", stage("two")).digest != one.digest
    assert run(tmp_path / "d", stage(make=writes("one", "made2.txt"), files=("made*.txt",))).digest != one.digest


def test_a_stage_that_fails_has_no_record_and_goes_on_in_its_folder(tmp_path):
    def fails(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise UserError("no room", "make some")

    with pytest.raises(UserError, match="no room"):
        run(tmp_path / "a", stage(make=fails))
    assert read(tmp_path / "a") is None

    def goes_on(folder: Path) -> None:
        (folder / "made.txt").write_text((folder / "half.txt").read_text() + "whole")

    assert run(tmp_path / "a", stage(make=goes_on)).digest == run(tmp_path / "b", stage("halfwhole")).digest


def test_waiting_leaves_no_record(tmp_path):
    def waits(folder: Path) -> None:
        raise Waiting("for people")

    with pytest.raises(Waiting):
        run(tmp_path / "a", stage(make=waits))
    assert read(tmp_path / "a") is None
    run(tmp_path / "a", stage())


@pytest.mark.parametrize("done", [True, False])
def test_other_settings_are_named(tmp_path, done):
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    if done:
        run(tmp_path / "a", stage(settings={"n": 1, "pairs": "x"}))
    else:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "a", stage(settings={"n": 1, "pairs": "x"}, make=interrupted))
    with pytest.raises(UserError, match=r"other settings \(n: 1 → 2; seed: none → 3\)"):
        run(tmp_path / "a", stage(settings={"n": 2, "pairs": "x", "seed": 3}))
    with pytest.raises(UserError, match="from another prompts than there is now"):
        run(tmp_path / "a", stage(settings={"n": 1, "pairs": "x"}, inputs={"prompts": "def"}))


@pytest.mark.parametrize("what", ["changed", "missing"])
def test_a_file_that_changed_after_it_was_made_is_named(tmp_path, what):
    run(tmp_path / "a", stage())
    path = tmp_path / "a" / "made.txt"
    path.write_text("two") if what == "changed" else path.unlink()
    with pytest.raises(UserError, match=r"made\.txt (has changed since|is missing)"):
        run(tmp_path / "a", stage())


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"key": "k", "settings": {}, "inputs": {}}'])
def test_a_damaged_record_is_named(tmp_path, text):
    run(tmp_path / "a", stage())
    (tmp_path / "a" / DONE).write_text(text)
    with pytest.raises(UserError, match=r"done\.json is damaged"):
        run(tmp_path / "a", stage())


def test_a_record_whose_key_is_another_is_damaged(tmp_path):
    run(tmp_path / "a", stage())
    about = json.loads((tmp_path / "a" / DONE).read_text())
    (tmp_path / "a" / DONE).write_text(json.dumps({**about, "key": "0" * 64}))
    with pytest.raises(UserError, match="its key is not that of what it lists"):
        run(tmp_path / "a", stage())


# Forks for every start, so that what is imported is imported once.
CHAIN = """
import json, os, signal, sys
from pathlib import Path
from rein.loop import stages

top = Path(sys.argv[1])
replace, sync = os.replace, stages.sync

def make(n, before, step):
    def made(folder):
        for part in range(3):
            step()
            (folder / f"part-{part}.txt").write_text(f"{n} {part} {before}")
    return made

def chain(out, kill_at):
    calls = 0
    def step():
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    def replaced(*names):
        step()
        replace(*names)
        step()
    def synced(path):
        step()
        sync(path)
    os.replace, stages.sync = replaced, synced
    before = "start"
    for n in range(3):
        stage = stages.Stage(f"stage {n}", {"n": n}, {"before": before}, make(n, before, step), ("part-*.txt",))
        before = stages.run(out / str(n), stage).digest
    (top / f"{out.name}.json").write_text(json.dumps([before, calls]))

def start(out, kill_at):
    child = os.fork()
    if not child:
        chain(out, kill_at)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

kills = []
start(top / "whole", 0)
for kill_at in range(1, 31):
    out = top / f"killed-{kill_at:02d}"
    for again in range(60):
        code = start(out, kill_at if again < 50 else 0)  # a kill before anything is on the disk lets nothing through
        kills.append(code)
        if code == 0:
            break
print(json.dumps(kills))
"""


def test_killed_at_every_step_it_ends_with_the_same_bytes(tmp_path):
    found = subprocess.run([sys.executable, "-c", CHAIN, str(tmp_path)], capture_output=True, text=True, check=True)
    codes = json.loads(found.stdout)
    assert set(codes) == {0, -signal.SIGKILL}
    assert codes.count(0) == 30
    whole, n_steps = json.loads((tmp_path / "whole.json").read_text())
    assert n_steps == 3 * (2 + 3 + 3 + 2)  # begun, parts, files that are kept, done
    assert codes.count(-signal.SIGKILL) >= n_steps  # at each step once, at least
    for kill_at in range(1, n_steps + 1):
        assert json.loads((tmp_path / f"killed-{kill_at:02d}.json").read_text())[0] == whole
        for n in range(3):
            names = sorted(path.name for path in (tmp_path / f"killed-{kill_at:02d}" / str(n)).iterdir())
            assert names == sorted([BEGUN, DONE, *(f"part-{part}.txt" for part in range(3))])
