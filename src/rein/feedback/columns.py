"""The answers to a question as columns, sorted by item: what of them changes is put in the place of what was.

Flow     rows of table answer → `Answers` → those of a few items, those that are chosen, with new ones put in
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.feedback.project import Question

Array = npt.NDArray[Any]

NONE = -1  # of a column of small numbers: not known, or not so
NOTHING = -2  # of `choice`, where -1 is neither
# Of a kind whose answers are many numbers: those of one answer, candidate by candidate.
SPREAD: dict[str, Callable[[Mapping[str, Any], Question], list[float]]] = {
    "rating": lambda value, question: value["ratings"],
    "ranking": lambda value, question: value["ranks"],
    "likert": lambda value, question: [
        each.get(axis, np.nan) for each in value["axes"] for axis in question.axes
    ],
    "flags": lambda value, question: [
        float(flag in each) for each in value["flags"] for flag in question.flags
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """The answers to one question, sorted by item: columns of table `answer`, one entry each answer.

    `who` is the person's place in `Judgements.people`. `last` says whether it is the person's last word on the item in
    this turn, which only an imported one may not be. `values` (N, W) is what SPREAD makes of an answer, NaN where
    there is nothing, as wide as the widest answer; None for other kinds.
    """

    question: Question
    assignment: Array
    seq: Array
    item: Array
    who: Array
    turn: Array
    choice: Array  # NOTHING where there is none
    points: Array  # NaN where there are none
    left: Array  # of left, longer and active_ms NONE is: not known
    longer: Array
    active_ms: Array
    at_ms: Array
    values: Array | None
    last: Array

    @cached_property
    def starts(self) -> Array:
        """Where each item's answers begin."""
        return np.flatnonzero(np.append(True, self.item[1:] != self.item[:-1])[: len(self.item)])

    @cached_property
    def items(self) -> Array:
        """The items that have an answer, by id."""
        found: Array = self.item[self.starts]
        return found

    @cached_property
    def at(self) -> Array:
        """Of each answer, the place of its item in `items`."""
        each = np.diff(np.append(self.starts, len(self)))
        return np.repeat(np.arange(len(each), dtype=np.int32), each)

    def of(self, chosen: Array) -> Answers:
        """Those that are chosen, in their order."""
        return self if chosen.all() else self.of_order(np.flatnonzero(chosen))

    def of_items(self, ids: Array) -> Answers:
        """Those of a few items, whose ids are sorted."""
        return self.of_order(ranges(np.searchsorted(self.item, ids), np.searchsorted(self.item, ids, "right")))

    def of_order(self, places: Array) -> Answers:
        """Those at these places, in the order of the places, by which items stay together."""
        chosen: dict[str, Any] = {name: each[places] for name, each in self.arrays().items()}
        return dataclasses.replace(self, **chosen)

    def arrays(self) -> dict[str, Array]:
        """The columns by name."""
        columns = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: each for name, each in columns.items() if isinstance(each, np.ndarray)}

    def with_new(self, new: Answers, changed: Array) -> Answers:
        """These answers, but of the changed items the new ones. Long parts are copied whole."""
        ends = [np.searchsorted(each.item, changed, side) for each in (self, new) for side in ("left", "right")]
        cuts = list(zip(*(each.tolist() for each in ends), strict=True))
        columns = {name: (each, getattr(new, name)) for name, each in self.arrays().items()}
        if self.values is not None and new.values is not None:
            columns["values"] = _as_wide(self.values, new.values)
        together: dict[str, Any] = {}
        for name, (held, fresh) in columns.items():
            parts, start = [], 0
            for low, high, first, last in cuts:
                parts += [held[start:low], fresh[first:last]]
                start = high
            together[name] = np.concatenate([*parts, held[start:]])
        if self.values is not None:
            together["values"] = narrow(together["values"], self.question)
        return dataclasses.replace(self, **together)

    def __len__(self) -> int:
        return len(self.item)


def ranges(low: Array, high: Array) -> Array:
    """All whole numbers from each low to its high.

    Example  >>> ranges(np.array([1, 7]), np.array([3, 8])).tolist()
             [1, 2, 7]
    """
    each = high - low
    return np.repeat(low - np.cumsum(each) + each, each) + np.arange(int(each.sum()))


def among(values_N: Array, sorted_M: Array) -> Array:
    """Which values are among a few sorted ones; np.isin sorts the many."""
    if not len(sorted_M):
        return np.zeros(len(values_N), dtype=bool)
    found: Array = sorted_M[np.minimum(np.searchsorted(sorted_M, values_N), len(sorted_M) - 1)] == values_N
    return found


def united(parts: list[Array]) -> Array:
    """Each value of sorted parts once, sorted."""
    if parts and all(np.array_equal(each, parts[0]) for each in parts[1:]):
        return parts[0]
    together = np.sort(np.concatenate([*parts, np.zeros(0, np.int64)]), kind="stable")  # quick where parts are sorted
    found: Array = together[np.append(True, together[1:] != together[:-1])[: len(together)]]
    return found


def last_words(rows: Mapping[str, Array]) -> Array:
    """Of rows that are sorted by item, whether each is the person's last one of its turn."""
    last = np.ones(len(rows["seq"]), dtype=bool)
    if (rows["assignment"] < 0).any():  # else the store holds one of each person for an item and a turn
        order = np.lexsort((rows["seq"], rows["turn"], rows["who"], rows["item"]))
        again = np.ones(len(order) - 1, dtype=bool)
        for name in ("item", "who", "turn"):
            again &= rows[name][order[1:]] == rows[name][order[:-1]]
        last[order[:-1][again]] = False
    return last


def narrow(values_NW: Array, question: Question) -> Array:
    """Without the last candidates of whom nothing is said: as wide after an undo as if it had never been."""
    step = {"likert": len(question.axes), "flags": len(question.flags)}.get(question.kind, 1)
    width = values_NW.shape[1]
    while width and np.isnan(values_NW[:, width - step : width]).all():
        width -= step
    return values_NW[:, :width]


def _as_wide(a_NW: Array, b_NW: Array) -> tuple[Array, Array]:
    """Both as wide as the wider one, NaN behind."""
    width = max(a_NW.shape[1], b_NW.shape[1])
    wide = [np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=np.nan) for each in (a_NW, b_NW)]
    return wide[0], wide[1]
