"""One open page, as the server knows it: what is still to be sent, and how it is doing."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from starlette.websockets import WebSocket

OUTBOX = 300  # messages for a page that reads slowly; beyond, older steps are left out


class Client:
    """One open page: what is to be sent to it, and how it is doing."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.page = ""
        self.may_control = False
        self.heard_at = time.monotonic()
        self._outbox: deque[tuple[str, str | bytes]] = deque()
        self._ready = asyncio.Event()

    def send(self, kind: str, data: str | bytes) -> None:
        """Queues a message. A page that does not keep up misses old steps and frames, never anything else."""
        stale = {"frame"} if kind == "frame" else {"frame", "step"} if len(self._outbox) > OUTBOX else set()
        if stale:
            self._outbox = deque(item for item in self._outbox if item[0] not in stale)
        self._outbox.append((kind, data))
        self._ready.set()

    async def drain(self) -> None:
        """Sends what is queued, for as long as the page is there."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._outbox:
                _, data = self._outbox.popleft()
                if isinstance(data, bytes):
                    await self.socket.send_bytes(data)
                else:
                    await self.socket.send_text(data)
