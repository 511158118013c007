"""Items out, and back: who is given what, for how long.

Flow     (person, project) → `claim` → items, each with a lease and the order in which it is shown
         a page that is looked at → `heartbeat` → longer leases; one that was closed → `release`
         leases that ended → `expire` → room for others, in the transaction of the next claim at the latest

What a person is given next is drawn from the project's shares, with the project's seed, the person and how many items
this person had: a gold item, a calibration item, one's own again with the sides mirrored, a drift item, or work. Where
there is none of what was drawn, work is given, and where no work is left, what everybody is to answer. The order of
the candidates is drawn with the project's seed, the item and the person. So two stores with the same rows and seed hand
out the same.

A lease that ended may be taken up again by the same person; an item is never given to a person a second time otherwise,
but for the mirrored one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from rein.feedback.items import draw, share
from rein.feedback.kinds import KINDS
from rein.feedback.project import Project
from rein.feedback.queue import next_item, refresh
from rein.feedback.refused import Refused, is_id
from rein.feedback.tables import answer, assignment, batch, feedback, instruction, item, member, project
from rein.feedback.training import begun, passed, settle

Json = Any

MOST_AT_ONCE = 200  # leases of one request
REPEAT_AFTER = 10  # items that a person answers before an own one comes again
_REPEAT_OF = 50  # of these, one that is drawn
# What everybody is to answer, in the order in which it is given where no work is left.
_EVERYBODYS = ("calibration", "drift", "gold")
_WRITTEN = ("demonstration", "edit")  # nobody writes the same twice


@dataclass(frozen=True)
class Claimed:
    """An item in a person's hands."""

    assignment: Mapping[str, Json]  # a row of the table
    item: Mapping[str, Json]
    project: Project
    order: Sequence[int]  # order[place]: the candidate that is shown there
    answers: dict[str, dict[str, Json]] | None = None  # what was said, in the order that is shown


@dataclass(frozen=True)
class _Member:
    """A person in a project."""

    person: int
    project: int
    settings: Project
    closed: bool
    state: str
    since_ms: int
    training: Json
    claims: int
    instruction: int | None  # the version that stands beside the items now


def claim(conn: Connection, now: int, person_id: int, project_id: int, count: int = 1) -> list[Claimed]:
    """What a person works at next: first what is in hand, then new items, up to `Project.ahead` at once.

    Fewer than `count`, or none, when there is nothing for this person; `nothing` says why.

    Raises   Refused: unknown when there is no such project, or the person has no part in it.
    """
    me = _member(conn, person_id, project_id)
    if me.closed or me.state == "stopped" or not _asks(me.settings):
        return []
    hand = [dict(row) for row in conn.execute(_IN_HAND, {"of_person": person_id, "of_project": project_id}).mappings()]
    for lease in hand:
        lease["lease_ms"] = _end(now, me.settings)
        conn.execute(_LENGTHEN, {"of_id": lease["id"], "end_ms": lease["lease_ms"]})
    expire(conn, now)
    found = [_with_item(conn, me.settings, lease) for lease in hand[: max(count, 0)]]
    for _ in range(min(count - len(found), me.settings.ahead - len(hand))):
        me, given = _give(conn, now, me)
        if given is None:
            break
        found.append(given)
    return found


def _asks(settings: Project) -> bool:
    """Whether a labeler is asked anything: a project of lessons is one of presses alone."""
    return any(KINDS[question.kind].asked for question in settings.questions)


def nothing(conn: Connection, person_id: int, project_id: int) -> str:
    """Why a claim gives nothing: closed, stopped, failed training, all done.

    Raises   Refused: unknown.
    """
    me = _member(conn, person_id, project_id)
    if me.state == "stopped":
        round_ = me.training
        failed = round_ is not None and not passed(me.settings, round_["agreed"], round_["median_s"])
        return "failed training" if failed else "stopped"
    return "closed" if me.closed else "all done"


