"""What a store does when its process is killed, its disk is full, or its file is not what it should be."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, event, insert, select, text

from rein.errors import UserError
from rein.feedback.database import StoreFault
from rein.feedback.store import Store
from rein.feedback.tables import audit

# Writes on several threads until it is killed. A line "+ NAME" is printed once NAME is acknowledged.
WRITER = """
import os, sys, threading
from rein.feedback.store import Store
from rein.feedback.tables import audit

address, run, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = Store.open(address)

def say(line):
    os.write(1, (line + "\\n").encode())

def writing(thread):
    for number in range(100_000):
        name = f"{run}.{thread}.{number}"
        say(f"? {name}")
        store.write(lambda conn: conn.execute(audit.insert().values(at_ms=1, act=name, about={}, address="")).rowcount)
        say(f"+ {name}")

for thread in range(threads):
    threading.Thread(target=writing, args=(thread,)).start()
"""


def kept(store: Store) -> Counter[str]:
    with store.reading() as conn:
        return Counter(conn.execute(select(audit.c.act)).scalars())


def noting(name: str) -> Callable[[Connection], str]:
    def work(conn: Connection) -> str:
        conn.execute(insert(audit).values(at_ms=1, act=name, about={}, address=""))
        return name

    return work


def once(name: str):
    """As a client sends again what it got no answer to: a key that is known is not counted again."""

    def work(conn: Connection) -> None:
        if conn.execute(select(audit.c.seq).where(audit.c.act == name)).first() is None:
            noting(name)(conn)

    return work


def killed_writer(address: str, run: int, after: int) -> tuple[set[str], set[str]]:
    """Starts a writer of four threads and kills it after some acknowledgements: what was tried, what acknowledged."""
    words = [sys.executable, "-c", WRITER, address, str(run), "4"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if sum(one[0] == "+" for one in lines[-8:]) and len(lines) >= 2 * after:
                break
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    marks = [line.split() for line in lines if line.endswith("\n")]
    return {name for mark, name in marks if mark == "?"}, {name for mark, name in marks if mark == "+"}


def test_what_was_acknowledged_is_there_once_after_kill_9(store):
    """Five kills at moments of their own, four threads each, on one store that is opened again each time."""
    address = store._address.url.set(drivername=store.dialect).render_as_string()
    store.close()
    draw = random.Random(5)
    tried: set[str] = set()
    acknowledged: set[str] = set()
    for run in range(5):
        more_tried, more_acknowledged = killed_writer(address, run, draw.randint(1, 60))
        tried |= more_tried
        acknowledged |= more_acknowledged
        assert more_acknowledged
        with Store.open(address) as again:
            found = kept(again)
            assert set(found) >= acknowledged
            assert set(found) <= tried
            assert set(found.values()) == {1}
            # What it does not know the fate of, a client sends again.
            for name in tried - acknowledged:
                again.write(once(name))
            assert kept(again) == Counter(dict.fromkeys(tried, 1))
            acknowledged = set(tried)


def test_what_was_acknowledged_is_there_after_the_server_crashed(new_postgres):
    """PostgreSQL stops at once, with all it held in memory; the store that was open goes on when it is back.

    The server's own setting is to acknowledge before anything is written: the store does not leave it at that.
    """
    server = new_postgres(settings=("fsync=off", "full_page_writes=off", "synchronous_commit=off"))
    try:
        address = server.database()
        with Store.open(address, create=True) as store:
            acknowledged = []
            stop = threading.Event()

            def writing(thread: int) -> None:
                for number in range(100_000):
                    try:
                        store.write(noting(f"{thread}.{number}"))
                    except StoreFault:
                        if stop.is_set():
                            return
                        time.sleep(0.02)
                    else:
                        acknowledged.append(f"{thread}.{number}")

            threads = [threading.Thread(target=writing, args=(thread,), daemon=True) for thread in range(4)]
            for thread in threads:
                thread.start()
            for _ in range(2):
                before, end = len(acknowledged), time.monotonic() + 30
                while len(acknowledged) < before + 40:
                    assert time.monotonic() < end, "the writers stand still"
                    time.sleep(0.01)
                server.stop(signal.SIGQUIT)
                server.start()
            stop.set()
            server.stop(signal.SIGQUIT)
            for thread in threads:
                thread.join()
            with pytest.raises(StoreFault, match="cannot be reached"):
                store.write(noting("nobody there"))
            with pytest.raises(StoreFault, match="cannot be reached"), store.reading():
                pass
            server.start()
            found = kept(store)
        assert set(found) >= set(acknowledged)
        assert set(found.values()) == {1}
    finally:
        server.close()


# ------------------------------------------------------------------------------------------------------ a full disk

# Fills the disk, asks what it was told, makes room, and goes on with the same store.
FILLER = """
import json, os, sys
from rein.errors import UserError
from rein.feedback.store import Store
from rein.feedback.tables import audit

