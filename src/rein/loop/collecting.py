"""A batch of items answered: by simulated labelers through the labeling server, by people at its pages, or both.

Flow     a batch in the store → `simulate` (the API, one answer after the other) and `people_answer` (waiting) → frozen
         → `answers_of`: what stands, sorted, without times: the lines that a reward model learns from

Who is given which item, and on which side a candidate is shown, follows from the store's rows alone, and whose turn it
is from how many items each simulated labeler was given. So what they say is the same whenever they were interrupted.
A frozen batch takes no more changes: `check_unchanged` holds the store to what was learned from.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from rein.errors import UserError
from rein.feedback import client as api
from rein.feedback import people, tables
from rein.feedback.exchange.exporting import open_export
from rein.feedback.exchange.groups import write_ranked
from rein.feedback.exchange.rows import compact, digest
from rein.feedback.exchange.writing import WORK
from rein.feedback.items import create_project, freeze, load_project
from rein.feedback.labelers import Labeler
from rein.feedback.project import Project
from rein.feedback.refused import Refused
from rein.feedback.simulated_work import Tally, answer_one, keys_of
from rein.feedback.store import Store
from rein.loop.stages import Waiting
from rein.progress import Progress
from rein.report.legible import count
from rein.run import read_rows
from rein.web.app import bind, make_server
from rein.web.label.serve import application
from rein.web.label.service import Service, now_ms

Json = Any
POLL_S = 2.0  # between two looks at what people have answered
SIMULATED_LEASE_S = 10**7  # an interrupted labeler's item is still theirs on the next day: nobody else takes its place


def make_project(store: Store, settings: Project) -> None:
    """The project, where it is not there yet, with the researcher whom `rein label serve` lets in.

    Raises   UserError where it is there with other settings, or they are none.
    """

    def make(conn: Connection) -> None:
        now = now_ms()
        known = conn.execute(select(tables.project.c.id).where(tables.project.c.name == settings.name)).first()
        if known is not None:
            _, there = load_project(conn, settings.name)
            if there.questions != settings.questions or there.fields != settings.fields:
                raise UserError(
                    f"The project {settings.name} of {store.address} asks something else than this loop.",
                    "Name another --store.",
                )
            return
        number = create_project(conn, now, settings)
        found = people.find_person(conn, "researcher")
        person = people.add_person(conn, now, "researcher", "admin") if found is None else found
        people.join(conn, now, number, person, "working")

    try:
        store.write(make)
    except Refused as refused:
        raise UserError(refused.text, "Name another --store, or change the settings.") from None


# -------------------------------------------------------------------------------------------------------- answers


def answered(store: Store, project: str, batch: str) -> int:
    """How many answers of a batch's work count."""
    return _sum_of_work(store, project, batch, "done")


def capacity(store: Store, project: str, batch: str) -> int:
    """How many answers the work of a batch has room for: fewer items are drawn where two answers are the same text."""
    return _sum_of_work(store, project, batch, "wanted")


def _sum_of_work(store: Store, project: str, batch: str, column: str) -> int:
    item = tables.item.c
    with store.reading() as conn:
        of = [item.project == load_project(conn, project)[0], item.batch == _batch(conn, project, batch)]
        return int(conn.execute(select(func.sum(item[column])).where(*of, item.role == "work")).scalar() or 0)


def _batch(conn: Connection, project: str, name: str) -> int:
    number, _ = load_project(conn, project)
    found = conn.execute(
        select(tables.batch.c.id).where(tables.batch.c.project == number, tables.batch.c.name == name)
    ).scalar()
    if found is None:
        raise UserError(f"The project {project} has no batch {name} any more.", "Restore the store.")
    return int(found)


