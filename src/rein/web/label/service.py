"""What every route of the labeling server holds on to: the store, the clock, the limits, what is kept in memory.

Flow     a route → `Service.read` (a thread, a snapshot) or `Service.write` (the store's one writer, durable) → JSON
         what takes a while of a large project → `Service.count`, `mine` or `agreement`: in a few threads of their own

Who is asking is read in threads of its own too, so that nobody waits at the door for others' work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from sqlalchemy import Connection, func, select

from rein.errors import UserError
from rein.feedback import people, tables
from rein.feedback.judgements import Held
from rein.feedback.people import Person
from rein.feedback.store import Store
from rein.web.label.limits import Limits

KNOWN_S = 2.0
MOST_KNOWN = 10_000
MOST_PAGES = 500
T = TypeVar("T")


def now_ms() -> int:
    """Milliseconds since 1970, in UTC."""
    return time.time_ns() // 1_000_000


def newest(conn: Connection, project: str) -> tuple[int, int]:
    """The last rows of what people said in a project, and of what researchers did: with them the pages change."""
    of = select(tables.project.c.id).where(tables.project.c.name == project).scalar_subquery()
    said = select(func.max(tables.feedback.c.seq)).where(tables.feedback.c.project == of)
    did = select(func.max(tables.audit.c.seq))
    return conn.execute(said).scalar() or 0, conn.execute(did).scalar() or 0


@dataclass
class Service:
    """The parts of one running server."""

    store: Store
    limits: Limits = field(default_factory=Limits)
    max_upload_mb: int = 1024
    clock: Callable[[], int] = now_ms
    held: Held = field(default_factory=Held)  # answers in memory, for agreement: only what is new is read
    # Together fewer than the store has connections for reading: files that go out and passwords need some too.
    doormen: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))
    readers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(6))
    counters: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))
    # Whoever asks for agreement while a project is being read waits for that, and keeps nobody else from reading.
    judges: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))
    _known: dict[str, tuple[Person, float]] = field(default_factory=dict)
    _turns: WeakValueDictionary[int, asyncio.Lock] = field(default_factory=WeakValueDictionary)  # by person
    _pages: dict[tuple[int, str], tuple[tuple[int, int], dict[str, Any]]] = field(default_factory=dict)
    # Guesses of passwords wait for each other, so that many at once are counted like one after the other.
    doors: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    async def who(self, token: str) -> Person | None:
        """Whose token it is, as people.who: read at most every KNOWN_S, because each request asks.

        What ends a session here calls `forget`; what another process ends, ends within KNOWN_S.
        """
        found = self._known.get(token)
        if found is not None and found[1] > time.monotonic():
            return found[0]
        before = self._known
        look = partial(self._read, lambda conn: people.who(conn, self.clock(), token))
        person = await anyio.to_thread.run_sync(look, limiter=self.doormen)
        if person is not None and self.clock() - person.seen_ms > people.TOUCH_MS:
            asking = person
            await self.write(lambda conn: people.touch(conn, self.clock(), asking))
        if person is not None and before is self._known:  # else somebody was let out while this was read
            if len(before) >= MOST_KNOWN:
                before.clear()
            before[token] = (person, time.monotonic() + KNOWN_S)
        return person

    def forget(self) -> None:
        """Sessions ended, or people changed: all are read anew."""
        self._known = {}

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work`, which takes milliseconds, on a consistent snapshot, in a thread."""
        return await anyio.to_thread.run_sync(self._read, work, limiter=self.readers)

    async def count(self, work: Callable[[Connection], T]) -> T:
        """The same for what goes through many rows: few at once, and nobody else waits for them."""
        return await anyio.to_thread.run_sync(self._read, work, limiter=self.counters)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self.store.reading() as connection:
            return work(connection)

    async def mine(self, person: int, project: str, work: Callable[[Connection], dict[str, Any]]) -> dict[str, Any]:
        """A person's own page: one at a time for each of them, and the one of before while nothing has come in."""
        name = (person, project)
        async with self._turns.setdefault(person, asyncio.Lock()):
            now = await self.read(lambda conn: newest(conn, project))
            before = self._pages.get(name)
            if before is not None and before[0] == now:
                return before[1]
            page = await self.count(work)
            if len(self._pages) >= MOST_PAGES:
                self._pages.clear()
            self._pages[name] = (now, page)
            return page

    async def agreement(self, project: str, batch: str | None) -> dict[str, Any]:
        """How people agree (agreement.py): of what is held, with what is new."""
        return await anyio.to_thread.run_sync(self._agreement, project, batch, limiter=self.judges)

    def _agreement(self, project: int | str, batch: str | None = None) -> dict[str, Any]:
        from rein.feedback.agreement import report  # with scipy and pandas: a second of the server's start

        return self._read(lambda conn: report(conn, project, batch, held=self.held))

    @contextmanager
    def reading_ahead(self) -> Iterator[threading.Thread]:
        """Meanwhile reads the answers of all open projects, in a thread that nobody waits for but who asks for them.

        A million answers take seconds. What ends meanwhile waits for the project that is being read, and no other
        is begun: a thread that is still in compiled code when Python ends would take the whole process down.
        """
        ending = threading.Event()
        open_ones = select(tables.project.c.id).where(~tables.project.c.closed).order_by(tables.project.c.id.desc())

        def read_ahead() -> None:
            with suppress(UserError):  # of a store that cannot be read, which whoever asks for it is told
                for project in self._read(lambda conn: conn.execute(open_ones).scalars().all()):
                    if ending.is_set():
                        return
                    self._agreement(project)

        thread = threading.Thread(target=read_ahead, name="read-ahead")
        thread.start()
        try:
            yield thread
        finally:
            ending.set()
            thread.join()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` as a part of the store's next transaction; returns once that is durable."""
        return await self.store.written(work)
