"""Merging one word in n log n steps, for words of any length: base64, a run of one letter, a whole DNA string.

It gives exactly what `oracle.encode_word` gives, which looks at every pair again after every merge.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise

from rein.bpe.oracle import Pair

_GONE = -1


def merge_word(symbols: Sequence[int], new_symbol: Mapping[Pair, int]) -> list[int]:
    """One word's symbols, merged as far as the vocabulary goes; `new_symbol` maps a pair to what it becomes.

    Possible merges wait in a heap, the one learned first on top, the leftmost of equals first. Neighbours are
    linked by position, so a merge is two links and at most two new entries; an entry whose pair is no longer
    there is passed over. A merge only makes pairs that were learned after it, so this order is the order of
    the vocabulary.

    Example  >>> merge_word([1, 1, 1, 2], {(1, 1): 3, (3, 1): 4, (4, 2): 5})
             [5]
    """
    here = list(symbols)
    after = [*range(1, len(here)), _GONE]
    before = list(range(-1, len(here) - 1))
    heap = [(new_symbol[pair], position) for position, pair in enumerate(pairwise(here)) if pair in new_symbol]
    heapq.heapify(heap)
    while heap:
        new, left = heapq.heappop(heap)
        right = after[left]
        if right == _GONE or new_symbol.get((here[left], here[right])) != new:
            continue
        here[left], here[right] = new, _GONE
        after[left] = after[right]
        after[right] = _GONE
        if after[left] != _GONE:
            before[after[left]] = left
        for start, end in ((before[left], left), (left, after[left])):
            if start != _GONE and end != _GONE and (made := new_symbol.get((here[start], here[end]))) is not None:
                heapq.heappush(heap, (made, start))
    return [symbol for symbol in here if symbol != _GONE]
