"""In which order training reads a corpus: every window once an epoch, at random, with nothing to store.

A window is `length` tokens and the one after them, its targets being its tokens shifted by one. An epoch cuts the
tokens into windows from a random offset and visits them in a random order, without replacement (Brown 2020, App. B:
"sampling without replacement until an epoch boundary"). Of a corpus of several sources, each with a weight,
`MixtureOrder` takes windows of them in turn (Brown 2020, §2.2), and each source has its own epochs. The n-th window
of a run is a pure function of (seed, n): a run resumes at the exact token, and any number of processes can share
the work.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

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


class MixtureOrder:
    """`order.starts(first, count)` for a row of tokens in which each source is one range, sampled by its weight.

    A window lies in one source. Those of a source come in the order of a `WindowOrder` over its range, so every
    one of them comes once before any comes again. Which source is next follows from a binary tree with the
    sources as leaves: of the first n windows that reach a fork, n · (the left side's part of the weight below it),
    rounded, turn left. So where a run stands in each source is a few multiplications, whatever n is.

        |windows of a source among the first n  −  n · its share|  <  2       for any weights and every n

    Because: one step down adds at most the ½ of rounding to the part of the difference that is handed down, and
    in a tree built as Huffman's that part is at most 2/3 at a fork; so forks stay below ½ · (1 + 2/3 + 4/9 + …) = 3/2.
    (Sampling by the multiples of the golden ratio mod 1 would not do: its differences grow as log n.)

    Example  >>> order = MixtureOrder({"web": 9000, "books": 1000}, {"web": 3, "books": 1}, length=10, seed=0)
             >>> int((order.starts(0, 400) >= 9000).sum())      # windows of the books
             100
             >>> order.seen(400)
             {'web': (3000, 0.3333333333333333), 'books': (1000, 1.0)}
    """

    def __init__(self, tokens: Mapping[str, int], weights: Mapping[str, float], length: int, seed: int) -> None:
        """`tokens`: source → its tokens, in the order of the row; `weights`: source → above 0, of any sum.

        The seed decides in which order each source is read; which source is next, the weights alone.

        Raises   UserError when a source has fewer tokens than one window and its last target.
        """
        assert tokens.keys() == weights.keys(), f"sources {list(tokens)}, weights of {list(weights)}"
        assert all(math.isfinite(w) and w > 0 for w in weights.values()), f"weights {dict(weights)}"
        for source, n_tokens in tokens.items():
            if n_tokens < length + 1:
                raise UserError(
                    f"The source {source!r} has {n_tokens:,} tokens to train on, but one window of n_ctx={length} "
                    f"needs {length + 1:,}.",
                    "Lower --n-ctx, add text to this source, or build the corpus without it.",
                )
        self._tokens, self._length = dict(tokens), length
        self._ranges = np.cumsum([0, *tokens.values()], dtype=np.int64).tolist()
        self._orders = [WindowOrder(n, length, _source_seed(seed, source)) for source, n in tokens.items()]
        self._root = _tree([Fraction(weights[source]) for source in tokens])
        # As many windows as the sources have together. Each source has its own epochs; `seen` tells them.
        self.windows_per_epoch = sum(order.windows_per_epoch for order in self._orders)

    def starts(self, first: int, count: int) -> Ints:
        """Token positions where the windows begin: (count,) int64."""
        starts = np.empty(count, dtype=np.int64)
        self._place(self._root, first, np.arange(count), starts)
        return starts

    def _place(self, node: _Fork | int, first: int, places: Ints, starts: Ints) -> None:
        """Fills `places` of `starts` with the windows that are `first`, `first` + 1, … of those that reach `node`."""
        if not len(places):
            return
        if isinstance(node, int):
            starts[places] = self._ranges[node] + self._orders[node].starts(first, len(places))
            return
        turns = node.turns_left(first, len(places))
        n_left = node.n_left(first)
        self._place(node.left, n_left, places[turns], starts)
        self._place(node.right, first - n_left, places[~turns], starts)

    def seen(self, n_windows: int) -> dict[str, tuple[int, float]]:
        """What the first `n_windows` of a run read: source → its tokens, and how often that is the whole source."""
        windows = dict(_reaching(self._root, n_windows))
        return {
            source: (windows[i] * self._length, windows[i] * self._length / n_tokens)
            for i, (source, n_tokens) in enumerate(self._tokens.items())
        }


Order = WindowOrder | MixtureOrder
_HALF = 1 << 63


@dataclass(frozen=True, slots=True)
class _Fork:
    """Sends n · rate / 2⁶⁴, rounded, of the first n windows that reach it to the left."""

    left: _Fork | int  # a source's number is a leaf
    right: _Fork | int
    rate: int

    def n_left(self, n: int) -> int:
        return (n * self.rate + _HALF) >> 64

    def turns_left(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        """For each of the windows `first` … `first` + `count` − 1: whether n_left is one more behind it."""
        before = np.uint64((first * self.rate + _HALF) % 2**64)
        # Modulo 2⁶⁴, as uint64 is: a window turns left where the next multiple passes over 2⁶⁴.
        return before + np.arange(count, dtype=np.uint64) * np.uint64(self.rate) >= np.uint64(2**64 - self.rate)


def _tree(weights: list[Fraction]) -> _Fork | int:
    """Huffman's tree over the sources: the two of least weight become one, until one is left."""
    heap: list[tuple[Fraction, int, _Fork | int]] = [(weight, i, i) for i, weight in enumerate(weights)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (w_left, number, left), (w_right, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        rate = int(w_left / (w_left + w_right) * 2**64)
        # Unequal numbers, so that equal weights never compare the nodes.
        heapq.heappush(heap, (w_left + w_right, len(weights) + number, _Fork(left, right, max(rate, 1))))
    return heap[0][2]


def _reaching(node: _Fork | int, n: int) -> Iterator[tuple[int, int]]:
    """Each source below `node`, and how many of the first `n` windows that reach the node are of it."""
    if isinstance(node, int):
        yield node, n
    else:
        n_left = node.n_left(n)
        yield from _reaching(node.left, n_left)
        yield from _reaching(node.right, n - n_left)


def _source_seed(seed: int, source: str) -> int:
    """One per source: equally long ones must not be read in step."""
    digest = hashlib.sha512(f"source {seed} {source}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


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
