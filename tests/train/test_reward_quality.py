"""What a report says of a reward model, against examples worked by hand and what simulation knows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.evals.reward_quality import Pairs, calibration, length_ratio, length_weight, nll, perfect, quality, right
from rein.evals.reward_report import learning, reliability, render


def pairs(gap, length=None, topics=None, batches=None, policies=None):
    n = len(gap)
    return Pairs(
        np.asarray(gap, dtype=float), np.zeros(n) if length is None else np.asarray(length, dtype=float),
        topics or [str(i) for i in range(n)], batches or ["b"] * n, policies or [("a", "b")] * n,
    )  # fmt: skip


def test_accuracy_counts_equal_scores_as_half_and_nll_is_of_the_better_one():
    assert right(np.array([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]
    assert nll(np.array([2.0, -1.0])).tolist() == pytest.approx([math.log1p(math.exp(-2)), math.log1p(math.e)])
    found = quality(pairs([2.0, 0.0, -1.0, 3.0]), weight=0.0)
    assert found["accuracy"]["value"] == 0.625
    assert found["nll"]["value"] == pytest.approx(nll(np.array([2.0, 0.0, -1.0, 3.0])).mean())


def test_the_calibration_error_of_a_hand_example():
    """Ten pairs: four sure of 0.95, of which three are right; six sure of 0.65, of which three are right.

    ECE = 0.4 · |0.75 − 0.95| + 0.6 · |0.5 − 0.65| = 0.17
    """
    high, low = math.log(0.95 / 0.05), math.log(0.65 / 0.35)
    ece, bins = calibration(np.array([high] * 3 + [-high] + [low] * 3 + [-low] * 3))
    assert ece == pytest.approx(0.17)
    assert [(round(one["sure"], 2), one["right"], one["n"]) for one in bins] == [(0.65, 0.5, 6), (0.95, 0.75, 4)]


def test_scores_that_are_true_log_odds_are_calibrated():
    random = np.random.default_rng(0)
    lead = random.standard_normal(40_000) * 2
    better = np.where(random.random(40_000) < 1 / (1 + np.exp(-lead)), lead, -lead)  # the lead of the one that won
    assert calibration(better)[0] < 0.01
    assert calibration(3 * better)[0] > 0.1  # too sure


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=1, max_size=40))
def test_calibration_is_a_share_and_bins_hold_every_pair(gap):
    ece, bins = calibration(np.array(gap))
    assert 0 <= ece <= 1
    assert sum(one["n"] for one in bins) == len(gap)
    assert all(0.5 <= one["sure"] <= 1 for one in bins)


def test_length_alone_has_no_side_and_is_fitted_by_likelihood():
    random, true = np.random.default_rng(1), 1.4
    x = random.standard_normal(20_000)
    better = np.where(random.random(20_000) < 1 / (1 + np.exp(-true * x)), x, -x)
    assert length_weight(better) == pytest.approx(true, rel=0.05)
    assert length_weight(-better) == pytest.approx(-true, rel=0.05)
    assert length_weight(np.zeros(5)) == length_weight(np.zeros(0)) == 0
    assert length_ratio("abc", "") == math.log(4)


def test_a_model_that_knows_length_alone_is_no_better_than_length_alone():
    random = np.random.default_rng(2)
    length = random.standard_normal(600) + 0.7  # the longer one is mostly better
    found = quality(pairs(3 * length, length), weight=3.0)
    assert found["over_length"]["value"] == 0
    assert found["over_length"]["low"] <= 0 <= found["over_length"]["high"]
    assert found["accuracy"]["value"] == found["longer_wins"]["value"] > 0.7
    assert found["at_equal_length"]["value"] == pytest.approx(0.5, abs=0.06)
    assert found["at_equal_length_strata"]["value"] == pytest.approx(0.5, abs=0.01)


def test_a_model_that_knows_more_is_told_apart_from_length():
    random = np.random.default_rng(3)
    length, more = random.standard_normal(600) * 0.5 + 0.3, random.standard_normal(600) + 1
    found = quality(pairs(length + 2 * more, length), weight=1.0)
    assert found["over_length"]["low"] > 0
    assert found["at_equal_length"]["low"] > 0.6


@pytest.mark.parametrize(("gap", "told"), [([1.0, -1.0] * 10, True), ([1.0, -1.0] * 9, False), ([1.0] * 60, False)])
def test_at_equal_length_nothing_is_said_of_few_pairs_or_of_pairs_all_alike(gap, told):
    found = quality(pairs(gap, np.arange(len(gap)) % 7 - 3.0), weight=0.0)
    assert [found[name] is not None for name in ("at_equal_length", "at_equal_length_strata")] == [told] * 2
    assert found["accuracy"]["low"] is not None


def test_intervals_are_over_prompts():
    gap = np.tile([1.0, -1.0], 50)
    alone = quality(pairs(gap), weight=0.0)["accuracy"]
    together = quality(pairs(gap, topics=[str(i // 10 if i % 2 else 100 + i // 10) for i in range(100)]), weight=0.0)
    width = [one["high"] - one["low"] for one in (alone, together["accuracy"])]
    assert width[1] > 1.8 * width[0]  # ten that are right together, ten that are wrong together
    assert together["prompts"] == 20


@pytest.mark.parametrize("q", [0.6, 0.75, 0.9, 1.0])
def test_a_perfect_model_agrees_as_often_as_a_labeler_is_right(q):
    """Two simulated labelers who err each by themselves, and a model that does not."""
    random = np.random.default_rng(0)
    ann, ben = (random.random(200_000) < q for _ in range(2))
    agree = float((ann == ben).mean())
    found = perfect({"value": agree, "low": None, "high": agree, "n": 3})
    assert found == {"value": found["high"], "low": None, "high": found["high"], "n": 3}
    assert found["value"] == pytest.approx(ann.mean(), abs=0.01)


def test_labelers_who_agree_less_than_by_chance_say_nothing_of_a_perfect_model():
    assert perfect({"value": 0.49, "low": 0.3, "high": 0.7, "n": 9}) is None
    assert perfect(None) is None
    assert perfect({"value": None, "low": None, "high": None, "n": 0}) is None
    assert perfect({"value": 0.58, "low": 0.45, "high": 1.0, "n": 9}) == {"value": 0.7, "low": 0.5, "high": 1.0, "n": 9}


def test_tables_are_by_batch_and_by_the_two_policies_on_whichever_sides():
    found = quality(
        pairs([1, 1, -1, 1, 1], batches=["b1", "b2", "b2", "b1", "b3"],
              policies=[("a", "b"), ("b", "a"), ("a", "b"), ("a", "a"), ("", "a")]), weight=0.0,
        agreement=[1.0, 1.0, 0.0], agreement_topics=["x", "x", "y"],
    )  # fmt: skip
    assert [(one["name"], one["value"], one["n"]) for one in found["by_batch"]] == [("b1", 1.0, 2), ("b2", 0.5, 2)]
    assert [(one["name"], one["n"]) for one in found["by_policies"]] == [("a · b", 3)]
    assert found["agreement"]["value"] == pytest.approx(2 / 3)


def test_the_page_is_the_same_for_the_same_numbers_and_shows_what_a_file_smuggles_in():
    part = quality(pairs([1, 1, -1, 2], batches=["<b>x\x07", "<b>x\x07", "y", "y"]), weight=0.5,
                   agreement=[1.0, 1.0, 1.0, 0.0], agreement_topics=list("abcd"))  # fmt: skip
    found = {
        "test": part, "dev": part, "curve": [[10, 0.5], [20, 0.7]], "normalised": {"on": "none"}, "notes": ["<i>note"],
        "train": {"elements": 3, "judgements": 4, "pairs": 5}, "temperatures": {}, "accuracies": {"ann": 0.9},
        "labelers": {"ann": 12},
    }  # fmt: skip
    page = render("<script>", found)
    assert page == render("<script>", found)
    assert "&lt;b&gt;x␇" in page
    assert "<script>" not in page
    assert "<i>note" not in page
    assert "right 90%" in page
    assert "A perfect model" in page
    assert "85.4%" in page  # (1 + √½) / 2
    assert learning([[1, 0.5]]) is None
    assert reliability([]) is None
