"""What stands, and what came from elsewhere."""

from __future__ import annotations

import dataclasses

import pytest
from desks import LEFT, PLAIN, RIGHT, Desk, new_item

from rein.feedback import work
from rein.feedback.project import PRESETS, Question
from rein.feedback.refused import Refused
from rein.feedback.tables import answer
from rein.feedback.work import Record


def record(desk, *rows):
    return desk.store.write(lambda conn: work.record(conn, desk.now, desk.id, rows))


def said(desk, who, key="item-0", choice=0, points=2, **more):
    value = {"choice": choice, "points": points}
    of = {"question": "choice", "kind": "comparison", "value": value, "key": f"{who} {key}"}
    return Record(desk.item(key)["id"], desk.people[who], **{**of, **more})


@pytest.fixture
def desk(store):
    return Desk(store, dataclasses.replace(PLAIN, overlap=2), items=[new_item(f"item-{n}") for n in range(3)])


def test_what_a_file_says_stands_beside_what_was_answered_here(desk):
    rows = [said(desk, "ann", shown={"order": [1, 0]}, times={"active_ms": 70}), said(desk, "bob", choice=1, points=9)]
    assert record(desk, *rows) == work.Added(2, 0)
    assert record(desk, *rows) == work.Added(0, 2)
    found = [(row["person"], row["choice"], row["left_side"], row["active_ms"]) for row in desk.answers()]
    assert found == [(desk.people["ann"], 0, False, 70), (desk.people["bob"], 1, False, None)]
    assert [row["assignment"] for row in desk.answers()] == [-row["seq"] for row in desk.rows()]
    assert desk.answers() == desk.rebuilt()


def test_an_item_that_a_file_answered_is_not_handed_out_beyond_what_it_wants(desk):
    record(desk, said(desk, "ann"))
    assert (desk.item("item-0")["done"], desk.item("item-0")["room"]) == (1, 1)
    record(desk, said(desk, "bob"), said(desk, "cid"))
    found = desk.item("item-0")
    assert (found["done"], found["wanted"], found["room"]) == (3, 3, 0)
    assert {claimed.item["key"] for claimed in desk.claim("ann", 2)} == {"item-1", "item-2"}


def test_one_person_with_many_answers_is_one_person(desk):
    desk.store.write(lambda conn: work.change_project(conn, desk.now, desk.id, _two_questions(desk)))
    record(desk, said(desk, "ann"), said(desk, "ann", question="second", key="item-0"))
    assert desk.item("item-0")["done"] == 1


def _two_questions(desk):
    with desk.store.reading() as conn:
        _, settings = work.load_project(conn, desk.id)
    return dataclasses.replace(settings, questions=(*settings.questions, Question("second", "comparison")))


def test_revisions_and_undos_of_a_file_are_followed(desk):
    rows = (
        said(desk, "ann"),
        said(desk, "ann", choice=1, points=8, act="revise"),
        said(desk, "bob", choice=None, points=5),
        said(desk, "bob", act="undo", value={}),
        dataclasses.replace(said(desk, "ann", choice=1, points=9, act="revise"), key="third"),
    )
    assert record(desk, *rows) == work.Added(5, 0)
    (standing,) = desk.answers()
    assert standing["points"] == 9.0
    assert standing["assignment"] == -desk.rows()[0]["seq"]
    assert [row["of"] for row in desk.rows()] == [None, desk.rows()[0]["seq"], None, desk.rows()[2]["seq"],
                                                  desk.rows()[1]["seq"]]  # fmt: skip
    assert desk.answers() == desk.rebuilt()


def test_notes_skips_presses_and_events_answer_no_question(desk):
    rows = (
        said(desk, "ann", question="notes", kind="notes", act="note", value={"notes": ["a", ""]}),
        said(desk, "ann", question="", kind="skip", act="skip", value={"reason": "no"}),
        said(desk, "ann", question="press", kind="press", value={"value": 1.0, "t": 0.5, "credits": []}),
    )
    assert record(desk, *rows) == work.Added(3, 0)
    assert desk.answers() == desk.rebuilt() == []
    assert desk.item("item-0")["done"] == 0


