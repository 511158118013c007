"""The order of windows: a permutation every epoch, a pure function of its number, and inside the corpus."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rein.errors import UserError
from rein.text.order import WindowOrder, _keys, permute


@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 50))
def test_every_index_once(n, seed, epoch):
    assert sorted(permute(np.arange(n), n, _keys(seed, epoch)[1:]).tolist()) == list(range(n))


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(0, 99), st.integers(0, 9))
def test_windows_fit_and_do_not_overlap(n_tokens, length, seed, epoch):
    if n_tokens < length + 1:
        with pytest.raises(UserError, match=f"needs {length + 1:,}"):
            WindowOrder(n_tokens, length, seed)
        return
    order = WindowOrder(n_tokens, length, seed)
    starts = np.sort(order.starts(epoch * order.windows_per_epoch, order.windows_per_epoch))
    assert starts[0] >= 0
    assert starts[-1] + length + 1 <= n_tokens
    assert (np.diff(starts) == length).all()
    assert order.windows_per_epoch >= (n_tokens - 1) // length - 1


@given(st.integers(0, 500), st.integers(1, 100), st.integers(0, 5))
def test_any_part_can_be_asked_for(first, count, seed):
    order = WindowOrder(1000, 7, seed)
    whole = order.starts(0, first + count)
    assert (order.starts(first, count) == whole[first:]).all()


def test_seeds_and_epochs_differ_and_look_shuffled():
    order = WindowOrder(100_000, 10, 0)
    n = order.windows_per_epoch
    first, second = order.starts(0, n), order.starts(n, n)
    assert (first != second).mean() > 0.9
    assert (first != WindowOrder(100_000, 10, 1).starts(0, n)).mean() > 0.9
    # Neighbours in time are no neighbours in place: the mean distance of a random order is a third of the span.
    assert abs(np.abs(np.diff(first)).mean() / 100_000 - 1 / 3) < 0.02
