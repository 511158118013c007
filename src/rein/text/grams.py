"""Words, grams, and finding them: what a text has in common with test and dev sets.

Flow     texts of examples → `gather` → `Grams`, a table
         text, tables → `find` → which grams stand where

A gram is n words that follow each other. A word is lower case, delimited by white space, without punctuation:

    letters, marks, numbers (Unicode L, M, N)   stay; lower case by the Unicode simple mapping, character by character
    format characters (Cf: soft hyphens, …)     vanish, or an invisible character would hide a quotation
    everything else, "_" and U+200B included    is as good as a space: "don't" and "don t" are the same two words

OpenAI's published grams read "don t" and "u s government", so punctuation became a space there, too. Text without
spaces between words (Chinese, Japanese, Thai) has a "word" per clause, so that only long quotations are found.

Words are hashed with a rolling polynomial of 64 bits. Nothing is found because hashes are equal: the words are
compared.

Source   Brown 2020, Appendix C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
import numpy.typing as npt

from rein.compiled import compiled, splitmix64
from rein.text.store import load_arrays, save_arrays

FORMAT = "rein-grams"
FORMAT_VERSION = 1
_ARRAYS = ("words", "hashes", "starts", "ends", "set_starts", "set_ids")

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Characters = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

_SEPARATOR, _IGNORED, _SPACE = 0, 1, 32
_CHARACTER_BASE, _BASE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1342543DE82EF95)  # of words, of grams
_fast = compiled()


# ------------------------------------------------------------------------------------------------------ words


def normalise(text: str) -> str:
    """The words of a text as they are compared, one space between them.

    Example  >>> normalise("Don't  STOP—the U.S.\\ngovernment_said: \\u201cÉté!\\u201d")
             'don t stop the u s government said été'
    """
    return _text_of(_normalised(_characters(text), _lower())[:-1])


@cache
def _lower() -> Characters:
    """What each code point becomes: its lower case, or that it separates words, or that it vanishes."""
    lower = np.full(0x110000, _SEPARATOR, dtype=np.uint32)
    for code in range(0x110000):
        kind = category(character := chr(code))
        if kind[0] in "LMN":
            # The one letter whose lower case is two characters, İ, becomes the first of them.
            lower[code] = ord(character.lower()[0])
        elif kind == "Cf" and code != 0x200B:  # the zero-width space does stand between words
            lower[code] = _IGNORED
    return lower


def _characters(text: str) -> npt.NDArray[Any]:
    """The code points, so that positions in the array are positions in the text."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _text_of(characters: Characters) -> str:
    return characters.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


@_fast
def _normalised(characters: npt.NDArray[Any], lower: Characters) -> Characters:
    """The words in lower case, a space behind each; one space where there is no word."""
    out = np.empty(len(characters) + 1, dtype=np.uint32)
    length, in_word = 0, False
    for character in characters:
        low = lower[character]
        if low > _IGNORED:
            out[length] = low
            length, in_word = length + 1, True
        elif low == _SEPARATOR and in_word:
            out[length] = _SPACE
            length, in_word = length + 1, False
    if in_word or length == 0:
        out[length] = _SPACE
        length += 1
    return out[:length].copy()


@_fast
def _words(characters: npt.NDArray[Any], lower: Characters) -> tuple[Ints, Ints, Hashes]:
    """Where each word begins and ends, and its hash."""
    most = (len(characters) + 1) // 2
    starts, ends = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    hashes = np.empty(most, dtype=np.uint64)
    n_words, in_word, end = 0, False, 0
    word_hash = np.uint64(0)
    for at in range(len(characters)):
        low = lower[characters[at]]
        if low > _IGNORED:
            if not in_word:
                starts[n_words] = at
                word_hash, in_word = np.uint64(0), True
            word_hash = word_hash * _CHARACTER_BASE + np.uint64(low)
            end = at + 1
        elif low == _SEPARATOR and in_word:
            ends[n_words], hashes[n_words] = end, splitmix64(word_hash)
            n_words, in_word = n_words + 1, False
    if in_word:
        ends[n_words], hashes[n_words] = end, splitmix64(word_hash)
        n_words += 1
    return starts[:n_words], ends[:n_words], hashes[:n_words]


