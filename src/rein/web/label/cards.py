"""What a labeler is shown of an item, built field by field from a list of what they may see.

Flow     work.Claimed → `card_of` → bodies.Card → a page

Blindness is kept here, not on the page: a policy's name, an item's key and role, the right answer, the seed of the
order and the answers of others are read by no line of this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from rein.feedback import tables
from rein.feedback.kinds import KINDS
from rein.feedback.project import FLAGS, Project, Question
from rein.feedback.work import Claimed
from rein.web.label import bodies

HEAD_CHARS = 80


def asked(question: Question) -> bodies.Asked:
    """A question as a labeler meets it; the kind's own words where the project has none."""
    return bodies.Asked(
        name=question.name, kind=question.kind, text=question.text or KINDS[question.kind].words,
        points=question.points, axes=list(question.axes),
        flags={name: FLAGS.get(name, name.replace("_", " ")) for name in question.flags},
        ties=question.ties, required=question.required, rubric=dict(question.rubric),
    )  # fmt: skip


def fields_of(project: Project, context: dict[str, Any]) -> list[str]:
    """The fields of a context that are shown, from top to bottom."""
    return [name for name in project.fields or context if name in context]


def card_of(conn: Connection, claimed: Claimed) -> bodies.Card:
    """One item on one person's screen."""
    assignment, item, project, order = claimed.assignment, claimed.item, claimed.project, claimed.order
    revealed = not project.staged or assignment["revealed_ms"] is not None
    fields = fields_of(project, item["context"])
    notes = assignment["notes"]
    return bodies.Card(
        assignment=assignment["id"],
        revision=assignment["revision"],
        lease_ms=assignment["lease_ms"],
        practice=item["role"] == "onboarding",  # they know: it is explained to them afterwards
        context={name: item["context"][name] for name in fields} if revealed else None,
        fields=fields,
        staged=project.staged,
        revealed=revealed,
        candidates=[bodies.Shown(text=item["candidates"][k]["text"]) for k in order],
        questions=[asked(question) for question in project.questions],
        instructions=_version(conn, assignment["instruction"]),
        diff=project.diff,
        show_length=project.show_length,
        answers=claimed.answers,
        notes=None if notes is None else [notes[k] for k in order],
    )


def _version(conn: Connection, instruction: int | None) -> int:
    """The number of a version of the instructions; 0 where there were none."""
    if instruction is None:
        return 0
    query = select(tables.instruction.c.version).where(tables.instruction.c.id == instruction)
    return int(conn.execute(query).scalar_one())


def head_of(project: Project, item: Any, order: Sequence[int], revealed: bool) -> str:
    """The beginning of an item, for a list of one's own work: of the source, or before it was shown of a candidate.

    Of the one that this person was shown first: the order of the store says something of who wrote them.
    """
    text = ""
    if revealed:
        text = next((str(item["context"][name]) for name in fields_of(project, item["context"])), "")
    if not text:
        text = next((str(item["candidates"][k]["text"]) for k in order), "")
    return " ".join(text[: 4 * HEAD_CHARS].split())[:HEAD_CHARS]


def instructions_of(conn: Connection, project: int, version: int | None = None) -> bodies.Instructions:
    """A version of the instructions, by default the newest, and what was pinned below them."""
    table = tables.instruction
    rows = conn.execute(
        select(table.c.version, table.c.created_ms).where(table.c.project == project).order_by(table.c.version.desc())
    ).all()
    numbers: list[int] = [row.version for row in rows]
    wanted = version if version is not None and version in numbers else max(numbers, default=0)
    text = conn.execute(select(table.c.text).where(table.c.project == project, table.c.version == wanted)).scalar()
    thread = tables.thread
    pinned = conn.execute(
        select(thread.c.text, thread.c.reply)
        .where(thread.c.project == project, thread.c.pinned, thread.c.reply.is_not(None))
        .order_by(thread.c.id)
    ).all()
    return bodies.Instructions(
        version=wanted, text=text or "",
        versions=[bodies.Version(version=row.version, at_ms=row.created_ms) for row in rows],
        pinned=[bodies.Pinned(text=row.text, reply=row.reply) for row in pinned],
    )  # fmt: skip
