"""Best of n: the estimator against every set of n there is, its distance against simulation, intervals that hold."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.evals.best_of_n import best_of_each, choice, curve, kl_nats, shown_sizes, weights


def by_enumeration(proxy, judged, n):
    """The mean over all sets of n samples of what its best is worth; a tie is broken by chance."""
    worth = []
    for chosen in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in chosen)
        tied = [judged[i] for i in chosen if proxy[i] == best]
        worth.append(sum(tied) / len(tied))
    return sum(worth) / len(worth)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.floats(-5, 5)), min_size=1, max_size=7),
)
def test_the_estimate_is_the_mean_over_every_set(pairs):
    proxy, judged = zip(*pairs, strict=True)
    expected = [by_enumeration(proxy, judged, n) for n in range(1, len(pairs) + 1)]
    assert best_of_each(proxy, judged).tolist() == pytest.approx(expected, abs=1e-9)


def test_the_estimate_has_no_bias():
    """Three outcomes, whose best of 2 and of 3 is worked out exactly; means over all draws of 4 samples."""
    chance, proxy, gold = [0.5, 0.3, 0.2], [0.0, 1.0, 2.0], [1.0, -2.0, 5.0]
    cumulative = np.cumsum(chance)
    found = np.zeros(4)
    for draw in itertools.product(range(3), repeat=4):
        likely = math.prod(chance[i] for i in draw)
        found += likely * best_of_each([proxy[i] for i in draw], [gold[i] for i in draw])
    for n in range(1, 5):
        p_best = np.diff(np.concatenate([[0], cumulative**n]))
        assert found[n - 1] == pytest.approx(float(p_best @ gold), abs=1e-12)


def test_weights_are_binomials_even_where_those_are_too_large_for_the_machine():
    exact = [[math.comb(i - 1, n - 1) / math.comb(40, n) for i in range(1, 41)] for n in range(1, 41)]
    assert np.allclose(weights(40), exact, rtol=1e-11, atol=0)
    large = weights(2048)
    assert np.isfinite(large).all()
    assert np.allclose(large.sum(axis=1), 1, rtol=0, atol=1e-9)
    for n, i in ((1024, 2048), (1024, 1500), (2, 7), (2048, 2048)):
        expected = math.exp(math.log(math.comb(i - 1, n - 1)) - math.log(math.comb(2048, n)))
        assert large[n - 1, i - 1] == pytest.approx(expected, rel=1e-9)


def test_the_best_of_all_is_the_best_and_of_one_the_mean():
    worth = best_of_each([3.0, 1.0, 2.0], [7.0, 8.0, 9.0])
    assert worth[0] == pytest.approx(8.0)
    assert worth[-1] == pytest.approx(7.0)


def test_chosen_by_itself_more_is_never_worse():
    scores = np.random.default_rng(0).normal(size=50)
    assert (np.diff(best_of_each(scores, scores)) >= -1e-12).all()


@pytest.mark.parametrize("n", [2, 8, 64])
def test_the_distance_is_what_simulation_finds(n):
    """The density of the best of n over that of one sample is n F^(n − 1); F of the best is the largest of n."""
    largest = np.random.default_rng(n).random((200_000, 1)) ** (1 / n)
    log_ratio = math.log(n) + (n - 1) * np.log(largest)
    error = log_ratio.std() / math.sqrt(len(log_ratio))
    assert abs(log_ratio.mean() - kl_nats(n)) < 4 * error


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.integers(1, 70))
def test_the_distance_is_never_more_where_responses_come_twice(weights_U, n):
    p = np.array(weights_U) / sum(weights_U)
    best = np.diff(np.concatenate([[0], np.cumsum(p) ** n]))
    there = best > 0
    assert float((best[there] * np.log(best[there] / p[there])).sum()) <= kl_nats(n) + 1e-9


def test_intervals_hold_for_other_prompts():
    """Of 300 experiments with known truth, at least 90% of the intervals of the best of 4 and of its gain hold it."""
    rng, truth, held, gained = np.random.default_rng(3), 1.0293753730039641, 0, 0  # E[largest of 4 normal numbers]
    for _ in range(300):
        level = rng.normal(size=(20, 1))
        point = curve(level + rng.normal(size=(20, 6)))[3]
        held += point.proxy.low <= truth <= point.proxy.high
        gained += point.proxy_gain.low <= truth <= point.proxy_gain.high
    assert 0.9 <= held / 300 <= 0.99
    assert 0.9 <= gained / 300 <= 0.99


def test_a_gold_that_is_the_proxy_has_its_curve_and_an_opposite_one_falls():
    scores = np.random.default_rng(1).normal(size=(5, 8))
    for point in curve(scores, scores):
        assert point.gold == point.proxy
    falling = [point.gold.value for point in curve(scores, -scores)]
    assert falling == sorted(falling, reverse=True)


def test_sizes_of_a_table_end_with_all_samples():
    assert shown_sizes(64) == [1, 2, 4, 8, 16, 32, 64]
    assert shown_sizes(1) == [1]


@given(st.lists(st.tuples(st.floats(-9, 9), st.sampled_from(["text", " ", ""]), st.booleans()), max_size=6))
def test_what_is_chosen_is_whole_and_none_that_is_scores_more(samples):
    whole = [score for score, text, ended in samples if text == "text" and ended]
    found = choice(*([one[n] for one in samples] for n in range(3)))
    assert (found is None) == (not whole)
    if found is not None:
        assert samples[found] == (max(whole), "text", True)
