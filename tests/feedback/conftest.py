"""Stores to test with: SQLite files, and databases of a real PostgreSQL server that lives as long as the session."""

from __future__ import annotations

import ctypes
import functools
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

from rein.feedback import migrations
from rein.feedback.store import Store
from rein.feedback.tables import metadata

sys.path.insert(0, str(Path(__file__).parent))  # desks.py and saying.py, which the tests import

# Quicker than a server that must survive a power cut.
FORGETFUL = ("fsync=off", "full_page_writes=off")


class Postgres:
    """A server of our own on a Unix socket, in a folder of its own, and its databases."""

    def __init__(self, programs: Path, settings: tuple[str, ...] = FORGETFUL) -> None:
        # Below /tmp: the path of a socket is at most 107 bytes long, and the server's user must get there.
        self.folder = Path(tempfile.mkdtemp(prefix="rein-pg-", dir="/tmp"))
        self._programs = programs
        self._settings = settings
        # PostgreSQL refuses to run as root, and wants its files to be its own.
        self._user = _another_user() if os.getuid() == 0 else None
        if self._user:
            os.chown(self.folder, *self._user)
        self._call("initdb", "--auth=trust", "--username=rein", "--encoding=UTF8", "--locale=C", "--no-sync", "-D",
                   str(self.folder / "data"))  # fmt: skip
        said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        self.version = int(re.search(r"(\d+)", said)[1])
        self._numbers = count()
        self._template = ""
        self._emptied: list[str] = []
        self.start()

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            settings = ("listen_addresses=", "max_connections=200", *self._settings)
            self.process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder),
                 *(f"--{one}" for one in settings)],
                stdout=log, stderr=log, cwd=self.folder, preexec_fn=_end_with_parent, **self._as_user(),
            )  # fmt: skip
        end = time.monotonic() + 30
        while True:
            try:
                self.run("SELECT 1")
                return
            except OperationalError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast shutdown. SIGQUIT: at once, as after a power cut."""
        self.process.send_signal(how)
        self.process.wait(30)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def run(self, statement: str) -> None:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    def program(self, name: str) -> Path:
        return self._programs / name

    def url(self, database: str) -> URL:
        return URL.create("postgresql+psycopg", "rein", database=database, query={"host": str(self.folder)})

    def database(self, template: str = "template0") -> str:
        """Makes a database, a copy of another one; returns its address."""
        name = f"test{next(self._numbers)}"
        # With fsync off, copying files is the quicker way; PostgreSQL before 15 has no other.
        strategy = "STRATEGY file_copy" if self.version >= 15 else ""
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
        return self.url(name).set(drivername="postgresql").render_as_string()

    def empty_store(self) -> str:
        """A database with the newest schema and no rows; returns its address."""
        if self._emptied:
            return self._emptied.pop()
        if not self._template:
            made = self.database()
            Store.open(made, create=True).close()
            self._template = str(make_url(made).database)
        return self.database(self._template)

    def give_back(self, address: str) -> None:
        """Empties a store's database for the next test, which is much quicker than to drop it and to make another."""
        engine = create_engine(self.url(str(make_url(address).database)))
        try:
            with engine.begin() as connection:
                changed = migrations.version_of(connection) != migrations.VERSION
                if not changed:
                    # Its owner may switch the triggers off that keep what is append-only.
                    connection.execute(text("SET LOCAL session_replication_role = replica"))
                    for table in metadata.tables:
                        connection.execute(text(f'DELETE FROM "{table}"'))
                    connection.execute(text("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"))
        finally:
            engine.dispose()
        if changed:
            self.drop(address)
        else:
            self._emptied.append(address)

    def drop(self, address: str) -> None:
        self.run(f"DROP DATABASE {make_url(address).database} WITH (FORCE)")

    def _call(self, program: str, *words: str) -> None:
        done = subprocess.run([str(self._programs / program), *words], capture_output=True, text=True, cwd=self.folder,
                              **self._as_user())  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    def _as_user(self) -> dict:
        return {"user": self._user[0], "group": self._user[1], "extra_groups": []} if self._user else {}


def _another_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    return 65_534, 65_534


def _end_with_parent() -> None:
    """Asks Linux to stop the server when these tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def postgresql_programs() -> Path | None:
    """Where PostgreSQL's server is: on the PATH, or where Debian puts it."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql")
    places += sorted(versions.glob("*/bin"), key=lambda one: float(one.parent.name), reverse=True)
    return next((one for one in places if (one / "initdb").exists() and (one / "postgres").exists()), None)


@pytest.fixture(scope="session")
def new_postgres() -> Callable[..., Postgres]:
    """Starts a PostgreSQL server, which the caller closes; skips where the programs are not installed."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql, or put initdb and postgres on the PATH")
    return functools.partial(Postgres, programs)


@pytest.fixture(scope="session")
def postgres(new_postgres: Callable[..., Postgres]) -> Iterator[Postgres]:
    """The PostgreSQL server of this session."""
    server = new_postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in a file, with no rows: copying it is quicker than making another."""
    path = tmp_path_factory.mktemp("template") / "empty.sqlite"
    Store.open(path, create=True).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def new_store(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], Store]]:
    """Makes an empty store as often as it is called, in milliseconds; all are closed in the end.

    A test that calls it many times closes each store when it is done with it: its database then serves the next.
    """
    numbers = count()
    used: list[tuple[Store, str]] = []

    def make() -> Store:
        for store, address in used:
            if store._closed:
                tidy(store, address)
                used.remove((store, address))
                break
        number = next(numbers)
        if dialect == "sqlite":
            address = str(tmp_path / f"store{number}.sqlite")
            shutil.copy(request.getfixturevalue("sqlite_template"), address)
        else:
            address = request.getfixturevalue("postgres").empty_store()
        store = Store.open(address, secret_file=tmp_path / f"store{number}.secret")
        used.append((store, address))
        return store

    def tidy(store: Store, address: str) -> None:
        store.close()
        if dialect == "postgresql":
            request.getfixturevalue("postgres").give_back(address)

    yield make
    for store, address in used:
        tidy(store, address)


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    """An empty store: each test runs on a SQLite file and on PostgreSQL."""
    return new_store()