@_fast
def _gram_hashes(word_hashes: Hashes, n: int) -> Hashes:
    """The hash of every n words that follow each other, each from the one before it.

    Σ_i word_i · b^(n − 1 − i), mixed
    """
    base, power = _BASE, np.uint64(1)
    for _ in range(n):
        power *= base
    out = np.empty(max(len(word_hashes) - n + 1, 0), dtype=np.uint64)
    rolling = np.uint64(0)
    for word in range(len(word_hashes)):
        rolling = rolling * base + word_hashes[word]
        if word >= n:
            rolling -= word_hashes[word - n] * power
        if word >= n - 1:
            out[word - n + 1] = splitmix64(rolling)
    return out


# ------------------------------------------------------------------------------------------------------ grams


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A test or dev set: how many examples it has, and how many of them are too short to have a gram."""

    name: str
    examples: int
    short_examples: int


@dataclass(frozen=True, slots=True, eq=False)
class Grams:
    """The distinct grams of evaluation sets. What `count` and `clean` call the index of a gram is its row here.

    The table is sorted by hash; different words with one hash have a row each. `words` is the normalised text of all
    examples, a space behind each word.

    Shapes   hashes, starts, ends (G,): gram g is words[starts[g] : ends[g]]; set_starts (G + 1,): it is in the sets
             set_ids[set_starts[g] : set_starts[g + 1]]; bits: one bit for each value of the first bits of a hash.
    Units    memory: some 40 bytes per gram, and 4 bytes per character of the examples.
    """

    n: int
    sets: tuple[EvaluationSet, ...]
    words: Characters
    hashes: Hashes
    starts: Ints
    ends: Ints
    set_starts: Ints
    set_ids: npt.NDArray[np.int32]
    bits: Hashes

    def __len__(self) -> int:
        return len(self.hashes)

    def text(self, gram: int) -> str:
        """The words of a gram.

        Example  >>> gather([("toy", [["To be,", "or not"]])], n=4).text(0)
                 'to be or not'
        """
        return _text_of(self.words[self.starts[gram] : self.ends[gram]])

    def sets_of(self, gram: int) -> list[int]:
        """In which of `sets` a gram is."""
        ids: list[int] = self.set_ids[self.set_starts[gram] : self.set_starts[gram + 1]].tolist()
        return ids

    def short_notes(self) -> list[str]:
        """What no gram protects, a line per set that has such examples.

        Example  >>> gather([("toy", [["To be, or not"], ["To be"]])], n=4).short_notes()
                 ['toy: 1 of 2 examples is shorter than 4 words']
        """
        return [
            f"{one.name}: {one.short_examples:,} of {one.examples:,} examples "
            f"{'is' if one.short_examples == 1 else 'are'} shorter than {self.n} words"
            for one in self.sets
            if one.short_examples
        ]

    def save(self, path: Path) -> None:
        """Writes the grams into an .npz file, which nothing but numbers is read from.

        Raises   UserError when it cannot be written.
        """
        header = {"n": self.n, "sets": [[one.name, one.examples, one.short_examples] for one in self.sets]}
        save_arrays(path, FORMAT, FORMAT_VERSION, header, {name: getattr(self, name) for name in _ARRAYS})

    @staticmethod
    def load(path: Path) -> Grams:
        """The grams that `save` wrote.

        Raises   UserError when the file is missing, or is not such a file.
        """
        header, arrays = load_arrays(path, FORMAT, FORMAT_VERSION, _ARRAYS, "the grams of evaluation sets")
        words, hashes, starts, ends, set_starts, set_ids = arrays
        sets = tuple(EvaluationSet(*one) for one in header["sets"])
        return Grams(header["n"], sets, words, hashes, starts, ends, set_starts, set_ids, _bits(hashes))


def gather(sets: Iterable[tuple[str, Iterable[Sequence[str]]]], n: int = 13) -> Grams:
    """The grams of evaluation sets: (name, examples), an example being its text fields.

    The fields of an example are joined in order, so its grams are those of each field and those that cross from
    one into the next, as from a question into its answer.

    Example  >>> grams = gather([("toy", [["Who was it?", "It was he."], ["Short."]])], n=4)
             >>> sorted(grams.text(gram) for gram in range(len(grams)))
             ['it it was he', 'was it it was', 'who was it it']
             >>> grams.sets
             (EvaluationSet(name='toy', examples=2, short_examples=1),)
    """
    lower = _lower()
    described: list[EvaluationSet] = []
    words, n_characters = [np.zeros(0, dtype=np.uint32)], 0
    hashes, starts, ends, set_ids = _Column(np.uint64), _Column(np.int64), _Column(np.int64), _Column(np.int32)
    for name, examples in sets:
        n_examples, n_short = 0, 0
        for fields in examples:
            example = _normalised(_characters("\n".join(fields)), lower)
            word_starts, word_ends, word_hashes = _words(example, lower)
            n_examples += 1
            if len(word_hashes) < n:
                n_short += 1
                continue
            hashes.extend(_gram_hashes(word_hashes, n))
            starts.extend(word_starts[: len(word_starts) - n + 1] + n_characters)
            ends.extend(word_ends[n - 1 :] + n_characters)
            set_ids.extend(np.full(len(word_hashes) - n + 1, len(described), dtype=np.int32))
            words.append(example)
            n_characters += len(example)
        described.append(EvaluationSet(name, n_examples, n_short))
    all_words = np.concatenate(words)
    return _table_of(n, tuple(described), all_words, hashes.all(), starts.all(), ends.all(), set_ids.all())


class _Column:
    """An array that grows by arrays."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._parts: list[npt.NDArray[Any]] = [np.zeros(0, dtype=dtype)]

    def extend(self, part: npt.NDArray[Any]) -> None:
        self._parts.append(part)

    def all(self) -> npt.NDArray[Any]:
        return np.concatenate(self._parts)


