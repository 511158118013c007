"""What a report is computed from, as sums over items: what was said of an item is taken off, what is said now put on.

Flow     `Answers` → `count` → `Counts` of a question; `Times` of all; together the `Sums` of a project or of a batch
         `Change`s since → `Sums.follow` → the same as if all had been counted anew

All sums are of whole numbers, so that it does not matter in which order they were made. They hold as long as a `Frame`
does: who is a researcher, which items are left out, how many values an answer has. Else all is counted anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from rein.feedback.ballots import (
    MISSING,
    Aspect,
    Pile,
    Tally,
    alike,
    aspects,
    choice_of,
    comparison_votes,
    pile,
    tally,
    with_others,
)
from rein.feedback.columns import NONE, Answers, among
from rein.feedback.judgements import Judgements

Array = npt.NDArray[Any]

MOST_PEOPLE = 40  # of whom each two are shown: those with the most answers
KEPT_PEOPLE = 2 * MOST_PEOPLE  # of whom each two are counted: it takes long until another one is among the former
EVEN = 5  # of the 9 points of a comparison
UNSURE = 7  # of an answer without points
WAYS = 10  # of choosing one of two: its side × its length, each 0, 1 or not known; and neither
_BITS = 20  # of a number in a key


@dataclass(frozen=True)
class Frame:
    """What counts of a question depend on besides its answers; equal where counts may be added."""

    people: tuple[int, ...]  # by id, in their places
    researchers: tuple[bool, ...]
    left_out: tuple[int, ...]  # items for practice and with known answers: ids, sorted
    width: int  # values of an answer
    best: int  # the highest number of a candidate that was chosen


@dataclass(frozen=True)
class Counts:
    """Of the answers to one question; `first` ones are those that are compared.

    `with_researchers` and `surely` are labelers' first answers by person, number that agree, and number of answers of
    researchers to the same item; the latter with the distance from even. `both` are tables of what each two of `seen`
    gave, and of how many items they share.
    """

    frame: Frame
    written_P: Array  # all answers
    first_P: Array
    tallies: tuple[Tally, ...]  # of each aspect; of a comparison one, of choices and points together
    with_researchers: Pile
    surely: Pile | None
    ways_PW: Array | None
    seen: Array  # places of people, sorted
    both: tuple[Array, Array] | None
    again: Pile  # repeats by person, number of votes that agree, number of votes
    again_I: Pile  # repeats by those two numbers, of each item
    flips: Array  # repeats that stay on their side, repeats with a choice both times

    def changed(self, less: Counts, more: Counts) -> Counts:
        """With `less` taken off and `more` put on."""

        def of(name: str) -> Any:
            own, minus, plus = (getattr(each, name) for each in (self, less, more))
            return None if own is None else own.changed(minus, plus) if isinstance(own, Pile) else own - minus + plus

        sums = ("written_P", "first_P", "with_researchers", "surely", "ways_PW", "again", "again_I", "flips")
        tallies = tuple(
            each.changed(minus, plus)
            for each, minus, plus in zip(self.tallies, less.tallies, more.tallies, strict=True)
        )
        both = None
        if self.both and less.both and more.both:
            pairs = [own - minus + plus for own, minus, plus in zip(self.both, less.both, more.both, strict=True)]
            both = pairs[0], pairs[1]
        return replace(self, tallies=tallies, both=both, **{name: of(name) for name in sums})


def frame_of(judgements: Judgements, answers: Answers) -> Frame:
    """Of all answers to a question."""
    return Frame(
        tuple(each.id for each in judgements.people),
        tuple(each.researcher for each in judgements.people),
        tuple(judgements.of_role("onboarding", "gold").tolist()),
        0 if answers.values is None else answers.values.shape[1],
        int(answers.choice.max(initial=0)),
    )


def first_of(answers: Answers, frame: Frame) -> Answers:
    """The answers that are compared: each person's first one on an item that is not left out."""
    compared_I = ~among(answers.items, np.array(frame.left_out, np.int64))
    return answers.of(compared_I[answers.at] & (answers.turn == 0) & answers.last)


