"""People and how they are known: names, passwords, sessions, keys, invitations, and the audit log.

Flow     a name and a password, or an invitation's token → a person → a session's token → who is asking
         what somebody did to people, projects, items or exports → a row of `audit`, which nobody can change

Tokens are 256 random bits, of which the store keeps SHA-256 alone, so that a stolen copy of the store lets nobody in. A
person of a role can invite, let in again and change people of that role and below, and nobody else; what they made
ends with that right. What is wrong is a `UserError`, and no message and no row of the audit log holds a password or a
token.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from rein.errors import UserError
from rein.feedback import tables
from rein.feedback.claims import take_back
from rein.feedback.passwords import belongs, hashed, outdated
from rein.feedback.store import Store
from rein.feedback.tables import ROLES, member, session
from rein.feedback.tables import invite as invites
from rein.feedback.tables import person as people
from rein.feedback.tables import project as projects

NAME_CHARS = 64
MEMBER_STATES = ("training", "working", "stopped")
SESSION_KINDS = ("browser", "key")
TOUCH_MS = 60_000  # how old `Person.seen_ms` may get before it is written again
MAX_USES = 1000
KEY_MARK = "rein_"  # what a key begins with, so that those who search code for secrets find it

# Letters that are printable to Unicode and invisible to people, besides the controls, which `isprintable` refuses.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}


@dataclass(frozen=True)
class Person:
    """Who is asking."""

    id: int
    name: str
    role: str
    simulated: bool
    preferences: Mapping[str, Any]
    session: str  # which of the session's rows let them in: the digest of its token
    kind: str  # of SESSION_KINDS
    seen_ms: int  # when the session was last noted as in use

    def may(self, role: str) -> bool:
        """Whether they have this role or one above.

        Example  >>> Person(1, "Ann", "researcher", False, {}, "", "browser", 0).may("labeler")
                 True
        """
        return _rank(self.role) >= _rank(role)


def add_person(
    conn: Connection, now: int, name: str, role: str, password: str | None = None, simulated: bool = False
) -> int:
    """Makes a person and returns the number they go by. Without a password they need an invitation or a key.

    password   as it was typed, or as `passwords.hashed` makes it: a server does that first, outside of the writer's
               thread, because it takes some 50 ms

    Raises   UserError for a name that is taken or none, an unknown role, and a password that is too short or long.
    """
    name = clean_name(name)
    _check_role(role)
    if find_person(conn, name) is not None:
        raise UserError(f"There is a person called {name!r} already.", "Choose another name.")
    row = {"name": name, "role": role, "active": True, "simulated": simulated, "preferences": {}, "created_ms": now}
    if password is not None:
        row["password"] = hashed(password)
    return _made(conn.execute(insert(people).values(row)).inserted_primary_key)


def clean_name(name: str) -> str:
    """A name as it is kept: without spaces around it, composed.

    Example  >>> clean_name("  Zoe\u0308 ")
             'Zoë'
    Raises   UserError when it is empty, too long, or holds characters that nobody sees.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not 1 <= len(name) <= NAME_CHARS:
        raise UserError(f"A name has 1 to {NAME_CHARS} characters, and this one {len(name)}.", "Choose another name.")
    unseen = [one for one in name if not one.isprintable() or one in _INVISIBLE]
    if unseen:
        raise UserError(f"The name {name!r} holds U+{ord(unseen[0]):04X}, which nobody sees.", "Take it out.")
    return name


def find_person(conn: Connection, name: str) -> int | None:
    """Who goes by a name, whatever the case, width or form of its letters; None: nobody."""
    exact: int | None = conn.execute(select(people.c.id).where(people.c.name == name.replace("\0", ""))).scalar()
    if exact is not None:
        return exact
    wanted = _folded(name)
    return next(
        (row.id for row in conn.execute(select(people.c.id, people.c.name)) if _folded(row.name) == wanted), None
    )


