"""A store in a file that may not be written: what only reads goes on, and says where it cannot."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from desks import Desk, new_item
from sqlalchemy import select
from test_store_faults import as_one_without_rights, noting

from rein.errors import UserError
from rein.feedback import database
from rein.feedback.database import StoreFault
from rein.feedback.exchange.exporting import export_file, open_export
from rein.feedback.store import Store
from rein.feedback.tables import person


@pytest.fixture
def kept(tmp_path):
    """A store with an answer and a secret, in a folder of its own; it gets its rights back."""
    folder = tmp_path / "kept"
    folder.mkdir()
    path = folder / "labels.db"
    with Store.open(path, create=True) as store:
        desk = Desk(store, people=("ann", "bob"), items=[new_item("a")])
        desk.label("ann")
        assert store.secret
    yield path
    folder.chmod(0o755)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*as_one_without_rights(), sys.executable, "-m", "rein", "label", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def close_up(path: Path) -> None:
    for one in path.parent.iterdir():
        one.chmod(0o400 if one.name.endswith(".secret") else 0o444)
    path.parent.chmod(0o555)


def project_of(path: Path) -> str:
    from rein.feedback.tables import project

    with Store.open(path) as store, store.reading() as conn:
        return str(conn.execute(select(project.c.name)).scalar_one())


def test_all_that_only_reads_reads_a_store_that_may_not_be_written(kept, tmp_path):
    name = project_of(kept)
    close_up(kept)
    people = run("people", kept)
    assert (people.returncode, people.stderr) == (0, "")
    assert "ann" in people.stdout
    agreement = run("agreement", "--project", name, "--store", kept)
    assert (agreement.returncode, agreement.stderr) == (0, "")
    assert "1 answer" in agreement.stdout
    export = run("export", "--project", name, "--store", kept, "--format", "trl", "--out", tmp_path / "out.jsonl")
    assert export.returncode == 0, export.stderr
    assert "not in the audit log" in export.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    check = run("check", kept)
    assert (check.returncode, check.stderr) == (0, "")
    assert "in order" in check.stdout
    backup = run("backup", tmp_path / "copy.db", "--store", kept)
    assert (backup.returncode, backup.stderr) == (0, "")
    with Store.open(tmp_path / "copy.db") as store, store.reading() as conn:
        assert conn.execute(select(person.c.id)).all()
    assert sorted(one.name for one in kept.parent.iterdir()) == ["labels.db", "labels.db.secret"]


def test_what_writes_says_that_it_may_not(kept):
    close_up(kept)
    for words in (("invite", kept), ("serve", kept, "--no-browser", "--port", "0")):
        done = run(*words)
        assert done.returncode == 2
        assert f"{kept} may not be written" in done.stderr
        assert "Put the store where you may write" in done.stderr


def test_a_store_that_is_being_served_is_read_with_what_is_in_its_log(kept):
    with Store.open(kept) as store:
        store.write(noting("x"))
        assert kept.with_name("labels.db-wal").stat().st_size
        close_up(kept)
        try:
            done = run("people", kept)
        finally:
            kept.parent.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ann" in done.stdout


def test_a_log_without_its_index_says_what_to_do_and_that_helps(kept, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with Store.open(kept) as store:
        store.write(noting("x"))
        for ending in ("", "-wal"):
            shutil.copy(f"{kept}{ending}", other / f"labels.db{ending}")
    path = other / "labels.db"
    close_up(path)
    done = run("people", path)
    other.chmod(0o755)
    for one in other.iterdir():
        one.chmod(0o644)
    assert done.returncode == 2
    assert "its last changes are still in labels.db-wal" in done.stderr
    assert run("people", path).returncode == 0
    assert not (other / "labels.db-wal").exists()


def test_a_secret_that_is_not_there_is_needed_for_pseudonyms_alone(kept):
    name = project_of(kept)
    kept.with_name("labels.db.secret").unlink()
    close_up(kept)
    words = ("export", "--project", name, "--store", kept, "--format", "openai-comparisons")
    done = run(*words)
    assert done.returncode == 2
    assert "pass --names" in done.stderr
    done = run(*words, "--names")
    assert done.returncode == 0
    assert '"worker": "ann' in done.stdout


def test_a_file_that_is_changed_while_it_is_read_without_locks_is_no_answer(kept, monkeypatch, tmp_path):
    monkeypatch.setattr(database, "_may_be_written", lambda path: False)
    with Store.open(kept, to_read=True) as store:
        with store.reading() as conn:
            assert conn.execute(select(person.c.id)).all()
        with pytest.raises(StoreFault, match="may not be written"):
            store.write(noting("x"))
        with pytest.raises(StoreFault, match="changed by somebody while it was read"), store.reading():
            kept.write_bytes(kept.read_bytes())
        with pytest.raises(StoreFault, match="changed by somebody"):
            store.backup(tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize("format", ["rein", "hf"])
def test_an_export_of_what_was_changed_meanwhile_gets_no_name(kept, monkeypatch, tmp_path, format):
    name = project_of(kept)
    monkeypatch.setattr(database, "_may_be_written", lambda path: False)
    out = tmp_path / "out"

    def changed() -> None:
        kept.write_bytes(kept.read_bytes())
        store.check_unmoved()

    with Store.open(kept, to_read=True) as store:
        with pytest.raises(StoreFault, match="changed by somebody"), store.reading() as conn:
            export_file(open_export(conn, name, secret=b"x" * 32), format, out, changed)
        assert not out.exists()
        assert not list(tmp_path.glob("*.part"))


def test_a_file_that_was_changed_meanwhile_is_not_called_damaged(kept, monkeypatch):
    monkeypatch.setattr(database, "_may_be_written", lambda path: False)

    def read_what_is_torn(store: Store) -> None:
        with store.reading():
            kept.write_bytes(kept.read_bytes())
            raise sqlite3.DatabaseError("database disk image is malformed")

    with Store.open(kept, to_read=True) as store, pytest.raises(StoreFault, match="changed by somebody"):
        read_what_is_torn(store)


def test_a_file_that_may_not_be_read_is_said_so(kept):
    kept.chmod(0o000)
    done = run("people", kept)
    assert done.returncode == 2
    assert f"{kept} may not be read" in done.stderr


def test_opening_to_read_is_opening_where_the_file_may_be_written(kept, tmp_path):
    with Store.open(kept, to_read=True) as store:
        assert not store.only_read
        store.write(noting("x"))
    with pytest.raises(UserError, match="no feedback store"):
        Store.open(tmp_path / "none.db", to_read=True)
