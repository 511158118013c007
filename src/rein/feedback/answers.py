"""What stands: the rows of feedback folded into table `answer`, and feedback that came from elsewhere.

Flow     a row of feedback → `stand` → the answer to its question, with what it measures; an undo takes it away
         all feedback of a project → `rebuild_answers` → table `answer` anew, the same as it was
         what a file says → `Record`s → `record` → feedback without an assignment, and its answers

An answer goes by its assignment and question. One that no assignment led to goes by the number of its first row,
negative. Notes, presses and skips answer no question and are in `feedback` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, case, delete, func, insert, select, update

from rein.feedback.items import Added, load_project
from rein.feedback.kinds import KINDS, BadValue
from rein.feedback.project import Project, Question
from rein.feedback.queue import OPEN, ROOM, upsert
from rein.feedback.refused import Refused, check_key, is_id, unstorable
from rein.feedback.tables import ACTS, answer, assignment, cursor, feedback, item

Json = Any
Row = Mapping[str, Json]  # of table `feedback`
Standing = dict[tuple[int, str], dict[str, Json]]  # rows of table `answer`, by assignment and question

_AT_ONCE = 500  # rows of a statement
_WINDOW = 1_000  # numbers of items that are in memory at once
_MOST_MS = 2**31 - 1  # that the column holds: three weeks


def stand(conn: Connection, settings: Project, row: Row, texts: Sequence[str]) -> None:
    """Makes a row of feedback the answer to its question, or takes the answer away that it undoes."""
    if not KINDS[row["kind"]].asked:
        return
    if row["act"] == "undo":
        of = (answer.c.assignment == _of(conn, row), answer.c.question == row["question"])
        conn.execute(delete(answer).where(*of))
    elif row["act"] in ("say", "revise"):
        conn.execute(_stands(conn.dialect.name), _columns(settings, row, texts, _of(conn, row)))


@cache
def _stands(dialect: str) -> Any:
    add = upsert(dialect, answer)
    rest = {column.name: add.excluded[column.name] for column in answer.c if not column.primary_key}
    return add.on_conflict_do_update(index_elements=["assignment", "question"], set_=rest)


def _of(conn: Connection, row: Row) -> int:
    """What an answer goes by."""
    if row["assignment"] is not None:
        return int(row["assignment"])
    first, of = row["seq"], row["of"]
    while of is not None:
        first, of = conn.execute(select(feedback.c.seq, feedback.c.of).where(feedback.c.seq == of)).one()
    return -int(first)


def _columns(settings: Project, row: Row, texts: Sequence[str], of: int) -> dict[str, Json]:
    order = row["shown"].get("order") or list(range(len(texts)))
    measure = KINDS[row["kind"]].measure(row["value"], _question(settings, row), texts, order)
    return {
        "assignment": of,
        "turn": row["shown"].get("turn", 0),
        "active_ms": active_ms(row["times"]),
        **{name: row[name] for name in ("question", "seq", "project", "item", "person", "late", "at_ms")},
        **measure._asdict(),
    }


def _question(settings: Project, row: Row) -> Question:
    """The project's; of what it does not ask any more, or never did, one of the same kind."""
    asked = {question.name: question for question in settings.questions}.get(row["question"])
    return asked if asked and asked.kind == row["kind"] else Question(row["question"], row["kind"])


def active_ms(times: Mapping[str, Json]) -> int | None:
    """How long a person was at it, where the page said something possible.

    Example  >>> active_ms({"active_ms": 1500.4}), active_ms({"active_ms": -1}), active_ms({})
             (1500, None, None)
    """
    said = times.get("active_ms")
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= _MOST_MS:
        return None
    return int(said)


def texts_of(candidates: Sequence[Mapping[str, Json]]) -> list[str]:
    """What the candidates of an item say."""
    return [candidate["text"] for candidate in candidates]


def rebuild_answers(conn: Connection, project_id: int) -> None:
    """Makes the answers of a project anew from its feedback."""
    conn.execute(delete(answer).where(answer.c.project == project_id))
    for _, _, standing in stood(conn, project_id):
        if standing:
            conn.execute(insert(answer), list(standing.values()))