def test_a_file_may_leave_out_what_a_person_at_work_may_not(desk):
    record(desk, said(desk, "ann", value={"choice": 1}))
    assert desk.answers()[0]["points"] is None


@pytest.mark.parametrize(
    ("change", "code", "match"),
    [
        ({"value": {"choice": 3}}, "bad_value", "choice: choice is 3"),
        ({"kind": "comparisn"}, "bad_value", "no kind 'comparisn'"),
        ({"act": "shout"}, "bad_value", "no act 'shout'"),
        ({"act": "undo", "value": {}}, "bad_value", "of nothing that this person said"),
        ({"kind": "best_of", "value": {"best": 0}}, "bad_value", "asks choice as comparison, and this is of kind best"),
        ({"act": "revise"}, "bad_value", "of nothing"),
        ({"shown": {"order": [0, 0]}}, "bad_value", "shown order"),
        ({"extra": {"a": "\0"}}, "bad_value", "NUL"),
        ({"key": ""}, "bad_value", "key is a text"),
        ({"item": 10**6}, "unknown", "no item"),
        ({"item": 2**63}, "unknown", "no item"),
    ],
)
def test_a_row_that_is_none_takes_all_that_came_with_it_back(desk, change, code, match):
    bad = dataclasses.replace(said(desk, "ann"), **change)
    with pytest.raises(Refused, match=match) as error:
        record(desk, said(desk, "bob"), bad)
    assert error.value.code == code
    assert desk.rows() == desk.answers() == []


def test_an_item_of_another_project_is_unknown(store, desk):
    other = Desk(store, items=[new_item("item-0")])
    with pytest.raises(Refused, match="in this project"):
        record(desk, dataclasses.replace(said(desk, "ann"), item=other.item("item-0")["id"]))


def test_thousands_of_rows_go_in(desk):
    desk.add(*(new_item(f"more-{n}") for n in range(1100)))
    numbers = [row["id"] for row in desk.items().values()]
    one = said(desk, "ann")
    rows = [dataclasses.replace(one, item=n, key=f"k{n}") for n in numbers]
    assert record(desk, *rows) == work.Added(1103, 0)
    assert desk.count(answer) == 1103
    assert desk.answers() == desk.rebuilt()
    assert {row["done"] for row in desk.items().values()} == {1}


def test_the_answers_of_a_project_are_made_anew_and_no_others(store):
    one, other = (Desk(store, items=[new_item("a"), new_item("b")]) for _ in range(2))
    for desk in (one, other):
        given, _ = desk.label("ann", LEFT)
        desk.submit("ann", given, RIGHT, revision=1)
        desk.label("ann", LEFT)
    before = one.answers(), other.answers()
    with store.reading() as conn:
        assert len(conn.execute(answer.select()).all()) == 4
    store.write(lambda conn: conn.execute(answer.update().values(choice=None)) and None)
    store.write(lambda conn: work.rebuild_answers(conn, one.id))
    assert one.answers() == before[0]
    assert other.answers() != before[1]


def test_answers_to_a_question_that_is_asked_no_more_are_kept(store):
    desk = Desk(store, dataclasses.replace(PLAIN, questions=PRESETS["instructgpt"].questions),
                items=[new_item("a", k=3)])  # fmt: skip
    desk.label("ann", {"overall": {"ratings": [1, 2, 3]}, "ranking": {"ranks": [3, 2, 1]}})
    with store.reading() as conn:
        _, settings = work.load_project(conn, desk.id)
    fewer = dataclasses.replace(settings, questions=settings.questions[:1])
    store.write(lambda conn: work.change_project(conn, desk.now, desk.id, fewer))
    assert desk.answers() == desk.rebuilt()
    assert len(desk.answers()) == 2
