"""Projects, items, batches: what a project takes, and what it does not."""

from __future__ import annotations

import dataclasses

import pytest
from desks import LEFT, PLAIN, START, Desk, new_item, rating_project
from sqlalchemy import select

from rein.feedback import work
from rein.feedback.project import PRESETS, Question
from rein.feedback.refused import Refused, is_id, unstorable
from rein.feedback.tables import batch, item, project


def refused(code, match, do, *args, **named):
    with pytest.raises(Refused, match=match) as error:
        do(*args, **named)
    assert error.value.code == code


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_project(store, name):
    number = store.write(lambda conn: work.create_project(conn, START, PRESETS[name]))
    with store.reading() as conn:
        assert work.load_project(conn, name) == work.load_project(conn, number) == (number, PRESETS[name])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"name": ""}, "1 to 100"),
        ({"name": "a/b"}, "no slash"),
        ({"name": "a\nb"}, "printable"),
        ({"title": "\0"}, "NUL"),
        ({"overlap": 0}, "overlap is 0"),
        ({"overlap": True}, "overlap is True"),
        ({"ahead": 51}, "from 1 to 50"),
        ({"lease_s": 0}, "lease_s is 0"),
        ({"seed": 2**63}, "seed is"),
        ({"gold_share": 1.5}, "gold_share is 1.5"),
        ({"gold_share": 0.6, "calibration_share": 0.6}, "together they are above 1"),
        ({"pass_agreement": "high"}, "pass_agreement is 'high'"),
        ({"pass_median_s": -1.0}, "seconds are expected"),
        ({"order": "random"}, "seeded or given"),
        ({"questions": (Question("a", "rating"), Question("a", "rating"))}, "another name"),
        ({"questions": (Question("notes", "rating"),)}, "is not notes"),
        ({"questions": (Question("a", "ratings"),)}, "Did you mean rating"),
        ({"questions": (Question("a", "skip"),)}, "kind 'skip'"),
        ({"questions": (Question("a", "rating", points=1),)}, "points 1"),
    ],
)
def test_settings_that_are_none_are_refused(store, change, match):
    settings = dataclasses.replace(PLAIN, **change)
    refused("bad_value", match, store.write, lambda conn: work.create_project(conn, START, settings))
    with store.reading() as conn:
        assert conn.execute(select(project)).all() == []


def test_a_name_is_given_to_one_project(store):
    one, other = dataclasses.replace(PLAIN, name="one"), dataclasses.replace(PLAIN, name="other")
    store.write(lambda conn: work.create_project(conn, START, one))
    number = store.write(lambda conn: work.create_project(conn, START, other))
    refused("bad_value", "a project one", store.write, lambda conn: work.create_project(conn, START, one))
    refused("bad_value", "a project one", store.write, lambda conn: work.change_project(conn, START, number, one))


def test_a_project_is_changed_where_its_answers_stay_true(store):
    desk = Desk(store)
    _, before = store.write(lambda conn: work.load_project(conn, desk.id))

    def change(**changes):
        settings = dataclasses.replace(before, **changes)
        store.write(lambda conn: work.change_project(conn, START, desk.id, settings))

    change(overlap=2, title="New")
    with store.reading() as conn:
        assert work.load_project(conn, desk.id)[1].title == "New"
    refused("bad_value", "seed and order stay", change, seed=1)
    refused("bad_value", "seed and order stay", change, order="given")
    refused("bad_value", "choice is of kind comparison", change, questions=(Question("choice", "best_of"),))


def test_a_question_does_not_become_another_kind_in_two_steps(store):
    desk = Desk(store, items=[new_item("a")])
    _, before = store.write(lambda conn: work.load_project(conn, desk.id))

    def ask(*questions):
        settings = dataclasses.replace(before, questions=questions)
        store.write(lambda conn: work.change_project(conn, START, desk.id, settings))

    other, best = Question("other", "comparison"), Question("choice", "best_of")
    ask(other)
    ask(best)  # nobody has answered it: nothing is confused
    ask(other)
    ask(*before.questions)
    claimed, _ = desk.label("ann")
    desk.undo("ann", claimed)  # what was taken back was said too
    ask(other)
    refused("bad_value", "has answers of kind comparison. Ask the new one under another name", ask, best)
    ask(other, *before.questions)


def test_a_right_answer_keeps_its_question_from_becoming_another_kind(store):
    desk = Desk(store, items=[new_item("a", role="gold", gold={"answers": LEFT})])
    _, before = store.write(lambda conn: work.load_project(conn, desk.id))

    def ask(*questions):
        settings = dataclasses.replace(before, questions=questions)
        store.write(lambda conn: work.change_project(conn, START, desk.id, settings))

    ask(Question("other", "comparison"))
    refused("bad_value", "a right answer of another kind at item a", ask, Question("choice", "best_of"))
    ask(*before.questions)


