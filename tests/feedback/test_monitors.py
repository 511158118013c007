"""Monitors find what was put into the answers, and nothing where nothing was."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from sqlalchemy import insert, select

sys.path.insert(0, str(Path(__file__).parent))
from saying import NOW, Question, Saying, prefers

from rein.feedback import tables
from rein.feedback.agreement import report
from rein.feedback.mine import mine
from rein.feedback.monitors import DAY_MS, WEEK_MS, answers_to_reach, median_of


def question_of(saying):
    with saying.store.reading() as conn:
        return report(conn, saying.id)["questions"][0]


def test_a_preferred_side_is_found_and_told_from_a_preferred_candidate(store):
    saying = Saying(store)
    saying.person("Ann")
    saying.person("Ben")
    saying.add(*map(str, range(60)))
    orders = {n: [n % 2, 1 - n % 2] for n in range(60)}
    # Ann always takes the first place, Ben the first candidate.
    said = {"Ann": lambda n: prefers(orders[n][0]), "Ben": lambda n: prefers(0)}
    saying.say((name, str(n), said[name](n), {"shown": {"order": orders[n]}}) for n in range(60) for name in said)
    bias = question_of(saying)["bias"]
    ann, ben = ({one["name"]: one for one in bias["people"]}[name] for name in ("Ann", "Ben"))
    assert ann["left"]["value"] == 1.0
    assert ann["left"]["low"] > 0.9
    assert ben["left"]["value"] == 0.5
    assert bias["left"]["value"] == 0.75
    assert bias["ties"]["value"] == 0.0
    assert ben["longer"]["value"] == 0.0  # "short" against "longer text"


def test_a_liking_for_length_is_the_slope_of_a_logistic_regression(store):
    saying = Saying(store)
    generator = np.random.default_rng(0)
    for name in ("Ann", "Ben"):
        saying.person(name)
    ratios, choices, items, rows = [], [], [], []
    for n in range(150):
        a, b = (int(each) for each in generator.integers(20, 200, 2))
        saying.add(str(n), texts=("x" * a, "y" * b))
        for name in ("Ann", "Ben"):
            ratio = math.log(b / a)
            choice = int(generator.random() < 1 / (1 + math.exp(-(0.3 + 1.2 * ratio))))
            ratios.append(ratio)
            choices.append(choice)
            items.append(n)
            rows.append((name, str(n), prefers(choice)))
    saying.say(rows)
    slope = question_of(saying)["bias"]["length_slope"]
    fitted = sm.Logit(choices, sm.add_constant(np.array(ratios))).fit(
        disp=False, cov_type="cluster", cov_kwds={"groups": np.array(items), "df_correction": False}
    )
    assert slope["value"] == pytest.approx(fitted.params[1], abs=1e-6)
    assert slope["se"] == pytest.approx(fitted.bse[1], rel=0.02)
    assert slope["even"] == pytest.approx(1 / (1 + math.exp(-fitted.params[0])), abs=1e-6)
    assert slope["low"] < 1.2 < slope["high"]


@pytest.mark.parametrize(
    ("texts", "candidate", "n", "why"),
    [
        (("ab", "abcd"), 1, 20, "a regression needs 100"),
        (("ab", "abcd"), 1, 120, "the same ratio"),
        (None, None, 120, "tells all choices apart"),
    ],
)
def test_a_slope_that_cannot_be_told_says_why(store, texts, candidate, n, why):
    saying = Saying(store)
    saying.person("Ann")
    for k in range(n):
        saying.add(str(k), texts=texts or ("x" * (10 + k), "y" * 70))
    saying.say(("Ann", str(k), prefers(int(k < 60) if candidate is None else candidate)) for k in range(n))
    assert why in question_of(saying)["bias"]["length_slope"]["why"]


def test_repeats_with_sides_mirrored_show_who_follows_the_side(store):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add(*map(str, range(20)))
    saying.say(((name, str(n), prefers(0)) for n in range(20) for name in ("Ann", "Ben")), shown={"order": [0, 1]})
    again = {"order": [1, 0], "turn": 1}
    saying.say((("Ann", str(n), prefers(0)) for n in range(20)), shown=again)
    saying.say((("Ben", str(n), prefers(int(n < 5))) for n in range(20)), shown=again)
    found = question_of(saying)["repeats"]
    assert (found["same"]["value"], found["same"]["n"]) == (35 / 40, 40)
    assert {one["name"]: one["same"]["value"] for one in found["people"]} == {"Ann": 1.0, "Ben": 0.75}
    assert found["flips"]["value"] == 5 / 40  # on the left side both times


def test_a_choice_that_moves_with_the_candidate_is_no_flip(store):
    saying = Saying(store)
    saying.person("Ann")
    saying.add("i")
    saying.say([("Ann", "i", prefers(0))], shown={"order": [0, 1]})
    saying.say([("Ann", "i", prefers(1))], shown={"order": [0, 1], "turn": 1})  # another candidate, another side
    found = question_of(saying)["repeats"]
    assert found["same"]["value"] == 0.0
    assert found["flips"]["value"] == 0.0


@pytest.mark.parametrize(
    ("question", "right", "said", "share"),
    [
        (Question("choice", "comparison"), prefers(1, 8), [prefers(1), prefers(0), prefers(None)], 1 / 2),
        (Question("choice", "best_of"), {"best": 1}, [{"best": 1}, {"best": 0}, {"best": 1}], 2 / 3),
        (Question("choice", "ranking"), {"ranks": [1, 2]}, [{"ranks": [1, 2]}, {"ranks": [2, 1]}], 1 / 2),
        (Question("choice", "rating"), {"ratings": [5, 2]}, [{"ratings": [6, 3]}, {"ratings": [1, 2]}], 1 / 2),
        (
            Question("choice", "likert", points=7, axes=("accuracy",)), {"axes": [{"accuracy": 5}, {"accuracy": 2}]},
            [{"axes": [{"accuracy": 6}, {"accuracy": 5}]}], 1 / 2,
        ),
        (
            Question("choice", "flags", flags=("wrong",)), {"flags": [["wrong"], []]},
            [{"flags": [["wrong"], ["wrong"]]}, {"flags": [["wrong"], []]}], 3 / 4,
        ),
    ],
)  # fmt: skip
def test_known_answers_are_held_against_what_was_said(store, question, right, said, share):
    saying = Saying(store, (question,))
    saying.add("known", role="gold", gold={"answers": {"choice": right}})
    saying.add("work")
    for n, value in enumerate(said):
        saying.person(f"p{n}")
        saying.say([(f"p{n}", "known", value), (f"p{n}", "work", value)], kind=question.kind)
    found = question_of(saying)["gold"]
    assert found["accuracy"]["value"] == pytest.approx(share)
    assert len(found["people"]) == len(said)


def test_known_answers_of_people_who_write_are_not_compared(store):
    saying = Saying(store, (Question("text", "demonstration"),))
    saying.person("Ann")
    saying.add("known", role="gold", texts=("x",), policies=("a",), gold={"answers": {"text": {"text": "so"}}})
    saying.say([("Ann", "known", {"text": "other"})], question="text", kind="demonstration")
    found = question_of(saying)
    assert found["gold"]["accuracy"]["value"] is None
    assert found["repeats"]["same"]["value"] is None
    assert found["aspects"] == []


@pytest.mark.parametrize("moves", [True, False])
def test_drift_over_weeks_is_a_trend_and_its_absence_is_none(store, moves):
    saying = Saying(store)
    for n in range(40):
        saying.person(f"p{n}")
    # The same two policies in both orders, and other work by them, which is none of the fixed pairs.
    for n in range(6):
        saying.add(f"d{n}", role="drift", policies=("ref", "sup") if n % 2 else ("sup", "ref"))
    saying.add("work", policies=("ref", "sup"))
    generator, rows, liked = np.random.default_rng(1), [], np.zeros(4)
    for week in range(4):
        for n in range(10):
            for k in range(6):
                likes_ref = generator.random() < (0.3 + 0.1 * week if moves else 0.4)
                liked[week] += likes_ref
                value = prefers(int(likes_ref == (k % 2 == 0)))
                rows.append((f"p{week * 10 + n}", f"d{k}", value, {"at_ms": NOW + week * WEEK_MS}))
    saying.say([*rows, ("p0", "work", prefers(1))])
    [found] = question_of(saying)["drift"]
    assert found["policies"] == ["ref", "sup"]
    assert [one["preferred"]["value"] for one in found["weeks"]] == pytest.approx((liked / 60).tolist())
    assert [one["week"] for one in found["weeks"]] == ["2026-W39", "2026-W40", "2026-W41", "2026-W42"]
    assert found["trend"]["low"] < (0.1 if moves else 0) < found["trend"]["high"]
    assert (found["trend"]["p_value"] < 0.05) == moves


def test_haste_is_a_question(store):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    words = " ".join(["word"] * 150)
    saying.add(*map(str, range(25)), texts=(words, words))
    saying.say((("Ann", str(n), prefers(0)) for n in range(25)), times={"active_ms": 3000})
    saying.say((("Ben", str(n), prefers(0)) for n in range(25)), times={"active_ms": 90_000})
    with saying.store.reading() as conn:
        found = report(conn, saying.id)["speed"]
    ann, ben = found["people"]
    assert ann["median_s"]["value"] == 3.0
    assert ann["words_per_minute"]["value"] == pytest.approx(303 * 60 / 3)  # two texts, and the three words of the post
    assert ann["question"].endswith("?")
    assert ben["question"] is None
    assert found["median_s"]["n"] == 50


def test_a_median_lies_between_its_order_statistics():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 102.0))
    found = median_of(values, "how", "none")
    assert (found["value"], found["low"], found["high"]) == (51.0, 41.0, 61.0)
    assert median_of(values[:2], "how", "none")["low"] == values[:2].min()
    assert median_of(values[:0], "how", "none") == {"value": None, "why": "none"}
    held = 0
    for seed in range(400):
        drawn = median_of(np.random.default_rng(seed).exponential(size=60), "how", "none")
        held += drawn["low"] <= math.log(2) <= drawn["high"]
    assert held >= 375


def test_half_the_width_costs_four_times_the_answers(store):
    assert answers_to_reach(0.04, 0.02, 1000) == 4000
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add(*map(str, range(100)))
    saying.say(((n, str(k), prefers(int(n == "Ann" and k < 30))) for k in range(100) for n in ("Ann", "Ben")),
               times={"active_ms": 36_000})  # fmt: skip
    with saying.store.reading() as conn:
        found = report(conn, saying.id)
    agreement = found["questions"][0]["aspects"][0]["agreement"]["labeler_labeler"]
    half = (agreement["high"] - agreement["low"]) / 2
    for one in found["cost"]:
        expected = math.ceil((half / one["half_width"]) ** 2 * 100) - 100
        assert one["pairs"]["value"] == expected
        assert one["hours"]["value"] == pytest.approx(expected / 100)
    assert [one["half_width"] for one in found["cost"]] == [0.05, 0.02, 0.01]


# ------------------------------------------------------------------------------------------- one's own page


def own(saying, name):
    with saying.store.reading() as conn:
        return mine(conn, saying.id, saying.people[name])


def test_ones_own_page_before_anything_was_said(store):
    saying = Saying(store)
    saying.person("Ann")
    found = own(saying, "Ann")
    assert (found["answers"], found["days"], found["disagreements"]) == (0, [], [])
    assert found["median_s"]["value"] is None
    assert found["with_researchers"][0]["agreement"]["why"] == "No researcher has answered an item of yours yet."


def test_ones_own_page_tells_pace_agreement_and_what_to_learn_from(store):
    saying = Saying(store)
    for name, role in (("Ann", "labeler"), ("Ben", "labeler"), ("Rea", "researcher")):
        saying.person(name, role)
    saying.add(*(f"i{n}" for n in range(10)), texts=("first", "second"))
    saying.say(("Rea", f"i{n}", prefers(0, 2)) for n in range(10))
    points = {0: 6, 1: 9, 2: 7}
    for n in range(10):
        value = prefers(1, points[n]) if n in points else prefers(0, 2)
        saying.say(
            [("Ann", f"i{n}", value)], shown={"order": [1, 0]}, times={"active_ms": 1000}, at_ms=NOW + n % 2 * DAY_MS
        )
    saying.say([("Ben", f"i{n}", prefers(1, 9)) for n in range(10)])
    found = own(saying, "Ann")
    assert (found["answers"], found["active_ms"]) == (10, 10_000)
    assert [(day["day"], day["answers"]) for day in found["days"]] == [("2026-09-21", 5), ("2026-09-22", 5)]
    assert found["with_researchers"][0]["agreement"]["value"] == 0.7
    # The surest first, in the order that Ann saw: candidate 1 on the left.
    assert [one["said"]["points"] for one in found["disagreements"]] == [1, 3, 4]
    top = found["disagreements"][0]
    assert [each["text"] for each in top["candidates"]] == ["second", "first"]
    assert (top["said"]["choice"], top["right"]["choice"], top["by"]) == (0, 1, "researcher")
    assert "Ben" not in str(found)
    assert "Rea" not in str(found)


def test_ones_own_page_shows_the_reply_and_keeps_known_answers_to_itself(store):
    saying = Saying(store)
    ann, rea = saying.person("Ann"), saying.person("Rea", "researcher")
    right = {"answers": {"choice": prefers(0, 1)}, "why": "It is true."}
    saying.add("practice", role="onboarding", gold=right)
    saying.add("known", role="gold", gold=right)
    saying.say([("Ann", "practice", prefers(1, 9)), ("Ann", "known", prefers(1, 9))])
    row = {"project": saying.id, "item": saying.items["practice"], "person": ann, "text": "Why?", "at_ms": NOW,
           "reply": "Read it again.", "replied_by": rea, "replied_ms": NOW, "pinned": False}  # fmt: skip
    store.write(lambda conn: conn.execute(insert(tables.thread), row))
    found = own(saying, "Ann")["disagreements"]
    assert [(one["by"], one["why"], one["asked"], one["reply"]) for one in found] == [
        ("known", "It is true.", "Why?", "Read it again.")
    ]


def test_ones_own_page_names_five_at_most(store):
    saying = Saying(store)
    saying.person("Ann")
    saying.person("Rea", "researcher")
    saying.add(*map(str, range(9)))
    saying.say(
        (name, str(n), prefers(int(name == "Ann"), 8 if name == "Ann" else 2))
        for n in range(9)
        for name in saying.people
    )
    assert len(own(saying, "Ann")["disagreements"]) == 5


def test_the_monitors_do_not_change_the_store(store):
    saying = Saying(store)
    saying.person("Ann")
    saying.add("i")
    saying.say([("Ann", "i", prefers(0))])
    with store.reading() as conn:
        before = conn.execute(select(tables.feedback)).all()
        report(conn, saying.id)
        mine(conn, saying.id, saying.people["Ann"])
        assert conn.execute(select(tables.feedback)).all() == before