path, how = sys.argv[1], sys.argv[2]
if how == "limit":
    import resource
store = Store.open(path, create=True)
acknowledged, told = [], []

def write(name):
    about = {"filling": "x" * 20_000}
    store.write(lambda conn: conn.execute(audit.insert().values(at_ms=1, act=name, about=about, address="")).rowcount)
    acknowledged.append(name)

def room(bytes_):
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_ or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    elif bytes_ is None:
        os.unlink(os.path.join(os.path.dirname(path), "ballast"))
    else:
        with open(os.path.join(os.path.dirname(path), "ballast"), "wb") as file:
            file.write(b"x" * 1_000_000)

room(1_000_000)
for number in range(200):
    try:
        write(f"a{number}")
    except UserError as error:
        told.append([type(error).__name__, str(error)])
        if len(told) == 3:
            break
if how == "limit":
    room(100_000)  # the copy would be smaller than what was allowed above
try:
    store.backup(path + ".copy")
except UserError as error:
    told.append([type(error).__name__, str(error)])
room(None)
for number in range(5):
    write(f"b{number}")
store.close()
print(json.dumps({"acknowledged": acknowledged, "told": told}))
"""


@pytest.mark.parametrize("how", ["limit", "disk"])
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path, how):
    """A limit on the size of files makes the commit fail; a small disk of its own makes it fail as a real one does."""
    path = tmp_path / "a.sqlite"
    words = [sys.executable, "-c", FILLER, str(path), how]
    if how == "disk":
        if os.getuid() or not shutil.which("unshare"):
            pytest.skip("only root may make a small disk to fill")
        # In a namespace of its own, so that the disk goes with the process; its files are copied out before.
        disk = tmp_path / "disk"
        disk.mkdir()
        words[3] = str(disk / "a.sqlite")
        script = f'mount -t tmpfs -o size=3m none {disk} || exit 77; "$@" && cp -r {disk}/. {tmp_path}/'
        words = ["unshare", "--mount", "sh", "-c", script, "sh", *words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip("no disk can be mounted here")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said["told"]) == 4
    for kind, message in said["told"][:3]:
        assert kind == "StoreFault"
        assert "disk is full" in message
        assert "Nothing of this change was kept" in message
    assert "Free some" in said["told"][3][1]  # of the backup
    assert not path.with_name("a.sqlite.copy").exists()
    assert not path.with_name("a.sqlite.copy.part").exists()
    assert len([name for name in said["acknowledged"] if name.startswith("a")]) > 10
    with Store.open(path) as store:
        assert kept(store) == Counter(said["acknowledged"])
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --------------------------------------------------------------------------------------------- a file that is not right


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A closed store with some rows."""
    path = tmp_path / "a.sqlite"
    with Store.open(path, create=True) as store:
        for number in range(50):
            store.write(noting(f"a{number}" + "x" * 1000))
    return path


def test_a_locked_store_is_waited_for_and_then_said(file):
    with Store.open(file, patience_s=0.2) as store, closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        futures = [store._submit(noting(f"b{number}")) for number in range(20)]
        begun = time.monotonic()
        for future in futures:
            with pytest.raises(StoreFault, match=r"locked by another process for 0.2 s"):
                future.result(20)
        assert time.monotonic() - begun < 3  # all were told, not one after another
        assert len(kept(store)) == 50  # who reads does not wait
        other.execute("COMMIT")
        assert store.write(noting("c")) == "c"


