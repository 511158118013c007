"""Byte-pair encoding in plain Python: the module to learn it from, and the one the fast ones are tested against.

Training counts how often each word occurs, then repeats one step: take the pair of neighbouring symbols that
occurs most often, and make it one new symbol wherever it occurs. The list of pairs, in that order, is the
vocabulary. Encoding replays the list: in a word, the pair that was learned first is merged first.

Words are tuples of integers. With the base symbols 0 = l, 1 = o, 2 = w, 3 = e, 4 = r and 5 = s, the text
"low low low lower slow slow" holds these words:

    >>> words = {(0, 1, 2): 3, (0, 1, 2, 3, 4): 1, (5, 0, 1, 2): 2}

(0, 1) and (1, 2) both occur 6 times; of equals, the pair with the smaller numbers wins and becomes 6 = lo.
Then (6, 2) occurs 6 times and becomes 7 = low, and (5, 7) twice, which becomes 8 = slow:

    >>> learn_merges(words, n_base=6, n_merges=3)
    [(0, 1), (6, 2), (5, 7)]
    >>> encode_word((5, 0, 1, 2, 3, 4), {(0, 1): 6, (6, 2): 7, (5, 7): 8})      # slower: slow, e, r
    [8, 3, 4]

Only ties are left open by the idea, and trainers differ there and nowhere else. Both rules in use pick the
smallest pair of ids; what differs is how the 256 bytes are numbered (`ties`):

    "huggingface"      in the order of GPT-2's ids, printable bytes first (Hugging Face tokenizers)
    "raw_token_ids"    by their value (rustbpe, tiktoken's educational trainer)

Counts are Python integers and never overflow; trainers written in Rust keep them in 32 bits.

Source   Sennrich, Haddow and Birch 2016, §3.2, for the idea; Radford 2019, §2.2, for bytes.
Differs  GPT-2's own trainer was never released: its merges can be loaded, not reproduced.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import regex  # type: ignore[import-untyped]

from rein.bpe.alphabet import BYTE_ORDER, PATTERN

Pair = tuple[int, int]
Ties = Literal["huggingface", "raw_token_ids"]


def learn_merges(words: Mapping[tuple[int, ...], int], n_base: int, n_merges: int) -> list[Pair]:
    """The `n_merges` best pairs, best first; fewer where every word has become one symbol.

    `words` maps each word to how often it occurs. Merge i makes the new symbol `n_base + i`.

    The pairs wait in a heap, the most frequent on top. A merge lowers the counts of pairs around it without
    looking for them in the heap: an entry may be stale, which shows when it comes to the top, and it is put
    back with its true count. A new pair always holds the new symbol, so no waiting entry is ever too low.
    """
    sequences = [list(word) for word in words]
    frequencies = list(words.values())
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair → the sequences it has occurred in
    for index, sequence in enumerate(sequences):
        for pair in pairwise(sequence):
            counts[pair] += frequencies[index]
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)

    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        negative, pair = heapq.heappop(heap)
        count = counts[pair]
        if count <= 0:
            continue
        if count != -negative:
            heapq.heappush(heap, (-count, pair))
            continue
        new = n_base + len(merges)
        merges.append(pair)
        born: set[Pair] = set()
        for index in where.pop(pair):
            old = sequences[index]
            merged = merge_pair(old, pair, new)
            for gone in pairwise(old):
                counts[gone] -= frequencies[index]
            for here in pairwise(merged):
                counts[here] += frequencies[index]
                if new in here:
                    where[here].add(index)
                    born.add(here)
            sequences[index] = merged
        for fresh in born:
            heapq.heappush(heap, (-counts[fresh], fresh))
    return merges


def merge_pair(symbols: Sequence[int], pair: Pair, new: int) -> list[int]:
    """`symbols` with every `pair`, from left to right, replaced by `new`.

    Example  >>> merge_pair([1, 1, 1, 2], (1, 1), 9)
             [9, 1, 2]
    """
    merged: list[int] = []
    position = 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            merged.append(new)
            position += 2
        else:
            merged.append(symbols[position])
            position += 1
    return merged


def encode_word(symbols: Sequence[int], new_symbol: Mapping[Pair, int]) -> list[int]:
    """One word's symbols, merged as far as the vocabulary goes.

    `new_symbol` maps a pair to what it becomes. Symbols are numbered as they were learned, so the smallest
    new symbol is the merge to make next.
    """
    symbols = list(symbols)
    while len(symbols) > 1:
        pairs = [pair for pair in pairwise(symbols) if pair in new_symbol]
        if not pairs:
            break
        first = min(pairs, key=new_symbol.__getitem__)
        symbols = merge_pair(symbols, first, new_symbol[first])
    return symbols


# ------------------------------------------------------------------------------------------- on GPT-2's bytes


def split(text: str) -> list[str]:
    """GPT-2's pieces of a text; put together again they give the text.

    Example  >>> split("it's 10  dogs!")
             ['it', "'s", ' 10', ' ', ' dogs', '!']
    """
    return [piece.group() for piece in regex.finditer(PATTERN, text)]


def count_words(texts: Iterable[str]) -> Counter[bytes]:
    """How often each piece occurs. Counts of several parts of a corpus may be added up."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split(text))
    return Counter({piece.encode(): count for piece, count in counts.items()})


def train(words: Mapping[bytes, int], n_merges: int, ties: Ties = "huggingface") -> list[tuple[bytes, bytes]]:
    """Learns `n_merges` merges of bytes from counted pieces; fewer where the words support no more.

    Example  >>> train({b"low": 3, b"lower": 1, b"slow": 2}, n_merges=3)
             [(b'l', b'o'), (b'lo', b'w'), (b's', b'low')]
    """
    order = BYTE_ORDER if ties == "huggingface" else range(256)
    id_of = {byte: id for id, byte in enumerate(order)}
    tokens = [bytes([byte]) for byte in order]
    merges = []
    for left, right in learn_merges(
        {tuple(id_of[byte] for byte in word): count for word, count in words.items()}, 256, n_merges
    ):
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return merges


def numbered(merges: Sequence[tuple[bytes, bytes]]) -> dict[Pair, int]:
    """Merges of bytes as pairs of ids and what they become, under GPT-2's numbering: merge i makes 256 + i."""
    id_of = {bytes([byte]): id for id, byte in enumerate(BYTE_ORDER)}
    new_symbol: dict[Pair, int] = {}
    for left, right in merges:
        id_of[left + right] = new_symbol[id_of[left], id_of[right]] = 256 + len(new_symbol)
    return new_symbol


def encode(text: str, new_symbol: Mapping[Pair, int]) -> list[int]:
    """A text's ids, given the merges as `numbered` gives them.

    Example  >>> encode("slower", numbered([(b"l", b"o"), (b"lo", b"w"), (b"s", b"low")]))    # slow, e, r
             [258, 68, 81]
    """
    id_of = {byte: id for id, byte in enumerate(BYTE_ORDER)}
    ids: list[int] = []
    for piece in split(text):
        ids += encode_word([id_of[byte] for byte in piece.encode()], new_symbol)
    return ids
