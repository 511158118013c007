"""How long a claim and a submit take in a store of a million items, also for a person who has answered much of it.

    python benchmarks/label_queue.py                          # SQLite, in a folder that is removed
    python benchmarks/label_queue.py --store big.sqlite       # kept, and used again
    python benchmarks/label_queue.py --store postgresql://…

Of `--rows` items, which want three people each, "first" has answered `--answered`, the first ones of the seeded order,
and "second" and "third" the last ones, so that the former wait for two more people and lie in front of everything that
"first" may still have. Times are those of the work in its transaction, and with the commit that makes it durable; last,
what the researcher's first page counts.

`build` and `answered_by` make such stores for other benchmarks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text, update

from rein.feedback import work
from rein.feedback.claims import shown_order
from rein.feedback.items import draw
from rein.feedback.project import PRESETS
from rein.feedback.queue import ROOM
from rein.feedback.store import Store
from rein.feedback.tables import answer, assignment, batch, cursor, feedback, item, member, person, project
from rein.web.label.progress import progress_of

NOW = 1_700_000_000_000
PEOPLE = ("first", "second", "third", "new", "other")
CHUNK = 20_000
WORDS = ("the model", "a summary", "people", "often", "said", "that", "it", "was", "shorter", "true", "of the post")


def build(store: Store, rows: int) -> int:
    """A project of comparisons, overlap 3, with five people and `rows` items; returns its number."""
    settings = dataclasses.replace(PRESETS["comparison"], name="big", staged=False, overlap=3, repeat_share=0.0)
    number = store.write(lambda conn: work.create_project(conn, NOW, settings))
    people = [{"name": name, "role": "labeler", "preferences": {}, "created_ms": NOW} for name in PEOPLE]
    store.write(lambda conn: conn.execute(insert(person), people))
    joined = [
        {"project": number, "person": one, "state": "working", "since_ms": NOW} for one in people_of(store).values()
    ]
    store.write(lambda conn: conn.execute(insert(member), joined))
    batches = {"project": number, "name": "batch1", "created_ms": NOW}
    batch_id = store.write(lambda conn: conn.execute(insert(batch).returning(batch.c.id), batches).scalar_one())
    sentences = random.Random(0)

    def row(n: int) -> dict[str, Any]:
        texts = [" ".join(sentences.choices(WORDS, k=12)) for _ in range(3)]
        return {
            "project": number, "batch": batch_id, "key": f"item-{n}", "role": "work", "split": "train",
            "context": {"post": texts[0]}, "extra": {}, "wanted": 3, "done": 0, "room": 3, "priority": 0.0,
            "candidates": [{"text": texts[1], "policy": "a"}, {"text": texts[2], "policy": "b"}],
            "place": draw("place", settings.seed, f"item-{n}"), "closed": False, "created_ms": NOW,
        }  # fmt: skip

    for start in range(0, rows, CHUNK):
        _put(store, item, [row(n) for n in range(start, min(start + CHUNK, rows))])
    return number


def people_of(store: Store) -> dict[str, int]:
    """The people by name."""
    with store.reading() as conn:
        return {name: number for name, number in conn.execute(select(person.c.name, person.c.id))}


def answered_by(store: Store, number: int, name: str, items: Sequence[int], *, days: float = 60.0) -> None:
    """Lets a person have answered items: assignments, feedback and answers, spread over some days."""
    who = people_of(store)[name]
    chance = random.Random(f"{name} {len(items)}")
    with store.reading() as conn:
        lease = (conn.execute(select(func.max(assignment.c.id))).scalar() or 0) + 1
        seq = (conn.execute(select(func.max(feedback.c.seq))).scalar() or 0) + 1
    for start in range(0, len(items), CHUNK):
        leases, said, answers = [], [], []
        for n, one in enumerate(items[start : start + CHUNK], start):
            seed = draw("order", 0, one, who)
            order, points = shown_order(seed, 2, 0), chance.randint(1, 9)
            choice = None if points == 5 else int(points > 5)
            at = NOW + int(n / len(items) * days * 86_400_000)
            times = {"active_ms": int(chance.lognormvariate(10, 0.6))}
            leases.append({
                "id": lease + n, "item": one, "person": who, "project": number, "turn": 0, "state": "submitted",
                "order": order, "seed": seed, "revision": 1, "counted": True, "claimed_ms": at - 30_000,
                "lease_ms": at + 1_770_000,
            })  # fmt: skip
            about = {"project": number, "item": one, "person": who, "late": False, "at_ms": at}
            said.append({
                **about, "seq": seq + n, "assignment": lease + n, "key": f"{name}-{one}", "question": "choice",
                "kind": "comparison", "version": 1, "act": "say", "value": {"choice": choice, "points": points},
                "shown": {"order": order, "seed": seed, "turn": 0, "instruction": None}, "times": times, "extra": {},
            })  # fmt: skip
            answers.append({
                **about, "assignment": lease + n, "question": "choice", "seq": seq + n, "turn": 0,
                "choice": -1 if choice is None else choice, "points": float(points),
                "left_side": None if choice is None else order[0] == choice,
                "longer": None if choice is None else chance.random() < 0.55, "active_ms": times["active_ms"],
            })  # fmt: skip
        for table, rows in ((assignment, leases), (feedback, said), (answer, answers)):
            _put(store, table, rows)
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    for some in chunks:
        ids = {"ids": json.dumps(list(some))}
        listed = "SELECT value FROM json_each(:ids)" if store.dialect == "sqlite" else (
            "SELECT value::bigint FROM json_array_elements_text(CAST(:ids AS json)) AS value"
        )  # fmt: skip
        theirs = item.c.id.in_(text(listed).columns(value=item.c.id.type))
        store.write(lambda conn, w=theirs, b=ids: conn.execute(update(item).where(w).values(done=item.c.done + 1), b))
        store.write(lambda conn, w=theirs, b=ids: conn.execute(update(item).where(w).values(room=ROOM), b))
    if store.dialect == "postgresql":
        for table, column in (("assignment", "id"), ("feedback", "seq")):
            follow = text(f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}")
            store.write(lambda conn, statement=follow: conn.execute(statement).scalar())


def _put(store: Store, table: Table, rows: list[dict[str, Any]]) -> None:
    store.write(lambda conn: conn.execute(insert(table), rows) and None)


def in_order(store: Store, number: int) -> list[int]:
    """The items in the seeded order."""
    with store.reading() as conn:
        rows = select(item.c.id).where(item.c.project == number).order_by(item.c.place)
        return list(conn.execute(rows).scalars())


def prepared(store: Store, rows: int, answered: int) -> int:
    """The store that is measured, made if it is empty."""
    with store.reading() as conn:
        number = conn.execute(select(project.c.id).where(project.c.name == "big")).scalar()
    if number is None:
        number = build(store, rows)
        items = in_order(store, number)
        answered_by(store, number, "first", items[:answered])
        for name in ("second", "third"):
            answered_by(store, number, name, items[-answered // 10 :])
        statement = text("ANALYZE")
        store.write(lambda conn: conn.execute(statement) and None)
    return int(number)


class Clock:
    """Times of works by name, in the transaction and with the commit, in ms."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.inside: dict[str, list[float]] = {}
        self.whole: dict[str, list[float]] = {}

    def do(self, name: str, act: Callable[[Connection], Any]) -> Any:
        spent = 0.0

        def timed(conn: Connection) -> Any:
            nonlocal spent
            start = time.perf_counter()
            try:
                return act(conn)
            finally:
                spent = time.perf_counter() - start

        start = time.perf_counter()
        result = self._store.write(timed)
        self.whole.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        self.inside.setdefault(name, []).append(1000 * spent)
        return result

    def lines(self) -> Iterator[str]:
        yield f"{'':34} {'n':>5} {'median':>8} {'p99':>8} {'most':>8}   with the commit: median, p99"
        for name, times in self.inside.items():
            whole = self.whole[name]
            yield (
                f"{name:34} {len(times):5} {statistics.median(times):8.2f} {_p99(times):8.2f} {max(times):8.2f}   "
                f"{statistics.median(whole):8.2f} {_p99(whole):8.2f}"
            )


