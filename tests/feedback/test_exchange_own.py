"""Rein's own lines, where they are not what they should be."""

import json

import pytest
from desks import PLAIN, Desk, new_item
from exchanging import Exchange, write_lines
from sqlalchemy import select

from rein.feedback.exchange.own import read_own
from rein.feedback.exchange.rows import Unreadable
from rein.feedback.items import load_project
from rein.feedback.tables import answer, feedback


@pytest.fixture
def dialect():
    return "sqlite"


ITEM = {
    "key": "k", "role": "work", "split": "train", "context": {"post": "p"}, "gold": None, "extra": {}, "wanted": 1,
    "candidates": [{"text": "a", "policy": ""}, {"text": "b", "policy": ""}], "priority": 0.0, "closed": False,
    "batch": "b", "document": None,
}  # fmt: skip
SAID = {
    "item": "k", "person": "l", "judgement": None, "key": "1", "question": "choice", "kind": "comparison", "version": 1,
    "act": "say", "value": {"choice": 0, "points": 2}, "shown": {}, "times": {}, "late": False, "extra": {}, "at_ms": 5,
    "of": None,
}  # fmt: skip
HEAD = {"format": "rein.feedback", "version": 1, "project": json.loads(json.dumps(PLAIN.to_json()))}


def without(row, name):
    return {key: value for key, value in row.items() if key != name}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"format": "rein.feedback", "version": 2, "project": {}}, "it is no rein.feedback of version 1"),
        ({"format": "rein.feedback", "version": 1}, "project is missing"),
        ({"item": {}, "said": {}}, "a line has one field"),
        ({"item": 3}, "item is the number 3"),
        ({"thing": {}}, "there is no 'thing'"),
        *(({"item": without(ITEM, name)}, f"{name} is missing") for name in ("key", "context", "batch", "priority")),
        ({"item": {**ITEM, "candidates": [{"text": 3}]}}, "a candidate has no text"),
        ({"item": {**ITEM, "wanted": True}}, "wanted is true"),
        *(({"said": without(SAID, name)}, f"{name} is missing") for name in ("item", "person", "kind", "at_ms")),
        ({"said": {**SAID, "value": 0}}, "value is the number 0"),
        ({"said": {**SAID, "of": [1]}}, "of is neither null"),
        ({"said": {**SAID, "judgement": 3}}, "judgement is the number 3"),
        ({"document": {"key": "k"}}, "format is missing"),
        ({"instruction": {"version": "1", "text": ""}}, "version is a text"),
        ({"person": {"name": "x", "role": "admin"}}, "neither labeler nor researcher"),
        ({"batch": {}}, "name is missing"),
        ({"batch": {"name": "x" * 101}}, "the name of a batch has not 1 to 100 printable characters"),
        ({"instruction": {"version": 10**9, "text": ""}}, "version is the number 1000000000, but 0 to 1000000"),
        ({"said": {**SAID, "at_ms": 2**63}}, "at_ms is a huge number"),
        ({"said": {**SAID, "at_ms": -1}}, "at_ms is the number -1"),
        ({"said": {**SAID, "question": "q" * 3000}}, "the question has not 0 to 100 printable characters"),
        ({"said": {**SAID, "shown": {"turn": "x"}}}, "a turn that is neither 0 nor 1"),
        ({"said": {**SAID, "shown": {"order": 5}}}, "an order that is no list"),
    ],
)  # fmt: skip
def test_a_line_that_is_none_says_why(row, problem):
    with pytest.raises(Unreadable, match=problem):
        read_own(1, row)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({**SAID, "item": "other"}, "There is no item 'other'"),
        ({**SAID, "version": 2}, "comparison is of version 2, but this program reads version 1"),
        ({**SAID, "kind": "guess"}, "there is no kind 'guess'"),
        ({**SAID, "value": {"choice": 2}}, "choice: choice is 2"),
        ({**SAID, "act": "undo", "value": {}, "of": ["nothing", "say"]}, "is of nothing that this person said"),
        ({**SAID, "shown": {"order": [0, 2]}}, "The shown order"),
    ],
)
def test_what_was_said_of_nothing_or_is_none_is_left_out_alone(store, tmp_path, said, problem):
    exchange = Exchange(store, tmp_path)
    done = exchange.put([HEAD, {"item": ITEM}, {"said": said}, {"said": {**SAID, "key": "2", "person": "m"}}])
    assert (done.added, done.answers, done.bad_total) == (1, 1, 1)
    assert done.bad[0].line == 3
    assert problem in done.bad[0].problem


def test_a_change_of_mind_and_its_undoing_come_in_as_they_were(store, tmp_path):
    exchange = Exchange(store, tmp_path, "plain")
    later = {**SAID, "act": "revise", "value": {"choice": 1, "points": 9}, "key": "2", "of": ["1", "say"]}
    exchange.put([HEAD, {"item": ITEM}, {"said": SAID}, {"said": later}])
    assert [row["extra"]["confidence"] for row in exchange.rows("openai-comparisons")] == [9]
    undone = {**later, "act": "undo", "key": "3", "of": ["2", "revise"]}
    exchange.put([HEAD, {"item": ITEM}, {"said": SAID}, {"said": later}, {"said": undone}])
    assert exchange.rows("openai-comparisons") == []
    assert (exchange.count(feedback), exchange.count(answer)) == (3, 0)
    assert [row["said"]["of"] for row in exchange.rows("rein") if "said" in row] == [
        None,
        ["1", "say"],
        ["2", "revise"],
    ]


def test_the_second_of_two_judgements_of_one_person_is_revised_and_not_the_first(store, tmp_path):
    exchange = Exchange(store, tmp_path, "plain")
    second = {**SAID, "key": "2", "shown": {"turn": 1}}
    changed = {**second, "act": "revise", "value": {"choice": 1, "points": 8}, "key": "3", "of": ["2", "say"]}
    exchange.put([HEAD, {"item": ITEM}, {"said": SAID}, {"said": second}, {"said": changed}])
    with store.reading() as conn:
        stands = conn.execute(select(answer.c.turn, answer.c.choice).order_by(answer.c.seq)).all()
    assert [tuple(row) for row in stands] == [(0, 0), (1, 1)]


def test_a_closed_item_and_a_frozen_batch_stay_so(store, tmp_path):
    rows = [HEAD, {"item": {**ITEM, "closed": True}}, {"said": SAID}, {"batch": {"name": "b", "frozen": True}}]
    exchange = Exchange(store, tmp_path, "plain")
    done = exchange.put(rows)
    assert done.bad == ()
    out = exchange.rows("rein")
    assert next(row["item"]["closed"] for row in out if "item" in row)
    assert out[-1] == {"batch": {"name": "b", "frozen": True}}


def test_a_project_here_can_take_what_another_one_gave_and_keeps_its_own_settings(store, tmp_path):
    desk = Desk(store, PLAIN, people=("ann",), items=[new_item("mine")])
    with store.reading() as conn:
        _, settings = load_project(conn, desk.id)
    exchange = Exchange(store, tmp_path, settings.name)
    done = exchange.put([HEAD, {"item": ITEM}, {"said": SAID}], create=False)
    assert (done.added, done.answers) == (1, 1)
    write_lines(tmp_path / "out.jsonl", exchange.rows("rein"))
    with store.reading() as conn:
        assert load_project(conn, desk.id)[1] == settings
