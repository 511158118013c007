"""The order of a mixture: every prefix in proportion, every source without replacement, any part for the asking."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.text.order import MixtureOrder, WindowOrder

LENGTH = 7
GPT3 = {"Common Crawl": 60.0, "WebText2": 22.0, "Books1": 8.0, "Books2": 8.0, "Wikipedia": 3.0}

weights = st.floats(1e-6, 1e6)
mixtures = st.lists(st.tuples(st.integers(LENGTH + 1, 2000), weights), min_size=1, max_size=12).map(
    lambda rows: ({f"s{i}": n for i, (n, _) in enumerate(rows)}, {f"s{i}": w for i, (_, w) in enumerate(rows)})
)


def sources_of(tokens, starts):
    """Which source each position lies in, by a plain search from the row's beginning."""
    found = []
    for start in starts.tolist():
        begin = 0
        for source, n_tokens in tokens.items():
            if start < begin + n_tokens:
                assert start + LENGTH + 1 <= begin + n_tokens, "a window and its last target lie in one source"
                found.append(source)
                break
            begin += n_tokens
        else:
            pytest.fail(f"position {start} is behind the last source")
    return found


def exact_shares(weights):
    total = sum(map(Fraction, weights.values()))
    return {source: Fraction(weight) / total for source, weight in weights.items()}


@given(mixtures, st.integers(0, 2**40))
@settings(deadline=None)
def test_every_prefix_is_within_two_windows_of_the_exact_weights(mixture, seed):
    tokens, weights = mixture
    shares = exact_shares(weights)
    seen = Counter()
    for n, source in enumerate(sources_of(tokens, MixtureOrder(tokens, weights, LENGTH, seed).starts(0, 200)), 1):
        seen[source] += 1
        assert all(abs(seen[name] - n * share) < 2 for name, share in shares.items())


@given(mixtures, st.integers(0, 10**15))
@settings(deadline=None)
def test_so_is_one_that_no_run_will_reach(mixture, n):
    tokens, weights = mixture
    seen = MixtureOrder(tokens, weights, LENGTH, 0).seen(n)
    windows = {source: read // LENGTH for source, (read, _) in seen.items()}
    assert sum(windows.values()) == n
    for source, share in exact_shares(weights).items():
        assert abs(windows[source] - n * share) < 2
        assert seen[source] == (windows[source] * LENGTH, pytest.approx(windows[source] * LENGTH / tokens[source]))


@given(mixtures, st.integers(0, 10**15), st.integers(0, 60), st.integers(0, 60), st.integers(0, 9))
@settings(deadline=None)
def test_a_run_resumes_at_any_window(mixture, first, n, m, seed):
    order = MixtureOrder(*mixture, LENGTH, seed)
    parts = np.concatenate([order.starts(first, n), order.starts(first + n, m)])
    assert parts.tolist() == MixtureOrder(*mixture, LENGTH, seed).starts(first, n + m).tolist()


@given(mixtures, st.integers(0, 10**15), st.integers(0, 200))
@settings(deadline=None)
def test_what_was_seen_is_what_was_given_out(mixture, first, count):
    tokens, _ = mixture
    order = MixtureOrder(*mixture, LENGTH, 3)
    given_out = Counter(sources_of(tokens, order.starts(first, count)))
    before, after = order.seen(first), order.seen(first + count)
    assert {source: (after[source][0] - before[source][0]) // LENGTH for source in tokens} == {
        source: given_out[source] for source in tokens
    }


@given(mixtures, st.integers(0, 99))
@settings(deadline=None)
def test_a_source_is_exhausted_before_it_repeats(mixture, seed):
    tokens, weights = mixture
    starts = MixtureOrder(tokens, weights, LENGTH, seed).starts(0, 300)
    sources = sources_of(tokens, starts)
    for source, n_tokens in tokens.items():
        of_source = [start for start, name in zip(starts.tolist(), sources, strict=True) if name == source]
        fitting = max((n_tokens - 1) // LENGTH - 1, 1)
        for epoch in range(0, len(of_source), fitting):
            here = np.sort(of_source[epoch : epoch + fitting])
            assert (np.diff(here) >= LENGTH).all(), "windows of one epoch do not overlap, so none comes twice"
            assert (np.diff(here) % LENGTH == 0).all()


def test_gpt3s_weights_over_a_long_run():
    tokens = dict.fromkeys(GPT3, 10_000)
    order = MixtureOrder(tokens, GPT3, LENGTH, 0)
    source_N = order.starts(0, 500_000) // 10_000
    n = np.arange(1, len(source_N) + 1)
    for i, weight in enumerate(GPT3.values()):
        deviation = np.abs(np.cumsum(source_N == i) - n * (weight / 101))
        assert deviation.max() < 1.5
    # A batch is as mixed as the run: in every 512 windows, the rarest source is as often as its weight says, or nearly.
    rare = (source_N == 4)[: 512 * 900].reshape(-1, 512).sum(axis=1)
    assert set(rare.tolist()) <= set(range(13, 19))  # 512 · 3/101 = 15.2


def test_a_batch_far_into_a_run_costs_what_the_first_one_does():
    order = MixtureOrder(dict.fromkeys(GPT3, 10**11), GPT3, 2048, 0)
    far = order.starts(150_000_000, 512)
    assert far.tolist() == order.starts(149_999_900, 700)[100:612].tolist()


def test_sources_are_not_read_in_step_and_seeds_differ():
    tokens = {"a": 70_000, "b": 70_000}
    order = MixtureOrder(tokens, {"a": 1, "b": 1}, LENGTH, 0)
    starts = order.starts(0, 10_000)
    in_a, in_b = starts[starts < 70_000], starts[starts >= 70_000] - 70_000
    assert len(in_a) == len(in_b) == 5000
    assert (in_a // LENGTH != in_b // LENGTH).mean() > 0.99
    assert (starts != MixtureOrder(tokens, {"a": 1, "b": 1}, LENGTH, 1).starts(0, 10_000)).mean() > 0.99


def test_a_pass_has_the_windows_of_all_sources():
    tokens = {"a": 1000, "b": 300, "c": LENGTH + 1}
    expected = sum(WindowOrder(n, LENGTH, 0).windows_per_epoch for n in tokens.values())
    assert MixtureOrder(tokens, dict.fromkeys(tokens, 1.0), LENGTH, 0).windows_per_epoch == expected


def test_a_source_shorter_than_a_window_is_named():
    with pytest.raises(UserError, match=r"The source 'tiny' has 7 tokens .* n_ctx=7 needs 8\.\n.*Lower --n-ctx"):
        MixtureOrder({"big": 1000, "tiny": LENGTH}, {"big": 1, "tiny": 1}, LENGTH, 0)
