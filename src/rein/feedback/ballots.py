"""What answers of any kind say, as votes that can agree: which of two is better, which value an output has.

Flow     `Answers` → `aspects` → for each thing that is asked, `Ballot`s: a code for each answer
         ballots, who is counted → `Tally` of each code at each item → agreeing pairs of them all

A comparison is one ballot on an item; a ranking is one on each two of its candidates, with the codes 0 and 1 for the
better one, and 2 for neither. A rating, an axis and a flag are one on each candidate, with the value as the code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.feedback.columns import NOTHING, Answers, ranges

Array = npt.NDArray[Any]

MISSING = -1
VOTE_POINTS = 10  # of a comparison: 1 to 9, and 0 for none
NEITHER = 2  # of two candidates


@dataclass(frozen=True)
class Ballot:
    """One vote of each answer. Shapes   code_N: from 0 to codes − 1, MISSING where an answer says nothing of it."""

    code_N: Array


@dataclass(frozen=True)
class Aspect:
    """One thing that is asked, with its ballots; `shape` is choice, scale or flag. With `tie`, the last code is one."""

    name: str
    shape: str
    codes: int
    ballots: tuple[Ballot, ...] = ()
    tie: bool = False

    @property
    def strict(self) -> int:
        """Codes that are no tie."""
        return self.codes - self.tie


# What `points_of` counts; the choice has been compared before.
POINTS = Aspect("points", "scale", 9)


def aspects(answers: Answers, best: int = 0) -> list[Aspect]:
    """What an answer to this question can agree about with another; nothing, where people write.

    best   of many candidates, the highest number that is chosen in other answers which these are counted with
    """
    question, kind = answers.question, answers.question.kind
    if kind == "comparison":
        code_N = np.where(answers.choice == -1, NEITHER, answers.choice)
        return [Aspect("choice", "choice", 3, (Ballot(_known(code_N, answers.choice)),), tie=True)]
    if kind == "best_of":
        codes = max(int(answers.choice.max(initial=best)) + 1, 2)
        return [Aspect("best", "choice", codes, (Ballot(_known(answers.choice, answers.choice)),))]
    values_NW = answers.values
    if values_NW is None:
        return []
    if kind == "ranking":
        return [Aspect("order", "choice", 3, _pairs(-values_NW), tie=True)]
    if kind == "rating":
        found = [Aspect("rating", "scale", question.points, _columns(values_NW - 1, question.points))]
        return [*_order(values_NW), *found]
    if kind == "likert":
        n = len(question.axes)
        found = [
            Aspect(axis, "scale", question.points, _columns(values_NW[:, a::n] - 1, question.points))
            for a, axis in enumerate(question.axes)
        ]
        overall = question.axes.index("overall") if "overall" in question.axes else None
        return [*(_order(values_NW[:, overall::n]) if overall is not None else []), *found]
    assert kind == "flags", f"the values of kind {kind} have no votes"
    n = len(question.flags)
    return [Aspect(flag, "flag", 2, _columns(values_NW[:, f::n], 2)) for f, flag in enumerate(question.flags)]


def _order(marks_NK: Array) -> list[Aspect]:
    """Which of each two candidates has the higher mark; nothing of one alone."""
    return [Aspect("order", "choice", 3, _pairs(marks_NK), tie=True)] if marks_NK.shape[1] > 1 else []


def comparison_votes(answers: Answers) -> Aspect:
    """A comparison's choice and points as one vote, so that all that is asked of the two is counted at once."""
    choice_N = np.where(answers.choice == -1, NEITHER, answers.choice)
    points_N = np.rint(np.nan_to_num(answers.points)).astype(np.int8)  # 0: none
    code_N = _known(choice_N * VOTE_POINTS + points_N, answers.choice)
    return Aspect("votes", "joint", 3 * VOTE_POINTS, (Ballot(code_N),))


