"""OpenAI's released feedback, in and out without loss."""

import json

import pytest
from exchanging import Exchange, axes, comparison, swapped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from rein.feedback.exchange.openai import read_axes, read_comparison, write_axes, write_comparison
from rein.feedback.exchange.rows import Answer, Item, Unreadable, canonical
from rein.feedback.tables import answer, feedback, item, person

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@pytest.fixture
def exchange(store, tmp_path):
    return Exchange(store, tmp_path)


@pytest.fixture
def dialect():
    return "sqlite"  # what depends on the database is in test_exchange_import.py


def test_comparisons_come_out_as_they_went_in_line_by_line_in_their_order(exchange):
    rows = [
        comparison("one", notes=("Something about a car.", "Unclear.")),
        comparison("two", choice=0, confidence=1, worker="w2", batch="batch3", split="valid1"),
        swapped(comparison("one", worker="w3")),
        comparison("one", choice=0, confidence=2, worker="w2"),
        comparison("three", notes=("only one", None)),
    ]
    done = exchange.put(rows)
    assert (done.format, done.added, done.known, done.answers, done.bad) == ("openai-comparisons", 3, 2, 6, ())
    assert exchange.rows("openai-comparisons") == rows


def test_lines_of_another_form_come_out_as_they_went_in(exchange):
    news = {"id": "1f", "site": "cnn", "title": "T", "article": "A", "extra": {"deep": [1.0, None]}}
    rows = [
        comparison(extra={}),
        comparison(extra={"confidence": None}),
        comparison(extra={"confidence": "sure"}),
        comparison(info=news),
        comparison("p2", surprise=True),
        {name: value for name, value in comparison("p3").items() if name not in ("batch", "split", "extra")},
        comparison("p4", summaries=[{"text": "a"}, {"text": "b", "policy": None, "tokens": [1, 2]}]),
        comparison("p5", summaries=[{"text": "same", "policy": "x"}, {"text": "same", "policy": "x"}]),
        comparison("p6", choice=0, confidence=9),
        comparison("p7", notes=("n" * 3000, "")),
        comparison("p8", worker=None),
        comparison("p9", worker="", batch="", split=""),
    ]
    done = exchange.put(rows)
    assert done.bad == ()
    assert [canonical(row) for row in exchange.rows("openai-comparisons")] == [canonical(row) for row in rows]


def test_one_pair_labelled_by_several_workers_on_both_sides_is_one_item_with_several_answers(exchange):
    first = comparison(choice=1, confidence=8)
    exchange.put([first, swapped(comparison(worker="w2", choice=1, confidence=8)), comparison(worker="w3", choice=0)])
    with exchange.store.reading() as conn:
        (one,) = conn.execute(select(item)).mappings()
        said = conn.execute(select(answer).order_by(answer.c.seq)).mappings().all()
        names = dict(conn.execute(select(person.c.id, person.c.name)).all())
    ours = next(number for number, shown in enumerate(one["candidates"]) if shown["policy"] == "ref")
    assert [names[row["person"]] for row in said] == ["w1", "w2", "w3"]
    assert [row["choice"] == ours for row in said] == [True, True, False]
    # w1 saw it on the right, w2 on the left; w3 chose the other one, on the left.
    assert [row["left_side"] for row in said] == [False, True, True]
    towards = 8 if ours == 1 else 2
    assert [row["points"] for row in said] == [towards, towards, towards]
    assert one["done"] == one["wanted"] == 3
    assert one["room"] == 0


def test_notes_are_kept_as_the_naive_interpretations_that_they_are(exchange):
    exchange.put([comparison(notes=("of one", "of two")), swapped(comparison(worker="w2", notes=("of one", "of two")))])
    with exchange.store.reading() as conn:
        notes = conn.execute(select(feedback.c.value).where(feedback.c.kind == "notes")).scalars().all()
        (candidates,) = conn.execute(select(item.c.candidates)).scalars()
    expected = [{" one": "of one", " two": "of two"}[one["text"]] for one in candidates]
    assert notes == [{"notes": expected}, {"notes": expected}]


def test_axes_come_out_as_they_went_in(exchange):
    rows = [
        axes(),
        axes(worker="w3"),
        axes(summary={**axes()["summary"], "note": None}),
        axes(summary={**axes()["summary"], "axes": {"overall": 7, "accuracy": None, "compatible": True}}),
        axes(info={"id": "t3", "post": "p", "title": "t", "subreddit": "s"}, surprise=[1]),
    ]
    done = exchange.put(rows)
    assert (done.format, done.added, done.answers, done.bad) == ("openai-axes", 2, 9, ())
    assert [canonical(row) for row in exchange.rows("openai-axes")] == [canonical(row) for row in rows]