def test_what_is_known_of_an_item_can_be_forgotten(store):
    desk = Desk(store, items=[new_item("a", role="gold", gold={"answers": LEFT}), new_item("b")])
    one = desk.item("a")["id"]
    store.write(lambda conn: work.change_item(conn, one, priority=2.0))
    assert desk.item("a")["gold"] == {"answers": LEFT}
    store.write(lambda conn: work.change_item(conn, one, gold=None, role="work"))
    assert (desk.item("a")["gold"], desk.item("a")["role"], desk.item("a")["wanted"]) == (None, "work", 1)
    refused("bad_value", "needs its right answers", store.write,
            lambda conn: work.change_item(conn, one, gold=None, role="onboarding"))  # fmt: skip


@pytest.mark.parametrize("name", ["nothing", "pla\0in", "\ud800", 0, -1, 2**63, 10**30])
def test_an_unknown_project_is_refused_with_the_known_ones(store, name):
    Desk(store)
    with store.reading() as conn:
        refused("unknown", "There is no project", work.load_project, conn, name)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"key": ""}, "its key"),
        ({"key": "k" * 201}, "its key"),
        ({"key": 5}, "its key"),
        ({"key": "a\0"}, "NUL"),
        ({"role": "Gold"}, "Did you mean gold"),
        ({"batch": ""}, "its batch"),
        ({"split": "a\nb"}, "its split"),
        ({"context": {"post": "a\0b"}}, "NUL"),
        ({"context": {"post": "\udc00"}}, "lone surrogate"),
        ({"context": {"n": float("nan")}}, "nan is no number"),
        ({"context": {"post": "x" * 1_000_001}}, "longer than"),
        ({"candidates": [{"text": "a"}]}, "1 candidates, but the question choice .comparison. needs 2"),
        ({"candidates": [{"text": "a"}] * 3}, "3 candidates"),
        ({"candidates": [{"text": "a"}, {"policy": "b"}]}, "a candidate has no text"),
        ({"candidates": ["a", "b"]}, "a candidate has no text"),
        ({"wanted": 0}, "it wants 0"),
        ({"priority": float("inf")}, "priority is inf"),
        ({"gold": {"answers": {"choise": {"choice": 0, "points": 1}}}}, "Did you mean choice"),
        ({"gold": {"answers": {"choice": {"choice": 2}}}}, "gold answer to choice"),
        ({"gold": {"right": 1}}, "its gold is not"),
        ({"gold": 5}, "its gold is not"),
        ({"role": "onboarding"}, "needs its right answers"),
    ],
)
def test_an_item_that_fits_no_question_is_refused_with_all_that_came_with_it(store, change, match):
    desk = Desk(store)
    bad = dataclasses.replace(new_item("bad"), **change)
    refused("bad_value", match, desk.add, new_item("good"), bad)
    assert desk.items() == {}
    assert work.problem_of(PLAIN, new_item("good")) == ""


def test_a_known_key_changes_nothing_and_another_text_under_it_is_refused(store):
    desk = Desk(store)
    assert desk.add(new_item("a"), new_item("b"), new_item("a")) == work.Added(2, 1)
    before = desk.items()
    assert desk.add(new_item("b"), new_item("c")) == work.Added(1, 1)
    refused("bad_value", "with another text", desk.add, dataclasses.replace(new_item("a"), context={"post": "new"}))
    refused("bad_value", "with another text", desk.add, new_item("d"), dataclasses.replace(new_item("d"), context={}))
    assert {key: desk.items()[key] for key in before} == before


def test_thousands_of_items_go_in_and_are_known_again(store):
    desk = Desk(store)
    many = [new_item(f"item-{n}") for n in range(1234)]
    assert desk.add(*many) == work.Added(1234, 0)
    assert desk.add(*many) == work.Added(0, 1234)


def test_the_seeded_order_depends_on_seed_and_keys_alone(new_store):
    one, other = Desk(new_store()), Desk(new_store())
    names = [f"item-{n}" for n in range(20)]
    one.add(*map(new_item, names))
    other.add(*map(new_item, reversed(names)))
    places = [{key: row["place"] for key, row in desk.items().items()} for desk in (one, other)]
    assert places[0] == places[1]
    assert sorted(names, key=places[0].get) != names
    third = Desk(new_store(), dataclasses.replace(PLAIN, seed=1))
    third.add(*map(new_item, names))
    assert {key: row["place"] for key, row in third.items().items()} != places[0]


def test_the_given_order_is_that_in_which_items_came(store):
    desk = Desk(store, dataclasses.replace(PLAIN, order="given"))
    desk.add(new_item("z"), new_item("a"))
    desk.add(new_item("m"))
    assert [desk.label("ann")[0].item["key"] for _ in range(3)] == ["z", "a", "m"]


