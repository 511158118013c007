"""What was said in a project, as columns in memory that follow the store: agreement and its monitors are read off them.

Flow     table answer (+ feedback.value where a question has many numbers) → `Judgements.follow` → `Answers`, sorted
         by item → agreement.py, monitors.py, selection.py

A first reading takes all rows; a later one takes those of items with a row of feedback since, so that a change of mind
and an undo are followed as a new answer is. The store's transactions come one after another, so that nothing new has
a lower number than what was read.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Integer, Select, cast, func, select

from rein.errors import suggestion
from rein.feedback import tables as t
from rein.feedback.items import load_project
from rein.feedback.project import Project, Question
from rein.feedback.refused import Refused

Array = npt.NDArray[Any]

NONE = -1  # of a column of small numbers: not known, or not so
NOTHING = -2  # of `choice`, where -1 is neither
# What is read of table `answer`, and as what it is kept.
_READ = {
    "assignment": "i8", "seq": "i8", "item": "i8", "who": "i8", "turn": "i8", "choice": "i8", "points": "f8",
    "left": "i8", "longer": "i8", "active_ms": "i8", "at_ms": "i8",
}  # fmt: skip
_KEPT = _READ | {
    "who": "i4", "turn": "i1", "choice": "i1", "points": "f4", "left": "i1", "longer": "i1",
}  # fmt: skip
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
class Answers:
    """The answers to one question, sorted by item: columns of table `answer`, one entry each answer.

    `who` is the person's place in `Judgements.people`, `at` the item's in `Judgements.items`. `last` says whether it
    is the person's last word on the item in this turn, which only an imported one may not be. `values` (N, W) is what
    SPREAD makes of an answer, NaN where there is nothing; None for other kinds.
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
    at: Array
    last: Array

    def of(self, chosen: Array, *, light: bool = False) -> Answers:
        """Those that are chosen, in their order; `light` leaves out which ones they are, and when they were given."""
        return self if chosen.all() else self.of_order(np.flatnonzero(chosen), light=light)

    def of_order(self, places: Array, *, light: bool = False) -> Answers:
        """Those at these places, in the order of the places."""
        columns = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        left_out = ("assignment", "seq", "item", "active_ms", "at_ms") if light else ()
        taken: dict[str, Any] = {
            name: each[:0] if name in left_out else each[places]
            for name, each in columns.items()
            if isinstance(each, np.ndarray)
        }
        return dataclasses.replace(self, **taken)

    def __len__(self) -> int:
        return len(self.who)


@dataclass(frozen=True)
class Special:
    """An item that is not plain work: its role, and what is right of it where that is known."""

    role: str
    gold: Mapping[str, Any] | None


@dataclass(frozen=True)
class Lengths:
    """How long the texts of items are; NaN for those that are not in the sample.

    Shapes   words_I of all that is read; log_ratio_I of the characters of candidate 1 to those of candidate 0.
    """

    words_I: Array
    log_ratio_I: Array


