"""Lessons in real time behind a real server, and what a page says and hears there; a labeling server."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from rein.agents.lesson_files import open_lesson
from rein.agents.replay import ReplayConfig, replay
from rein.agents.tasks import make_task
from rein.feedback.record import read_record
from rein.feedback.simulate import SimulatedTrainer
from rein.web import classroom as module
from rein.web.app import bind, make_app, make_server
from rein.web.classroom import Classroom
from rein.web.trainer import PlayConfig, routes

sys.path.insert(0, str(Path(__file__).parent))  # label_server.py, which the tests import


class Room:
    """A classroom behind a real server in a thread."""

    def __init__(self, out: Path, *, simulated: SimulatedTrainer | None = None, **settings) -> None:
        self.out = out
        self.config = PlayConfig(**{"task": "mountain-car", "step_s": 0.05, "pause_s": 0.0, "plain": False} | settings)
        self.lesson, self.log = open_lesson(self.config, make_task(self.config.task), out)
        self.classroom = Classroom(self.lesson, self.log, out, self.config, simulated, None)
        self.sock = bind("127.0.0.1", 0)
        self.sock.listen(16)
        self.host = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.server = make_server(make_app(routes(self.classroom), lifespan=self.classroom.lifespan))
        self.classroom.stop_server = lambda: setattr(self.server, "should_exit", True)
        self.thread = threading.Thread(target=lambda: self.server.run(sockets=[self.sock]), daemon=True)
        self.thread.start()
        self.pages: list[Page] = []

    def page(self, *, key: str | None = None, name: str = "page", origin: str | None = None) -> Page:
        page = Page(self.host, self.classroom.key if key is None else key, name, origin)
        self.pages.append(page)
        return page

    def rows(self, kind: str) -> list[dict]:
        return [row for row in read_record(self.out / "record.jsonl") if row["kind"] == kind]

    def end(self) -> Path:
        for page in self.pages:
            page.close()
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.classroom.close()
        self.sock.close()
        return self.out / "record.jsonl"

    def prove(self) -> None:
        """Ends, and replays the record: that fails unless it gives the same lesson again."""
        replay(ReplayConfig(self.end()))


class Page:
    """What a page says and hears, without a page."""

    def __init__(self, host: str, key: str, name: str, origin: str | None = None) -> None:
        self._open = contextlib.ExitStack()
        self.socket = self._open.enter_context(connect(f"ws://{host}/tamer/socket", origin=origin, proxy=None))
        self.send(type="join", key=key, page=name)
        self.welcome = self.until("welcome")

    def close(self) -> None:
        self._open.close()

    def send(self, **message) -> None:
        self.socket.send(json.dumps(message))

    def command(self, name: str, value=None) -> None:
        self.send(type="command", name=name, value=value)

    def press(self, id: str, k=0, *, value=1, seen_ms: float = 10.0, **more) -> dict:
        self.send(
            **{"type": "press", "id": id, "value": value, "k": k, "t_key": 1000 + seen_ms, "t_shown": 1000} | more
        )
        return self.until("credit", id=id)

    def until(self, kind: str, timeout_s: float = 5.0, **wanted) -> dict:
        """The next message of this kind in which everything wanted holds; those before it are passed over."""
        ends = time.monotonic() + timeout_s
        while True:
            message = json.loads(self.socket.recv(timeout=ends - time.monotonic()))
            if message["type"] == kind and all(message[name] == value for name, value in wanted.items()):
                return message

    def lives(self) -> bool:
        self.send(type="ping", t=time.monotonic(), k=0)
        return self.until("pong")["clock_s"] >= 0

    def train(self, steps: int = 1) -> dict:
        """Training on; the last of so many steps."""
        self.command("training", True)
        self.until("status", training=True)
        return [self.until("step") for _ in range(steps)][-1]


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """`hold(**settings)` → a `Room` that is closed at the end."""
    # What SARSA alone would do takes seconds, and is no part of what is tested here.
    monkeypatch.setattr(module, "sarsa_band", lambda name: None)
    rooms = []

    def make(**settings) -> Room:
        rooms.append(Room(tmp_path / f"lesson-{len(rooms)}", **settings))
        return rooms[-1]

    yield make
    for room in rooms:
        room.end()


@pytest.fixture
def server(tmp_path):
    """A labeling server in this process, on an empty store."""
    from label_server import Server

    made = Server(tmp_path / "labels.db")
    yield made
    made.close()
