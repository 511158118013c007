"""Scores of all, of dirty and of clean examples, and what may be said of their difference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from overlap_texts import documents, filler

from rein.evals.clean_scores import Scored, compare, relative_change, verdict
from rein.evals.metrics import METRICS
from rein.evals.overlap import Example, analyse

ACCURACY = METRICS["accuracy"]


def collisions_of(dirty: list[int], of: int, asked: list[int] | None = None):
    """Collisions of `of` examples, those of these numbers dirty."""
    texts = [filler(20, seed) for seed in range(of)]
    return analyse(
        {"toy": [Example(text, filler(20, 100 + at)) for at, text in enumerate(texts)]},
        documents(*(texts[at] for at in dirty), *(filler(20, 100 + at) for at in asked or [])),
    )["toy"]


def rows(values: list[float | None], name: str = "accuracy", **more) -> list[Scored]:
    return [Scored(at, {name: value}, **more) for at, value in enumerate(values)]


def test_the_scores_of_all_dirty_and_clean_by_hand():
    found = compare(ACCURACY, rows([1, 1, 1, 0, 1, 0, 0, 0]), collisions_of([0, 1, 2], 8))
    assert {kind: (found[kind]["value"], found[kind]["n"]) for kind in ("all", "dirty", "clean")} == {
        "all": (0.5, 8), "dirty": (1.0, 3), "clean": (0.2, 5),
    }  # fmt: skip
    assert found["change"]["value"] == pytest.approx((0.2 - 0.5) / 0.5)


def test_dirty_examples_are_parted_by_where_they_were_found():
    found = compare(ACCURACY, rows([1, 0, 1, 0]), collisions_of([0, 1], 4, asked=[1, 2]))
    assert (found["passage_only"]["value"], found["passage_only"]["n"]) == (1.0, 1)
    assert (found["question_or_answer"]["value"], found["question_or_answer"]["n"]) == (0.5, 2)
    assert (found["clean"]["value"], found["clean"]["n"]) == (0.0, 1)


def test_problems_without_a_value_are_left_out():
    found = compare(ACCURACY, rows([1, None, 0, 1]), collisions_of([0, 1], 4))
    assert (found["all"]["n"], found["dirty"]["n"]) == (3, 1)
    assert compare(ACCURACY, rows([None, None]), collisions_of([], 2)) is None


def test_a_question_is_right_when_the_least_of_its_answers_is():
    metric = METRICS["multirc_accuracy"]
    answers = [Scored(example, {metric.name: value}) for example, value in [(0, 1), (0, 1), (1, 1), (1, 0), (2, 1)]]
    found = compare(metric, answers, collisions_of([1], 3))
    assert (found["all"]["n"], found["all"]["value"], found["clean"]["value"]) == (3, pytest.approx(2 / 3), 1.0)


def test_a_score_of_the_whole_set_is_made_of_counts():
    metric = METRICS["perplexity"]
    nats = [10.0, 20.0, 30.0, 40.0]
    whole = [Scored(at, {}, {metric.name: [nat, 10]}) for at, nat in enumerate(nats)]
    found = compare(metric, whole, collisions_of([0, 1], 4))
    assert found["all"]["value"] == pytest.approx(math.exp(100 / 40))
    assert found["clean"]["value"] == pytest.approx(math.exp(70 / 20))
    assert found["change"]["value"] == pytest.approx(math.exp(3.5 - 2.5) - 1)
    assert found["better"] == "lower"


def mean(counts):
    return counts[0] / counts[1]


def test_the_interval_of_a_change_is_as_wide_as_the_delta_method_says():
    draw = np.random.default_rng(3)
    values, clean = draw.random(4000) < 0.6, draw.random(4000) < 0.7
    counts = np.stack([values, np.ones(4000)], axis=1).astype(float)
    found = relative_change(counts, mean, clean, [""] * 4000)
    m, c = values.mean(), values[clean].mean()
    influence = (clean * (values - c) / clean.mean() - c / m * (values - m)) / m
    assert found.value == pytest.approx(c / m - 1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * influence.std() / math.sqrt(4000), rel=0.1)


def test_problems_of_one_passage_say_less_than_as_many_alone():
    values = np.repeat([1, 0, 1, 1, 0, 1, 0, 0, 1, 1], 8)
    counts = np.stack([values, np.ones(80)], axis=1).astype(float)
    clean = np.repeat([1, 1, 0, 1, 0, 1, 0, 1, 1, 0], 8).astype(bool)
    alone = relative_change(counts, mean, clean, [""] * 80)
    together = relative_change(counts, mean, clean, [str(at // 8) for at in range(80)])
    assert together.value == alone.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_one_passage_alone_has_no_interval_and_no_verdict():
    found = compare(ACCURACY, rows([1, 1, 0, 0], passage="p"), collisions_of([0, 1], 4))
    assert found["change"] == {"value": -1.0, "low": None, "high": None}
    assert found["verdict"] == "not told apart"


@pytest.mark.parametrize(
    ("values", "dirty", "said"),
    [
        ([1] * 10, [], "all clean"),
        ([1] * 10, range(10), "none clean"),
        ([1] * 10, [0, 1], "similar"),
        ([0] * 10, [0, 1], "no score"),
        ([1, 0] * 5, [0], "not told apart"),
        ([1] * 20 + [0] * 10 + [1] * 10, range(20), "worse where clean"),
        ([0] * 20 + [0] * 10 + [1] * 10, range(20), "better where clean"),
    ],
)
def test_the_verdict_reads_the_change_and_its_interval(values, dirty, said):
    assert compare(ACCURACY, rows(values), collisions_of(list(dirty), len(values)))["verdict"] == said


def test_the_verdict_turns_round_where_lower_is_better():
    change = relative_change(np.ones((4, 2)), mean, np.array([True, False, True, True]), [""] * 4)
    assert verdict(change, "lower", clean=3, dirty=1) == "similar"