def stood(conn: Connection, project_id: int) -> Iterator[tuple[Select[Any], int, Standing]]:
    """What should stand, from the feedback alone, a thousand items at a time.

    Yields   a query of the items' numbers; how many rows of feedback they have; what `fold` makes of those
    Raises   Refused: unknown.
    """
    _, settings = load_project(conn, project_id)
    ends = select(func.min(item.c.id), func.max(item.c.id)).where(item.c.project == project_id)
    first, last = conn.execute(ends).one()
    for begin in range(first, last + 1, _WINDOW) if first is not None else ():
        some = (item.c.project == project_id, item.c.id >= begin, item.c.id < begin + _WINDOW)
        those = select(item.c.id).where(*some)
        texts = {row.id: texts_of(row.candidates) for row in conn.execute(those.add_columns(item.c.candidates))}
        of_those = select(feedback).where(feedback.c.item.in_(those), feedback.c.project == project_id)
        said = conn.execute(of_those.order_by(feedback.c.seq)).mappings().all()
        yield those, len(said), fold(settings, map(dict, said), texts)


def fold(settings: Project, rows: Iterable[Row], texts: Mapping[int, Sequence[str]]) -> Standing:
    """What stands after all rows of some items, in their order: what `stand` leaves in table `answer`, without it.

    texts   by item
    """
    first: dict[int, int] = {}
    standing: Standing = {}
    for row in rows:
        first[row["seq"]] = row["seq"] if row["of"] is None else first[row["of"]]
        of = -first[row["seq"]] if row["assignment"] is None else row["assignment"]
        if not KINDS[row["kind"]].asked:
            continue
        if row["act"] == "undo":
            standing.pop((of, row["question"]), None)
        elif row["act"] in ("say", "revise"):
            standing[of, row["question"]] = _columns(settings, row, texts[row["item"]], of)
    return standing


# --------------------------------------------------------------------------------------------- from elsewhere


@dataclass(frozen=True)
class Record:
    """Something that was said elsewhere: in an imported file, or by pressing."""

    item: int
    person: int
    question: str
    kind: str
    value: Mapping[str, Json]  # in the order of the item's candidates
    key: str  # whatever tells it from the person's other ones: the same one again is the same row
    act: str = "say"
    shown: Mapping[str, Json] = field(default_factory=dict)  # {"order": …}, where it is known
    times: Mapping[str, Json] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)
    at_ms: int | None = None  # None: now
    late: bool = False
    of: tuple[str, str] | None = None  # key and act of the row that a revision or an undo is of; None: what stands


def record(conn: Connection, now: int, project_id: int, rows: Iterable[Record]) -> Added:
    """Keeps what was said elsewhere, all of it or nothing. A row that is there already is known, and changes nothing.

    A revision and an undo are of the row that they name, or else of what stands of the same person for that item and
    question. An item that has more answers than it wanted wants as many as it has.

    Raises   Refused: unknown for an item of another project; bad_value for a value that is none of its kind, for a
             kind that is not the question's, and for a revision or an undo of nothing.
    """
    _, settings = load_project(conn, project_id)
    keep = partial(_insert, conn, settings)
    added = known = 0
    left = iter(rows)
    while some := list(islice(left, _AT_ONCE)):
        there = _there(conn, some)
        candidates = _candidates(conn, project_id, some)
        waiting: list[dict[str, Json]] = []
        for one in some:
            mark = (one.person, one.key, one.question, one.act)
            if mark in there:
                known += 1
                continue
            there.add(mark)
            if one.item not in candidates:
                raise Refused("unknown", f"There is no item {one.item} in this project.")
            row = _checked(settings, one, now, project_id, candidates[one.item])
            if one.act in ("revise", "undo"):
                keep(waiting, candidates)
                waiting = []
                keep([{**row, "of": _standing(conn, one)}], candidates)
            else:
                waiting.append(row)
            added += 1
        keep(waiting, candidates)
        _count(conn, [one.item for one in some])
    if added:
        conn.execute(delete(cursor).where(cursor.c.project == project_id))
    return Added(added, known)


def _there(conn: Connection, some: Sequence[Record]) -> set[tuple[int, str, str, str]]:
    for one in some:
        check_key(one.key)
    found = conn.execute(
        select(feedback.c.person, feedback.c.key, feedback.c.question, feedback.c.act).where(
            feedback.c.person.in_({one.person for one in some}), feedback.c.key.in_({one.key for one in some})
        )
    )
    return {(person, key, question, act) for person, key, question, act in found}


def _candidates(conn: Connection, project_id: int, some: Sequence[Record]) -> dict[int, Json]:
    numbers = {one.item for one in some if is_id(one.item)}
    found = conn.execute(
        select(item.c.id, item.c.candidates).where(item.c.id.in_(numbers), item.c.project == project_id)
    )
    return {number: candidates for number, candidates in found}


