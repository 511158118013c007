"""A project with people at a desk, and a clock that stands still: what tests of the desk begin with."""

from __future__ import annotations

import dataclasses
from itertools import count

from sqlalchemy import func, select, update

from rein.feedback import work
from rein.feedback.people import add_person, join
from rein.feedback.project import PRESETS, Project, Question
from rein.feedback.tables import answer, assignment, feedback, item, member

START = 1_800_000_000_000
# Nothing but work, in its order.
PLAIN = Project(
    "plain", questions=(Question("choice", "comparison"),), calibration_share=0.0, gold_share=0.0, repeat_share=0.0,
    uniform_share=0.0,
)  # fmt: skip
LEFT = {"choice": {"choice": 0, "points": 2}}  # as shown
RIGHT = {"choice": {"choice": 1, "points": 8}}
EVEN = {"choice": {"choice": None, "points": 5}}

_numbers = count(1)


def new_item(key, k=2, **more):
    texts = [{"text": f"{key} output {n}", "policy": f"policy-{n}"} for n in range(k)]
    return work.NewItem(key, {"post": f"a post, {key}"}, texts, **more)


def rating_project(**changes):
    return dataclasses.replace(PLAIN, questions=PRESETS["rating"].questions, **changes)


class Desk:
    """Works of one project, each in its transaction."""

    def __init__(self, store, settings=PLAIN, people=("ann", "bob", "cid"), items=(), state="working"):
        self.store, self.now = store, START
        mark = next(_numbers)
        settings = dataclasses.replace(settings, name=f"{settings.name}-{mark}")

        def begin(conn):  # one transaction, because hundreds of tests begin with it
            number = work.create_project(conn, self.now, settings)
            numbers = {name: add_person(conn, self.now, f"{name}-{mark}", "labeler") for name in people}
            for person in numbers.values():
                join(conn, self.now, number, person, state)
            work.add_items(conn, self.now, number, items)
            return number, numbers

        self.id, self.people = store.write(begin)

    def add(self, *items):
        return self.store.write(lambda conn: work.add_items(conn, self.now, self.id, items))

    def pass_time(self, s):
        self.now += int(1000 * s)

    def claim(self, who, n=1):
        return self.store.write(lambda conn: work.claim(conn, self.now, self.people[who], self.id, n))

    def submit(self, who, claimed, answers=LEFT, *, key=None, revision=None, **more):
        lease = claimed.assignment
        revision = lease["revision"] if revision is None else revision
        key = key or f"key-{next(_numbers)}"
        return self.store.write(
            lambda conn: work.submit(
                conn, self.now, self.people[who], lease["id"], key=key, revision=revision, answers=answers, **more
            )
        )

    def label(self, who, answers=LEFT, **more):
        """Claims an item and answers it."""
        (claimed,) = self.claim(who)
        return claimed, self.submit(who, claimed, answers, **more)

    def label_some(self, who, n, answers=LEFT):
        """Claims and answers `n` items, one after another, all in one transaction: for where many are only wanted."""
        person = self.people[who]

        def one(conn):
            (claimed,) = work.claim(conn, self.now, person, self.id, 1)
            lease, key = claimed.assignment, f"key-{next(_numbers)}"
            work.submit(conn, self.now, person, lease["id"], key=key, revision=lease["revision"], answers=answers)
            return claimed

        return self.store.write(lambda conn: [one(conn) for _ in range(n)])

    def skip(self, who, claimed, reason="no idea", key=None):
        key, of = key or f"key-{next(_numbers)}", claimed.assignment["id"]
        self.store.write(lambda conn: work.skip(conn, self.now, self.people[who], of, key=key, reason=reason))

    def undo(self, who, claimed, key=None):
        key, of = key or f"key-{next(_numbers)}", claimed.assignment["id"]
        return self.store.write(lambda conn: work.undo(conn, self.now, self.people[who], of, key=key))

    def reveal(self, who, claimed, notes, key=None):
        key, of = key or f"key-{next(_numbers)}", claimed.assignment["id"]
        return self.store.write(lambda conn: work.reveal(conn, self.now, self.people[who], of, key, notes))

    def release(self, who, *claimed):
        ids = [one.assignment["id"] for one in claimed]
        self.store.write(lambda conn: work.release(conn, self.now, self.people[who], ids))

    def heartbeat(self, who, *claimed):
        ids = [one.assignment["id"] for one in claimed]
        return self.store.write(lambda conn: work.heartbeat(conn, self.now, self.people[who], ids))

    def expire(self):
        return self.store.write(lambda conn: work.expire(conn, self.now))

    def look(self, who, claimed):
        with self.store.reading() as conn:
            return work.look(conn, self.people[who], claimed.assignment["id"])

    def nothing(self, who):
        with self.store.reading() as conn:
            return work.nothing(conn, self.people[who], self.id)

    def freeze(self, batch="batch1", frozen=True):
        self.store.write(lambda conn: work.freeze(conn, self.now, self.id, batch, frozen))

    def set_state(self, who, state):
        self.store.write(
            lambda conn: (
                conn.execute(
                    update(member)
                    .where(member.c.project == self.id, member.c.person == self.people[who])
                    .values(state=state, since_ms=self.now)
                )
                and None
            )
        )

    # what is in the store

    def items(self):
        with self.store.reading() as conn:
            rows = conn.execute(select(item).where(item.c.project == self.id).order_by(item.c.id)).mappings()
            return {row["key"]: dict(row) for row in rows}

    def item(self, key):
        return self.items()[key]

    def member(self, who):
        with self.store.reading() as conn:
            of = (member.c.project == self.id, member.c.person == self.people[who])
            return dict(conn.execute(select(member).where(*of)).mappings().one())

    def rows(self, **of):
        """Feedback, in order."""
        return self._of(feedback, feedback.c.seq, of)

    def answers(self, **of):
        return self._of(answer, answer.c.seq, of)

    def leases(self, **of):
        return self._of(assignment, assignment.c.id, of)

    def _of(self, table, by, of):
        with self.store.reading() as conn:
            where = [table.c[name] == value for name, value in of.items()]
            rows = conn.execute(select(table).where(table.c.project == self.id, *where).order_by(by)).mappings()
            return [dict(row) for row in rows]

    def rebuilt(self):
        """The answers as they would be if they were made anew; nothing is changed."""

        class Back(Exception):
            pass

        found = []

        def rebuild(conn):
            work.rebuild_answers(conn, self.id)
            rows = conn.execute(select(answer).where(answer.c.project == self.id).order_by(answer.c.seq)).mappings()
            found.extend(dict(row) for row in rows)
            raise Back

        try:
            self.store.write(rebuild)
        except Back:
            return found

    def count(self, table):
        with self.store.reading() as conn:
            return conn.execute(select(func.count()).select_from(table).where(table.c.project == self.id)).scalar()
