"""The record of a lesson: what is written is read, torn or broken or changed files say so, numbers keep every bit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rein.errors import UserError
from rein.feedback.record import FORMAT, VERSION, RecordWriter, pack, read_record, unpack

HEADER = {"kind": "header", "format": FORMAT, "version": VERSION, "rein": "0.1", "config": {"task": "mountain-car"}}
ROWS = [
    HEADER,
    {"kind": "training", "on": True, "t": 0.0},
    {"kind": "step", "k": 0, "t": 0.0, "episode": 1, "obs": [0.1, -0.0], "action": 2, "source": "tamer", "reward": -1.0,
     "next": [0.1 + 0.2, 5e-324], "ended": None},
    {"kind": "press", "id": "ä-1", "by": "person", "value": 1.0, "t": 0.41, "credits": [[0, 1 / 3]]},
    {"kind": "control", "name": "pause", "value": True, "t": 0.5},
    {"kind": "note", "text": "a “note”\nof two lines", "t": 0.6},
]  # fmt: skip


def written(path, rows=ROWS, *, end: bool = False) -> bytes:
    log = RecordWriter(path)
    for row in rows:
        log.write(row)
    if end:
        log.write({"kind": "end", "t": 1.0, "steps": 1, "presses": 1, "digest": "d"})
    log.close()
    return path.read_bytes()


def error_of(path) -> UserError:
    with pytest.raises(UserError) as caught:
        list(read_record(path))
    assert str(path) in caught.value.problem
    return caught.value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lesson" / "record.jsonl"


# ------------------------------------------------------------------------------------------------ written and read


def test_what_is_written_is_read(path):
    data = written(path)
    assert list(read_record(path)) == ROWS
    assert data.count(b"\n") == len(ROWS)
    assert str(list(read_record(path))[2]["obs"][1]) == "-0.0"


def test_the_end_holds_the_checksum_of_all_lines_before_it(path):
    data = written(path, end=True)
    *lines, last = data.splitlines(keepends=True)
    end = list(read_record(path))[-1]
    assert end["sha256"] == json.loads(last)["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
    assert end["digest"] == "d"


def test_every_row_is_in_the_file_as_soon_as_it_is_written(path):
    log = RecordWriter(path)
    for n, row in enumerate(ROWS, start=1):
        log.write(row)
        assert list(read_record(path)) == ROWS[:n]
    log.close()


def test_a_killed_program_loses_no_row(path):
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom rein.feedback.record import RecordWriter\n"
        "log = RecordWriter(Path(sys.argv[1]))\n"
        f"for row in {ROWS!r}:\n    log.write(row)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -9
    assert list(read_record(path)) == ROWS


def test_closing_twice_is_closing(path):
    log = RecordWriter(path)
    log.write(HEADER)
    log.close()
    log.close()


def test_a_kind_of_row_that_there_is_not_is_a_mistake_of_ours(path):
    log = RecordWriter(path)
    with pytest.raises(AssertionError, match="thought"):
        log.write({"kind": "thought"})
    log.close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_no_number_that_is_none_is_written(path, number):
    log = RecordWriter(path)
    log.write(HEADER)
    for row in ({"kind": "note", "t": number}, {"kind": "note", "t": 0.0, "text": [{"deep": [number]}]}):
        with pytest.raises(ValueError, match="JSON"):
            log.write(row)
    log.write({"kind": "end", "t": 1.0})
    log.close()
    assert [row["kind"] for row in read_record(path)] == ["header", "end"]


# ---------------------------------------------------------------------------------------------- one writer, no loss


def test_a_record_is_never_written_over(path):
    data = written(path)
    with pytest.raises(UserError, match="never written over") as caught:
        RecordWriter(path)
    assert "--out" in caught.value.fix
    assert path.read_bytes() == data


def test_two_writers_are_one_too_many(path):
    log = RecordWriter(path)
    log.write(HEADER)
    with pytest.raises(UserError, match="being written by another process"):
        RecordWriter(path, append=True)
    log.write(ROWS[1])
    log.close()
    assert list(read_record(path)) == ROWS[:2]
    RecordWriter(path, append=True).close()


def test_another_process_may_not_write_either(path):
    log = RecordWriter(path)
    log.write(HEADER)
    program = (
        "import sys\nfrom pathlib import Path\nfrom rein.errors import UserError\n"
        "from rein.feedback.record import RecordWriter\n"
        "try:\n    RecordWriter(Path(sys.argv[1]), append=True)\nexcept UserError as error:\n    print(error.problem)\n"
    )
    told = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    log.close()
    assert "being written by another process" in told.stdout


def test_a_record_goes_on_where_it_was_torn(path):
    whole = written(path, ROWS[:3])
    with path.open("ab") as file:
        file.write(b'{"kind": "press", "id": "x", "val')
    log = RecordWriter(path, append=True)
    assert path.read_bytes() == whole
    log.write(ROWS[3])
    log.write({"kind": "end", "t": 1.0})
    log.close()
    rows = list(read_record(path))
    assert rows[:-1] == ROWS[:4]
    assert rows[-1]["sha256"] == hashlib.sha256(b"".join(path.read_bytes().splitlines(keepends=True)[:-1])).hexdigest()


def test_a_lesson_that_ended_may_go_on_and_end_again(path):
    written(path, end=True)
    log = RecordWriter(path, append=True)
    log.write(ROWS[5])
    log.write({"kind": "end", "t": 2.0})
    log.close()
    assert [row["kind"] for row in read_record(path)][-3:] == ["end", "note", "end"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        RecordWriter(tmp_path / "file" / "record.jsonl")


# -------------------------------------------------------------------------------------------------- broken files


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_left_out(path, cut):
    data = written(path)
    path.write_bytes(data[:-cut])
    assert list(read_record(path)) == ROWS[:-1]


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b'{"kind": "press", "id": "x"',
        b"[]",
        b"null",
        b"{}",
        b'{"kind": "thought"}',
        b'{"kind": "step", "k": 0}',
        b'{"kind": "press", "value": 1.0, "t": 0.0}',
        b'{"kind": "training", "t": 0.0}',
        b'{"kind": ["step"]}',
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
    ],
)
def test_a_broken_line_is_an_error_that_says_which(path, line):
    lines = written(path).splitlines()
    lines[3] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    error = error_of(path)
    assert "line 4 is broken" in error.problem
    assert "head" in error.fix


def test_a_row_says_what_it_lacks(path):
    written(path, [HEADER, {"kind": "step", "k": 0, "t": 0.0, "episode": 1, "action": 1, "source": "rl"}])
    assert "a step row without reward, next" in error_of(path).problem


def test_the_lines_before_a_broken_one_are_read(path):
    lines = written(path).splitlines()
    lines[3] = b"broken"
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows = read_record(path)
    assert [next(rows) for _ in range(3)] == ROWS[:3]
    with pytest.raises(UserError, match="line 4"):
        next(rows)


def test_another_version_is_an_error_that_names_both(path):
    written(path, [HEADER | {"version": 7, "rein": "9.9"}])
    error = error_of(path)
    assert "version 7" in error.problem
    assert f"version {VERSION}" in error.problem
    assert "9.9" in error.fix


@pytest.mark.parametrize(
    "first",
    [HEADER | {"format": "rein.corpus"}, HEADER | {"config": None}, ROWS[2], {"kind": "note"}],
    ids=["format", "config", "step", "note"],
)
def test_a_file_that_begins_otherwise_is_no_record(path, first):
    written(path, [first])
    assert "does not begin with the header" in error_of(path).problem


@pytest.mark.parametrize("data", [b"", b"\n", b"\x00\x01\x02", b"a text\nof two lines\n", b'{"kind": "header"'])
def test_a_file_that_is_no_record_is_an_error(tmp_path, data):
    path = tmp_path / "record.jsonl"
    path.write_bytes(data)
    error_of(path)


def test_a_missing_record_and_a_folder_are_errors(tmp_path):
    assert "does not exist" in error_of(tmp_path / "no.jsonl").problem
    error_of(tmp_path)


@pytest.mark.parametrize("line", range(1, len(ROWS)))
def test_a_record_that_was_changed_after_its_end_is_an_error(path, line):
    written(path, end=True)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"t": 0.', b'"t": 1.')
    path.write_bytes(b"".join(lines))
    error = error_of(path)
    assert f"line {len(ROWS) + 1}" in error.problem
    assert "checksum" in error.problem


def test_a_line_that_was_taken_out_of_a_record_is_missed(path):
    written(path, end=True)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert "was changed" in error_of(path).problem


def test_an_end_without_a_checksum_is_an_error(path):
    data = written(path)
    path.write_bytes(data + b'{"kind": "end", "t": 1.0}\n')
    assert "checksum" in error_of(path).problem


# ------------------------------------------------------------------------------------------------- observations

patiently = settings(deadline=None)  # the machine may be busy
numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20)
pictures = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 255)
)


@patiently
@given(numbers)
def test_any_numbers_come_back_to_the_last_bit(values):
    array = np.array(values, dtype=np.float64)
    back = unpack(json.loads(json.dumps(pack(array), allow_nan=False)))
    assert back.dtype == np.float64
    assert back.tobytes() == array.tobytes()


@patiently
@given(pictures)
def test_any_picture_comes_back(picture):
    back = unpack(json.loads(json.dumps(pack(picture))))
    assert (back.dtype, back.shape) == (picture.dtype, picture.shape)
    assert back.tobytes() == picture.tobytes()
    back[:] = 0  # it is ours


def test_a_picture_whose_rows_lie_apart_comes_back():
    picture = np.arange(96, dtype=np.uint8).reshape(2, 6, 8)[:, ::2, ::-1]
    assert np.array_equal(unpack(pack(picture)), picture)


def test_a_dull_picture_takes_little_room():
    assert len(json.dumps(pack(np.zeros((2, 84, 84), np.uint8)))) < 300


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.0,
        "abc",
        ["a"],
        [{}],
        {},
        {"dtype": "<f8", "shape": [1], "zlib": ""},
        {"dtype": "|O", "shape": [1], "zlib": ""},
        {"dtype": "|u1", "shape": [1]},
        {"dtype": "|u1", "shape": [1], "zlib": "AAAA"},
        {"dtype": "|u1", "shape": [1], "zlib": "not base 64!"},
        pack(np.zeros((2, 3, 3), np.uint8)) | {"shape": [5, 5, 5]},
    ],
)
def test_what_is_no_observation_is_a_value_error(value):
    with pytest.raises(ValueError):
        unpack(value)


def test_a_full_disk_is_an_error_that_names_the_record(path):
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom rein.errors import UserError\n"
        "from rein.feedback.record import RecordWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "log = RecordWriter(Path(sys.argv[1]))\n"
        f"log.write({HEADER!r})\n"
        "try:\n    while True:\n        log.write({'kind': 'note', 'text': 'a note', 't': 0.0})\n"
        "except UserError as error:\n    print(error.problem)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert f"No room left while writing {path}" in told.stdout
    rows = list(read_record(path))
    assert rows[0] == HEADER
    assert len(rows) > 3
