"""The routes of researchers about items: the table of them, one with everything about it, and what changes of one.

Flow     filters → a page of fifty, and where the next one begins; an item → its candidates with their policies, every
         row that was said about it, its leases and questions

A table of a million items is read in windows, in the order of their numbers, for a quarter of a second at most: a page
then may hold fewer than fifty, and `next` says where to go on. So no filter makes the server read everything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from sqlalchemy import ColumnElement, Connection, RowMapping, func, select

from rein.feedback import tables
from rein.feedback.items import change_item as change
from rein.feedback.items import load_project
from rein.web.label import bodies
from rein.web.label import research_bodies as asked
from rein.web.label.guard import ERRORS, Parts, Researcher, StrictRoute, Wrong
from rein.web.label.research import PAGE, After, Json, ProjectName, note

router = APIRouter(prefix="/research", route_class=StrictRoute, responses=ERRORS, tags=["researcher"])
ItemId = Annotated[int, Path(ge=0, le=bodies.INT64)]
Filter = Annotated[str | None, Query(max_length=100, pattern=bodies.NO_NUL)]
WINDOW = 5_000  # items
BUDGET_S = 0.25
ROWS = 500  # of feedback about an item, as shown


@router.get("/projects/{name}/items")
async def items(
    name: ProjectName, caller: Researcher, service: Parts, after: After = 0,
    role: asked.ItemRole | None = None, batch: Filter = None,
    state: Literal["waiting", "begun", "done", "closed"] | None = None,
    text: Annotated[str | None, Query(max_length=200, pattern=bodies.NO_NUL)] = None,
) -> Json:  # fmt: skip
    """A page of items; `after` is `next` of the page before, null at the end."""

    def look(conn: Connection) -> Json:
        project_id, _ = load_project(conn, name)
        item = tables.item
        named = select(tables.batch.c.id, tables.batch.c.name).where(tables.batch.c.project == project_id)
        batches = {row.id: row.name for row in conn.execute(named)}
        wanted: list[ColumnElement[bool]] = []
        if role is not None:
            wanted.append(item.c.role == role)
        if batch is not None:
            wanted.append(item.c.batch.in_([id for id, its in batches.items() if its == batch]))
        if state is not None:
            wanted.append(_STATES[state])
        found: list[Json] = []
        last: int | None = after
        for row, goes_on in _walk(conn, project_id, after, wanted):
            last = goes_on
            if row is not None and (not text or text.casefold() in _texts(row).casefold()):
                found.append(_row(row, batches))
            if len(found) == PAGE:
                break
        return {"items": found, "next": last}

    return await service.count(look)


_item = tables.item
_STATES: dict[str, ColumnElement[bool]] = {
    "waiting": (_item.c.done == 0) & ~_item.c.closed,
    "begun": (_item.c.done > 0) & (_item.c.done < _item.c.wanted) & ~_item.c.closed,
    "done": _item.c.done >= _item.c.wanted,
    "closed": _item.c.closed,
}


def _walk(
    conn: Connection, project_id: int, after: int, wanted: list[ColumnElement[bool]]
) -> Iterator[tuple[RowMapping | None, int | None]]:
    """Items that fit with where to go on after each; at last (None, where to go on), None for at the end."""
    item = tables.item
    ends = time.monotonic() + BUDGET_S
    first, end = conn.execute(
        select(func.min(item.c.id), func.max(item.c.id)).where(item.c.project == project_id)
    ).one()
    at = max(after, (first or 1) - 1)
    while end is not None and at < end:
        upto = min(at + WINDOW, end)
        # By number alone: an index of the project would have all its items sorted first.
        query = select(item).where(item.c.id > at, item.c.id <= upto, item.c.project + 0 == project_id, *wanted)
        for row in conn.execute(query.order_by(item.c.id)).mappings():
            yield row, row["id"] if row["id"] < end else None
        at = upto
        if time.monotonic() > ends:
            break
    yield None, at if end is not None and at < end else None


def _texts(row: RowMapping) -> str:
    parts = [row["key"], *map(_flat, row["context"].values()), *(one["text"] for one in row["candidates"])]
    return "\n".join(parts)


def _flat(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(map(_flat, value.values()))
    return "\n".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _row(row: RowMapping, batches: dict[int, str]) -> Json:
    context = next((_flat(value) for value in row["context"].values()), "")
    return {
        "id": row["id"], "key": row["key"], "batch": batches[row["batch"]], "role": row["role"],
        "split": row["split"], "done": row["done"], "wanted": row["wanted"], "priority": row["priority"],
        "closed": row["closed"], "gold": row["gold"] is not None, "head": context[:160],
        "policies": [one.get("policy", "") for one in row["candidates"]],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ one item


@router.get("/items/{id}")
async def item(id: ItemId, caller: Researcher, service: Parts) -> Json:
    """Everything about one item."""
    return await service.read(lambda conn: _whole(conn, id))


def _whole(conn: Connection, id: int) -> Json:
    table = tables.item
    row = conn.execute(select(table).where(table.c.id == id)).mappings().one_or_none()
    if row is None:
        raise Wrong(404, "unknown", "There is no such item.")
    _, project = load_project(conn, row["project"])
    batch = conn.execute(select(tables.batch).where(tables.batch.c.id == row["batch"])).mappings().one()
    return {
        "id": id, "project": project.name, "key": row["key"], "batch": batch["name"],
        "frozen_ms": batch["frozen_ms"], "role": row["role"], "split": row["split"], "context": row["context"],
        "candidates": row["candidates"], "gold": row["gold"], "extra": row["extra"], "wanted": row["wanted"],
        "done": row["done"], "priority": row["priority"], "closed": row["closed"], "created_ms": row["created_ms"],
        "questions": [question.name for question in project.questions],
        "assignments": _assignments(conn, id), "rows": _said(conn, id), "threads": _threads(conn, id),
    }  # fmt: skip


def _assignments(conn: Connection, id: int) -> list[Json]:
    table, person = tables.assignment, tables.person
    query = (
        select(table, person.c.name, tables.instruction.c.version)
        .join(person, person.c.id == table.c.person)
        .outerjoin(tables.instruction, tables.instruction.c.id == table.c.instruction)
        .where(table.c.item == id)
        .order_by(table.c.id)
        .limit(ROWS)
    )
    return [
        {
            "id": row["id"], "person": row["name"], "turn": row["turn"], "state": row["state"], "order": row["order"],
            "seed": str(row["seed"]), "instructions": row["version"] or 0, "notes": row["notes"],
            "revealed_ms": row["revealed_ms"], "revision": row["revision"], "claimed_ms": row["claimed_ms"],
            "lease_ms": row["lease_ms"],
        }
        for row in conn.execute(query).mappings()
    ]  # fmt: skip


def _said(conn: Connection, id: int) -> list[Json]:
    """Every row that was said about an item, in the order of the candidates; `stands` marks those that count now."""
    table, person, answer = tables.feedback, tables.person, tables.answer
    query = (
        select(table, person.c.name, person.c.role.label("by"), answer.c.seq.label("stands"))
        .join(person, person.c.id == table.c.person)
        .outerjoin(answer, (answer.c.seq == table.c.seq) & (answer.c.item == table.c.item))
        .where(table.c.item == id)
        .order_by(table.c.seq)
        .limit(ROWS)
    )
    return [
        {
            "seq": row["seq"], "person": row["name"], "person_role": row["by"], "assignment": row["assignment"],
            "question": row["question"], "kind": row["kind"], "act": row["act"], "of": row["of"],
            "value": row["value"], "shown": row["shown"], "times": row["times"], "late": row["late"],
            "at_ms": row["at_ms"], "stands": row["stands"] is not None,
        }
        for row in conn.execute(query).mappings()
    ]  # fmt: skip


def _threads(conn: Connection, id: int) -> list[Json]:
    return threads_of(conn, tables.thread.c.item == id)


def threads_of(conn: Connection, which: ColumnElement[bool]) -> list[Json]:
    """Labelers' questions with who asked and who replied, newest first."""
    table, asker, replier = tables.thread, tables.person.alias("asker"), tables.person.alias("replier")
    query = (
        select(table, asker.c.name.label("asker"), replier.c.name.label("replier"))
        .join(asker, asker.c.id == table.c.person)
        .outerjoin(replier, replier.c.id == table.c.replied_by)
        .where(which)
        .order_by(table.c.id.desc())
        .limit(ROWS)
    )
    return [
        {
            "id": row["id"], "item": row["item"], "person": row["asker"], "text": row["text"], "at_ms": row["at_ms"],
            "reply": row["reply"], "replied_by": row["replier"], "replied_ms": row["replied_ms"],
            "pinned": row["pinned"],
        }
        for row in conn.execute(query).mappings()
    ]  # fmt: skip


@router.post("/items/{id}")
async def change_item(id: ItemId, body: asked.ItemChange, caller: Researcher, service: Parts) -> Json:
    """Sets what is right, how urgent it is, its role, or closes it; what is not named stays. `gold` null: not known."""
    now = service.clock()
    changes = body.model_dump(exclude_none=True)
    if "gold" in body.model_fields_set:
        changes.setdefault("gold", None)

    def do(conn: Connection) -> Json:
        change(conn, id, **changes)
        note(conn, now, caller, "change item", {"item": id, **changes})
        return _whole(conn, id)

    return await service.write(do)