def test_a_lock_that_goes_in_time_is_not_noticed(file):
    code = (
        "import sqlite3, sys, time\nconn = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "conn.execute('BEGIN IMMEDIATE')\nprint('locked', flush=True)\ntime.sleep(0.3)\nconn.execute('COMMIT')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with Store.open(file) as store:
            assert store.write(noting("b")) == "b"


@pytest.mark.parametrize("left", [20, 60, 99, 100, 4095, 4096, 40_000, -4096, -1])
def test_a_file_that_was_cut_short_is_not_opened(file, left):
    size = file.stat().st_size
    os.truncate(file, left if left > 0 else size + left)
    with pytest.raises(StoreFault, match="damaged"):
        Store.open(file)


def test_a_file_cut_short_beside_its_log_is_told_by_reading_it(file):
    """With a log the size of the file says nothing, so that SQLite must find it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as raw:
        raw.execute("PRAGMA wal_autocheckpoint = 0")
        raw.execute("INSERT INTO audit (at_ms, act, about, address) VALUES (1, 'b', '{}', '')")
        copy = file.with_name("copy.sqlite")
        for end in ("", "-wal"):
            shutil.copy(f"{file}{end}", f"{copy}{end}")
    os.truncate(copy, 8192)
    with pytest.raises(StoreFault, match="damaged"), Store.open(copy) as store:
        kept(store)


def test_a_page_that_was_overwritten_is_said_where_it_is_read(file):
    with closing(sqlite3.connect(file)) as raw:
        (page,) = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'audit'").fetchone()
    with file.open("r+b") as raw_file:
        raw_file.seek(4096 * (page - 1))
        raw_file.write(os.urandom(4096))
    with Store.open(file) as store:
        with pytest.raises(StoreFault, match=r"damaged.*\n.*Restore a backup"):
            kept(store)
        with pytest.raises(StoreFault, match="damaged"):
            store.write(noting("b"))


@pytest.mark.parametrize("content", [b"{}", b"\0" * 200, b"SQLite format 2", b'{"prompt": "x"}\n' * 1000])
def test_another_kind_of_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    for create in (False, True):
        with pytest.raises(StoreFault, match="no feedback store"):
            Store.open(path, create=create)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_database_is_refused_and_left_alone(tmp_path, postgres):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE notes (text)")
    before = path.read_bytes()
    theirs = postgres.database()
    with psycopg.connect(theirs) as conn:
        conn.execute("CREATE TABLE notes (text text)")
    for address in (path, theirs):
        with pytest.raises(UserError, match=r"another program's: it has the tables notes"):
            Store.open(address, create=True)
    assert path.read_bytes() == before
    postgres.drop(theirs)


def test_a_store_keeps_its_locks_when_it_is_opened_once_more(file):
    """A file that is closed takes all locks of the process along; another one could then take the log away."""
    code = (
        "import sqlite3, sys\nconn = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)\n"
        "print(conn.execute('PRAGMA journal_mode = DELETE').fetchone()[0])\n"
    )
    with Store.open(file) as store:
        store.write(noting("b"))
        Store.open(file).close()
        # Leaving the log behind takes the file for oneself, which the lock of an open store forbids.
        done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=60)
        assert "database is locked" in done.stderr + done.stdout
        assert store.write(noting("c")) == "c"


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(StoreFault, match="is no file"):
        Store.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        Store.open(tmp_path / "file" / "a.sqlite", create=True)


def as_one_without_rights() -> list[str]:
    """The beginning of a command whose rights are those of the file's owner: root may otherwise do anything."""
    if os.getuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may write anywhere, and setpriv is not here to take that away")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


OPENER = """
import sys
from rein.errors import UserError
from rein.feedback.store import Store
try:
    Store.open(sys.argv[1], create=True).close()
except UserError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_written_is_said(file, what):
    path = file if what == "file" else file.parent
    mode = path.stat().st_mode
    path.chmod(0o444 if what == "file" else 0o555)
    try:
        words = [*as_one_without_rights(), sys.executable, "-c", OPENER, str(file)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    finally:
        path.chmod(mode)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("StoreFault")
    assert str(file) in done.stdout
    assert "may write" in done.stdout


# ------------------------------------------------------------------------------------------- a server that is not right


@pytest.fixture
def database(postgres) -> Iterator[str]:
    address = postgres.empty_store()
    yield address
    postgres.drop(address)


@pytest.mark.parametrize("state", ["53100", "53300", "25006", "42501", "55P03", "57P03", "58030", "XX001"])
def test_what_the_server_reports_is_a_fault_of_the_store(database, state):
    with Store.open(database) as store:

        def failing(conn: Connection) -> None:
            noting("half")(conn)
            conn.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'because' USING ERRCODE = '{state}'; END $$"))

        with pytest.raises(StoreFault, match="locked" if state == "55P03" else "because"):
            store.write(failing)
        assert store.write(noting("whole")) == "whole"
        assert kept(store) == {"whole": 1}


@pytest.mark.parametrize("moment", ["savepoint", "release_savepoint", "rollback_savepoint", "commit"])
def test_a_connection_that_breaks_at_any_moment_leaves_nobody_waiting(database, moment, monkeypatch):
    """In the middle of a group: between two works, at the end of one, while one is undone, at the commit."""
    monkeypatch.setattr("rein.feedback.store._GROUP_S", 60)
    with Store.open(database) as store, psycopg.connect(database, autocommit=True) as other:
        calls = []

        def breaking(conn: Connection, *_: object) -> None:
            calls.append(1)
            if len(calls) == (1 if moment in ("commit", "rollback_savepoint") else 2):
                pid = conn.connection.dbapi_connection.info.backend_pid
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        def failing(_: Connection) -> None:
            raise LookupError("no")

        event.listen(store._writer, moment, breaking)
        works = [lambda _: time.sleep(0.01), noting("a"), failing, noting("b")]
        futures = [store._submit(work) for work in works]
        failed = [future.exception(20) for future in futures]
        assert any(isinstance(error, StoreFault) for error in failed)
        acknowledged = {future.result() for future, error in zip(futures, failed, strict=True) if error is None}
        event.remove(store._writer, moment, breaking)
        assert store.write(noting("c")) == "c"
        assert set(kept(store)) == {"c"} | (acknowledged - {None})


def test_a_locked_server_is_waited_for_and_then_said(database):
    with Store.open(database, patience_s=0.2) as store, psycopg.connect(database) as other:
        other.execute(f"SELECT pg_advisory_xact_lock({0x7265696E})")
        with pytest.raises(StoreFault, match=r"locked by another program for 0.2 s"):
            store.write(noting("b"))
        assert kept(store) == {}
        other.rollback()
        assert store.write(noting("c")) == "c"


def test_a_server_that_only_reads_is_said(database):
    with psycopg.connect(database, autocommit=True) as conn:
        name = conn.info.dbname
        conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with Store.open(database) as store, pytest.raises(StoreFault, match="takes no changes"):
        store.write(noting("a"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.set(database="nowhere"), "does not exist"),
        (lambda url: url.set(username="stranger"), "does not exist"),
        (lambda url: url.set(query={"host": "/nowhere"}), "cannot be reached"),
        (lambda url: url.set(query={}, host="127.0.0.1", port=1, password="hunter22"), "cannot be reached"),
    ],
    ids=["database", "user", "socket", "port"],
)
def test_a_server_that_lets_nobody_in_is_said_without_the_password(postgres, change, said):
    address = change(postgres.url("postgres")).set(drivername="postgresql").render_as_string(hide_password=False)
    with pytest.raises(StoreFault, match=said) as caught:
        Store.open(address)
    assert "hunter22" not in str(caught.value)


def test_a_number_that_a_column_cannot_hold_is_said(database):
    """SQLite holds 64 bits in every column of whole numbers; PostgreSQL's plain ones hold 32."""
    statement = text("INSERT INTO instruction (project, version, text, created_ms) VALUES (1, 3000000000, '', 1)")
    with Store.open(database) as store, pytest.raises(UserError, match="beyond what its column holds"):
        store.write(lambda conn: conn.execute(statement).rowcount)


def test_psycopg_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"needs psycopg.*\n.*rein\[postgresql\]"):
        Store.open("postgresql://u@h/d")
