"""The routes of a labeler: work, one's own history and numbers, questions, messages.

Flow     a page, or a program with a key → guard.py → a route → work.py in the store's one writer → an answer once it is
         on disk

Everything is asked and answered in the order of the screen. What belongs to somebody else is not there: 404.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Connection, RowMapping, func, select

from rein.feedback import people, tables, work
from rein.feedback.people import Person
from rein.feedback.project import Project
from rein.feedback.training import passed
from rein.web.label import bodies
from rein.web.label.cards import asked, card_of, head_of, instructions_of
from rein.web.label.guard import ERRORS, Asker, Parts, StrictRoute, Wrong
from rein.web.label.progress import submitted_by
from rein.web.label.service import Service

router = APIRouter(route_class=StrictRoute, responses=ERRORS, tags=["labeler"])
ProjectName = Annotated[str, Query(min_length=1, max_length=100, pattern=bodies.NO_NUL)]
LAST = 50


# ------------------------------------------------------------------------------------------------------ one's projects


def own_project(conn: Connection, person: Person, name: str) -> tuple[int, Project]:
    """A project that a person works on, or reads as a researcher.

    Raises   Wrong for one that is not there for them.
    """
    missing = Wrong(404, "unknown", "There is no such project.")
    try:
        project_id, project = work.load_project(conn, name)
    except work.Refused:
        raise missing from None
    if person.role == "labeler" and _member(conn, person, project_id) is None:
        raise missing
    return project_id, project


def _member(conn: Connection, person: Person, project_id: int) -> RowMapping | None:
    table = tables.member
    query = select(table).where(table.c.project == project_id, table.c.person == person.id)
    return conn.execute(query).mappings().one_or_none()


@router.get("/me")
async def me(caller: Asker, service: Parts) -> bodies.Home:
    """Who one is, one's projects, and the researchers' messages."""
    return await service.read(lambda conn: _home(conn, caller.person))


def _home(conn: Connection, person: Person) -> bodies.Home:
    row = conn.execute(select(tables.person).where(tables.person.c.id == person.id)).mappings().one()
    project, member = tables.project, tables.member
    empty = ~select(tables.item.c.id).where(tables.item.c.project == project.c.id).exists()
    mine = select(
        project.c.id, project.c.name, project.c.closed, empty.label("empty"), member.c.state, member.c.training
    ).select_from(project.outerjoin(member, (member.c.project == project.c.id) & (member.c.person == person.id)))
    if person.role == "labeler":
        mine = mine.where(member.c.person.is_not(None))
    rows = conn.execute(mine.order_by(project.c.id)).all()
    projects = []
    for one in rows:
        _, settings = work.load_project(conn, one.id)
        projects.append(
            bodies.MyProject(
                name=one.name, title=settings.title or one.name, state=one.state or "none", closed=one.closed,
                staged=settings.staged, questions=[asked(question) for question in settings.questions],
                empty=one.empty, mine=submitted_by(conn, one.id, person.id),
                training=_training(one, settings),
            )
        )  # fmt: skip
    return bodies.Home(
        name=person.name, role=person.role, has_password=row["password"] is not None,
        preferences=row["preferences"],
        messages=_messages(conn, person, {one.id: one.name for one in rows}), projects=projects,
    )  # fmt: skip


def _training(member: Any, settings: Project) -> bodies.Training | None:
    """How one's practice round goes, or went; None in a project without one."""
    if not settings.onboarding or member.state is None:
        return None
    went = member.training or {"agreed": None, "of": 0, "median_s": None}
    marked = went["agreed"] is not None and passed(settings, went["agreed"], went["median_s"])
    return bodies.Training(
        done=went["of"], of=max(settings.onboarding, went["of"]) if member.state == "training" else went["of"],
        agreed=went["agreed"], median_s=went["median_s"], state=member.state,
        let_in=member.state == "working" and not marked,
    )  # fmt: skip


def _messages(conn: Connection, person: Person, names: dict[int, str]) -> list[bodies.Message]:
    message, seen, author = tables.message, tables.seen, tables.person
    query = (
        select(message, author.c.name.label("by"), seen.c.at_ms.label("seen_ms"))
        .join(author, author.c.id == message.c.author)
        .outerjoin(seen, (seen.c.message == message.c.id) & (seen.c.person == person.id))
        .where(message.c.project.in_(names), (message.c.to == person.id) | message.c.to.is_(None))
        .order_by(message.c.id.desc())
        .limit(LAST)
    )
    return [
        bodies.Message(
            id=row["id"], author=row["by"], text=row["text"], at_ms=row["at_ms"], seen=row["seen_ms"] is not None,
            project=names[row["project"]],
        )
        for row in conn.execute(query).mappings()
    ]  # fmt: skip


