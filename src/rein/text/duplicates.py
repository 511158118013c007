"""Which documents are near-duplicates, and which of them stay.

Flow     keys and document numbers → `candidate_pairs` → `verify`, by exact Jaccard → `survivors` → the documents
         to drop, each with the one that stays in its place.

Documents are uint64 numbers, a pair is (low number, high number). The same input gives the same answer in any order
and in any number of parts: keys can be handled in several calls, as long as equal keys are in one, and `united`
joins the pairs. A set is any sorted array of integers without repetition: shingles, or Spark's indices of words.

Of the pairs that share a key many are unlike, so nothing is dropped before its sets were compared.

Source   Brown 2020, App. A: near-duplicates go from within each data set, and those of WebText from Common Crawl,
         which is what ranks are for. It tells neither the threshold nor which copy stayed.
Differs  Spark's MinHashLSH compares all documents that share a key. Here a group of more than `max_group` is not:
         see `candidate_pairs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from rein.compiled import compiled, splitmix64
from rein.text.shingles import NO_KEY, Hashes, Integers, Sets

MAX_GROUP = 1000
# With whom a document is paired in a group above that.
_PREFERRED, _CHOSEN, _NEXT = 8, 24, 8

Numbers = npt.NDArray[np.uint64]  # of documents
Pairs = npt.NDArray[np.uint64]  # (n, 2)
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rule = Literal["component", "greedy"]

_fast = compiled(error_model="numpy")
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio: keys may come divided by their low or high bits


# ------------------------------------------------------------------------------------------------ candidates


class Candidates(NamedTuple):
    """Pairs to compare, ascending and without repetition, and how many groups had more than `max_group` members."""

    pairs: Pairs
    large_groups: int


def candidate_pairs(
    keys: Hashes, documents: Numbers, ranks: Numbers | None = None, max_group: int = MAX_GROUP
) -> Candidates:
    """The pairs of distinct documents that share a key.

    All g·(g − 1)/2 pairs of a group of g documents with one key are taken up to g = `max_group`. In a larger group a
    document is paired with 40 others: the 8 of lowest (rank, number), because `survivors` prefers them; 24 that a
    hash of key and number chooses; and the 8 next to it on a circle in the order of that hash. Where all of a group
    are alike, the component and the survivor are those of all pairs. Where a group is a mixture, a part that is a
    share s of it has a chosen document, and is one component therefore, with probability 1 − (1 − s)²⁴; and the
    documents of a part share other keys. A pair that is not found keeps a document too many; it never drops one.

    Shapes   keys, documents, ranks (n,): row i says that a document has a key. `NO_KEY` is not shared. Without ranks
             all are alike.
    Example  >>> keys, documents = np.array([7, 9, 7, 8, 9], np.uint64), np.array([3, 1, 2, 1, 3], np.uint64)
             >>> candidate_pairs(keys, documents).pairs.tolist()
             [[1, 3], [2, 3]]
    """
    assert len(keys) == len(documents), f"{len(keys)} keys of {len(documents)} documents"
    assert max_group > _PREFERRED + _CHOSEN + _NEXT, f"max_group {max_group} pairs fewer documents than a larger group"
    order = np.flatnonzero(_maybe_shared(keys))
    order = order[np.lexsort((documents[order], keys[order]))]
    keys, named = keys[order], documents[order]
    members, places = np.unique(named, return_inverse=True)
    ranks_of = np.zeros(len(members), dtype=np.uint64)
    if ranks is not None:
        ranks_of[places] = ranks[order]

    new_key = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    once = new_key | np.append(True, places[1:] != places[:-1])[: len(keys)]  # a document may have one key twice
    places = places[once].astype(np.uint64)
    starts = np.append(np.flatnonzero(new_key[once]), len(places))

    packed = [_all_pairs(places, starts, max_group)]
    large = np.flatnonzero(np.diff(starts) > max_group)
    for first, end in zip(starts[large].tolist(), starts[large + 1].tolist(), strict=True):
        inside = places[first:end]
        preferred = np.argsort(ranks_of[inside], kind="stable")[:_PREFERRED]
        circle = np.argsort(_mix_each(members[inside], keys[once][first]))
        packed.append(_sparse_pairs(inside, preferred, circle))
    return Candidates(_unpacked(np.concatenate(packed), members), len(large))


def united(parts: Iterable[Pairs]) -> Pairs:
    """The pairs of several calls, ascending and without repetition.

    Example  >>> united([np.array([[2, 3]], np.uint64), np.array([[1, 3], [2, 3]], np.uint64)]).tolist()
             [[1, 3], [2, 3]]
    """
    pairs = np.concatenate([np.empty((0, 2), dtype=np.uint64), *parts])
    members, places = np.unique(pairs, return_inverse=True)
    low, high = places.reshape(pairs.shape).astype(np.uint64).T
    return _unpacked(low << _32 | high, members)


def _unpacked(packed: Hashes, members: Numbers) -> Pairs:
    """Pairs of documents from pairs of their places among the members, two in one number: one fast sort."""
    assert len(members) < 1 << 32, f"{len(members):,} documents at once; divide the keys into more parts"
    packed = np.sort(packed)  # np.unique hashes first: a hundred times as long on millions
    distinct = packed[np.append(True, packed[1:] != packed[:-1])[: len(packed)]]
    return np.stack((members[distinct >> _32], members[distinct & _LOW]), axis=1)


@_fast
def _maybe_shared(keys: Hashes) -> npt.NDArray[np.bool_]:
    """False where a key is of one row only, but for one in ten of those: far faster than to sort them."""
    n_bits = 3
    while 1 << n_bits < 8 * len(keys):
        n_bits += 1
    shift = np.uint64(64 - n_bits)
    n_seen = np.zeros(1 << n_bits, dtype=np.uint8)
    for key in keys:
        slot = (key * _SPREAD) >> shift
        n_seen[slot] = min(n_seen[slot] + 1, 2)
    shared = np.empty(len(keys), dtype=np.bool_)
    for i in range(len(keys)):
        shared[i] = n_seen[(keys[i] * _SPREAD) >> shift] == 2 and keys[i] != np.uint64(NO_KEY)
    return shared


@_fast
def _mix_each(numbers: Numbers, key: np.uint64) -> Hashes:
    """A hash of each number and a key."""
    out = np.empty_like(numbers)
    for i in range(len(numbers)):
        out[i] = splitmix64(numbers[i] ^ key)
    return out


@_fast
def _all_pairs(places: Numbers, starts: Ints, max_group: int) -> Hashes:
    n_pairs = 0
    for group in range(len(starts) - 1):
        size = starts[group + 1] - starts[group]
        if size <= max_group:
            n_pairs += size * (size - 1) // 2
    packed = np.empty(n_pairs, dtype=np.uint64)
    out = 0
    for group in range(len(starts) - 1):
        first, end = starts[group], starts[group + 1]
        if end - first <= max_group:
            for i in range(first, end):
                for j in range(i + 1, end):
                    packed[out] = places[i] << _32 | places[j]
                    out += 1
    return packed


@_fast
def _sparse_pairs(inside: Numbers, preferred: Ints, circle: Ints) -> Hashes:
    """The pairs of a large group: `inside` ascends, the others are indices into it."""
    n = len(inside)
    packed = np.empty(n * (_PREFERRED + _CHOSEN + _NEXT), dtype=np.uint64)
    out = 0
    for i in range(n):
        one = inside[circle[i]]
        for k in range(_PREFERRED + _CHOSEN + _NEXT):
            if k < _PREFERRED:
                other = inside[preferred[k]]
            elif k < _PREFERRED + _CHOSEN:
                other = inside[circle[k - _PREFERRED]]
            else:
                other = inside[circle[(i + 1 + k - _PREFERRED - _CHOSEN) % n]]
            if one != other:
                packed[out] = min(one, other) << _32 | max(one, other)
                out += 1
    return packed[:out]


# ---------------------------------------------------------------------------------------------- verification


class Verified(NamedTuple):
    """The pairs that are near-duplicates, and their exact similarities: (n, 2) and (n,)."""

    pairs: Pairs
    similarities: Floats


def jaccard(a: Integers, b: Integers) -> float:
    """|a ∩ b| / |a ∪ b| of two sets; 0 where both are empty.

    Example  >>> jaccard(np.array([1, 2, 3, 4]), np.array([2, 3, 4, 5]))
             0.6
    """
    assert a.dtype == b.dtype, f"sets of {a.dtype} and {b.dtype}"
    both = _n_common(a, b, 0)
    return both / max(len(a) + len(b) - both, 1)


def verify(pairs: Pairs, left: Sets, left_rows: Ints, right: Sets, right_rows: Ints, threshold: float) -> Verified:
    """Those of the pairs whose sets have a Jaccard similarity of at least `threshold`, in the order they came in.

    Pair i is of the set left_rows[i] of `left` and right_rows[i] of `right`, which may be the same `Sets`.

    Shapes   pairs (n, 2); left_rows, right_rows (n,); threshold in (0, 1].
    Example  >>> sets = Sets(np.array([1, 2, 3, 4, 2, 3, 4, 5]), np.array([0, 4, 8]))
             >>> pairs = np.array([[70, 80]], np.uint64)
             >>> verify(pairs, sets, np.array([0]), sets, np.array([1]), 0.6).similarities.tolist()
             [0.6]
    """
    assert 0 < threshold <= 1, f"threshold {threshold}"
    assert left.values.dtype == right.values.dtype, f"sets of {left.values.dtype} and {right.values.dtype}"
    similarities = np.zeros(len(pairs), dtype=np.float64)
    _compare(*left, left_rows, *right, right_rows, threshold, similarities)
    kept = similarities >= threshold
    return Verified(pairs[kept], similarities[kept])


@_fast
def _n_common(a: Integers, b: Integers, needed: int) -> int:
    """How many elements two sets share; −1 as soon as that cannot be `needed`."""
    n_a, n_b = len(a), len(b)
    i, j, both = 0, 0, 0
    while i < n_a and j < n_b:
        # Without branches on the data, which nobody can predict.
        x, y = a[i], b[j]
        both += x == y
        i += x <= y
        j += y <= x
        if both + min(n_a - i, n_b - j) < needed:
            return -1
    return both


@_fast
def _compare(
    left: Integers,
    left_offsets: Ints,
    left_rows: Ints,
    right: Integers,
    right_offsets: Ints,
    right_rows: Ints,
    threshold: float,
    similarities: Floats,
) -> None:
    """Fills in the similarities that reach the threshold, and leaves the others."""
    for pair in range(len(similarities)):
        row, other = left_rows[pair], right_rows[pair]
        a = left[left_offsets[row] : left_offsets[row + 1]]
        b = right[right_offsets[other] : right_offsets[other + 1]]
        if len(a) == 0 or len(b) == 0 or min(len(a), len(b)) / max(len(a), len(b)) < threshold:
            continue
        # J ≥ t means |a ∩ b| ≥ t·(|a| + |b|) / (1 + t). Rounded so that no error can exclude what is exactly on it.
        needed = int(np.ceil(threshold * (len(a) + len(b)) / (1 + threshold) - 1e-3))
        both = _n_common(a, b, needed)
        if both >= 0:
            similarities[pair] = both / (len(a) + len(b) - both)


# ----------------------------------------------------------------------------------------------- who stays


class Drops(NamedTuple):
    """Documents to drop, ascending, and for each the document that stays in its place."""

    dropped: Numbers
    stays: Numbers


def components(pairs: Pairs) -> tuple[Numbers, Numbers]:
    """The documents of the pairs, ascending, and the smallest number that each is connected with.

    Example  >>> members, roots = components(np.array([[1, 5], [5, 9], [2, 4]], np.uint64))
             >>> members.tolist(), roots.tolist()
             ([1, 2, 4, 5, 9], [1, 2, 2, 1, 1])
    """
    members, places = np.unique(pairs, return_inverse=True)
    return members, members[_roots(places.reshape(pairs.shape), len(members))]


def survivors(pairs: Pairs, members: Numbers, ranks: Integers, rule: Rule) -> Drops:
    """Which documents are dropped, and what stays in their place. Documents of no pair stay.

    "component"  Of connected documents one stays: that of the lowest rank, and of those the smallest number. A chain
                 of small changes goes with it, though its ends may be unlike.
    "greedy"     In the order of rank and number, a document is dropped if it is in a pair with one that stays; the
                 first of those is named. So each that is dropped is near to what stays in its place.

    Shapes   pairs (n, 2), verified; members (k,) ascending, with all the documents of the pairs; ranks (k,) of the
             members, lower ones preferred.
    Example  >>> chain, members = np.array([[1, 5], [5, 9]], np.uint64), np.array([1, 5, 9], np.uint64)
             >>> survivors(chain, members, np.array([0, 0, 0]), "component").dropped.tolist()
             [5, 9]
             >>> survivors(chain, members, np.array([0, 0, 0]), "greedy").dropped.tolist()
             [5]
    """
    assert len(members) == len(ranks), f"{len(ranks)} ranks of {len(members)} documents"
    preferred = np.lexsort((members, ranks))
    position = np.empty(len(members), dtype=np.int64)  # of a member in the order of preference
    position[preferred] = np.arange(len(members))
    edges = np.sort(position[np.searchsorted(members, pairs)], axis=1)
    if rule == "component":
        stays_at = _roots(edges, len(members))
    else:
        stays_at = _nearest_kept(edges[np.lexsort((edges[:, 0], edges[:, 1]))], len(members))
    stays = members[preferred[stays_at[position]]]
    gone = stays != members
    return Drops(members[gone], stays[gone])


@_fast
def _roots(edges: Ints, n: int) -> Ints:
    """The smallest node that each of n is connected with, by union-find with path halving."""
    parent = np.arange(n)
    for edge in range(len(edges)):
        a, b = edges[edge, 0], edges[edge, 1]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        parent[max(a, b)] = min(a, b)
    for node in range(n):  # a parent is never above its child, so it is done before it
        parent[node] = parent[parent[node]]
    return parent


@_fast
def _nearest_kept(edges: Ints, n: int) -> Ints:
    """For each node its first neighbour that is kept, or itself. Edges are (low, high), ascending by high, then low."""
    stays = np.arange(n)
    for edge in range(len(edges)):
        low, high = edges[edge, 0], edges[edge, 1]
        if stays[high] == high and stays[low] == low:
            stays[high] = low
    return stays
