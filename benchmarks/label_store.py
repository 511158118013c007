"""How many durable writes a store acknowledges a second, and how long each waits, against a commit for each of them.

    python benchmarks/label_store.py                        # SQLite, in a folder that is removed
    python benchmarks/label_store.py --store postgresql://… # an empty database

"own commits" is SQLAlchemy without the store: as many connections as threads, BEGIN IMMEDIATE and a commit for each
write, with the same pragmas; on PostgreSQL, without the store's lock. Both write rows of the audit log, from as many
threads, for `--seconds`, one arrangement after the other in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Engine, event, insert

from rein.feedback.database import _engine
from rein.feedback.store import Store
from rein.feedback.tables import audit


def note(connection: Connection) -> None:
    """One row."""
    connection.execute(insert(audit).values(at_ms=1, act="benchmark", about={"x": "y" * 200}, address="127.0.0.1"))


def own_commits(store: Store, threads: int) -> tuple[Engine, Callable[[], None]]:
    """A connection for each thread, and a commit for each write."""
    engine = _engine(store._address, 60.0, connections=threads)
    if store.dialect == "sqlite":
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    def write() -> None:
        with engine.begin() as connection:
            note(connection)

    return engine, write


def measured(write: Callable[[], None], threads: int, seconds: float) -> str:
    """Writes a second, and the median, 99th percentile and maximum of the waits."""
    waits: list[float] = []
    end = time.monotonic() + seconds

    def work() -> None:
        while (begun := time.monotonic()) < end:
            write()
            waits.append(time.monotonic() - begun)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begun = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.monotonic() - begun
    p50, p99, most = (1000 * np.percentile(waits, q) for q in (50, 99, 100))
    return f"{len(waits) / took:10.0f}/s  p50 {p50:8.1f} ms  p99 {p99:8.1f} ms  max {most:8.1f} ms"


def main() -> None:
    """Prints a line for each arrangement and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 16, 100])
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(given.store or Path(folder) / "store.sqlite", create=True, patience_s=60.0) as store,
    ):
        print(f"{store.dialect}, {given.seconds:g} s each")
        for threads in given.threads:
            ours = measured(lambda: store.write(note), threads, given.seconds)
            print(f"{threads:4} threads  the store    {ours}", flush=True)
            engine, write = own_commits(store, threads)
            theirs = measured(write, threads, given.seconds)
            engine.dispose()
            print(f"{threads:4} threads  own commits  {theirs}", flush=True)


if __name__ == "__main__":
    main()
