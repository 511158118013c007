"""TAMER lessons in the store: the record of a lesson as rows of feedback, and back to the file it was.

Flow     record.jsonl (record.py) → an item, and a row for each of its lines → the same bytes again

The item's context is what was taught and how; its one candidate is the agent. It is closed: nobody is asked about it. A
press is a row of kind `press`, any other line one of kind `event`; the number of the line is in the row's key. A lesson
that went on since it was put here adds its new lines alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sqlalchemy import Connection, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from rein.errors import UserError
from rein.feedback.answers import Record, record
from rein.feedback.items import NewItem, add_items, create_project, load_project
from rein.feedback.kinds import KINDS, BadValue
from rein.feedback.people import add_person, find_person
from rein.feedback.project import Project, Question
from rein.feedback.record import FORMAT, Row, encode, read_record
from rein.feedback.refused import Refused
from rein.feedback.store import Store
from rein.feedback.tables import feedback, item
from rein.report.legible import count

_AT_ONCE = 500  # rows of a reading, or of a transaction
# Settings of the commands that say nothing of what was taught: files, and the page's server.
_BESIDE = ("out", "store", "resume", "plain", "host", "port", "allow_host", "browser")


@dataclass(frozen=True)
class Kept:
    """What putting a lesson did: its item, the lines that are new, and those that were there."""

    item: int
    added: int
    known: int


def lessons(name: str, title: str = "") -> Project:
    """A project that lessons can be put into."""
    return Project(name, title, questions=(Question("press", "press", "Press while you watch the agent."),))


def put_lesson(conn: Connection, now: int, project_id: int, person_id: int, path: Path) -> Kept:
    """Puts the record of a lesson into a project; what is there of it already is compared, and stays.

    now     milliseconds since 1970; a row's own time, on the lesson's clock, is in its value

    Raises   UserError for what is no record, or is another one than the store has; Refused for an unknown project, and
             for one that asks for no presses.
    """
    lines = _lines(path)
    place = _place(conn, now, project_id, person_id, next(lines))
    known = _known(conn, place, path)
    new = (_said(place, path, line) for line in _lines(path) if line.number > known)
    return Kept(place.item, record(conn, now, project_id, new).added, known)


class _Place(NamedTuple):
    project: int
    item: int
    person: int
    question: str


def _place(conn: Connection, now: int, project_id: int, person_id: int, header: _Line) -> _Place:
    """Where the rows of a lesson go; makes its item where there is none."""
    _, settings = load_project(conn, project_id)
    question = next((one.name for one in settings.questions if one.kind == "press"), None)
    if question is None:
        raise Refused("bad_value", f"The project {settings.name} asks for no presses, so it takes no lessons.")
    return _Place(project_id, _item(conn, now, project_id, header), person_id, question)


def _known(conn: Connection, place: _Place, path: Path) -> int:
    """How many lines of the record the store has."""
    known = 0
    for mine, stored in zip(_lines(path), lines_of(conn, place.item), strict=False):  # either may have more
        if mine.text != stored:
            raise UserError(
                f"{path}, line {mine.number} is not what the store has of this lesson.",
                "A record is never changed: put the one that was written by the lesson.",
            )
        known = mine.number
    return known


class _Line(NamedTuple):
    number: int
    row: Row
    text: bytes


def _lines(path: Path) -> Iterator[_Line]:
    rows = read_record(path)
    row = next(rows)
    with path.open("rb") as file:
        yield _Line(1, row, file.readline())
        for number, row in enumerate(rows, start=2):
            yield _Line(number, row, file.readline())


def _said(place: _Place, path: Path, line: _Line) -> Record:
    name = "press" if line.row["kind"] == "press" else "event"
    try:
        value = KINDS[name].check(line.row, Question("", name), 1)
    except BadValue as bad:
        raise UserError(
            f"{path}, line {line.number} cannot be kept: {bad.problem}.", "Restore the record from a copy."
        ) from None
    # A line that somebody wrote otherwise than record.py does is kept as it is.
    extra = {} if encode(value) == line.text else {"line": line.text.decode("utf-8")}
    key = f"lesson {place.item}:{line.number}"
    if name == "press":
        return Record(place.item, place.person, place.question, name, value, key, extra=extra)
    return Record(place.item, place.person, "", name, value, key, act="event", extra=extra)


def _item(conn: Connection, now: int, project_id: int, header: _Line) -> int:
    """The item of a lesson, by the header of its record, which says when it began and where it was written."""
    key = f"lesson-{hashlib.sha256(header.text).hexdigest()[:32]}"
    where = (item.c.project == project_id, item.c.key == key)
    found = conn.execute(select(item.c.id).where(*where)).scalar()
    if found is not None:
        return int(found)
    config: dict[str, Any] = {name: value for name, value in header.row["config"].items() if name not in _BESIDE}
    technique, task = str(config.get("technique", "")), str(config.get("task", ""))
    new = NewItem(
        key,
        {"task": task, "config": config},
        [{"text": f"An agent that learns {task} by {technique}.", "policy": technique}],
        batch="lessons",
        extra={"format": FORMAT, "version": header.row["version"]},
        wanted=1,
    )
    add_items(conn, now, project_id, [new])
    conn.execute(update(item).where(*where).values(closed=True, room=0))
    return int(conn.execute(select(item.c.id).where(*where)).scalar_one())


# ------------------------------------------------------------------------------------------------- and back


def lines_of(conn: Connection, item_id: int) -> Iterator[bytes]:
    """The lines of a lesson's record, as far as the store has them.

    Raises   UserError where one is missing.
    """
    last, number = 0, 0
    while True:
        rows = conn.execute(
            select(feedback.c.seq, feedback.c.key, feedback.c.value, feedback.c.extra)
            .where(feedback.c.item == item_id, feedback.c.kind.in_(("press", "event")), feedback.c.seq > last)
            .order_by(feedback.c.seq)
            .limit(_AT_ONCE)
        ).all()
        for row in rows:
            number += 1
            if row.key != f"lesson {item_id}:{number}":
                raise UserError(
                    f"Item {item_id} has no whole lesson: its line {number} is not where it belongs.",
                    "Put the record of the lesson into another project.",
                )
            yield row.extra["line"].encode("utf-8") if "line" in row.extra else encode(row.value)
        if len(rows) < _AT_ONCE:
            return
        last = rows[-1].seq


def write_lesson(conn: Connection, item_id: int, out: BinaryIO) -> int:
    """Writes the record of a lesson; returns the number of its lines.

    Raises   UserError where the item has none, or one of its lines is missing.
    """
    lines = 0
    for line in lines_of(conn, item_id):
        out.write(line)
        lines += 1
    if lines == 0:
        raise UserError(f"Item {item_id} is no lesson.", "Name the item of one: its key begins with lesson-.")
    return lines


# ------------------------------------------------------------------------------------------- of a command


def check_store(address: str) -> None:
    """Whether a lesson can be put into this store when it has ended: better known before it begins.

    Raises   UserError where it cannot be opened or made, and for an address with a password, which would stand in the
             record among the words of the command.
    """
    try:
        password = "://" in address and make_url(address).password is not None
    except (ArgumentError, ValueError):
        password = False  # Store.open says what is wrong
    if password:
        raise UserError(
            "--store has a password, and a record keeps the command that began it.",
            "Leave the password out of the address: PostgreSQL reads it from PGPASSWORD or ~/.pgpass.",
        )
    Store.open(address, create=True).close()


def keep_lesson(address: str, path: Path) -> str:
    """Puts the record of a lesson that has ended into a store, into the project of its task; returns a line about it.

    What fails is in the line too, with how to go on: the record is whole all the same.
    """
    try:
        header = next(_lines(path))
        task = str(header.row["config"].get("task", "lesson"))
        name = "tamer-" + "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in task)[:80]
        who = "trainer" if header.row["config"].get("trainer", "person") == "person" else "simulated trainer"
        with Store.open(address, create=True) as store:
            kept = _in_parts(store, path, header, name, who)
    except (UserError, Refused) as error:
        problem = error.problem if isinstance(error, UserError) else error.text
        return (
            f"store             not kept in {_plain(address)}: {problem}\n"
            f"                  the record is whole; later: rein tamer replay {path} --store {_plain(address)}"
        )
    known = f", {count(kept.known, 'line')} known" if kept.known else ""
    return f"store             {_plain(address)}, project {name}: {count(kept.added, 'line')} added{known}"


def _in_parts(store: Store, path: Path, header: _Line, name: str, who: str) -> Kept:
    """As `put_lesson`, in many transactions: the store may have a server, and labelers would wait for a long one.

    Where it ends early, the next time goes on from there.
    """
    now = time.time_ns() // 1_000_000

    def begin(conn: Connection) -> _Place:
        try:
            project_id, _ = load_project(conn, name)
        except Refused:
            project_id = create_project(conn, now, lessons(name, f"Lessons: {header.row['config'].get('task', '')}"))
        person = find_person(conn, who)
        if person is None:
            person = add_person(conn, now, who, "labeler", simulated=who != "trainer")
        return _place(conn, now, project_id, person, header)

    for line in _lines(path):  # a record that is broken somewhere is not kept in part
        _said(_Place(0, 0, 0, ""), path, line)
    place = store.write(begin)
    with store.reading() as conn:
        known = _known(conn, place, path)
    added = 0
    new = (_said(place, path, line) for line in _lines(path) if line.number > known)
    while some := list(islice(new, _AT_ONCE)):
        added += store.write(partial(record, now=now, project_id=place.project, rows=some)).added
    return Kept(place.item, added, known)


def _plain(address: str) -> str:
    """An address without a password."""
    try:
        return make_url(address).render_as_string() if "://" in address else address
    except (ArgumentError, ValueError):
        return "the store"
