"""The desk: what a person does with an item, each as one transaction of the store.

Flow     notes (staged reading) → `reveal` → the context
         answers → `submit` → rows of feedback, and what to tell the person
         `skip`, `undo` → rows too: nothing that was said is changed or removed
         a request with a client's key → `once` → its result, the same however often it is sent

An answer that comes after its lease ended is kept and marked late. It counts as one of the item's as long as nobody
else was given its place, and no more than are wanted ever count or are out: done + open leases ≤ wanted. The same goes
for one that comes after its batch was frozen, but that one never counts.

A labeler is told the same of every item, whatever its role: from what is refused, or how long a lease is, nobody reads
which ones have a known answer.

Values and notes are of places as shown; the rows speak of candidates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from rein.feedback.answers import Record, rebuild_answers, record
from rein.feedback.claims import (
    Claimed,
    claim,
    expire,
    give_back,
    heartbeat,
    look,
    nothing,
    release,
)
from rein.feedback.desk import (
    NOTES,
    SKIP,
    Desk,
    Values,
    check_changeable,
    check_fresh,
    check_untold,
    clean_answers,
    clean_notes,
    desk_of,
    keep,
    skipped,
    standing_of,
)
from rein.feedback.items import (
    Added,
    NewItem,
    add_items,
    change_item,
    change_project,
    close_project,
    create_project,
    freeze,
    load_project,
    problem_of,
    set_priorities,
)
from rein.feedback.kinds import KINDS, BadValue
from rein.feedback.queue import refresh
from rein.feedback.refused import Refused, check_key, unstorable
from rein.feedback.tables import assignment, item, submission
from rein.feedback.training import Teach, Training, settle, teach

__all__ = (
    "Added", "Claimed", "NewItem", "Record", "Refused", "Submitted", "Teach", "Training", "add_items", "change_item",
    "change_project", "claim", "close_project", "create_project", "expire", "freeze", "heartbeat", "load_project",
    "look", "nothing", "once", "problem_of", "rebuild_answers", "record", "release", "reveal", "set_priorities", "skip",
    "submit", "undo",
)  # fmt: skip

Json = Any


@dataclass(frozen=True)
class Submitted:
    """What became of answers that were handed in."""

    seqs: list[int]  # of the rows, in the order of the project's questions; notes last
    late: bool
    revision: int
    teach: Teach | None = None  # after a practice item
    training: Training | None = None


def reveal(
    conn: Connection, now: int, person_id: int, assignment_id: int, key: str, notes: Sequence[str] | None
) -> Claimed:
    """Keeps what each candidate seems to say, and from then on shows what they answer. The first time counts.

    Raises   Refused: unknown, not_yours, stopped, not_open, bad_value, key_reused.
    """
    desk = desk_of(conn, person_id, assignment_id)
    if not desk.settings.staged:
        raise Refused("bad_value", "This project shows everything at once: there is nothing to reveal.")
    if desk.lease["state"] in ("submitted", "skipped"):
        raise Refused("not_open", "This item was handed in already.")
    if desk.lease["revealed_ms"] is None:
        check_fresh(conn, person_id, key)
        said = clean_notes(desk, notes)
        keep(conn, desk, now, key, NOTES, {"notes": said}, "note", late=desk.lease["lease_ms"] <= now)
        _set(conn, desk, notes=said, revealed_ms=now)
    return look(conn, person_id, assignment_id)


def submit(
    conn: Connection,
    now: int,
    person_id: int,
    assignment_id: int,
    *,
    key: str,
    revision: int,
    answers: Values,
    notes: Sequence[str] | None = None,
    shown: Mapping[str, Json] | None = None,
    times: Mapping[str, Json] | None = None,
) -> Submitted:
    """Keeps answers; what was handed in before is revised by them, until its batch is frozen.

    key       of the request; `once` makes a second one harmless, and without it a second one is refused
    revision  of the assignment, as the person saw it
    shown     how else it was shown, {"diff": true}; the order and the like are added
    times     as the page measured them, {"active_ms": …}

    Raises   Refused: unknown, not_yours, not_open, stale, frozen, stopped, bad_value, not_revealed, key_reused.
    """
    desk = desk_of(conn, person_id, assignment_id)
    state = desk.lease["state"]
    if state == "skipped":
        raise Refused("not_open", "This item was skipped. Take the skip back first.")
    if revision != desk.lease["revision"]:
        raise Refused("stale", "This item was changed elsewhere since this page was read. Load it again.")
    again = state == "submitted"
    if again:
        check_changeable(desk)
    check_untold(desk)
    if desk.settings.staged and desk.lease["revealed_ms"] is None:
        raise Refused("not_revealed", "Say first what each one seems to say.")
    check_fresh(conn, person_id, key)
    clean = clean_answers(desk, answers)
    how = (dict(shown or {}), dict(times or {}))
    if why := unstorable(how):
        raise Refused("bad_value", f"How it was shown cannot be kept: {why}.")
    standing = standing_of(conn, assignment_id)
    late = standing.late if again else state != "open" or desk.lease["lease_ms"] <= now or desk.frozen
    act = "revise" if again else "say"
    seqs = []
    for question in desk.settings.questions:
        of = standing.seqs.get(question.name)
        if question.name in clean:
            row = (question, clean[question.name], act if of else "say")
            seqs.append(keep(conn, desk, now, key, *row, of=of, late=late, how=how))
        elif of:  # answered before, and now no more
            seqs.append(keep(conn, desk, now, key, question, {}, "undo", of=of, late=late))
    if notes is not None and (said := clean_notes(desk, notes)) != desk.lease["notes"]:
        seqs.append(keep(conn, desk, now, key, NOTES, {"notes": said}, "note", late=late))
        _set(conn, desk, notes=said)
    if again:
        _set(conn, desk, revision=revision + 1)
    else:
        _hand_in(conn, desk)
    told, training = None, None
    if desk.item["role"] == "onboarding":
        told = teach(desk.settings, desk.item["gold"], clean, desk.order)
        _set(conn, desk, told_ms=now)
        training = settle(conn, now, desk.lease["project"], person_id, desk.settings)
    return Submitted(seqs, late, revision + 1, told, training)


def skip(conn: Connection, now: int, person_id: int, assignment_id: int, *, key: str, reason: str) -> None:
    """Lets another person answer an item, and says why. This person does not get it again.

    Raises   Refused: unknown, not_yours, not_open, stopped, bad_value, key_reused.
    """
    desk = desk_of(conn, person_id, assignment_id)
    if desk.lease["state"] in ("submitted", "skipped"):
        raise Refused("not_open", "This item was handed in already. Take that back first.")
    check_fresh(conn, person_id, key)
    try:
        value = KINDS["skip"].check({"reason": reason}, SKIP, len(desk.order))
    except BadValue as error:
        raise Refused("bad_value", f"{error.problem}.") from error
    keep(conn, desk, now, key, SKIP, value, "skip", late=desk.lease["lease_ms"] <= now)
    _set(conn, desk, revision=desk.lease["revision"] + 1)
    give_back(conn, assignment_id, "skipped")
    if desk.item["role"] == "onboarding":
        settle(conn, now, desk.lease["project"], person_id, desk.settings)


def undo(conn: Connection, now: int, person_id: int, assignment_id: int, *, key: str) -> Claimed:
    """Takes back what was handed in, or a skip: the item is in the person's hands again, with the answers filled in.

    What was handed in late, and what was skipped, has no lease any more: others may have its place. It can be handed in
    all the same, late. What the person holds beyond `Project.ahead` is given back, the newest first.

    Raises   Refused: unknown, not_yours, stopped, not_open, frozen, key_reused.
    """
    desk = desk_of(conn, person_id, assignment_id)
    state = desk.lease["state"]
    if state not in ("submitted", "skipped"):
        raise Refused("not_open", "Nothing was handed in that could be taken back.")
    check_changeable(desk)
    check_fresh(conn, person_id, key)
    before = look(conn, person_id, assignment_id).answers
    standing = standing_of(conn, assignment_id)
    for question in desk.settings.questions:
        if question.name in standing.seqs:
            of = standing.seqs[question.name]
            keep(conn, desk, now, key, question, {}, "undo", of=of, late=standing.late)
    if state == "skipped":
        keep(conn, desk, now, key, SKIP, {}, "undo", of=skipped(conn, assignment_id))
    late = state == "skipped" or standing.late
    _set(
        conn, desk, state="expired" if late else "open", revision=desk.lease["revision"] + 1, counted=False,
        lease_ms=desk.lease["lease_ms"] if late else now + 1000 * desk.settings.lease_s,
    )  # fmt: skip
    if desk.lease["counted"]:
        conn.execute(_MORE_DONE, {"of_item": desk.item["id"], "more": -1})
    refresh(conn, desk.item["id"])
    _let_go(conn, desk)
    opened = look(conn, person_id, assignment_id)
    return Claimed(opened.assignment, opened.item, opened.project, opened.order, before)


def once(conn: Connection, now: int, person_id: int, key: str, route: str, body: Json, do: Callable[[], Json]) -> Json:
    """What `do` gives, and what it gave already where the same request came before.

    Raises   Refused: bad_value for a key that is none; key_reused for the key of another request.
    """
    check_key(key)
    if unstorable(body):
        raise Refused("bad_value", f"The request cannot be kept: {unstorable(body)}.")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    found = conn.execute(_SUBMISSION, {"of_person": person_id, "of_key": key}).mappings().first()
    if found is None:
        result = do()
        row = {"person": person_id, "key": key, "route": route, "digest": digest, "result": result, "at_ms": now}
        conn.execute(_ADD_SUBMISSION, row)
        return result
    if (found["route"], found["digest"]) != (route, digest):
        raise Refused("key_reused", "This key was another request's. Give each request a key of its own.")
    return found["result"]


def _set(conn: Connection, desk: Desk, **values: Json) -> None:
    conn.execute(update(assignment).where(assignment.c.id == desk.lease["id"]).values(values))


def _hand_in(conn: Connection, desk: Desk) -> None:
    """Closes a lease with an answer, and counts it where it has a place."""
    work, first = desk.item["role"] == "work", desk.lease["turn"] == 0
    in_time = desk.lease["state"] == "open"
    counted = first and not desk.frozen and (in_time or not work or desk.item["room"] > 0)
    row = {"of_id": desk.lease["id"], "is_counted": counted, "new_revision": desk.lease["revision"] + 1}
    conn.execute(_HANDED_IN, row)
    if counted:
        conn.execute(_MORE_DONE, {"of_item": desk.item["id"], "more": 1})
    if first and not (in_time and counted):  # else one more is done and one less is out
        refresh(conn, desk.item["id"])


def _let_go(conn: Connection, desk: Desk) -> None:
    """Gives back what a person holds beyond what may be held, but for the item on the desk."""
    lease = assignment.c
    held = conn.execute(
        select(lease.id)
        .where(lease.person == desk.lease["person"], lease.project == desk.lease["project"], lease.state == "open")
        .order_by(lease.claimed_ms.desc(), lease.id.desc())
    ).scalars().all()  # fmt: skip
    others = [number for number in held if number != desk.lease["id"]]
    for number in others[: max(len(held) - desk.settings.ahead, 0)]:
        give_back(conn, number, "released")


# --------------------------------------------------------------------------------------------- statements

_HANDED_IN = (
    update(assignment)
    .where(assignment.c.id == bindparam("of_id"))
    .values(state="submitted", counted=bindparam("is_counted"), revision=bindparam("new_revision"))
)
_MORE_DONE = update(item).where(item.c.id == bindparam("of_item")).values(done=item.c.done + bindparam("more"))
_SUBMISSION = select(submission).where(
    submission.c.person == bindparam("of_person"), submission.c.key == bindparam("of_key")
)
_ADD_SUBMISSION = insert(submission)
