"""Who writes where, when many queries are continued many times each: places that sequences take and leave.

Flow     queries and how often each is to be continued → groups of places, each behind one query that is read once
         → which places are given a token in the next step → a place whose sequence has ended takes another

Plain bookkeeping: generate.py makes the tokens, cache.py keeps what was read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from rein.models.cache import Cache, Ints
from rein.models.gpt import GPT
from rein.models.rows import batches

_READ_AT_ONCE_TOKENS = 8192


def best_width(longest_query: int, max_new_tokens: int, most: int) -> int:
    """How many places share a query, up to `most`: many where queries are long, few where answers are.

    A step reads the keys of a query once for all W places, but multiplies each place with the keys of all:
    L / W · read + W · R / 2 · multiply, at its least where W = √(2 L · read / (R · multiply)). On the CPUs measured,
    to read a key costs 6 times as much as to multiply it.

    Example  >>> best_width(64, 32, 16), best_width(512, 48, 16), best_width(16, 512, 16)
             (5, 11, 1)
    """
    return max(1, min(most, round(math.sqrt(12 * longest_query / max_new_tokens))))


class Reader:
    """Reads queries into groups, and keeps the state behind each: what foretells its first new token."""

    def __init__(self, model: GPT, queries: Sequence[Sequence[int]], cache: Cache) -> None:
        self._model, self._queries, self._cache = model, queries, cache
        self.behind_GD = torch.zeros(0)

    def read(self, groups: list[int], queries: list[int]) -> None:
        """Reads these queries into these groups, those of like lengths together."""
        device = self._model.wte.device
        for some in batches([len(self._queries[query]) for query in queries], _READ_AT_ONCE_TOKENS):
            ids = [self._queries[queries[n]] for n in some]
            lengths_N = np.array([len(each) for each in ids])
            tokens_NT = np.zeros((len(ids), lengths_N.max()), dtype=np.int64)
            for row, each in enumerate(ids):
                tokens_NT[row, : len(each)] = each
            groups_N = np.array([groups[n] for n in some])
            self._cache.read(groups_N, lengths_N)
            x_NTD, _ = self._model.states(torch.from_numpy(tokens_NT).to(device), self._cache)
            if not len(self.behind_GD):
                self.behind_GD = x_NTD.new_zeros(self._cache.groups, x_NTD.shape[2])
            rows_N = torch.arange(len(ids), device=device)
            self.behind_GD[torch.from_numpy(groups_N).to(device)] = x_NTD[
                rows_N, torch.from_numpy(lengths_N - 1).to(device)
            ]

    def copy(self, sources: list[int], targets: list[int], *, written: bool = False) -> None:
        """Has queries in other groups too, with what was `written` behind them or without."""
        sources_N, targets_N = np.array(sources), np.array(targets)
        self._cache.copy(sources_N, targets_N, written=written)
        device = self.behind_GD.device
        self.behind_GD[torch.from_numpy(targets_N).to(device)] = self.behind_GD[torch.from_numpy(sources_N).to(device)]


class Places:
    """Who writes where: groups of `width` places, each group behind one query, at most `slots` of them at a time.

    There are as many groups as fit where `slots` sequences would fit that share nothing.
    """

    def __init__(self, lengths: Sequence[int], samples: Sequence[int], *, slots: int, width: int, R: int) -> None:
        self._slots, self.width = slots, width
        longest = max(lengths)
        fit = slots * (longest + R) // (longest + width * R)
        wanted = sum(-(-n // width) for n in samples)
        self.groups = max(1, min(fit, wanted, slots if width == 1 else 2 * -(-slots // width)))
        self._query_G = [-1] * self.groups  # what a group has read, until it reads another
        self.sequence_P = np.full(self.groups * width, -1, dtype=np.int64)  # −1: free
        self.index_P = np.zeros_like(self.sequence_P)  # tokens written
        self.last_P = np.zeros_like(self.sequence_P)  # the newest of them
        self._left, self._next = list(samples), (np.cumsum(samples) - samples).tolist()
        # The longest first: those of like lengths are read and written together.
        self._unread = sorted((q for q, n in enumerate(samples) if n), key=lambda q: (-lengths[q], q))[::-1]

    def fill(self, reader: Reader) -> bool:
        """Gives free places to sequences that wait; False when all is written."""
        free = self._slots - int((self.sequence_P >= 0).sum())
        for group in range(self.groups):
            free -= self._begin(group, free)
        if 8 * free >= self._slots:  # a few together, not each alone: reading costs a pass
            self._take_more(reader, free)
        busy_G = (self.sequence_P.reshape(self.groups, self.width) >= 0).any(axis=1)
        if not self._unread and not any(self._left):
            self._close_up(reader, np.flatnonzero(busy_G))
        return bool(busy_G.any())

    def _take_more(self, reader: Reader, free: int) -> None:
        """Puts queries into the groups that nothing is written in: new ones; then those that most is left of."""
        reads: list[int] = []
        sources: list[int] = []
        targets: list[int] = []
        # Of a query that something is left of, all groups are full by now: none of them is idle.
        home = {query: group for group, query in enumerate(self._query_G)}
        for group in range(self.groups):
            if not free or not (self._unread or any(self._left)):
                break
            if (self._of(group) >= 0).any():
                continue
            if self._unread:
                query = self._unread.pop()
                home[query] = group
                reads.append(group)
            else:
                query = int(np.argmax(self._left))
                sources.append(home[query])
                targets.append(group)
            self._query_G[group] = query
            free -= self._begin(group, free)
        if reads:
            reader.read(reads, [self._query_G[group] for group in reads])
        if targets:
            reader.copy(sources, targets)

    def _close_up(self, reader: Reader, busy: Ints) -> None:
        """Once nothing waits: moves what is left to the first groups when half are idle, for a step reads all."""
        if not len(busy) or 2 * len(busy) > busy[-1] + 1:
            return
        sources = busy[busy >= len(busy)]
        targets = np.setdiff1d(np.arange(len(busy)), busy)
        reader.copy(sources.tolist(), targets.tolist(), written=True)
        for kept_P in (self.sequence_P, self.index_P, self.last_P):
            kept_GW = kept_P.reshape(self.groups, self.width)
            kept_GW[targets] = kept_GW[sources]
        self.sequence_P.reshape(self.groups, self.width)[sources] = -1

    def _of(self, group: int) -> Ints:
        return self.sequence_P[group * self.width : (group + 1) * self.width]

    def _begin(self, group: int, free: int) -> int:
        """Begins sequences in the free places of a group; returns how many."""
        query = self._query_G[group]
        if query < 0 or not self._left[query] or not free:
            return 0
        places = group * self.width + np.flatnonzero(self._of(group) < 0)[: min(free, self._left[query])]
        self.sequence_P[places] = self._next[query] + np.arange(len(places))
        self.index_P[places] = 0
        self._left[query] -= len(places)
        self._next[query] += len(places)
        return len(places)

    def going(self) -> tuple[Ints, Ints]:
        """The places in which something is written: those with a newest token, and those without one yet."""
        place_B = np.flatnonzero(self.sequence_P >= 0)
        begun_B = self.index_P[place_B] > 0
        return place_B[begun_B], place_B[~begun_B]

    def wrote(self, place_B: Ints, ids_B: Ints, ended_B: npt.NDArray[np.bool_]) -> None:
        """One more token in each of these places; those that have ended are free."""
        self.index_P[place_B] += 1
        self.last_P[place_B] = ids_B
        self.sequence_P[place_B[ended_B]] = -1