def count(answers: Answers, frame: Frame, seen: Array | None = None) -> Counts:
    """Counts answers, which are all of their items. `seen` are whom each two of are counted; None: to be found."""
    people = len(frame.people)
    first = first_of(answers, frame)
    comparison = answers.question.kind == "comparison"
    asked = aspects(first, frame.best)
    researcher_P = np.array(frame.researchers, dtype=bool)
    researcher_N = researcher_P[first.who]
    tallies = [tally(each, first.at, researcher_N) for each in ([comparison_votes(first)] if comparison else asked)]
    first_P = np.bincount(first.who, minlength=people)
    if seen is None:
        seen = np.sort(np.argsort(-first_P, kind="stable")[:KEPT_PEOPLE])
    nothing = pile(np.zeros(0))
    with_them, surely = nothing, nothing
    if asked:
        counted = choice_of(tallies[0]) if comparison else tallies[0]
        agree_N, all_N = with_others(asked[0], first.at, counted.researchers_BPV, counted.pattern_I)
        rows = np.flatnonzero((all_N > 0) & ~researcher_N)
        key = (first.who[rows].astype(np.int64) << 2 * _BITS) | (agree_N[rows] << _BITS) | all_N[rows]
        with_them = pile(key)
        points = first.points[rows]
        far = np.where(np.isnan(points), UNSURE, np.rint(np.abs(np.nan_to_num(points) - EVEN))).astype(np.int64)
        surely = pile(far << 3 * _BITS | key)
    again, again_I, flips = _repeats(answers, bool(asked))
    return Counts(
        frame,
        np.bincount(answers.who, minlength=people),
        first_P,
        tuple(tallies),
        with_them,
        surely if comparison else None,
        _ways(first, people) if comparison else None,
        seen,
        _both(first, asked[0], seen, people) if asked and asked[0].shape == "choice" else None,
        pile(_key(*again)),
        pile(_key(*again_I)),
        flips,
    )


def _key(*numbers_N: Array) -> Array:
    found = np.zeros(len(numbers_N[0]), np.int64)
    for each in numbers_N:
        found = found << _BITS | each
    return found


def numbers_of(key_P: Array) -> tuple[Array, Array, Array, Array]:
    """The distance, person, number that agree and number of all that keys stand for."""
    low = (1 << _BITS) - 1
    return key_P >> 3 * _BITS, key_P >> 2 * _BITS & low, key_P >> _BITS & low, key_P & low


def _repeats(answers: Answers, compared: bool) -> tuple[tuple[Array, ...], tuple[Array, ...], Array]:
    """Repeats as `Counts` has them: by person; of each item; and flips."""
    again = answers.of((answers.turn == 1) & answers.last)
    first = answers.of_items(again.items)
    first = first.of((first.turn == 0) & first.last)
    people = int(answers.who.max(initial=0)) + 1
    one, other = (each.item * people + each.who for each in (first, again))
    _, before, after = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    a, b = first.of_order(before), again.of_order(after)
    agree_N, all_N = alike(a, b) if compared else (np.zeros(len(a), np.int64), np.zeros(len(a), np.int64))
    strict = (a.left != NONE) & (b.left != NONE) & (a.choice >= 0) & (b.choice >= 0)
    stays = strict & (a.choice != b.choice) & (a.left == b.left)
    of_items = [np.add.reduceat(each, a.starts) if len(a) else each for each in (agree_N, all_N)]
    return (a.who, agree_N, all_N), (of_items[0], of_items[1]), np.array([stays.sum(), strict.sum()])


def _ways(first: Answers, people: int) -> Array:
    """How often each person chose how."""
    said = first.choice >= -1
    way_N = np.where(first.choice == -1, WAYS - 1, (first.left % 3) * 3 + first.longer % 3)
    return np.bincount((first.who * WAYS + way_N)[said], minlength=people * WAYS).reshape(people, WAYS)


def _both(first: Answers, aspect: Aspect, seen: Array, people: int) -> tuple[Array, Array]:
    """How often two people gave each two codes, shape (P, codes, P, codes), and how many items they have in common."""
    n, codes, items = len(seen), aspect.codes, len(first.items)
    place_P = np.full(people, MISSING)
    place_P[seen] = np.arange(n)
    place_N = place_P[first.who]
    tables = np.zeros((n * codes, n * codes), np.int64)
    voted = np.zeros((items, n), dtype=bool) if len(aspect.ballots) > 1 else None
    for ballot in aspect.ballots:
        taken = (place_N != MISSING) & (ballot.code_N != MISSING)
        at, place, code = first.at[taken], place_N[taken], ballot.code_N[taken].astype(np.int64)
        ends = np.append(0, np.cumsum(np.bincount(at, minlength=items)))
        said = sparse.csr_array((np.ones(len(at)), place * codes + code, ends), shape=(items, n * codes))
        tables += (said.T @ said).toarray().astype(np.int64)
        if voted is not None:
            voted[at, place] = True
    found = tables.reshape(n, codes, n, codes)
    if voted is None:
        return found, found.sum((1, 3))
    return found, (voted.T.astype(float) @ voted.astype(float)).astype(np.int64)


# -------------------------------------------------------------------------------------------------------- times


