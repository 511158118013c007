"""What every route of the labeling server holds on to: the store, the clock, the limits, what is kept in memory.

Flow     a route → `Service.read` (a thread, a snapshot) or `Service.write` (the store's one writer, durable) → JSON
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection

from rein.feedback import people
from rein.feedback.judgements import Held
from rein.feedback.people import Person
from rein.feedback.store import Store
from rein.web.label.limits import Limits

KNOWN_S = 2.0
MOST_KNOWN = 10_000
T = TypeVar("T")


def now_ms() -> int:
    """Milliseconds since 1970, in UTC."""
    return time.time_ns() // 1_000_000


@dataclass
class Service:
    """The parts of one running server."""

    store: Store
    limits: Limits = field(default_factory=Limits)
    max_upload_mb: int = 1024
    clock: Callable[[], int] = now_ms
    held: Held = field(default_factory=Held)  # answers in memory, for agreement: only what is new is read
    # Fewer than the store has connections for reading: files that go out need some too.
    readers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(12))
    _known: dict[str, tuple[Person, float]] = field(default_factory=dict)
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
        person = await self.read(lambda conn: people.who(conn, self.clock(), token))
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
        """Runs `work` on a consistent snapshot, in a thread."""
        return await anyio.to_thread.run_sync(self._read, work, limiter=self.readers)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self.store.reading() as connection:
            return work(connection)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` as a part of the store's next transaction; returns once that is durable."""
        return await self.store.written(work)
