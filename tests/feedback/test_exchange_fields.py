"""Which fields of a file labelers are shown: what is asked about, and nothing that says who wrote what."""

from __future__ import annotations

import dataclasses
import json

import pytest
from desks import PLAIN, Desk
from exchanging import Exchange
from sqlalchemy import select

from rein.feedback.items import load_project
from rein.feedback.tables import item

HIDDEN = {"generator": "gpt-9", "winner": "model_a", "name": "model_a"}


@pytest.fixture
def dialect():
    return "sqlite"


def items_of(exchange):
    with exchange.store.reading() as conn:
        return [dict(row) for row in conn.execute(select(item).order_by(item.c.id)).mappings()]


@pytest.mark.parametrize(
    ("row", "context"),
    [
        ({"title": "T", "post": "P"}, {"title": "T", "post": "P"}),
        ({"instruction": "I", "input": "J"}, {"instruction": "I", "input": "J"}),
        ({"article": "A", "site": "s"}, {"article": "A", "site": "s"}),
        ({"question": "Q", "text": "t", "document": "d"}, {"question": "Q", "text": "t", "document": "d"}),
        ({"prompt": "P"}, {"prompt": "P"}),
        ({"context": {"post": "P"}}, {"post": "P"}),
        ({"prompt": [{"role": "user", "content": "Q"}]}, {"prompt": "Q"}),
    ],
)
@pytest.mark.parametrize("said", [{}, {"ranks": [1, 2]}])
def test_fields_that_nobody_knows_stay_out_of_sight_and_are_told_of(store, tmp_path, row, context, said):
    exchange = Exchange(store, tmp_path, "p")
    done = exchange.put([{**row, **HIDDEN, "outputs": ["a", "b"], **said}], preset="ranking")
    assert (done.added, done.bad_total, sorted(done.unseen)) == (1, 0, sorted(HIDDEN))
    (kept,) = items_of(exchange)
    assert kept["context"] == context
    assert kept["extra"]["row"] == HIDDEN


def test_a_project_says_which_fields_are_shown(store, tmp_path):
    desk = Desk(store, dataclasses.replace(PLAIN, fields=("name", "story")))
    with store.reading() as conn:
        exchange = Exchange(store, tmp_path, load_project(conn, desk.id)[1].name)
    rows = [{"name": "N", "story": "S", "title": "T", "outputs": ["a", "b"]}, {"title": "T", "outputs": ["a", "b"]}]
    done = exchange.put(rows, create=False)
    assert (done.added, done.unseen, [bad.line for bad in done.bad]) == (1, ("title",), [2])
    assert "none of its fields is one that labelers are shown, but 'title'" in done.bad[0].problem
    assert items_of(exchange)[0]["context"] == {"name": "N", "story": "S"}


def test_two_items_that_differ_in_what_is_not_shown_are_two(store, tmp_path):
    exchange = Exchange(store, tmp_path, "p")
    rows = [{"post": "P", "generator": one, "outputs": ["a", "b"]} for one in "xyx"]
    done = exchange.put(rows, preset="comparison")
    assert (done.added, done.known) == (2, 1)
    assert [one["extra"]["row"]["generator"] for one in items_of(exchange)] == ["x", "y"]


def test_what_is_not_shown_goes_out_again_with_the_judgement(store, tmp_path):
    exchange = Exchange(store, tmp_path, "p")
    exchange.put([{"post": "P", **HIDDEN, "outputs": ["a", "b"], "ranks": [1, 2]}], preset="ranking")
    (row,) = exchange.rows("ranked")
    assert row["context"] == {"post": "P"}
    assert {name: row[name] for name in HIDDEN} == HIDDEN


def test_a_task_of_label_studio_shows_no_names_of_models(store, tmp_path):
    data = {"prompt": "Sing.", "answer1": "La.", "answer2": "Lu.", "model1": "gpt-9", "model2": "ref"}
    exchange = Exchange(store, tmp_path, "p")
    done = exchange.put([{"id": 1, "data": data, "annotations": []}], "label-studio", preset="comparison")
    assert (done.added, done.unseen) == (1, ("model1", "model2"))
    (kept,) = items_of(exchange)
    assert kept["context"] == {"prompt": "Sing."}
    assert "gpt-9" not in json.dumps([kept["context"], kept["candidates"]])


def test_an_output_may_have_any_fields_of_its_own(store, tmp_path):
    exchange = Exchange(store, tmp_path, "p")
    output = {"text": "a", "policy": "x", "what": 1, "extra": 2}
    assert exchange.put([{"prompt": "P", "outputs": [output, "b"]}], preset="comparison").added == 1
    assert items_of(exchange)[0]["candidates"][0]["extra"] == {"what": 1, "extra": 2}
