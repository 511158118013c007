"""A labeling server in this process, with people and items, for tests of its API."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from rein.feedback import people
from rein.feedback.items import NewItem, add_items, create_project
from rein.feedback.passwords import hashed
from rein.feedback.project import PRESETS, Project
from rein.feedback.store import Store
from rein.web.label.guard import COOKIE
from rein.web.label.limits import Limits
from rein.web.label.serve import application
from rein.web.label.service import Service

HERE = "http://127.0.0.1:8423"
PASSWORD = "correct horse battery"
DIGEST = hashed(PASSWORD)  # once: it takes 50 ms on purpose
# Words that no labeler may ever read; the policies, keys and roles of items hold them.
HIDDEN = ("policy-zebra", "policy-quagga", "key-okapi", "extra-tapir")


class Clock:
    """Milliseconds that pass when a test says so."""

    def __init__(self) -> None:
        self.ms = 1_760_000_000_000

    def __call__(self) -> int:
        return self.ms


class Server:
    """A store with its server, and clients of it."""

    def __init__(self, store: Path | Store) -> None:
        self.store = store if isinstance(store, Store) else Store.open(store, create=True)
        self.clock = Clock()
        self.seconds = 0.0
        self.service = Service(self.store, limits=Limits(lambda: self.seconds), max_upload_mb=1, clock=self.clock)
        self.app = application(self.service)
        self._keys = itertools.count()

    def close(self) -> None:
        self.store.close()

    def key(self) -> str:
        """A client's key that no other request has."""
        return f"a-key-of-a-test-{next(self._keys):06d}"

    def stranger(self, **headers: str) -> TestClient:
        """A client that is not in, on a page of this server."""
        return TestClient(
            self.app, base_url=HERE, headers={"origin": HERE, **headers}, follow_redirects=False,
            raise_server_exceptions=False,
        )  # fmt: skip

    def add(self, name: str, role: str = "labeler") -> int:
        return self.store.write(lambda conn: people.add_person(conn, self.clock(), name, role, DIGEST))

    def client(self, name: str, role: str = "labeler") -> TestClient:
        """Somebody new, with a session."""
        number = self.add(name, role)

        def enter(conn: Any) -> str:
            return people.open_session(conn, self.clock(), number, "browser", "a browser", 10**10)

        client = self.stranger()
        client.cookies.set(COOKIE, self.store.write(enter), domain="127.0.0.1", path="/label")
        return client

    def project(
        self, name: str = "tldr", *, n: int = 4, roles: Sequence[str] = ("work",), members: Sequence[str] = (),
        k: int = 2, **settings: Any,
    ) -> int:  # fmt: skip
        """A project with `n` items of each role, whose candidates' hidden parts hold `HIDDEN`."""
        calm = {"calibration_share": 0.0, "gold_share": 0.0, "repeat_share": 0.0, "overlap": 2}
        preset = settings.pop("preset", "comparison")
        made = Project.from_json({**PRESETS[preset].to_json(), **calm, **settings, "name": name})
        gold = {"answers": {"choice": {"choice": 0, "points": 1}}, "why": "The first one is right."}
        items = [
            NewItem(
                f"{HIDDEN[2]}-{role}-{i}", {"post": f"post {i} of {name}", "hidden": "not shown"},
                [
                    {"text": f"candidate {j} of {i}", "policy": HIDDEN[j % 2], "extra": {"note": HIDDEN[3]}}
                    for j in range(k)
                ],
                role=role, gold=gold if role in ("gold", "onboarding") else None, extra={"x": HIDDEN[3]},
            )
            for role in roles
            for i in range(n)
        ]  # fmt: skip

        def do(conn: Any) -> int:
            project = create_project(conn, self.clock(), made)
            add_items(conn, self.clock(), project, items)
            for person in members:
                found = people.find_person(conn, person)
                people.join(conn, self.clock(), project, found, "training" if made.onboarding else "working")
            return project

        return self.store.write(do)


def error_of(answer: Any) -> tuple[int, str]:
    """The status and the word of an error."""
    return answer.status_code, answer.json()["error"]["code"]
