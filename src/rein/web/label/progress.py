"""How far a project is: counts by batch and role, who holds what, pace, and when it would be done.

Flow     table item by two of its indices, without reading a single item; open leases; answers of the last day → numbers

A million items are counted in a fraction of a second, because each count reads an index from one end to the other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from rein.feedback import tables

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def progress_of(conn: Connection, project_id: int, now: int) -> dict[str, Any]:
    """The counts of a project.

        left = Σ room + open leases, of the items of role work        predicted end = now + left / pace

    Units    pace in answered items per hour, since the first answer of the last 24 hours; times in milliseconds since
             1970.
    """
    leases = open_leases(conn, project_id, now)
    item = tables.item
    room = conn.execute(
        select(func.sum(item.c.room)).where(item.c.project == project_id, item.c.role == "work", item.c.room > 0)
    ).scalar()
    left = int(room or 0) + _held_work(conn, project_id, now)
    pace = _pace(conn, project_id, now)
    end = round(now + left / pace["per_hour"] * HOUR_MS) if pace["per_hour"] else None
    return {
        "batches": _batches(conn, project_id), "leases": leases, "left": left, "pace": pace,
        "end_ms": end if left else None,
        "why": None if end or not left else "there were no answers in the last 24 hours", "server_ms": now,
    }  # fmt: skip


def _batches(conn: Connection, project_id: int) -> list[dict[str, Any]]:
    """Each batch with its roles; of each the items that nobody, somebody, and enough people have answered."""
    item, batch = tables.item, tables.batch
    counts = conn.execute(
        select(item.c.batch, item.c.role, item.c.done, item.c.wanted, func.count().label("n"))
        .where(item.c.project == project_id)
        .group_by(item.c.batch, item.c.role, item.c.done, item.c.wanted)
    ).all()
    named = conn.execute(select(batch).where(batch.c.project == project_id).order_by(batch.c.id)).mappings().all()
    found = {
        row["id"]: {"name": row["name"], "frozen_ms": row["frozen_ms"], "created_ms": row["created_ms"], "roles": {}}
        for row in named
    }
    for row in counts:
        of = found[row.batch]["roles"].setdefault(
            row.role, {"items": 0, "waiting": 0, "begun": 0, "done": 0, "answers": 0, "wanted": 0}
        )
        of["items"] += row.n
        of["done" if row.done >= row.wanted else "begun" if row.done else "waiting"] += row.n
        of["answers"] += row.n * row.done
        of["wanted"] += row.n * row.wanted
    return list(found.values())


def open_leases(conn: Connection, project_id: int, now: int) -> list[dict[str, Any]]:
    """Who holds how many items, and until when."""
    assignment, person = tables.assignment, tables.person
    query = (
        select(person.c.name, func.count().label("held"), func.min(assignment.c.lease_ms).label("lease_ms"))
        .join(person, person.c.id == assignment.c.person)
        .where(assignment.c.state == "open", assignment.c.lease_ms > now, assignment.c.project == project_id)
        .group_by(person.c.name)
        .order_by(person.c.name)
    )
    return [dict(row) for row in conn.execute(query).mappings()]


def _held_work(conn: Connection, project_id: int, now: int) -> int:
    """Of what is held, how much is wanted work: no item of another role, and no repeat of one's own."""
    assignment, item = tables.assignment, tables.item
    query = (
        select(func.count())
        .join_from(assignment, item, item.c.id == assignment.c.item)
        .where(assignment.c.state == "open", assignment.c.lease_ms > now, assignment.c.project == project_id)
        .where(item.c.role == "work", assignment.c.turn == 0)
    )
    return int(conn.execute(query).scalar_one())


def _pace(conn: Connection, project_id: int, now: int) -> dict[str, Any]:
    """Items answered in each of the last 24 hours."""
    answer, member = tables.answer, tables.member
    people = select(member.c.person).where(member.c.project == project_id)
    ago = (now - answer.c.at_ms) // HOUR_MS
    rows = conn.execute(
        select(ago.label("ago"), func.count(func.distinct(answer.c.assignment)).label("n"))
        .where(
            answer.c.person.in_(people), answer.c.project == project_id,
            answer.c.at_ms > now - DAY_MS, answer.c.at_ms <= now,
        )
        .group_by(ago)
    ).all()  # fmt: skip
    hours = [0] * 24
    for row in rows:
        hours[min(23, max(0, int(row.ago)))] += row.n
    span = max((ago + 1 for ago, n in enumerate(hours) if n), default=0)  # since the first answer of the last day
    return {
        "hours": hours, "last_hour": hours[0], "last_day": sum(hours), "per_hour": sum(hours) / span if span else None,
    }  # fmt: skip


def submitted_by(conn: Connection, project: int, person: int) -> int:
    """How many items of a project somebody has answered, practice apart."""
    table, item = tables.assignment, tables.item
    every = select(func.count()).where(
        table.c.person == person, table.c.project == project, table.c.state == "submitted"
    )
    practice = select(item.c.id).where(item.c.project == project, item.c.role == "onboarding")
    # Two counts, not a join: practice items are few, and the answers of a person may be a hundred thousand.
    both = select(every.scalar_subquery(), every.where(table.c.item.in_(practice)).scalar_subquery())
    answered, practised = conn.execute(both).one()
    return int(answered - practised)