def _member(conn: Connection, person_id: int, project_id: int) -> _Member:
    found = None
    if is_id(person_id) and is_id(project_id):
        found = conn.execute(_MEMBER, {"of_person": person_id, "of_project": project_id}).mappings().first()
    if found is None:
        raise Refused("unknown", "There is no such project for you. Ask a researcher for an invitation.")
    return _Member(person_id, project_id, **{**found, "settings": Project.from_json(found["settings"])})


def _end(now: int, settings: Project) -> int:
    return now + 1000 * settings.lease_s


# ------------------------------------------------------------------------------------------------ giving


def _give(conn: Connection, now: int, me: _Member) -> tuple[_Member, Claimed | None]:
    """A new item, or none, and the member as it then is."""
    if me.state == "training":
        number = _practice(conn, me)
        if number is not None:
            return _lend(conn, now, me, number, turn=0)
        if not _may_work(conn, now, me):
            return me, None
        me = _member(conn, me.person, me.project)
    for role, seeded in _wishes(me):
        if role == "repeat":
            number, turn = _own_again(conn, me), 1
        else:
            number, turn = next_item(conn, me.project, me.person, role, seeded=seeded), 0
        if number is not None:
            return _lend(conn, now, me, number, turn)
    return me, None


def _practice(conn: Connection, me: _Member) -> int | None:
    if begun(conn, me.project, me.person, me.since_ms) >= me.settings.onboarding:
        return None
    return next_item(conn, me.project, me.person, "onboarding")


def _may_work(conn: Connection, now: int, me: _Member) -> bool:
    """Whether a person in training, who has no practice item to come, works from now on."""
    if me.settings.onboarding > 0:
        if not begun(conn, me.project, me.person, me.since_ms):
            return False  # a researcher has not put the practice items in yet
        return settle(conn, now, me.project, me.person, me.settings).state == "working"
    of = (member.c.project == me.project, member.c.person == me.person)
    conn.execute(update(member).where(*of).values(state="working", since_ms=now))
    return True


def _wishes(me: _Member) -> Iterator[tuple[str, bool]]:
    """Roles in the order in which they are tried, and whether by the seeded order alone."""
    settings, of = me.settings, (me.settings.seed, me.person, me.claims)
    drawn, end, u = "work", 0.0, share("role", *of)
    for role, part in (
        ("gold", settings.gold_share), ("calibration", settings.calibration_share), ("repeat", settings.repeat_share),
        ("drift", settings.drift_share),
    ):  # fmt: skip
        if end <= u < end + part:
            drawn = role
        end += part
    if drawn != "work":
        yield drawn, False
    yield "work", share("uniform", *of) < settings.uniform_share
    yield from ((role, False) for role in _EVERYBODYS if role != drawn)


def _own_again(conn: Connection, me: _Member) -> int | None:
    """An item that this person answered some time ago, was not given again yet, and knows nobody else's answer to."""
    if any(question.kind in _WRITTEN for question in me.settings.questions):
        return None
    own = (
        select(assignment.c.id, assignment.c.item, assignment.c.told_ms)
        .where(assignment.c.person == me.person, assignment.c.project == me.project,
               assignment.c.state == "submitted")
        .order_by(assignment.c.id.desc())
        .limit(_REPEAT_OF)
        .offset(REPEAT_AFTER)
        .subquery("own")
    )  # fmt: skip
    again = assignment.alias("again")
    once = select(again.c.id).where(again.c.item == own.c.item, again.c.person == me.person, again.c.turn == 1)
    found = conn.execute(
        select(own.c.item)
        .join(item, item.c.id == own.c.item)
        .join(batch, batch.c.id == item.c.batch)
        .where(item.c.role == "work", ~item.c.closed, batch.c.frozen_ms.is_(None), ~once.exists())
        .where(own.c.told_ms.is_(None))
        .order_by(own.c.id)
    ).scalars().all()  # fmt: skip
    return found[draw("again", me.settings.seed, me.person, me.claims) % len(found)] if found else None


def shown_order(seed: int, n: int, turn: int) -> list[int]:
    """The order in which `n` candidates are shown; on the second turn it is mirrored.

    Example  >>> shown_order(7, 3, 0), shown_order(7, 3, 1)
             ([1, 2, 0], [0, 2, 1])
    """
    order = sorted(range(n), key=lambda candidate: draw(seed, candidate))
    return order[::-1] if turn % 2 else order


