"""The databases a store may be in: an address → engines that read and write, and what goes wrong in words.

Flow     "labels.sqlite", "sqlite:///…", "postgresql://…" → `Address` → a writing and a reading engine
         an error of the database → `StoreFault`, which a person can put right, or the error itself

SQLite   WAL, so that readers never wait; synchronous=FULL, so that a commit is on the disk when it returns; BEGIN
         IMMEDIATE, because a transaction that reads and then writes may otherwise fail however long it would wait
         (sqlite.org/lang_transaction.html).
Postgres An advisory lock around each writing transaction: one writer at a time, as in SQLite, however many servers
         share the database. Works need no locks of their own and see all that was committed before them.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from rein.errors import UserError

# Of PostgreSQL's advisory locks, ours: "rein" in ASCII.
_LOCK = 0x7265696E
_CACHE_KIB = 32_768  # of pages, for each connection to SQLite
CONNECTIONS = 16  # that may read at once; more wait
# Where a commit may not be on a disk when it returns, or locks are advice that nobody follows.
_NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "ceph", "glusterfs", "lustre")


class StoreFault(UserError):
    """The store cannot be read or written now: its disk, its lock, its server. Nothing was acknowledged."""

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        return StoreFault, (self.problem, self.fix)


@dataclass(frozen=True)
class Address:
    """Where a store is: a SQLite file, or a PostgreSQL database."""

    url: URL
    path: Path | None  # of the file; None: PostgreSQL
    only_read: str = ""  # how SQLite opens a file that may not be written
    found: tuple[int, int] | None = None  # of one that is read without locks: its size and time when it was opened

    def __str__(self) -> str:
        return str(self.path) if self.path else self.url.set(drivername="postgresql").render_as_string()


def address_of(text: str | Path) -> Address:
    """Reads an address.

    Example  >>> address_of("sqlite:////data/labels.sqlite").path
             PosixPath('/data/labels.sqlite')
             >>> str(address_of("postgresql://ann:secret@db.example/labels"))
             'postgresql://ann:***@db.example/labels'
    Raises   UserError for another kind of database, and for an address that is none.
    """
    if isinstance(text, Path) or "://" not in text:
        return _file(Path(text))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Not repeated: it may hold a password.
        raise UserError(
            "The address of the store cannot be read.", "Write a path, or postgresql://USER:PASSWORD@HOST/DATABASE."
        ) from None
    kind = url.drivername.partition("+")[0]
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise UserError(f"{text} names no file, but a store is kept.", "Write a path, such as labels.sqlite.")
        return _file(Path(url.database))
    if kind in ("postgresql", "postgres"):
        if not url.database:
            raise UserError(
                f"{url.render_as_string()} names no database.", "Write postgresql://USER:PASSWORD@HOST/DATABASE."
            )
        return Address(url.set(drivername="postgresql+psycopg"), None)
    raise UserError(
        f"A store in {kind!r} is not known.", "Write a path for a SQLite file, or postgresql://USER@HOST/DATABASE."
    )


def _file(path: Path) -> Address:
    path = path.absolute()
    return Address(URL.create("sqlite", database=str(path)), path)


def for_reading(address: Address) -> Address:
    """The address as it is; or, of a SQLite file that may not be written, one by which it can be read.

    Readers of a log (WAL) need its index beside it. Where there is one, it is used with its locks. Where there is no
    log, the file is whole by itself, and is read without locks: `check_unmoved` says whether it stayed so.

    Raises   StoreFault for a file that may not be read, and for a log without its index, which cannot be made.
    """
    path = address.path
    if path is None or not path.is_file() or _may_be_written(path):
        return address
    if not os.access(path, os.R_OK):
        raise StoreFault(f"{path} may not be read.", "Ask its owner for the right to, or name another.")
    log, index = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
    if not index.exists() and log.exists() and log.stat().st_size:
        raise StoreFault(
            f"{path} may not be written, and its last changes are still in {log.name}, which cannot be read so.",
            f"Copy both to a folder where you may write, and name that copy; or let its owner run `rein label people`, "
            f"which moves {log.name} into it.",
        )
    how = {"mode": "ro"} if index.exists() else {"mode": "ro", "immutable": "1"}
    url = URL.create("sqlite", database=path.as_uri(), query={**how, "uri": "true"})
    words = "&".join(f"{name}={value}" for name, value in how.items())
    return Address(url, path, words, None if index.exists() else _state(path))


def check_unmoved(address: Address) -> None:
    """Raises StoreFault where a file was written while it was read without locks: what was read may be torn."""
    if address.found and address.path and _state(address.path) != address.found:
        raise StoreFault(f"{address} was changed by somebody while it was read.", "Do the same again.")


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _may_be_written(path: Path) -> bool:
    return all(os.access(one, os.W_OK) for one in (path, path.parent))


def writing_engine(address: Address, patience_s: float) -> Engine:
    """Whose transactions hold the lock of the store from their beginning to their end."""
    engine = _engine(address, patience_s, connections=1)
    if address.path:

        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:

        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    event.listen(engine, "begin", begin)
    return engine


def reading_engine(address: Address, patience_s: float) -> Engine:
    """Whose transactions see one moment of the store, and can change nothing."""
    engine = _engine(address, patience_s, connections=CONNECTIONS)
    if not address.path:
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def connect(raw: sqlite3.Connection, _: object) -> None:
        raw.execute("PRAGMA query_only = ON")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _engine(address: Address, patience_s: float, connections: int) -> Engine:
    options: dict[str, Any] = {"json_serializer": to_json, "pool_size": connections, "max_overflow": 0}
    options["pool_timeout"] = patience_s
    options["hide_parameters"] = True  # in the text of an error: they may be what a person said, or a digest
    if address.path:
        engine = create_engine(address.url, connect_args={"timeout": patience_s}, **options)
        event.listen(engine, "connect", _prepare)
    else:
        settings = {
            "synchronous_commit": "on",  # whatever the server's own is: a commit is on the disk when it returns
            "lock_timeout": math.ceil(1000 * patience_s),
            "idle_in_transaction_session_timeout": 60_000,  # a server that hangs does not keep the others waiting
        }
        words = " ".join(f"-c {name}={value}" for name, value in settings.items())
        arguments = {"options": words, "connect_timeout": 10, "application_name": "rein"}
        try:
            engine = create_engine(address.url, pool_pre_ping=True, connect_args=arguments, **options)
        except ModuleNotFoundError:
            raise UserError(
                "A store in PostgreSQL needs psycopg, which is not installed.", "pip install 'rein[postgresql]'"
            ) from None
    event.listen(engine, "before_cursor_execute", _refuse_unstorable)
    return engine


def _prepare(raw: sqlite3.Connection, _: object) -> None:
    raw.isolation_level = None  # transactions begin where we say so
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("PRAGMA fullfsync = ON")  # macOS; nothing elsewhere
    raw.execute("PRAGMA recursive_triggers = ON")  # so that INSERT OR REPLACE cannot take a row out unseen
    raw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _refuse_unstorable(_c: object, _cursor: object, _s: str, parameters: Any, _context: object, many: bool) -> None:
    """The same words for both databases, which each choke in their own way. In JSON both keep any text, escaped."""
    # Many rows that come back with their numbers are one statement, with one row of parameters.
    for row in parameters if many and isinstance(parameters, list) else (parameters,):
        for value in row.values() if isinstance(row, dict) else row:
            if isinstance(value, str):
                if "\0" in value:
                    raise UserError(f"{value[:40]!r} holds NUL, which a store does not keep.", "Take it out.")
                if not value.isascii():
                    _check_whole(value)
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise UserError(f"{value} is beyond 64 bits, which is all that a store keeps.", "Make it smaller.")


def _check_whole(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{text[:40]!r} holds half a surrogate pair, which is no character.", "Take it out.") from None


def to_json(value: Any) -> str:
    r"""As the store writes JSON: short, in UTF-8, and escaped where it holds half a surrogate pair.

    Example  >>> to_json({"text": "é", "half": "\ud800"[:1]})
             '{"text":"\\u00e9","half":"\\ud800"}'
             >>> to_json({"text": "é"})
             '{"text":"é"}'
    Raises   UserError for what is no number, because JSON has none.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise UserError("A value is not a finite number, and JSON has no other.", "Leave it out.") from None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text


