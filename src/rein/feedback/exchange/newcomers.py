"""The people whom a file names: they are in the store as those who said something, and cannot log in.

Flow     a name in a file → a person without a password, not active; the same one each time
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from rein.errors import UserError
from rein.feedback.exchange.rows import digest
from rein.feedback.exchange.standing import IMPORTED
from rein.feedback.people import add_person, clean_name, find_person
from rein.feedback.tables import person

Json = Any


class Newcomers:
    """Finds people by the names that files give them, and makes those who are not there yet."""

    def __init__(self, known: dict[str, int] | None = None) -> None:
        self.known = dict(known or {})

    def copy(self) -> Newcomers:
        """The same people; those made of the one are not known to the other."""
        return Newcomers(self.known)

    def number(self, conn: Connection, now: int, name: str, role: str = "labeler", simulated: bool = False) -> int:
        """Who goes by `name` in files. Nobody who works here does, even if they are called so."""
        if name not in self.known:
            self.known[name] = self._find(conn, name) or self._make(conn, now, name, role, simulated)
        return self.known[name]

    def _find(self, conn: Connection, name: str) -> int | None:
        for called in _names(name):
            row = conn.execute(select(person.c.id, person.c.preferences).where(person.c.name == called)).first()
            if row is not None and row.preferences.get(IMPORTED) == name:
                return int(row.id)
        return None

    def _make(self, conn: Connection, now: int, name: str, role: str, simulated: bool) -> int:
        called = next(one for one in _names(name) if find_person(conn, one) is None)
        number = add_person(conn, now, called, role, simulated=simulated)
        kept: dict[str, Json] = {IMPORTED: name}
        conn.execute(update(person).where(person.c.id == number).values(active=False, preferences=kept))
        return number


def _names(name: str) -> list[str]:
    """What a person of a file may be called here: as there, or, where that is taken or no name, by a number."""
    other = f"imported {digest(name)[:12]}"
    try:
        return [clean_name(name), other]
    except UserError:
        return [other]
