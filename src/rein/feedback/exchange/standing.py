"""What stands in a project, page by page, as writers of formats see it.

Flow     the tables of the store → `Item`s in the order in which they came, `Answer`s in the order in which they were
         said, the raw rows of feedback → a format's writer

One page is in memory at a time, whatever the project holds, and a page is found by where the last one ended. People go
by pseudonyms, which stay the same in one installation and tell nobody else who they are; those whom an import brought
had pseudonyms already, and keep them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select

from rein.feedback import tables as t
from rein.feedback.exchange.rows import Answer, Item

Json = Any
PAGE = 200  # rows in memory at a time
JUDGEMENT = (
    "judgement"  # in the extra of a row that came from another store: what it shares with the rest of its judgement
)
IMPORTED = "imported"  # in a person's preferences: how the file that brought them names them


@dataclass
class Names:
    """How people are named in what goes out."""

    conn: Connection
    secret: bytes
    real: bool = False  # by the names that they log in with
    known: dict[int, RowMapping] = field(default_factory=dict)
    called: dict[int, str] = field(default_factory=dict)

    def of(self, person: int) -> str:
        """A person's name in a file."""
        if person not in self.called:
            self.called[person] = self._name(person)
        return self.called[person]

    def _name(self, person: int) -> str:
        row = self.row(person)
        # Who can log in sets their own preferences, and might take another's name.
        if IMPORTED in row["preferences"] and row["password"] is None and not row["active"]:
            return str(row["preferences"][IMPORTED])
        if self.real:
            return str(row["name"])
        mark = hmac.new(self.secret, f"person {person}".encode(), hashlib.sha256).hexdigest()[:12]
        return f"{'labeler' if row['role'] == 'labeler' else 'researcher'}-{mark}"

    def row(self, person: int) -> RowMapping:
        """What the store knows of a person."""
        if person not in self.known:
            self.known[person] = self.conn.execute(select(t.person).where(t.person.c.id == person)).mappings().one()
        return self.known[person]


@dataclass(frozen=True)
class Chosen:
    """Which items go out; empty: all."""

    splits: Sequence[str] = ()
    roles: Sequence[str] = ()
    batches: Sequence[str] = ()

    def takes(self, item: Item) -> bool:
        """Whether an item goes out."""
        return all(
            not wanted or one in wanted
            for wanted, one in ((self.splits, item.split), (self.roles, item.role), (self.batches, item.batch))
        )


_ITEM = (
    select(t.item, t.batch.c.name.label("batch_name"), t.document.c.key.label("document_key"))
    .join(t.batch, t.batch.c.id == t.item.c.batch)
    .outerjoin(t.document, t.document.c.id == t.item.c.document)
)


def _item(row: RowMapping) -> Item:
    return Item(
        row["id"], row["key"], row["batch_name"], row["role"], row["split"], row["context"], row["candidates"],
        row["extra"], row["document_key"],
    )  # fmt: skip


def item_rows(conn: Connection, project: int) -> Iterator[RowMapping]:
    """The items of a project, in the order in which they came."""
    return _pages(conn, _ITEM.where(t.item.c.project == project), t.item.c.id)


def items(conn: Connection, project: int, chosen: Chosen) -> Iterator[Item]:
    """The same, those that go out."""
    return (item for row in item_rows(conn, project) if chosen.takes(item := _item(row)))


def splits(conn: Connection, project: int) -> list[str]:
    """The names of a project's splits."""
    query = select(t.item.c.split).where(t.item.c.project == project).distinct()
    return list(conn.execute(query.order_by(t.item.c.split)).scalars())


def batches(conn: Connection, project: int) -> list[str]:
    """The names of a project's batches."""
    query = select(t.batch.c.name).where(t.batch.c.project == project)
    return list(conn.execute(query.order_by(t.batch.c.name)).scalars())


def has_kinds(conn: Connection, project: int, kinds: Sequence[str]) -> bool:
    """Whether an answer of these kinds stands, perhaps to a question that is asked no more."""
    said = select(t.answer.c.seq).join(t.feedback, t.feedback.c.seq == t.answer.c.seq)
    some = said.where(t.answer.c.project == project, t.feedback.c.kind.in_(kinds)).limit(1)
    return conn.execute(some).first() is not None


def items_of_keys(conn: Connection, project: int, keys: Sequence[str]) -> list[Item]:
    """Items by the names that the importer gave them, in the order in which they came."""
    found = list[Item]()
    for start in range(0, len(keys), PAGE):
        some = _ITEM.where(t.item.c.project == project, t.item.c.key.in_(keys[start : start + PAGE]))
        found += [_item(row) for row in conn.execute(some).mappings()]
    return sorted(found, key=lambda item: item.id)


def documents(conn: Connection, project: int, format: str | None = None) -> Iterator[RowMapping]:
    """What files held besides items, in the order in which it came."""
    query = select(t.document).where(t.document.c.project == project)
    return _pages(conn, query if format is None else query.where(t.document.c.format == format), t.document.c.id)


