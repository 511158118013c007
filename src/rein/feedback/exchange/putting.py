"""Lines into the store, a group in one transaction: all of a line or nothing of it.

Flow     `Ready` lines → `Group.put` on the store's connection → items, answers; what was refused, and why

A group is put there at once. Where one of its lines is refused, each is tried by itself, so that the others stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import DataError

from rein.errors import UserError
from rein.feedback import tables as t
from rein.feedback.answers import Record, record
from rein.feedback.exchange.checking import Ready
from rein.feedback.exchange.newcomers import Newcomers
from rein.feedback.exchange.rows import Bad, Document, canonical, digest
from rein.feedback.items import NewItem, add_items, change_item, freeze
from rein.feedback.refused import Refused

Json = Any


@dataclass
class Tally:
    """What a group did."""

    added: int = 0  # items
    known: int = 0
    answers: int = 0
    bad: list[Bad] = field(default_factory=list)
    put: dict[str, str] = field(default_factory=dict)  # key of an item → digest of its content


@dataclass
class Group:
    """A group on its way into a project. `earlier`: in a rehearsal, the items that groups before it would have put."""

    conn: Connection
    now: int
    project: int
    people: Newcomers
    earlier: dict[str, str] | None = None
    tally: Tally = field(default_factory=Tally)

    def put(self, lines: Sequence[Ready]) -> Tally:
        """Puts lines there; those that are refused are in the tally."""
        for special, some in groupby(lines, key=lambda one: one.about is not None):
            if special:  # later lines may need it
                for one in some:
                    self._try([one])
            else:
                self._try(list(some))
        return self.tally

    def _try(self, lines: Sequence[Ready]) -> None:
        known = dict(self.people.known)
        try:
            with self.conn.begin_nested():
                self._put(lines)
        except (Refused, UserError, OverflowError, DataError) as error:  # the last two: a number is too large to keep
            self.people.known = known
            if len(lines) == 1:
                self.tally.bad.append(Bad(lines[0].line, _why(error)))
                return
            for one in lines:
                self._try([one])

    def _put(self, lines: Sequence[Ready]) -> None:
        items_of = [item for line in lines for item in line.items]
        documents = self._documents(
            [line.document for line in lines if line.document], {item.document for item in items_of if item.document}
        )
        fresh = [
            replace(item.new, document=documents.get(item.document) if item.document else None)
            for item in items_of if item.new is not None
        ]  # fmt: skip
        before = 0 if self.earlier is None else self._rehearse(fresh, self.earlier)
        items = add_items(self.conn, self.now, self.project, fresh)
        numbers = self._numbers({item.key for item in items_of})
        records = list[Record]()
        for line in lines:
            for item in line.items:
                if item.key not in numbers:
                    raise Refused("bad_value", f"There is no item {item.key!r}: its line is missing, or was left out.")
                records += [replace(said, item=numbers[item.key], person=self._person(who)) for who, said in item.said]
                if item.closed:
                    change_item(self.conn, numbers[item.key], closed=True)
            if line.about:
                self._set(*line.about)
        if self.earlier is not None:  # what they are of may be of a group before, which was undone
            records = [one for one in records if one.of is None]
        kept = record(self.conn, self.now, self.project, records)
        self.tally.added += items.added - before
        self.tally.known += items.known + before
        self.tally.answers += kept.added

    def _rehearse(self, fresh: Iterable[NewItem], earlier: Mapping[str, str]) -> int:
        """How many of these would be there by now, put there by a group before, and notes the others.

        Raises   Refused for one whose key would be there with another content.
        """
        there = self._numbers({new.key for new in fresh})
        contents = {new.key: _content(new) for new in fresh if new.key not in there}
        for key, content in contents.items():
            if earlier.get(key, content) != content:
                raise Refused("bad_value", f"Item {key!r} is there already, with another text.")
        self.tally.put |= contents
        return len(contents.keys() & earlier.keys())

    def _person(self, name: str) -> int:
        return self.people.number(self.conn, self.now, name)

    def _numbers(self, keys: set[str]) -> dict[str, int]:
        query = select(t.item.c.key, t.item.c.id).where(t.item.c.project == self.project, t.item.c.key.in_(keys))
        return {key: number for key, number in self.conn.execute(query)}

    def _documents(self, documents: Sequence[Document], keys: set[str]) -> dict[str, int]:
        """Puts documents there, and gives the numbers of all of these keys by key.

        Raises   Refused for a key that is there with another content.
        """
        if not documents and not keys:
            return {}
        wanted = {one.key: one for one in documents}
        query = select(t.document.c.key, t.document.c.id, t.document.c.body).where(
            t.document.c.project == self.project, t.document.c.key.in_(keys | wanted.keys())
        )
        there = {key: (number, body) for key, number, body in self.conn.execute(query)}
        for one in documents:
            body = there[one.key][1] if one.key in there else wanted[one.key].body
            if canonical(body) != canonical(one.body):
                raise Refused("bad_value", f"The document {one.key!r} is there already, with another content.")
        new = [
            {"project": self.project, "key": one.key, "format": one.format, "body": one.body}
            for one in wanted.values() if one.key not in there
        ]  # fmt: skip
        numbers = {key: number for key, (number, _) in there.items()}
        if new:
            numbered = insert(t.document).returning(t.document.c.id, sort_by_parameter_order=True)
            made = self.conn.execute(numbered, new).scalars()
            numbers |= {row["key"]: number for row, number in zip(new, made, strict=True)}
        return numbers

    def _set(self, what: str, body: Json) -> None:
        """Lines of rein's own format that are neither items nor answers."""
        if what == "person":
            self.people.number(self.conn, self.now, body["name"], body["role"], body.get("simulated") is True)
        elif what == "instruction":
            of = (t.instruction.c.project == self.project, t.instruction.c.version == body["version"])
            if self.conn.execute(select(t.instruction.c.id).where(*of)).first() is None:
                row = {"version": body["version"], "text": body["text"], "project": self.project}
                self.conn.execute(insert(t.instruction), {**row, "created_ms": self.now})
        elif what == "batch":
            named = (t.batch.c.project == self.project, t.batch.c.name == body["name"])
            if self.conn.execute(select(t.batch.c.id).where(*named)).first() is None:
                row = {"project": self.project, "name": body["name"], "created_ms": self.now}
                self.conn.execute(insert(t.batch), row)
            if body.get("frozen") is True:
                freeze(self.conn, self.now, self.project, body["name"], True)


def _why(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.text
    return error.problem if isinstance(error, UserError) else "it has a number that is too large to be kept"


def _content(new: NewItem) -> str:
    return digest([new.context, new.candidates])


def groups(rows: Iterable[Ready | Bad], most_lines: int, most_chars: int) -> Iterator[list[Ready | Bad]]:
    """Lines that share a transaction."""
    group, chars = list[Ready | Bad](), 0
    for row in rows:
        group.append(row)
        chars += row.size if isinstance(row, Ready) else 0
        if len(group) >= most_lines or chars >= most_chars:
            yield group
            group, chars = [], 0
    if group:
        yield group
