"""The store and the servers before which the labeler's pages are looked at, and somebody new for each test."""

from __future__ import annotations

import contextlib
import functools
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from label_desk import GUIDE, HOSTILE, NOW_MS, PASSWORD, Server, add_project, calm, items, let_in

from rein.feedback import people, tables
from rein.feedback.items import NewItem
from rein.feedback.passwords import hashed
from rein.feedback.project import Question
from rein.feedback.store import Store

PEOPLE = [f"ann-{n:02}" for n in range(60)]  # one for each test


def seed(path: Path) -> Path:
    """A store with a person for each test, and a project of each kind of question."""
    store = Store.open(path, create=True)
    with contextlib.closing(store):
        digest = hashed(PASSWORD)

        def persons(conn) -> tuple[list[int], int]:
            labelers = [people.add_person(conn, NOW_MS, name, "labeler", digest) for name in PEOPLE]
            return labelers, people.add_person(conn, NOW_MS, "rea", "researcher", digest)

        labelers, rea = store.write(persons)
        right = {"answers": {"choice": {"choice": 0, "points": 2}}, "why": "The other one is about another function."}
        practice = items(2, 2, role="onboarding", gold=right, first=40)
        strict = {"staged": False, "onboarding": 1, "pass_agreement": 1.0}
        rubric = {"1": "misses the point", "4": "says half of it", "7": "says all of it"}
        axes = (Question("axes", "likert", "How good is each summary?", points=7, rubric=rubric),)
        unruled = (Question("rating", "rating", points=5),)
        texts = [{"text": HOSTILE, "policy": "a"}, {"text": "Harmless.", "policy": "b"}]
        hostile = NewItem("hostile", {"post": HOSTILE, "<b>name</b>": HOSTILE}, texts)
        staged = {"onboarding": 2, "pass_agreement": 0.0}
        for preset, name, title, new, settings in (
            ("comparison", "staged", "Staged comparison", [*practice, *items(2, 8)], staged),
            ("comparison", "plain", "Plain comparison", items(2, 40), {"staged": False}),
            ("comparison", "guided", "Comparison with a guide", items(2, 4), {"staged": False}),
            ("comparison", "strict", "Strict practice", [*practice, *items(2, 2)], strict),
            ("ranking", "ranking", "Ranking", items(4, 4), {}),
            ("axes", "axes", "Axes", items(1, 4), {"staged": False, "questions": axes}),
            ("instructgpt", "instructgpt", "Rate, flag, rank", items(4, 3), {}),
            ("best-of", "best", "Best of four", items(4, 3), {}),
            ("demonstration", "write", "Write a summary", items(0, 3), {}),
            ("edit", "edit", "Edit a summary", items(1, 3), {}),
            ("rating", "unruled", "Rating by one's own lights", items(2, 3), {"questions": unruled}),
            ("comparison", "empty", "Nothing in it", [], {}),
            ("comparison", "private", "For others", items(2, 3), {}),
            ("comparison", "hostile", HOSTILE[:40], [hostile], {"staged": False}),
        ):
            members = [] if name == "private" else labelers
            number = add_project(store, calm(preset, name=name, title=title, **settings), new, members)
            if name in ("plain", "guided"):
                store.write(functools.partial(say, number, rea, message=name == "plain"))
    return path


def say(project: int, author: int, conn, *, message: bool) -> None:
    """A researcher's instructions, and maybe a message to all."""
    row = {"project": project, "version": 1, "text": GUIDE, "author": author, "created_ms": NOW_MS}
    conn.execute(tables.instruction.insert().values(row))
    if message:
        note = {"project": project, "author": author, "text": "Welcome, all.", "at_ms": NOW_MS, "to": None}
        conn.execute(tables.message.insert().values(note))


@pytest.fixture(scope="session")
def seeded(tmp_path_factory) -> Path:
    """The store before anybody worked."""
    return seed(tmp_path_factory.mktemp("label") / "labels.db")


@pytest.fixture(scope="session")
def desk(seeded) -> Iterator[Server]:
    """The server that most tests share, each as somebody else."""
    server = Server(copied(seeded, seeded.parent / "shared.db")).start()
    yield server
    server.stop()


@pytest.fixture
def own_desk(seeded, tmp_path) -> Iterator[Server]:
    """A server that a test may stop."""
    server = Server(copied(seeded, tmp_path / "labels.db")).start()
    yield server
    server.stop()


def copied(store: Path, to: Path) -> Path:
    """A copy of a store."""
    with sqlite3.connect(store) as source, sqlite3.connect(to) as copy:
        source.backup(copy)
    return to


@pytest.fixture
def who(request) -> str:
    """Somebody of whom no other test has heard."""
    taken = request.session.stash.setdefault(TAKEN, iter(PEOPLE))
    return next(taken)


TAKEN: pytest.StashKey[Iterator[str]] = pytest.StashKey()


@pytest.fixture
def come(look, desk, who) -> Callable[..., Any]:
    """`come("/label/desk/plain")` → a page of somebody who has logged in, with every outside request refused."""

    def open_page(path: str, at: Server = desk, **how: Any):
        page = look("about:blank", **how)
        # A pattern, not a function: one of Python's would have to run for each request, also while a test sleeps.
        page.context.route(re.compile(r"^(?!http://127\.0\.0\.1:|data:)"), lambda route: route.abort())
        page.set_default_timeout(15_000)
        let_in(page, at.url, who)
        page.goto(at.url + path)
        return page

    return open_page