def _lend(conn: Connection, now: int, me: _Member, item_id: int, turn: int) -> tuple[_Member, Claimed]:
    asked = dict(conn.execute(_ITEM, {"of_id": item_id}).mappings().one())
    seed = draw("order", me.settings.seed, item_id, me.person)
    order = shown_order(seed, len(asked["candidates"]), turn)
    row = {
        "item": item_id, "person": me.person, "project": me.project, "turn": turn, "state": "open", "seed": seed,
        "order": order, "instruction": me.instruction, "revision": 0,
        "counted": False, "claimed_ms": now, "lease_ms": _end(now, me.settings),
    }  # fmt: skip
    # One that was this person's before its lease ended is taken up again, as it was.
    of = {"of_item": item_id, "of_person": me.person, "of_turn": turn}
    again = {"new_instruction": me.instruction, "new_ms": now, "end_ms": row["lease_ms"]}
    found = conn.execute(_TAKE_UP, of | again).mappings().first()
    fresh = {"notes": None, "revealed_ms": None, "told_ms": None}
    lease = dict(found) if found else {**row, "id": _new(conn, row), **fresh}
    if asked["role"] == "work" and turn == 0:
        refresh(conn, item_id, claimed=True)
    conn.execute(_ONE_MORE, {"of_person": me.person, "of_project": me.project})
    return replace(me, claims=me.claims + 1), Claimed(lease, asked, me.settings, order)


def _new(conn: Connection, row: dict[str, Json]) -> int:
    key = conn.execute(_LEND, row).inserted_primary_key
    assert key is not None, "an INSERT of one row has a key"
    return int(key[0])


def _with_item(conn: Connection, settings: Project, lease: dict[str, Json]) -> Claimed:
    asked = dict(conn.execute(_ITEM, {"of_id": lease["item"]}).mappings().one())
    return Claimed(lease, asked, settings, lease["order"], _said(conn, lease))


def _said(conn: Connection, lease: Mapping[str, Json]) -> dict[str, dict[str, Json]] | None:
    """What stands of an assignment, in the order that was shown."""
    if lease["state"] != "submitted":
        return None
    rows = conn.execute(
        select(answer.c.question, feedback.c.kind, feedback.c.value)
        .join(feedback, feedback.c.seq == answer.c.seq)
        .where(answer.c.assignment == lease["id"])
        .order_by(answer.c.seq)
    )
    return {question: KINDS[kind].unorder(value, lease["order"]) for question, kind, value in rows}


def look(conn: Connection, person_id: int, assignment_id: int) -> Claimed:
    """An assignment of a person as it is, with what was answered; nothing changes.

    Raises   Refused: unknown, not_yours.
    """
    lease = own(conn, person_id, assignment_id)
    settings = conn.execute(select(project.c.settings).where(project.c.id == lease["project"])).scalar_one()
    return _with_item(conn, Project.from_json(settings), lease)


def own(conn: Connection, person_id: int, assignment_id: int) -> dict[str, Json]:
    """A row of table `assignment`, of this person.

    Raises   Refused: unknown, not_yours.
    """
    found = None
    if is_id(assignment_id):
        found = conn.execute(_LEASE, {"of_id": assignment_id}).mappings().first()
    if found is None:
        raise Refused("unknown", "There is no such item.")
    if found["person"] != person_id:
        raise Refused("not_yours", "This item is another person's.")
    return dict(found)


# ------------------------------------------------------------------------------------------------ leases


def heartbeat(conn: Connection, now: int, person_id: int, ids: Iterable[int]) -> dict[int, int]:
    """Makes a person's leases longer: of those that are still theirs, the new ends.

    Who was stopped holds nothing any longer, and in a closed project nobody does: there leases run out.

    Raises   Refused: too_many.
    """
    kept = {}
    for row in _open_ones(conn, person_id, ids):
        if row.closed or row.member_state in (None, "stopped"):
            continue  # it runs out, and is then others'
        kept[row.id] = _end(now, Project.from_json(row.settings))
        conn.execute(_LENGTHEN, {"of_id": row.id, "end_ms": kept[row.id]})
    return kept


