"""Scores against closed forms, other definitions of the same number, and intervals that cover what they should."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rein.evals.scores import SCORES, accuracy, f1, macro_f1, matthews, pearson, spearman

N = 200
RNG = np.random.default_rng(0)


def arrays(*values):
    return tuple(np.array(value, dtype=float) for value in values)


def test_accuracy_and_wilson_by_hand():
    score = accuracy(*arrays([1] * 8 + [0] * 2, [1] * 10))
    z, p, n = 1.959963984540054, 0.8, 10
    centre, margin = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert score.value == p
    assert score.low == pytest.approx((centre - margin) / (1 + z * z / n))
    assert score.high == pytest.approx((centre + margin) / (1 + z * z / n))


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    predicted, labels = RNG.integers(0, 2, N).astype(float), RNG.integers(0, 2, N).astype(float)
    right = ((predicted == 1) & (labels == 1)).sum()
    precision, recall = right / (predicted == 1).sum(), right / (labels == 1).sum()
    assert f1(predicted, labels).value == pytest.approx(2 * precision * recall / (precision + recall))
    zero = f1(1 - predicted, 1 - labels).value
    assert macro_f1(predicted, labels).value == pytest.approx((f1(predicted, labels).value + zero) / 2)


def test_macro_f1_leaves_out_a_class_that_is_no_label():
    assert macro_f1(*arrays([0, 1, 2], [0, 1, 1])).value == pytest.approx((1 + 2 / 3) / 2)


def test_matthews_is_the_correlation_of_two_binary_variables():
    labels = RNG.integers(0, 2, N).astype(float)
    predicted = np.where(RNG.random(N) < 0.7, labels, 1 - labels)
    assert matthews(predicted, labels).value == pytest.approx(np.corrcoef(predicted, labels)[0, 1])


def test_matthews_of_three_classes_by_gorodkins_definition():
    """R_K = cov(X, Y) / √(cov(X, X) cov(Y, Y)) of the one-hot matrices."""
    x, y = RNG.integers(0, 3, N), RNG.integers(0, 3, N)
    one_x, one_y = np.eye(3)[x], np.eye(3)[y]

    def cov(a, b):
        return ((a - a.mean(0)) * (b - b.mean(0))).sum()

    expected = cov(one_x, one_y) / math.sqrt(cov(one_x, one_x) * cov(one_y, one_y))
    assert matthews(x.astype(float), y.astype(float)).value == pytest.approx(expected)


def test_correlations_are_scipys():
    x = RNG.normal(size=N)
    y = (x + RNG.normal(size=N)).round(1)  # with ties
    theirs = stats.pearsonr(x, y)
    assert pearson(x, y).value == pytest.approx(theirs.statistic)
    interval = theirs.confidence_interval(0.95)
    assert (pearson(x, y).low, pearson(x, y).high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert spearman(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman(x, y).low < pearson(stats.rankdata(x), stats.rankdata(y)).low  # the widening


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_constant_side_has_no_correlation_and_nothing_is_known(name):
    score = SCORES[name](*arrays([2, 2, 2, 2, 2], [1, 2, 3, 4, 5]))
    assert (score.value, score.low, score.high) == (0, -1, 1)


@pytest.mark.parametrize("name", ["f1", "matthews"])
def test_a_class_that_never_comes_scores_0(name):
    score = SCORES[name](*arrays([0, 0, 0], [0, 0, 0]))
    assert (score.value, score.low, score.high) == (0, 0, 0)


@pytest.mark.parametrize("name", SCORES)
def test_perfect_is_1(name):
    labels = np.array([0, 1] * 50, dtype=float)
    score = SCORES[name](labels, labels)
    assert score.value == pytest.approx(1)
    assert score.high == pytest.approx(1)
    assert score.low > 0.95
    assert score.n == 100


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=4, max_size=60), st.sampled_from([*SCORES]))
@settings(deadline=None, max_examples=60)
def test_a_score_lies_in_its_interval_and_not_on_the_order_of_rows(pairs, name):
    predicted, labels = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    score = SCORES[name](predicted, labels)
    assert -1 <= score.low <= score.high <= 1
    if name in ("accuracy", "pearson", "spearman"):
        assert score.low - 1e-9 <= score.value <= score.high + 1e-9
    shuffled = SCORES[name](predicted[::-1], labels[::-1])
    assert shuffled.value == pytest.approx(score.value)
    assert (shuffled.low, shuffled.high) == (pytest.approx(score.low), pytest.approx(score.high))


@pytest.mark.parametrize(("name", "truth"), [("accuracy", 0.8), ("f1", 0.8), ("matthews", 0.6), ("pearson", 0.6)])
def test_95_of_100_intervals_hold_the_truth(name, truth):
    """A fair coin, right in 80%: F1 0.8, Matthews 0.6. For Pearson, normal variables: Fisher's z is theirs."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        if name == "pearson":
            labels = rng.normal(size=150)
            predicted = 0.6 * labels + 0.8 * rng.normal(size=150)
        else:
            labels = rng.integers(0, 2, 150).astype(float)
            predicted = np.where(rng.random(150) < 0.8, labels, 1 - labels)
        score = SCORES[name](predicted, labels)
        held += score.low <= truth <= score.high
    assert 182 <= held <= 198, held  # 190 ± 2.6 standard deviations
