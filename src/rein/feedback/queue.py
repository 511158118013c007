"""The queue of a project: what a person is given next.

Flow     (project, person, role) → `next_item` → the first item of that role which this person may still have
         an item of which one lease more is out, or back → `refresh` → its room, and the cursors that it concerns

Order: least room first, so that what was begun is finished and batches end; then by priority; then the seeded order of
the project. The part of the work that ignores priority goes by the seeded order alone: what it has been through is a
sample that no score had a say in.

A person who answered a hundred thousand items that wait for two others would pass by all of them at each claim. So a
cursor for each person and room says how far everything was theirs already. What comes in before it takes it back to
there: a claim gives exactly what it would give without cursors. A few hundred rows are looked at for each room, though;
a person who must pass by more, as after a change of all priorities, is given something of another room meanwhile.

Transactions of a store follow each other in either database, so nothing here takes locks of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Table, and_, bindparam, case, func, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rein.feedback.tables import assignment, batch, cursor, item

# Of one's own assignments, those by which the item is not given again. A lease that ended may be taken up again: with
# as many people as answers are wanted, nobody else could finish that item.
TAKEN = ("open", "submitted", "skipped")
_WINDOWS = (8, 64, 512)  # rows of a room that a claim looks at


class Position(NamedTuple):
    """Where in a room a row stands. Higher priorities come first, then lower places."""

    priority: float
    place: int


# ------------------------------------------------------------------------------------------------ next


def next_item(conn: Connection, project_id: int, person_id: int, role: str, *, seeded: bool = False) -> int | None:
    """The first item of a role that a person may have; None when there is none.

    `seeded`: by the seeded order alone, whatever the room and the priority.
    """
    of = {"of_project": project_id, "of_role": role, "of_person": person_id}
    found, cut = _look(conn, of, seeded, _WINDOWS)
    if found is None and cut and seeded:  # too much of the seeded order was this person's: for now the other one
        found, cut = _look(conn, of, False, _WINDOWS)
    while found is None and cut:  # to the end, now that there is nothing else
        found, cut = _look(conn, of, False, _WINDOWS[-1:])
    return found


def _look(conn: Connection, of: dict[str, Any], seeded: bool, windows: Sequence[int]) -> tuple[int | None, bool]:
    """An item, and whether a room was left before its end."""
    positions = {room: Position(*at) for room, *at in conn.execute(_CURSORS, of)}
    cut = False
    for room in (0,) if seeded else _rooms(conn, of):
        before = position = positions.get(room)
        found = None
        for n in windows:
            window = _window(conn, {**of, "of_room": room}, position, n)
            for number, priority, place, taken in window:
                if not taken:
                    found = number
                    break
                position = Position(priority, place)
            if found is not None or len(window) < n:
                break
        else:
            cut = True
        if position is not None and position != before:
            names = {"project": of["of_project"], "role": of["of_role"], "person": of["of_person"], "room": room}
            conn.execute(_keep(conn.dialect.name), {**names, **position._asdict()})
        if found is not None:
            return found, cut
    return None, cut


def _rooms(conn: Connection, of: dict[str, Any]) -> Iterator[int]:
    """The rooms that items of a role have, from 1 up: a step along the index for each."""
    room = conn.execute(_NEXT_ROOM, {**of, "of_room": 0}).scalar()
    while room is not None:
        yield room
        room = conn.execute(_NEXT_ROOM, {**of, "of_room": room}).scalar()


def _window(conn: Connection, of: dict[str, Any], start: Position | None, n: int) -> Sequence[Sequence[Any]]:
    """The next rows of a room from a position on, in order, with whether they were this person's already."""
    of = {**of, "most": n}
    if start is not None:
        of |= {"priority": start.priority, "place": start.place}
    if of["of_room"] == 0:
        return conn.execute(_SEEDED if start is None else _SEEDED_FROM, of).all()
    if start is None:
        return conn.execute(_IN_ROOM, of).all()
    # In two pieces, each a stretch of the index; as one condition it would be a scan of all that is before it.
    window = conn.execute(_IN_ROOM_SAME, of).all()
    if len(window) < n:
        window = [*window, *conn.execute(_IN_ROOM_LOWER, {**of, "most": n - len(window)})]
    return window


# ------------------------------------------------------------------------------------------------ room