@contextlib.contextmanager
def served(store: Store) -> Iterator[str]:
    """The labeling server, in a thread, on any free port of loopback."""
    sock = bind("127.0.0.1", 0)
    sock.listen(128)
    server = make_server(application(Service(store)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def simulate(store: Store, project: str, batch: str, labelers: Sequence[Labeler], target: int) -> None:
    """Has simulated labelers answer until the batch's work has `target` answers, or there is nothing left for them.

    Each turn is the turn of whoever was given fewest items; what was in somebody's hands when an earlier start ended
    comes first.
    """
    if answered(store, project, batch) >= target:
        return
    keys = keys_of(store, project, [labeler.name for labeler in labelers])
    with (
        served(store) as address,
        Progress(f"labeling {batch}", total=target, unit="answers", start=answered(store, project, batch)) as bar,
    ):
        asyncio.run(_take_turns(store, project, batch, address, dict(zip(keys, labelers, strict=True)), target, bar))


async def _take_turns(
    store: Store, project: str, batch: str, address: str, labelers: Mapping[str, Labeler], target: int, bar: Progress
) -> None:
    by_name = {labeler.name: labeler for labeler in labelers.values()}
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            labeler.name: await stack.enter_async_context(api.AsyncClient(address, key=key))
            for key, labeler in labelers.items()
        }

        async def one(name: str) -> bool:
            got = await clients[name].send(api.claim(project, 1))
            for card in got["items"]:
                await answer_one(clients[name], by_name[name], card, Tally())
            return bool(got["items"])

        for name in _in_hand(store, project, list(by_name)):
            await one(name)
        done = answered(store, project, batch)
        while done < target:
            for name in _turns(store, project, list(by_name)):
                if await one(name):
                    break
            else:
                return
            before, done = done, answered(store, project, batch)
            bar.advance(done - before)


def _in_hand(store: Store, project: str, names: Sequence[str]) -> list[str]:
    """Who of them holds an item, in the order in which they were given it."""
    person, assignment = tables.person.c, tables.assignment.c
    with store.reading() as conn:
        number, _ = load_project(conn, project)
        rows = conn.execute(
            select(person.name)
            .join(tables.assignment, assignment.person == person.id)
            .where(assignment.project == number, assignment.state == "open", person.name.in_(names))
            .order_by(assignment.id)
        )
        return list(rows.scalars())


def _turns(store: Store, project: str, names: Sequence[str]) -> list[str]:
    """Them, whoever was given fewest items first."""
    person, member = tables.person.c, tables.member.c
    with store.reading() as conn:
        number, _ = load_project(conn, project)
        rows = conn.execute(
            select(person.name)
            .join(tables.member, member.person == person.id)
            .where(member.project == number, person.name.in_(names))
            .order_by(member.claims, person.id)
        )
        return list(rows.scalars())


def people_answer(store: Store, project: str, batch: str, target: int, *, wait: bool) -> None:
    """Goes on once the batch's work has `target` answers.

    Raises   Waiting with what to do, where it has fewer and nobody is to be waited for.
    """
    done = answered(store, project, batch)
    if done >= target:
        return
    said = (
        f"waiting for {count(target - done, 'answer')} of people to {batch}.\n"
        f"  Serve the store with `rein label serve {store.address}`, and come in by the link that it prints;\n"
        f"  `rein label invite {store.address} --project {project}` prints one for somebody else."
    )
    if not wait:
        raise Waiting(f"{said}\n  Then run the same command again.")
    with Progress(f"people at {batch}", total=target, unit="answers", start=done) as bar:
        bar.say(said)
        while done < target:
            time.sleep(POLL_S)
            before, done = done, answered(store, project, batch)
            bar.advance(done - before)


def close_batch(store: Store, project: str, batch: str) -> None:
    """From now on the batch takes no more changes."""
    store.write(lambda conn: freeze(conn, now_ms(), load_project(conn, project)[0], batch, True))


def answers_of(store: Store, project: str, batches: Sequence[str]) -> list[dict[str, Json]]:
    """What stands of some batches, as ranked groups, by batch, item and labeler: the same whoever came first.

    Simulated labelers go by their names, people by pseudonyms.
    """
    person = tables.person.c
    with store.reading() as conn:
        export = open_export(conn, project, secret=store.secret, roles=WORK, batches=batches)
        simulated = conn.execute(select(person.id, person.name).where(person.simulated)).all()
        export.names.called.update({row.id: row.name for row in simulated})
        rows = [write_ranked(one) for one in export.judged("comparison")]
    return sorted(rows, key=lambda row: (row["batch"], row["group_id"], row["labeler"]))


def as_lines(rows: Sequence[Mapping[str, Json]]) -> str:
    """Rows as the text of a file."""
    return "".join(compact(row) + "\n" for row in rows)


def held_out(rows: Sequence[Mapping[str, Json]], share: float) -> list[dict[str, Json]]:
    """The rows, with a share of their prompts in the splits valid and test, about as many in one as in the other.

    On which side a prompt is follows from its text alone, so that none changes sides as more are answered. Only where
    there are so few prompts that a split would be empty, it has the one that is next.

    Example  >>> rows = [{"prompt": letter, "split": "train"} for letter in "abcdefghij"]
             >>> [row["split"] for row in held_out(rows, 0.2)].count("valid")
             1
    """
    draw = {topic: _drawn(topic) for topic in dict.fromkeys(map(topic_of, rows))}
    split = {topic: half for topic, (place, half) in draw.items() if place < share}
    for half in ("valid", "test"):
        left = [topic for topic in draw if topic not in split]
        if half not in split.values() and left:
            split[min(left, key=lambda topic: draw[topic][0])] = half
    return [{**row, "split": split.get(topic_of(row), "train")} for row in rows]


def _drawn(topic: str) -> tuple[float, str]:
    """Where a prompt is in [0, 1), and in which half: two hashes, for one would tie the half to the place."""
    return int(digest(["place", topic]), 16) / 16.0**32, ("valid", "test")[int(digest(["half", topic]), 16) % 2]


def topic_of(row: Mapping[str, Json]) -> str:
    """A name of what was asked: the same for all items of a prompt."""
    return digest([row.get("prompt"), row.get("context")])


def check_unchanged(store: Store, project: str, batch: str, path: Path) -> int:
    """Whether what was learned from still stands in the store; returns how many answers came too late for it.

    Raises   UserError where an answer is missing or says something else.
    """
    kept = [compact(row) for row in read_rows(path)]
    there = [compact(row) for row in answers_of(store, project, [batch])]
    missing = set(kept) - set(there)
    if missing:
        raise UserError(
            f"The store {store.address} was changed: {count(len(missing), 'answer')} of {len(kept):,} to {batch} are "
            f"not there any more as they were when {path} was written, and later rounds were learned from them.",
            "Restore the store, or choose another --out.",
        )
    return len(there) - len(kept)
