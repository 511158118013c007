"""Near-duplicates are found, others are left alone, and what is dropped is near to what stays."""

from __future__ import annotations

import inspect
import itertools
import random
import re

import numpy as np
import pytest
from scipy.sparse import csr_array

from rein.text.duplicates import Verified, candidate_pairs, components, jaccard, survivors, united, verify
from rein.text.shingles import BANDS, ROWS, Sets, band_keys, set_keys, shingle_sets


def numbers(*values):
    return np.array(values, dtype=np.uint64)


def compare(sets: Sets, threshold: float, bands: int = BANDS, rows: int = ROWS) -> Verified:
    """All steps up to the verified pairs, of sets that are documents 0, 1, …"""
    keys = set_keys(sets, bands, rows)
    found = candidate_pairs(keys.reshape(-1), np.repeat(np.arange(len(keys), dtype=np.uint64), bands)).pairs
    return verify(found, sets, found[:, 0].astype(int), sets, found[:, 1].astype(int), threshold)


def exact(a, b) -> float:
    return len(a & b) / len(a | b)


def changed(words: list[str], n_changes: int, rng: random.Random) -> list[str]:
    """Single words replaced, at least 5 apart: each change makes 5 shingles of one text and 5 of the other new."""
    words = list(words)
    for place in rng.sample(range(5, len(words) - 5, 10), n_changes):
        words[place] = f"changed{rng.randrange(10**9)}"
    return words


# ------------------------------------------------------------------------------------------------ candidates


def test_a_pair_shares_a_key_however_often():
    keys = numbers(7, 7, 7, 8, 8, 9, 7, 6)
    documents = numbers(4, 2, 4, 2, 4, 1, 3, 2)
    assert candidate_pairs(keys, documents).pairs.tolist() == [[2, 3], [2, 4], [3, 4]]


def test_nothing_shares_a_key_that_is_none():
    for keys, documents in (
        (numbers(), numbers()),
        (numbers(0, 0, 5), numbers(1, 2, 3)),
        (numbers(5, 5), numbers(1, 1)),
    ):
        found = candidate_pairs(keys, documents)
        assert found.pairs.shape == (0, 2)
        assert found.large_groups == 0
        assert components(found.pairs)[0].tolist() == []
        assert survivors(found.pairs, numbers(3), numbers(0), "greedy").dropped.tolist() == []


def test_numbers_of_documents_have_64_bits():
    documents = numbers(2**63 + 5, 2**63 + 4, 3 << 32 | 1, 1 << 32)
    found = candidate_pairs(numbers(2**64 - 1, 2**64 - 1, 2**64 - 1, 8), documents).pairs
    assert found.tolist() == [[3 << 32 | 1, 2**63 + 4], [3 << 32 | 1, 2**63 + 5], [2**63 + 4, 2**63 + 5]]
    assert united([found[1:], found[:2], found[:0]]).tolist() == found.tolist()


def test_up_to_the_limit_a_group_has_all_its_pairs():
    documents = np.arange(50, dtype=np.uint64)
    everything = candidate_pairs(np.full(50, 9, np.uint64), documents, max_group=50)
    assert everything.pairs.tolist() == [list(pair) for pair in itertools.combinations(range(50), 2)]
    assert everything.large_groups == 0
    fewer = candidate_pairs(np.full(50, 9, np.uint64), documents, max_group=49)
    assert fewer.large_groups == 1
    assert len(fewer.pairs) < len(everything.pairs)


@pytest.mark.parametrize("rule", ["component", "greedy"])
def test_a_large_group_of_equals_leaves_the_preferred_one_at_a_linear_price(rule):
    n = 5_000
    rng = np.random.default_rng(0)
    documents = rng.permutation(n).astype(np.uint64) * 3
    ranks = np.where(np.isin(documents, (33, 999)), 0, rng.integers(1, 4, n)).astype(np.uint64)
    keys = np.full(n, 5, np.uint64)
    found = candidate_pairs(
        np.append(keys, numbers(6, 6)), np.append(documents, numbers(3, 6)), np.append(ranks, ranks[:2])
    )
    assert found.large_groups == 1
    assert len(found.pairs) <= 40 * n
    order = np.argsort(documents)
    drops = survivors(found.pairs, documents[order], ranks[order], rule)
    assert len(drops.dropped) == n - 1
    assert (drops.stays == 33).all()


