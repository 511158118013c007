"""Links that let somebody in: where they lead, and the one of the first start.

Flow     a token of people.invite → an address whose part behind # no server and no log ever sees
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, select

from rein.feedback import people, tables
from rein.feedback.store import Store
from rein.web.label.service import now_ms

DAY_MS = 24 * 3_600_000
FIRST = "researcher"


def link_of(address: str, token: str, *, again: bool) -> str:
    """Where a guest goes: `again` lets in somebody who is known, else a new person chooses a name.

    Example  >>> link_of("http://127.0.0.1:8423/label", "abc", again=True)
             'http://127.0.0.1:8423/label/enter#abc'
    """
    return f"{address}/{'enter' if again else 'join'}#{token}"


def lets_in_again(conn: Connection, now: int, token: str) -> bool | None:
    """Whether an open invitation is for somebody who is known; None: there is no such one, or not any more."""
    table, digest = tables.invite, hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    is_open = (table.c.token == digest) & (table.c.uses_left > 0) & (table.c.expires_ms > now)
    row = conn.execute(select(table.c.person).where(is_open)).one_or_none()
    return None if row is None else row.person is not None


def first_link(store: Store, address: str) -> str | None:
    """A link for whoever started the server, as long as no admin has a password; it works once, for a day.

    The links of earlier starts are void.
    """

    def make(conn: Connection) -> str | None:
        now, table = now_ms(), tables.person
        admins = conn.execute(
            select(table.c.id, table.c.password).where(table.c.role == "admin", table.c.active).order_by(table.c.id)
        ).all()
        if any(row.password is not None for row in admins):
            return None
        person = admins[0].id if admins else people.add_person(conn, now, _free_name(conn), "admin")
        old = tables.invite
        conn.execute(old.delete().where(old.c.person == person, old.c.author.is_(None)))
        token = people.invite(conn, now, "admin", person=person, life_ms=DAY_MS)
        people.audit(conn, now, None, "print a link", {"person": person})
        return link_of(address, token, again=True)

    return store.write(make)


def _free_name(conn: Connection) -> str:
    names = (FIRST, *(f"{FIRST} {n}" for n in range(2, 1000)))
    return next(name for name in names if people.find_person(conn, name) is None)