class Judgements:
    """A project's answers, in memory. `follow` brings them up to the store; the rest is read from there on."""

    def __init__(self, project_id: int) -> None:
        """Of the project with this id; nothing is read yet."""
        self.project_id = project_id
        self.project = Project("")
        self.answers: dict[str, Answers] = {}
        self.people: list[Person] = []
        self.items = np.zeros(0, np.int64)  # ids, of all that was answered, sorted
        self.batch = np.zeros(0, np.int64)  # of each
        self.batches: dict[int, str] = {}
        self.special: dict[int, Special] = {}
        self._measured: dict[int, tuple[float, float]] = {}
        self._lengths: Lengths | None = None
        self._people_at: dict[int, int] = {}
        self._policies: dict[int, tuple[str, ...]] = {}
        self.reports: dict[str | None, tuple[Any, Any]] = {}  # by batch: the state that it is of, and a report
        self._placed = False  # whether `at` of all answers is right
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
        for question in self.project.questions:
            self.answers[question.name] = self._read(conn, question, of)
        self._follow_items(conn)
        self._follow_people(conn)

    def _take_all(self, conn: Connection) -> None:
        self.answers = {each.name: self._read(conn, each, None) for each in self.project.questions}

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
        for question in self.project.questions:
            old, new = self.answers[question.name], self._read(conn, question, touched)
            self.answers[question.name] = _with_new(old, new, changed)
        return True

    def _read(self, conn: Connection, question: Question, of: Select[Any] | None) -> Answers:
        """The answers to a question, or those of some items; their places among the items are not known yet."""
        self._placed = False
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
        rows = self._columns(parts)
        nowhere = np.zeros(len(rows["seq"]), np.int32)
        found_here = Answers(question, **rows, values=None, at=nowhere, last=_last_words(rows))
        if question.kind not in SPREAD:
            return found_here
        spread = SPREAD[question.kind]
        said = select(a.assignment, t.feedback.c.value).join(t.feedback, t.feedback.c.seq == a.seq).where(wanted)
        numbers = {key: spread(value, question) for key, value in conn.execute(said)}
        values = np.full((len(numbers), max(map(len, numbers.values()), default=0)), np.nan, np.float32)
        for n, key in enumerate(rows["assignment"].tolist()):
            values[n, : len(numbers[key])] = numbers[key]
        return dataclasses.replace(found_here, values=values)

    def _columns(self, parts: list[Array]) -> dict[str, Array]:
        """Columns of their own types, and the people among them known."""
        rows = np.concatenate(parts) if parts else np.zeros((0, len(_READ)))
        ids = rows[:, list(_READ).index("who")].astype(np.int64)
        for person in sorted(set(ids.tolist())):
            self._people_at.setdefault(person, len(self._people_at))
        known = np.fromiter(self._people_at, np.int64, len(self._people_at))
        order = np.argsort(known)
        columns = {name: rows[:, n].astype(kind) for n, (name, kind) in enumerate(_KEPT.items()) if name != "who"}
        columns["who"] = order[np.searchsorted(known, ids, sorter=order)].astype(_KEPT["who"])
        return columns

    def _follow_items(self, conn: Connection) -> None:
        if not self._placed:
            self._find_places(conn)
            self._placed = True
        special = select(t.item.c.id, t.item.c.role, t.item.c.gold).where(
            t.item.c.project == self.project_id, t.item.c.role.in_([each for each in t.ITEM_ROLES if each != "work"])
        )
        self.special = {row.id: Special(row.role, row.gold) for row in conn.execute(special)}
        names = select(t.batch.c.id, t.batch.c.name).where(t.batch.c.project == self.project_id)
        self.batches = {row.id: row.name for row in conn.execute(names)}

    def _find_places(self, conn: Connection) -> None:
        starts = {name: _first(each.item) for name, each in self.answers.items()}
        found = [self.answers[name].item[first] for name, first in starts.items()]
        items = found[0] if len(found) == 1 else _union(found)
        if not np.array_equal(items, self.items):
            self._read_batches(conn, items)
        for name, first in starts.items():
            answers = self.answers[name]
            each = np.diff(np.append(first, len(answers)))
            at = np.repeat(np.searchsorted(items, answers.item[first]).astype(np.int32), each)
            self.answers[name] = dataclasses.replace(answers, at=at)

    def _read_batches(self, conn: Connection, items: Array) -> None:
        batch = np.zeros(len(items), np.int64)
        known = _isin(items, self.items)
        batch[known] = self.batch[np.searchsorted(self.items, items[known])]
        new = items[~known]
        columns = select(t.item.c.id, t.item.c.batch)
        if len(new) > 20 * IDS:
            read = conn.execute(columns.where(t.item.c.project == self.project_id)).all()
        else:
            read = [row for part in _parts(new) for row in conn.execute(columns.where(t.item.c.id.in_(part)))]
        pairs = np.array([tuple(row) for row in read], np.int64).reshape(-1, 2)
        pairs = pairs[np.argsort(pairs[:, 0])]
        batch[~known] = pairs[np.searchsorted(pairs[:, 0], new), 1]
        self.items, self.batch = items, batch

    def _follow_people(self, conn: Connection) -> None:
        """Everybody anew: a role may have changed. Who is newer than this reader's moment stays as they were."""
        before = dict(zip(self._people_at, self.people, strict=False))
        known = {row.id: row for part in _parts(list(self._people_at)) for row in conn.execute(_people(part))}
        self.people = [
            Person(each, known[each].name, known[each].role != "labeler") if each in known else before[each]
            for each in self._people_at
        ]

    # ------------------------------------------------------------------------------------------- what is asked

    def state(self) -> tuple[Any, ...]:
        """Equal to that of before where nothing has changed that a report depends on."""
        return self._seen, self.project, tuple(self.people), dict(self.special)

    def person_at(self, person_id: int) -> int | None:
        """A person's place in `people`; None for one who said nothing."""
        return self._people_at.get(person_id)

    def researchers(self) -> Array:
        """Of each of `people`, whether they are one."""
        return np.array([each.researcher for each in self.people], dtype=bool)

    def with_role(self, *roles: str) -> Array:
        """Of each of `items`, whether its role is one of these."""
        special = np.sort(np.array([key for key, each in self.special.items() if each.role in roles], np.int64))
        if "work" not in roles:
            return _isin(self.items, special)
        others = np.sort(np.array([key for key, each in self.special.items() if each.role not in roles], np.int64))
        return ~_isin(self.items, others)

    def in_batch(self, name: str | None) -> Array:
        """Of each of `items`, whether it is of this batch; of any, for None.

        Raises   Refused: unknown.
        """
        if name is None:
            return np.ones(len(self.items), dtype=bool)
        ids = [key for key, each in self.batches.items() if each == name]
        if not ids:
            raise Refused("unknown", f"There is no batch {name!r}. {suggestion(name, self.batches.values())}")
        there: Array = self.batch == ids[0]
        return there

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
        if self._lengths is not None and len(self._lengths.words_I) == len(self.items):
            return self._lengths
        mixed = self.items.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hash
        places = np.argsort(mixed)[:SAMPLE]
        chosen = self.items[places].tolist()
        columns = select(t.item.c.id, t.item.c.context, t.item.c.candidates)
        for part in _parts([each for each in chosen if each not in self._measured]):
            for row in conn.execute(columns.where(t.item.c.id.in_(part))):
                self._measured[row.id] = _measured(row.context, row.candidates)
        words_I, log_ratio_I = (np.full(len(self.items), np.nan) for _ in range(2))
        found = np.array([self._measured[each] for each in chosen], dtype=float).reshape(-1, 2)
        words_I[places], log_ratio_I[places] = found.T
        self._lengths = Lengths(words_I, log_ratio_I)
        return self._lengths


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


