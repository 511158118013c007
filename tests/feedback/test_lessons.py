"""Lessons in the store: a record goes in as rows, and comes out as the file it was."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from rein.agents.replay import ReplayConfig, replay
from rein.agents.simulation import SimulateConfig, simulate
from rein.errors import UserError
from rein.feedback import lessons as in_parts
from rein.feedback.answers import record
from rein.feedback.database import StoreFault
from rein.feedback.items import create_project, load_project
from rein.feedback.lessons import Kept, check_store, keep_lesson, lessons, put_lesson, write_lesson
from rein.feedback.people import add_person
from rein.feedback.project import PRESETS
from rein.feedback.record import RecordWriter, encode, read_record
from rein.feedback.refused import Refused
from rein.feedback.store import Store
from rein.feedback.tables import answer, feedback, item, person, project

NOW = 1_700_000_000_000


@pytest.fixture(scope="session")
def lesson(tmp_path_factory):
    """The folder of a short lesson, with rows of every kind."""
    out = tmp_path_factory.mktemp("lessons") / "maze"
    simulate(SimulateConfig("loop-maze", episodes=3, train_episodes=2, out=out))
    return out


@pytest.fixture
def path(lesson, tmp_path):
    return Path(shutil.copy(lesson / "record.jsonl", tmp_path / "record.jsonl"))


def put(store: Store, path, name: str = "lessons") -> Kept:
    def work(conn):
        try:
            number, _ = load_project(conn, name)
        except Refused:
            number = create_project(conn, NOW, lessons(name))
        who = conn.execute(select(person.c.id).where(person.c.name == "Ann")).scalar()
        return put_lesson(conn, NOW, number, who or add_person(conn, NOW, "Ann", "labeler"), path)

    return store.write(work)


def written(store: Store, number: int) -> bytes:
    with store.reading() as conn, io.BytesIO() as out:
        lines = write_lesson(conn, number, out)
        assert out.getvalue().count(b"\n") == lines
        return out.getvalue()


def counted(store: Store, table, *where) -> int:
    with store.reading() as conn:
        return conn.execute(select(func.count()).select_from(table).where(*where)).scalar_one()


def test_a_record_comes_out_byte_for_byte(store, path):
    kept = put(store, path)
    assert kept.added == path.read_bytes().count(b"\n") > 100
    assert written(store, kept.item) == path.read_bytes()


def test_what_comes_out_replays_to_the_same_weights(store, path, tmp_path, capsys):
    out = tmp_path / "again.jsonl"
    out.write_bytes(written(store, put(store, path).item))
    replay(ReplayConfig(out))
    assert "equal to the record's, to the last bit" in capsys.readouterr().out


def test_each_press_is_a_row_and_so_is_every_other_line(store, path):
    kept = put(store, path)
    rows = list(read_record(path))
    presses = [row for row in rows if row["kind"] == "press"]
    assert len(presses) > 10
    with store.reading() as conn:
        said = conn.execute(select(feedback).where(feedback.c.kind == "press").order_by(feedback.c.seq)).all()
        events = conn.execute(select(feedback).where(feedback.c.kind == "event")).all()
        about = conn.execute(select(item).where(item.c.id == kept.item)).one()
    assert [row.value for row in said] == json.loads(json.dumps(presses))
    assert {(row.act, row.question) for row in said} == {("say", "press")}
    assert {(row.act, row.question) for row in events} == {("event", "")}
    assert len(said) + len(events) == len(rows) == kept.added
    assert about.context["task"] == "loop-maze"
    assert about.context["config"]["episodes"] == 3
    assert "out" not in about.context["config"]
    assert [candidate["policy"] for candidate in about.candidates] == ["tamer"]
    assert counted(store, answer) == 0  # a press answers no question of a labeler


def test_a_lesson_is_never_handed_out(store, path):
    kept = put(store, path)
    with store.reading() as conn:
        row = conn.execute(select(item.c.closed, item.c.room).where(item.c.id == kept.item)).one()
    assert row == (True, 0)


def test_the_same_record_again_adds_nothing(store, path):
    first = put(store, path)
    assert put(store, path) == Kept(first.item, 0, first.added)
    assert counted(store, feedback) == first.added


def test_a_lesson_that_went_on_adds_its_new_lines_alone(store, path, tmp_path):
    whole = path.read_bytes().splitlines(keepends=True)
    part = tmp_path / "part.jsonl"
    part.write_bytes(b"".join(whole[:60]))
    first = put(store, part)
    assert first.added == 60
    assert put(store, path) == Kept(first.item, len(whole) - 60, 60)
    assert written(store, first.item) == path.read_bytes()
    assert put(store, part) == Kept(first.item, 0, 60)  # an older copy
    assert written(store, first.item) == path.read_bytes()


def test_a_last_line_that_a_kill_cut_short_stays_out_until_the_lesson_goes_on(store, path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    kept = put(store, path)
    assert written(store, kept.item) == whole[: whole[: len(whole) // 2].rfind(b"\n") + 1]
    path.write_bytes(whole)
    put(store, path)
    assert written(store, kept.item) == whole


def test_another_record_with_the_same_beginning_is_refused_and_changes_nothing(store, path):
    kept = put(store, path)
    before = path.read_bytes()
    lines = before.splitlines(keepends=True)
    lines[40] = lines[40].replace(b'"t": ', b'"t": 1', 1)
    path.write_bytes(b"".join(lines[:80]))
    with pytest.raises(UserError, match="line 41 is not what the store has of this lesson"):
        put(store, path)
    assert written(store, kept.item) == before


def test_a_record_whose_checksum_is_wrong_is_not_kept_in_part(store, path):
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[40]
    path.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match="checksum"):
        put(store, path)
    assert counted(store, feedback) == counted(store, item) == 0


def test_lines_written_otherwise_come_out_as_they_were(store, path):
    """A header that a person laid out anew, and what only JSON can say."""
    lines = path.read_bytes().splitlines(keepends=True)[:20]
    lines[0] = json.dumps(json.loads(lines[0]), separators=(" ,", ":")).encode() + b"\r\n"
    lines.append('{"kind":"note","text":"\\u00e9 é \\u0007 \U0001f600 \u202e","t":1e0}\n'.encode())
    lines.append(b'{"kind":"note","text":"twice","text":"once","t":-0.0}\n')
    path.write_bytes(b"".join(lines))
    assert written(store, put(store, path).item) == path.read_bytes()


def test_numbers_come_out_to_the_last_bit(store, tmp_path):
    path = tmp_path / "record.jsonl"
    values = [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.pi, 1e22, 123456789012345678]
    log = RecordWriter(path)
    log.write({"kind": "header", "format": "rein.tamer", "version": 1, "config": {"task": "x"}})
    for number, value in enumerate(values):
        log.write({"kind": "note", "text": f"{number}", "t": 0.0, "value": value})
    log.write({"kind": "end", "t": 1.0, "steps": 0, "presses": 0, "digest": "none"})
    log.close()
    assert written(store, put(store, path).item) == path.read_bytes()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"kind": "note", "text": "\\ud800", "t": 0.0}\n', "line 3 cannot be kept: the value cannot be written"),
        (b'{"kind": "note", "text": "a\\u0000", "t": 0.0}\n', "line 3 cannot be kept: it has a NUL"),
        (b'{"kind": "note", "text": "x", "t": NaN}\n', "line 3 cannot be kept: the value cannot be written"),
        (b'{"kind": "press", "id": "a", "value": 1, "t": 0, "credits": [[0, 7]]}\n', "the share of credit 1 is 7"),
        (b"not JSON\n", "line 3 is broken"),
    ],
    ids=["half a character", "NUL", "NaN", "a share of 7", "no JSON"],
)
def test_a_line_that_cannot_be_kept_is_named_and_nothing_is_kept(store, path, line, says):
    lines = path.read_bytes().splitlines(keepends=True)[:2]
    path.write_bytes(b"".join([*lines, line]))
    with pytest.raises(UserError, match=says):
        put(store, path)
    assert counted(store, item) == 0


def test_what_is_no_record_is_refused(store, tmp_path):
    for name, text in (("missing", None), ("empty", b""), ("other", b'{"prompt": "x"}\n')):
        path = tmp_path / name
        if text is not None:
            path.write_bytes(text)
        with pytest.raises(UserError, match=str(path)):
            put(store, path)


def test_two_lessons_of_one_task_are_two_items_and_two_projects_may_have_the_same_one(store, path, tmp_path):
    other = tmp_path / "other.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)[:20]
    header = json.loads(lines[0])
    lines[0] = encode({**header, "environment": {**header["environment"], "started": "2020-01-01T00:00:00+0000"}})
    other.write_bytes(b"".join(lines))
    one, two, elsewhere = put(store, path), put(store, other), put(store, path, "elsewhere")
    assert len({one.item, two.item, elsewhere.item}) == 3
    assert written(store, two.item) == other.read_bytes()
    assert written(store, one.item) == written(store, elsewhere.item) == path.read_bytes()


def test_a_project_that_asks_for_no_presses_takes_no_lesson(store, path):
    def work(conn):
        number = create_project(conn, NOW, PRESETS["comparison"])
        return put_lesson(conn, NOW, number, add_person(conn, NOW, "Ann", "labeler"), path)

    with pytest.raises(Refused, match="The project comparison asks for no presses"):
        store.write(work)


def test_an_item_that_is_no_lesson_cannot_be_written(store):
    with store.reading() as conn, pytest.raises(UserError, match="Item 7 is no lesson"):
        write_lesson(conn, 7, io.BytesIO())


def test_a_line_that_is_missing_in_the_store_is_noticed(store, path):
    kept = put(store, path)

    def gap(conn):
        row = conn.execute(select(feedback).order_by(feedback.c.seq.desc()).limit(1)).mappings().one()
        again = {**row, "key": f"lesson {kept.item}:9999"}
        del again["seq"]
        conn.execute(feedback.insert().values(again))

    store.write(gap)
    with store.reading() as conn, pytest.raises(UserError, match=f"its line {kept.added + 1} is not where it belongs"):
        write_lesson(conn, kept.item, io.BytesIO())


# ---------------------------------------------------------------------------------------- of the commands


def test_a_simulated_lesson_goes_into_the_store_and_into_a_project_of_its_task(tmp_path, capsys):
    where = str(tmp_path / "labels.sqlite")
    config = SimulateConfig("loop-maze", episodes=2, out=tmp_path / "one", store=where)
    simulate(config)
    said = capsys.readouterr().out
    lines = (tmp_path / "one" / "record.jsonl").read_bytes().count(b"\n")
    assert f"store             {where}, project tamer-loop-maze: {lines:,} lines added\n" in said
    simulate(dataclasses.replace(config, out=tmp_path / "two", trainer_seed=1))
    replay(ReplayConfig(tmp_path / "one" / "record.jsonl", store=where))
    assert f"0 lines added, {lines:,} lines known" in capsys.readouterr().out
    with Store.open(where) as store:
        assert counted(store, project) == 1
        assert counted(store, item) == 2
        assert counted(store, person, person.c.simulated) == counted(store, person) == 1


def test_a_lesson_outlives_a_store_that_fails_and_says_how_to_go_on(path, tmp_path):
    where = tmp_path / "labels.sqlite"
    where.write_bytes(b"no database at all" * 100)
    before = path.read_bytes()
    said = keep_lesson(str(where), path)
    assert f"not kept in {where}" in said
    assert f"rein tamer replay {path} --store {where}" in said
    assert path.read_bytes() == before
    where.unlink()
    assert "lines added" in keep_lesson(str(where), path)


def test_a_lesson_that_was_put_in_by_halves_goes_on_from_there(path, tmp_path, monkeypatch):
    where = str(tmp_path / "labels.sqlite")
    monkeypatch.setattr(in_parts, "_AT_ONCE", 50)
    calls = []

    def fails_the_third_time(conn, **said):
        calls.append(said)
        if len(calls) == 3:
            raise StoreFault("The disk is full.", "Free some space.")
        return record(conn, **said)

    monkeypatch.setattr(in_parts, "record", fails_the_third_time)
    said = keep_lesson(where, path)
    assert f"not kept in {where}: The disk is full." in said
    lines = path.read_bytes().count(b"\n")
    assert f"{lines - 100} lines added, 100 lines known" in keep_lesson(where, path)
    with Store.open(where) as store:
        assert written(store, 1) == path.read_bytes()


def test_a_record_that_is_broken_at_its_end_is_not_put_in_by_parts_either(path, tmp_path):
    where = str(tmp_path / "labels.sqlite")
    with path.open("ab") as file:
        file.write(b'{"kind": "note", "text": "\\ud800", "t": 0.0}\n')
    assert "cannot be kept" in keep_lesson(where, path)
    with Store.open(where) as store:
        assert counted(store, feedback) == counted(store, project) == 0


def test_a_store_that_cannot_be_opened_is_said_before_the_lesson_begins(tmp_path):
    (tmp_path / "file").touch()
    for store in (tmp_path / "file" / "labels.db", tmp_path):
        with pytest.raises(UserError, match=str(tmp_path)):
            simulate(SimulateConfig("loop-maze", episodes=1, out=tmp_path / "one", store=str(store)))
    assert not (tmp_path / "one").exists()


def test_no_password_of_a_store_gets_into_a_record(tmp_path):
    with pytest.raises(UserError, match=r"(?s)--store has a password.*PGPASSWORD") as caught:
        simulate(
            SimulateConfig("loop-maze", episodes=1, out=tmp_path / "one", store="postgresql://ann:secret@localhost/x")
        )
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "one").exists()
    with pytest.raises(UserError):
        check_store("postgresql://ann:secret@local host:port/x/y?z")


def test_a_record_says_nothing_of_the_store_that_it_went_into(tmp_path, path):
    simulate(SimulateConfig("loop-maze", episodes=1, out=tmp_path / "one", store=str(tmp_path / "labels.sqlite")))
    header = next(read_record(tmp_path / "one" / "record.jsonl"))
    assert header["config"]["store"] is None


def test_a_lesson_on_the_page_goes_into_the_store_when_it_ends(tmp_path):
    where, out = tmp_path / "labels.sqlite", tmp_path / "one"
    command = [sys.executable, "-m", "rein", "tamer", "play", "loop-maze", "--trainer", "rule", "--no-plain", "--port"]
    command += ["0", "--no-browser", "--step-s", "0.05", "--store", str(where), "--out", str(out)]
    record = out / "record.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until and not (record.exists() and record.read_bytes().count(b"\n") > 20):
                time.sleep(0.05)
            program.send_signal(signal.SIGINT)
            said, _ = program.communicate(timeout=60)
        finally:
            program.kill()
    line = rf"^store +{re.escape(str(where))}, project tamer-loop-maze: (\d+) lines added$"
    found = re.search(line, said, re.MULTILINE)
    assert found, said
    assert int(found[1]) == record.read_bytes().count(b"\n") > 20
    with Store.open(where) as store:
        assert written(store, 1) == record.read_bytes()
