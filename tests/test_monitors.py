"""Monitors of responses: equal to their definitions tried out, and quiet until something is really other."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rein.monitors import (
    MONITORS,
    Mean,
    bigram_overlap_frac,
    compare,
    copied_frac,
    distinct_2,
    measure,
    repeated_frac,
    words,
)

ITEMS = st.lists(st.integers(0, 3), max_size=14)
EOT = 9


def runs(items):
    """Every run of items there is, with how often it occurs."""
    found = {}
    for start in range(len(items)):
        for end in range(start + 1, len(items) + 1):
            run = tuple(items[start:end])
            found[run] = found.get(run, 0) + 1
    return found


@given(ITEMS)
def test_the_longest_repeated_run_is_the_one_that_trying_all_finds(items):
    longest = max((len(run) for run, n in runs(items).items() if n > 1), default=0)
    assert repeated_frac(items) == (longest / len(items) if items else 0.0)


@given(ITEMS, ITEMS)
def test_the_longest_copied_run_is_the_one_that_trying_all_finds(items, source):
    longest = max((len(run) for run in runs(items).keys() & runs(source).keys()), default=0)
    assert copied_frac(items, source) == (longest / len(items) if items else 0.0)


@given(ITEMS, ITEMS)
def test_shared_pairs_are_counted_one_by_one(items, source):
    theirs = {(source[i], source[i + 1]) for i in range(len(source) - 1)}
    ours = [(items[i], items[i + 1]) in theirs for i in range(len(items) - 1)]
    assert bigram_overlap_frac(items, source) == (sum(ours) / len(ours) if ours else 0.0)


@given(st.lists(ITEMS, min_size=2, max_size=6))
def test_distinct_pairs_and_their_jackknife_are_their_definitions(responses):
    def frac(some):
        pairs = [pair for items in some for pair in pairwise(items)]
        return len(set(pairs)) / max(len(pairs), 1)

    found, n = distinct_2(responses), len(responses)
    assert found.value == pytest.approx(frac(responses))
    without = [frac(responses[:i] + responses[i + 1 :]) for i in range(n)]
    spread = math.sqrt((n - 1) / n * sum((x - sum(without) / n) ** 2 for x in without))
    assert found.stderr == pytest.approx(spread, abs=1e-12)


def test_words_are_letters_and_digits_in_lower_case():
    assert words("Zürich: 3 O'Clock…") == ["zürich", "3", "o", "clock"]


def responses_of(n, seed=0, length=20, n_vocab=50, end=True):
    rng = np.random.default_rng(seed)
    lengths = rng.poisson(length, n).clip(2)
    return [tuple(rng.integers(10, n_vocab, k).tolist()) + ((EOT,) if end else ()) for k in lengths]


def measured(responses, texts=None, context=None, entropies=1.5):
    texts = texts or ["a short answer about nothing much"] * len(responses)
    context = context or {"title": "My cat is lost", "post": "It ran away in the night and nobody saw it go."}
    total = sum(map(len, responses))
    rng = np.random.default_rng(0)
    entropies_M = None if entropies is None else entropies + 0.1 * rng.normal(size=total)
    return measure(responses, texts, [context] * len(responses), eot_id=EOT, entropies_M=entropies_M)


def names(findings):
    return [found.name for found in findings]


def test_every_monitor_is_measured_and_declared():
    found = measured(responses_of(30))
    assert found.keys() == {monitor.name for monitor in MONITORS}
    assert all(isinstance(mean, Mean) and math.isfinite(mean.value) and mean.stderr >= 0 for mean in found.values())


def test_the_mean_entropy_is_that_of_tokens_and_its_error_that_of_responses():
    responses = [(1, 2, EOT), (3, EOT)]
    found = measure(responses, ["", ""], [{}, {}], eot_id=EOT, entropies_M=[1.0, 2.0, 3.0, 0.0, 1.0])
    entropy = found["entropy_nats"]
    assert entropy.value == pytest.approx(1.4)
    left = [6 - 3 * 1.4, 1 - 2 * 1.4]
    assert entropy.stderr == pytest.approx(math.sqrt(2 * sum(x * x for x in left)) / 5)


def test_end_of_text_is_no_token_that_repeats():
    found = measure([(1, 2, 1, EOT), (EOT,), (1, 2)], [""] * 3, [{}] * 3, eot_id=EOT)
    assert found["no_eot_frac"].value == pytest.approx(1 / 3)
    assert found["repeated_frac"].value == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert found["response_tokens"].value == pytest.approx((4 + 1 + 2) / 3)
    assert found["distinct_2_frac"].value == pytest.approx(2 / 3)


def test_the_reference_is_not_what_is_copied_and_a_name_is_a_title():
    context = {
        "name": "shelf.sync",
        "post": "Writes everything out.",
        "reference": "the very words of the answer itself",
    }
    found = measured(responses_of(3), ["the very words of the answer itself"] * 3, context)
    assert found["copied_post_frac"].value == 0
    found = measured(responses_of(3), ["shelf sync"] * 3, context)
    assert found["copied_title_frac"].value == 1


def test_without_a_title_or_entropies_there_are_none():
    found = measured(responses_of(3), context={"post": "all"}, entropies=None)
    assert not found.keys() & {"copied_title_frac", "entropy_nats"}
    assert compare(measured(responses_of(3)), found) == []


def test_the_same_policy_measured_again_is_not_warned_of():
    """7 monitors, 60 comparisons: a false alarm would be one in 2,000."""
    for seed in range(60):
        assert compare(measured(responses_of(64, seed)), measured(responses_of(64, seed + 1000))) == []


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("response_tokens", {"responses": responses_of(64, 1, length=40)}, "Responses became longer"),
        ("response_tokens", {"responses": responses_of(64, 1, length=8)}, "Responses became shorter"),
        ("no_eot_frac", {"responses": responses_of(64, 1, length=20, end=False)}, "More responses are cut off"),
        ("repeated_frac", {"responses": [r[:10] + r[:10] + (EOT,) for r in responses_of(64, 1)]}, "repeat themselves"),
        ("copied_title_frac", {"texts": ["My cat is lost! My cat"] * 64}, "copy the title"),
        ("copied_post_frac", {"texts": ["It ran away in the night, sadly."] * 64}, "copy the text"),
        ("bigram_overlap_frac", {"texts": ["it ran in the night away in the"] * 64}, "in the words of the query"),
        ("distinct_2_frac", {"responses": responses_of(4, 1) * 16}, "more alike"),
        ("entropy_nats", {"entropies": 0.4}, "sure of each token"),
    ],
)
def test_each_trick_is_named(name, change, says):
    start = measured(responses_of(64))
    now = measured(**{"responses": responses_of(64, 1), **change})
    found = {finding.name: finding for finding in compare(start, now)}
    assert name in found
    assert says in found[name].words
    assert abs(found[name].z) >= 4
    assert (found[name].start, found[name].now) == (start[name].value, now[name].value)


def test_a_difference_that_is_sure_but_small_is_no_finding():
    start, now = {"no_eot_frac": Mean(0.02, 0.001, 10_000)}, {"no_eot_frac": Mean(0.05, 0.001, 10_000)}
    assert compare(start, now) == []


def test_a_difference_that_is_large_but_may_be_chance_is_no_finding():
    assert compare({"no_eot_frac": Mean(0.0, 0.1, 8)}, {"no_eot_frac": Mean(0.3, 0.1, 8)}) == []


def test_the_other_way_is_no_fault():
    start = {"no_eot_frac": Mean(0.9, 0.01, 64), "entropy_nats": Mean(1.0, 0.01, 64), "repeated_frac": Mean(0.9, 0, 64)}
    now = {"no_eot_frac": Mean(0.1, 0.01, 64), "entropy_nats": Mean(9.0, 0.01, 64), "repeated_frac": Mean(0.1, 0, 64)}
    assert compare(start, now) == []


def test_where_all_responses_agree_a_difference_is_sure():
    found = compare({"no_eot_frac": Mean(0.0, 0.0, 8)}, {"no_eot_frac": Mean(1.0, 0.0, 8)})
    assert [finding.z for finding in found] == [math.inf]


def test_what_does_not_go_together_is_a_fault_of_ours():
    with pytest.raises(AssertionError, match="each response has its text"):
        measure([(1,)], [], [{}], eot_id=EOT)
    with pytest.raises(AssertionError, match="each token has its entropy"):
        measure([(1, 2)], ["a"], [{}], eot_id=EOT, entropies_M=[1.0])