def _table_of(
    n: int,
    sets: tuple[EvaluationSet, ...],
    words: Characters,
    hashes: Hashes,
    starts: Ints,
    ends: Ints,
    set_ids: npt.NDArray[np.int32],
) -> Grams:
    """Occurrences, some of them of the same gram, as a table of distinct grams."""
    order = np.argsort(hashes, kind="stable")
    hashes, starts, ends, set_ids = hashes[order], starts[order], ends[order], set_ids[order]
    grams, firsts = _distinct(hashes, starts, ends, words)
    in_sets = np.unique(np.stack([grams, set_ids.astype(np.int64)], axis=1), axis=0)
    return Grams(
        n,
        sets,
        words,
        hashes[firsts],
        starts[firsts],
        ends[firsts],
        set_starts=np.searchsorted(in_sets[:, 0], np.arange(len(firsts) + 1)).astype(np.int64),
        set_ids=in_sets[:, 1].astype(np.int32),
        bits=_bits(hashes[firsts]),
    )


@_fast
def _distinct(hashes: Hashes, starts: Ints, ends: Ints, words: Characters) -> tuple[Ints, Ints]:
    """Of occurrences sorted by hash: which gram each is, and the occurrence that stands for each gram."""
    grams = np.empty(len(hashes), dtype=np.int64)
    firsts = np.empty(len(hashes), dtype=np.int64)
    n_grams, first_of_hash = 0, 0
    for at in range(len(hashes)):
        if at > 0 and hashes[at] != hashes[at - 1]:
            first_of_hash = n_grams
        gram = first_of_hash
        while gram < n_grams and not _same_slices(
            words, starts[at], ends[at], starts[firsts[gram]], ends[firsts[gram]]
        ):
            gram += 1  # other words of the same hash
        if gram == n_grams:
            firsts[gram] = at
            n_grams += 1
        grams[at] = gram
    return grams, firsts[:n_grams].copy()


