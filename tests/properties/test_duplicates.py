"""Near-duplicates: words are Python's, pairs are those of brute force, and who stays depends on nothing else."""

from __future__ import annotations

import itertools
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rein.text.duplicates import candidate_pairs, components, jaccard, survivors, united, verify
from rein.text.shingles import Sets, set_keys, shingle_sets, shingles

patiently = settings(deadline=None)

anything = st.text(st.characters(codec=None), max_size=60)
wordy = st.lists(st.sampled_from(["to", "be", "or", "not", "é", "Ü", "…", " ", "\n", "_1", "中文", "\ud800", "ς"])).map(
    "".join
)
graphs = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] < pair[1]), max_size=60)
some_sets = st.lists(st.frozensets(st.integers(0, 12)), min_size=1, max_size=12)


def reference(text: str, n: int) -> list[int]:
    """What the module's docstring says, with Python's integers."""

    def mix(x: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ x >> shift) * factor % 2**64
        return x ^ x >> 31

    hashes = []
    for word in re.findall(r"\w+", text.lower()):
        h = 0xCBF29CE484222325
        for byte in word.encode():
            h = (h ^ byte) * 0x100000001B3 % 2**64
        hashes.append(mix(h))
    found = set()
    for start in range(max(len(hashes) - n, 0) + 1 if hashes else 0):
        h = 0
        for word_hash in hashes[start : start + n]:
            h = (h * 0x9E3779B97F4A7C1B + word_hash) % 2**64
        found.add(mix(h))
    return sorted(found)


def as_sets(sets) -> Sets:
    rows = [np.array(sorted(one), dtype=np.uint64) for one in sets]
    return Sets(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))


def as_pairs(graph) -> np.ndarray:
    return united([np.array(graph, dtype=np.uint64).reshape(-1, 2)])


@patiently
@given(st.one_of(anything, wordy), st.integers(1, 6))
def test_shingles_are_those_of_pythons_words(text, n):
    assert shingles(text, n).tolist() == reference(text, n)


@patiently
@given(st.lists(st.one_of(anything, wordy), max_size=6))
def test_a_text_has_the_same_shingles_and_keys_among_others(texts):
    sets = shingle_sets(texts)
    keys = set_keys(sets)
    for row, text in enumerate(texts):
        assert sets.row(row).tolist() == shingles(text).tolist()
        assert keys[row].tolist() == set_keys(shingle_sets([text]))[0].tolist()


@patiently
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9)), max_size=40),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_candidates_are_those_of_brute_force_in_any_order_and_number_of_buckets(rows, n_buckets, random):
    expected = {
        (min(d, e), max(d, e)) for (k, d), (other, e) in itertools.combinations(rows, 2) if k == other != 0 and d != e
    }
    random.shuffle(rows)
    keys, documents = np.array(rows, dtype=np.uint64).reshape(-1, 2).T
    here = [keys % np.uint64(n_buckets) == bucket for bucket in range(n_buckets)]
    found = united(candidate_pairs(keys[bucket], documents[bucket]).pairs for bucket in here)
    assert [tuple(pair) for pair in found.tolist()] == sorted(expected)


@patiently
@given(st.permutations(range(60)), st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2), min_size=60, max_size=60))
def test_a_large_group_is_one_component_in_any_order(documents, key, ranks):
    ordered = np.arange(60, dtype=np.uint64)
    ranks_of = np.array(ranks, dtype=np.uint64)
    keys = np.full(60, max(key, 1), dtype=np.uint64)
    expected = candidate_pairs(keys, ordered, ranks_of, max_group=50)
    shuffled = np.array(documents, dtype=np.uint64)
    found = candidate_pairs(keys, shuffled, ranks_of[shuffled.astype(int)], max_group=50)
    assert found.large_groups == 1
    assert found.pairs.tolist() == expected.pairs.tolist()
    assert (components(found.pairs)[1] == 0).all()
    preferred = min(range(60), key=lambda d: (ranks[d], d))
    assert (survivors(found.pairs, ordered, ranks_of, "greedy").stays == preferred).all()


@patiently
@given(some_sets, st.integers(1, 20), st.integers(1, 20))
def test_what_is_verified_is_what_sets_say(sets, p, q):
    threshold = min(p / q, 1.0)
    rows = list(itertools.product(range(len(sets)), repeat=2))
    exact = [len(sets[i] & sets[j]) / max(len(sets[i] | sets[j]), 1) for i, j in rows]
    pairs, held = np.array(rows), as_sets(sets)
    kept = verify(pairs.astype(np.uint64), held, pairs[:, 0], held, pairs[:, 1], threshold)
    assert kept.pairs.tolist() == [list(pair) for pair, s in zip(rows, exact, strict=True) if s >= threshold]
    assert kept.similarities.tolist() == [s for s in exact if s >= threshold]
    assert [jaccard(held.row(i), held.row(j)) for i, j in rows] == exact


@patiently
@given(graphs)
def test_components_are_scipys_and_their_root_is_the_smallest(graph):
    members, roots = components(as_pairs(graph))
    assert members.tolist() == sorted({node for pair in graph for node in pair})
    ends = np.array(graph, dtype=int).reshape(-1, 2)
    _, label = connected_components(coo_array((np.ones(len(ends)), ends.T), shape=(31, 31)), directed=False)
    assert roots.tolist() == [int(np.flatnonzero(label == label[member])[0]) for member in members.astype(int)]


@patiently
@given(graphs, st.lists(st.integers(0, 2), min_size=31, max_size=31), st.randoms(use_true_random=False))
def test_who_stays_is_what_the_rules_say(graph, ranks, random):
    pairs, members = as_pairs(graph), np.arange(31, dtype=np.uint64)
    neighbours = {node: {a + b - node for a, b in graph if node in (a, b)} for node in range(31)}
    preference = sorted(range(31), key=lambda node: (ranks[node], node))

    greedy = {}
    for node in preference:
        near = [other for other in preference if other in neighbours[node] and greedy.get(other) == other]
        greedy[node] = near[0] if near else node
    roots = dict(zip(*(array.tolist() for array in components(pairs)), strict=True))
    component = {
        node: next(other for other in preference if roots.get(other, other) == roots.get(node, node))
        for node in range(31)
    }
    shuffled = pairs[random.sample(range(len(pairs)), len(pairs))]
    for rule, expected in (("greedy", greedy), ("component", component)):
        drops = survivors(shuffled, members, np.array(ranks), rule)
        found = dict(zip(drops.dropped.tolist(), drops.stays.tolist(), strict=True))
        assert found == {node: stays for node, stays in expected.items() if stays != node}