@dataclass(frozen=True)
class Times:
    """How long people took, one entry each time that an item was answered, whichever question has it.

    Shapes   by_person_N: person · 2³² + milliseconds, sorted; ms_N: milliseconds, sorted.
    """

    by_person_N: Array
    ms_N: Array

    def of(self, person: int) -> Array:
        """Milliseconds of one person, by their place; sorted."""
        ends = np.searchsorted(self.by_person_N, np.array([person, person + 1], np.int64) << 32)
        found: Array = self.by_person_N[ends[0] : ends[1]] & (2**32 - 1)
        return found

    def changed(self, less: Times, more: Times) -> Times:
        """With `less` taken off and `more` put on."""
        return Times(
            _exchanged(self.by_person_N, less.by_person_N, more.by_person_N),
            _exchanged(self.ms_N, less.ms_N, more.ms_N),
        )


def timed(parts: Sequence[Answers]) -> tuple[Array, Array, Array]:
    """Who took how many milliseconds for which item, of the answers to several questions that were timed, each once."""
    found, seen = [(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))], np.zeros(0, np.int64)
    for each in parts:
        rows = np.flatnonzero(each.active_ms != NONE)
        if len(parts) > 1:
            rows = rows[~np.isin(each.assignment[rows], seen)]
            seen = np.concatenate([seen, each.assignment[rows]])
        found.append((each.who[rows], each.active_ms[rows], each.item[rows]))
    who_N, ms_N, item_N = (np.concatenate(each) for each in zip(*found, strict=True))
    return who_N, ms_N, item_N


def times_of(parts: Sequence[Answers]) -> Times:
    """Of the answers to all questions."""
    who_N, ms_N, _ = timed(parts)
    return Times(np.sort((who_N.astype(np.int64) << 32) | ms_N), np.sort(ms_N))


def _exchanged(held: Array, less: Array, more: Array) -> Array:
    """Sorted numbers without those of `less`, which are among them, and with those of `more`."""
    # Of equal ones the first, second, … is taken.
    turn = np.arange(len(less)) - np.searchsorted(less, less)
    left = np.delete(held, np.searchsorted(held, less) + turn)
    found: Array = np.insert(left, np.searchsorted(left, more), more)
    return found


# --------------------------------------------------------------------------------------------------------- sums


@dataclass
class Sums:
    """All counts of a project, or of a batch of it."""

    frames: dict[str, Frame]
    counts: dict[str, Counts]
    times: Times
    items: int  # that have an answer
    seen: int  # changes that are in here


def sums_of(judgements: Judgements, batch: str | None) -> Sums:
    """The sums as of now: those that are held, with what changed since; or all counted anew."""
    frames = {name: frame_of(judgements, each) for name, each in judgements.answers.items()}
    # Taken out: what fails half-way is counted anew the next time.
    held: Sums | None = judgements.sums.pop(batch, None)
    if held is None or held.frames != frames or held.seen < judgements.forgotten:
        held = _anew(judgements, batch, frames)
    else:
        for change in judgements.changes[held.seen - judgements.forgotten :]:
            _follow(held, judgements.in_batch(change.items, batch), change.before, change.after)
    held.seen = judgements.forgotten + len(judgements.changes)
    most = {name: np.argsort(-each.first_P, kind="stable")[:MOST_PEOPLE] for name, each in held.counts.items()}
    for name, each in held.counts.items():
        if len(np.setdiff1d(most[name], each.seen)):
            held = replace(_anew(judgements, batch, frames), seen=held.seen)
            break
    judgements.sums[batch] = held
    return held


def _anew(judgements: Judgements, batch: str | None, frames: dict[str, Frame]) -> Sums:
    items = judgements.in_batch(judgements.items, batch)
    parts = {name: each if batch is None else each.of_items(items) for name, each in judgements.answers.items()}
    counts = {name: count(each, frames[name]) for name, each in parts.items()}
    return Sums(frames, counts, times_of(list(parts.values())), len(items), 0)


def _follow(held: Sums, items: Array, before: Any, after: Any) -> None:
    parts = [{name: each.of_items(items) for name, each in some.items()} for some in (before, after)]
    for name, each in held.counts.items():
        less, more = (count(some[name], held.frames[name], each.seen) for some in parts)
        held.counts[name] = each.changed(less, more)
    less_times, more_times = (times_of(list(some.values())) for some in parts)
    held.times = held.times.changed(less_times, more_times)
    less_items, more_items = (
        len(np.unique(np.concatenate([np.zeros(0, np.int64), *(each.items for each in some.values())])))
        for some in parts
    )
    held.items += more_items - less_items