@_fast
def _same_slices(words: Characters, start: int, end: int, other_start: int, other_end: int) -> bool:
    if end - start != other_end - other_start:
        return False
    for at in range(end - start):  # noqa: SIM110 (compiled)
        if words[start + at] != words[other_start + at]:
            return False
    return True


def _bits(hashes: Hashes) -> Hashes:
    """A bit set for each hash, found by the hash's first bits: most of other texts' grams end here.

    With 16 bits or more per gram, one in 16 of the others at most goes on to the table.
    """
    n_first = max(6, (16 * len(hashes)).bit_length())
    bits = np.zeros(1 << (n_first - 6), dtype=np.uint64)
    _set_bits(bits, hashes, n_first)
    return bits


@_fast
def _set_bits(bits: Hashes, hashes: Hashes, n_first: int) -> None:
    for value in hashes:
        first = value >> np.uint64(64 - n_first)
        bits[first >> np.uint64(6)] |= np.uint64(1) << (first & np.uint64(63))


# ---------------------------------------------------------------------------------------------------- finding


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Tables of grams that are searched together: where no gram of any begins is seen from `n` words alone."""

    n: int  # no more than the n of each table
    bits: Hashes  # as `Grams.bits`, of the first n words of all grams
    tables: tuple[Grams, ...]

    @staticmethod
    def of(*tables: Grams) -> Group:
        """A group of tables, that of the smallest n first."""
        n = tables[0].n
        if len(tables) == 1:
            return Group(n, tables[0].bits, tables)
        begins = np.unique(np.concatenate([_hashes_of_first(grams.words, grams.starts, n) for grams in tables]))
        return Group(n, _bits(begins), tables)


def grouped(tables: Sequence[Grams]) -> list[Group]:
    """Tables in groups in which no n is twice another, so that a search of all costs little more than of a few.

    Example  >>> tables = [gather([("toy", [["to be or not to be that is"]])], n) for n in (2, 3, 4, 8)]
             >>> [[table.n for table in group.tables] for group in grouped(tables)]
             [[2, 3], [4], [8]]
    """
    groups: list[list[Grams]] = []
    for grams in sorted(tables, key=lambda grams: grams.n):
        if not groups or grams.n >= 2 * groups[-1][0].n:
            groups.append([])
        groups[-1].append(grams)
    return [Group.of(*some) for some in groups]


def find(text: str, groups: Sequence[Group]) -> list[Ints]:
    """Every gram of some tables in a text, table by table. The words are cut once for all.

    Shapes   for each table (H, 3) int64: gram, start and end of each, in the order of the text.
    Example  >>> pairs, triples = gather([("toy", [["be or not"]])], n=2), gather([("toy", [["be or not"]])], n=3)
             >>> [len(hits) for hits in find("To be, or not to be", grouped([pairs, triples]))]
             [2, 1]
    """
    characters, lower = _characters(text), _lower()
    starts, ends, word_hashes = _words(characters, lower)
    hits = []
    for group in groups:
        gram_hashes = _gram_hashes(word_hashes, group.n)
        alone = len(group.tables) == 1
        places = None if alone else _may_begin(gram_hashes, group.bits)
        for grams in group.tables:
            of_places = gram_hashes if places is None else _hashes_at(word_hashes, places, grams.n)
            found = _look_up(of_places, grams.bits, grams.hashes)
            if not len(found):
                hits.append(_NO_HITS)
                continue
            if places is not None:
                found[:, 0] = places[found[:, 0]]
            table = grams.hashes, grams.words, grams.starts
            hits.append(_verified(found, characters, lower, starts, ends, grams.n, *table))
    return hits


_NO_HITS = np.zeros((0, 3), dtype=np.int64)


@_fast
def _hashes_of_first(words: Characters, starts: Ints, n: int) -> Hashes:
    """The hash of the first n words from each start."""
    out = np.empty(len(starts), dtype=np.uint64)
    for row in range(len(starts)):
        at, rolling = starts[row], np.uint64(0)
        for _ in range(n):
            word_hash = np.uint64(0)
            while words[at] != _SPACE:
                word_hash = word_hash * _CHARACTER_BASE + np.uint64(words[at])
                at += 1
            rolling, at = rolling * _BASE + splitmix64(word_hash), at + 1
        out[row] = splitmix64(rolling)
    return out


@_fast
def _shift(bits: Hashes) -> np.uint64:
    """What leaves the number of a hash's bit."""
    shift, n = 58, len(bits)
    while n > 1:
        shift, n = shift - 1, n >> 1
    return np.uint64(shift)


