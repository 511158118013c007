"""The routes of researchers: projects, how far they are, how people agree, instructions, batches, the audit log.

Flow     a researcher's page or program → guard.py (403 for labelers) → a route → the store → JSON

What changes something is in the audit log, with who did it and from which address, in the same transaction. A file that
comes in is many transactions; it has a row before the first and another after the last, so that one that was cut off
shows.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from sqlalchemy import Connection, func, select

from rein.feedback import items, people, tables
from rein.feedback.project import PRESETS, project_of
from rein.web.label import bodies
from rein.web.label import research_bodies as asked
from rein.web.label.guard import ERRORS, Caller, Parts, Researcher, StrictRoute, Wrong
from rein.web.label.progress import progress_of

router = APIRouter(prefix="/research", route_class=StrictRoute, responses=ERRORS, tags=["researcher"])
ProjectName = Annotated[str, Path(min_length=1, max_length=100, pattern=bodies.NO_NUL)]
BatchName = Annotated[str, Path(min_length=1, max_length=100, pattern=bodies.NO_NUL)]
After = Annotated[int, Query(ge=0, le=bodies.INT64)]
PAGE = 50
Json = dict[str, Any]


def note(conn: Connection, now: int, caller: Caller, act: str, about: Json) -> None:
    """A line of the audit log."""
    people.audit(conn, now, caller.person.id, act, about, caller.address)


# ------------------------------------------------------------------------------------------------------------ projects


@router.get("/projects")
async def projects(caller: Researcher, service: Parts) -> Json:
    """All projects with their settings, and the presets that a new one can begin from."""

    def look(conn: Connection) -> Json:
        rows = conn.execute(select(tables.project).order_by(tables.project.c.id)).mappings().all()
        return {
            "projects": [
                {
                    "name": row["name"], "settings": row["settings"], "closed": row["closed"],
                    "created_ms": row["created_ms"],
                }
                for row in rows
            ],
            "presets": {name: preset.to_json() for name, preset in PRESETS.items()},
        }  # fmt: skip

    return await service.read(look)


@router.post("/projects")
async def make_project(body: asked.Settings, caller: Researcher, service: Parts) -> Json:
    """A new project: a preset's settings, with those of the body over them."""
    if body.preset is not None and body.preset not in PRESETS:
        raise Wrong(422, "bad_value", f"There is no preset {body.preset!r}: {', '.join(PRESETS)}.")
    base = PRESETS[body.preset].to_json() if body.preset is not None else {}
    project, now = project_of({**base, **body.settings}), service.clock()

    def do(conn: Connection) -> Json:
        items.create_project(conn, now, project)
        note(conn, now, caller, "make project", {"project": project.name, "settings": project.to_json()})
        return {"name": project.name}

    return await service.write(do)


@router.patch("/projects/{name}")
async def change_project(name: ProjectName, body: asked.Change, caller: Researcher, service: Parts) -> Json:
    """Other settings from now on. What was answered keeps what it was asked."""
    now = service.clock()

    def do(conn: Connection) -> Json:
        project_id, before = items.load_project(conn, name)
        after = project_of({**before.to_json(), **body.settings})
        items.change_project(conn, now, project_id, after)
        note(conn, now, caller, "change project", {"project": name, "settings": body.settings})
        return {"name": after.name}

    return await service.write(do)


@router.post("/projects/{name}/close")
async def close_project(name: ProjectName, body: asked.Close, caller: Researcher, service: Parts) -> bodies.Done:
    """A closed project hands out nothing; what is open may still be submitted."""
    now = service.clock()

    def do(conn: Connection) -> bodies.Done:
        project_id, _ = items.load_project(conn, name)
        items.close_project(conn, project_id, body.closed)
        note(conn, now, caller, "close project" if body.closed else "open project", {"project": name})
        return bodies.Done()

    return await service.write(do)


@router.get("/projects/{name}/progress")
async def progress(name: ProjectName, caller: Researcher, service: Parts) -> Json:
    """How far it is (progress.py)."""
    return await service.count(lambda conn: progress_of(conn, items.load_project(conn, name)[0], service.clock()))


@router.get("/projects/{name}/agreement")
async def agreement(
    name: ProjectName, caller: Researcher, service: Parts,
    batch: Annotated[str | None, Query(max_length=100, pattern=bodies.NO_NUL)] = None,
) -> Json:  # fmt: skip
    """How people agree (agreement.py)."""
    return await service.agreement(name, batch)


# ----------------------------------------------------------------------------------------------- instructions, batches


@router.post("/projects/{name}/instructions")
async def instructions(name: ProjectName, body: asked.NewInstructions, caller: Researcher, service: Parts) -> Json:
    """The next version of what stands beside the task; the old ones stay."""
    now = service.clock()

    def do(conn: Connection) -> Json:
        project_id, _ = items.load_project(conn, name)
        table = tables.instruction
        newest = conn.execute(select(func.max(table.c.version)).where(table.c.project == project_id)).scalar()
        version = int(newest or 0) + 1
        conn.execute(
            table.insert().values(
                project=project_id, version=version, text=body.text, author=caller.person.id, created_ms=now
            )
        )
        note(conn, now, caller, "write instructions", {"project": name, "version": version})
        return {"version": version}

    return await service.write(do)


@router.post("/projects/{name}/batches/{batch}")
async def freeze(
    name: ProjectName, batch: BatchName, body: asked.Freeze, caller: Researcher, service: Parts
) -> bodies.Done:
    """A frozen batch takes no change of an answer any more."""
    now = service.clock()

    def do(conn: Connection) -> bodies.Done:
        project_id, _ = items.load_project(conn, name)
        items.freeze(conn, now, project_id, batch, body.frozen)
        note(conn, now, caller, "freeze batch" if body.frozen else "thaw batch", {"project": name, "batch": batch})
        return bodies.Done()

    return await service.write(do)


@router.get("/audit")
async def audit(caller: Researcher, service: Parts, after: After = 0) -> Json:
    """Who did what, newest first; `after` is the last seq of the page before."""

    def look(conn: Connection) -> Json:
        table, person = tables.audit, tables.person
        query = select(table, person.c.name).outerjoin(person, person.c.id == table.c.person)
        if after:
            query = query.where(table.c.seq < after)
        rows = conn.execute(query.order_by(table.c.seq.desc()).limit(PAGE)).mappings().all()
        return {
            "rows": [
                {
                    "seq": row["seq"], "at_ms": row["at_ms"], "person": row["name"], "act": row["act"],
                    "about": row["about"], "address": row["address"],
                }
                for row in rows
            ],
            "next": rows[-1]["seq"] if len(rows) == PAGE else None,
        }  # fmt: skip

    return await service.read(look)