def check_file(path: Path, only_read: str = "") -> None:
    """Whether a file can be a store.

    Only SQLite opens it: this process may have it open already, and whoever closes a file gives all locks back that
    the process has on it (sqlite.org/howtocorrupt.html, 2.2).

    Raises   StoreFault when it is a folder, cut short, or may not be written; sqlite3.Error when it is no database.
    """
    if not path.is_file():
        raise StoreFault(f"{path} is no file, but a folder or the like.", "Name a file.")
    if not only_read and not _may_be_written(path):
        raise StoreFault(
            f"{path} may not be written: it or its folder is not this user's to change.",
            "Put the store where you may write the file and its folder.",
        )
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        return  # page 1 comes first when the log is moved into the file: only without a log does it tell the whole size
    with closing(sqlite3.connect(f"{path.as_uri()}?{only_read or 'mode=rw'}", uri=True)) as raw:
        (pages,), (page_bytes,) = (
            raw.execute("PRAGMA page_count").fetchone(),
            raw.execute("PRAGMA page_size").fetchone(),
        )
    size = path.stat().st_size
    if size < pages * page_bytes:
        raise StoreFault(
            f"{path} is damaged: it is cut short, {size:,} bytes of {pages * page_bytes:,}.", "Restore a backup of it."
        )