@_fast
def _may_begin(hashes: Hashes, bits: Hashes) -> Ints:
    """Which of the hashes have their bit."""
    shift = _shift(bits)
    places = np.empty(len(hashes), dtype=np.int64)
    n_places = 0
    for place in range(len(hashes)):
        first = hashes[place] >> shift
        if (bits[first >> np.uint64(6)] >> (first & np.uint64(63))) & np.uint64(1) != np.uint64(0):
            places[n_places] = place
            n_places += 1
    return places[:n_places].copy()


@_fast
def _hashes_at(word_hashes: Hashes, places: Ints, n: int) -> Hashes:
    """The hash of the n words that begin at each of some ascending places, up to the first that has fewer behind it."""
    out = np.empty(len(places), dtype=np.uint64)
    n_out = 0
    while n_out < len(places) and places[n_out] + n <= len(word_hashes):
        rolling = np.uint64(0)
        for word in range(places[n_out], places[n_out] + n):
            rolling = rolling * _BASE + word_hashes[word]
        out[n_out] = splitmix64(rolling)
        n_out += 1
    return out[:n_out]


@_fast
def _look_up(gram_hashes: Hashes, bits: Hashes, hashes: Hashes) -> Ints:
    """(F, 2): which of the hashes are in the table, and the first row that has it."""
    shift = _shift(bits)
    found = np.empty((16, 2), dtype=np.int64)
    n_found = 0
    for word in range(len(gram_hashes)):
        value = gram_hashes[word]
        first = value >> shift
        if (bits[first >> np.uint64(6)] >> (first & np.uint64(63))) & np.uint64(1) == np.uint64(0):
            continue
        low, high = 0, len(hashes)
        while low < high:
            middle = (low + high) // 2
            if hashes[middle] < value:
                low = middle + 1
            else:
                high = middle
        if low < len(hashes) and hashes[low] == value:
            if n_found == len(found):
                longer = np.empty((2 * n_found, 2), dtype=np.int64)
                longer[:n_found] = found
                found = longer
            found[n_found, 0], found[n_found, 1] = word, low
            n_found += 1
    return found[:n_found]


@_fast
def _verified(
    found: Ints,
    characters: npt.NDArray[Any],
    lower: Characters,
    word_starts: Ints,
    word_ends: Ints,
    n: int,
    hashes: Hashes,
    words: Characters,
    gram_starts: Ints,
) -> Ints:
    """(H, 3): of the hashes found, those whose words are a gram's, too."""
    out = np.empty((len(found), 3), dtype=np.int64)
    n_out = 0
    for row in range(len(found)):
        start, end = word_starts[found[row, 0]], word_ends[found[row, 0] + n - 1]
        gram = found[row, 1]
        value = hashes[gram]
        while gram < len(hashes) and hashes[gram] == value:
            if _same_words(characters[start:end], lower, words[gram_starts[gram] :]):
                out[n_out, 0], out[n_out, 1], out[n_out, 2] = gram, start, end
                n_out += 1
                break
            gram += 1
    return out[:n_out].copy()


@_fast
def _same_words(characters: npt.NDArray[Any], lower: Characters, words: Characters) -> bool:
    """Whether the characters, normalised, are what `words` begins with, and a word ends there."""
    at, between = 0, False
    for character in characters:
        low = lower[character]
        if low == _IGNORED:
            continue
        if low == _SEPARATOR:
            between = True
            continue
        if between:
            if words[at] != _SPACE:
                return False
            at, between = at + 1, False
        if at >= len(words) or words[at] != low:
            return False
        at += 1
    return bool(words[at] == _SPACE)
