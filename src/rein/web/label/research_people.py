"""The routes of researchers about people: members, invitations, keys, messages, questions and their replies.

Flow     a researcher's page → a route → people.py and tables of the store, with a line in the audit log

Whom somebody may invite, change or let in again is decided by people.py: those of their own role and below. A link that
lets somebody in as another researcher is for admins alone.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from sqlalchemy import Connection, RowMapping, func, select, update

from rein.feedback import items, people, tables
from rein.web.label import bodies
from rein.web.label import research_bodies as asked
from rein.web.label.guard import ERRORS, Parts, Researcher, StrictRoute, Wrong
from rein.web.label.links import link_of
from rein.web.label.progress import submitted_by
from rein.web.label.research import Json, ProjectName, note
from rein.web.label.research_items import threads_of

router = APIRouter(prefix="/research", route_class=StrictRoute, responses=ERRORS, tags=["researcher"])
Number = Annotated[int, Path(ge=0, le=bodies.INT64)]
HOUR_MS = 3_600_000
LAST = 200


def _person(conn: Connection, id: int) -> RowMapping:
    row = conn.execute(select(tables.person).where(tables.person.c.id == id)).mappings().one_or_none()
    if row is None:
        raise Wrong(404, "unknown", "There is no such person.")
    return row


# -------------------------------------------------------------------------------------------------------------- people


@router.get("/people")
async def everybody(caller: Researcher, service: Parts) -> Json:
    """All people and the projects that they are members of."""

    def look(conn: Connection) -> Json:
        member, project = tables.member, tables.project
        query = select(member.c.person, project.c.name, member.c.state).join(project, project.c.id == member.c.project)
        of: dict[int, list[Json]] = {}
        for row in conn.execute(query.order_by(project.c.id)):
            of.setdefault(row.person, []).append({"name": row.name, "state": row.state})
        return {"people": [{**row, "projects": of.get(row["id"], [])} for row in people.everybody(conn)]}

    return await service.read(look)


@router.post("/people/{id}")
async def change_person(id: Number, body: asked.PersonChange, caller: Researcher, service: Parts) -> bodies.Done:
    """Another role; or out, with all sessions ended, and in again."""
    now = service.clock()
    changes = body.model_dump(exclude_none=True)

    def do(conn: Connection) -> bodies.Done:
        row = _person(conn, id)
        if id == caller.person.id:
            raise Wrong(422, "bad_value", "Nobody changes their own role, or lets themselves out.")
        people.change_person(conn, now, caller.person.id, id, **changes)
        note(conn, now, caller, "change person", {"person": row["name"], **changes})
        return bodies.Done()

    done = await service.write(do)
    service.forget()
    return done


@router.get("/projects/{name}/people")
async def members(name: ProjectName, caller: Researcher, service: Parts) -> Json:
    """A project's members: where they stand, how practice went, how much they did."""

    def look(conn: Connection) -> Json:
        project_id, _ = items.load_project(conn, name)
        member, person = tables.member, tables.person
        query = (
            select(member, person.c.name, person.c.role, person.c.active)
            .join(person, person.c.id == member.c.person)
            .where(member.c.project == project_id)
            .order_by(person.c.id)
        )
        return {
            "people": [
                {
                    "id": row["person"], "name": row["name"], "role": row["role"], "active": row["active"],
                    "state": row["state"], "since_ms": row["since_ms"], "training": row["training"],
                    "confident": row["confident"], "submitted": submitted_by(conn, project_id, row["person"]),
                    "last_ms": _last(conn, project_id, row["person"]),
                }
                for row in conn.execute(query).mappings()
            ]
        }  # fmt: skip

    return await service.count(look)


def _last(conn: Connection, project_id: int, person: int) -> int | None:
    answer = tables.answer
    query = select(func.max(answer.c.at_ms)).where(answer.c.person == person, answer.c.project == project_id)
    found: int | None = conn.execute(query).scalar()
    return found


@router.post("/projects/{name}/members")
async def set_member(name: ProjectName, body: asked.Membership, caller: Researcher, service: Parts) -> bodies.Done:
    """Puts somebody into a project, to work, into practice, or stops them."""
    now = service.clock()

    def do(conn: Connection) -> bodies.Done:
        project_id, _ = items.load_project(conn, name)
        row = _person(conn, body.person)
        people.join(conn, now, project_id, body.person, body.state)
        if "confident" in body.model_fields_set:
            table = tables.member
            conn.execute(
                update(table)
                .where(table.c.project == project_id, table.c.person == body.person)
                .values(confident=body.confident)
            )
        about = {"project": name, "person": row["name"], "state": body.state, "confident": body.confident}
        note(conn, now, caller, "set member", about)
        return bodies.Done()

    return await service.write(do)