def check_password(store: Store, now: int, name: str, password: str) -> int | None:
    """The person of this name, if it is their password; None otherwise, after as much work.

    A digest of older parameters is made anew.
    """
    with store.reading() as conn:
        found = find_person(conn, name)
        columns = (people.c.id, people.c.password, people.c.active)
        row = None if found is None else conn.execute(select(*columns).where(people.c.id == found)).one()
    kept = row.password if row else None
    if not belongs(password, kept) or row is None or kept is None or not row.active:
        return None
    if outdated(kept):
        renewed = hashed(password)
        same = (people.c.id == row.id) & (people.c.password == kept)
        store.write(lambda conn: conn.execute(update(people).where(same).values(password=renewed)).rowcount)
    return int(row.id)


def set_password(conn: Connection, now: int, person: int, password: str, keep: str | None = None) -> None:
    """Gives a person another password, and closes every session and key of theirs but `keep`.

    Raises   UserError as `hashed` does, and for an unknown person.
    """
    digest = hashed(password)
    _one(conn, person)
    conn.execute(update(people).where(people.c.id == person).values(password=digest))
    close_sessions(conn, person, keep)


def change_person(
    conn: Connection, now: int, author: int | None, person: int, *, active: bool | None = None, role: str | None = None
) -> None:
    """Lets a person in or out, or gives them another role. Who is let out has no session left.

    author   whose right it must be; None: the command line

    Raises   UserError when `author` may not, and when no admin would be left.
    """
    before = _one(conn, person)
    _check_right(conn, author, before.role)
    values: dict[str, Any] = {}
    if role is not None:
        _check_role(role)
        _check_right(conn, author, role)
        values["role"] = role
    if active is not None:
        values["active"] = active
    if not values:
        return
    conn.execute(update(people).where(people.c.id == person).values(values))
    if before.role == "admin" and before.active and not _admins(conn):
        raise UserError(f"{before.name} is the only admin.", "Make somebody else one first.")
    if active is False:
        close_sessions(conn, person)


def set_preferences(conn: Connection, person: int, preferences: Mapping[str, Any]) -> None:
    """Keeps how a person likes the pages."""
    conn.execute(update(people).where(people.c.id == person).values(preferences=dict(preferences)))


def everybody(conn: Connection) -> list[dict[str, Any]]:
    """All people, with what a page of people shows; no digests."""
    seen = select(func.max(session.c.seen_ms)).where(session.c.person == people.c.id).scalar_subquery()
    columns = [people.c[name] for name in ("id", "name", "role", "active", "simulated", "created_ms")]
    password = people.c.password.is_not(None).label("password")
    rows = conn.execute(select(*columns, password, seen.label("seen_ms")).order_by(people.c.id))
    return [dict(row) for row in rows.mappings()]


# Sessions and keys.


def open_session(
    conn: Connection, now: int, person: int, kind: str, label: str, life_ms: int, instead_of: str | None = None
) -> str:
    """Opens a session, or makes a key, and returns its token, which is kept nowhere.

    instead_of   the session (`Person.session`) that ends with it: a login never goes on with the token of before

    Raises   UserError for an unknown or inactive person.
    """
    assert kind in SESSION_KINDS, f"no kind of session: {kind}"
    if not _one(conn, person).active:
        raise UserError("This account is closed.", "Ask the researcher.")
    token = (KEY_MARK if kind == "key" else "") + secrets.token_urlsafe(32)
    if kind == "key":
        label = f"{label[:150]} ({token[: len(KEY_MARK) + 4]}…)"
    times = {"created_ms": now, "seen_ms": now, "expires_ms": now + life_ms}
    conn.execute(insert(session).values(token=_digest(token), person=person, kind=kind, label=label[:200], **times))
    if instead_of:
        conn.execute(delete(session).where(session.c.token == instead_of))
    return token


