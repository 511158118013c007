"""What a labeler was told of others' answers: it fixes their own, and asks them nothing again."""

from __future__ import annotations

import dataclasses

import pytest
from desks import LEFT, PLAIN, RIGHT, Desk, new_item
from sqlalchemy import update

from rein.feedback.claims import look
from rein.feedback.mine import mine, tell
from rein.feedback.refused import Refused
from rein.feedback.tables import person


def some(n, **more):
    return [new_item(f"item-{k}", **more) for k in range(n)]


def chosen(claimed, candidate):
    """The answer that prefers a candidate, as it is shown."""
    return LEFT if claimed.order[0] == candidate else RIGHT


def label(desk, who, candidate):
    (claimed,) = desk.claim(who)
    desk.submit(who, claimed, chosen(claimed, candidate))
    return claimed


@pytest.fixture
def desk(store):
    """Ann prefers candidate 0 of each of three items, and Bob, a researcher, candidate 1 of the first two."""
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=3, order="given"), items=some(3))
    store.write(lambda conn: conn.execute(update(person).where(person.c.id == desk.people["bob"]).values(role="admin")))
    for _ in range(3):
        label(desk, "ann", 0)
    for _ in range(2):
        label(desk, "bob", 1)
    return desk


def page(desk, who="ann"):
    """A person's own page as it is made, before anybody is told of it."""
    with desk.store.reading() as conn:
        return mine(conn, desk.id, desk.people[who])


def told(desk, made, who="ann"):
    return desk.store.write(lambda conn: tell(conn, desk.now, desk.people[who], made))


def frozen(do, *args, match="You have seen what a researcher said"):
    with pytest.raises(Refused, match=match) as error:
        do(*args)
    assert error.value.code == "frozen"


def claimed_of(desk, who, key):
    (lease,) = desk.leases(person=desk.people[who], item=desk.item(key)["id"])
    with desk.store.reading() as conn:
        return look(conn, desk.people[who], lease["id"])


def test_what_is_shown_of_researchers_fixes_ones_own_answer(desk):
    one, two, three = (claimed_of(desk, "ann", f"item-{k}") for k in range(3))
    desk.submit("ann", one, chosen(one, 0))  # a page that was not shown fixes nothing
    made = page(desk)
    assert len(told(desk, made)["disagreements"]) == 2
    at = {row["item"]: row["told_ms"] for row in desk.leases(person=desk.people["ann"])}
    assert [at[each.item["id"]] for each in (one, two, three)] == [desk.now, desk.now, None]
    before = desk.answers()
    for each in (desk.look("ann", one), two):
        frozen(desk.submit, "ann", each, RIGHT)
        frozen(desk.undo, "ann", each)
    assert desk.answers() == before
    desk.submit("ann", three, RIGHT)  # of which they know nothing
    desk.undo("ann", three)


def test_the_page_names_no_item(desk):
    seen = told(desk, page(desk))
    assert seen["disagreements"]
    assert all("item" not in one for one in seen["disagreements"])


def test_what_was_taken_back_while_the_page_was_made_is_not_shown(desk):
    made = page(desk)
    one = claimed_of(desk, "ann", "item-0")
    desk.undo("ann", one)
    assert len(told(desk, made)["disagreements"]) == 1
    assert [row["told_ms"] for row in desk.leases(id=one.assignment["id"])] == [None]
    desk.submit("ann", desk.look("ann", one), LEFT)


def test_no_repeat_comes_of_what_one_was_told(store):
    desk = Desk(store, dataclasses.replace(PLAIN, repeat_share=0.99, overlap=3, order="given"), items=some(15))
    store.write(lambda conn: conn.execute(update(person).where(person.c.id == desk.people["bob"]).values(role="admin")))
    first = [label(desk, "ann", 0) for _ in range(11)]
    label(desk, "bob", 1)
    assert len(told(desk, page(desk))["disagreements"]) == 1
    rest = desk.label_some("ann", 14)
    again = {one.item["key"] for one in rest if one.assignment["turn"] == 1}
    assert again
    assert first[0].item["key"] not in again


def test_what_one_has_in_hand_again_is_not_shown(store):
    desk = Desk(store, dataclasses.replace(PLAIN, repeat_share=0.99, overlap=3, order="given"), items=some(11))
    store.write(lambda conn: conn.execute(update(person).where(person.c.id == desk.people["bob"]).values(role="admin")))
    for _ in range(11):
        label(desk, "ann", 0)
    label(desk, "bob", 1)
    before = page(desk)
    (again,) = desk.claim("ann")
    assert (again.item["key"], again.assignment["turn"]) == ("item-0", 1)
    assert page(desk)["disagreements"] == []
    assert told(desk, before)["disagreements"] == []  # made before it was given out
    desk.submit("ann", again)
    assert len(told(desk, page(desk))["disagreements"]) == 1
    frozen(desk.undo, "ann", again)


def test_a_gold_item_is_never_on_the_page_whoever_answered_it(store):
    desk = Desk(store, items=some(1, role="gold", gold={"answers": {"choice": {"choice": 1, "points": 9}}}))
    store.write(lambda conn: conn.execute(update(person).where(person.c.id == desk.people["bob"]).values(role="admin")))
    label(desk, "ann", 0)
    label(desk, "bob", 1)
    made = page(desk)
    assert made["disagreements"] == []
    assert made["with_researchers"][0]["agreement"]["value"] is None


def test_a_practice_item_is_told_of_at_once(store):
    gold = {"answers": {"choice": {"choice": 1, "points": 9}}, "why": "So it is."}
    desk = Desk(
        store, dataclasses.replace(PLAIN, onboarding=1), items=some(1, role="onboarding", gold=gold), state="training"
    )
    claimed, done = desk.label("ann")
    assert done.teach is not None
    assert desk.leases(id=claimed.assignment["id"])[0]["told_ms"] == desk.now