def feedback_rows(conn: Connection, project: int) -> Iterator[RowMapping]:
    """All rows of feedback, those that were undone too, with their item's key and what they revise or undo."""
    earlier = t.feedback.alias("earlier")
    query = (
        select(
            t.feedback, t.item.c.key.label("item_key"), earlier.c.key.label("of_key"), earlier.c.act.label("of_act"),
            earlier.c.question.label("of_question"),
        )
        .join(t.item, t.item.c.id == t.feedback.c.item)
        .outerjoin(earlier, earlier.c.seq == t.feedback.c.of)
        .where(t.feedback.c.project == project)
    )  # fmt: skip
    return _pages(conn, query, t.feedback.c.seq)


def _pages(conn: Connection, query: Select[Any], by: Any) -> Iterator[RowMapping]:
    last = 0
    while rows := conn.execute(query.where(by > last).order_by(by).limit(PAGE)).mappings().all():
        last = rows[-1][by.name]
        yield from rows


# --------------------------------------------------------------------------------------------------------- answers


def answers(
    conn: Connection, project: int, kinds: Sequence[str], names: Names, chosen: Chosen, *, whole: bool = False
) -> Iterator[Answer]:
    """The answers of these kinds that stand, in the order in which they were said; mirrored repeats are none of them.

    `whole`: one for each judgement, which has the others with it.
    """
    query = select(t.feedback.c.seq, t.feedback.c.item).where(
        t.feedback.c.project == project, t.feedback.c.kind.in_(kinds), t.feedback.c.act.in_(("say", "revise"))
    )
    last = 0
    while rows := conn.execute(query.where(t.feedback.c.seq > last).order_by(t.feedback.c.seq).limit(PAGE)).all():
        last = rows[-1].seq
        numbers = sorted({row.item for row in rows})
        found = {one["id"]: _item(one) for one in conn.execute(_ITEM.where(t.item.c.id.in_(numbers))).mappings()}
        said = _standing(conn, [number for number in numbers if chosen.takes(found[number])])
        for row in rows:
            judgement = said.get(row.seq)
            if judgement and not (whole and row.seq != min(o["seq"] for o in judgement.rows if o["kind"] in kinds)):
                yield judgement.answer(row.seq, found[row.item], names)


def answers_of(conn: Connection, some: Sequence[Item], kinds: Sequence[str], names: Names) -> dict[int, list[Answer]]:
    """The same of a page of items: by item."""
    said = _standing(conn, [item.id for item in some])
    by_number = {item.id: item for item in some}
    answers: dict[int, list[Answer]] = {item.id: [] for item in some}
    for seq, judgement in sorted(said.items()):
        row = judgement.row(seq)
        if row["kind"] in kinds:
            answers[row["item"]].append(judgement.answer(seq, by_number[row["item"]], names))
    return answers


@dataclass
class _Judgement:
    """What one person said of one item at one time."""

    rows: list[RowMapping]
    notes: Json = None

    def row(self, seq: int) -> RowMapping:
        return next(one for one in self.rows if one["seq"] == seq)

    def answer(self, seq: int, item: Item, names: Names) -> Answer:
        row = self.row(seq)
        others = {one["question"]: (one["kind"], one["value"]) for one in self.rows}
        return Answer(
            item, names.of(row["person"]), row["question"], row["kind"], row["value"], row["shown"], row["extra"],
            row["turn"], row["at_ms"], self.notes, others,
        )  # fmt: skip


def _standing(conn: Connection, numbers: Sequence[int]) -> dict[int, _Judgement]:
    """seq → its judgement, of all answers that stand for these items, each person's first time."""
    columns = (t.feedback, t.answer.c.turn, t.answer.c.assignment.label("goes_by"))
    rows = conn.execute(
        select(*columns)
        .join(t.answer, t.answer.c.seq == t.feedback.c.seq)
        .where(t.answer.c.item.in_(numbers), t.answer.c.turn == 0)
        .order_by(t.feedback.c.seq)
    ).mappings().all()  # fmt: skip
    judgements: dict[tuple[Json, ...], _Judgement] = {}
    for row in rows:
        judgements.setdefault(_judged(row), _Judgement([])).rows.append(row)
    noted = select(t.feedback).where(t.feedback.c.item.in_(numbers), t.feedback.c.kind == "notes")
    for row in conn.execute(noted.order_by(t.feedback.c.seq)).mappings():
        if (judgement := judgements.get(_judged(row))) is not None and row["act"] != "undo":
            judgement.notes = row["value"]["notes"]
    return {row["seq"]: judgement for judgement in judgements.values() for row in judgement.rows}


def _judged(row: RowMapping) -> tuple[Json, ...]:
    """What the rows of one judgement share: the assignment; or, of an import, the mark or the key that it gave them."""
    if row["assignment"] is not None:
        return (row["assignment"],)
    return row["item"], row["person"], row["extra"].get(JUDGEMENT, row["key"])


def people(conn: Connection, project: int) -> list[int]:
    """Everybody who said something, in the order of their first row."""
    first = func.min(t.feedback.c.seq)
    query = select(t.feedback.c.person).where(t.feedback.c.project == project).group_by(t.feedback.c.person)
    return list(conn.execute(query.order_by(first)).scalars())