def test_a_batch_and_a_split_of_the_import_take_the_place_of_the_files_own(exchange):
    from rein.feedback.exchange.checking import Given

    exchange.put([comparison(), comparison(surprise=1)], given=Given(batch="ours", splits={"held": 1.0}))
    rows = exchange.rows("openai-comparisons")
    assert [(row["batch"], row["split"]) for row in rows] == [("ours", "held")] * 2


def test_what_was_labelled_here_goes_out_in_the_same_form(store):
    from desks import PLAIN, Desk, new_item

    desk = Desk(store, PLAIN, people=("ann",), items=[new_item("p1")])
    claimed, _ = desk.label("ann", {"choice": {"choice": 0, "points": 3}})
    shown = [claimed.item["candidates"][number]["text"] for number in claimed.order]
    (row,) = Exchange(store, None, desk.id).rows("openai-comparisons")
    assert [one["text"] for one in row["summaries"]] == shown
    assert (row["choice"], row["extra"]) == (0, {"confidence": 3})
    assert row["info"] == {"id": "p1", "post": "a post, p1"}
    assert row["worker"].startswith("labeler-")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "info is missing"),
        (comparison(info="x"), "info is a text, but an object is expected"),
        (comparison(summaries=[{"text": "a"}]), "summaries has 1 entries"),
        (comparison(summaries=["a", "b"]), "a summary is no object"),
        (comparison(summaries=[{"text": "a"}, {"text": 3}]), "text of a summary is the number 3"),
        (comparison(choice=2), "choice is neither 0 nor 1"),
        (comparison(choice=True), "choice is neither 0 nor 1"),
        (comparison(choice=[]), "choice is neither 0 nor 1"),
    ],
)
def test_a_comparison_that_is_none_says_why(row, problem):
    with pytest.raises(Unreadable, match=problem):
        read_comparison(1, row)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (axes(summary=None), "summary is null, but an object is expected"),
        (axes(summary={"text": "a", "axes": {"overall": "7"}}), "no mark that is a whole number"),
        (axes(summary={"text": "a", "axes": [7]}), "axes is a list"),
    ],
)
def test_marks_that_are_none_say_why(row, problem):
    with pytest.raises(Unreadable, match=problem):
        read_axes(1, row)


def _answer(parsed, which):
    """What the store gives back of a parsed line: the answer, with the notes beside it."""
    ((asked, said),) = parsed.items
    notes = next((one.value["notes"] for one in said if one.kind == "notes"), None)
    one = json.loads(json.dumps(vars_of(said[which])))
    batch, split = asked.batch or "batch1", asked.split or "train"
    thing = Item(1, asked.name, batch, "work", split, asked.context, asked.candidates, asked.extra)
    return Answer(thing, one["person"], "", one["kind"], one["value"], one["shown"], one["extra"], 0, 0, notes, {})


def vars_of(said):
    return {name: getattr(said, name) for name in ("person", "kind", "value", "shown", "extra")}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.tuples(TEXT, TEXT), policies=st.tuples(TEXT, TEXT), notes=st.tuples(st.none() | TEXT, st.none() | TEXT),
    choice=st.integers(0, 1), confidence=st.none() | st.integers(-1, 11) | st.booleans(),
    info=st.dictionaries(st.sampled_from(["id", "title", "post", "site"]), TEXT | st.integers(), max_size=4),
    more=st.dictionaries(st.sampled_from(["batch", "split", "worker", "x"]), TEXT | st.none() | st.booleans()),
)  # fmt: skip
def test_any_comparison_is_written_as_it_was_read(texts, policies, notes, choice, confidence, info, more):
    row = comparison()
    row["summaries"] = [{"text": t, "policy": p, "note": n} for t, p, n in zip(texts, policies, notes, strict=True)]
    row |= {"choice": choice, "extra": {"confidence": confidence}, "info": info, **more}
    assert canonical(write_comparison(_answer(read_comparison(1, row), 0))) == canonical(row)


@settings(max_examples=100, deadline=None)
@given(
    marks=st.dictionaries(st.sampled_from(["overall", "accuracy", "other"]), st.integers(1, 7) | st.none(), min_size=1),
    note=st.none() | TEXT,
    more=st.dictionaries(st.sampled_from(["batch", "split", "worker", "x"]), TEXT | st.none()),
)
def test_any_marks_are_written_as_they_were_read(marks, note, more):
    row = axes(**more)
    row["summary"] |= {"note": note, "axes": marks}
    if any(marks.values()):
        assert canonical(write_axes(_answer(read_axes(1, row), 0))) == canonical(row)
