"""What near-duplicates have in common: texts as sets of five-word shingles, MinHash signatures, and band keys.

Flow     texts → `shingle_sets` → `Sets` → `set_keys` → keys, some for each text. Two texts that share a key may
         be near-duplicates; `rein.text.duplicates` finds those pairs and compares their sets.

    word        a maximal run of characters that match \\w in the lower-cased text
    shingle     a 64-bit hash of five consecutive words; a text of fewer words is one shingle of them all
    signature   one-permutation MinHash: a shingle h falls into bin h mod 128, and each bin keeps its smallest
                h >> 32. An empty bin borrows from a filled one, which hashes of (bin, attempt) choose
    band key    a 64-bit hash of the band's number and its 7 values of the signature

Two sets of Jaccard similarity J agree in a value with probability J, so they share one of 18 keys of 7 values
with probability 1 − (1 − J⁷)¹⁸: .13 at J = .5, .986 at .8, .99999 at .9. (16 keys of 8 are as common, and miss one
pair in twenty at .8; to compare a few more sets exactly costs little beside making them.) A text
without words has an empty set and no key: it is like no other.

Source   Broder 1997, shingles; Li, Owen & Zhang 2012, one permutation; Shrivastava 2017, how empty bins are filled.
Differs  Brown 2020, App. A, has sets of words and 10 keys of one value: `set_keys` is not for that, `band_keys` is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rein.compiled import compiled, splitmix64

SHINGLE_WORDS = 5
N_HASHES = 128
BANDS, ROWS = 18, 7
NO_KEY = 0  # in place of the keys of an empty set

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.integer]
Bytes = npt.NDArray[np.uint8]

_fast = compiled(error_model="numpy")

_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x00000100000001B3)  # FNV-1a, 64 bits
# 3 modulo 8: then Bᵏ − 1 has at most 4 factors of 2 for k ≤ 4, and exchanged words keep 60 bits of difference.
_WORD_BASE = np.uint64(0x9E3779B97F4A7C1B)
_BAND_STEP = np.uint64(0xD6E8FEB86659FD93)
_NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)  # in an empty bin; a value has 32 bits
_32 = np.uint64(32)


class Sets(NamedTuple):
    """Many sets of integers in two arrays, which may be memory maps.

    Shapes   values (n_values,) of any integer type; offsets (n_sets + 1,) int64: set i is
             values[offsets[i] : offsets[i + 1]], ascending and without repetition.
    """

    values: Integers
    offsets: npt.NDArray[np.int64]

    def row(self, index: int) -> Integers:
        """The set number `index`."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]


def shingles(text: str, n: int = SHINGLE_WORDS) -> Hashes:
    """The set of hashes of `n` consecutive words, ascending; of all words where there are fewer than `n`.

    Example  >>> len(shingles("A rose is a rose is a rose."))  # of its 4 shingles, the first comes twice
             3
             >>> (shingles("The cat, the DOG") == shingles("the cat the dog")).all()
             np.True_
             >>> len(shingles("— … —"))
             0
    """
    return shingle_sets([text], n).values.astype(np.uint64, copy=False)


