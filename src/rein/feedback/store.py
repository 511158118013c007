"""The feedback store: one database, one writer, many readers.

Flow     works, functions of a connection, from any thread → a queue → one thread that writes → their results, once
         they are on the disk
         a reader → a connection that sees one moment of the store, and waits for nobody

The writer takes works in the order in which they came. What waits while it commits shares the next commit, because
a commit costs what a disk takes to be sure, and ten share that as well as one. Each work is in a savepoint of its own:
one that fails is undone alone, and the others are kept. A result is handed back when the commit has returned, so that
what was acknowledged survives the end of the process and of the machine.

Several processes may open one store. In each database their transactions are made one after another. Only one server
at a time may hold a SQLite file (`Store.hold`): processes poll for SQLite's lock, and under load one of them starves;
the commands that write a little beside a server do go through. Servers that share a PostgreSQL database are welcome.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import Connection

from rein.errors import UserError, writing
from rein.feedback import migrations
from rein.feedback.database import (
    Address,
    StoreFault,
    address_of,
    check_file,
    check_unmoved,
    explained,
    for_reading,
    network_disk,
    reading_engine,
    writing_engine,
)
from rein.feedback.secret import secret_of, secret_of_file
from rein.run import sync

T = TypeVar("T")
Work = Callable[[Connection], Any]
Explain = Callable[[BaseException], BaseException]
Waiting = queue.SimpleQueue[tuple[Future[Any], Work] | None]  # None: there will be no more

_GROUP = 256  # works that share a commit, at most
_GROUP_S = 0.02  # after which a group takes no more works: those in it wait for the commit


class Store:
    """An open store. Safe to use from any thread.

    Example  >>> import tempfile
             >>> from sqlalchemy import func, select
             >>> from rein.feedback.tables import project
             >>> count = select(func.count()).select_from(project)
             >>> with tempfile.TemporaryDirectory() as folder, Store.open(f"{folder}/a.sqlite", create=True) as store:
             ...     store.write(lambda conn: conn.execute(count).scalar())
             0
    """

    def __init__(self, address: Address, patience_s: float, secret_file: Path | None) -> None:
        self._address = address
        self._patience_s = patience_s
        self._secret_file = secret_file
        self._writer = writing_engine(address, patience_s)
        self._reader = reading_engine(address, patience_s)
        self._queue: Waiting = queue.SimpleQueue()
        self._held: IO[str] | None = None
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    @classmethod
    def open(
        cls, address: str | Path, *, create: bool = False, patience_s: float = 10.0, secret_file: Path | None = None,
        to_read: bool = False,
    ) -> Store:  # fmt: skip
        """Opens a store, brings an older one up to date, and makes a new one where `create` says so.

        address      a path or sqlite:///path, or postgresql://user:password@host/database
        patience_s   how long to wait for another process to give the store free
        secret_file  of a SQLite file; default: beside it
        to_read      a SQLite file that may not be written is opened too; writing to it is a StoreFault

        Raises   UserError when there is none, it is of a newer version, or it is another program's; StoreFault when
                 it is damaged, locked, read-only, or cannot be reached.
        """
        where = for_reading(address_of(address)) if to_read else address_of(address)
        beside = where.path and (secret_file or where.path.with_name(where.path.name + ".secret"))
        store = cls(where, patience_s, beside)
        try:
            with store._explaining():
                if where.path:
                    _check_place(where.path, create, where.only_read)
                migrations.bring_up_to_date(store._writer, store._reader, where, create=create)
        except BaseException:
            store._dispose()
            raise
        store._thread.start()
        return store

    @property
    def address(self) -> str:
        """Where it is, without a password."""
        return str(self._address)

    @property
    def path(self) -> Path | None:
        """The file of a SQLite store; None: it is in PostgreSQL."""
        return self._address.path

    @property
    def only_read(self) -> bool:
        """Whether it is a file that may not be written."""
        return bool(self._address.only_read)

    @property
    def dialect(self) -> str:
        """sqlite, or postgresql."""
        return "sqlite" if self._address.path else "postgresql"

    def write(self, work: Callable[[Connection], T]) -> T:
        """Does a work in the writer's thread and returns its result once that is on the disk.

        A work is a function of a connection, and of nothing that another thread changes. What it returns must not
        need the connection any more. What it raises is raised here, and then nothing of it is kept.

        Raises   StoreFault when the store cannot be written; nothing was kept then either.
        """
        assert threading.current_thread() is not self._thread, "a work cannot wait for another: both use one thread"
        return self._submit(work).result()

    async def written(self, work: Callable[[Connection], T]) -> T:
        """The same, awaited. A work that was begun is finished even if nobody waits for it any more."""
        return await asyncio.wrap_future(self._submit(work))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the store as it is at its first reading, until it is given back.

        Raises   StoreFault when the store cannot be read.
        """
        with self._explaining(), self._reader.connect() as connection:
            try:
                yield connection
            except BaseException:
                # A cursor that was left in the middle, which the traceback holds on to, keeps SQLite at its moment,
                # and whoever is given this connection next would read the past.
                connection.invalidate()
                self.check_unmoved()  # else what was torn would be taken for a damaged store
                raise
            self.check_unmoved()

    def check_unmoved(self) -> None:
        """Says whether all that was read up to now is of one moment; it may not be where the store cannot be locked.

        Raises   StoreFault when somebody wrote to the file meanwhile.
        """
        check_unmoved(self._address)

    def backup(self, path: str | Path) -> None:
        """Writes a copy of the store as it is now to `path`, while it is in use, and checks the copy.

        Raises   UserError when `path` exists, and for PostgreSQL without pg_dump; StoreFault when there is no room.
        """
        from rein.feedback.backup import backup

        with self._explaining():
            backup(self._address, Path(path))

    def hold(self) -> None:
        """Keeps every other server from this store until it is closed. PostgreSQL needs no such thing.

        Raises   UserError when another process holds it.
        """
        import fcntl

        if not self._address.path or self._held:
            return
        path = self._address.path.with_name(self._address.path.name + ".lock")
        with writing(path):
            file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            who = file.read().strip()
            file.close()
            raise UserError(
                f"{self.address} is being served by another process{f' ({who})' if who else ''}.",
                "End that one first; or keep the feedback in PostgreSQL, which several servers may share.",
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        self._held = file

    @cached_property
    def secret(self) -> bytes:
        """32 bytes that only this store knows; made once. Pseudonyms are made with it.

        Of a SQLite file they are in a file beside it that its owner alone may read. Of PostgreSQL they are in the
        database: whichever machine exports it, a person's pseudonym is the same.

        Raises   UserError when the file is no secret, others may read it, or it cannot be written.
        """
        if self.only_read and not os.access(str(self._secret_file), os.R_OK):
            raise UserError(
                f"Pseudonyms are made with {self._secret_file}, which is not there, or not this user's to read.",
                "Export as the owner of the store, or pass --names.",
            )
        return secret_of_file(self._secret_file) if self._secret_file else self.write(secret_of)

    def close(self) -> None:
        """Finishes what was asked, then lets go of everything. Twice is once."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self._dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dispose(self) -> None:
        self._reader.dispose()
        self._writer.dispose()  # last: SQLite then moves its log into the file
        if self._held:
            self._held.close()

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            said = self._explained(error)
            if said is error:
                raise
            raise said from error

    def _explained(self, error: BaseException) -> BaseException:
        return explained(error, self._address, self._patience_s)

    def _submit(self, work: Callable[[Connection], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise StoreFault(f"{self.address} is closed.", "Open it again.")
            self._queue.put((future, work))
        return future

    def _run(self) -> None:
        """The writer: group after group, until the store is closed."""
        going = True
        while going:
            entry = self._queue.get()
            if entry is None:
                return
            group = _Group(self._queue, entry)
            try:
                with self._writer.begin() as connection:
                    group.do(connection)
            except BaseException as error:
                group.lost(error, self._explained)
            else:
                group.kept(self._explained)
            going = group.more


class _Group:
    """Works that share a commit, and how each of them went."""

    def __init__(self, waiting: Waiting, first: tuple[Future[Any], Work]) -> None:
        self._waiting = waiting
        self._next: tuple[Future[Any], Work] | None = first
        self._done: list[tuple[Future[Any], Any, BaseException | None]] = []
        self.more = True  # False: the end of the queue was met

    def do(self, connection: Connection) -> None:
        """Does the first work and what waits behind it. Raises when the whole transaction is lost."""
        end = time.monotonic() + _GROUP_S
        while self._next:
            future, work = self._next
            self._next = None
            if future.set_running_or_notify_cancel():
                self._one(connection, future, work)
            if len(self._done) < _GROUP and time.monotonic() < end:
                self._take()

    def _take(self) -> None:
        try:
            self._next = self._waiting.get_nowait()
        except queue.Empty:
            return
        self.more = self._next is not None

    def _one(self, connection: Connection, future: Future[Any], work: Work) -> None:
        savepoint = None
        try:
            savepoint = connection.begin_nested()
            value = work(connection)
            savepoint.commit()
        except BaseException as error:
            self._done.append((future, None, error))  # first: whatever happens, somebody waits for this
            if savepoint is None or _transaction_lost(connection):
                raise
            savepoint.rollback()
        else:
            self._done.append((future, value, None))

    def kept(self, explain: Explain) -> None:
        for future, value, error in self._done:
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(explain(error))

    def lost(self, error: BaseException, explain: Explain) -> None:
        """Nothing of the group is in the database: not even what seemed to go well is acknowledged."""
        for future, _, _ in self._done:
            future.set_exception(explain(error))
        # Where it could not even begin, the others would each wait as long, one after another, for the same answer.
        while self._next:
            if self._next[0].set_running_or_notify_cancel():
                self._next[0].set_exception(explain(error))
            self._next = None
            self._take()


def _transaction_lost(connection: Connection) -> bool:
    """Whether the database ended the transaction by itself: SQLite on a full disk, PostgreSQL when it goes away."""
    if connection.invalidated or connection.closed:
        return True
    raw: Any = connection.connection.dbapi_connection
    if connection.dialect.name == "sqlite":
        return not raw.in_transaction
    return bool(raw.closed)


def _check_place(path: Path, create: bool, only_read: str) -> None:
    if path.exists():
        check_file(path, only_read)
    elif not create:
        raise UserError(f"There is no feedback store at {path}.", "Make one with `rein label new`, or name another.")
    else:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # It will hold people's names and the digests of their passwords. Its log inherits the rights.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            sync(path.parent)
    kind = network_disk(path)
    if kind:
        warnings.warn(
            f"{path} is on a network disk ({kind}), where SQLite can lose or damage what is written. Keep it on a disk "
            "of this machine, or use PostgreSQL.",
            stacklevel=4,
        )
