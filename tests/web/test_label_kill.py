"""kill -9 of the real server while people work: what was acknowledged is there, once, and goes on after a restart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from label_server import Server
from sqlalchemy import func, select

from rein.feedback import client as api
from rein.feedback import people, tables
from rein.feedback.store import Store

PEOPLE, ITEMS, OVERLAP = 6, 3_000, 2


def start(path, port: int) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-m", "rein", "label", "serve", str(path), "--port", str(port), "--no-browser"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    line = ""
    while "end  " not in line:
        line = program.stdout.readline()
        assert line, "the server did not start"
    return program


@pytest.fixture
def prepared(tmp_path):
    """(path of a store with people and items, their keys, a port that is free)."""
    server = Server(tmp_path / "labels.db")
    names = [f"person {n}" for n in range(PEOPLE)]
    numbers = [server.add(name) for name in names]
    server.project(n=ITEMS, staged=False, overlap=OVERLAP, members=names)

    def keys(conn) -> list[str]:
        now = time.time_ns() // 1_000_000
        return [people.open_session(conn, now, number, "key", "test", 10**7) for number in numbers]

    made = server.store.write(keys)
    server.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return tmp_path / "labels.db", made, port


def work(address: str, key: str, acknowledged: list, over: threading.Event, failed: list) -> None:
    try:
        with api.Client(address, key=key, patience_s=60.0) as client:
            while not over.is_set():
                for card in client.send(api.claim("tldr"))["items"]:
                    call = api.submit(card, {"choice": {"choice": 0, "points": 2}}, times={"active_ms": 5})
                    client.send(call)
                    acknowledged.append((card["assignment"], call.body["key"]))
    except Exception as error:
        failed.append(error)


def test_no_acknowledged_answer_is_lost_or_counted_twice(prepared):
    path, keys, port = prepared
    acknowledged, failed, over = [], [], threading.Event()
    program = start(path, port)
    address = f"http://127.0.0.1:{port}"
    crowd = [threading.Thread(target=work, args=(address, key, acknowledged, over, failed)) for key in keys]
    for one in crowd:
        one.start()
    try:
        for kill in range(3):
            # Under load, and each time after more was done than before.
            done, until = len(acknowledged), time.monotonic() + 30
            while len(acknowledged) < done + 20 + 15 * kill:
                assert time.monotonic() < until, failed
                time.sleep(0.01)
            os.kill(program.pid, signal.SIGKILL)
            program.communicate()
            program = start(path, port)
        done = len(acknowledged)
        while len(acknowledged) < done + 20 and not failed:
            time.sleep(0.01)
    finally:
        over.set()
        for one in crowd:
            one.join(90)
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=30)
    assert not failed
    with Store.open(path) as store, store.reading() as conn:
        kept = conn.execute(select(tables.feedback.c.assignment, tables.feedback.c.key)).all()
        given = tables.assignment
        states = (
            select(given.c.item, func.count()).where(given.c.state.in_(("open", "submitted"))).group_by(given.c.item)
        )
        assert max(n for _, n in conn.execute(states)) <= OVERLAP
        item = tables.item
        assert conn.execute(select(func.sum(item.c.done))).scalar() == len(kept)
    times = Counter((row.assignment, row.key) for row in kept)
    assert max(times.values()) == 1
    # At the end nothing was under way: the two sets are the same.
    assert set(times) == set(acknowledged)
    assert len(acknowledged) == len(set(acknowledged)) > 100
