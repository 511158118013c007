"""The queue: exact with its cursors, and found by index whatever a person has answered."""

from __future__ import annotations

import dataclasses
import random

import pytest
from desks import PLAIN, Desk, new_item
from sqlalchemy import event, select

from rein.feedback import queue, work
from rein.feedback.queue import TAKEN, next_item
from rein.feedback.tables import assignment, cursor, item

PEOPLE = ("ann", "bob", "cid", "dee")


def first_by_hand(conn, project_id, person_id, *, seeded):
    """What the queue must give: every item looked at, no cursor, no index."""
    taken = select(assignment.c.item).where(
        assignment.c.person == person_id, assignment.c.turn == 0, assignment.c.state.in_(TAKEN)
    )
    rows = conn.execute(
        select(item.c.id, item.c.room, item.c.priority, item.c.place).where(
            item.c.project == project_id, item.c.role == "work", item.c.room > 0, item.c.id.not_in(taken)
        )
    ).all()
    key = (lambda row: row.place) if seeded else (lambda row: (row.room, -row.priority, row.place))
    return min(rows, key=key).id if rows else None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("windows", [(1, 2, 3), queue._WINDOWS])
def test_a_claim_with_cursors_gives_what_it_would_give_without(store, monkeypatch, seed, windows):
    monkeypatch.setattr(queue, "_WINDOWS", windows)
    chance = random.Random(seed)
    settings = dataclasses.replace(PLAIN, overlap=3, ahead=3, uniform_share=0.3, seed=seed, lease_s=100)
    # More than the last window, where windows are small: a room may be left before its end.
    exact = windows != (1, 2, 3)
    desk = Desk(store, settings, PEOPLE, [new_item(f"item-{n}", priority=float(n % 3)) for n in range(25)])
    numbers = [row["id"] for row in desk.items().values()]
    hand = {who: [] for who in PEOPLE}
    for step in range(40):
        who = chance.choices(PEOPLE, (6, 2, 2, 1))[0]
        act = chance.choices(("label", "claim", "release", "expire", "undo", "priority", "close", "add"),
                             (12, 4, 3, 1, 3, 1, 1, 1))[0]  # fmt: skip
        if act in ("label", "claim"):
            hand[who] = desk.claim(who, chance.randint(1, 3))
            if act == "label" and hand[who]:
                desk.submit(who, hand[who].pop(0))
        elif act == "release" and hand[who]:
            desk.release(who, hand[who].pop())
        elif act == "expire":
            desk.pass_time(101)
            desk.expire()
        elif act == "undo":
            done = desk.leases(person=desk.people[who], state="submitted")
            if done:
                number = chance.choice(done)["id"]
                of = desk.people[who]
                store.write(
                    lambda conn, of=of, n=number, k=step: work.undo(conn, desk.now, of, n, key=f"{desk.id} {k}")
                )
        elif act == "priority":
            some = {chance.choice(numbers): float(chance.randint(-1, 3)) for _ in range(3)}
            store.write(lambda conn, some=some: work.set_priorities(conn, desk.id, some))
        elif act == "close":
            number, closed = chance.choice(numbers), chance.random() < 0.5
            store.write(lambda conn, n=number, c=closed: work.change_item(conn, n, closed=c))
        elif act == "add":
            desk.add(new_item(f"new-{step}", priority=float(chance.randint(-1, 3)), wanted=chance.choice((None, 1, 2))))
        compare(store, desk, exact)
    with store.reading() as conn:
        assert conn.execute(select(cursor.c.place)).all()  # there were some


def compare(store, desk, exact):
    """Looks for everybody with the cursors as they are, and leaves them so."""

    def look(conn):
        found = []
        for who in PEOPLE:
            for seeded in (False, True):
                of = desk.people[who]
                before = conn.begin_nested()
                by_hand = first_by_hand(conn, desk.id, of, seeded=seeded)
                found.append((by_hand, next_item(conn, desk.id, of, "work", seeded=seeded)))
                before.rollback()
        return found

    for by_hand, given in store.write(look):
        assert (given == by_hand) if exact else (given is None) == (by_hand is None)