def refresh(conn: Connection, item_id: int, *, claimed: bool = False) -> None:
    """Counts an item's room anew, after a lease went out or came back, and takes back the cursors that are past it.

    `claimed`: a lease went out. Then the item is where it was in the seeded order, and for nobody's taking anew.
    """
    row = conn.execute(_REFRESH, {"of_item": item_id}).one()
    if row.room > 0:
        conn.execute(_TAKE_BACK, {
            "of_item": item_id, "of_project": row.project, "of_role": row.role, "at_priority": row.priority,
            "at_place": row.place, "rooms": (row.room,) if claimed else (0, row.room),
        })  # fmt: skip


# ------------------------------------------------------------------------------------------ statements
# Made once: to put a statement together takes SQLAlchemy longer than SQLite needs to follow it.


def upsert(dialect: str, table: Table) -> Any:
    """An INSERT that may say what to do where the row is there: each dialect has its own."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


# Written into the statement, not bound to it: only so do databases see that the index of open items will do.
_HAS_ROOM = item.c.room > literal_column("0")
OPEN = (  # leases of an item that are out
    select(func.count())
    .select_from(assignment)
    .where(assignment.c.item == item.c.id, assignment.c.turn == 0, assignment.c.state == "open")
    .correlate(item)
    .scalar_subquery()
)
_FROZEN = select(batch.c.frozen_ms).where(batch.c.id == item.c.batch).correlate(item).scalar_subquery()
_FREE = item.c.wanted - item.c.done - OPEN
# Of the columns themselves: wanted − done − open leases for work; the rest is for everybody.
ROOM = case((or_(item.c.closed, _FROZEN.is_not(None)), 0), (item.c.role != "work", 1), (_FREE > 0, _FREE), else_=0)

_CURSORS = select(cursor.c.room, cursor.c.priority, cursor.c.place).where(
    cursor.c.project == bindparam("of_project"),
    cursor.c.role == bindparam("of_role"),
    cursor.c.person == bindparam("of_person"),
)
_OF_ROLE = (item.c.project == bindparam("of_project"), item.c.role == bindparam("of_role"))
_NEXT_ROOM = select(func.min(item.c.room)).where(*_OF_ROLE, item.c.room > bindparam("of_room"))
_WAS_THEIRS = (
    select(literal_column("1"))
    .where(
        assignment.c.item == item.c.id,
        assignment.c.person == bindparam("of_person"),
        assignment.c.turn == 0,
        assignment.c.state.in_(TAKEN),
    )
    .exists()
)
_ROWS: Select[Any] = (
    select(item.c.id, item.c.priority, item.c.place, _WAS_THEIRS.label("taken"))
    .where(*_OF_ROLE)
    .limit(bindparam("most"))
)
_SEEDED = _ROWS.where(_HAS_ROOM).order_by(item.c.place)
_SEEDED_FROM = _SEEDED.where(item.c.place >= bindparam("place"))
_IN_ROOM = _ROWS.where(item.c.room == bindparam("of_room")).order_by(item.c.priority.desc(), item.c.place)
_IN_ROOM_SAME = _IN_ROOM.where(item.c.priority == bindparam("priority"), item.c.place >= bindparam("place"))
_IN_ROOM_LOWER = _IN_ROOM.where(item.c.priority < bindparam("priority"))

_REFRESH = (
    update(item)
    .where(item.c.id == bindparam("of_item"))
    .values(room=ROOM)
    .returning(item.c.project, item.c.role, item.c.room, item.c.priority, item.c.place)
)
_PAST = case(
    (cursor.c.room == 0, cursor.c.place > bindparam("at_place")),
    else_=or_(
        cursor.c.priority < bindparam("at_priority"),
        and_(cursor.c.priority == bindparam("at_priority"), cursor.c.place > bindparam("at_place")),
    ),
)
_THEIRS = (
    select(literal_column("1"))
    .where(
        assignment.c.item == bindparam("of_item"),
        assignment.c.person == cursor.c.person,
        assignment.c.turn == 0,
        assignment.c.state.in_(TAKEN),
    )
    .correlate(cursor)
    .exists()
)
_TAKE_BACK = (
    update(cursor)
    .where(
        cursor.c.project == bindparam("of_project"),
        cursor.c.role == bindparam("of_role"),
        cursor.c.room.in_(bindparam("rooms", expanding=True)),
        _PAST,
        ~_THEIRS,
    )
    .values(priority=bindparam("at_priority"), place=bindparam("at_place"))
)


@cache
def _keep(dialect: str) -> Any:
    add = upsert(dialect, cursor)
    new = {"priority": add.excluded.priority, "place": add.excluded.place}
    return add.on_conflict_do_update(index_elements=["project", "role", "room", "person"], set_=new)
