"""A store to look at as a researcher does: four weeks of simulated labelers, each with habits, and two experts."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from label_desk import GUIDE, HOSTILE, PASSWORD, Server, add_project, docstrings, items, let_in
from sqlalchemy import Connection

from rein.feedback import people, tables, work
from rein.feedback.items import NewItem
from rein.feedback.labelers import Habits, Labeler
from rein.feedback.project import PRESETS
from rein.feedback.store import Store
from rein.web.label.cards import card_of

WEEK_MS = 7 * 86_400_000
HOUR_MS = 3_600_000
OWN = {body: head for _, head, body in docstrings()}  # the summary of each body
LABELERS = {
    "ann": Habits(temperature=0.3), "bob": Habits(temperature=0.5), "cid": Habits(temperature=0.4, side=1.5),
    "dee": Habits(temperature=0.5, length=0.8), "eve": Habits(temperature=0.3, noise=0.4, active_s=2.0),
}  # fmt: skip
EXPERTS = {"rea": Habits(temperature=0.3), "rob": Habits(temperature=0.4)}


def gold(context: Mapping[str, object], text: str) -> float:
    """The summary of the text itself is better."""
    return 1.0 if OWN.get(str(context.get("post"))) == text else 0.0


def seed(path: Path) -> Path:
    """A store with the projects `tldr` (comparisons), `replies` (rate, flag, rank), `write` and `hostile`."""
    now = round(time.time() * 1000)
    with Store.open(path, create=True) as store:

        def persons(conn: Connection) -> dict[str, int]:
            made = {name: people.add_person(conn, now, name, "labeler") for name in LABELERS if name != "ann"}
            made |= {name: people.add_person(conn, now, name, "researcher") for name in EXPERTS}
            for name, role in (("ann", "labeler"), ("max", "admin")):
                made[name] = people.add_person(conn, now, name, role, PASSWORD)
            return made

        known = store.write(persons)
        crew = [known[name] for name in (*LABELERS, *EXPERTS)]
        tldr = add_project(store, _tldr(), _items(), crew)
        replies = dataclasses.replace(
            PRESETS["instructgpt"], name="replies", title="Rate, flag, rank", overlap=3, repeat_share=0.0
        )
        both = [add_project(store, replies, items(4, 12), crew)]
        both.append(add_project(store, dataclasses.replace(PRESETS["demonstration"], name="write"), [], crew[:1]))
        store.write(lambda conn: _weeks(conn, now, tldr, known))
        store.write(lambda conn: _answers(conn, now - HOUR_MS, both[0], known, 10))
        _hostile(store, now, known)
    return path


def _tldr():
    return dataclasses.replace(
        PRESETS["comparison"], name="tldr", title="Docstrings in a sentence", staged=False, overlap=3,
        calibration_share=0.15, gold_share=0.1, repeat_share=0.1, drift_share=0.15,
    )  # fmt: skip


def _items() -> list[NewItem]:
    second = [dataclasses.replace(one, batch="batch2") for one in items(2, 40, first=60)]
    plain = [*items(2, 60), *second, *items(2, 12, role="calibration", first=3), *items(2, 12, role="drift", first=11)]
    return [*map(_turned, range(len(plain)), plain), *map(_known, range(10), items(2, 10, role="gold", gold={}))]


def _turned(number: int, one: NewItem) -> NewItem:
    """Every other item has the summary of its own text second."""
    return dataclasses.replace(one, candidates=one.candidates[::-1]) if number % 2 else one


def _known(number: int, one: NewItem) -> NewItem:
    """An item of which it is known that the summary of its own text is right."""
    best = number % 2
    answers = {"choice": {"choice": best, "points": 8 if best else 2}}
    return dataclasses.replace(_turned(number, one), gold={"answers": answers, "why": "It is of the same function."})


def _weeks(conn: Connection, now: int, project: int, known: dict[str, int]) -> None:
    """Four weeks of work; a revision, an undo, a skip, questions, instructions, a message."""
    row = {"project": project, "version": 1, "text": GUIDE, "author": known["rea"], "created_ms": now - 4 * WEEK_MS}
    conn.execute(tables.instruction.insert().values(row))
    for week in range(4):
        _answers(conn, now - (3 - week) * WEEK_MS - 2 * HOUR_MS, project, known, 14)
    ann = known["ann"]
    (one, two) = work.claim(conn, now - HOUR_MS, ann, project, 2)
    say = {"choice": {"choice": 0, "points": 3}}
    work.submit(conn, now - HOUR_MS, ann, one.assignment["id"], key="first-words-of-ann", revision=0, answers=say)
    work.undo(conn, now - HOUR_MS + 1000, ann, one.assignment["id"], key="ann-takes-it-back")
    again = work.look(conn, ann, one.assignment["id"])
    say = {"choice": {"choice": None, "points": 5}}
    work.submit(
        conn, now - HOUR_MS + 2000, ann, one.assignment["id"], key="second-words-of-ann",
        revision=again.assignment["revision"], answers=say, shown={"diff": True}, times={"active_ms": 65_000},
    )  # fmt: skip
    thread = {"project": project, "item": one.item["id"], "person": ann, "at_ms": now - HOUR_MS}
    conn.execute(tables.thread.insert().values(text="Which version of Python is it?", **thread))
    work.skip(conn, now - HOUR_MS + 3000, ann, two.assignment["id"], key="ann-skips-this-one", reason="It is cut off.")
    work.claim(conn, now, known["bob"], project, 2)
    note = {"project": project, "author": known["rea"], "text": "Good work.", "at_ms": now, "to": None}
    conn.execute(tables.message.insert().values(note))


def _answers(conn: Connection, at: int, project: int, known: dict[str, int], each: int) -> None:
    for name, habits in (LABELERS | EXPERTS).items():
        by = Labeler(name, gold, habits)
        for number in range(each):
            claimed = work.claim(conn, at, known[name], project)
            if not claimed:
                break
            lease = claimed[0].assignment
            said = by.answer(card_of(conn, claimed[0]).model_dump())
            work.submit(
                conn, at + 1000 * number, known[name], lease["id"], key=f"{name}-{project}-{at}-{number}",
                revision=lease["revision"], answers=said.answers, times=said.times,
            )  # fmt: skip


def _hostile(store: Store, now: int, known: dict[str, int]) -> None:
    texts = [{"text": HOSTILE, "policy": HOSTILE[:60]}, {"text": "Harmless.", "policy": "b"}]
    item = NewItem(HOSTILE[:80], {"post": HOSTILE, "<b>name</b>": HOSTILE}, texts, batch="<i>batch")
    project = dataclasses.replace(
        PRESETS["comparison"], name="<b>hostile", title=HOSTILE[:40], staged=False, calibration_share=0.0,
        gold_share=0.0, repeat_share=0.0,
    )  # fmt: skip
    number = add_project(store, project, [item], [known[name] for name in (*LABELERS, *EXPERTS)])

    def words(conn: Connection) -> None:
        _answers(conn, now - HOUR_MS, number, known, 1)
        which = conn.execute(tables.item.select().where(tables.item.c.project == number)).mappings().one()["id"]
        both = {"project": number, "text": HOSTILE, "at_ms": now}
        conn.execute(tables.thread.insert().values(item=which, person=known["ann"], **both))
        conn.execute(tables.message.insert().values(author=known["rea"], to=None, **both))
        row = {"project": number, "version": 1, "text": f"# {HOSTILE}\n{HOSTILE}", "author": None, "created_ms": now}
        conn.execute(tables.instruction.insert().values(row))

    store.write(words)


@pytest.fixture(scope="session")
def office(chromium, tmp_path_factory) -> Iterator[Server]:
    """A running server of that store. Tests that change something have a project to themselves."""
    server = Server(seed(tmp_path_factory.mktemp("research") / "labels.db")).start()
    yield server
    server.stop()


@pytest.fixture
def visit(look, office) -> Callable[..., Any]:
    """`visit("/label/research")` → a page of an admin who has logged in, with every outside request refused."""

    def open_page(path: str, name: str = "max", **how: Any):
        page = look("about:blank", **how)
        page.context.route(re.compile(r"^(?!http://127\.0\.0\.1:|data:|blob:)"), lambda route: route.abort())
        page.set_default_timeout(15_000)
        let_in(page, office.url, name)
        page.goto(office.url + path)
        return page

    return open_page
