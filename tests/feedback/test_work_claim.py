"""Claiming: what comes next, for how long it is whose, and what comes back."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import pairwise

import pytest
from desks import EVEN, LEFT, PLAIN, RIGHT, Desk, new_item
from sqlalchemy import insert

from rein.feedback import work
from rein.feedback.claims import MOST_AT_ONCE, REPEAT_AFTER
from rein.feedback.people import join
from rein.feedback.project import PRESETS, Question
from rein.feedback.refused import Refused
from rein.feedback.tables import instruction

HUGE = (0, -1, 2**31, 2**63 - 1, 2**63, 10**40)


def keys(claimed):
    return [one.item["key"] for one in claimed]


def some(n, **more):
    return [new_item(f"item-{k}", **more) for k in range(n)]


def test_two_people_at_overlap_two_get_the_same_items_in_the_same_order(store):
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=2), items=some(6))
    ann = [desk.label("ann")[0].item["key"] for _ in range(6)]
    bob = [desk.label("bob")[0].item["key"] for _ in range(6)]
    assert ann == bob
    assert {row["done"] for row in desk.items().values()} == {2}
    assert desk.claim("cid") == []
    assert desk.nothing("cid") == "all done"


def test_what_was_begun_is_finished_first(store):
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=2, order="given"), items=some(6))
    desk.label("ann")
    desk.label("ann")
    desk.label("bob")  # item-0 is done
    assert keys(desk.claim("cid", 2)) == ["item-1", "item-2"]


def test_a_claim_gives_what_is_in_hand_first_and_no_more_than_may_be_held(store):
    desk = Desk(store, items=some(9))
    one = desk.claim("ann")
    two = desk.claim("ann", 2)
    assert keys(two)[0] == keys(one)[0]
    assert keys(desk.claim("ann", 5)) == keys(two)
    assert keys(desk.claim("ann", 1)) == keys(one)
    desk.submit("ann", two[0])
    assert keys(desk.claim("ann", 2))[0] == keys(two)[1]
    assert desk.claim("ann", 0) == desk.claim("ann", -3) == []


def test_priority_comes_before_the_seeded_order_and_room_before_priority(store):
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=2, order="given"))
    desk.add(new_item("low"), new_item("begun"), new_item("high", priority=2.0), new_item("lower", priority=-1.0))
    number = desk.item("begun")["id"]
    store.write(lambda conn: work.set_priorities(conn, desk.id, {number: 5.0}))
    desk.label("bob")
    store.write(lambda conn: work.set_priorities(conn, desk.id, {number: -5.0}))
    assert [desk.label("ann")[0].item["key"] for _ in range(4)] == ["begun", "high", "low", "lower"]


def test_a_share_of_the_work_ignores_priority(store):
    settings = dataclasses.replace(PLAIN, order="given", uniform_share=0.3)
    desk = Desk(store, settings, items=[new_item(f"item-{n}", priority=float(n)) for n in range(120)])
    given = [int(one.item["key"].removeprefix("item-")) for one in desk.label_some("ann", 60)]
    uniform = [n for n in given if n < 60]
    assert uniform == list(range(len(uniform)))  # in the order of the project, from its beginning
    assert [n for n in given if n >= 60] == list(range(119, 119 - 60 + len(uniform), -1))
    assert 9 <= len(uniform) <= 27  # 18 expected, three standard deviations


def test_the_sides_are_shuffled_evenly_and_the_same_way_in_another_store(new_store):
    orders = []
    for _ in range(2):
        desk = Desk(new_store(), dataclasses.replace(PLAIN, overlap=2), items=some(150))
        orders.append([one.order for who in ("ann", "bob") for one in desk.label_some(who, 150)])
    assert orders[0] == orders[1]
    turned = sum(order == [1, 0] for order in orders[0])
    assert 124 <= turned <= 176  # 150 expected, three standard deviations
    both = Counter(a == b for a, b in zip(orders[0][:150], orders[0][150:], strict=True))
    assert 57 <= both[True] <= 93  # one person's sides say nothing about another's


def test_nine_outputs_come_in_any_order(store):
    desk = Desk(store, dataclasses.replace(PLAIN, questions=PRESETS["ranking"].questions), items=some(60, k=9))
    ranks = {"ranking": {"ranks": list(range(1, 10))}}
    orders = [tuple(one.order) for one in desk.label_some("ann", 60, ranks)]
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert len(set(orders)) == 60
    assert len({order[0] for order in orders}) == 9


def test_the_row_keeps_how_it_was_shown(store):
    desk = Desk(store, items=some(1))
    row = {"project": desk.id, "version": 1, "text": "Be fair.", "created_ms": desk.now}
    store.write(lambda conn: conn.execute(insert(instruction), row) and None)
    given, _ = desk.label("ann", shown={"diff": True}, times={"active_ms": 1234, "stages_ms": [1, 2]})
    (row,) = desk.rows()
    lease = given.assignment
    assert row["shown"] == {
        "diff": True, "order": given.order, "seed": lease["seed"], "turn": 0, "instruction": lease["instruction"],
    }  # fmt: skip
    assert lease["instruction"] is not None
    assert row["times"] == {"active_ms": 1234, "stages_ms": [1, 2]}
    assert desk.answers()[0]["active_ms"] == 1234


# ---------------------------------------------------------------------------------------------- the mix


def mix(desk, who, n):
    """The roles of the next `n` items, with the turn."""
    return ["repeat" if one.assignment["turn"] else one.item["role"] for one in desk.label_some(who, n)]


MIXED = dataclasses.replace(
    PLAIN, calibration_share=0.2, gold_share=0.1, repeat_share=0.1, drift_share=0.1, uniform_share=0.2
)


def mixed_items():
    roles = (("work", 200), ("calibration", 40), ("gold", 30), ("drift", 25))
    gold = {"answers": {"choice": {"choice": 0, "points": 1}}}
    return [
        new_item(f"{role}-{n}", role=role, gold=gold if role == "gold" else None) for role, m in roles for n in range(m)
    ]


def test_the_roles_come_by_the_shares_of_the_project(store):
    desk = Desk(store, MIXED, items=mixed_items())
    found = Counter(mix(desk, "ann", 120))
    for role, expected in (("calibration", 24), ("gold", 12), ("repeat", 12), ("drift", 12), ("work", 60)):
        sd = (expected * (1 - expected / 120)) ** 0.5
        assert abs(found[role] - expected) <= 3 * sd, found


def test_two_stores_of_one_seed_hand_out_the_same(new_store):
    found = []
    for _ in range(2):
        desk = Desk(new_store(), MIXED, items=mixed_items())
        found.append([(one.item["key"], one.order) for who in ("ann", "bob") for one in desk.label_some(who, 40)])
    assert found[0] == found[1]
    other = Desk(new_store(), dataclasses.replace(MIXED, seed=3), items=mixed_items())
    assert [one.item["key"] for one in other.label_some("ann", 40)] != [key for key, _ in found[0][:40]]


def test_everybody_gets_each_gold_calibration_and_drift_item_once(store):
    items = [new_item(f"{role}-{n}", role=role) for role in ("gold", "calibration", "drift") for n in range(3)]
    desk = Desk(store, dataclasses.replace(MIXED, repeat_share=0.0), items=items)
    for who in ("ann", "bob", "cid"):
        given = [one.item["key"] for one in desk.label_some(who, 9)]
        assert sorted(given) == sorted(one.key for one in items)
        assert desk.claim(who) == []
        assert desk.nothing(who) == "all done"
    assert {row["done"] for row in desk.items().values()} == {3}


def test_work_is_given_where_there_is_none_of_what_was_drawn(store):
    desk = Desk(
        store, dataclasses.replace(MIXED, gold_share=0.8, calibration_share=0.0, repeat_share=0.0), items=some(5)
    )
    assert mix(desk, "ann", 5) == ["work"] * 5


def test_an_own_item_comes_again_once_mirrored_and_not_before_ten_others(store):
    desk = Desk(store, dataclasses.replace(PLAIN, repeat_share=0.5, uniform_share=0.0), items=some(80))
    given = desk.label_some("ann", 100)
    first = {}
    repeats = 0
    for n, one in enumerate(given):
        key = one.item["key"]
        if one.assignment["turn"] == 0:
            first[key] = (n, one.order)
            continue
        repeats += 1
        assert n - first[key][0] > REPEAT_AFTER
        assert one.order == first[key][1][::-1]
    assert repeats >= 20
    assert len({(one.item["key"], one.assignment["turn"]) for one in given}) == 100
    assert desk.item(given[0].item["key"])["done"] == 1  # a repeat is nobody else's answer
    turns = {row["assignment"]: row["turn"] for row in desk.answers()}
    assert sum(turns.values()) == repeats


def test_nobody_writes_the_same_twice(store):
    written = dataclasses.replace(PLAIN, questions=(Question("demonstration", "demonstration"),), repeat_share=0.9)
    desk = Desk(store, written, items=some(20, k=0))
    answers = {"demonstration": {"text": "A good answer."}}
    assert {one.assignment["turn"] for one in desk.label_some("ann", 20, answers)} == {0}


def test_no_repeat_comes_of_a_closed_item_or_a_frozen_batch(store):
    desk = Desk(store, dataclasses.replace(PLAIN, repeat_share=0.99), items=some(15))
    desk.label_some("ann", 15)
    desk.freeze()
    assert desk.claim("ann") == []


# ------------------------------------------------------------------------------------------------ leases


def test_an_expired_lease_gives_its_item_to_the_next_claim(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    assert desk.claim("bob") == []
    desk.pass_time(PLAIN.lease_s)
    assert keys(desk.claim("bob")) == keys([given])
    assert [row["state"] for row in desk.leases()] == ["expired", "open"]


def test_expire_takes_back_what_ended_and_says_how_many(store):
    desk = Desk(store, items=some(4))
    desk.claim("ann", 2)
    desk.pass_time(60)
    desk.claim("bob", 1)
    assert desk.expire() == 0
    desk.pass_time(PLAIN.lease_s - 60)
    assert desk.expire() == 2
    assert desk.expire() == 0
    assert sum(row["room"] for row in desk.items().values()) == 3


def test_a_heartbeat_keeps_the_item(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    desk.pass_time(PLAIN.lease_s - 1)
    end = desk.now + 1000 * PLAIN.lease_s
    assert desk.heartbeat("ann", given) == {given.assignment["id"]: end}
    desk.pass_time(PLAIN.lease_s - 1)
    assert desk.claim("bob") == []
    assert desk.heartbeat("bob", given) == {}
    desk.submit("ann", given)
    assert desk.heartbeat("ann", given) == {}


def test_who_is_stopped_gives_everything_back_at_once(store):
    desk = Desk(store, items=some(2))
    held = desk.claim("ann", 2)
    store.write(lambda conn: join(conn, desk.now, desk.id, desk.people["ann"], "stopped"))
    assert [row["state"] for row in desk.leases()] == ["released", "released"]
    assert sorted(keys(desk.claim("bob", 2))) == sorted(keys(held))


@pytest.mark.parametrize("how", ["stopped", "closed"])
def test_no_heartbeat_keeps_an_item_of_who_was_stopped_or_of_a_closed_project(store, how):
    desk, other = Desk(store, items=some(1)), Desk(store, items=some(1))
    (given,), (kept,) = desk.claim("ann"), other.claim("bob")
    if how == "stopped":
        desk.set_state("ann", "stopped")
    else:
        store.write(lambda conn: work.close_project(conn, desk.id, True))
    for _ in range(3):
        desk.pass_time(PLAIN.lease_s / 2)
        other.now = desk.now
        assert desk.heartbeat("ann", given) == {}
        assert other.heartbeat("bob", kept).keys() == {kept.assignment["id"]}
    desk.expire()
    assert [row["state"] for row in desk.leases()] == ["expired"]


def test_a_claim_takes_back_what_ended_in_another_project_too(store):
    desk, other = Desk(store, items=some(1)), Desk(store, items=some(1))
    desk.claim("ann")
    other.now = desk.now + 1000 * PLAIN.lease_s
    other.claim("bob")
    assert [row["state"] for row in desk.leases()] == ["expired"]


def test_a_released_item_is_anybodys_and_may_be_taken_up_again(store):
    desk = Desk(store, items=some(1))
    (given,) = desk.claim("ann")
    desk.release("bob", given)  # not theirs
    assert desk.claim("bob") == []
    desk.release("ann", given)
    assert desk.leases()[0]["state"] == "released"
    (again,) = desk.claim("ann")
    assert (again.assignment["id"], again.order) == (given.assignment["id"], given.order)
    assert desk.claim("bob") == []


def test_the_last_of_as_many_people_as_are_wanted_finishes_after_a_break(store):
    desk = Desk(store, people=("ann",), items=some(1))
    desk.claim("ann")
    desk.pass_time(10 * PLAIN.lease_s)
    desk.expire()
    _, done = desk.label("ann")
    assert not done.late
    assert desk.item("item-0")["done"] == 1


@pytest.mark.parametrize("number", HUGE)
def test_numbers_that_no_database_holds_are_nobodys(store, number):
    desk = Desk(store, items=some(1))
    ann = desk.people["ann"]
    assert store.write(lambda conn: work.heartbeat(conn, desk.now, ann, [number])) == {}
    store.write(lambda conn: work.release(conn, desk.now, ann, [number]))
    for do in (
        lambda conn: work.claim(conn, desk.now, number, desk.id),
        lambda conn: work.claim(conn, desk.now, ann, number),
        lambda conn: work.nothing(conn, ann, number),
        lambda conn: work.look(conn, ann, number),
        lambda conn: work.skip(conn, desk.now, ann, number, key="k", reason="r"),
        lambda conn: work.undo(conn, desk.now, ann, number, key="k"),
        lambda conn: work.reveal(conn, desk.now, ann, number, "k", ["a", "b"]),
        lambda conn: work.submit(conn, desk.now, ann, number, key="k", revision=0, answers=LEFT),
    ):
        with pytest.raises(Refused) as error:
            store.write(do)
        assert error.value.code == "unknown"


def test_too_many_at_once_are_refused(store):
    desk = Desk(store)
    ids = list(range(1, MOST_AT_ONCE + 2))
    for do in (work.heartbeat, work.release):
        with pytest.raises(Refused, match="At most 200") as error:
            store.write(lambda conn, do=do: do(conn, desk.now, desk.people["ann"], ids))
        assert error.value.code == "too_many"


def test_who_has_no_part_in_a_project_is_given_nothing_of_it(store):
    desk, other = Desk(store, items=some(1)), Desk(store, people=("eve",))
    with pytest.raises(Refused, match="no such project for you") as error:
        store.write(lambda conn: work.claim(conn, desk.now, other.people["eve"], desk.id))
    assert error.value.code == "unknown"


def test_who_was_stopped_is_given_nothing_and_hands_in_nothing(store):
    desk = Desk(store, items=some(2))
    (given,) = desk.claim("ann")
    desk.set_state("ann", "stopped")
    assert desk.claim("ann") == []
    assert desk.nothing("ann") == "stopped"
    for do in (desk.submit, desk.skip, desk.undo):
        with pytest.raises(Refused, match="do not work in this project") as error:
            do("ann", given)
        assert error.value.code == "stopped"
    assert desk.rows() == []


def test_a_project_of_lessons_hands_out_nothing(store):
    desk = Desk(store, dataclasses.replace(PLAIN, questions=(Question("press", "press"),)), items=some(1, k=1))
    assert desk.claim("ann") == []


def test_looking_changes_nothing(store):
    desk = Desk(store, items=some(1))
    given, _ = desk.label("ann", RIGHT)
    seen = desk.look("ann", given)
    assert seen.answers == RIGHT
    assert seen.assignment["state"] == "submitted"
    with pytest.raises(Refused) as error:
        desk.look("bob", given)
    assert error.value.code == "not_yours"


def test_leases_of_one_project_are_not_held_in_another(store):
    one = Desk(store, items=some(3))
    other = Desk(store, people=(), items=some(3))
    other.people = one.people
    from rein.feedback.people import join

    store.write(lambda conn: join(conn, other.now, other.id, one.people["ann"], "working"))
    assert len(one.claim("ann", 2)) == len(other.claim("ann", 2)) == 2
    for before, after in pairwise(sorted(row["id"] for row in one.leases() + other.leases())):
        assert before < after


def test_ties_count_as_answers(store):
    desk = Desk(store, items=some(1))
    desk.label("ann", EVEN)
    assert desk.answers()[0]["choice"] == -1