def _checked(settings: Project, one: Record, now: int, project_id: int, candidates: Json) -> dict[str, Json]:
    kind = KINDS.get(one.kind)
    if kind is None or one.act not in ACTS:
        raise Refused("bad_value", f"There is no kind {one.kind!r} or no act {one.act!r}.")
    # Else two kinds of answers would stand under one name, and nothing could be computed of them.
    asked = next((question.kind for question in settings.questions if question.name == one.question), one.kind)
    if asked != one.kind:
        raise Refused("bad_value", f"The project asks {one.question} as {asked}, and this is of kind {one.kind}.")
    order = one.shown.get("order")
    if order is not None and sorted(order) != list(range(len(candidates))):
        raise Refused("bad_value", f"The shown order {order!r} is none of {len(candidates)} candidates.")
    if why := unstorable((one.question, one.value, one.shown, one.times, one.extra)):
        raise Refused("bad_value", f"It cannot be kept: {why}.")
    value = dict(one.value)
    if one.act in ("say", "revise", "note", "skip", "event"):
        question = _question(settings, {"question": one.question, "kind": one.kind})
        try:
            value = kind.check(value, question, len(candidates), strict=False)
        except BadValue as error:
            raise Refused("bad_value", f"{one.question or one.kind}: {error.problem}.") from error
    return {
        "project": project_id, "item": one.item, "person": one.person, "assignment": None, "key": one.key,
        "question": one.question, "kind": one.kind, "version": kind.version, "act": one.act, "of": None,
        "value": value, "shown": dict(one.shown), "times": dict(one.times), "late": one.late,
        "extra": dict(one.extra), "at_ms": now if one.at_ms is None else one.at_ms,
    }  # fmt: skip


def _standing(conn: Connection, one: Record) -> int:
    """The row that a revision or an undo is of."""
    if one.of is not None:
        named = select(feedback.c.seq).where(
            feedback.c.item == one.item, feedback.c.person == one.person, feedback.c.question == one.question,
            feedback.c.key == one.of[0], feedback.c.act == one.of[1],
        )  # fmt: skip
    else:
        named = select(answer.c.seq).where(
            answer.c.item == one.item, answer.c.person == one.person, answer.c.question == one.question,
            answer.c.assignment < 0,
        )  # fmt: skip
    found = conn.execute(named).scalar()
    if found is None:
        raise Refused("bad_value", f"The {one.act} of {one.question} is of nothing that this person said.")
    return int(found)


def _insert(conn: Connection, settings: Project, rows: list[dict[str, Json]], candidates: Mapping[int, Json]) -> None:
    if not rows:
        return
    numbered = insert(feedback).returning(feedback.c.seq, sort_by_parameter_order=True)
    numbers = conn.execute(numbered, rows).scalars().all()
    said: list[dict[str, Json]] = []
    for seq, row in zip(numbers, rows, strict=True):
        row["seq"] = seq
        texts = texts_of(candidates[row["item"]])
        if row["of"] is not None:
            stand(conn, settings, row, texts)
        elif row["act"] == "say" and KINDS[row["kind"]].asked:
            said.append(_columns(settings, row, texts, -seq))
    if said:
        conn.execute(insert(answer), said)


_BY_LEASE = (
    select(func.count())
    .select_from(assignment)
    .where(assignment.c.item == item.c.id, assignment.c.turn == 0, assignment.c.counted)
    .correlate(item)
    .scalar_subquery()
)
_ELSEWHERE = (
    select(func.count(answer.c.person.distinct()))
    .where(answer.c.item == item.c.id, answer.c.assignment < 0)
    .correlate(item)
    .scalar_subquery()
)
ANSWERED = _BY_LEASE + _ELSEWHERE  # people; what column `done` is
_PLANNED = item.c.done + OPEN


def _count(conn: Connection, numbers: Iterable[int]) -> None:
    """Sets how many people answered items, some of them elsewhere."""
    some = update(item).where(item.c.id.in_(set(numbers)))
    conn.execute(some.values(done=ANSWERED))
    work = some.where(item.c.role == "work")
    conn.execute(work.values(wanted=case((item.c.wanted < _PLANNED, _PLANNED), else_=item.c.wanted)))
    conn.execute(some.values(room=ROOM))
