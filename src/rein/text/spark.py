"""Words, features and MinHash as Apache Spark's, bit for bit, without Spark.

GPT-3's quality classifier and fuzzy de-duplication stand on three classes of Spark's machine-learning library:

    Tokenizer    lower case, then a cut at every single white-space character
    HashingTF    a word's feature is its MurmurHash3 modulo 2¹⁸, the feature's value how often it occurs
    MinHashLSH   per table, the smallest of ((1 + i)·a + b) mod 2038074743 over a document's features i

`words`, `murmur3` and `feature` are the definition, to read and to test against. What the pipeline calls is compiled:
one pass over a text's UTF-8 bytes, which lower-cases, cuts, hashes and adds up, and keeps nothing of it.

Flow     text → `features`: indices and counts → `min_hashes`, or a classifier's training
         text, weights → `weigh`: the sum of the weights of its words

Source   Brown 2020, App. A ("Spark's standard tokenizer and HashingTF", "MinHashLSH implementation with 10 hashes");
         Spark's Tokenizer, HashingTF, MinHashLSH and Murmur3_x86_32; `java.util.Random` and `String.split`.
Differs  In Greek capitals only: whether a Σ ends its word (ς or σ) Java asks its own word breaker and Python asks
         Unicode's rule. They differ where a hyphen, colon, underscore or digit stands inside the word.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import numpy.typing as npt

from rein.compiled import compiled

N_FEATURES = 1 << 18  # HashingTF's default
HASH_PRIME = 2038074743  # MinHashLSH's
MURMUR_SEED = 42  # HashingTF's

Indices = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.uint32]
Weights = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
LowerCase = npt.NDArray[np.int32]

_SPACE = re.compile(r"[ \t\n\v\f\r]")  # Java's \s; U+00A0 and the like are parts of words
# Capitals younger than Unicode 13, the one of Java 17. Left alone, they give the same features on every Python.
_YOUNG = re.compile(
    "([\u1c89\u2c2f\ua7c0\ua7cb-\ua7f4\U00010570-\U00010595\U00010d50-\U00010d65\U00016ea0-\U00016eb8])"
)
_LAST_CASED = 0x1E921  # no later character has a lower case in Unicode 13


# ------------------------------------------------------------------------------------------ the definition, to read


def lower(text: str) -> str:
    """`text.lower()`, but with the letters of Unicode 13, as Java 17.

    Example  >>> lower("ΟΔΟΣ İ K")
             'οδος i̇ k'
    """
    if text.isascii():
        return text.lower()
    return "".join(part if _YOUNG.match(part) else part.lower() for part in _YOUNG.split(text))


def words(text: str) -> list[str]:
    """Spark's Tokenizer: words may be empty, except at the end.

    Example  >>> words(" Hello  world\\n"), words(""), words("   ")
             (['', 'hello', '', 'world'], [''], [])
    """
    parts = _SPACE.split(lower(text))
    if len(parts) > 1:
        while parts and not parts[-1]:
            parts.pop()
    return parts


def murmur3(data: bytes, seed: int = MURMUR_SEED) -> int:
    """MurmurHash3_x86_32, unsigned.

    Example  >>> murmur3(b"hello", 0)
             613153351
    """
    value, end = seed, len(data) & ~3
    for at in range(0, end, 4):
        value ^= _scrambled(int.from_bytes(data[at : at + 4], "little"))
        value = (_rotated(value, 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    value ^= _scrambled(int.from_bytes(data[end:], "little")) ^ len(data)
    value = ((value ^ value >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ value >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    return value ^ value >> 16


def _scrambled(block: int) -> int:
    return _rotated(block * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF


def _rotated(value: int, by: int) -> int:
    return (value << by | value >> 32 - by) & 0xFFFFFFFF


def feature(word: str) -> int:
    """HashingTF's index of a word, in 0 … 2¹⁸ − 1.

    Spark takes the signed hash by floor modulo; 2¹⁸ divides 2³², so the sign changes nothing.

    Example  >>> [feature(word) for word in ("", "hello", "world", "中文")]
             [249180, 250593, 60080, 175232]
    """
    return murmur3(word.encode()) % N_FEATURES


def next_ints(seed: int, bound: int, count: int) -> list[int]:
    """The first `count` of `new java.util.Random(seed).nextInt(bound)`; `bound` is no power of two.

    Example  >>> next_ints(42, 10, 5)
             [0, 3, 8, 4, 0]
    """
    state = (seed ^ 0x5DEECE66D) % 2**48
    drawn: list[int] = []
    while len(drawn) < count:
        state = (state * 0x5DEECE66D + 0xB) % 2**48
        bits = state >> 17
        if bits - bits % bound + bound <= 2**31:  # else the last, incomplete multiple of `bound`: draw again
            drawn.append(bits % bound)
    return drawn


def coefficients(tables: int, seed: int) -> tuple[tuple[int, int], ...]:
    """(a, b) of each of MinHashLSH's tables.

    Example  >>> coefficients(2, 42)
             ((1562431131, 117392763), (1467211249, 102948884))
    """
    drawn = next_ints(seed, HASH_PRIME - 1, 2 * tables)
    return tuple((1 + a, b) for a, b in zip(drawn[::2], drawn[1::2], strict=True))


# ------------------------------------------------------------------------------------------------- what is called


def features(text: str) -> tuple[Indices, Counts]:
    """The features of a text, and how often each occurs.

    Shapes   indices (n,), ascending, no two alike; counts (n,). n is 0 for a text of white space only.
    Example  >>> [part.tolist() for part in features("the the cat")]
             [[95889, 141363], [2, 1]]
    Raises   UnicodeEncodeError for a lone surrogate, which `documents.fault` keeps out of documents.
    """
    found = _indices(*_input(text))
    found.sort()
    return _runs(found)


def weigh(text: str, weights: Weights) -> float:
    """Σ of the weights of a text's words, each time they occur: the product of its features and `weights`.

    Shapes   weights (2¹⁸,) float64.
    Raises   UnicodeEncodeError as `features` does.
    """
    assert weights.shape == (N_FEATURES,), f"weights are of shape {weights.shape}, not ({N_FEATURES},)"
    return float(_weigh(*_input(text), weights))


def min_hashes(indices: Indices, tables: int, seed: int) -> npt.NDArray[np.int64]:
    """MinHashLSH's signature of a text's features: texts that agree in table t are candidates by table t.

    Shapes   indices (n,), at least one; returns (tables,).
    Example  >>> min_hashes(features("the the cat")[0], 3, 42).tolist()
             [726111680, 163506896, 548148316]
    """
    assert len(indices), "a text without words has no MinHash; Spark refuses it too"
    return _min_hashes(indices, _pairs(tables, seed))


@cache
def _pairs(tables: int, seed: int) -> npt.NDArray[np.int64]:
    return np.array(coefficients(tables, seed), dtype=np.int64).reshape(tables, 2)


def _input(text: str) -> tuple[Bytes, LowerCase]:
    if "Σ" in text or "İ" in text:  # lower case that depends on neighbours, or is two characters
        text = lower(text)
    return np.frombuffer(text.encode(), dtype=np.uint8), _lower_case()


@cache
def _lower_case() -> LowerCase:
    """Code point → code point of its lower case."""
    table = np.arange(_LAST_CASED + 1, dtype=np.int32)
    for code in range(_LAST_CASED + 1):
        if not 0xD800 <= code < 0xE000 and chr(code) != "İ":
            table[code] = ord(lower(chr(code)))
    return table


# ------------------------------------------------------------------------------------------------------- compiled
#
# Eight bytes are one number, least significant first, so most words are a single load. Text is first made lower case,
# with every white space as " " and more of them behind the end: then a word ends at the first byte equal to " ".

_fast = compiled(error_model="numpy")

_PAD_BYTES = 16
_LOW = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_SPACES = np.uint64(0x2020202020202020)
_BYTE_OF_BIT = np.uint64(0x0001020304050607)
_0, _1, _3, _7, _8, _32, _56 = (np.uint64(number) for number in (0, 1, 3, 7, 8, 32, 56))


@_fast
def _lowered(data: Bytes, lower_case: LowerCase) -> tuple[Bytes, np.uint64]:
    """Lower-cased, padded copy of UTF-8 bytes, and its length without the padding."""
    n = np.uint64(len(data))
    # A lower case may be longer than its capital, by one byte on two: Ⱥ is 2 bytes, ⱥ is 3.
    out = np.empty(len(data) + len(data) // 2 + _PAD_BYTES, dtype=np.uint8)
    at, end = _0, _0
    while at < n:
        byte = data[at]
        if byte < 0x80:
            run = at
            while run < n and data[run] < 0x80:
                run += _1
            for i in range(run - at):
                byte = data[at + i]
                byte += np.uint8(32) * np.uint8(np.uint8(byte - np.uint8(65)) < np.uint8(26))
                out[end + i] = np.uint8(32) if np.uint8(byte - np.uint8(9)) < np.uint8(5) else byte
            end += run - at
            at = run
            continue
        if byte < 0xE0:
            code = (byte & 0x1F) << 6 | data[at + _1] & 0x3F
            at += np.uint64(2)
        elif byte < 0xF0:
            code = (byte & 0x0F) << 12 | (data[at + _1] & 0x3F) << 6 | data[at + np.uint64(2)] & 0x3F
            at += _3
        else:
            code = (byte & 0x07) << 18 | (data[at + _1] & 0x3F) << 12
            code |= (data[at + np.uint64(2)] & 0x3F) << 6 | data[at + _3] & 0x3F
            at += np.uint64(4)
        if code < len(lower_case):
            code = lower_case[code]
        if code < 0x80:
            out[end] = code
            end += _1
        elif code < 0x800:
            out[end] = 0xC0 | code >> 6
            out[end + _1] = 0x80 | code & 0x3F
            end += np.uint64(2)
        elif code < 0x10000:
            out[end] = 0xE0 | code >> 12
            out[end + _1] = 0x80 | code >> 6 & 0x3F
            out[end + np.uint64(2)] = 0x80 | code & 0x3F
            end += _3
        else:
            out[end] = 0xF0 | code >> 18
            out[end + _1] = 0x80 | code >> 12 & 0x3F
            out[end + np.uint64(2)] = 0x80 | code >> 6 & 0x3F
            out[end + _3] = 0x80 | code & 0x3F
            end += np.uint64(4)
    for i in range(_PAD_BYTES):
        out[end + np.uint64(i)] = 32
    return out, end


@_fast
def _scramble(block: np.uint32) -> np.uint32:
    block = np.uint32(block * np.uint32(0xCC9E2D51))
    block = np.uint32(np.uint32(block << np.uint32(15)) | np.uint32(block >> np.uint32(17)))
    return np.uint32(block * np.uint32(0x1B873593))


@_fast
def _mix(value: np.uint32, block: np.uint32) -> np.uint32:
    value = np.uint32(value ^ _scramble(block))
    value = np.uint32(np.uint32(value << np.uint32(13)) | np.uint32(value >> np.uint32(19)))
    return np.uint32(value * np.uint32(5) + np.uint32(0xE6546B64))


@_fast
def _eight(buffer: Bytes, at: np.uint64) -> np.uint64:
    number = np.uint64(buffer[at])
    for i in range(_1, _8):
        number |= np.uint64(buffer[at + i]) << (_8 * i)
    return number


@_fast
def _next_word(buffer: Bytes, start: np.uint64) -> tuple[np.uint32, np.uint64]:
    """The feature of the word that begins at `start`, and where it ends."""
    value, at = np.uint32(MURMUR_SEED), start
    while True:
        block = _eight(buffer, at)
        differs = block ^ _SPACES
        # The lowest high bit that is set here marks the first byte that is a space; above it, bits may be wrong.
        marks = (differs - _LOW) & ~differs & _HIGH
        if marks != _0:
            break
        value = _mix(_mix(value, np.uint32(block)), np.uint32(block >> _32))
        at += _8
    left = (((marks & (~marks + _1)) >> _7) * _BYTE_OF_BIT) >> _56
    end = at + left
    if left > _3:
        value = _mix(value, np.uint32(block))
        block >>= _32
        left -= np.uint64(4)
    value ^= _scramble(np.uint32(block & ((_1 << (_8 * left)) - _1)))
    value ^= np.uint32(end - start)
    value = np.uint32((value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    value = np.uint32((value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32((value ^ (value >> np.uint32(16))) & np.uint32(N_FEATURES - 1)), end


_EMPTY_WORD = np.uint32(feature(""))


@_fast
def _weigh(data: Bytes, lower_case: LowerCase, weights: Weights) -> float:
    if len(data) == 0:
        return float(weights[_EMPTY_WORD])
    buffer, n = _lowered(data, lower_case)
    total, start, empty = 0.0, _0, 0
    while start < n:
        index, end = _next_word(buffer, start)
        if end == start:
            empty += 1
        else:
            total += weights[index] + empty * weights[_EMPTY_WORD]
            empty = 0  # those at the end of the text are never added
        start = end + _1
    return total


@_fast
def _indices(data: Bytes, lower_case: LowerCase) -> Indices:
    if len(data) == 0:
        return np.full(1, _EMPTY_WORD, dtype=np.uint32)
    buffer, n = _lowered(data, lower_case)
    found = np.empty(n + _1, dtype=np.uint32)
    start, count, last = _0, 0, 0
    while start < n:
        index, end = _next_word(buffer, start)
        found[count] = index
        count += 1
        if end != start:
            last = count
        start = end + _1
    return found[:last].copy()


@_fast
def _runs(ascending: Indices) -> tuple[Indices, Counts]:
    """The different numbers of an ascending array, and how often each occurs."""
    n = 0
    numbers, counts = np.empty_like(ascending), np.empty_like(ascending)
    for number in ascending:
        if n > 0 and numbers[n - 1] == number:
            counts[n - 1] += np.uint32(1)
        else:
            numbers[n], counts[n] = number, 1
            n += 1
    return numbers[:n].copy(), counts[:n].copy()


@_fast
def _min_hashes(indices: Indices, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    out = np.empty(len(pairs), dtype=np.int64)
    for table in range(len(pairs)):
        a, b = pairs[table]
        least = np.int64(HASH_PRIME)
        for index in indices:
            least = min(least, ((1 + np.int64(index)) * a + b) % HASH_PRIME)
        out[table] = least
    return out
