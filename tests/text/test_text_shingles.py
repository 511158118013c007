"""Words are Python's, shingles are their hashes, and signatures agree as often as sets are alike."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rein.text.shingles import BANDS, NO_KEY, ROWS, Sets, band_keys, set_keys, shingle_sets, shingles, signature

FOX = "The quick brown fox jumps over the lazy dog"


def splitmix(x):
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ x >> shift) * factor % 2**64
    return x ^ x >> 31


def two_sets(rng, size, similarity):
    """Two random sets of about `size` hashes each, and their exact similarity."""
    both = round(size * 2 * similarity / (1 + similarity))
    numbers = rng.integers(0, 2**64, 2 * size - both, dtype=np.uint64)
    return np.sort(numbers[:size]), np.sort(numbers[size - both :]), both / len(numbers)


def test_a_word_is_hashed_as_fnv_1a_says_and_mixed():
    # Of the table of draft-eastlake-fnv; 0xE220A8397B1DCDAF is what splitmix64 gives first from the seed 0.
    assert splitmix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    for word, fnv_1a in (("a", 0xAF63DC4C8601EC8C), ("foobar", 0x85944171F73967E8)):
        assert shingles(word).tolist() == [splitmix(splitmix(fnv_1a))]


def test_every_code_point_is_a_letter_where_python_says_so():
    blocks = ["\n".join(map(chr, range(first, first + 256))) for first in range(0, 0x110000, 256)]
    found = np.diff(shingle_sets(blocks, n=1).offsets).tolist()
    assert found == [len(set(re.findall(r"\w+", block.lower()))) for block in blocks]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FOX, FOX.upper()),
        (FOX, FOX.replace(" ", ",\n— ") + " …"),
        ("naïve ÉTÉ", "NAÏVE été"),
        ("İstanbul", "i stanbul"),  # İ is lowered to i and a combining dot, which is no letter
        ("ὈΔΥΣΣΕΎΣ", "ὀδυσσεύς"),  # a sigma that ends a word is another one
        ("a\ud800b c", "a b c"),
    ],
)
def test_texts_of_the_same_words(one, other):
    assert shingles(one).tolist() == shingles(other).tolist()


def test_shingles_are_sorted_distinct_and_in_the_order_of_words():
    assert len(shingles(FOX)) == 5
    assert len(shingles(f"{FOX} {FOX} {FOX}")) == 9
    assert (np.diff(shingles(FOX * 9).astype(object)) > 0).all()
    assert not set(shingles(FOX).tolist()) & set(shingles(" ".join(reversed(FOX.split()))).tolist())
    words = FOX.split()
    for i in range(4):  # neighbours, or any two, exchanged
        for j in range(i + 1, 5):
            swapped = words[:5]
            swapped[i], swapped[j] = swapped[j], swapped[i]
            assert shingles(" ".join(swapped)) != shingles(" ".join(words[:5]))


def test_fewer_words_than_a_shingle_are_one():
    for n_words in range(1, 6):
        assert len(shingles(" ".join(FOX.split()[:n_words]))) == 1
    assert len({int(shingles(" ".join(FOX.split()[:n]))[0]) for n in range(1, 6)}) == 5
    assert len(shingles(FOX, n=100)) == 1


def test_without_a_word_there_is_no_shingle_and_no_key():
    sets = shingle_sets(["", " \n", "…?! —", "word"])
    assert np.diff(sets.offsets).tolist() == [0, 0, 0, 1]
    keys = set_keys(sets)
    assert (keys[:3] == NO_KEY).all()
    assert (keys[3] != NO_KEY).all()
    assert set_keys(shingle_sets([])).shape == (0, BANDS)
    with pytest.raises(AssertionError, match="empty set"):
        signature(shingles("…"))


def test_many_texts_are_as_one_and_one(tmp_path):
    texts = [FOX[i:j] * (j % 7) for i in range(0, 40, 3) for j in range(i, 44, 5)] + ["é" + FOX]
    sets = shingle_sets(texts)
    keys = set_keys(sets)
    for row, text in enumerate(texts):
        assert sets.row(row).tolist() == shingles(text).tolist()
        if len(sets.row(row)):
            assert keys[row].tolist() == band_keys(signature(shingles(text))).tolist()
    np.save(tmp_path / "values.npy", sets.values)
    mapped = Sets(np.load(tmp_path / "values.npy", mmap_mode="r"), sets.offsets)
    assert (set_keys(mapped) == keys).all()


def test_no_two_words_of_a_real_vocabulary_share_a_hash(shared_data):
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((shared_data / "text").rglob("*.txt")))
    words = set(re.findall(r"\w+", text.lower()))
    assert len(words) > 20_000
    assert len(shingles(text, n=1)) == len(words)


def test_a_signature_has_the_smallest_of_each_bin():
    rng = np.random.default_rng(0)
    a, b, _ = two_sets(rng, 5000, 0.3)
    whole = np.union1d(a, b)
    expected = [min(int(h) >> 32 for h in whole if h % 128 == place) for place in range(128)]
    assert signature(whole).tolist() == expected
    assert (signature(whole) == np.minimum(signature(a), signature(b))).all()
    assert signature(whole, n_hashes=7).tolist() == [
        min(int(h) >> 32 for h in whole.tolist() if h % 7 == place) for place in range(7)
    ]


def test_empty_bins_borrow():
    few = np.sort(np.array([5 << 32 | 3, 9 << 32 | 100], dtype=np.uint64))
    borrowed = signature(few)
    assert borrowed[[3, 100]].tolist() == [5, 9]
    assert 40 < (borrowed == 5).sum() < 88
    assert set(borrowed.tolist()) == {5, 9}
    # A value may be the largest there is, and is still a value.
    assert set(signature(np.array([2**64 - 1], dtype=np.uint64)).tolist()) == {2**32 - 1}


@pytest.mark.parametrize("size", [20, 100, 2000])
@pytest.mark.parametrize("similarity", [0.1, 0.5, 0.8, 0.95])
def test_signatures_agree_as_often_as_sets_are_alike(size, similarity):
    rng = np.random.default_rng(size)
    errors = []
    for _ in range(400):
        a, b, exact = two_sets(rng, size, similarity)
        errors.append((signature(a) == signature(b)).mean() - exact)
    assert abs(np.mean(errors)) < 4 * np.std(errors) / 20
    if size == 2000:
        assert np.std(errors) < 1.2 * np.sqrt(similarity * (1 - similarity) / 128)


@pytest.mark.parametrize(("bands", "rows"), [(BANDS, ROWS), (16, 8), (32, 4)])
@pytest.mark.parametrize("similarity", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_the_share_of_pairs_with_a_common_key(bands, rows, similarity):
    rng = np.random.default_rng(rows)
    n = 1500
    both = [two_sets(rng, 3000, similarity) for _ in range(n)]
    sides = []
    for side in (0, 1):
        sets = [pair[side] for pair in both]
        sides.append(set_keys(Sets(np.concatenate(sets), np.arange(n + 1) * 3000), bands, rows))
    shared = (sides[0] == sides[1]).any(axis=1).mean()
    expected = 1 - (1 - both[0][2] ** rows) ** bands
    assert abs(shared - expected) < 4 * np.sqrt(expected * (1 - expected) / n) + 1e-3


def test_a_key_is_of_its_band_and_of_all_its_values():
    values = np.full(BANDS * ROWS, 7)
    keys = band_keys(values)
    assert len(set(keys.tolist())) == BANDS
    for place in range(len(values)):
        changed = values.copy()
        changed[place] = 8
        assert np.flatnonzero(band_keys(changed) != keys).tolist() == [place // ROWS]
    assert band_keys(values.astype(np.uint32)).tolist() == keys.tolist()
    assert len(band_keys(values[:10], bands=10, rows=1)) == 10
    with pytest.raises(AssertionError, match="126 values for 19 bands of 7"):
        band_keys(values, bands=19)
    with pytest.raises(AssertionError, match="no hashes"):
        set_keys(Sets(np.array([1, 2], dtype=np.int32), np.array([0, 2])))
