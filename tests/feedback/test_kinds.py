"""Kinds of feedback: what each takes and refuses, what it measures, and its worked example."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys

import pytest
import torch

from rein.feedback.kinds import KINDS, MOST_NOTE, MOST_TEXT, BadValue, check_question, describe, inverse
from rein.feedback.project import FLAGS, PRESETS, Question

COMPARISON = Question("choice", "comparison")
RATING = Question("rating", "rating", points=7)
AXES = Question("axes", "likert", points=7)
METADATA = Question("metadata", "flags")
ALL_AXES = {"overall": 4, "accuracy": 5, "coverage": 6, "coherence": 7}
LEARNED = [name for name, kind in KINDS.items() if kind.example is not None]


def question(name: str) -> Question:
    points = 9 if name == "comparison" else 7
    return Question(name, name, points=points)


def check(name: str, value, n: int = 2, **more):
    return KINDS[name].check(value, question(name), n, **more)


GOOD = {
    "rating": ({"ratings": [1, 7]}, 2),
    "comparison": ({"choice": 0, "points": 1}, 2),
    "best_of": ({"best": 3}, 4),
    "ranking": ({"ranks": [2, 1, 2, 3]}, 4),
    "likert": ({"axes": [ALL_AXES, ALL_AXES]}, 2),
    "flags": ({"flags": [[], ["hallucination", "violent"]]}, 2),
    "demonstration": ({"text": "A text.\n"}, 0),
    "edit": ({"candidate": 1, "text": "A text."}, 2),
    "notes": ({"notes": ["This.", "That."]}, 2),
    "press": ({"value": -1.0, "t": 0.5, "k": 2, "credits": [[1, 0.5], [2, 0.25]], "id": "a", "by": "person"}, 1),
    "event": ({"kind": "note", "text": "x", "t": 1.0}, 1),
    "skip": ({"reason": "I do not know this language."}, 2),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_good_value_stays_as_it_is(name):
    value, n = GOOD[name]
    assert check(name, json.loads(json.dumps(value)), n) == value
    assert KINDS[name].name == name
    assert KINDS[name].version == 1


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("value", [None, [], "text", 3, True, {}, {"nothing": 1}], ids=repr)
def test_what_is_no_value_of_it_is_refused_in_a_sentence(name, value):
    if name == "event" and isinstance(value, dict):
        value = {**value, "kind": "unheard of"}
    with pytest.raises(BadValue) as caught:
        check(name, value, 1)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == caught.value.problem
    assert len(caught.value.problem) < 200


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if name not in ("press", "event")])
def test_a_field_that_is_not_known_is_refused(name):
    value, n = GOOD[name]
    with pytest.raises(BadValue, match='a field "policy"'):
        check(name, {**value, "policy": "ref"}, n)


BAD = [
    ("rating", {"ratings": [8, 1]}, "rating 1 is 8, but the scale goes from 1 to 7"),
    ("rating", {"ratings": [0, 1]}, "rating 1 is 0, but the scale goes from 1 to 7"),
    ("rating", {"ratings": [1]}, "ratings has 1 entries, but there are 2 candidates"),
    ("rating", {"ratings": [1, True]}, "rating 2 is true, but a whole number"),
    ("rating", {"ratings": [1, 2.0]}, "rating 2 is 2.0, but a whole number"),
    ("rating", {"ratings": [1, "2"]}, 'rating 2 is "2", but a whole number'),
    ("rating", {"ratings": [1, None]}, "rating 2 is missing, but a whole number"),
    ("rating", {"ratings": [1, 10**400]}, "rating 2 is a huge number, but the scale goes from 1 to 7"),
    ("rating", {"ratings": [1, [2]]}, "rating 2 is a list, but a whole number"),
    ("rating", {"ratings": [1, {}]}, "rating 2 is a table, but a whole number"),
    ("rating", {"ratings": "12"}, 'ratings is "12", but a list with one entry for each of 2 candidates'),
    ("comparison", {"choice": 1, "points": 12}, "points is 12, but the scale goes from 1 to 9"),
    ("comparison", {"choice": 1, "points": None}, "points is missing, but a whole number from 1 to 9"),
    ("comparison", {"choice": 1}, "points is missing"),
    ("comparison", {"points": 1}, "choice is missing"),
    ("comparison", {"choice": 2, "points": 9}, "choice is 2, but it must be from 0 to 1"),
    ("comparison", {"choice": 1, "points": 3}, "choice is 1, but points is 3: nearer to choice 0"),
    ("comparison", {"choice": 0, "points": 6}, "choice is 0, but points is 6: nearer to choice 1"),
    ("comparison", {"choice": 0, "points": 5}, "choice is 0, but points is 5: even, which is choice null"),
    ("comparison", {"choice": None, "points": 4}, "choice is null, but points is 4: nearer to choice 0"),
    ("best_of", {"best": 2}, "best is 2, but it must be from 0 to 1"),
    ("best_of", {"best": -1}, "best is -1, but it must be from 0 to 1"),
    ("best_of", {"best": False}, "best is false"),
    ("ranking", {"ranks": [1, 3]}, "rank 2 is 3, but it must be from 1 to 2"),
    ("ranking", {"ranks": [2, 2]}, "no candidate has rank 1, but one has rank 2"),
    ("likert", {"axes": [ALL_AXES, {"overall": 1}]}, "accuracy is missing"),
    ("likert", {"axes": [ALL_AXES, {**ALL_AXES, "style": 1}]}, 'a field "style", but only overall, accuracy'),
    ("likert", {"axes": [{**ALL_AXES, "coverage": 8}, ALL_AXES]}, "coverage of candidate 1 is 8, but the scale"),
    ("likert", {"axes": [ALL_AXES, 3]}, "the value is 3, but a table with overall, accuracy, coverage and coherence"),
    ("flags", {"flags": [[], ["rude"]]}, 'flags of candidate 2 has "rude", which this question does not ask'),
    ("flags", {"flags": [[], [3]]}, "flags of candidate 2 has 3, which this question does not ask"),
    ("flags", {"flags": [["violent", "violent"], []]}, "flags of candidate 1 has one name twice"),
    ("flags", {"flags": ["violent", []]}, 'flags of candidate 1 is "violent", but a list of names'),
    ("demonstration", {"text": ""}, "text is empty"),
    ("demonstration", {"text": " \n"}, "text is empty"),
    ("demonstration", {"text": "a\0b"}, "text has a NUL character"),
    ("demonstration", {"text": "a\ud800b"}, "text has half a character"),
    ("demonstration", {"text": "x" * (MOST_TEXT + 1)}, "text has 20,001 characters, but at most 20,000 are kept"),
    ("demonstration", {"text": 3}, "text is 3, but a text is expected"),
    ("edit", {"candidate": 2, "text": "x"}, "candidate is 2, but it must be from 0 to 1"),
    ("notes", {"notes": ["x", "x" * (MOST_NOTE + 1)]}, "note 2 has 2,001 characters, but at most 2,000"),
    ("notes", {"notes": ["x", ""]}, "note 2 is empty"),
    ("skip", {"reason": "x" * (MOST_NOTE + 1)}, "reason has 2,001 characters"),
    ("skip", {"reason": " "}, "reason is empty"),
    ("press", {"t": 1.0}, "value is missing"),
    ("press", {"value": 1.0}, "t is missing"),
    ("press", {"value": float("nan"), "t": 0.0}, "the value cannot be written as JSON"),
    ("press", {"value": "1", "t": 0.0}, 'value is "1", but a number is expected'),
    ("press", {"value": 10**400, "t": 0.0}, "value is a huge number"),
    ("press", {"value": 1.0, "t": 0.0, "k": -1}, "k is -1"),
    ("press", {"value": 1.0, "t": 0.0, "credits": 3}, "credits is 3"),
    ("press", {"value": 1.0, "t": 0.0, "credits": [[1]]}, "credit 1 is a list, but [step, share] is expected"),
    ("press", {"value": 1.0, "t": 0.0, "credits": [[0, 1.5]]}, "the share of credit 1 is 1.5"),
    ("press", {"value": 1.0, "t": 0.0, "note": "\ud800"}, "the value cannot be written as JSON"),
    ("event", {"kind": "note", "text": "a\0b"}, "it has a NUL character"),
    ("event", {"kind": "note", "text": object()}, "the value cannot be written as JSON"),
    ("event", {"kind": "note", "text": "x" * 8_000_001}, "the value has 8,000,0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "says"), BAD, ids=[f"{name}: {says[:40]}" for name, _, says in BAD])
def test_a_bad_value_is_refused_by_the_name_of_its_field(name, value, says):
    with pytest.raises(BadValue, match=re.escape(says)):
        check(name, value, 1 if name in ("press", "event") else 2)


def test_a_message_shows_no_more_of_a_value_than_a_line():
    with pytest.raises(BadValue) as caught:
        check("rating", {"ratings": [1, "<b>\x1b\n\u202e" + "x" * 100_000]})
    assert caught.value.problem == (
        'rating 2 is "<b>␛ ⟨U+202E⟩' + "x" * 34 + '…", but a whole number from 1 to 7 is expected'
    )


def deep(levels: int) -> dict:
    """A row whose tables and lists stand that deep in each other."""
    inner: list = []
    for _ in range(levels - 2):
        inner = [inner]
    return {"kind": "note", "text": inner}


@pytest.mark.parametrize("levels", [51, 400, 900, 5_000, 100_000])
def test_deep_json_is_refused_and_not_run_out_of_stack(levels):
    with pytest.raises(BadValue, match=r"nested more than 50 deep|cannot be written as JSON"):
        check("event", deep(levels), 1)


def test_what_is_wide_or_only_looks_deep_is_kept():
    for value in (deep(50), {"kind": "note", "text": "[{" * 99}, {"kind": "step", "next": [[0.5]] * 99}):
        assert check("event", value, 1) == value


def test_what_another_tool_left_out_may_be_missing_in_an_import():
    assert check("comparison", {"choice": 1}, strict=False) == {"choice": 1, "points": None}
    assert check("comparison", {"choice": 1, "points": 2}, strict=False) == {"choice": 1, "points": 2}
    assert check("comparison", {"choice": None, "points": None}, strict=False) == {"choice": None, "points": None}
    assert check("likert", {"axes": [{"overall": 3}, {}]}, strict=False) == {"axes": [{"overall": 3}, {}]}
    assert check("notes", {"notes": ["", "x"]}, strict=False) == {"notes": ["", "x"]}
    with pytest.raises(BadValue, match="points is 12"):
        check("comparison", {"choice": 1, "points": 12}, strict=False)
    with pytest.raises(BadValue, match="no field"):
        KINDS["likert"].check({"axes": [3]}, Question("axes", "likert", axes=()), 1, strict=False)


def test_a_question_without_ties_takes_none():
    no_ties = dataclasses.replace(COMPARISON, ties=False)
    with pytest.raises(BadValue, match="takes no ties"):
        KINDS["comparison"].check({"choice": None, "points": 5}, no_ties, 2)
    ranks = Question("ranking", "ranking", ties=False)
    with pytest.raises(BadValue, match="takes no ties"):
        KINDS["ranking"].check({"ranks": [1, 1]}, ranks, 2)
    assert KINDS["ranking"].check({"ranks": [2, 1]}, ranks, 2) == {"ranks": [2, 1]}
    assert KINDS["ranking"].check({"ranks": [1, 1]}, ranks, 2, strict=False) == {"ranks": [1, 1]}


def test_an_edit_that_changes_nothing_is_refused_where_the_original_is_known():
    texts = ["one", "two"]
    with pytest.raises(BadValue, match="text is the original"):
        check("edit", {"candidate": 1, "text": "two"}, texts=texts)
    assert check("edit", {"candidate": 0, "text": "two"}, texts=texts) == {"candidate": 0, "text": "two"}


def test_flags_are_kept_in_the_order_of_the_question():
    backwards = list(reversed(FLAGS))
    assert check("flags", {"flags": [backwards]}, 1) == {"flags": [list(FLAGS)]}


# ---------------------------------------------------------------------------------------------------- orders


def test_what_is_said_of_places_is_kept_by_candidate():
    order = [2, 0, 1]  # candidate 2 is shown first
    kinds = KINDS
    assert kinds["rating"].reorder({"ratings": [7, 5, 3]}, order) == {"ratings": [5, 3, 7]}
    assert kinds["ranking"].reorder({"ranks": [1, 2, 3]}, order) == {"ranks": [2, 3, 1]}
    assert kinds["best_of"].reorder({"best": 0}, order) == {"best": 2}
    assert kinds["edit"].reorder({"candidate": 1, "text": "x"}, order) == {"candidate": 0, "text": "x"}
    assert kinds["notes"].reorder({"notes": ["a", "b", "c"]}, order) == {"notes": ["b", "c", "a"]}
    assert kinds["flags"].reorder({"flags": [["violent"], [], []]}, order) == {"flags": [[], [], ["violent"]]}
    assert kinds["likert"].reorder({"axes": [{"overall": i} for i in (1, 2, 3)]}, order)["axes"][2] == {"overall": 1}
    assert kinds["demonstration"].reorder({"text": "x"}, order) == {"text": "x"}
    assert kinds["skip"].reorder({"reason": "x"}, order) == {"reason": "x"}


def test_the_left_one_much_better_is_points_1_of_whatever_stood_there():
    said = {"choice": 0, "points": 2}
    assert KINDS["comparison"].reorder(said, [0, 1]) == said
    assert KINDS["comparison"].reorder(said, [1, 0]) == {"choice": 1, "points": 8}
    assert KINDS["comparison"].reorder({"choice": None, "points": 5}, [1, 0]) == {"choice": None, "points": 5}
    assert KINDS["comparison"].reorder({"choice": 1, "points": None}, [1, 0]) == {"choice": 0, "points": None}


def test_the_inverse_of_an_order_puts_it_right():
    assert inverse([2, 0, 1]) == [1, 2, 0]
    value = {"ranks": [3, 1, 2]}
    assert KINDS["ranking"].unorder(KINDS["ranking"].reorder(value, [2, 0, 1]), [2, 0, 1]) == value


# -------------------------------------------------------------------------------------------------- measures


def measure(name, value, texts, order):
    return tuple(KINDS[name].measure(value, question(name), texts, order))


def test_a_comparison_measures_the_side_and_the_length_of_what_was_chosen():
    texts = ["short", "much longer"]
    assert measure("comparison", {"choice": 1, "points": 8}, texts, [0, 1]) == (1, 8, False, True)
    assert measure("comparison", {"choice": 1, "points": 8}, texts, [1, 0]) == (1, 8, True, True)
    assert measure("comparison", {"choice": 0, "points": 2}, texts, [1, 0]) == (0, 2, False, False)
    assert measure("comparison", {"choice": None, "points": 5}, texts, [1, 0]) == (-1, 5, None, None)
    assert measure("comparison", {"choice": 1, "points": None}, ["same", "size"], [0, 1]) == (1, None, False, None)


def test_other_kinds_measure_their_best_one_where_they_say_it():
    three = ["a", "bb", "ccc"]
    assert measure("ranking", {"ranks": [2, 1, 3]}, three, [2, 1, 0]) == (1, None, None, None)
    assert measure("ranking", {"ranks": [1, 1, 2]}, three, [2, 1, 0]) == (-1, None, None, None)
    assert measure("ranking", {"ranks": [1, 2]}, three[:2], [0, 1]) == (0, None, True, False)
    assert measure("best_of", {"best": 2}, three, [2, 1, 0]) == (2, None, None, None)
    assert measure("best_of", {"best": 1}, three[:2], [0, 1]) == (1, None, False, True)
    assert measure("rating", {"ratings": [5]}, ["a"], [0]) == (None, 5, None, None)
    assert measure("rating", {"ratings": [5, 6]}, three[:2], [0, 1]) == (1, None, False, True)
    assert measure("rating", {"ratings": [6, 6]}, three[:2], [0, 1]) == (-1, None, None, None)
    assert measure("likert", {"axes": [ALL_AXES]}, ["a"], [0]) == (None, 4, None, None)
    better = {**ALL_AXES, "overall": 6}
    assert measure("likert", {"axes": [ALL_AXES, better]}, three[:2], [1, 0]) == (1, None, True, True)
    assert measure("likert", {"axes": [{"accuracy": 2}]}, ["a"], [0]) == (None, None, None, None)
    assert measure("press", {"value": -1, "t": 0}, ["agent"], [0]) == (None, -1.0, None, None)
    for name in ("flags", "demonstration", "edit", "notes", "skip", "event"):
        assert measure(name, GOOD[name][0], three[:2], [0, 1]) == (None, None, None, None)


def test_the_pairs_that_a_value_implies():
    def pairs(name, value, n):
        return KINDS[name].pairs(value, n)

    assert pairs("comparison", {"choice": 1, "points": 9}, 2) == ([(1, 0)], [])
    assert pairs("comparison", {"choice": None, "points": 5}, 2) == ([], [(0, 1)])
    assert pairs("best_of", {"best": 1}, 3) == ([(1, 0), (1, 2)], [])
    assert pairs("ranking", {"ranks": [2, 1, 2]}, 3) == ([(1, 0), (1, 2)], [(0, 2)])
    assert pairs("rating", {"ratings": [3, 7, 3]}, 3) == ([(1, 0), (1, 2)], [(0, 2)])
    assert pairs("likert", {"axes": [{"overall": 3}, {"overall": 7}]}, 2) == ([(1, 0)], [])
    assert pairs("likert", {"axes": [{"accuracy": 3}, {"accuracy": 7}]}, 2) == ([], [])
    for name in ("flags", "demonstration", "edit", "notes", "press", "event", "skip"):
        assert pairs(name, GOOD[name][0], 2) == ([], [])


# -------------------------------------------------------------------------------------------------- examples

BY_HAND = {
    "rating": ((5.5 - 6) ** 2 + (4.0 - 3) ** 2) / 2,
    "comparison": math.log(1 + math.exp(-(1.5 - 0.5))),
    "best_of": math.log(1 + 1 + math.e + 1) - 1,
    "ranking": (math.log(1 + math.exp(-(1 - 0))) + math.log(1 + math.exp(-(1 + 1)))) / 2,
    "likert": ((4 - 5) ** 2 + (6.5 - 7) ** 2) / 2,
    "flags": -(math.log(1 - 1 / 2) + math.log(1 / (1 + math.exp(-1)))) / 2,
    "demonstration": (0.5 + 1.5) / 2,
    "edit": math.log(1 + math.exp(-(0 - 1))),
    "press": 0.25 * (1 - 0) ** 2 + 0.75 * (1 - 0.5) ** 2,
}


@pytest.mark.parametrize("name", LEARNED)
def test_the_worked_example_comes_out_by_hand_and_by_the_code(name):
    kind, example = KINDS[name], KINDS[name].example
    n = {"comparison": 2, "best_of": 4, "ranking": 3, "rating": 2}.get(name, 1)
    value = kind.check(json.loads(json.dumps(example.value)), example.question, n)
    outputs = torch.tensor(example.outputs, dtype=torch.float64, requires_grad=True)
    loss = kind.loss(value, example.question, outputs)
    assert loss.shape == ()
    loss.backward()
    assert torch.isfinite(outputs.grad).all()
    assert loss.item() == pytest.approx(BY_HAND[name], abs=1e-12)
    assert example.loss == pytest.approx(BY_HAND[name], abs=1e-7)
    assert f"{example.loss:g}"[:6] in example.by_hand


def test_a_kind_without_an_example_has_no_loss():
    for name in KINDS.keys() - set(LEARNED):
        assert KINDS[name].loss(GOOD[name][0], question(name), torch.zeros(2)) is None
        assert KINDS[name].formula.startswith("none")


def test_a_tie_is_half_of_each_way():
    scores = torch.tensor([0.5, 1.5], dtype=torch.float64)
    loss = KINDS["comparison"].loss({"choice": None, "points": 5}, COMPARISON, scores)
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2)


def test_a_missing_mark_is_left_out_of_the_loss():
    scores = torch.tensor([[4.0, 0.0, 3.0, 1.0]], dtype=torch.float64)
    loss = KINDS["likert"].loss({"axes": [{"overall": 6, "coverage": 3}]}, AXES, scores)
    assert loss.item() == pytest.approx(((4 - 6) ** 2 + 0) / 2)


def test_feedback_is_checked_without_torch():
    code = "import sys, rein.feedback.kinds; assert not any(name.split('.')[0] == 'torch' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_the_papers_questions_can_be_asked(preset):
    for one in preset.questions:
        check_question(one)
    check_question(Question("press", "press"))  # of a project of lessons


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Question("x", "comparision"), "x is of kind 'comparision'. Did you mean comparison?"),
        (Question("x", "skip"), "x is of kind 'skip'. Known names:"),
        (Question("x", "comparison", points=7), "x has points 7, but a comparison has 9"),
        (Question("x", "rating", points=1), "x has points 1, but a scale has from 2 to 100"),
        (Question("x", "likert", points=10**9), "x has points 1000000000, but a scale"),
        (Question("x", "rating", points="7"), "x has points 7, but a scale"),
        (Question("x", "likert", points=7, axes=()), "x has axes [], but one or more different names"),
        (Question("x", "flags", flags=("a", "a")), "x has flags ['a', 'a'], but one or more different names"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_question_that_cannot_be_asked_says_why(asked, says):
    with pytest.raises(BadValue, match=re.escape(says)):
        check_question(asked)


def test_each_kind_can_be_described_on_a_page():
    rows = describe()
    assert [row["name"] for row in rows] == list(KINDS)
    for row in rows:
        assert all(row[field] for field in ("says", "words", "schema", "formula", "source"))
        assert 0 <= row["least"] <= row["most"] <= 9
        assert (row["example"] is None) == (row["name"] not in LEARNED)
    json.dumps(rows, allow_nan=False)