@router.post("/seen")
async def seen(body: bodies.Seen, caller: Asker, service: Parts) -> bodies.Done:
    """Messages of one's own were read."""

    def do(conn: Connection) -> bodies.Done:
        message = tables.message
        projects = select(tables.member.c.project).where(tables.member.c.person == caller.person.id)
        own = select(message.c.id).where(
            message.c.id.in_(body.messages), (message.c.to == caller.person.id) | message.c.to.is_(None)
        )
        if caller.person.role == "labeler":
            own = own.where(message.c.project.in_(projects))
        known = select(tables.seen.c.message).where(tables.seen.c.person == caller.person.id)
        for id in conn.execute(own.where(message.c.id.not_in(known))).scalars().all():
            conn.execute(tables.seen.insert().values(person=caller.person.id, message=id, at_ms=service.clock()))
        return bodies.Done()

    return await service.write(do)


@router.post("/preferences")
async def preferences(body: bodies.Preferences, caller: Asker, service: Parts) -> bodies.Done:
    """What the pages remember of a person."""

    def do(conn: Connection) -> bodies.Done:
        people.set_preferences(conn, caller.person.id, body.preferences)
        return bodies.Done()

    return await service.write(do)


@router.get("/instructions")
async def instructions(
    project: ProjectName,
    caller: Asker,
    service: Parts,
    version: Annotated[int | None, Query(ge=1, le=bodies.INT64)] = None,
) -> bodies.Instructions:
    """What stands beside the task."""
    return await service.read(lambda conn: instructions_of(conn, own_project(conn, caller.person, project)[0], version))


# ------------------------------------------------------------------------------------------------------------ the work


@router.post("/claim")
async def claim(body: bodies.Claim, caller: Asker, service: Parts) -> bodies.Cards:
    """What one holds already, then what comes next."""
    person, now = caller.person, service.clock()

    def do(conn: Connection) -> bodies.Cards:
        project_id, _ = own_project(conn, person, body.project)
        if person.role != "labeler" and _member(conn, person, project_id) is None:
            people.join(conn, now, project_id, person.id, "working")  # a researcher answers too
        claimed = work.claim(conn, now, person.id, project_id, body.count)
        items = [card_of(conn, one) for one in claimed]
        why: Any = None if items else work.nothing(conn, person.id, project_id)
        return bodies.Cards(items=items, nothing=why, server_ms=now)

    return await service.write(do)


_Keyed = bodies.Reveal | bodies.Submit | bodies.Skip | bodies.Undo | bodies.Ask


async def _keyed(
    service: Service, person: int, route: str, body: _Keyed, do: Callable[[Connection, int], dict[str, Any]]
) -> dict[str, Any]:
    """What `do` gives, in one transaction; the same key again gets the same, and counts once."""
    now = service.clock()

    def whole(conn: Connection) -> Any:
        if body.key is None:
            return do(conn, now)
        return work.once(conn, now, person, body.key, route, body.model_dump(), lambda: do(conn, now))

    found: dict[str, Any] = await service.write(whole)
    return found


@router.post("/reveal")
async def reveal(body: bodies.Reveal, caller: Asker, service: Parts) -> bodies.Card:
    """Shows the source, once there is a note on each candidate."""
    person = caller.person.id

    def do(conn: Connection, now: int) -> dict[str, Any]:
        return card_of(conn, work.reveal(conn, now, person, body.assignment, body.key, body.notes)).model_dump()

    return bodies.Card(**await _keyed(service, person, "reveal", body, do))


@router.post("/submit")
async def submit(body: bodies.Submit, caller: Asker, service: Parts) -> bodies.Submitted:
    """Answers all questions of an item. The same key again is answered as the first time, and counts once."""
    person = caller.person.id

    def do(conn: Connection, now: int) -> dict[str, Any]:
        done = work.submit(
            conn, now, person, body.assignment, key=body.key, revision=body.revision, answers=body.answers,
            notes=body.notes, shown={"diff": body.diff}, times=body.times.model_dump(exclude_none=True),
        )  # fmt: skip
        return {
            "late": done.late, "revision": done.revision, "teach": done.teach and asdict(done.teach),
            "training": done.training and asdict(done.training),
        }  # fmt: skip

    return bodies.Submitted(**await _keyed(service, person, "submit", body, do))


@router.post("/skip")
async def skip(body: bodies.Skip, caller: Asker, service: Parts) -> bodies.Done:
    """Leaves an item to others, and says why."""
    person = caller.person.id

    def do(conn: Connection, now: int) -> dict[str, Any]:
        work.skip(conn, now, person, body.assignment, key=body.key, reason=body.reason)
        return {}

    return bodies.Done(**await _keyed(service, person, "skip", body, do))


@router.post("/undo")
async def undo(body: bodies.Undo, caller: Asker, service: Parts) -> bodies.Card:
    """Takes an answer back; the card is open again, with the answer filled in."""
    person = caller.person.id

    def do(conn: Connection, now: int) -> dict[str, Any]:
        return card_of(conn, work.undo(conn, now, person, body.assignment, key=body.key)).model_dump()

    return bodies.Card(**await _keyed(service, person, "undo", body, do))


@router.post("/heartbeat")
async def heartbeat(body: bodies.Some, caller: Asker, service: Parts) -> bodies.Leases:
    """Goes on holding assignments; the answer has those that are still held."""
    now = service.clock()
    held = await service.write(lambda conn: work.heartbeat(conn, now, caller.person.id, body.assignments))
    return bodies.Leases(leases={str(id): lease_ms for id, lease_ms in held.items()})


