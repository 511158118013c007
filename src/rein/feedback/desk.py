"""What lies on the desk: a person's assignment with what belongs to it, checks of what is said, and rows of feedback.

Flow     (person, assignment) → `desk_of` → a `Desk`, or why it is none of theirs
         answers and notes as shown → `clean_answers`, `clean_notes` → values by candidate
         a value → `keep` → a row of feedback, and what stands by it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from rein.errors import suggestion
from rein.feedback.answers import stand, texts_of
from rein.feedback.claims import own
from rein.feedback.kinds import KINDS, BadValue
from rein.feedback.project import Project, Question
from rein.feedback.refused import Refused, check_key
from rein.feedback.tables import answer, assignment, batch, feedback, item, member, project

Json = Any
Values = Mapping[str, Json]  # by question, in the order that is shown

SKIP = Question("", "skip")
NOTES = Question("notes", "notes")


@dataclass(frozen=True)
class Desk:
    """A person's assignment with what belongs to it."""

    lease: dict[str, Json]
    item: dict[str, Json]
    settings: Project
    frozen: bool

    @property
    def order(self) -> list[int]:
        """order[place]: the candidate that is shown there."""
        order: list[int] = self.lease["order"]
        return order

    @property
    def texts(self) -> list[str]:
        """What the candidates say, in their own order."""
        return texts_of(self.item["candidates"])


def desk_of(conn: Connection, person_id: int, assignment_id: int) -> Desk:
    """A person's assignment. Raises Refused: unknown, not_yours, stopped."""
    lease = own(conn, person_id, assignment_id)
    row = conn.execute(_AROUND, {"of_item": lease["item"], "of_person": person_id}).mappings().one()
    if row["member_state"] in (None, "stopped"):
        raise Refused("stopped", "You do not work in this project any more.")
    asked = {column.name: row[column] for column in item.c}
    return Desk(lease, asked, Project.from_json(row["settings"]), row["frozen_ms"] is not None)


def check_changeable(desk: Desk) -> None:
    """Whether what was handed in may be changed or taken back. Raises Refused: frozen."""
    if desk.frozen:
        raise Refused("frozen", "The batch of this item takes no more changes.")
    if desk.item["role"] == "onboarding":
        raise Refused("frozen", "A practice item cannot be changed once its right answer was shown.")
    check_untold(desk)


def check_untold(desk: Desk) -> None:
    """Whether the person may still say something of their own here. Raises Refused: frozen."""
    if desk.lease["told_ms"] is not None:
        raise Refused("frozen", "You have seen what a researcher said of this item, so your answer stays as it was.")


def check_fresh(conn: Connection, person_id: int, key: str) -> None:
    """Whether no row of this person has the key of a request yet. Raises Refused: bad_value, key_reused."""
    if conn.execute(_OF_KEY, {"of_person": person_id, "of_key": check_key(key)}).first():
        raise Refused("key_reused", "This key was another request's. Give each request a key of its own.")


def clean_answers(desk: Desk, answers: Values) -> dict[str, dict[str, Json]]:
    """The answers, checked, by candidate. Raises Refused: bad_value."""
    if not isinstance(answers, Mapping):
        raise Refused("bad_value", "Answers are a table with a value for each question.")
    names = [question.name for question in desk.settings.questions]
    for name in answers:
        if name not in names:
            raise Refused("bad_value", f"There is no question {name!r}. {suggestion(str(name), names)}")
    texts = [desk.texts[candidate] for candidate in desk.order]
    found = {}
    for question in desk.settings.questions:
        value = answers.get(question.name)
        if value is None:
            if question.required:
                raise Refused("bad_value", f"{question.name} is not answered.")
            continue
        kind = KINDS[question.kind]
        try:
            found[question.name] = kind.reorder(kind.check(value, question, len(texts), texts=texts), desk.order)
        except BadValue as error:
            raise Refused("bad_value", f"{question.name}: {error.problem}.") from error
    if not found:
        raise Refused("bad_value", "Nothing is answered. Skip the item if it cannot be.")
    return found


def clean_notes(desk: Desk, notes: Sequence[str] | None) -> list[str]:
    """The notes, checked, by candidate. Raises Refused: bad_value."""
    if not desk.settings.staged:
        raise Refused("bad_value", "This project takes no notes.")
    kind = KINDS["notes"]
    try:
        value = kind.check({"notes": notes}, NOTES, len(desk.order))
    except BadValue as error:
        raise Refused("bad_value", f"{error.problem}.") from error
    said: list[str] = kind.reorder(value, desk.order)["notes"]
    return said


# --------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Standing:
    """What stands of an assignment."""

    seqs: dict[str, int]  # by question
    late: bool


def standing_of(conn: Connection, assignment_id: int) -> Standing:
    """What stands of an assignment."""
    rows = conn.execute(_STANDS, {"of_id": assignment_id}).all()
    return Standing({row.question: row.seq for row in rows}, any(row.late for row in rows))


def skipped(conn: Connection, assignment_id: int) -> int:
    """The row by which an assignment was skipped last."""
    rows = select(feedback.c.seq).join(assignment, assignment.c.item == feedback.c.item)
    of = (assignment.c.id == assignment_id, feedback.c.assignment == assignment_id, feedback.c.act == "skip")
    return int(conn.execute(rows.where(*of).order_by(feedback.c.seq.desc()).limit(1)).scalar_one())


def keep(
    conn: Connection,
    desk: Desk,
    now: int,
    key: str,
    question: Question,
    value: Json,
    act: str,
    *,
    of: int | None = None,
    late: bool = False,
    how: tuple[dict[str, Json], dict[str, Json]] | None = None,
) -> int:
    """Appends a row of feedback; returns its number."""
    shown, times = how or ({}, {})
    lease = desk.lease
    row = {
        "project": lease["project"], "item": lease["item"], "person": lease["person"], "assignment": lease["id"],
        "key": key, "question": question.name, "kind": question.kind, "version": KINDS[question.kind].version,
        "act": act, "of": of, "value": value,
        "shown": {**shown, **{name: lease[name] for name in ("order", "seed", "turn", "instruction")}},
        "times": times, "late": late, "extra": {}, "at_ms": now,
    }  # fmt: skip
    key_of = conn.execute(_APPEND, row).inserted_primary_key
    assert key_of is not None, "an INSERT of one row has a key"
    seq = int(key_of[0])
    stand(conn, desk.settings, {**row, "seq": seq}, desk.texts)
    return seq


# --------------------------------------------------------------------------------------------- statements

_AROUND = (
    select(item, project.c.settings, batch.c.frozen_ms, member.c.state.label("member_state"))
    .select_from(item)
    .join(project, project.c.id == item.c.project)
    .join(batch, batch.c.id == item.c.batch)
    .outerjoin(member, (member.c.project == item.c.project) & (member.c.person == bindparam("of_person")))
    .where(item.c.id == bindparam("of_item"))
)
_OF_KEY = (
    select(feedback.c.seq)
    .where(feedback.c.person == bindparam("of_person"), feedback.c.key == bindparam("of_key"))
    .limit(1)
)
_STANDS = select(answer.c.question, answer.c.seq, answer.c.late).where(answer.c.assignment == bindparam("of_id"))
_APPEND = insert(feedback)
