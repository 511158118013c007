"""Rein's own format: everything that a project's feedback is made of, a line each, in the order in which it came.

Flow     a project → lines → a project of another store, whose lines are the same, byte for byte

    {"format": "rein.feedback", "version": 1, "project": {…settings…}}    the first line
    {"instruction": {"version", "text"}}
    {"person": {"name", "role", "simulated"}}
    {"document": {"key", "format", "body"}}
    {"item": {"key", "context", "candidates", "role", "batch", "split", …}}
    {"said": {"item", "person", "key", "question", "kind", "act", "value", "shown", "times", …}}
    {"batch": {"name", "frozen"}}                                         the last lines

What was undone or revised is there too, because it was said. Nothing of a person but a pseudonym, and whether they
label or research. Not there: who may log in, leases, messages, the audit log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from rein.feedback import tables as t
from rein.feedback.exchange.rows import Asked, Document, Parsed, Said, Unreadable, named, need, without
from rein.feedback.exchange.standing import JUDGEMENT, Names, documents, feedback_rows, item_rows, people
from rein.feedback.project import Project
from rein.feedback.refused import MOST_ID

Json = Any
FORMAT, VERSION = "rein.feedback", 1
MOST_NAME = 100  # characters of a question's or a batch's name


def write_own(conn: Connection, project: int, settings: Project, names: Names) -> Iterator[dict[str, Json]]:
    """All lines of a project."""
    yield {"format": FORMAT, "version": VERSION, "project": settings.to_json()}
    guides = select(t.instruction.c.version, t.instruction.c.text).where(t.instruction.c.project == project)
    for guide in conn.execute(guides.order_by(t.instruction.c.version)).mappings():
        yield {"instruction": dict(guide)}
    for number in people(conn, project):
        row = names.row(number)
        role = "labeler" if row["role"] == "labeler" else "researcher"
        yield {"person": {"name": names.of(number), "role": role, "simulated": row["simulated"]}}
    for row in documents(conn, project):
        yield {"document": {name: row[name] for name in ("key", "format", "body")}}
    for row in item_rows(conn, project):
        item = {name: row[name] for name in _ITEM}
        yield {"item": {**item, "batch": row["batch_name"], "document": row["document_key"]}}
    for row in feedback_rows(conn, project):
        yield {"said": _said(row, names)}
    batches = select(t.batch.c.name, t.batch.c.frozen_ms).where(t.batch.c.project == project).order_by(t.batch.c.name)
    for row in conn.execute(batches).mappings():
        yield {"batch": {"name": row["name"], "frozen": row["frozen_ms"] is not None}}


_ITEM = ("key", "role", "split", "context", "candidates", "gold", "extra", "wanted", "priority", "closed")
_SAID = ("key", "question", "kind", "version", "act", "value", "shown", "times", "late", "extra", "at_ms")


def _said(row: RowMapping, names: Names) -> dict[str, Json]:
    of = None if row["of"] is None else [row["of_key"], row["of_act"]]
    said = {name: row[name] for name in _SAID}
    # The rows of one assignment belong together, whatever requests they came by.
    judgement = row["extra"].get(JUDGEMENT) if row["assignment"] is None else str(row["assignment"])
    said["extra"] = without(row["extra"], JUDGEMENT)
    return {"item": row["item_key"], "person": names.of(row["person"]), "judgement": judgement, **said, "of": of}


# --------------------------------------------------------------------------------------------------------- reading


def read_own(line: int, row: Mapping[str, Json]) -> Parsed:
    """A line. Raises Unreadable."""
    if "format" in row:
        if row["format"] != FORMAT or row.get("version") != VERSION:
            raise Unreadable(f"it is no {FORMAT} of version {VERSION}, which is all that this program reads")
        return Parsed(line, about=("project", need(row, "project", dict, "settings")))
    if len(row) != 1:
        raise Unreadable("a line has one field: instruction, person, document, item, said or batch")
    ((what, body),) = row.items()
    if not isinstance(body, dict):
        raise Unreadable(f"{what} is {named(body)}, but an object is expected")
    if what == "item":
        return Parsed(line, [(_read_item(body), [])])
    if what == "said":
        return Parsed(line, [(Asked({}, [], need(body, "item", str, "a text"), there=True), [_read_said(body)])])
    if what == "document":
        key, format = need(body, "key", str, "a text"), need(body, "format", str, "a name")
        return Parsed(line, document=Document(key, body.get("body"), format))
    if what in ("instruction", "person", "batch"):
        return Parsed(line, about=(what, _checked(what, body)))
    raise Unreadable(f"there is no {what!r}: instruction, person, document, item, said or batch")


def _read_item(body: Mapping[str, Json]) -> Asked:
    candidates = need(body, "candidates", list, "a list")
    if not all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in candidates):
        raise Unreadable("a candidate has no text")
    wanted = body.get("wanted")
    return Asked(
        need(body, "context", dict, "an object"), candidates, need(body, "key", str, "a text"),
        batch=need(body, "batch", str, "a name"), split=need(body, "split", str, "a name"),
        role=need(body, "role", str, "a role"), extra=need(body, "extra", dict, "an object"), gold=body.get("gold"),
        wanted=need(body, "wanted", int, "a number") or None if wanted is not None else None,
        priority=float(need(body, "priority", (int, float), "a number")), closed=body.get("closed") is True,
        document=_document(body),
    )  # fmt: skip


def _document(body: Mapping[str, Json]) -> str | None:
    return None if body.get("document") is None else str(need(body, "document", str, "the key of a document"))


def _read_said(body: Mapping[str, Json]) -> Said:
    of = body.get("of")
    if of is not None and not (isinstance(of, list) and len(of) == 2 and all(isinstance(one, str) for one in of)):
        raise Unreadable("of is neither null nor [key, act]")
    texts = {name: need(body, name, str, "a text") for name in ("person", "kind", "question", "act", "key")}
    tables = {name: need(body, name, dict, "an object") for name in ("value", "shown", "times", "extra")}
    _name(texts["question"], "question", least=0)
    turn, order = tables["shown"].get("turn", 0), tables["shown"].get("order", [])
    if turn not in (0, 1) or not isinstance(order, list) or any(type(one) is not int for one in order):
        raise Unreadable("shown has a turn that is neither 0 nor 1, or an order that is no list of numbers")
    if body.get("judgement") is not None:
        tables["extra"] = {**tables["extra"], JUDGEMENT: need(body, "judgement", str, "a text")}
    return Said(
        **texts, **tables, at_ms=_whole(body, "at_ms", MOST_ID), late=body.get("late") is True,
        version=need(body, "version", int, "a number"), of=None if of is None else (of[0], of[1]),
    )  # fmt: skip


def _checked(what: str, body: Mapping[str, Json]) -> Mapping[str, Json]:
    if what == "instruction":
        _whole(body, "version", 1_000_000)
        need(body, "text", str, "a text")
    elif what == "person":
        need(body, "name", str, "a text")
        if body.get("role") not in ("labeler", "researcher"):
            raise Unreadable("the role of a person is neither labeler nor researcher")
    else:
        _name(need(body, "name", str, "a text"), "name of a batch")
    return body


def _whole(body: Mapping[str, Json], name: str, most: int) -> int:
    value = need(body, name, int, "a number")
    if not 0 <= value <= most:
        raise Unreadable(f"{name} is {named(value)}, but 0 to {most} is expected")
    return int(value)


def _name(value: str, what: str, least: int = 1) -> None:
    if not least <= len(value) <= MOST_NAME or not value.isprintable():
        raise Unreadable(f"the {what} has not {least} to {MOST_NAME} printable characters")