def test_a_room_full_of_own_items_is_passed_by_once(store):
    settings = dataclasses.replace(PLAIN, overlap=2, order="given", ahead=1)
    desk = Desk(store, settings, items=[new_item(f"item-{n}") for n in range(100)])
    assert [one.item["key"] for one in desk.label_some("ann", 60)] == [f"item-{n}" for n in range(60)]
    with store.reading() as conn:
        places = dict(conn.execute(select(cursor.c.room, cursor.c.place).where(cursor.c.project == desk.id)).all())
    assert places[1] == desk.item("item-58")["place"]  # of 59 that wait for another, and lie before what is next


def test_a_person_who_must_pass_by_very_much_is_given_something_meanwhile_and_all_of_it_in_the_end(store, monkeypatch):
    monkeypatch.setattr(queue, "_WINDOWS", (1, 2))
    settings = dataclasses.replace(PLAIN, overlap=2, order="given", ahead=1)
    desk = Desk(store, settings, items=[new_item(f"item-{n}") for n in range(30)])
    desk.label_some("ann", 20)
    hidden = desk.item("item-25")["id"]
    desk.set_state("bob", "working")
    store.write(lambda conn: work.set_priorities(conn, desk.id, {hidden: -1.0}))  # no cursors any more
    (bob,) = desk.claim("bob")
    desk.submit("bob", bob)
    given = [one.item["key"] for one in desk.label_some("ann", 10)]
    assert sorted(given) == sorted(f"item-{n}" for n in range(20, 30))
    assert desk.claim("ann") == []


def test_the_seeded_order_gives_way_where_too_much_of_it_is_passed_by(store, monkeypatch):
    settings = dataclasses.replace(PLAIN, overlap=2, order="given", ahead=1, uniform_share=1.0)
    desk = Desk(store, settings, items=[new_item(f"item-{n}", priority=float(n)) for n in range(30)])
    desk.label_some("ann", 20)
    monkeypatch.setattr(queue, "_WINDOWS", (1, 2))
    store.write(lambda conn: conn.execute(cursor.delete()) and None)
    looked = statements_of(store, lambda conn: work.claim(conn, desk.now, desk.people["ann"], desk.id))
    assert sum("AS taken" in statement for statement, _ in looked) < 8
    given = [one.item["key"] for one in desk.label_some("ann", 10)]
    assert given[0] == "item-29"
    assert sorted(given) == sorted(f"item-{n}" for n in range(20, 30))


def statements_of(store, work_):
    """The statements of a work, with what they are given."""
    seen = []

    def listen(conn, cursor_, statement, parameters, context, many):
        seen.append((statement, parameters))

    engine = store._writer
    event.listen(engine, "before_cursor_execute", listen)
    try:
        store.write(work_)
    finally:
        event.remove(engine, "before_cursor_execute", listen)
    return [one for one in seen if one[0].split()[0] in ("SELECT", "UPDATE", "INSERT")]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_claims_and_submits_search_by_index_and_read_no_table_through(store):
    settings = dataclasses.replace(PLAIN, overlap=3, uniform_share=0.5, repeat_share=0.2)
    desk = Desk(store, settings, items=[new_item(f"item-{n}", priority=n % 5) for n in range(40)])
    desk.label_some("ann", 15)
    ann, seen = desk.people["ann"], []
    for k in range(12):
        desk.pass_time(1000)
        hand = []
        seen += statements_of(store, lambda conn, h=hand: h.extend(work.claim(conn, desk.now, ann, desk.id, 2)))
        one = hand[0].assignment
        answers = {"choice": {"choice": 0, "points": 1}}

        def hand_in(conn, one=one, k=k, answers=answers):
            return work.submit(conn, desk.now, ann, one["id"], key=f"p{k}", revision=0, answers=answers) and {}

        seen += statements_of(
            store,
            lambda conn, k=k, act=hand_in: work.once(conn, desk.now, ann, f"p{k}", "submit", {}, lambda: act(conn)),
        )
    assert len(seen) > 200
    with store.reading() as conn:
        for statement, parameters in seen:
            plan = [row[3] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            scans = [line for line in plan if line.startswith("SCAN") and not line.startswith("SCAN CONSTANT ROW")]
            sorts = [line for line in plan if "TEMP B-TREE" in line and "ORDER BY" in line]
            assert scans in ([], ["SCAN own"]), f"{scans} in {statement}"  # own: fifty rows at most
            assert sorts == [] or "AS own" in statement, f"{sorts} in {statement}"