def _first(sorted_N: Array) -> Array:
    """Where each value comes first."""
    return np.flatnonzero(np.append(True, sorted_N[1:] != sorted_N[:-1])[: len(sorted_N)])


def _isin(values_N: Array, sorted_M: Array) -> Array:
    """Which values are among a few sorted ones; np.isin sorts the many."""
    if not len(sorted_M):
        return np.zeros(len(values_N), dtype=bool)
    found: Array = sorted_M[np.minimum(np.searchsorted(sorted_M, values_N), len(sorted_M) - 1)] == values_N
    return found


def _union(parts: Sequence[Array]) -> Array:
    together = np.sort(np.concatenate([*parts, np.zeros(0, np.int64)]))
    return together[_first(together)]


def _last_words(rows: dict[str, Array]) -> Array:
    last = np.ones(len(rows["seq"]), dtype=bool)
    if (rows["assignment"] < 0).any():  # else the store holds one of each person for an item and a turn
        order = np.lexsort((rows["seq"], rows["turn"], rows["who"], rows["item"]))
        again = np.ones(len(order) - 1, dtype=bool)
        for name in ("item", "who", "turn"):
            again &= rows[name][order[1:]] == rows[name][order[:-1]]
        last[order[:-1][again]] = False
    return last


def _with_new(old: Answers, new: Answers, changed: Array) -> Answers:
    """The old answers, but of the changed items the new ones; both are sorted by item. Long parts are copied whole."""
    ends = [np.searchsorted(each.item, changed, side) for each in (old, new) for side in ("left", "right")]
    cuts = list(zip(*(each.tolist() for each in ends), strict=True))
    columns: dict[str, tuple[Array, Array]] = {
        each.name: (getattr(old, each.name), getattr(new, each.name))
        for each in dataclasses.fields(old)
        if isinstance(getattr(old, each.name), np.ndarray)
    }
    if old.values is not None and new.values is not None:
        columns["values"] = _as_wide(old.values, new.values)
    together: dict[str, Any] = {}
    for name, (held, fresh) in columns.items():
        parts, start = [], 0
        for low, high, first, last in cuts:
            parts += [held[start:low], fresh[first:last]]
            start = high
        together[name] = np.concatenate([*parts, held[start:]])
    return dataclasses.replace(old, **together)


def _as_wide(a_NW: Array, b_NW: Array) -> tuple[Array, Array]:
    """Both as wide as the wider one, NaN behind."""
    width = max(a_NW.shape[1], b_NW.shape[1])
    wide = [np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=np.nan) for each in (a_NW, b_NW)]
    return wide[0], wide[1]