def who(conn: Connection, now: int, token: str) -> Person | None:
    """Whose token it is; None: nobody's, or of a session that has ended, or of a closed account.

    It only reads. Whoever asks calls `touch` in a work when `seen_ms` is older than TOUCH_MS.
    """
    rows = conn.execute(
        select(people, session.c.token, session.c.kind, session.c.seen_ms)
        .join(session, session.c.person == people.c.id)
        .where(session.c.token == _digest(token), session.c.expires_ms > now, people.c.active.is_(True))
    )
    row = rows.one_or_none()
    if row is None:
        return None
    return Person(row.id, row.name, row.role, row.simulated, row.preferences, row.token, row.kind, row.seen_ms)


def touch(conn: Connection, now: int, asking: Person) -> None:
    """Notes that a session is in use."""
    conn.execute(update(session).where(session.c.token == asking.session).values(seen_ms=now))


def sessions(conn: Connection, now: int, person: int) -> list[dict[str, Any]]:
    """A person's open sessions and keys, the newest first: id, kind, label, created_ms, seen_ms, expires_ms."""
    columns = [session.c[name] for name in ("kind", "label", "created_ms", "seen_ms", "expires_ms")]
    rows = conn.execute(
        select(session.c.token.label("id"), *columns)
        .where(session.c.person == person, session.c.expires_ms > now)
        .order_by(session.c.created_ms.desc(), session.c.token)
    )
    return [dict(row) for row in rows.mappings()]


def close_session(conn: Connection, person: int, session_id: str) -> bool:
    """Ends one of a person's sessions; False: they have no such one."""
    mine = (session.c.person == person) & (session.c.token == session_id)
    return conn.execute(delete(session).where(mine)).rowcount == 1


def close_sessions(conn: Connection, person: int, keep: str | None = None) -> int:
    """Ends all of a person's sessions and keys but `keep`; returns how many."""
    return conn.execute(delete(session).where(session.c.person == person, session.c.token != (keep or ""))).rowcount


# Invitations.


def invite(
    conn: Connection,
    now: int,
    role: str,
    project: int | None = None,
    person: int | None = None,
    uses: int = 1,
    *,
    life_ms: int,
    author: int | None = None,
) -> str:
    """Makes an invitation and returns its token, which is kept nowhere.

    role      that the guests get; a person who is let in again keeps theirs
    project   whose members they become
    person    whom it lets in again, once; None: new people
    author    whose right it must be; None: the command line

    Raises   UserError for an unknown role, project or person, `uses` out of range, or a role above the author's.
    """
    _check_role(role)
    if person is not None:
        found = _one(conn, person)
        if not found.active:
            raise UserError(f"The account of {found.name} is closed.", "Open it first.")
        role = found.role
    _check_right(conn, author, role)
    if not 1 <= uses <= (MAX_USES if person is None else 1):
        most = "1 where it lets a person in again" if person is not None else f"{MAX_USES:,}"
        raise UserError(
            f"An invitation for {uses} uses: it has 1 at least, and at most {most}.", "Choose another number."
        )
    if life_ms <= 0:
        raise UserError("The invitation would have ended before it began.", "Give it some hours.")
    if project is not None:
        _project(conn, project)
    token = secrets.token_urlsafe(32)
    row = {"token": _digest(token), "role": role, "project": project, "person": person, "uses_left": uses}
    conn.execute(insert(invites).values({**row, "author": author, "created_ms": now, "expires_ms": now + life_ms}))
    return token


