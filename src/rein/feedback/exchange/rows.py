"""What stands between a file and the store: items with what was said of them on the way in, answers on the way out.

Flow     a line of a file → `Parsed` or `Bad` → the store;   the store → `Answer` → a line of a file

A reader of a format makes `Parsed` of a line, a writer makes a line of an `Answer`; neither knows the database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rein.feedback.kinds import inverse

Json = Any
KEY_CHARS = 32  # hexadecimal digits of a key that is made of what it names
BATCH, SPLIT, ROLE = "batch1", "train", "work"  # of an item that nobody said these of


class Unreadable(Exception):
    """A line that is no line of its format; the text says why, for a person."""


# What a line of another form than anybody thought of may raise, besides.
MISSHAPEN = (TypeError, AttributeError, ValueError, LookupError, RecursionError, OverflowError)


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that was left out, and why."""

    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said of an item, in the order of its candidates, as a file has it."""

    person: str  # as the file names them
    kind: str
    value: Json
    question: str = ""  # of the project; "": its question of this kind
    act: str = "say"
    shown: Mapping[str, Json] = field(default_factory=dict)
    times: Mapping[str, Json] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)  # what has no place of its own
    at_ms: int | None = None  # None: when it is imported
    late: bool = False
    key: str = ""  # of the judgement, whose answers share it; "": made of the line
    version: int | None = None  # of the kind's schema; None: this one's
    of: tuple[str, str] | None = None  # (key, act) of the row that this one revises or undoes


@dataclass(frozen=True, slots=True)
class Asked:
    """An item of a file. `key` "" is made of its content; `batch`, `split` "" are the import's own."""

    context: Mapping[str, Json]
    candidates: Sequence[Mapping[str, Json]]  # {"text", "policy", "extra"}
    key: str = ""
    batch: str = ""
    split: str = ""
    role: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)
    gold: Json = None
    wanted: int | None = None
    priority: float = 0.0
    closed: bool = False
    document: str | None = None  # key of the document that it comes from
    there: bool = False  # only its key is given: it came before
    loose: bool = False  # its context is whatever texts the line has: which of them are shown is left to the project
    same: str = ""  # what decides its split, where that is more than its context: a whole conversation tree

    @property
    def name(self) -> str:
        """Its key: the importer's own, or one made of what it asks."""
        return self.key or digest([self.context, [[c["text"], c.get("policy", "")] for c in self.candidates]])


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds besides items, so that it can be written again."""

    key: str
    body: Json
    format: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A line: its items, each with what was said of it. Imported whole or not at all."""

    line: int
    items: Sequence[tuple[Asked, Sequence[Said]]] = ()
    document: Document | None = None
    about: tuple[str, Json] | None = None  # of rein's own format: a line that is neither


@dataclass(frozen=True)
class Item:
    """An item of the store, as writers see it."""

    id: int
    key: str
    batch: str
    role: str
    split: str
    context: Mapping[str, Json]
    candidates: Sequence[Mapping[str, Json]]
    extra: Mapping[str, Json]
    document: str | None = None  # key of the document that it came from


@dataclass(frozen=True)
class Answer:
    """An answer that stands, as writers see it, with the others of the same judgement."""

    item: Item
    person: str  # a pseudonym, or the name
    question: str
    kind: str
    value: Json  # in the order of the candidates
    shown: Mapping[str, Json]
    extra: Mapping[str, Json]
    turn: int
    at_ms: int
    notes: Sequence[str] | None  # naive interpretations, in the order of the candidates
    others: Mapping[str, tuple[str, Json]]  # question → (kind, value): all of the judgement's, this one's too

    @property
    def order(self) -> list[int]:
        """order[place] = candidate; as the candidates are, where nobody wrote down how they were shown."""
        return list(self.shown.get("order") or range(len(self.item.candidates)))


def digest(value: Json) -> str:
    """A key made of what it names: equal content, equal key.

    Example  >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
             True
    """
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:KEY_CHARS]


def canonical(value: Json) -> str:
    """One text for one JSON value, whatever the order of its keys; 1, 1.0 and true stay three."""
    return json.dumps(value, sort_keys=True)


def compact(value: Json) -> str:
    """A line of a file: Unicode as it is, keys in their order."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def candidate(text: Json, policy: str = "", what: str = "an output", /, **extra: Json) -> dict[str, Json]:
    """A candidate.

    Raises   Unreadable when it is no text.
    """
    if not isinstance(text, str):
        raise Unreadable(f"{what} is {named(text)}, but a text is expected")
    return {"text": text, "policy": policy, "extra": extra}


def in_order(candidates: Sequence[Mapping[str, Json]]) -> tuple[list[Mapping[str, Json]], list[int]]:
    """Candidates in an order that depends on what they are alone, and order[place] of the one that they came in.

    So the same pair is one item, whichever side a line has them on, and the preferred one is not always the first.

    Example  >>> pair, order = in_order([{"text": "b", "policy": ""}, {"text": "a", "policy": ""}])
             >>> [one["text"] for one in pair], order
             (['a', 'b'], [1, 0])
    """
    rank = sorted(
        range(len(candidates)), key=lambda place: (candidates[place].get("policy", ""), candidates[place]["text"])
    )
    return [candidates[place] for place in rank], inverse(rank)


def need(row: Mapping[str, Json], name: str, kind: type | tuple[type, ...], what: str) -> Json:
    """A field of a line.

    Raises   Unreadable when it is missing, or not of that type.
    """
    if name not in row:
        raise Unreadable(f"{name} is missing")
    value = row[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise Unreadable(f"{name} is {named(value)}, but {what} is expected")
    return value


def named(value: Json) -> str:
    """What a value is, in a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value!r}" if abs(value) < 10**15 else "a huge number"
    return "a text" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"


def without(row: Mapping[str, Json], *names: str) -> dict[str, Json]:
    """A line less the fields that have a place of their own."""
    return {name: value for name, value in row.items() if name not in names}