def release(conn: Connection, now: int, person_id: int, ids: Iterable[int]) -> None:
    """Gives items back that a person holds; others among `ids` stay as they are.

    Raises   Refused: too_many.
    """
    for row in _open_ones(conn, person_id, ids):
        give_back(conn, row.id, "released")


def expire(conn: Connection, now: int) -> int:
    """Takes back what was not handed in by the end of its lease, in every project; returns how many."""
    ended = conn.execute(_ENDED, {"now_ms": now}).scalars().all()
    for number in ended:
        give_back(conn, number, "expired")
    return len(ended)


def take_back(conn: Connection, person_id: int, project_id: int) -> None:
    """Gives back all that a person holds of a project: they were stopped."""
    for row in conn.execute(_IN_HAND, {"of_person": person_id, "of_project": project_id}).all():
        give_back(conn, row.id, "released")


def give_back(conn: Connection, assignment_id: int, state: str) -> None:
    """Ends a lease with a state, and gives its item the room again."""
    row = conn.execute(_END, {"of_id": assignment_id, "new_state": state}).one()
    if row.turn == 0:
        refresh(conn, row.item)


def _open_ones(conn: Connection, person_id: int, ids: Iterable[int]) -> Sequence[Any]:
    numbers = {number for number in ids if is_id(number)}
    if len(numbers) > MOST_AT_ONCE:
        raise Refused("too_many", f"At most {MOST_AT_ONCE} items at once.")
    return conn.execute(
        select(assignment.c.id, project.c.settings, project.c.closed, member.c.state.label("member_state"))
        .join(project, project.c.id == assignment.c.project)
        .outerjoin(member, (member.c.project == assignment.c.project) & (member.c.person == assignment.c.person))
        .where(assignment.c.id.in_(numbers), assignment.c.person == person_id, assignment.c.state == "open")
        .order_by(assignment.c.id)
    ).all()  # fmt: skip


# ------------------------------------------------------------------------------------------ statements

_NEWEST = (
    select(func.max(instruction.c.id)).where(instruction.c.project == project.c.id).correlate(project).scalar_subquery()
)
_MEMBER = (
    select(
        project.c.settings, project.c.closed, member.c.state, member.c.since_ms, member.c.training, member.c.claims,
        _NEWEST.label("instruction"),
    )
    .join(project, project.c.id == member.c.project)
    .where(member.c.project == bindparam("of_project"), member.c.person == bindparam("of_person"))
)  # fmt: skip
_ONE_MORE = (
    update(member)
    .where(member.c.project == bindparam("of_project"), member.c.person == bindparam("of_person"))
    .values(claims=member.c.claims + 1)
)
_IN_HAND = (
    select(assignment)
    .where(
        assignment.c.person == bindparam("of_person"),
        assignment.c.project == bindparam("of_project"),
        assignment.c.state == "open",
    )
    .order_by(assignment.c.id)
)
_LEASE = select(assignment).where(assignment.c.id == bindparam("of_id"))
_ITEM = select(item).where(item.c.id == bindparam("of_id"))
_LENGTHEN = update(assignment).where(assignment.c.id == bindparam("of_id")).values(lease_ms=bindparam("end_ms"))
_ENDED = select(assignment.c.id).where(assignment.c.state == "open", assignment.c.lease_ms <= bindparam("now_ms"))
_END = (
    update(assignment)
    .where(assignment.c.id == bindparam("of_id"))
    .values(state=bindparam("new_state"))
    .returning(assignment.c.item, assignment.c.turn)
)

_TAKE_UP = (
    update(assignment)
    .where(
        assignment.c.item == bindparam("of_item"),
        assignment.c.person == bindparam("of_person"),
        assignment.c.turn == bindparam("of_turn"),
        assignment.c.state.in_(("expired", "released")),
    )
    .values(
        state="open", instruction=bindparam("new_instruction"), claimed_ms=bindparam("new_ms"),
        lease_ms=bindparam("end_ms"),
    )
    .returning(assignment)
)  # fmt: skip
_LEND = insert(assignment)
