"""Who waits for whom: what takes a while of a large project keeps nobody else, and is done once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rein.feedback import mine as module
from rein.feedback.database import CONNECTIONS
from rein.web.label import research
from rein.web.label.guard import COOKIE
from rein.web.label.research_data import FILES_AT_ONCE

API = "/label/api"
TLDR = f"{API}/research/projects/tldr"
MINE = f"{API}/mine?project=tldr"


class Door:
    """Requests of many people to one server that runs: each by their own session."""

    def __init__(self, server, client) -> None:
        self.server, self.client, self.tokens = server, client, {}

    def add(self, name, role="labeler") -> None:
        self.tokens[name] = self.server.client(name, role).cookies[COOKIE]

    def ask(self, who, path, method="GET", **more):
        headers = {"authorization": f"Bearer {self.tokens[who]}"}
        return self.client.request(method, path, headers=headers, **more)

    def label(self, who) -> None:
        card = self.ask(who, f"{API}/claim", "POST", json={"project": "tldr"}).json()["items"][0]
        answers = {"choice": {"choice": 0, "points": 2}}
        body = {"key": self.server.key(), "assignment": card["assignment"], "revision": 0, "answers": answers}
        assert self.ask(who, f"{API}/submit", "POST", json=body).status_code == 200


@pytest.fixture
def door(server):
    with server.stranger() as client:
        made = Door(server, client)
        made.add("ann")
        made.add("ben")
        made.add("rae", "admin")
        server.project(n=4, staged=False, members=["ann"])
        yield made


class Slow:
    """A function that waits until it may go on, and says how many of it ran at once, and how often."""

    def __init__(self, function) -> None:
        self.function, self.go_on = function, threading.Event()
        self.calls = self.now = self.most = 0
        self._lock = threading.Lock()
        self._began = threading.Semaphore(0)

    def __call__(self, *words, **named):
        with self._lock:
            self.calls, self.now = self.calls + 1, self.now + 1
            self.most = max(self.most, self.now)
        self._began.release()
        assert self.go_on.wait(30)
        with self._lock:
            self.now -= 1
        return self.function(*words, **named)

    def began(self) -> None:
        assert self._began.acquire(timeout=20)


def test_a_person_who_asks_for_their_page_many_times_at_once_waits_alone(door, monkeypatch):
    slow = Slow(module.mine)
    monkeypatch.setattr(module, "mine", slow)
    with ThreadPoolExecutor(40) as threads:
        waiting = [threads.submit(door.ask, "ann", MINE) for _ in range(40)]
        slow.began()
        # Somebody else comes in, reads, and has their own pages counted.
        for who, path in (("ben", f"{API}/me"), ("rae", f"{TLDR}/progress"), ("rae", f"{TLDR}/items")):
            assert door.ask(who, path).status_code == 200
        assert not any(one.done() for one in waiting)
        slow.go_on.set()
        assert [one.result(30).status_code for one in waiting] == [200] * 40
    assert (slow.most, slow.calls) == (1, 1)  # the others are given the page that the first one made


def test_so_many_people_as_one_likes_wait_for_their_pages_and_keep_nobody_at_the_door(door, monkeypatch):
    names = [f"person {n}" for n in range(20)]
    for name in names:
        door.add(name, "researcher")
    slow = Slow(module.mine)
    monkeypatch.setattr(module, "mine", slow)
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(door.ask, name, MINE) for name in names]
        slow.began()
        slow.began()
        door.server.service.forget()  # so that all who ask are read anew
        for path in ("me", "history?project=tldr", "threads?project=tldr"):
            assert door.ask("ann", f"{API}/{path}").status_code == 200
        slow.go_on.set()
        assert [one.result(30).status_code for one in waiting] == [200] * 20
    assert slow.most == 2


def test_ones_page_is_made_anew_when_something_has_come_in(door, monkeypatch):
    slow = Slow(module.mine)
    slow.go_on.set()
    monkeypatch.setattr(module, "mine", slow)
    for made, change in (
        (1, lambda: None),
        (1, lambda: None),
        (2, lambda: door.label("ann")),
        (2, lambda: None),
        (3, lambda: door.ask("rae", TLDR, "PATCH", json={"settings": {"title": "T"}})),
        (4, lambda: door.label("rae")),
    ):
        change()
        assert door.ask("ann", MINE).json()["answers"] == min(1, made - 1)
        assert slow.calls == made
    assert door.ask("rae", MINE).json()["answers"] == 1  # her own, not ann's
    assert slow.calls == 5


def test_a_page_that_could_not_be_made_is_not_kept(door, monkeypatch):
    assert door.ask("ann", f"{API}/mine?project=none").status_code == 404
    made = module.mine
    monkeypatch.setattr(module, "mine", lambda *_: 1 / 0)
    assert door.ask("ann", MINE).status_code == 500
    monkeypatch.setattr(module, "mine", made)
    assert door.ask("ann", MINE).status_code == 200


def test_counts_for_researchers_keep_no_labeler_waiting(door, monkeypatch):
    slow = Slow(research.progress_of)
    monkeypatch.setattr(research, "progress_of", slow)
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(door.ask, "rae", f"{TLDR}/progress") for _ in range(20)]
        slow.began()
        slow.began()
        assert door.ask("ann", f"{API}/me").status_code == 200
        door.label("ann")
        slow.go_on.set()
        assert [one.result(30).status_code for one in waiting] == [200] * 20
    assert slow.most == 2


def test_who_is_let_out_is_out_whatever_broke_off_before(door):
    """Readings that broke off, of each of the store's connections, whose tracebacks are kept."""
    held = []
    for _ in range(20):
        try:
            with door.server.store.reading() as conn:
                for _ in conn.exec_driver_sql("SELECT * FROM person"):
                    raise RuntimeError("in the middle")
        except RuntimeError as error:
            held.append(error)
    everybody = door.ask("rae", f"{API}/research/people").json()["people"]
    number = next(one["id"] for one in everybody if one["name"] == "ann")
    assert door.ask("ann", f"{API}/me").status_code == 200
    out = door.ask("rae", f"{API}/research/people/{number}", "POST", json={"active": False})
    assert out.status_code == 200
    assert [door.ask("ann", f"{API}/me").status_code for _ in range(5)] == [401] * 5


def test_all_that_may_read_at_once_have_a_connection_each(server):
    service = server.service
    threads = (service.doormen, service.readers, service.counters, service.judges)
    ahead = 1
    assert sum(each.total_tokens for each in threads) + FILES_AT_ONCE + ahead < CONNECTIONS