def shingle_sets(texts: Sequence[str], n: int = SHINGLE_WORDS) -> Sets:
    """The shingles of each text. Most of the time goes into the scan of the bytes, a tenth into sorting.

    Example  >>> shingle_sets(["to be or not to be", "", "to be"]).offsets.tolist()
             [0, 2, 2, 3]
    """
    assert n > 0, f"shingles of {n} words"
    # The compiled scan lowers ASCII; for the rest only Python's lower() is Python's lower().
    encoded = [(text if text.isascii() else text.lower()).encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(part) for part in encoded], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    # At most every second byte begins a word. What is not written to takes no memory, so that nothing is copied.
    values = np.empty(len(data) // 2 + len(encoded), dtype=np.uint64)
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    _scan(data, ends, *_word_tables(), n, values, offsets)
    # numpy's sort is vectorised by hand, several times faster than one compiled here.
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        values[start:end].sort()
    n_values = _drop_repeated(values, offsets)
    return Sets(values[:n_values], offsets)


def signature(hashes: Hashes, n_hashes: int = N_HASHES) -> npt.NDArray[np.uint32]:
    """The one-permutation MinHash of a set: two sets agree in a value with the probability of their Jaccard.

    Shapes   hashes (k,) as `shingles` gives them, k > 0; returns (n_hashes,) uint32.
    Example  >>> a, b = np.arange(0, 900, dtype=np.uint64), np.arange(100, 1000, dtype=np.uint64)
             >>> a, b = (np.sort(_mix_each(numbers)) for numbers in (a, b))  # J = 800 / 1000
             >>> (signature(a) == signature(b)).mean()
             np.float64(0.796875)
    """
    assert len(hashes), "an empty set has no signature"
    bins = np.empty(n_hashes, dtype=np.uint64)
    _sign(hashes, bins, np.empty(n_hashes, dtype=np.bool_))
    return bins.astype(np.uint32)


def band_keys(values: Integers, bands: int = BANDS, rows: int = ROWS) -> Hashes:
    """Hashes of the bands of a signature: band i is its values i·rows … (i + 1)·rows − 1, with i hashed in.

    Shapes   values (≥ bands·rows,), non-negative; returns (bands,) uint64, none of them `NO_KEY`.
    """
    assert len(values) >= bands * rows, f"{len(values)} values for {bands} bands of {rows}"
    keys = np.empty(bands, dtype=np.uint64)
    _hash_bands(values.astype(np.uint64), rows, keys)
    return keys


def set_keys(sets: Sets, bands: int = BANDS, rows: int = ROWS) -> Hashes:
    """The band keys of the signatures of sets of shingles.

    Shapes   returns (n_sets, bands) uint64; `NO_KEY` where a set is empty.
    """
    assert bands * rows <= N_HASHES, f"{bands} bands of {rows} need more than {N_HASHES} hashes"
    assert sets.values.dtype == np.uint64, f"{sets.values.dtype} are no hashes, so their smallest ones are no sample"
    keys = np.full((len(sets.offsets) - 1, bands), NO_KEY, dtype=np.uint64)
    _keys_of_sets(np.asarray(sets.values, dtype=np.uint64), np.asarray(sets.offsets), N_HASHES, rows, keys)
    return keys


# -------------------------------------------------------------------------------------------------- compiled


@lru_cache(maxsize=1)
def _word_tables() -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """What `\\w` says: ASCII bytes in lower case, 0 for those it refuses; and whether it takes a code point."""
    everything = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    is_word = np.zeros(0x110000, dtype=np.bool_)
    for match in re.finditer(r"\w+", everything):
        is_word[match.start() : match.end()] = True
    lowered = np.zeros(256, dtype=np.uint8)
    lowered[:128] = np.frombuffer(bytes(range(128)).lower(), dtype=np.uint8) * is_word[:128]
    return lowered, is_word


@_fast
def _mix_each(numbers: Hashes) -> Hashes:
    out = np.empty_like(numbers)
    for i in range(len(numbers)):
        out[i] = splitmix64(numbers[i])
    return out


@_fast
def _scan(
    data: Bytes,
    ends: npt.NDArray[np.int64],
    lowered: Bytes,
    is_word: npt.NDArray[np.bool_],
    n: int,
    values: Hashes,
    offsets: npt.NDArray[np.int64],
) -> None:
    """Writes the shingles of every text, in their order and with repetitions, and where each text's begin."""
    i, out = 0, 0
    for text in range(len(ends)):
        first = out
        in_word, h = False, _FNV_OFFSET
        while i < ends[text]:
            byte = data[i]
            low = lowered[byte]
            if low:
                h = (h ^ np.uint64(low)) * _FNV_PRIME
                in_word = True
                i += 1
                continue
            n_bytes = 1
            if byte >= 0x80:
                if byte < 0xE0:
                    n_bytes, point = 2, byte & 0x1F
                elif byte < 0xF0:
                    n_bytes, point = 3, byte & 0x0F
                else:
                    n_bytes, point = 4, byte & 0x07
                for j in range(i + 1, i + n_bytes):
                    point = point << 6 | (data[j] & 0x3F)
                if is_word[point]:
                    for j in range(i, i + n_bytes):
                        h = (h ^ np.uint64(data[j])) * _FNV_PRIME
                    in_word = True
                    i += n_bytes
                    continue
            i += n_bytes
            if in_word:
                values[out] = splitmix64(h)
                out += 1
                in_word, h = False, _FNV_OFFSET
        if in_word:
            values[out] = splitmix64(h)
            out += 1
        # In place: shingle k is written where word k was, and reads the words from k on.
        n_words = min(n, out - first)
        if n_words:
            out -= n_words - 1
        for k in range(first, out):
            h = np.uint64(0)
            for word in range(k, k + n_words):
                h = h * _WORD_BASE + values[word]
            values[k] = splitmix64(h)
        offsets[text + 1] = out


@_fast
def _drop_repeated(values: Hashes, offsets: npt.NDArray[np.int64]) -> int:
    """Leaves one of equal neighbours in every sorted set, in place; returns how many values remain."""
    out, start = 0, 0
    for row in range(len(offsets) - 1):
        end = offsets[row + 1]
        first = out
        for i in range(start, end):
            if out == first or values[i] != values[out - 1]:
                values[out] = values[i]
                out += 1
        start, offsets[row + 1] = end, out
    return out


@_fast
def _sign(hashes: Hashes, bins: Hashes, filled: npt.NDArray[np.bool_]) -> None:
    n = len(bins)
    bins[:] = _NOTHING
    n_empty = n
    for h in hashes:
        place = h % np.uint64(n)
        if bins[place] == _NOTHING:  # hashes ascend, so the first one in a bin is its smallest
            bins[place] = h >> _32
            n_empty -= 1
            if n_empty == 0:
                return
    for i in range(n):
        filled[i] = bins[i] != _NOTHING
    for i in range(n):
        attempt = np.uint64(0)
        while bins[i] == _NOTHING:
            attempt += np.uint64(1)
            lender = splitmix64(np.uint64(i) << _32 | attempt) % np.uint64(n)
            if filled[lender]:
                bins[i] = bins[lender]


@_fast
def _hash_bands(values: Hashes, rows: int, keys: Hashes) -> None:
    for band in range(len(keys)):
        h = np.uint64(band + 1) * _BAND_STEP
        for i in range(band * rows, (band + 1) * rows):
            h = splitmix64(h ^ values[i])
        keys[band] = max(h, np.uint64(NO_KEY + 1))


@_fast
def _keys_of_sets(values: Hashes, offsets: npt.NDArray[np.int64], n_hashes: int, rows: int, keys: Hashes) -> None:
    bins, filled = np.empty(n_hashes, dtype=np.uint64), np.empty(n_hashes, dtype=np.bool_)
    for row in range(len(offsets) - 1):
        if offsets[row] < offsets[row + 1]:
            _sign(values[offsets[row] : offsets[row + 1]], bins, filled)
            _hash_bands(bins, rows, keys[row])
