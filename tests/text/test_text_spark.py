"""Spark's features: its published numbers, its plain definition, and the same again compiled."""

from __future__ import annotations

import unicodedata
from collections import Counter

import mmh3
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rein.text import spark

# Cased letters of every length in UTF-8, those whose length changes, the Σ, the İ, and what may pass for a space.
ODD = "aBé Éſß\u1e9eİıΣσςΑ中\u023a\u212a\u2126\U00010400\U0001f600\ua7c0\U00010570\0\x1c\x85\xa0\u2003\t\n\v\f\r  "
TEXTS = st.one_of(st.text(st.sampled_from(ODD)), st.text(st.characters(exclude_categories=["Cs"])), st.text("aB \n"))


def peer_index(word):
    """HashingTF with another's hash, as Spark has it: the signed number, by floor modulo."""
    return mmh3.hash(word.encode(), 42) % spark.N_FEATURES


def as_dict(text):
    indices, counts = spark.features(text)
    return dict(zip(indices.tolist(), counts.tolist(), strict=True))


# Vectors of pyspark 4.3.0 on Java 17.


@pytest.mark.parametrize(
    ("word", "index"),
    [
        ("", 249180),
        ("hello", 250593),
        ("world", 60080),
        ("the", 95889),
        ("cat", 141363),
        ("test", 188762),
        ("中文", 175232),
        ("ünïcode", 188383),
    ],
)
def test_indices_are_sparks(word, index):
    assert spark.feature(word) == index
    assert as_dict(word) == {index: 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", [""]),
        ("   ", []),
        (" a", ["", "a"]),
        ("a  ", ["a"]),
        ("Hello  world\tA\n\n b ", ["hello", "", "world", "a", "", "", "b"]),
        ("a\u00a0b\u2003c\u0085d\u001ce", ["a\u00a0b\u2003c\u0085d\u001ce"]),
        ("a\tb\nc\vd\fe\rf", list("abcdef")),
    ],
)
def test_words_are_sparks(text, words):
    assert spark.words(text) == words
    assert as_dict(text) == Counter(peer_index(word) for word in words)


def test_counts_are_sparks():
    assert as_dict("Hello  world\tA\n\n b ") == {60080: 1, 107107: 1, 148981: 1, 249180: 3, 250593: 1}


def test_min_hashes_are_sparks():
    assert spark.coefficients(3, 42) == ((1562431131, 117392763), (1467211249, 102948884), (662969971, 2023087525))
    expected = [726111680, 163506896, 548148316, 191502230, 933800068, 108978047, 708084899, 339810678, 515232579]
    found = spark.min_hashes(spark.features("the the cat")[0], 10, 42)
    assert found.dtype == np.int64
    assert found.tolist() == [*expected, 724738528]


def test_jaccard_distance_is_sparks():
    one, other = (spark.features(f"the cat sat on {which} mat")[0] for which in ("the", "a"))
    common = len(np.intersect1d(one, other))
    assert 1 - common / len(np.union1d(one, other)) == pytest.approx(1 / 6)


def test_a_text_without_words_has_no_min_hash():
    with pytest.raises(AssertionError, match="no MinHash"):
        spark.min_hashes(spark.features(" \n")[0], 10, 42)


# The plain definition, against others.


@given(st.binary(max_size=40), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_murmur3_is_murmur3(data, seed):
    assert spark.murmur3(data, seed) == mmh3.hash(data, seed, signed=False)


def test_lower_case_is_pythons_but_for_letters_younger_than_unicode_13():
    letters = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]  # no case beyond
    differ = [letter for letter in letters if spark.lower(letter) != letter.lower()]
    blocks = {unicodedata.name(letter).split()[0] for letter in differ}
    assert blocks <= {"LATIN", "GLAGOLITIC", "VITHKUQI", "CYRILLIC", "GARAY", "BERIA"}
    assert {"\u2c2f", "\ua7c0", "\U00010570"} <= set(differ)
    # A second time, nothing changes: the compiled form counts on it for texts with Σ and İ.
    assert all(spark.lower(lowered) == lowered for lowered in map(spark.lower, letters))


# The compiled form, against the plain one.


@given(TEXTS)
@settings(deadline=None, max_examples=500)
@example("a" * 7 + " " + "b" * 8 + " " + "c" * 9)
@example("\u023a" * 50)  # each grows from two bytes to three
@example("Σ ΑΣ ΑΣΑ İ")
def test_compiled_is_plain_on_any_text(text):
    assert as_dict(text) == Counter(spark.feature(word) for word in spark.words(text))
    indices, _ = spark.features(text)
    assert indices.dtype == np.uint32
    assert (np.diff(indices.astype(np.int64)) > 0).all()


@given(TEXTS)
@settings(deadline=None)
def test_the_weight_of_a_text_is_that_of_its_words(text):
    weights = np.arange(spark.N_FEATURES, dtype=np.float64)  # whole numbers: sums are exact in any order
    assert spark.weigh(text, weights) == sum(peer_index(word) for word in spark.words(text))


def test_every_character_is_lowered_as_plain():
    for code in range(0x20000):
        if not 0xD800 <= code < 0xE000 and not chr(code).isspace():
            assert as_dict(chr(code)) == {peer_index(spark.lower(chr(code))): 1}, f"U+{code:04X}"


def test_words_of_every_length():
    for n in range(70):
        word = ("0123456789abcdef" * 5)[:n]
        for before in range(9):
            assert as_dict("é" * before + " " + word + " x").keys() == {
                peer_index(part) for part in ("é" * before, word, "x")
            }


@given(st.lists(st.integers(0, spark.N_FEATURES - 1), min_size=1, unique=True), st.integers(0, 20), st.integers(0, 99))
@settings(deadline=None)
def test_min_hashes_are_the_formula(indices, tables, seed):
    expected = [min(((1 + i) * a + b) % 2038074743 for i in indices) for a, b in spark.coefficients(tables, seed)]
    assert spark.min_hashes(np.array(indices, dtype=np.uint32), tables, seed).tolist() == expected


def test_weights_of_another_size_are_refused():
    with pytest.raises(AssertionError, match="shape"):
        spark.weigh("a", np.zeros(10))
