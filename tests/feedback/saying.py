"""Projects with answers that tests of agreement choose: written through the desk's own works."""

from __future__ import annotations

from sqlalchemy import select

from rein.feedback.answers import Record, record
from rein.feedback.items import NewItem, add_items, create_project
from rein.feedback.people import add_person
from rein.feedback.project import PRESETS, Project, Question
from rein.feedback.tables import item

NOW = 1_790_000_000_000
CHOICE = (Question("choice", "comparison"),)


class Saying:
    """A project in a store, people, and what they say about its items."""

    def __init__(self, store, questions=CHOICE, name="p"):
        self.store = store
        self.id = store.write(lambda conn: create_project(conn, NOW, Project(name, questions=questions)))
        self.people, self.items, self.said = {}, {}, 0

    def person(self, name, role="labeler"):
        if name not in self.people:
            self.people[name] = self.store.write(lambda conn: add_person(conn, NOW, name, role))
        return self.people[name]

    def add(self, *keys, texts=("short", "longer text"), policies=("a", "b"), **more):
        new = [
            NewItem(key, {"post": f"a post, {key}"},
                    [{"text": x, "policy": p} for x, p in zip(texts, policies, strict=True)], **more)
            for key in keys
        ]  # fmt: skip
        self.store.write(lambda conn: add_items(conn, NOW, self.id, new))
        with self.store.reading() as conn:
            self.items |= dict(conn.execute(select(item.c.key, item.c.id).where(item.c.project == self.id)).all())

    def say(self, rows, **more):
        """Rows of (person, item, value), with what `Record` has besides: of all, or of one row, as its fourth."""
        records = [self._record(*row[:3], **more, **(row[3] if len(row) > 3 else {})) for row in rows]
        return self.store.write(lambda conn: record(conn, NOW, self.id, records))

    def _record(self, person, key, value, *, question="choice", kind="comparison", key_of=None, **more):
        self.said += 1
        return Record(self.items[key], self.people[person], question, kind, value, key_of or f"k{self.said}", **more)


def prefers(candidate, points=None):
    """A comparison's value: 0, 1, or None for neither."""
    return {"choice": candidate, "points": points}


__all__ = ("NOW", "PRESETS", "Question", "Saying", "prefers")
