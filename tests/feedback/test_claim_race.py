"""Several processes at one store: nothing is given twice, and nothing that was acknowledged is missing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from desks import LEFT, PLAIN, Desk, new_item
from sqlalchemy import text

from rein.feedback import work

OVERLAP = 2
ITEMS = 60


def race(desk, address, people):
    """A process for each of `people`; what each was told."""
    program = str(Path(__file__).parent / "racing.py")
    racers = []
    for n, who in enumerate(people):
        words = [sys.executable, program, address, str(desk.id), str(desk.people[who]), f"racer{n}"]
        racers.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        told = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
        assert [racer.returncode for racer in racers] == [0] * len(racers)
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    return told


def check(desk, told, people):
    items = {row["id"]: row for row in desk.items().values()}
    assert {row["done"] for row in items.values()} == {OVERLAP}
    assert {row["room"] for row in items.values()} == {0}
    leases = desk.leases()
    assert {row["state"] for row in leases} == {"submitted"}
    assert len({(row["item"], row["person"]) for row in leases}) == len(leases) == OVERLAP * ITEMS
    said = Counter(item for one in told for item, _, _ in one)
    assert said == {number: OVERLAP for number in items}
    assert sorted(seq for one in told for _, seq, _ in one) == sorted(row["seq"] for row in desk.rows())
    assert not any(late for one in told for _, _, late in one)
    assert {row["person"] for row in leases} <= {desk.people[who] for who in people}


def test_processes_that_claim_at_once_are_given_different_places(store):
    people = ("ann", "bob", "cid")
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=OVERLAP), people, [new_item(f"i{n}") for n in range(ITEMS)])
    address = str(store.path) if store.path else address_of(store)
    racers = (*people, "ann")  # one of them sits at two screens
    told = race(desk, address, racers)
    check(desk, told, people)


def address_of(store):
    """With the folder of the socket, which `Store.address` may leave out."""
    with store.reading() as conn:
        name, folder = conn.execute(text("SELECT current_database(), current_setting('unix_socket_directories')")).one()
    return f"postgresql://rein@/{name}?host={folder}"


def test_threads_that_claim_at_once_are_given_different_places(store):
    people = ("ann", "bob", "cid", "dee")
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=OVERLAP), people, [new_item(f"i{n}") for n in range(ITEMS)])

    def label(who):
        told = []
        while hand := desk.claim(who, 2):
            for claimed in hand:
                done = desk.submit(who, claimed, LEFT)
                told.append((claimed.item["id"], done.seqs[0], done.late))
        return told

    with ThreadPoolExecutor(len(people)) as pool:
        told = list(pool.map(label, people))
    check(desk, told, people)


def test_a_person_at_two_screens_holds_no_more_than_may_be_held(store):
    desk = Desk(store, dataclasses.replace(PLAIN, ahead=2), items=[new_item(f"i{n}") for n in range(20)])
    with ThreadPoolExecutor(8) as pool:
        hands = list(pool.map(lambda _: desk.claim("ann", 2), range(24)))
    assert len({one.assignment["id"] for hand in hands for one in hand}) == 2
    assert len(desk.leases(state="open")) == 2


def test_a_key_that_comes_from_two_threads_at_once_is_done_once(store):
    desk = Desk(store, items=[new_item("i")])
    (given,) = desk.claim("ann")
    ann, number = desk.people["ann"], given.assignment["id"]

    def post(_):
        def act(conn):
            def submit():
                return {"seqs": work.submit(conn, desk.now, ann, number, key="k", revision=0, answers=LEFT).seqs}

            return work.once(conn, desk.now, ann, "k", "submit", {"answers": LEFT}, submit)

        return store.write(act)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(post, range(16)))
    assert all(result == results[0] for result in results)
    assert len(desk.rows()) == 1