@router.post("/release")
async def release(body: bodies.Some, caller: Asker, service: Parts) -> bodies.Done:
    """Gives assignments back."""
    now = service.clock()
    await service.write(lambda conn: work.release(conn, now, caller.person.id, body.assignments))
    return bodies.Done()


# -------------------------------------------------------------------------------------------- questions to researchers


@router.post("/ask")
async def ask(body: bodies.Ask, caller: Asker, service: Parts) -> bodies.Asking:
    """A question to the researchers about an item."""
    person = caller.person.id

    def do(conn: Connection, now: int) -> dict[str, Any]:
        table = tables.assignment
        query = select(table.c.item, table.c.project).where(table.c.id == body.assignment, table.c.person == person)
        row = conn.execute(query).one_or_none()
        if row is None:
            raise work.Refused("unknown", "There is no such item.")
        said = {"text": body.text, "at_ms": now, "pinned": False}
        made = tables.thread.insert().values(project=row.project, item=row.item, person=person, **said)
        return {"thread": conn.execute(made.returning(tables.thread.c.id)).scalar_one()}

    return bodies.Asking(**await _keyed(service, person, "ask", body, do))


@router.get("/threads")
async def threads(project: ProjectName, caller: Asker, service: Parts) -> bodies.Threads:
    """One's own questions with their replies, newest first."""

    def look(conn: Connection) -> bodies.Threads:
        project_id, settings = own_project(conn, caller.person, project)
        thread, item, lease = tables.thread, tables.item, tables.assignment
        query = (
            select(thread, item.c.context, item.c.candidates, lease.c.order, lease.c.revealed_ms)
            .join(item, item.c.id == thread.c.item)
            .join(lease, lease.c.id == _first_lease(thread.c.item, thread.c.person))
            .where(thread.c.project == project_id, thread.c.person == caller.person.id)
            .order_by(thread.c.id.desc())
            .limit(200)
        )
        return bodies.Threads(
            threads=[
                bodies.Thread(
                    id=row["id"], text=row["text"], at_ms=row["at_ms"], reply=row["reply"],
                    replied_ms=row["replied_ms"], pinned=row["pinned"],
                    head=_head(settings, row),
                )
                for row in conn.execute(query).mappings()
            ]
        )  # fmt: skip

    return await service.read(look)


def _first_lease(item: Any, person: Any) -> Any:
    """A person's first assignment of an item; the other one has the sides mirrored."""
    lease = tables.assignment.alias("first_lease")
    own = select(lease.c.id).where(lease.c.item == item, lease.c.person == person)
    return own.order_by(lease.c.turn).limit(1).scalar_subquery()


def _head(settings: Project, row: RowMapping) -> str:
    return head_of(settings, row, row["order"], not settings.staged or row["revealed_ms"] is not None)


# --------------------------------------------------------------------------------------------------- one's own numbers


@router.get("/history")
async def history(project: ProjectName, caller: Asker, service: Parts) -> bodies.History:
    """One's last fifty items."""

    def look(conn: Connection) -> bodies.History:
        project_id, settings = own_project(conn, caller.person, project)
        assignment, item, feedback = tables.assignment, tables.item, tables.feedback
        # The last of each state by the index of that order; together they would be sorted, a hundred thousand of them.
        last: list[int] = []
        for state in ("submitted", "skipped"):
            own = (assignment.c.person == caller.person.id, assignment.c.project == project_id)
            ids = select(assignment.c.id).where(*own, assignment.c.state == state).order_by(assignment.c.id.desc())
            last += conn.execute(ids.limit(LAST)).scalars().all()
        said = select(func.max(feedback.c.at_ms)).where(
            feedback.c.item == assignment.c.item, feedback.c.assignment == assignment.c.id
        )
        query = (
            select(assignment, item.c.context, item.c.candidates, said.scalar_subquery().label("at_ms"))
            .join(item, item.c.id == assignment.c.item)
            .where(assignment.c.id.in_(sorted(last)[-LAST:]))
            .order_by(assignment.c.id.desc())
        )
        return bodies.History(
            items=[
                bodies.Done50(
                    assignment=row["id"], at_ms=row["at_ms"] or row["claimed_ms"], state=row["state"],
                    head=_head(settings, row),
                )
                for row in conn.execute(query).mappings()
            ]
        )  # fmt: skip

    return await service.read(look)


@router.get("/mine")
async def mine(project: ProjectName, caller: Asker, service: Parts) -> dict[str, Any]:
    """One's own pace and agreement with the researchers (mine.py). What is shown of their answers fixes one's own."""
    person = caller.person

    def look(conn: Connection) -> dict[str, Any]:
        from rein.feedback.mine import mine as numbers  # with scipy and pandas: a second of the server's start

        return numbers(conn, own_project(conn, person, project)[0], person.id)

    def told(conn: Connection) -> dict[str, Any]:
        from rein.feedback.mine import tell

        return tell(conn, service.clock(), person.id, page)

    page = await service.mine(person.id, project, look)
    return await service.write(told) if page["disagreements"] else page
