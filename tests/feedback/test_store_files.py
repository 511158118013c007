"""Where a store is, whose it is, its secret, and its backups."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text

from rein.errors import UserError
from rein.feedback import backup as backups
from rein.feedback.database import StoreFault, _network_disk, address_of
from rein.feedback.store import Store
from rein.feedback.tables import project, secret


def adding(name: str) -> Callable[[Connection], int]:
    return lambda conn: conn.execute(insert(project).values(name=name, settings={}, created_ms=1)).rowcount


def names(store: Store) -> list[str]:
    with store.reading() as conn:
        return list(conn.execute(select(project.c.name).order_by(project.c.id)).scalars())


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not come about within 20 s"
        time.sleep(0.001)


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert address_of("a.sqlite").path == tmp_path / "a.sqlite"
    assert address_of(Path("x/é ?.sqlite")).path == tmp_path / "x/é ?.sqlite"
    assert address_of("sqlite:///a.sqlite").path == tmp_path / "a.sqlite"
    assert address_of("sqlite:////b/a.sqlite").path == Path("/b/a.sqlite")
    assert address_of("postgres://u@h/d").url.drivername == "postgresql+psycopg"
    shown = str(address_of("postgresql://u:secret@h:5/d?sslmode=require"))
    assert shown == "postgresql://u:***@h:5/d?sslmode=require"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mysql://u:secret@h/d", "'mysql' is not known"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql://u:secret@h", "names no database"),
        ("postgresql://u:secret@h:port/d", "cannot be read"),
    ],
)
def test_addresses_that_are_none(address, said):
    with pytest.raises(UserError, match=said) as caught:
        Store.open(address)
    assert "secret" not in str(caught.value)


def test_a_missing_file_says_what_to_type_and_is_not_made(tmp_path):
    with pytest.raises(UserError, match=r"no feedback store at .*\n.*rein label new"):
        Store.open(tmp_path / "a.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_or_database_is_no_store(tmp_path, postgres):
    (tmp_path / "a.sqlite").touch()
    empty = postgres.database()
    for address in (tmp_path / "a.sqlite", empty):
        with pytest.raises(UserError, match=r"no feedback store in .*\n.*rein label new"):
            Store.open(address)
        Store.open(address, create=True).close()
    postgres.drop(empty)


def test_the_file_is_its_owners_alone(tmp_path):
    with Store.open(tmp_path / "new" / "a.sqlite", create=True) as store:
        store.write(adding("a"))
        store.backup(tmp_path / "copy.sqlite")
        assert len(store.secret) == 32
        files = [*(tmp_path / "new").iterdir(), tmp_path / "copy.sqlite"]
        assert {one.name for one in files} >= {"a.sqlite", "a.sqlite-wal", "a.sqlite-shm", "copy.sqlite"}
        assert {one.stat().st_mode & 0o077 for one in files} == {0}


def test_names_with_every_character_are_names_of_files(tmp_path):
    path = tmp_path / "a?mode=ro&b#c%20 é😀.sqlite"
    with Store.open(path, create=True) as store:
        store.write(adding("a"))
        store.backup(tmp_path / "copy?x#.sqlite")
    with Store.open(tmp_path / "copy?x#.sqlite") as copy:
        assert names(copy) == ["a"]


def test_commits_wait_for_the_disk(tmp_path):
    with Store.open(tmp_path / "a.sqlite", create=True) as store:
        pragmas = store.write(lambda conn: [conn.execute(text(f"PRAGMA {one}")).scalar() for one in
                                            ("journal_mode", "synchronous", "foreign_keys")])  # fmt: skip
    assert pragmas == ["wal", 2, 1]


def test_several_processes_can_make_one_store_at_once(tmp_path):
    code = "import sys\nfrom rein.feedback.store import Store\nStore.open(sys.argv[1], create=True).close()\n"
    made = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.sqlite")]) for _ in range(4)]
    assert [one.wait(60) for one in made] == [0] * 4
    with Store.open(tmp_path / "a.sqlite") as store:
        assert names(store) == []


def test_one_server_at_a_time_holds_a_file(tmp_path):
    with Store.open(tmp_path / "a.sqlite", create=True) as first, Store.open(tmp_path / "a.sqlite") as second:
        first.hold()
        first.hold()  # what it has, it has
        with pytest.raises(UserError, match=rf"being served by another process \(process {os.getpid()}\)"):
            second.hold()
        second.write(adding("beside"))  # but others still write
        first.close()
        second.hold()


def test_several_servers_may_share_postgresql(postgres):
    address = postgres.empty_store()
    with Store.open(address) as first, Store.open(address) as second:
        first.hold()
        second.hold()
    postgres.drop(address)


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/shared /shared nfs4 rw 0 0
/dev/vdb /shared/my\\040disk ext4 rw 0 0
//server/share /mnt cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/a", None),
        ("/shared/ann/a", "nfs4"),
        ("/shared/my disk/a", None),
        ("/mnt/a", "cifs"),
        ("/shareds/a", None),
    ],
)
def test_a_network_disk_is_known(path, kind):
    assert _network_disk(Path(path), MOUNTS) == kind


def test_a_network_disk_is_warned_about(tmp_path, monkeypatch):
    monkeypatch.setattr("rein.feedback.store.network_disk", lambda path: "nfs4")
    with pytest.warns(UserWarning, match=r"network disk \(nfs4\)"):
        Store.open(tmp_path / "a.sqlite", create=True).close()


# ----------------------------------------------------------------------------------------------------- the secret


def test_the_secret_is_made_once_for_each_installation(new_store):
    one, other = new_store(), new_store()
    assert len(one.secret) == 32
    assert one.secret != other.secret
    with Store.open(one._address.url.render_as_string(), secret_file=one._secret_file) as again:
        assert again.secret == one.secret


def test_the_secret_of_a_file_lies_beside_it(tmp_path):
    with Store.open(tmp_path / "a.sqlite", create=True) as store:
        kept = store.secret
        assert (tmp_path / "a.sqlite.secret").stat().st_mode & 0o777 == 0o600
        with store.reading() as conn:
            assert conn.execute(select(secret.c.value)).all() == []
    (tmp_path / "b").mkdir()
    with Store.open(tmp_path / "a.sqlite", secret_file=tmp_path / "b" / "s") as other:
        assert other.secret != kept


def test_the_secret_of_postgresql_is_the_same_wherever_it_is_asked_for(tmp_path, monkeypatch, postgres):
    """An export gives a person the same pseudonym on each machine."""
    address = postgres.empty_store()
    found = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with Store.open(address) as store:
            found.append(store.secret)
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert list(tmp_path.rglob("*.*")) == []
    postgres.drop(address)


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "ff" * 33])
def test_a_file_that_holds_no_secret_is_refused(tmp_path, text):
    path = tmp_path / "s"
    path.write_text(text)
    path.chmod(0o600)
    with (
        Store.open(tmp_path / "a.sqlite", create=True, secret_file=path) as store,
        pytest.raises(UserError, match="holds no secret"),
    ):
        _ = store.secret


def test_a_secret_that_others_may_read_is_refused(tmp_path):
    with Store.open(tmp_path / "a.sqlite", create=True) as store:
        kept = store.secret
        store._secret_file.chmod(0o640)
        with Store.open(tmp_path / "a.sqlite") as again, pytest.raises(UserError, match="chmod 600"):
            _ = again.secret
        store._secret_file.chmod(0o600)
        with Store.open(tmp_path / "a.sqlite") as again:
            assert again.secret == kept


def test_all_who_make_the_secret_at_once_get_the_same(tmp_path):
    code = "import sys\nfrom rein.feedback.store import Store\nprint(Store.open(sys.argv[1]).secret.hex())\n"
    Store.open(tmp_path / "a.sqlite", create=True).close()
    words = [sys.executable, "-c", code, str(tmp_path / "a.sqlite")]
    made = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({one.communicate(timeout=60)[0] for one in made}) == 1
    assert sorted(one.name for one in tmp_path.iterdir() if "secret" in one.name) == ["a.sqlite.secret"]


# ---------------------------------------------------------------------------------------------------- the backup


def test_a_backup_is_a_store_of_one_moment_made_while_it_is_in_use(tmp_path):
    with Store.open(tmp_path / "a.sqlite", create=True) as store:
        stop = threading.Event()
        count = [0]

        def work() -> None:
            while not stop.is_set():
                store.write(adding(f"p{count[0]}"))
                count[0] += 1

        thread = threading.Thread(target=work)
        thread.start()
        _until(lambda: count[0] > 20)
        before = count[0]
        store.backup(tmp_path / "folder" / "copy.sqlite")
        after = count[0]
        _until(lambda: count[0] > after)  # and nobody was held up for good
        stop.set()
        thread.join()
    with Store.open(tmp_path / "folder" / "copy.sqlite") as copy:
        found = names(copy)
    assert found == [f"p{number}" for number in range(len(found))]
    assert before <= len(found) <= after + 1
    assert list((tmp_path / "folder").glob("*.part")) == []


def test_a_backup_of_postgresql_is_restored_by_its_own_program(tmp_path, postgres):
    address, other = postgres.empty_store(), postgres.database()
    with Store.open(address) as store:
        store.write(adding("a"))
        store.backup(tmp_path / "copy.dump")
    subprocess.run([postgres.program("pg_restore"), "-d", other, tmp_path / "copy.dump"], check=True)
    with Store.open(other) as copy:
        assert names(copy) == ["a"]
    postgres.drop(address)
    postgres.drop(other)


def test_a_backup_is_never_written_over_another_file(store, tmp_path):
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(UserError, match="exists"):
        store.backup(tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_copy_that_is_damaged_is_not_taken_for_a_backup(tmp_path, monkeypatch):
    """The check reads the copy back; a fault of the disk in between is found, and the copy goes."""
    real = sqlite3.connect

    def spoiling(target, **options):
        if str(target).endswith(".part"):
            with Path(target).open("r+b") as file:
                file.seek(4096 + 8)  # of the second page: the header of a b-tree, its pointers behind it
                file.write(b"\xff" * 600)
        return real(target, **options)

    with Store.open(tmp_path / "a.sqlite", create=True) as store:
        store.write(adding("a"))
        monkeypatch.setattr(backups.sqlite3, "connect", spoiling)
        with pytest.raises(StoreFault, match="damaged"):
            store.backup(tmp_path / "copy.sqlite")
    assert [one.name for one in tmp_path.iterdir() if "copy" in one.name] == []


def test_a_backup_of_postgresql_needs_its_program(tmp_path, postgres, monkeypatch):
    address = postgres.empty_store()
    with Store.open(address) as store:
        monkeypatch.setattr("shutil.which", lambda name: None)
        with pytest.raises(UserError, match="pg_dump, which is not installed"):
            store.backup(tmp_path / "copy.dump")
    assert list(tmp_path.iterdir()) == []
    postgres.drop(address)


def test_what_pg_dump_says_is_said(tmp_path, postgres):
    address = postgres.empty_store()
    with Store.open(address) as store:
        store._reader.dispose()
        store._writer.dispose()  # nobody may be connected to it
        postgres.run(f"ALTER DATABASE {store._address.url.database} RENAME TO elsewhere")
        with pytest.raises(StoreFault, match=r"pg_dump could not copy .*does not exist"):
            store.backup(tmp_path / "copy.dump")
    assert list(tmp_path.iterdir()) == []
    postgres.run("DROP DATABASE elsewhere")
