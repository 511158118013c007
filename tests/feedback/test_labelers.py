"""Simulated labelers say what their gold score, habits and seed make them say, and nothing else moves them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from rein.errors import UserError
from rein.feedback.kinds import KINDS
from rein.feedback.labelers import (
    Habits,
    Labeler,
    agreement,
    by_length,
    lead,
    preference,
    score_table,
    sentences,
)
from rein.feedback.project import PRESETS, Project, Question

COMPARISON = Question("choice", "comparison")


def asked(question: Question) -> dict:
    return {
        "name": question.name, "kind": question.kind, "points": question.points, "axes": list(question.axes),
        "flags": {name: name for name in question.flags}, "ties": question.ties,
    }  # fmt: skip


def card(texts, *questions, context=None) -> dict:
    return {
        "context": {"post": "What is it?"} if context is None else context,
        "candidates": [{"text": text} for text in texts],
        "questions": [asked(question) for question in questions or (COMPARISON,)],
    }


def number(context, text: str) -> float:
    """The gold score of a text is the number that it begins with."""
    return float(text.split()[0])


def choices(labeler: Labeler, pairs) -> list[int]:
    return [labeler.answer(card(pair, replace(COMPARISON, ties=False))).answers["choice"]["choice"] for pair in pairs]


def pairs_of(n: int, difference: float, seed: int = 0):
    """Pairs whose first text is better by `difference`, of one length."""
    starts = np.random.default_rng(seed).uniform(1, 9, n)
    return [(f"{start + difference:8.4f} {at:06d}", f"{start:8.4f} {at:06d}") for at, start in enumerate(starts)]


# ------------------------------------------------------------------------------------------------ how they choose


def test_without_temperature_the_gold_score_alone_decides():
    exact = Labeler("a", number, Habits(temperature=0.0, side=5.0, length=5.0))
    assert choices(exact, [("1", "2 but much longer"), ("2", "1 but much longer")]) == [1, 0]


@pytest.mark.parametrize(
    "habits",
    [Habits(), Habits(temperature=0.5), Habits(noise=0.25), Habits(side=0.8), Habits(temperature=2.0, noise=0.1)],
)
def test_choices_come_as_often_as_bradley_and_terry_say(habits):
    n = 4000
    got = choices(Labeler("a", number, habits, seed=1), pairs_of(n, 0.7)).count(0) / n
    expected = preference(0.7, habits, first=True)
    assert abs(got - expected) < 4 * math.sqrt(expected * (1 - expected) / n), (got, expected)


def test_a_pull_of_length_is_per_logarithm_of_the_ratio():
    n = 4000
    habits = Habits(length=0.5)
    pairs = [(f"1 {at:06d}" + "x" * 8, f"1 {at:06d}") for at in range(n)]
    got = choices(Labeler("a", number, habits), pairs).count(0) / n
    expected = preference(0.0, habits, log_length_ratio=math.log(2))
    assert expected == pytest.approx(1 / (1 + 2**-0.5), abs=1e-9)
    assert abs(got - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_a_ranking_is_plackett_and_luces():
    n, scores = 4000, (0.0, 0.5, 1.0)
    question = Question("ranking", "ranking", ties=False)
    labeler = Labeler("a", number)
    first = np.zeros(3)
    for at in range(n):
        said = labeler.answer(card([f"{score:.1f} {at:06d}" for score in scores], question)).answers["ranking"]
        first[said["ranks"].index(1)] += 1
    weights = np.exp(scores) / np.exp(scores).sum()
    assert np.abs(first / n - weights).max() < 4 * math.sqrt(0.25 / n)


def test_two_labelers_agree_as_often_as_the_closed_form_says():
    n = 4000
    one, other = Habits(noise=0.1, side=0.4), Habits(temperature=2.0)
    pairs = pairs_of(n // 2, 1.0) + pairs_of(n // 2, 0.2, seed=1)
    swapped = [(b, a) if at % 2 else (a, b) for at, (a, b) in enumerate(pairs)]  # the other's sides are of its own
    a = choices(Labeler("a", number, one), [(b, a) if at // 2 % 2 else (a, b) for at, (a, b) in enumerate(pairs)])
    b = choices(Labeler("b", number, other), swapped)
    same = np.mean([(x != at // 2 % 2) == (y != at % 2) for at, (x, y) in enumerate(zip(a, b, strict=True))])
    expected = agreement([1.0] * (n // 2) + [0.2] * (n // 2), one, other)
    assert abs(same - expected) < 4 * math.sqrt(0.25 / n), (same, expected)


def test_temperature_side_and_noise_are_found_again_in_many_choices():
    true = Habits(temperature=0.5, side=0.6, noise=0.1)
    random = np.random.default_rng(0)
    differences = random.normal(0, 2, 12_000)
    pairs = [(f"{5 + d:8.5f} {at:06d}", f"{5:8.5f} {at:06d}") for at, d in enumerate(differences)]
    left = np.array(choices(Labeler("a", number, true), pairs)) == 0

    def surprise(theta):
        p = theta[2] + (1 - 2 * theta[2]) / (1 + np.exp(-(theta[0] * differences + theta[1])))
        return -np.where(left, np.log(p), np.log1p(-p)).sum()

    found = minimize(surprise, [1.0, 0.0, 0.05], bounds=[(0.01, 20), (-3, 3), (1e-4, 0.45)]).x
    assert found == pytest.approx([1 / true.temperature, true.side, true.noise], abs=0.15), found
    assert abs(found[2] - true.noise) < 0.02


# --------------------------------------------------------------------------------------------------- seeds, cards


def test_the_order_of_cards_changes_nothing():
    cards = [card(pair) for pair in pairs_of(50, 0.3)]
    labeler = Labeler("a", number, Habits(skip=0.2, noise=0.2))
    forward = [labeler.answer(one) for one in cards]
    backward = [Labeler("a", number, Habits(skip=0.2, noise=0.2)).answer(one) for one in reversed(cards)]
    assert forward == backward[::-1]
    assert {one.skipped != "" for one in forward} == {True, False}


@pytest.mark.parametrize("other", [{"name": "b"}, {"seed": 1}])
def test_another_name_or_seed_is_another_person(other):
    cards = [card(pair) for pair in pairs_of(50, 0.0)]
    a = Labeler("a", number)
    b = replace(a, **other)
    assert [a.answer(one).answers for one in cards] != [b.answer(one).answers for one in cards]


def test_one_habit_changes_only_what_it_is_about():
    cards = [card(pair) for pair in pairs_of(200, 0.3)]
    plain = [Labeler("a", number).answer(one) for one in cards]
    skipping = [Labeler("a", number, Habits(skip=0.3)).answer(one) for one in cards]
    kept = [(one, other) for one, other in zip(plain, skipping, strict=True) if not other.skipped]
    assert 100 < len(kept) < 180
    assert all(one == other for one, other in kept)


def test_only_what_a_card_shows_is_read():
    shown = card(("1 a", "2 b"))
    hidden = {**shown, "policy": "ppo", "gold": {"choice": 0}, "role": "gold"}
    hidden["candidates"] = [{**one, "extra": {"gold": 99.0}, "policy": "ref"} for one in shown["candidates"]]
    labeler = Labeler("a", number)
    assert labeler.answer(shown) == labeler.answer(hidden)


def test_a_source_that_is_not_shown_yet_is_not_judged():
    with pytest.raises(ValueError, match="reveal it first"):
        Labeler("a", number).answer({**card(("1", "2")), "context": None})


def test_notes_are_of_the_candidates_alone():
    notes = Labeler("a", number).notes({**card(("one two", "")), "context": None})
    assert notes == ["It says: one two", "It says: nothing"]


# ------------------------------------------------------------------------------------------- what each kind is told


@given(
    kind=st.sampled_from(sorted(name for name, kind in KINDS.items() if kind.asked)),
    texts=st.lists(st.text(max_size=40), min_size=2, max_size=9),
    ties=st.booleans(),
    habits=st.builds(
        Habits, temperature=st.just(0.0) | st.floats(1e-6, 3), noise=st.floats(0, 1), side=st.floats(-3, 3),
        tie_below=st.floats(0, 2),
        confidence_noise=st.floats(0, 3), axis_correlation=st.floats(0, 1), flag_share=st.floats(0, 1),
    ),
)  # fmt: skip
def test_every_answer_is_one_that_its_kind_takes(kind, texts, ties, habits):
    texts = texts[:2] if kind == "comparison" else texts
    question = Question("q", kind, points=9 if kind == "comparison" else 7, ties=ties)
    said = Labeler("a", by_length, habits).answer(card(texts, question)).answers["q"]
    clean = KINDS[kind].check(said, question, len(texts))
    assert clean == said
    if kind == "edit":
        assert said["text"] != texts[said["candidate"]]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_is_answered_whole(preset):
    project: Project = PRESETS[preset]
    said = Labeler("a", number, Habits()).answer(card(("1 a", "2 b"), *project.questions))
    assert set(said.answers) == {question.name for question in project.questions}


def test_rating_ranking_and_comparison_are_one_persons():
    questions = (Question("r", "rating", points=7), Question("k", "ranking", ties=False), Question("c", "comparison"))
    for pair in pairs_of(100, 0.5):
        said = Labeler("a", number).answer(card(pair, *questions)).answers
        (first, second), ranks = said["r"]["ratings"], said["k"]["ranks"]
        assert (first - second) * (ranks[1] - ranks[0]) >= 0
        assert said["c"]["choice"] == ranks.index(1)


def test_a_larger_difference_is_said_with_more_confidence():
    labeler = Labeler("a", number, Habits(temperature=0.3))

    def strength(difference):
        said = [labeler.answer(card(pair)).answers["choice"]["points"] for pair in pairs_of(300, difference)]
        return np.mean(np.abs(np.array(said) - 5))

    assert strength(0.0) + 0.5 < strength(1.0) < strength(4.0)


def test_what_hardly_differs_is_a_tie_where_ties_may_be_said():
    labeler = Labeler("a", number, Habits(tie_below=100.0))
    assert labeler.answer(card(("1 a", "2 b"))).answers["choice"] == {"choice": None, "points": 5}
    ranking = card(("1 a", "2 b", "3 c"), Question("choice", "ranking"))
    assert labeler.answer(ranking).answers["choice"] == {"ranks": [1, 1, 1]}
    assert labeler.answer(card(("1 a", "2 b"), replace(COMPARISON, ties=False))).answers["choice"]["choice"] is not None


def test_ratings_are_the_quantiles_of_usual_scores():
    usual = tuple(float(x) for x in range(70))
    labeler = Labeler("a", number, Habits(temperature=0.0), scores=usual)
    said = labeler.answer(card(("5", "35", "68"), Question("r", "rating", points=7))).answers["r"]
    assert said == {"ratings": [1, 4, 7]}


def test_axes_follow_the_overall_one_as_closely_as_they_should():
    question = Question("axes", "likert", points=7)
    labeler = Labeler("a", number, Habits(axis_correlation=0.7), scores=tuple(np.linspace(-2, 2, 200)))
    scores = np.random.default_rng(0).normal(size=2000)
    said = [
        labeler.answer(card((f"{score:.4f} {at}",), question)).answers["axes"]["axes"][0]
        for at, score in enumerate(scores)
    ]
    r = np.corrcoef([one["overall"] for one in said], [one["coherence"] for one in said])[0, 1]
    assert 0.55 < r < 0.75  # of points; 0.7 is that of the normal scores below them


def test_a_turned_judgement_of_one_output_calls_a_good_one_bad():
    turned = Labeler("a", number, Habits(temperature=0.0, noise=1.0))
    rate = Question("r", "rating", points=7)
    assert turned.answer(card(("9",), rate)).answers["r"] == {"ratings": [1]}
    assert turned.answer(card(("-9",), rate)).answers["r"] == {"ratings": [7]}


def test_faults_are_flagged_more_often_in_what_is_bad():
    labeler = Labeler("a", number, Habits(temperature=0.1, flag_share=0.3))
    question = Question("f", "flags", flags=("hallucination", "satisfies_constraint"))
    said = [labeler.answer(card((f"-3 {at}", f"3 {at}"), question)).answers["f"]["flags"] for at in range(300)]
    bad, good = ([flag for one in said for flag in one[place]] for place in (0, 1))
    assert bad.count("hallucination") > 120 > 30 > good.count("hallucination")
    assert good.count("satisfies_constraint") > 270 > 30 > bad.count("satisfies_constraint")


def test_times_are_log_normal_around_their_median():
    labeler = Labeler("a", number, Habits(active_s=12.0, active_spread=0.4))
    times = np.log([labeler.answer(card(pair)).times["active_ms"] / 1000 for pair in pairs_of(2000, 0.0)])
    assert np.median(times) == pytest.approx(math.log(12.0), abs=0.05)
    assert np.std(times) == pytest.approx(0.4, abs=0.03)


# ----------------------------------------------------------------------------------------------- gold scores, texts


def test_scores_are_looked_up_by_text():
    gold = score_table([{"text": "a", "gold": 1}, {"candidates": [{"text": "b", "extra": {"gold": 2.0}}]}])
    assert (gold({}, "a"), gold({}, "b")) == (1.0, 2.0)
    with pytest.raises(UserError, match="No gold score is known of 'c' \\(2 texts have one\\)"):
        gold({}, "c")


def test_a_gold_score_that_is_no_number_is_an_error():
    with pytest.raises(UserError, match="gold score of a candidate is \\[nan"):
        Labeler("a", lambda context, text: math.nan).answer(card(("1", "2")))


@pytest.mark.parametrize(
    ("habits", "says"),
    [
        ({"noise": 1.5}, "noise is 1.5, but it is a share"),
        ({"temperature": -1.0}, "temperature is -1, but it must be 0 or more"),
        ({"temperature": 1e-9}, "temperature is 1e-09, but it is 0, or at least 1e-06"),
        ({"side": math.inf}, "side is inf, but it must be a finite number"),
    ],
)
def test_habits_that_are_none(habits, says):
    with pytest.raises(UserError, match=says):
        Habits(**habits)


def test_a_lead_is_the_first_sentences_of_the_last_text():
    assert lead({"title": "T", "post": "One. Two! Three? Four."}) == "One. Two! Three?"
    assert lead({"turns": [1]}) == "Nothing was asked."
    assert sentences("  ") == []


def test_expected_preferences_at_the_limits():
    assert [preference(d, Habits(temperature=0.0, noise=0.1)) for d in (-1, 0, 1)] == pytest.approx([0.1, 0.5, 0.9])
    assert preference(0.3, Habits(side=2.0)) == pytest.approx(
        (preference(0.3, Habits(side=2.0), first=True) + preference(0.3, Habits(side=2.0), first=False)) / 2
    )