def accept(conn: Connection, now: int, token: str, name: str | None = None, password: str | None = None) -> int:
    """Uses an invitation once and returns the person it lets in.

    name, password   of a new person, who becomes a member of the invitation's project: in training where that has
                     an onboarding round. Of one who is let in again, `password`, if any, is their new one.

    Raises   UserError when it is unknown, used up or over, and as `add_person` does; then it was not used.
    """
    row = conn.execute(select(invites).where(invites.c.token == _digest(token))).one_or_none()
    if row is None or row.uses_left < 1 or row.expires_ms <= now:
        raise UserError("This invitation is used up, has expired, or never was one.", "Ask for another one.")
    if row.author is not None and not _one(conn, row.author).active:
        raise UserError("Whoever invited you is not here any more.", "Ask for another invitation.")
    _check_right(conn, row.author, row.role if row.person is None else _one(conn, row.person).role)
    if row.person is not None:
        if not _one(conn, row.person).active:
            raise UserError("This account is closed.", "Ask the researcher.")
        person = int(row.person)
        if password is not None:
            set_password(conn, now, person, password)
    elif not name or not password:
        raise UserError("A new person needs a name and a password.", "Choose both.")
    else:
        person = add_person(conn, now, name, row.role, password)
    if row.project is not None:
        join(conn, now, row.project, person)
    conn.execute(update(invites).where(invites.c.token == row.token).values(uses_left=row.uses_left - 1))
    return person


def join(conn: Connection, now: int, project: int, person: int, state: str | None = None) -> None:
    """Makes a person a member of a project, or gives a member another state; `since_ms` is when that came about.

    Who is stopped holds no item any more.

    state   None: a new member starts in training where the project has an onboarding round, at work where it has
            none, and one who is a member already stays as they are

    Raises   UserError for an unknown state or project.
    """
    if state is not None and state not in MEMBER_STATES:
        raise UserError(f"A member cannot be {state!r}.", f"Choose one of {', '.join(MEMBER_STATES)}.")
    mine = (member.c.project == project) & (member.c.person == person)
    before = conn.execute(select(member.c.state).where(mine)).scalar()
    if before is None:
        first = "training" if _project(conn, project).settings.get("onboarding", 0) > 0 else "working"
        conn.execute(insert(member).values(project=project, person=person, state=state or first, since_ms=now))
    elif state is not None and before != state:
        conn.execute(update(member).where(mine).values(state=state, since_ms=now))
    if state == "stopped":
        take_back(conn, person, project)


def tidy(conn: Connection, now: int) -> int:
    """Deletes sessions and invitations that are over; returns how many."""
    over = conn.execute(delete(session).where(session.c.expires_ms <= now)).rowcount
    return (
        over + conn.execute(delete(invites).where((invites.c.expires_ms <= now) | (invites.c.uses_left < 1))).rowcount
    )


def audit(conn: Connection, now: int, person: int | None, act: str, about: Mapping[str, Any], address: str = "") -> int:
    """Adds a row to the audit log: who (None: the command line), what, of what, from where. Returns its number."""
    told = {"password", "token", "key", "secret"} & about.keys()
    assert not told, f"secrets do not go into the audit log: {sorted(told)}"
    row = {"at_ms": now, "person": person, "act": act, "about": dict(about), "address": address}
    return _made(conn.execute(insert(tables.audit).values(row)).inserted_primary_key)


def _made(key: Row[Any] | None) -> int:
    assert key is not None, "a row that was added has a number"
    return int(key[0])


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name.strip()).casefold())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _rank(role: str) -> int:
    return ROLES.index(role)


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise UserError(f"There is no role {role!r}.", f"Choose one of {', '.join(ROLES)}.")


def _check_right(conn: Connection, author: int | None, role: str) -> None:
    if author is not None and _rank(_one(conn, author).role) < _rank(role):
        raise UserError(f"Only a person of the role {role} may do that.", "Ask one of them.")


def _one(conn: Connection, person: int) -> Row[Any]:
    found: Row[Any] | None = conn.execute(select(people).where(people.c.id == person)).one_or_none()
    if found is None:
        raise UserError(f"There is no person of number {person}.", "Name one that there is.")
    return found


def _admins(conn: Connection) -> int:
    active = (people.c.role == "admin") & people.c.active.is_(True)
    return int(conn.execute(select(func.count()).select_from(people).where(active)).scalar_one())


def _project(conn: Connection, project: int) -> Row[Any]:
    found: Row[Any] | None = conn.execute(select(projects).where(projects.c.id == project)).one_or_none()
    if found is None:
        raise UserError(f"There is no project of number {project}.", "Name one that there is.")
    return found
