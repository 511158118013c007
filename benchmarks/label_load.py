"""A hundred simulated labelers at the real labeling server: how long each request takes, and whether all goes well.

    python benchmarks/label_load.py                       100 labelers, 60 s, 0.3 to 0.7 s of thought before an answer
    python benchmarks/label_load.py --think 0 0           no thought at all: how much one server does
    python benchmarks/label_load.py --staged              with a note on each candidate and the source shown then
    python benchmarks/label_load.py --preset instructgpt --labelers 20 --seconds 10

Server    `rein label serve` in a process of its own, on loopback, with a SQLite file in --folder; every answer is on
          the disk before it is acknowledged (synchronous=FULL).
Clients   of client.py, all in this process, each with connections and a key of its own; the labelers claim two items at
          a time, as the page does. A request's time is what its client waits, this process's own delays included.
Checked   no item has more answers and open leases than its overlap; every acknowledged answer is stored, once; what is
          stored was acknowledged. The command fails where that is not so.
Target    p99 of all requests < 100 ms with 100 labelers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from sqlalchemy import func, select

from rein.feedback import tables
from rein.feedback.client import AsyncClient
from rein.feedback.items import NewItem, add_items, create_project
from rein.feedback.labelers import Habits, by_length
from rein.feedback.project import PRESETS
from rein.feedback.simulated_work import at_work, crew, keys_of
from rein.feedback.store import Store

OVERLAP = 3
WORDS = (
    "the",
    "text",
    "of",
    "a",
    "summary",
    "says",
    "what",
    "was",
    "said",
    "in",
    "post",
    "about",
    "dogs",
    "and",
    "cats",
)


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--think", type=float, nargs=2, default=(0.3, 0.7), metavar="S", help="least and most")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="comparison")
    parser.add_argument("--staged", action="store_true", help="a note on each candidate before the source is shown")
    parser.add_argument(
        "--folder", type=Path, help="where the store is made; a folder for temporary files if not given"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, ExitStack() as stack:
        path = Path(folder) / "labels.db"
        keys = make_store(path, args.preset, args.items, args.labelers, staged=args.staged)
        server = stack.enter_context(Server(path))
        before_s = server.cpu_s()
        took, acknowledged, tallies, late_ms, wall_s = asyncio.run(load(server.address, keys, args))
        cpu_s = server.cpu_s() - before_s
        server.stop()
        show(took, wall_s, cpu_s, late_ms, sum(tally.answered for tally in tallies))
        trouble = list(check(path, acknowledged))
    print("\n".join(trouble) or "checked     no item beyond its overlap; acknowledged = stored, each once")
    raise SystemExit(1 if trouble else 0)


def make_store(path: Path, preset: str, items: int, labelers: int, *, staged: bool = False) -> list[str]:
    """A project with items, and the keys of its labelers."""
    random_words = random.Random(0)

    def text(n: int) -> str:
        return " ".join(random_words.choices(WORDS, k=n))

    with Store.open(path, create=True) as store:
        settings = replace(PRESETS[preset], name="load", overlap=OVERLAP, staged=staged)
        project = store.write(lambda conn: create_project(conn, 0, settings))
        for first in range(0, items, 1000):
            some = [
                NewItem(key=str(at), context={"post": text(150)},
                        candidates=[{"text": text(30), "policy": name} for name in ("a", "b")])
                for at in range(first, min(first + 1000, items))
            ]  # fmt: skip
            store.write(lambda conn, some=some: add_items(conn, 0, project, some))
        return keys_of(store, "load", [f"simulated-{number}" for number in range(1, labelers + 1)])


class Server:
    """`rein label serve` in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, store: Path) -> None:
        self.store, self.port = store, 0
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it says where it is."""
        command = [
            sys.executable,
            "-m",
            "rein",
            "label",
            "serve",
            str(self.store),
            "--port",
            str(self.port),
            "--no-browser",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if found := re.match(r"label\s+(http://127\.0\.0\.1:(\d+))/label", line):
                self.address, self.port = found[1], int(found[2])
            if line.startswith("end"):
                return
        raise SystemExit(f"the server ended with {self.process.wait()} before it said where it listens")

    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """At once, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """In good order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Timed:
    """A client whose requests are timed, by route."""

    def __init__(self, client: AsyncClient, took: dict[str, list[float]]) -> None:
        self._client, self._took = client, took

    async def send(self, call):
        """As the client does."""
        began = time.perf_counter()
        answer = await self._client.send(call)
        self._took[call.path].append(time.perf_counter() - began)
        return answer


async def load(address, keys, args):
    """Has the labelers work for the time that was asked for."""
    took, acknowledged = defaultdict(list), []
    names = [f"simulated-{number}" for number in range(1, len(keys) + 1)]
    clients = [AsyncClient(address, key=key) for key in keys]  # here: making one takes long, in this process
    thought, end, late_ms = random.Random(1), time.monotonic() + args.seconds, []

    async def one(labeler, client):
        await asyncio.sleep(thought.uniform(0, args.think[1]))  # people do not begin at one moment
        return await at_work(
            Timed(client, took), labeler, "load", enough=lambda tally: time.monotonic() > end,
            pause=lambda: thought.uniform(*args.think),
            on_answer=lambda card, said: acknowledged.append(card["assignment"]),
        )  # fmt: skip

    async def watch():
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.05)
            late_ms.append(1000 * (time.perf_counter() - began - 0.05))

    watching = asyncio.create_task(watch())
    began = time.monotonic()
    tallies = await asyncio.gather(*map(one, crew(names, by_length, Habits(), spread=0.2), clients))
    watching.cancel()
    for client in clients:
        await client.close()
    return took, acknowledged, tallies, late_ms, time.monotonic() - began


def show(took, wall_s, cpu_s, late_ms, answers) -> None:
    """Times by route, in milliseconds."""
    print(f"{'route':<12}{'requests':>10}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}  ms")
    for name, seconds in [*sorted(took.items()), ("all", [s for some in took.values() for s in some])]:
        ms = 1000 * np.array(seconds)
        p50, p95, p99 = np.percentile(ms, [50, 95, 99])
        print(f"{name:<12}{len(ms):>10,}{p50:>8.1f}{p95:>8.1f}{p99:>8.1f}{ms.max():>8.1f}")
    requests = sum(map(len, took.values()))
    print(f"answers     {answers / wall_s:,.0f}/s, {requests / wall_s:,.0f} requests/s, over {wall_s:.0f} s")
    print(
        f"processor   server {cpu_s / wall_s:.0%} of one, {1000 * cpu_s / requests:.1f} ms a request; "
        f"this process late by {np.percentile(late_ms, 99):.0f} ms (p99)"
    )


def check(path: Path, acknowledged: list[int]):
    """What is wrong with the store, given what was acknowledged to the clients."""
    feedback, assignment, item = tables.feedback.c, tables.assignment.c, tables.item.c
    with Store.open(path) as store, store.reading() as conn:
        taken = (
            select(assignment.item, func.count().label("n"))
            .where(assignment.turn == 0, assignment.state.in_(("open", "submitted")))
            .group_by(assignment.item).subquery()
        )  # fmt: skip
        over = conn.scalar(
            select(func.count()).select_from(tables.item).join(taken, taken.c.item == item.id)
            .where(item.role == "work", taken.c.n > item.wanted)
        )  # fmt: skip
        if over:
            yield f"{over} items have more answers and leases than their overlap"
        said = select(feedback.assignment, func.count()).where(feedback.act == "say", feedback.kind != "notes")
        rows = conn.execute(said.group_by(feedback.assignment)).all()
        questions = len(conn.execute(select(tables.project.c.settings)).scalar_one()["questions"])
        stored = {number for number, _ in rows}
        yield from (f"assignment {number} is stored {n} times" for number, n in rows if n != questions)
        if len(acknowledged) != len(set(acknowledged)):
            yield "an assignment was acknowledged twice"
        if lost := set(acknowledged) - stored:
            yield f"{len(lost)} acknowledged answers are not stored"
        if more := stored - set(acknowledged):
            yield f"{len(more)} stored answers were never acknowledged"


if __name__ == "__main__":
    main()
