"""`rein label check`: what is not in order is found, and made anew from the feedback."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from desks import EVEN, PLAIN, RIGHT, Desk, new_item
from sqlalchemy import delete, insert, select, text, update

from rein.errors import UserError
from rein.feedback import answers, work
from rein.feedback.check import CheckConfig, check_command, checked, repair
from rein.feedback.store import Store
from rein.feedback.tables import answer, feedback, item


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(answers, "_WINDOW", 2)  # so that a few items are many windows


@pytest.fixture
def desk(store):
    """A project in which everything was done that can be."""
    made = Desk(store, items=[new_item(f"item-{n}") for n in range(8)])
    for who in ("ann", "bob"):
        held, _ = made.label(who)
        made.submit(who, held, RIGHT, revision=1)
        held, _ = made.label(who, EVEN)
        made.undo(who, held)
        (held,) = made.claim(who)
        made.skip(who, held)
        made.label(who)
        made.claim(who)
    made.pass_time(PLAIN.lease_s)
    made.expire()
    number = made.item("item-7")["id"]
    said = [
        work.Record(number, made.people["cid"], "choice", "comparison", {"choice": n, "points": points}, f"k{n}", act)
        for n, points, act in ((0, 2, "say"), (1, 8, "revise"))
    ]
    for one in said:
        store.write(lambda conn, one=one: work.record(conn, made.now, made.id, [one]))
    return made


def look(desk):
    with desk.store.reading() as conn:
        return checked(conn, desk.id)


def test_what_is_in_order_is_found_in_order(desk):
    found = look(desk)
    assert (found.answers, found.counts) == (set(), set())
    assert found.rows == desk.count(feedback) > 8


CHANGES = {
    "an answer is lost": (lambda one: delete(answer).where(answer.c.seq == one["seq"]), "answers"),
    "an answer says something else": (
        lambda one: update(answer).where(answer.c.seq == one["seq"]).values(choice=-1), "answers",
    ),
    "an answer measures something else": (
        lambda one: update(answer).where(answer.c.seq == one["seq"]).values(points=one["points"] + 0.5), "answers",
    ),
    "an answer is there twice": (
        lambda one: insert(answer).values({**one, "assignment": 10**6}), "answers",
    ),
    "more people are counted": (lambda one: update(item).where(item.c.id == one["item"]).values(done=7), "counts"),
    "there is too much room": (lambda one: update(item).where(item.c.id == one["item"]).values(room=7), "counts"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", [0, -1])
def test_what_is_not_is_found_and_repaired(desk, change, which):
    before, items = desk.answers(), desk.items()
    one = before[which]
    make, what = CHANGES[change]
    desk.store.write(lambda conn: conn.execute(make(one)).rowcount)
    found = look(desk)
    assert getattr(found, what) == {one["item"]}
    assert found.answers | found.counts == {one["item"]}
    desk.store.write(lambda conn: repair(conn, desk.id))
    assert (desk.answers(), desk.items()) == (before, items)
    assert not look(desk).answers | look(desk).counts


def test_the_command_says_what_is_wrong_and_repairs_it(tmp_path, capsys):
    path = str(tmp_path / "labels.db")
    with Store.open(path, create=True) as store:
        desk = Desk(store, items=[new_item("a")])
        Desk(store)
        desk.label("ann")
    check_command(CheckConfig(path))
    assert "1 row of feedback; in order" in capsys.readouterr().out
    with Store.open(path) as store:
        store.write(lambda conn: conn.execute(delete(answer)).rowcount)
    with pytest.raises(UserError, match=r"1 project of 2 not in order(.|\n)*--repair"):
        check_command(CheckConfig(path))
    assert "wrong answers of 1 item (1)" in capsys.readouterr().out
    with Store.open(path) as server:
        server.hold()
        with pytest.raises(UserError, match="being served"):
            check_command(CheckConfig(path, repair=True))
    check_command(CheckConfig(path, repair=True))
    assert "repaired: plain-" in capsys.readouterr().out
    check_command(CheckConfig(path))
    assert f"{path} is in order" in capsys.readouterr().out


def test_a_damaged_file_is_said_to_be_so(tmp_path):
    path = str(tmp_path / "labels.db")
    with Store.open(path, create=True) as store:
        Desk(store, items=[new_item("a")]).label("ann")
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DELETE FROM item")  # by a program that does not mind what refers to it
    with pytest.raises(UserError, match=r"damaged: row 1 of \w+ refers to a row of item.*\n.*backup"):
        check_command(CheckConfig(path))


def test_the_check_is_of_one_moment_and_keeps_nobody_waiting(desk):
    with desk.store.reading() as conn:
        conn.execute(select(item.c.id)).all()
        desk.label("ann")
        desk.store.write(lambda conn: conn.execute(text("DELETE FROM answer")).rowcount)
        found = checked(conn, desk.id)
    assert not found.answers | found.counts
    assert look(desk).answers