def network_disk(path: Path) -> str | None:
    """The kind of network disk that a path is on, as far as this system tells; None: on none."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return _network_disk(path, mounts)


def _network_disk(path: Path, mounts: str) -> str | None:
    places = [line.split() for line in mounts.splitlines()]
    around = {str(one) for one in (path, *path.parents)}
    # The system writes a space in a name as \\040.
    named = [(words[1].encode().decode("unicode_escape"), words[2]) for words in places if len(words) > 2]
    found = [(len(name), kind) for name, kind in named if name in around]
    kind = max(found, default=(0, ""))[1]
    return kind if kind in _NETWORK_DISKS else None


def explained(error: BaseException, address: Address, patience_s: float) -> BaseException:
    """An error of the database in words that help, where it is a fault of the store; any other as it is."""
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, UserError):  # of to_json, in the middle of a statement
        return cause
    if isinstance(error, PoolTimeoutError):
        return StoreFault(f"{address} is being read by {CONNECTIONS} others.", "Try again a little later.")
    if isinstance(cause, sqlite3.Error):
        return _explained_sqlite(cause, address, patience_s) or error
    if isinstance(error, DBAPIError):
        return _explained_postgresql(error, address, patience_s) or error
    return error


def _explained_sqlite(cause: sqlite3.Error, address: Address, patience_s: float) -> StoreFault | None:
    name = getattr(cause, "sqlite_errorname", "")
    kept = "Nothing of this change was kept; what was saved before is as it was."
    match name.split("_")[1] if "_" in name else "":
        case "FULL" | "IOERR":
            return StoreFault(
                f"{address} could not be written ({cause}; {name}): the disk is full, or fails. {kept}",
                "Free some space, then do the same again.",
            )
        case "READONLY" | "PERM" | "CANTOPEN" | "AUTH":
            return StoreFault(
                f"{address} may not be written ({cause}; {name}). {kept}",
                "Put the store where you may write the file and its folder.",
            )
        case "BUSY" | "LOCKED":
            return StoreFault(
                f"{address} has been locked by another process for {patience_s:g} s. {kept}",
                "Wait for that process, or end it: `fuser` or `lsof` names it.",
            )
        case "CORRUPT" | "NOTADB":
            return StoreFault(f"{address} is damaged, or no feedback store ({cause}).", "Restore a backup of it.")
    return None


def _explained_postgresql(error: DBAPIError, address: Address, patience_s: float) -> UserError | None:
    state = getattr(error.orig, "sqlstate", None) or ""
    said = str(error.orig).strip().splitlines()[0] if error.orig else ""
    kept = "Nothing of this change was kept."
    if state == "22003":
        return UserError(f"A number is beyond what its column holds ({said}).", "Make it smaller.")
    if state == "55P03":
        return StoreFault(
            f"{address} has been locked by another program for {patience_s:g} s. {kept}",
            "Wait for that program, or end it: pg_stat_activity names it.",
        )
    if state == "25006":
        return StoreFault(f"{address} takes no changes ({said}). {kept}", "Name the primary server.")
    if state.startswith("53"):
        return StoreFault(f"{address} is out of room or connections ({said}). {kept}", "Free some, then try again.")
    if state == "42501":
        return StoreFault(f"{address}: not allowed ({said}). {kept}", "Grant this user the right to.")
    if state.startswith(("58", "XX")):
        return StoreFault(f"{address} fails ({said}). {kept}", "The server's log says more.")
    unreached = isinstance(error, OperationalError) and not state
    if unreached or error.connection_invalidated or state.startswith(("08", "28", "3D", "57P")):
        return StoreFault(
            f"{address} cannot be reached, or lets nobody in ({said}). Whether the last change was kept is not known; "
            "sent again, it counts once.",
            "Check that the server runs, and its name, user, password and database.",
        )
    return None
