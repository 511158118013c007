"""A labeling server to look at: a store with docstrings of Python's own library, and the server as its own process."""

from __future__ import annotations

import dataclasses
import inspect
import json
import random
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from rein.feedback import people
from rein.feedback.items import NewItem
from rein.feedback.project import PRESETS, Project
from rein.feedback.store import Store
from rein.feedback.work import add_items, create_project

NOW_MS = 1_760_000_000_000
PASSWORD = "correct horse battery"
HOSTILE = (
    "</p><script>alert(1)</script><img src=x onerror=alert(2)> "
    "\u202egnp\u202c a\u200bb \x1b[31m \U0001f469\u200d\U0001f680 é"
)
GUIDE = "# How to compare\nPrefer the summary that says what the function is for.\nLength alone is no merit."
SAID = "() => document.getElementById('gentle').textContent"
ITEM = "[...document.querySelectorAll('.candidate > .said')].map((one) => one.textContent).join(' | ')"
MODULES = (statistics, random, shutil, textwrap, json, dataclasses)


def docstrings() -> list[tuple[str, str, str]]:
    """(name, summary, body) of functions and classes of the standard library that have both."""
    found = []
    for module in MODULES:
        for name, one in sorted(vars(module).items()):
            if name.startswith("_") or getattr(one, "__module__", None) != module.__name__ or not callable(one):
                continue
            head, _, body = (inspect.cleandoc(one.__doc__ or "")).partition("\n\n")
            if 20 < len(head) < 400 and len(body) > 150:
                found.append((f"{module.__name__}.{name}", " ".join(head.split()), unwrapped(body)))
    return found


def unwrapped(text: str) -> str:
    """Paragraphs on one line each; what is indented or typed stays as it is."""
    kept = [part if re.search(r"^(\s|>>>)", part, re.M) else " ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(kept)


def items(k: int, count: int, *, role: str = "work", gold: object = None, first: int = 0) -> list[NewItem]:
    """`count` items: the body of a docstring, and `k` summaries, the first of which is its own."""
    known = docstrings()
    made = []
    for i in range(first, first + count):
        name, own, body = known[i % len(known)]
        others = [known[(i + 1 + j) % len(known)][1] for j in range(max(0, k - 1))]
        texts = [own, *others][:k]
        candidates = [{"text": text, "policy": f"policy-{j}"} for j, text in enumerate(texts)]
        made.append(NewItem(f"{role}-{k}-{i}", {"name": name, "post": body}, candidates, role=role, gold=gold))
    return made


def add_project(store: Store, project: Project, new: Sequence[NewItem], members: Sequence[int]) -> int:
    """A project with items, in which `members` work, or train first."""

    def make(conn) -> int:
        number = create_project(conn, NOW_MS, project)
        add_items(conn, NOW_MS, number, new)
        for person in members:
            people.join(conn, NOW_MS, number, person, "training" if project.onboarding else "working")
        return number

    return store.write(make)


def calm(preset: str, **changes: object) -> Project:
    """A preset without the items that are mixed in by chance."""
    rest = {"calibration_share": 0.0, "gold_share": 0.0, "repeat_share": 0.0, "overlap": 100, "order": "given"}
    return dataclasses.replace(PRESETS[preset], **{**rest, **changes})


class Server:
    """`rein label serve` on a port that stays the same when it is started again."""

    def __init__(self, store: Path) -> None:
        self.store = store
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.program: subprocess.Popen[str] | None = None
        self.said = store.with_suffix(".out")

    def start(self) -> Server:
        command = [sys.executable, "-m", "rein", "label", "serve", str(self.store), "--port", str(self.port)]
        with self.said.open("a") as out:  # no pipe, which would stop a server that says much
            self.program = subprocess.Popen([*command, "--no-browser"], stdout=out, stderr=subprocess.STDOUT, text=True)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/label/login", timeout=2):
                    return self
            except OSError:
                if self.program.poll() is not None:
                    raise AssertionError(self.said.read_text()) from None
                time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def stop(self) -> None:
        """Ends it in good order."""
        if self.program is None:
            return
        self.program.send_signal(signal.SIGINT)
        try:
            self.program.wait(timeout=15)
        finally:
            self.program.kill()
            self.program = None


def log_in(page, name: str) -> None:
    """By keyboard, on the login page."""
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/label(/research)?$"))


def let_in(page, url: str, name: str) -> None:
    """Logs in without a page, which takes a second less: what the login page does is tested where it is looked at."""
    body = {"name": name, "password": PASSWORD}
    answer = page.context.request.post(f"{url}/label/api/login", data=body, headers={"origin": url})
    assert answer.ok, answer.text()


def feedback(store: Path, project: str, person: str) -> list[dict]:
    """The rows of a person in a project, as another process reads them."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as conn:
        conn.row_factory = sqlite3.Row
        query = (
            "SELECT f.* FROM feedback f JOIN project p ON p.id = f.project JOIN person w ON w.id = f.person"
            " WHERE p.name = ? AND w.name = ? ORDER BY seq"
        )
        rows = [dict(row) for row in conn.execute(query, (project, person))]
    for row in rows:
        for name in ("value", "shown", "times"):
            row[name] = json.loads(row[name])
    return rows


def sent(page) -> None:
    """Everything is with the server."""
    page.wait_for_function("() => document.body.dataset.waiting === '0'")


def item(page, *, other_than: str = "") -> str:
    """The candidates on the screen, once they are others than before."""
    page.wait_for_function(
        f"(before) => {{ const now = {ITEM}; return now !== '' && now !== before; }}", arg=other_than
    )
    return page.evaluate(f"() => {ITEM}")


def rows_of(desk: Server, who: str, project: str, count: int) -> list[dict]:
    """The rows of a person in a project, once there are `count`."""
    until = time.monotonic() + 10
    while len(found := feedback(desk.store, project, who)) < count and time.monotonic() < until:
        time.sleep(0.05)
    assert len(found) == count, [(row["act"], row["value"]) for row in found]
    return found


def clean(page, desk: Server) -> None:
    """Nothing complained, and nothing was asked of anybody else."""
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(desk.url + "/")] == []


def tab_to(page, name: str) -> None:
    """Presses Tab until the focus is on the link or button of this name."""
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "() => document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
        )
        if found.startswith(name):
            return
    raise AssertionError(f"Tab does not reach {name}")


def shown_points(row: dict) -> int:
    """The point that was pressed, from what is stored in the order of the candidates."""
    points = row["value"]["points"]
    return points if row["shown"]["order"] == [0, 1] else 10 - points