def test_a_large_group_of_three_kinds_falls_into_three():
    """One key, as boilerplate gives it: shares of 1/2, 1/3 and 1/6, alike inside and unlike across.

    None of the last sixth is among the preferred, and none of it is chosen with probability (5/6)²⁴ = .013.
    """
    n, not_three = 600, 0
    for seed in range(200):
        documents = np.random.default_rng(seed).permutation(n).astype(np.uint64) + np.uint64(seed * n)
        found = candidate_pairs(np.full(n, 5, np.uint64), documents, max_group=n - 1).pairs
        kind = np.searchsorted([n // 2, n * 5 // 6], found.astype(int) - seed * n, side="right")
        _, roots = components(found[kind[:, 0] == kind[:, 1]])
        not_three += sorted(np.unique(roots, return_counts=True)[1].tolist()) != [100, 200, 300]
    assert not_three < 200 * 0.013 + 3 * np.sqrt(200 * 0.013)


# ---------------------------------------------------------------------------------------------- verification


def test_what_is_exactly_on_the_threshold_is_kept():
    for size, both in itertools.product(range(1, 40), range(40)):
        if both > size:
            continue
        sets = Sets(np.append(np.arange(size), np.arange(size - both, 2 * size - both)), np.array([0, size, 2 * size]))
        here = both / (2 * size - both)
        if both:
            kept = verify(numbers(1, 2)[None], sets, np.array([0]), sets, np.array([1]), here)
            assert kept.similarities.tolist() == [here]
        if here < 1:
            above = np.nextafter(here, 2)
            assert len(verify(numbers(1, 2)[None], sets, np.array([0]), sets, np.array([1]), above).pairs) == 0
        assert jaccard(sets.row(0), sets.row(1)) == here


def test_sides_may_be_maps_of_different_files(tmp_path):
    rng = np.random.default_rng(1)
    sides, plain = [], []
    for name in ("left", "right"):
        sets = [np.unique(rng.integers(0, 60, rng.integers(0, 60))).astype(np.int32) for _ in range(40)]
        np.save(tmp_path / f"{name}.npy", np.concatenate(sets))
        np.save(tmp_path / f"{name}-offsets.npy", np.cumsum([0, *map(len, sets)]))
        paths = (tmp_path / f"{name}.npy", tmp_path / f"{name}-offsets.npy")
        sides.append(Sets(*(np.load(path, mmap_mode="r") for path in paths)))
        plain.append([set(one.tolist()) for one in sets])
    rows = rng.integers(0, 40, (500, 2))
    pairs = rows.astype(np.uint64) + numbers(1 << 32, 2 << 32)
    kept = verify(pairs, sides[0], rows[:, 0], sides[1], rows[:, 1], 0.3)
    similarities = [exact(a, b) if a | b else 0.0 for a, b in ((plain[0][i], plain[1][j]) for i, j in rows.tolist())]
    expected = [(pair, s) for pair, s in zip(pairs.tolist(), similarities, strict=True) if s >= 0.3]
    assert 10 < len(expected) < 490
    assert kept.pairs.tolist() == [pair for pair, _ in expected]
    assert kept.similarities.tolist() == [s for _, s in expected]
    other = Sets(sides[1].values.astype(np.uint64), sides[1].offsets)
    with pytest.raises(AssertionError, match="int32 and uint64"):
        verify(pairs, sides[0], rows[:, 0], other, rows[:, 1], 0.3)


def test_empty_sets_are_like_nothing():
    sets = shingle_sets(["…", "!", "word"])
    assert jaccard(sets.row(0), sets.row(1)) == 0
    pairs = np.array([[0, 1], [0, 2]], np.uint64)
    assert len(verify(pairs, sets, np.array([0, 0]), sets, np.array([1, 2]), 0.01).pairs) == 0


# ----------------------------------------------------------------------------------------------- who stays


# 10 is like 20, 20 like 30, 30 like 40; 50 like 60.
CHAIN = np.array([[10, 20], [20, 30], [30, 40], [50, 60]], np.uint64)


@pytest.mark.parametrize(
    ("ranks", "component", "greedy"),
    [
        ([0, 0, 0, 0, 0, 0], {20: 10, 30: 10, 40: 10, 60: 50}, {20: 10, 40: 30, 60: 50}),
        ([1, 1, 0, 1, 1, 0], {10: 30, 20: 30, 40: 30, 50: 60}, {20: 30, 40: 30, 50: 60}),
        ([2, 1, 1, 0, 5, 5], {10: 40, 20: 40, 30: 40, 60: 50}, {10: 20, 30: 40, 60: 50}),
    ],
)
def test_who_stays(ranks, component, greedy):
    members = numbers(10, 20, 30, 40, 50, 60)
    for rule, expected in (("component", component), ("greedy", greedy)):
        drops = survivors(CHAIN, members, np.array(ranks), rule)
        assert dict(zip(drops.dropped.tolist(), drops.stays.tolist(), strict=True)) == expected


def test_webtext_stays_and_its_copies_go_from_common_crawl():
    """Brown 2020, App. A: WebText was removed from Common Crawl, whose partition comes first here."""
    crawl, webtext = (numbers(*(partition << 32 | row for row in range(4))) for partition in (0, 1))
    pairs = np.stack((crawl, webtext), axis=1)
    members = np.append(crawl, webtext)
    for rule in ("component", "greedy"):
        drops = survivors(pairs, members, 1 - (members >> np.uint64(32)).astype(int), rule)
        assert drops.dropped.tolist() == crawl.tolist()
        assert drops.stays.tolist() == webtext.tolist()


# ------------------------------------------------------------------------------------------------- all of it


def test_planted_twins():
    """400 words have 396 shingles: c changes leave J = (396 − 5c) / (396 + 5c), .90 for 4 and .50 for 26."""
    rng = random.Random(0)
    texts, planted = [], {}
    for n_changes in (4, 26) * 60:
        words = [f"word{rng.randrange(5000)}" for _ in range(400)]
        planted[len(texts), len(texts) + 1] = n_changes
        texts += [" ".join(words), " ".join(changed(words, n_changes, rng))]
    sets = shingle_sets(texts)
    for (i, j), n_changes in planted.items():
        assert jaccard(sets.row(i), sets.row(j)) == pytest.approx(
            (396 - 5 * n_changes) / (396 + 5 * n_changes), abs=0.01
        )
    kept = compare(sets, 0.8)
    assert [tuple(pair) for pair in kept.pairs.tolist()] == [pair for pair, n in planted.items() if n == 4]
    drops = survivors(kept.pairs, components(kept.pairs)[0], np.zeros(120), "component")
    assert drops.dropped.tolist() == [j for (_, j), n in planted.items() if n == 4]


@pytest.fixture(scope="module")
def docstrings() -> list[str]:
    """Of functions that do nearly the same: numpy has many of them twice, for masked arrays, as methods, in pairs."""
    spaces = (
        np,
        np.ma,
        np.linalg,
        np.fft,
        np.random,
        np.char,
        np.ndarray,
        np.random.Generator,
        np.strings,
        np.ma.MaskedArray,
    )
    spaces += (np.random.RandomState, np.polynomial.Legendre, np.polynomial.Hermite, bytes, bytearray, str)
    texts = {
        inspect.getdoc(getattr(space, name))
        for space in spaces
        for name in sorted(space.__all__ if hasattr(space, "__all__") else dir(space))
        if callable(getattr(space, name, None))
    }
    return sorted(text for text in texts if text and len(text) > 100)


def brute_force(texts: list[str]) -> np.ndarray:
    """The exact Jaccard similarity of all pairs, from the five-word tuples themselves."""
    number: dict[tuple[str, ...], int] = {}
    rows = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        shingles = {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}
        rows.append([number.setdefault(shingle, len(number)) for shingle in shingles])
    sizes = np.array([len(row) for row in rows])
    has = csr_array((np.ones(sizes.sum()), np.concatenate(rows), np.cumsum([0, *sizes])))
    both = (has @ has.T).toarray()
    return both / (sizes[:, None] + sizes - both)


def test_real_docstrings_against_brute_force(docstrings):
    sets = shingle_sets(docstrings)
    similarity = brute_force(docstrings)
    truth = {(i, j) for i, j in np.argwhere(np.triu(similarity, 1) >= 0.8).tolist()}
    assert len(docstrings) > 500
    assert len(truth) > 40
    kept = compare(sets, 0.8)
    found = {tuple(pair) for pair in kept.pairs.tolist()}
    assert found <= truth
    assert {pair for pair in truth if similarity[pair] >= 0.9} <= found
    chance = 1 - (1 - np.array([similarity[pair] for pair in truth]) ** ROWS) ** BANDS
    assert len(found) >= chance.sum() - 3 * np.sqrt((chance * (1 - chance)).sum())
    assert len(found) >= 0.97 * len(truth)
    assert (similarity[*kept.pairs.astype(int).T] == kept.similarities).all()

    members, roots = components(kept.pairs)
    near = survivors(kept.pairs, members, np.zeros(len(members)), "greedy")
    for gone, stays in zip(near.dropped.tolist(), near.stays.tolist(), strict=True):
        assert similarity[stays, gone] >= 0.8
        assert stays not in near.dropped
    one = survivors(kept.pairs, members, np.zeros(len(members)), "component")
    assert set(near.dropped.tolist()) <= set(one.dropped.tolist())
    root_of = dict(zip(members.tolist(), roots.tolist(), strict=True))
    linked = reachable(truth)
    for gone, stays in zip(one.dropped.tolist(), one.stays.tolist(), strict=True):
        assert root_of[gone] == stays
        assert stays in linked[gone]


def reachable(pairs):
    neighbours = {}
    for a, b in pairs:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    linked = {}
    for start in neighbours:
        seen, waiting = {start}, [start]
        while waiting:
            new = neighbours[waiting.pop()] - seen
            seen |= new
            waiting += new
        linked[start] = seen
    return linked


@pytest.mark.parametrize("n_partitions", [1, 2, 7])
@pytest.mark.parametrize("n_buckets", [1, 5])
def test_partitions_and_buckets_do_not_change_who_stays(docstrings, n_partitions, n_buckets):
    """As the pipeline works: a file of sets for each partition, keys by bucket, pairs by two partitions."""
    parts = np.array_split(np.arange(len(docstrings)), n_partitions)
    files = [shingle_sets([docstrings[i] for i in part]) for part in parts]
    keys = np.concatenate([set_keys(sets) for sets in files])
    documents = np.concatenate([np.arange(len(part)) + (p << 32) for p, part in enumerate(parts)]).astype(np.uint64)
    of_text = dict(zip(documents.tolist(), range(len(docstrings)), strict=True))
    flat, named = keys.reshape(-1), np.repeat(documents, keys.shape[1])
    shuffled = np.random.default_rng(n_partitions).permutation(len(flat))
    flat, named = flat[shuffled], named[shuffled]
    found = united(
        candidate_pairs(flat[here], named[here]).pairs for here in (flat % n_buckets == b for b in range(n_buckets))
    )
    kept = []
    for left, right in itertools.combinations_with_replacement(range(n_partitions), 2):
        here = found[((found >> 32) == (left, right)).all(axis=1)]
        rows = (here & 0xFFFFFFFF).astype(int)
        kept.append(verify(here, files[left], rows[:, 0], files[right], rows[:, 1], 0.8).pairs)
    pairs = united(kept)
    members = components(pairs)[0]
    whole = compare(shingle_sets(docstrings), 0.8).pairs
    for rule in ("component", "greedy"):
        drops = survivors(pairs, members, np.zeros(len(members)), rule)
        expected = survivors(whole, components(whole)[0], np.zeros(len(members)), rule)
        assert [of_text[gone] for gone in drops.dropped.tolist()] == expected.dropped.tolist()
        assert [of_text[stays] for stays in drops.stays.tolist()] == expected.stays.tolist()


def test_ten_keys_of_one_value_on_sets_of_words():
    """GPT-3's way: indices of words, not hashes, and ten values from elsewhere."""
    sets = Sets(np.array([1, 5, 9, 12, 1, 5, 9, 13, 40, 41], dtype=np.int32), np.array([0, 4, 8, 10]))
    values = np.arange(30).reshape(3, 10)
    values[1, 4] = values[0, 4]
    keys = np.concatenate([band_keys(row, bands=10, rows=1) for row in values])
    found = candidate_pairs(keys, np.repeat(numbers(0, 1, 2), 10)).pairs
    assert found.tolist() == [[0, 1]]
    assert verify(found, sets, np.array([0]), sets, np.array([1]), 0.5).similarities.tolist() == [0.6]
