"""`rein label check`: whether a store is whole, and what is computed from the feedback is what it should be.

Flow     a store → the database's own check; every answer, made anew from `feedback`, item by item; every item's counts
         → what differs, project by project; with --repair, answers and counts made anew in one transaction

`feedback` is the truth and is only read: what it lost comes back from a backup alone. The check reads one moment of the
store and keeps nobody waiting; a repair wants a file for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, delete, or_, select, update

from rein.config import setting
from rein.errors import UserError
from rein.feedback.answers import ANSWERED, rebuild_answers, stood
from rein.feedback.items import load_project
from rein.feedback.queue import ROOM
from rein.feedback.store import Store
from rein.feedback.tables import answer, cursor, item
from rein.feedback.tables import project as projects
from rein.report.legible import count, one_line

_SHOWN = 5  # items that are named

Json = dict[str, Any]


@dataclass(frozen=True)
class CheckConfig:
    """Settings of `rein label check`."""

    store: str = setting(
        "labels.db", "the feedback store: an SQLite file, or postgresql://USER@HOST/DATABASE", positional=True
    )
    repair: bool = setting(False, "make answers and counts anew from the feedback; no server may hold the store")


@dataclass(frozen=True)
class Found:
    """What is wrong in a project: numbers of items."""

    id: int
    name: str
    rows: int  # of feedback that were read
    answers: set[int] = field(default_factory=set)  # whose answers are not what was said
    counts: set[int] = field(default_factory=set)  # whose people or room are miscounted


def check_command(config: CheckConfig) -> None:
    """Checks that a store is whole, and that its answers and counts are those of the feedback in it.

    The feedback itself is never changed. --repair makes the rest anew from it; end the server of a SQLite file first.

    Examples
      rein label check
      rein label check labels.db --repair
    """
    with Store.open(config.store, to_read=not config.repair) as store:
        if config.repair:
            store.hold()
        with store.reading() as conn:
            _check_whole(conn, store.address)
            found = [checked(conn, row.id) for row in conn.execute(select(projects.c.id).order_by(projects.c.id))]
        for one in found:
            print(f"{one_line(one.name)}: {count(one.rows, 'row')} of feedback; {_says(one)}")
        wrong = [one for one in found if one.answers or one.counts]
        if not wrong:
            print(f"{store.address} is in order")
            return
        if not config.repair:
            raise UserError(
                f"{store.address}: {count(len(wrong), 'project')} of {len(found)} not in order.",
                f"Make answers and counts anew: rein label check {config.store} --repair",
            )
        for one in wrong:
            store.write(partial(repair, project_id=one.id))
        print(f"repaired: {', '.join(one_line(one.name) for one in wrong)}")


def _says(one: Found) -> str:
    parts = [
        f"{what} of {count(len(ids), 'item')} ({', '.join(map(str, sorted(ids)[:_SHOWN]))}"
        f"{', …' if len(ids) > _SHOWN else ''})"
        for what, ids in (("wrong answers", one.answers), ("wrong counts", one.counts))
        if ids
    ]
    return ", ".join(parts) or "in order"


def _check_whole(conn: Connection, address: str) -> None:
    """What SQLite finds of itself. PostgreSQL keeps its own rows in order."""
    if conn.dialect.name != "sqlite":
        return
    said = [str(row[0]) for row in conn.exec_driver_sql("PRAGMA integrity_check(3)")]
    loose = conn.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(3)
    said = [] if said == ["ok"] else said
    said += [f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there" for row in loose]
    if said:
        raise UserError(f"{address} is damaged: {'; '.join(said)}.", "Restore a backup of it.")


def checked(conn: Connection, project_id: int) -> Found:
    """Compares a project's answers and counts with its feedback.

    Raises   Refused: unknown.
    """
    _, settings = load_project(conn, project_id)
    wrong_answers, rows = set[int](), 0
    for those, n, standing in stood(conn, project_id):
        rows += n
        wrong_answers |= _wrong(conn, those, standing)
    miscounted = or_(item.c.done != ANSWERED, item.c.room != ROOM)
    counts = conn.execute(select(item.c.id).where(item.c.project == project_id, miscounted)).scalars()
    name: str = settings.name
    return Found(project_id, name, rows, wrong_answers, set(counts))


def _wrong(conn: Connection, those: Select[Any], standing: dict[tuple[int, str], Json]) -> set[int]:
    """The items, of those, whose answers are not what stands."""
    there = {
        (row["assignment"], row["question"]): dict(row)
        for row in conn.execute(select(answer).where(answer.c.item.in_(those))).mappings()
    }
    names = standing.keys() | there.keys()
    return {(standing.get(name) or there[name])["item"] for name in names if standing.get(name) != there.get(name)}


def repair(conn: Connection, project_id: int) -> None:
    """Makes a project's answers and counts anew from its feedback, and begins its queue anew."""
    rebuild_answers(conn, project_id)
    conn.execute(update(item).where(item.c.project == project_id).values(done=ANSWERED))
    conn.execute(update(item).where(item.c.project == project_id).values(room=ROOM))
    conn.execute(delete(cursor).where(cursor.c.project == project_id))