def test_work_wants_the_overlap_and_the_rest_is_for_everybody(store):
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=2))
    desk.add(new_item("a"), new_item("b", wanted=3), *(new_item(role, role=role) for role in ("gold", "drift")))
    found = {key: (row["wanted"], row["room"]) for key, row in desk.items().items()}
    assert found == {"a": (2, 2), "b": (3, 3), "gold": (0, 1), "drift": (0, 1)}
    assert desk.item("a")["gold"] is None
    with store.reading() as conn:  # no JSON null, which is a value
        assert conn.execute(select(item.c.id).where(item.c.gold.is_(None))).all()


def test_a_frozen_batch_takes_no_items_and_hands_out_none(store):
    desk = Desk(store)
    desk.add(new_item("a"), new_item("b", batch="batch2"))
    desk.freeze("batch1")
    refused("frozen", "batch1 is frozen", desk.add, new_item("c"))
    assert [one.item["key"] for one in desk.claim("ann", 2)] == ["b"]
    desk.freeze("batch1", frozen=False)
    assert {one.item["key"] for one in desk.claim("ann", 2)} == {"a", "b"}
    with store.reading() as conn:
        assert conn.execute(select(batch.c.frozen_ms)).scalars().all() == [None, None]
    for name in ("batch3", "a\0"):
        refused("unknown", "no batch", desk.freeze, name)


def test_what_a_researcher_changes_of_an_item_changes_the_queue(store):
    desk = Desk(store, dataclasses.replace(PLAIN, order="given", ahead=1))
    desk.add(*(new_item(key) for key in "abc"))

    def change(key, **changes):
        number = desk.item(key)["id"]
        store.write(lambda conn: work.change_item(conn, number, **changes))

    change("c", priority=1.0)
    change("a", closed=True)
    given, _ = desk.label("ann")
    assert given.item["key"] == "c"
    given, _ = desk.label("ann")
    assert given.item["key"] == "b"
    assert desk.claim("ann") == []
    change("a", closed=False)
    assert desk.claim("ann")[0].item["key"] == "a"
    gold = {"answers": {"choice": {"choice": 1, "points": 9}}, "why": "it says so"}
    change("b", role="gold", gold=gold)
    assert (desk.item("b")["role"], desk.item("b")["gold"], desk.item("b")["room"]) == ("gold", gold, 1)
    change("b", role="work")
    assert (desk.item("b")["wanted"], desk.item("b")["room"]) == (1, 0)
    refused("bad_value", "Did you mean work", change, "a", role="wrk")
    refused("bad_value", "gold answer", change, "a", gold={"answers": {"choice": {"choice": 7}}})
    for number in (0, 10**6, 2**63, -1):
        refused("unknown", "no item", store.write, lambda conn, n=number: work.change_item(conn, n, closed=True))


def test_priorities_of_many_items_are_set_at_once(store):
    desk = Desk(store)
    desk.add(*(new_item(f"item-{n}") for n in range(700)))
    numbers = {row["id"]: float(row["id"] % 7) for row in desk.items().values()}
    store.write(lambda conn: work.set_priorities(conn, desk.id, numbers))
    assert {row["id"]: row["priority"] for row in desk.items().values()} == numbers
    refused("bad_value", "priority of item 1 is nan", store.write,
            lambda conn: work.set_priorities(conn, desk.id, {1: float("nan")}))  # fmt: skip


def test_a_closed_project_hands_out_nothing_and_takes_what_is_out(store):
    desk = Desk(store, items=[new_item("a"), new_item("b")])
    (given,) = desk.claim("ann")
    store.write(lambda conn: work.close_project(conn, desk.id, True))
    assert desk.claim("ann") == desk.claim("bob") == []
    assert desk.nothing("bob") == "closed"
    desk.submit("ann", given)
    store.write(lambda conn: work.close_project(conn, desk.id, False))
    assert len(desk.claim("bob")) == 1


def test_a_project_of_no_questions_is_none(store):
    refused("bad_value", "one or more questions", Desk, store, dataclasses.replace(PLAIN, questions=()))


def test_items_of_ratings_take_any_number_of_outputs_that_can_be_shown(store):
    desk = Desk(store, rating_project(), items=[new_item("one", k=1), new_item("nine", k=9)])
    refused("bad_value", "10 candidates", desk.add, new_item("ten", k=10))


def test_refused_survives_the_way_from_another_process():
    import pickle

    back = pickle.loads(pickle.dumps(Refused("stale", "Load it again.")))
    assert (back.code, back.text, str(back)) == ("stale", "Load it again.", "Load it again.")


def test_what_a_database_cannot_keep_is_found_wherever_it_is():
    assert unstorable({"a": [{"b": ("x\0",)}]})
    assert unstorable({"a\0": 1})
    assert unstorable([float("-inf")])
    assert not unstorable({"a": [None, True, 1, 1.5, "astral 😀, bidi \u202e"]})
    assert not is_id("1")
