"""In which order training reads a corpus: every window once an epoch, at random, with nothing to store.

A window is `length` tokens and the one after them, its targets being its tokens shifted by one. An epoch cuts the
tokens into windows from a random offset and visits them in a random order, without replacement (Brown 2020, App. B:
"sampling without replacement until an epoch boundary"). The n-th window of a run is a pure function of
(seed, n): a run resumes at the exact token, and any number of processes can share the work.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from rein.errors import UserError

Ints = npt.NDArray[np.int64]


class WindowOrder:
    """`order.starts(first, count)`: where windows first … first + count − 1 of the run begin."""

    def __init__(self, n_tokens: int, length: int, seed: int) -> None:
        """Raises   UserError when the corpus has fewer tokens than one window and its last target."""
        # One window fewer than fit, so that every offset gives the same number and epochs are equally long.
        self.windows_per_epoch = max((n_tokens - 1) // length - 1, 1)
        if n_tokens < length + 1:
            raise UserError(
                f"The corpus has {n_tokens:,} tokens, but one window of n_ctx={length} needs {length + 1:,}.",
                "Lower --n-ctx, or add text.",
            )
        self._slack = n_tokens - 1 - self.windows_per_epoch * length  # offsets 0 … slack all fit
        self._length, self._seed = length, seed

    def starts(self, first: int, count: int) -> Ints:
        """Token positions where the windows begin: (count,) int64."""
        index = np.arange(first, first + count, dtype=np.int64)
        epochs = index // self.windows_per_epoch
        starts = np.empty_like(index)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            keys = _keys(self._seed, int(epoch))
            offset = int(keys[0] % np.uint64(self._slack + 1))
            shuffled = permute(index[here] % self.windows_per_epoch, self.windows_per_epoch, keys[1:])
            starts[here] = offset + shuffled * self._length
        return starts


def permute(index: Ints, n: int, keys: npt.NDArray[np.uint64]) -> Ints:
    """A keyed permutation of 0 … n − 1, evaluated where it is asked for: a Feistel network with cycle walking.

    The network permutes the smallest square power of two that holds n; an image outside 0 … n − 1 is sent
    through again until it falls inside, which keeps the whole a permutation.

    Example  >>> sorted(permute(np.arange(10), 10, _keys(0, 0)[1:]).tolist())
             [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    half = np.uint64(max(1, (max(n - 1, 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    out = index.astype(np.uint64)
    outside = np.ones(len(out), dtype=bool)
    while outside.any():
        left, right = out[outside] >> half, out[outside] & low
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & low)
        out[outside] = (left << half) | right
        outside = out >= n
    return out.astype(np.int64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64: every input bit changes about half of the output bits."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _keys(seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    digest = hashlib.sha512(f"window order {seed} {epoch}".encode()).digest()
    return np.frombuffer(digest, dtype=np.uint64)