def _p99(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(0.99 * len(times)))]


def labels(store: Store, clock: Clock, number: int, name: str, title: str, n: int, now: int) -> None:
    """A person claims and submits `n` items."""
    who = people_of(store)[name]
    for k in range(n):
        hand = clock.do(f"{title}: claim", lambda conn: work.claim(conn, now, who, number, 2))
        if not hand:
            print(f"{title}: nothing is left after {k}")
            return
        one, key = hand[0].assignment, f"bench-{now}-{name}-{k}"
        said = {"choice": {"choice": k % 2, "points": 9 if k % 2 else 1}}
        body = {"assignment": one["id"], "answers": said}

        def hand_in(conn: Connection, one: Any = one, key: str = key, said: Any = said) -> Any:
            done = work.submit(conn, now, who, one["id"], key=key, revision=one["revision"], answers=said)
            return {"revision": done.revision}

        clock.do(
            f"{title}: submit",
            lambda conn, key=key, act=hand_in, body=body: work.once(
                conn, now, who, key, "submit", body, lambda: act(conn)
            ),
        )


def measure(store: Store, number: int, n: int) -> Clock:
    """People of different pasts at work."""
    clock = Clock(store)
    now = int(time.time() * 1000)
    first = people_of(store)["first"]
    for name, title in (
        ("new", "a new person"), ("first", "who has answered much"), ("second", "a second one, at those"),
    ):  # fmt: skip
        labels(store, clock, number, name, title, n, now)
    with store.reading() as conn:
        some = conn.execute(select(item.c.id).where(item.c.project == number, item.c.room > 0).limit(1000)).scalars()
        priorities = {one: float(k) for k, one in enumerate(some)}
    store.write(lambda conn: work.set_priorities(conn, number, priorities))
    labels(store, clock, number, "first", "the former, after priorities", n, now + 1)
    # The room is full of what this person had, and nothing says how far: no cursor.
    for _ in range(20):
        hand = clock.do("the former, without a cursor: claim", lambda conn: _fresh_claim(conn, number, first, now + 2))
        ids = [one.assignment["id"] for one in hand]
        store.write(lambda conn, ids=ids: work.release(conn, now + 2, first, ids))
    return clock


def progress(store: Store, number: int) -> float:
    """How long the counts of a project's first page take, in ms."""
    start = time.perf_counter()
    with store.reading() as conn:
        progress_of(conn, number, int(time.time() * 1000))
    return 1000 * (time.perf_counter() - start)


def _fresh_claim(conn: Connection, number: int, who: int, now: int) -> Any:
    conn.execute(delete(cursor).where(cursor.c.person == who))
    return work.claim(conn, now, who, number, 1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="items")
    parser.add_argument("--answered", type=int, default=100_000, help="of them by one person")
    parser.add_argument("--labels", type=int, default=300, help="that each person gives while the clock runs")
    parser.add_argument("--store", help="a path or postgresql://…, kept; default: a file that is removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with Store.open(options.store or Path(folder) / "labels.sqlite", create=True) as store:
            number = prepared(store, options.rows, min(options.answered, options.rows // 2))
            print(f"{store.address}: {options.rows:,} items, ready after {time.perf_counter() - start:.0f} s; ms:")
            for line in measure(store, number, options.labels).lines():
                print(line)
            print(f"the progress page: {statistics.median(progress(store, number) for _ in range(5)):.0f} ms")


if __name__ == "__main__":
    main()
