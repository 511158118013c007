"""How long the page of agreement takes with a million answers: first reading, warm, and after a new answer.

    python benchmarks/label_agreement.py [--answers 1000000] [--people 60]

Builds a store with three labelers for each item out of --people, of whom two are researchers; 15% of all answers are on
calibration items that everybody has; a tenth of a percent of the items have known answers, and as many are fixed pairs.
The report is held as a server holds it (`agreement.Held`).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from sqlalchemy import select

from rein.feedback.agreement import report
from rein.feedback.answers import Record, record
from rein.feedback.items import NewItem, add_items, create_project
from rein.feedback.judgements import Held
from rein.feedback.people import add_person
from rein.feedback.project import Project, Question
from rein.feedback.store import Store
from rein.feedback.tables import item

START_MS = 1_780_000_000_000
ROWS = 20_000  # of one statement
TEXT = "The bridge over the river was built by a miller who was tired of wading through it. "


def build(path: Path, answers: int, people: int) -> None:
    """Makes the store; rows are written below SQLAlchemy, whose million rows take minutes."""
    with closing(Store.open(path, create=True)) as store:
        questions = (Question("choice", "comparison"),)
        project = store.write(lambda conn: create_project(conn, START_MS, Project("bench", questions=questions)))
        ids = [
            store.write(lambda conn, n=n: add_person(conn, START_MS, f"p{n}", "researcher" if n < 2 else "labeler"))
            for n in range(people)
        ]
    shared = max(int(answers * 0.15) // people, 1)  # items that everybody has
    items = shared + (answers - shared * people) // 3
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute(
            "INSERT INTO batch (id, project, name, created_ms) VALUES (1, ?, 'batch1', ?)", (project, START_MS)
        )
        conn.executemany(
            "INSERT INTO item (id, project, batch, key, role, split, context, candidates, gold, extra, wanted, done,"
            " room, priority, place, closed, created_ms)"
            " VALUES (?, ?, 1, ?, ?, 'train', ?, ?, ?, '{}', 3, 3, 0, 0, ?, 0, ?)",
            _items(project, items, shared),
        )
        said = _said(items, shared, ids)
        while part := list(islice(said, ROWS)):
            conn.executemany(
                'INSERT INTO assignment (id, item, person, project, turn, state, "order", seed, revision, claimed_ms,'
                " lease_ms, counted)"
                f" VALUES (?1, ?2, ?3, {project}, 0, 'submitted', '[0, 1]', 0, 1, ?4, ?4, 1)",
                [(*row[:3], row[5]) for row in part],
            )
            conn.executemany(
                "INSERT INTO feedback (seq, project, item, person, assignment, key, question, kind, version, act,"
                " value, shown, times, late, extra, at_ms)"
                f" VALUES (?1, {project}, ?2, ?3, ?1, 'k' || ?1, 'choice', 'comparison', 1, 'say',"
                """ '{"choice": ' || ?4 || ', "points": ' || ?5 || '}', '{"order": [0, 1], "turn": 0}',"""
                """ '{"active_ms": ' || ?7 || '}', 0, '{}', ?6)""",
                part,
            )
            conn.executemany(
                "INSERT INTO answer (assignment, question, seq, project, item, person, turn, late, choice, points,"
                " left_side, longer, active_ms, at_ms)"
                f" VALUES (?1, 'choice', ?1, {project}, ?2, ?3, 0, 0, ?4, ?5, ?4 = 0, ?1 % 2, ?7, ?6)",
                part,
            )


def _items(project: int, count: int, shared: int) -> Iterator[tuple]:
    context, gold = json.dumps({"post": TEXT}), json.dumps({"answers": {"choice": {"choice": 0, "points": 2}}})
    for n in range(count):
        role = "calibration" if n < shared else "gold" if n % 1000 == 1 else "drift" if n % 1000 == 2 else "work"
        texts = [{"text": TEXT[: 20 + n % 50], "policy": "a"}, {"text": TEXT[: 20 + n % 37], "policy": "b"}]
        known = gold if role == "gold" else None
        yield (n + 1, project, f"i{n}", role, context, json.dumps(texts), known, n, START_MS)


def _said(items: int, shared: int, ids: list[int]) -> Iterator[tuple]:
    """(seq, item, person, choice, points, at_ms, active_ms) of each answer."""
    rng = random.Random(0)
    seq = 0
    for n in range(items):
        liking = rng.gauss(0, 1.5)
        for person in ids if n < shared else rng.sample(ids, 3):
            seq += 1
            choice = int(rng.random() < 1 / (1 + math.exp(-liking)))
            points = 5 + (1 if choice else -1) * min(1 + int(abs(liking) * 2), 4)
            yield (seq, n + 1, person, choice, points, START_MS + seq * 1000, int(5000 + 40_000 * rng.random()))


def measure(store: Store, project: str, repeats: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of each case: on the clock, and of this process's time on a core. Medians."""
    held = Held()

    def timed() -> tuple[float, float]:
        start, busy = time.perf_counter(), time.process_time()
        with store.reading() as conn:
            json.dumps(report(conn, project, held=held))
        return (time.perf_counter() - start) * 1000, (time.process_time() - busy) * 1000

    found = {"first": timed(), "warm": _median([timed() for _ in range(repeats)])}

    def answered(item: int, person: int) -> tuple[float, float]:
        row = Record(item, person, "choice", "comparison", {"choice": 1, "points": 7}, f"new{time.time_ns()}")
        store.write(lambda conn: record(conn, START_MS, 1, [row]))
        return timed()

    def new_item() -> int:
        key, texts = f"new{time.time_ns()}", [{"text": TEXT[:40]}, {"text": TEXT[:50]}]
        store.write(lambda conn: add_items(conn, START_MS, 1, [NewItem(key, {"post": TEXT}, texts)]))
        with store.reading() as conn:
            return conn.execute(select(item.c.id).where(item.c.key == key)).scalar_one()

    def new_person() -> int:
        return store.write(lambda conn: add_person(conn, START_MS, f"new{time.time_ns()}", "labeler"))

    found["after one new answer"] = _median([answered(n + 5, 3) for n in range(repeats)])
    found["of an item without any"] = _median([answered(new_item(), 3) for _ in range(repeats)])
    found["of somebody new"] = _median([answered(n + 5, new_person()) for n in range(repeats)])
    return found


def _median(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(clock for clock, _ in pairs), statistics.median(busy for _, busy in pairs)


def main() -> None:
    """Builds and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="build the store here, or use the one that is here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.keep or Path(folder) / "labels.db"
        start = time.perf_counter()
        if not path.exists():
            build(path, args.answers, args.people)
        with closing(Store.open(path)) as store:
            print(f"{args.answers:,} answers of {args.people} people; built in {time.perf_counter() - start:.0f} s")
            for name, (clock, busy) in measure(store, "bench", args.repeats).items():
                print(f"  {name:22} {clock:8,.0f} ms, of which {busy:8,.0f} ms on a core")
            print(f"  peak memory            {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8,.0f} MiB")


if __name__ == "__main__":
    main()