def choice_of(votes: Tally) -> Tally:
    """The choices of `comparison_votes`: 0, 1, NEITHER."""
    return _folded(votes, np.arange(3 * VOTE_POINTS) // VOTE_POINTS, 3)


def points_of(votes: Tally) -> Tally:
    """The points of `comparison_votes`, from 0 for the first to 8 for the last."""
    return _folded(votes, np.arange(3 * VOTE_POINTS) % VOTE_POINTS - 1, VOTE_POINTS - 1)


def _folded(votes: Tally, code_J: Array, codes: int) -> Tally:
    """Votes that are counted as fewer codes; -1 for those that are not counted."""
    fold_JV = (code_J[:, None] == np.arange(codes)).astype(np.int64)
    return replace(votes, labelers_BPV=votes.labelers_BPV @ fold_JV, researchers_BPV=votes.researchers_BPV @ fold_JV)


def _known(code_N: Array, choice_N: Array) -> Array:
    found: Array = np.where(choice_N == NOTHING, MISSING, code_N).astype(np.int8)
    return found


def _columns(values_NK: Array, codes: int) -> tuple[Ballot, ...]:
    near_NK = np.clip(np.rint(np.nan_to_num(values_NK)), 0, codes - 1)
    code_NK = np.where(np.isnan(values_NK), MISSING, near_NK).astype(np.int8)
    return tuple(Ballot(code_N) for code_N in code_NK.T)


def _pairs(marks_NK: Array) -> tuple[Ballot, ...]:
    """Which of each two has the higher mark."""
    width = marks_NK.shape[1]
    found = []
    for i in range(width):
        for j in range(i + 1, width):
            a_N, b_N = marks_NK[:, i], marks_NK[:, j]
            code_N = np.select([np.isnan(a_N) | np.isnan(b_N), a_N > b_N, a_N < b_N], [MISSING, 0, 1], NEITHER)
            found.append(Ballot(code_N.astype(np.int8)))
    return tuple(found)


# ------------------------------------------------------------------------------------------------- counting


@dataclass(frozen=True)
class Tally:
    """How many gave each code, by item. Items that are alike are counted once, as a pattern: a million have a few.

    Shapes   labelers_BPV, researchers_BPV: ballot, pattern, code; weight_P: how many items have it; key_P: what tells
             patterns apart, sorted; pattern_I: which one an item has, of those that were counted.
    """

    labelers_BPV: Array
    researchers_BPV: Array
    weight_P: Array
    key_P: Array
    pattern_I: Array

    def changed(self, less: Tally, more: Tally) -> Tally:
        """With the items of `less` taken off and those of `more` put on; which item has which pattern is not kept."""
        parts = (self, less, more)
        weights = (self.weight_P, -less.weight_P, more.weight_P)
        key_P, weight_P, first = _summed(np.concatenate([each.key_P for each in parts]), np.concatenate(weights))
        labelers_BPV, researchers_BPV = (
            np.concatenate([getattr(each, name) for each in parts], axis=1)[:, first]
            for name in ("labelers_BPV", "researchers_BPV")
        )
        return Tally(labelers_BPV, researchers_BPV, weight_P, key_P, np.zeros(0, np.int64))


@dataclass(frozen=True)
class Pile:
    """How often each of some numbers came. Shapes   key_P: the numbers, sorted; weight_P: how often, 1 or more."""

    key_P: Array
    weight_P: Array

    def changed(self, less: Pile, more: Pile) -> Pile:
        """With the numbers of `less` taken off and those of `more` put on."""
        weights = (self.weight_P, -less.weight_P, more.weight_P)
        return Pile(*_summed(np.concatenate([each.key_P for each in (self, less, more)]), np.concatenate(weights))[:2])


def pile(key_N: Array) -> Pile:
    """Counts numbers.

    Example  >>> pile(np.array([5, 3, 5])).changed(pile(np.array([5, 3])), pile(np.array([9]))).key_P.tolist()
             [5, 9]
    """
    return Pile(*np.unique(key_N.astype(np.int64), return_counts=True))


def _summed(key_M: Array, weight_M: Array) -> tuple[Array, Array, Array]:
    """Each key once with the sum of its weights, without those whose sum is 0; and where it stands first."""
    key_P, first, place = np.unique(key_M, return_index=True, return_inverse=True)
    weight_P = np.zeros(len(key_P), np.int64)
    np.add.at(weight_P, place, weight_M)
    kept = weight_P != 0
    return key_P[kept], weight_P[kept], first[kept]


def tally(aspect: Aspect, at_N: Array, researcher_N: Array) -> Tally:
    """Counts the ballots of answers that are sorted by item; `at` is 0 for the first one, and goes up by one.

    An item's answers are added up as random 64-bit numbers, one for each ballot, group and code: equal sums are equal
    counts, but for a chance of one in a thousand million among a million items.
    """
    ballots, codes = len(aspect.ballots), aspect.codes
    if not len(at_N) or not ballots:
        nothing, none = np.zeros((ballots, 0, max(codes, 1)), np.int64), np.zeros(0, np.int64)
        return Tally(nothing, nothing, none, none.astype(np.uint64), none)
    signs = np.random.default_rng(0).integers(0, 2**64, (ballots, 2, codes + 1), dtype=np.uint64)
    signs[:, :, codes] = 0  # of no answer
    group_N = researcher_N.astype(np.int8)
    key_N = np.zeros(len(at_N), np.uint64)
    for ballot, sign in zip(aspect.ballots, signs, strict=True):
        place_N = group_N.astype(np.int16) * (codes + 1)
        place_N += np.where(ballot.code_N == MISSING, codes, ballot.code_N)
        key_N += sign.ravel()[place_N]
    starts = np.flatnonzero(np.append(True, at_N[1:] != at_N[:-1]))
    key_P, first, pattern_I, weight_P = np.unique(
        np.add.reduceat(key_N, starts), return_index=True, return_inverse=True, return_counts=True
    )
    rows = ranges(starts[first], np.append(starts, len(at_N))[first + 1])
    place, group = pattern_I[at_N[rows]], group_N[rows].astype(np.int64)
    found = np.zeros((2, ballots, len(weight_P), codes), np.int64)
    for b, ballot in enumerate(aspect.ballots):
        code = ballot.code_N[rows]
        said = code != MISSING
        key = (group[said] * len(weight_P) + place[said]) * codes + code[said]
        found[:, b] = np.bincount(key, minlength=2 * len(weight_P) * codes).reshape(2, -1, codes)
    return Tally(found[0], found[1], weight_P, key_P, pattern_I)


def within(counts_UV: Array, *, near: bool = False) -> tuple[Array, Array]:
    """Of the pairs within one group, at each item: those that agree, and all. `near` values are neighbours.

    Example  >>> [each.tolist() for each in within(np.array([[2, 1], [1, 1]]))]
             [[1, 0], [3, 1]]
    """
    all_U = counts_UV.sum(-1)
    agree_U = (counts_UV * (counts_UV - 1) // 2).sum(-1)
    if near:
        agree_U = agree_U + (counts_UV[..., :-1] * counts_UV[..., 1:]).sum(-1)
    return agree_U, all_U * (all_U - 1) // 2


def across(a_UV: Array, b_UV: Array, *, near: bool = False) -> tuple[Array, Array]:
    """Of the pairs of one from each group, at each item: those that agree, and all.

    Example  >>> [each.tolist() for each in across(np.array([[2, 1]]), np.array([[0, 1]]))]
             [[1], [3]]
    """
    agree_U = (a_UV * b_UV).sum(-1)
    if near:
        agree_U = agree_U + (a_UV[..., :-1] * b_UV[..., 1:]).sum(-1) + (a_UV[..., 1:] * b_UV[..., :-1]).sum(-1)
    return agree_U, a_UV.sum(-1) * b_UV.sum(-1)


def with_others(aspect: Aspect, at_N: Array, others_BPV: Array, pattern_I: Array) -> tuple[Array, Array]:
    """For each answer: how many of the others at its item it agrees with, and of how many.

    Ties are left out; values on a scale agree within one. `others` are counts of a tally that the answer is not in.
    """
    agree_N, all_N = np.zeros(len(at_N), np.int64), np.zeros(len(at_N), np.int64)
    answered_P = others_BPV.sum((0, 2)) > 0
    if not len(answered_P):
        return agree_N, all_N
    rows = np.flatnonzero(answered_P[pattern_I][at_N])
    pattern = pattern_I[at_N[rows]]
    for ballot, counts_PV in zip(aspect.ballots, others_BPV, strict=True):
        strict_P, code = counts_PV[:, : aspect.strict].sum(1), ballot.code_N[rows]
        said = (code != MISSING) & (code < aspect.strict)
        same = counts_PV[pattern, code]
        if aspect.shape == "scale":
            near_PV = np.pad(counts_PV, ((0, 0), (1, 1)))
            same = same + near_PV[pattern, code] + near_PV[pattern, code + 2]
        agree_N[rows] += np.where(said, same, 0)
        all_N[rows] += np.where(said, strict_P[pattern], 0)
    return agree_N, all_N


def with_mode_of_three(a_UV: Array, b_UV: Array) -> tuple[Array, Array]:
    """Of the modes of three of the first group, each with one of the second, at each item: how many agree of how many.

        P(mode = c) = (C(n_c, 3) + C(n_c, 2) (n − n_c)) / C(n, 3)

    All threes count, so that no three have to be picked of more; three different answers have no mode.

    Shapes   counts without ties; returns expected numbers of pairs, one each item.
    Example  >>> [each.tolist() for each in with_mode_of_three(np.array([[2, 1], [3, 0]]), np.array([[1, 0], [0, 1]]))]
             [[1.0, 0.0], [1.0, 1.0]]
    """
    n_U1 = a_UV.sum(-1, keepdims=True)
    threes_U1 = n_U1 * (n_U1 - 1) * (n_U1 - 2) / 6
    modes_UV = a_UV * (a_UV - 1) * (a_UV - 2) / 6 + a_UV * (a_UV - 1) / 2 * (n_U1 - a_UV)
    chance_UV = np.divide(modes_UV, threes_U1, where=threes_U1 > 0, out=np.zeros(a_UV.shape))
    return (chance_UV * b_UV).sum(-1), chance_UV.sum(-1) * b_UV.sum(-1)


def with_most_others(counts_UV: Array) -> tuple[Array, Array]:
    """Of the answers at each item: those that are what most of the two or more others say, of those where most agree.

    Example  >>> [each.tolist() for each in with_most_others(np.array([[2, 1], [3, 0], [1, 1]]))]
             [[0, 3, 0], [1, 3, 0]]
    """
    agree_U, all_U = np.zeros(counts_UV.shape[:-1], np.int64), np.zeros(counts_UV.shape[:-1], np.int64)
    for c in range(counts_UV.shape[-1]):
        others_UV = counts_UV.copy()
        others_UV[..., c] -= 1
        most_U = others_UV.max(-1)
        clear_U = ((others_UV == most_U[..., None]).sum(-1) == 1) & (others_UV.sum(-1) >= 2)
        all_U += np.where(clear_U, counts_UV[..., c], 0)
        agree_U += np.where(clear_U & (others_UV[..., c] == most_U), counts_UV[..., c], 0)
    return agree_U, all_U


def alike(a: Answers, b: Answers) -> tuple[Array, Array]:
    """Of each two answers: on how many votes of the first aspect they agree, and of how many; ties are left out."""
    agree_N, all_N = np.zeros(len(a), np.int64), np.zeros(len(a), np.int64)
    one, other = aspects(a)[0], aspects(b)[0]
    for x, y in zip(one.ballots, other.ballots, strict=True):
        said = (x.code_N != MISSING) & (y.code_N != MISSING)
        if one.tie:
            said &= (x.code_N < one.strict) & (y.code_N < other.strict)
        agree_N += said & (np.abs(x.code_N - y.code_N) <= (one.shape == "scale"))
        all_N += said
    return agree_N, all_N
