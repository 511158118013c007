"""What was said in a project, as columns in memory that follow the store: agreement and its monitors are read off them.

Flow     table answer (+ feedback.value where a question has many numbers) → `Judgements.follow` → `Answers`, sorted
         by item, and `Change`s of them → agreement.py, monitors.py, selection.py

A first reading takes all rows; a later one takes those of items with a row of feedback since, so that a change of mind
and an undo are followed as a new answer is. The store's transactions come one after another, so that nothing new has
a lower number than what was read.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Integer, Select, cast, func, select

from rein.errors import suggestion
from rein.feedback import tables as t
from rein.feedback.columns import NONE, NOTHING, SPREAD, Answers, among, last_words, narrow, united
from rein.feedback.items import load_project
from rein.feedback.project import Project, Question
from rein.feedback.refused import Refused

Array = npt.NDArray[Any]

# What is read of table `answer`, and as what it is kept.
_READ = {
    "assignment": "i8", "seq": "i8", "item": "i8", "who": "i8", "turn": "i1", "choice": "i1", "points": "f4",
    "left": "i1", "longer": "i1", "active_ms": "i8", "at_ms": "i8",
}  # fmt: skip
_PLACE = np.int32  # of a person
SAMPLE = 20_000  # items whose texts are measured
IDS = 500  # in one query
_PART = 50_000  # rows of one


@dataclass(frozen=True)
class Person:
    """One who said something."""

    id: int
    name: str
    researcher: bool


@dataclass(frozen=True)
class Special:
    """An item that is not compared like all others: its role, and what is right of it where that is known."""

    role: str
    gold: Mapping[str, Any] | None


@dataclass(frozen=True)
class Lengths:
    """How long the texts of a sample of the items are.

    Shapes   items_S: ids, sorted; words_S of all that is read; log_ratio_S of the characters of candidate 1 to those
             of candidate 0, NaN where there are not two.
    """

    items_S: Array
    words_S: Array
    log_ratio_S: Array


@dataclass(frozen=True)
class Change:
    """What was said of a few items before, and what is said now, question by question."""

    items: Array  # ids, sorted
    before: Mapping[str, Answers]
    after: Mapping[str, Answers]


class Judgements:
    """A project's answers, in memory. `follow` brings them up to the store; the rest is read from there on."""

    def __init__(self, project_id: int) -> None:
        """Of the project with this id; nothing is read yet."""
        self.project_id = project_id
        self.project = Project("")
        self.answers: dict[str, Answers] = {}
        self.people: list[Person] = []  # by id
        self.items = np.zeros(0, np.int64)  # ids, of all that was answered, sorted
        self.batches: dict[int, str] = {}
        self.special: dict[int, Special] = {}
        self.reports: dict[str | None, tuple[Any, Any]] = {}  # by batch: the state that it is of, and a report
        self.sums: dict[str | None, Any] = {}  # by batch: what a report is computed from (counts.Sums)
        self.changes: list[Change] = []  # since the first reading, or since they were too many
        self.forgotten = 0  # changes that came before those
        self._measured: dict[int, tuple[float, float]] = {}
        self._lengths: tuple[Array, Lengths] | None = None  # of which items it is a sample, and the sample
        self._ids = np.zeros(0, np.int64)  # of people
        self._in_batch = np.zeros((2, 0), np.int64)  # items that ever were answered, sorted, and the batch of each
        self._policies: dict[int, tuple[str, ...]] = {}
        self._seen = 0  # the last row of feedback that is in here

    # -------------------------------------------------------------------------------------------- following

    def follow(self, conn: Connection) -> None:
        """Reads what is new in the store."""
        _, project = load_project(conn, self.project_id)
        if project.questions != self.project.questions:
            self.answers, self._seen = {}, 0
        self.project = project
        last = conn.execute(
            select(func.max(t.feedback.c.seq)).where(t.feedback.c.project == self.project_id)
        ).scalar_one()
        if not self.answers or (last or 0) > self._seen:
            if not (self._seen and self._take_new(conn)):
                self._take_all(conn)
            self._seen = last or 0
        self._follow_items(conn)
        self._follow_people(conn)

    def read_items(self, conn: Connection, of: Select[Any]) -> None:
        """Reads what everybody said of a few items, once: for the page of one person."""
        _, self.project = load_project(conn, self.project_id)
        self._take([self._read(conn, each, of) for each in self.project.questions])
        self._follow_items(conn)
        self._follow_people(conn)

    def _take_all(self, conn: Connection) -> None:
        self._take([self._read(conn, each, None) for each in self.project.questions])

    def _take(self, read: list[Answers]) -> None:
        self.answers = {}
        self.answers = {each.question.name: each for each in self._known(read)}
        self._forget_changes()

    def _take_new(self, conn: Connection) -> bool:
        """Items with new feedback: what was said of them is left out, and what is said now put in.

        False where there are so many that it is quicker to read all.
        """
        touched = (
            select(t.feedback.c.item)
            .where(t.feedback.c.project == self.project_id, t.feedback.c.seq > self._seen)
            .distinct()
        )
        changed = np.sort(np.array(conn.execute(touched).scalars().all(), dtype=np.int64))
        if len(changed) > len(self.items) // 4:
            return False
        read = [self._read(conn, question, touched) for question in self.project.questions]
        news = {each.question.name: each for each in self._known(read)}
        before = {name: each.of_items(changed) for name, each in self.answers.items()}
        now = {name: each.with_new(news[name], changed) for name, each in self.answers.items()}
        after = {name: each.of_items(changed) for name, each in now.items()}
        answered = united([each.items for each in (*before.values(), *after.values())])
        self.changes.append(Change(answered, before, after))
        self.answers = now
        if sum(len(each.items) for each in self.changes) > max(len(self.items) // 20, IDS):
            self._forget_changes()
        return True

    def _forget_changes(self) -> None:
        """Whoever has not followed them by now is quicker to count anew."""
        self.forgotten += len(self.changes) + 1
        self.changes = []

    def _known(self, read: list[Answers]) -> list[Answers]:
        """Answers with the places of people instead of their ids; of those that are held, the places are put right."""
        ids = united([self._ids, *(np.unique(each.who) for each in read)])
        if len(ids) > len(self._ids):
            moved = np.searchsorted(ids, self._ids).astype(_PLACE)
            self.answers = {name: dataclasses.replace(each, who=moved[each.who]) for name, each in self.answers.items()}
            self._ids = ids
            self._forget_changes()
        return [dataclasses.replace(each, who=np.searchsorted(ids, each.who).astype(_PLACE)) for each in read]

    def _read(self, conn: Connection, question: Question, of: Select[Any] | None) -> Answers:
        """The answers to a question, or those of some items; with the ids of people instead of their places."""
        a = t.answer.c
        small = [func.coalesce(cast(each, Integer), NONE) for each in (a.left_side, a.longer)]
        columns = (
            a.assignment, a.seq, a.item, a.person, a.turn, func.coalesce(a.choice, NOTHING), a.points, *small,
            func.coalesce(a.active_ms, NONE), a.at_ms,
        )  # fmt: skip
        wanted = (a.project == self.project_id) & (a.question == question.name)
        if of is not None:
            wanted &= a.item.in_(of)
        # In the order of ix_answer_project: nothing is left to sort.
        found = conn.execute(select(*columns).where(wanted).order_by(a.item).execution_options(yield_per=_PART))
        parts = [np.array(list(map(tuple, part)), dtype=float) for part in found.partitions()]
        table = np.concatenate(parts) if parts else np.zeros((0, len(_READ)))
        rows = {name: table[:, n].astype(kind) for n, (name, kind) in enumerate(_READ.items())}
        found_here = Answers(question, **rows, values=None, last=last_words(rows))
        if question.kind not in SPREAD:
            return found_here
        spread = SPREAD[question.kind]
        said = select(a.assignment, t.feedback.c.value).join(t.feedback, t.feedback.c.seq == a.seq).where(wanted)
        numbers = {key: spread(value, question) for key, value in conn.execute(said)}
        values = np.full((len(numbers), max(map(len, numbers.values()), default=0)), np.nan, np.float32)
        for n, key in enumerate(rows["assignment"].tolist()):
            values[n, : len(numbers[key])] = numbers[key]
        return dataclasses.replace(found_here, values=narrow(values, question))

    def _follow_items(self, conn: Connection) -> None:
        self.items = united([each.items for each in self.answers.values()])
        new = self.items[~among(self.items, self._in_batch[0])]
        if len(new):
            self._read_batches(conn, new)
        # Calibration items are compared like any other.
        special = select(t.item.c.id, t.item.c.role, t.item.c.gold).where(
            t.item.c.project == self.project_id, t.item.c.role.in_(("gold", "onboarding", "drift"))
        )
        self.special = {key: Special(role, gold) for key, role, gold in conn.execute(special)}
        names = select(t.batch.c.id, t.batch.c.name).where(t.batch.c.project == self.project_id)
        self.batches = {row.id: row.name for row in conn.execute(names)}

    def _read_batches(self, conn: Connection, new: Array) -> None:
        columns = select(t.item.c.id, t.item.c.batch)
        if len(new) > 20 * IDS:
            read = conn.execute(columns.where(t.item.c.project == self.project_id)).all()
        else:
            read = [row for part in _parts(new) for row in conn.execute(columns.where(t.item.c.id.in_(part)))]
        pairs = np.array([tuple(row) for row in read], np.int64).reshape(-1, 2)
        pairs = pairs[np.argsort(pairs[:, 0])]
        pairs = pairs[np.searchsorted(pairs[:, 0], new)]
        self._in_batch = np.insert(self._in_batch, np.searchsorted(self._in_batch[0], new), pairs.T, axis=1)

    def _follow_people(self, conn: Connection) -> None:
        """Everybody anew: a role may have changed. Who is newer than this reader's moment stays as they were."""
        before = {each.id: each for each in self.people}
        known = {row.id: row for part in _parts(self._ids) for row in conn.execute(_people(part))}
        self.people = [
            Person(each, known[each].name, known[each].role != "labeler") if each in known else before[each]
            for each in self._ids.tolist()
        ]

    # ------------------------------------------------------------------------------------------- what is asked

    def state(self) -> tuple[Any, ...]:
        """Equal to that of before where nothing has changed that a report depends on."""
        return self._seen, self.project, tuple(self.people), dict(self.special)

    def person_at(self, person_id: int) -> int | None:
        """A person's place in `people`; None for one who said nothing."""
        found = np.flatnonzero(self._ids == person_id)
        return int(found[0]) if len(found) else None

    def researchers(self) -> Array:
        """Of each of `people`, whether they are one."""
        return np.array([each.researcher for each in self.people], dtype=bool)

    def of_role(self, *roles: str) -> Array:
        """The items with one of these roles, of those that are in `special`; ids, sorted."""
        return np.sort(np.array([key for key, each in self.special.items() if each.role in roles], np.int64))

    def in_batch(self, items: Array, name: str | None) -> Array:
        """Of these items, which ever were answered, those of a batch; all of them, for None.

        Raises   Refused: unknown.
        """
        if name is None:
            return items
        ids = [key for key, each in self.batches.items() if each == name]
        if not ids:
            raise Refused("unknown", f"There is no batch {name!r}. {suggestion(name, self.batches.values())}")
        found: Array = items[self._in_batch[1][np.searchsorted(self._in_batch[0], items)] == ids[0]]
        return found

    def policies(self, conn: Connection, items: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """Who wrote the candidates of these items, in their order."""
        for part in _parts([each for each in items if each not in self._policies]):
            for row in conn.execute(select(t.item.c.id, t.item.c.candidates).where(t.item.c.id.in_(part))):
                self._policies[row.id] = tuple(each.get("policy", "") for each in row.candidates)
        return {each: self._policies[each] for each in items}

    def measure(self, conn: Connection) -> Lengths:
        """How long the texts of up to SAMPLE of the items are: always the same ones of those there are.

        An item is in the sample where the hash of its id is among the lowest, so that a new one takes the place of
        no more than one other.
        """
        if self._lengths is None or not np.array_equal(self._lengths[0], self.items):
            mixed = self.items.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hash
            if len(mixed) > SAMPLE:
                chosen = self.items[mixed <= np.partition(mixed, SAMPLE - 1)[SAMPLE - 1]]
            else:
                chosen = self.items
            same = self._lengths is not None and np.array_equal(self._lengths[1].items_S, chosen)
            lengths = self._lengths[1] if self._lengths and same else self._lengths_of(conn, chosen)
            self._lengths = self.items, lengths
        return self._lengths[1]

    def _lengths_of(self, conn: Connection, chosen: Array) -> Lengths:
        columns = select(t.item.c.id, t.item.c.context, t.item.c.candidates)
        ids = chosen.tolist()
        for part in _parts([each for each in ids if each not in self._measured]):
            for row in conn.execute(columns.where(t.item.c.id.in_(part))):
                self._measured[row.id] = _measured(row.context, row.candidates)
        found = np.array([self._measured[each] for each in ids], dtype=float).reshape(-1, 2)
        return Lengths(chosen, found[:, 0], found[:, 1])


class Held:
    """The projects that a server has in memory, each used by one thread at a time."""

    def __init__(self) -> None:
        """Of nothing; a project is read when it is first asked for."""
        self._lock = threading.Lock()
        self._held: dict[int, tuple[threading.Lock, Judgements]] = {}

    @contextmanager
    def of(self, conn: Connection, project_id: int) -> Iterator[Judgements]:
        """A project's judgements, as the store has them now."""
        with self._lock:
            lock, judgements = self._held.setdefault(project_id, (threading.Lock(), Judgements(project_id)))
        with lock:
            judgements.follow(conn)
            yield judgements


def _measured(context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Words of all texts, and the log of the ratio of two candidates' characters."""
    texts = [each["text"] for each in candidates]
    words = sum(len(each.split()) for each in (*texts, *context.values()) if isinstance(each, str))
    ratio = math.log(len(texts[1]) / len(texts[0])) if len(texts) == 2 and all(texts) else math.nan
    return float(words), ratio


def _people(ids: Sequence[int]) -> Select[Any]:
    return select(t.person.c.id, t.person.c.name, t.person.c.role).where(t.person.c.id.in_(ids))


def _parts(ids: Sequence[int] | Array) -> Iterator[list[int]]:
    listed = [int(each) for each in ids]
    for start in range(0, len(listed), IDS):
        yield listed[start : start + IDS]