@router.post("/invites")
async def invite(body: asked.Invite, caller: Researcher, service: Parts, request: Request) -> Json:
    """A link that lets in so many, for so long."""
    now = service.clock()
    here = f"{request.url.scheme}://{request.headers['host']}/label"

    def do(conn: Connection) -> Json:
        name = None
        if body.person is not None:
            row = _person(conn, body.person)
            if row["role"] != "labeler" and caller.person.role != "admin":
                raise Wrong(403, "forbidden", "Only an admin lets a researcher or an admin in again.")
            name = row["name"]
        project_id = None if body.project is None else items.load_project(conn, body.project)[0]
        token = people.invite(
            conn, now, body.role, project=project_id, person=body.person, uses=body.uses,
            life_ms=round(body.hours * HOUR_MS), author=caller.person.id,
        )  # fmt: skip
        about = {"role": body.role, "project": body.project, "person": name, "uses": body.uses, "hours": body.hours}
        note(conn, now, caller, "invite", about)
        return {"link": link_of(here, token, again=body.person is not None)}

    return await service.write(do)


@router.post("/keys")
async def key(body: asked.NewKey, caller: Researcher, service: Parts) -> Json:
    """A key of the caller's own, shown this once."""
    now = service.clock()

    def do(conn: Connection) -> Json:
        token = people.open_session(conn, now, caller.person.id, "key", body.label, round(body.hours * HOUR_MS))
        note(conn, now, caller, "make key", {"label": body.label, "hours": body.hours})
        return {"key": token}

    return await service.write(do)


# ---------------------------------------------------------------------------------------------- messages and questions


@router.get("/projects/{name}/messages")
async def messages(name: ProjectName, caller: Researcher, service: Parts) -> Json:
    """What was written to labelers, newest first, and how many have read it."""

    def look(conn: Connection) -> Json:
        project_id, _ = items.load_project(conn, name)
        message, author, to = tables.message, tables.person.alias("author"), tables.person.alias("receiver")
        read = select(func.count()).where(tables.seen.c.message == message.c.id).scalar_subquery()
        query = (
            select(message, author.c.name.label("by"), to.c.name.label("whom"), read.label("read"))
            .join(author, author.c.id == message.c.author)
            .outerjoin(to, to.c.id == message.c.to)
            .where(message.c.project == project_id)
            .order_by(message.c.id.desc())
            .limit(LAST)
        )
        return {
            "messages": [
                {
                    "id": row["id"], "author": row["by"], "to": row["whom"], "text": row["text"],
                    "at_ms": row["at_ms"], "read": row["read"],
                }
                for row in conn.execute(query).mappings()
            ]
        }  # fmt: skip

    return await service.read(look)


@router.post("/projects/{name}/messages")
async def write(name: ProjectName, body: asked.NewMessage, caller: Researcher, service: Parts) -> Json:
    """Writes to one member, or to all labelers of the project."""
    now = service.clock()

    def do(conn: Connection) -> Json:
        project_id, _ = items.load_project(conn, name)
        member, person, whom = tables.member, tables.person, None
        if body.to is not None:
            receiver = select(person.c.name).join(member, member.c.person == person.c.id)
            of = (member.c.project == project_id, member.c.person == body.to)
            whom = conn.execute(receiver.where(*of)).scalar()
            if whom is None:
                raise Wrong(404, "unknown", "There is no such member of the project.")
        row = {"project": project_id, "to": body.to, "author": caller.person.id, "text": body.text, "at_ms": now}
        number = conn.execute(tables.message.insert().values(row).returning(tables.message.c.id)).scalar_one()
        note(conn, now, caller, "write message", {"project": name, "to": whom, "message": number})
        return {"message": number}

    return await service.write(do)


@router.get("/projects/{name}/threads")
async def questions(name: ProjectName, caller: Researcher, service: Parts) -> Json:
    """Labelers' questions, newest first."""

    def look(conn: Connection) -> Json:
        return {"threads": threads_of(conn, tables.thread.c.project == items.load_project(conn, name)[0])}

    return await service.read(look)


@router.post("/threads/{id}")
async def reply(id: Number, body: asked.Reply, caller: Researcher, service: Parts) -> bodies.Done:
    """Replies to a question; a pinned one is shown to all below the instructions."""
    now = service.clock()

    def do(conn: Connection) -> bodies.Done:
        table = tables.thread
        row = conn.execute(select(table).where(table.c.id == id)).mappings().one_or_none()
        if row is None:
            raise Wrong(404, "unknown", "There is no such question.")
        values: Json = {"pinned": body.pinned}
        if body.reply is not None:
            values |= {"reply": body.reply, "replied_by": caller.person.id, "replied_ms": now}
        elif body.pinned and row["reply"] is None:
            raise Wrong(422, "bad_value", "A question is pinned with its reply; reply first.")
        conn.execute(update(table).where(table.c.id == id).values(**values))
        note(conn, now, caller, "reply", {"thread": id, "pinned": body.pinned})
        return bodies.Done()

    return await service.write(do)
