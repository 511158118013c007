"""Coming in and going out: passwords, links that work once, invitations, sessions.

Flow     a password or a link → people.py → a session of 256 random bits, in a cookie that no script reads

Every way in gives a new session, and ends the one that the browser had. Wrong passwords and links are counted by the
address they come from, wrong passwords also by the account that they try; where there were too many, nobody looks.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy import Connection, select
from starlette.concurrency import run_in_threadpool

from rein.feedback import people, tables
from rein.feedback.passwords import belongs, hashed
from rein.web.label import bodies
from rein.web.label.guard import COOKIE, ERRORS, Asker, Parts, StrictRoute, Wrong, address_of, token_of
from rein.web.label.limits import Buckets, retry_after
from rein.web.label.links import lets_in_again
from rein.web.label.service import Service

router = APIRouter(route_class=StrictRoute, responses=ERRORS, tags=["entry"])
BROWSER_LIFE_MS = 14 * 24 * 3_600_000
SessionId = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


async def stranger(request: Request, service: Parts) -> str:
    """The address of somebody who is not in yet.

    Raises   Wrong: 429 after too many wrong passwords or links from there.
    """
    address = address_of(request)
    _refuse(service.limits.wrong_address, address)
    return address


def _refuse(buckets: Buckets, name: str) -> None:
    if wait := buckets.wait_s(name):
        raise Wrong(429, "too_many", "Too many wrong tries. Wait a little.", retry_after(wait))


Stranger = Annotated[str, Depends(stranger)]


async def _come_in(
    service: Service, request: Request, response: Response, person: int, act: str, address: str
) -> bodies.Me:
    """Opens a session in place of the one there was, and puts it into the cookie."""
    now, old = service.clock(), token_of(request)

    def do(conn: Connection) -> tuple[str, bodies.Me]:
        before = people.who(conn, now, old) if old else None
        instead = before.session if before is not None and before.kind == "browser" else None
        label = request.headers.get("user-agent", "")[:120]
        token = people.open_session(conn, now, person, "browser", label, BROWSER_LIFE_MS, instead_of=instead)
        people.audit(conn, now, person, act, {}, address)
        found = people.who(conn, now, token)
        assert found is not None, "a session that was just opened is open"
        return token, bodies.Me(name=found.name, role=found.role)

    token, me = await service.write(do)
    service.forget()
    _set_cookie(request, response, token)
    return me


def _set_cookie(request: Request, response: Response, token: str) -> None:
    response.set_cookie(
        COOKIE, token, max_age=BROWSER_LIFE_MS // 1000, path="/label", httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip


@router.post("/login")
async def login(
    body: bodies.Login, request: Request, response: Response, service: Parts, address: Stranger
) -> bodies.Me:
    """By name and password."""
    limits, now = service.limits, service.clock()
    known = await service.read(lambda conn: people.find_person(conn, body.name))
    account = f"name {body.name}" if known is None else f"person {known}"
    async with service.doors:
        _refuse(limits.wrong_address, address)
        _refuse(limits.wrong_account, account)
        person = await run_in_threadpool(people.check_password, service.store, now, body.name, body.password)
        if person is None:
            limits.wrong_address.take(address)
            limits.wrong_account.take(account)
    if person is None:
        # Not the name: some type their password there.
        await service.write(lambda conn: people.audit(conn, now, known, "wrong password", {}, address))
        raise Wrong(401, "login", "The name or the password is wrong.")
    return await _come_in(service, request, response, person, "log in", address)


@router.post("/enter")
async def enter(
    body: bodies.Enter, request: Request, response: Response, service: Parts, address: Stranger
) -> bodies.Me:
    """By a link that lets a known person in, once."""
    return await _accept(service, request, response, address, body.token, None, None)


@router.post("/join")
async def join(body: bodies.Join, request: Request, response: Response, service: Parts, address: Stranger) -> bodies.Me:
    """By an invitation, as a new person."""
    return await _accept(service, request, response, address, body.token, body.name, body.password)


async def _accept(
    service: Service, request: Request, response: Response, address: str, token: str, name: str | None,
    password: str | None,
) -> bodies.Me:  # fmt: skip
    now = service.clock()
    again = await service.read(lambda conn: lets_in_again(conn, now, token))
    if again is None or again != (name is None):
        service.limits.wrong_address.take(address)
        raise Wrong(403, "invitation", "This link is used up, has expired, or never was one. Ask for another.")
    async with service.doors:
        digest = await run_in_threadpool(hashed, password) if password is not None else None
    person = await service.write(lambda conn: people.accept(conn, now, token, name, digest))
    return await _come_in(service, request, response, person, "come in by a link", address)


@router.post("/logout")
async def logout(response: Response, caller: Asker, service: Parts) -> bodies.Done:
    """Ends this session."""
    now = service.clock()

    def do(conn: Connection) -> None:
        people.close_session(conn, caller.person.id, caller.person.session)
        people.audit(conn, now, caller.person.id, "log out", {}, caller.address)

    await service.write(do)
    service.forget()
    response.delete_cookie(COOKIE, path="/label", httponly=True, samesite="lax")
    return bodies.Done()


@router.post("/password")
async def password(
    body: bodies.NewPassword, request: Request, response: Response, caller: Asker, service: Parts
) -> bodies.Done:
    """Another password. Every other session of the person ends, and this one gets a new token."""
    if caller.person.kind != "browser":
        raise Wrong(403, "forbidden", "A key changes no password; log in for that.")
    table, account, now = tables.person, f"person {caller.person.id}", service.clock()
    async with service.doors:
        _refuse(service.limits.wrong_account, account)
        kept = await service.read(
            lambda conn: conn.execute(select(table.c.password).where(table.c.id == caller.person.id)).scalar()
        )
        if kept is not None and not await run_in_threadpool(belongs, body.old or "", kept):
            service.limits.wrong_account.take(account)
            raise Wrong(403, "wrong_password", "The old password is wrong.")
        digest = await run_in_threadpool(hashed, body.new)

    def do(conn: Connection) -> str:
        people.set_password(conn, now, caller.person.id, digest, keep=caller.person.session)
        people.audit(conn, now, caller.person.id, "set a password", {}, caller.address)
        return people.open_session(
            conn, now, caller.person.id, "browser", request.headers.get("user-agent", "")[:120], BROWSER_LIFE_MS,
            instead_of=caller.person.session,
        )  # fmt: skip

    token = await service.write(do)
    service.forget()
    _set_cookie(request, response, token)
    return bodies.Done()


@router.get("/sessions")
async def sessions(caller: Asker, service: Parts) -> bodies.Sessions:
    """Where one is logged in, and one's keys."""
    rows = await service.read(lambda conn: people.sessions(conn, service.clock(), caller.person.id))
    return bodies.Sessions(sessions=[bodies.SessionRow(**row, this=row["id"] == caller.person.session) for row in rows])


@router.delete("/sessions/{id}")
async def end_session(id: SessionId, caller: Asker, service: Parts) -> bodies.Done:
    """Ends one of one's own sessions, or a key."""
    now = service.clock()

    def do(conn: Connection) -> bool:
        people.audit(conn, now, caller.person.id, "end a session", {}, caller.address)
        return people.close_session(conn, caller.person.id, id)

    ended = await service.write(do)
    service.forget()
    if not ended:
        raise Wrong(404, "unknown", "There is no such session.")
    return bodies.Done()
