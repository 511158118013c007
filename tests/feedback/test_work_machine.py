"""The desk against a model of it in plain Python: any works in any order, on both databases."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest
from desks import EVEN, LEFT, PLAIN, RIGHT, Desk, new_item
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from rein.feedback import work
from rein.feedback.tables import assignment, feedback, submission
from rein.feedback.work import Refused

PEOPLE = ("ann", "bob", "cid")
FREE = ("expired", "released")
BAD = {"choice": {"choice": 0, "points": 9}}


@dataclass
class Item:
    """What the model knows of an item."""

    key: str
    wanted: int
    priority: float
    place: int
    batch: str
    done: int = 0
    closed: bool = False


@dataclass
class Lease:
    """What the model knows of an assignment."""

    number: int
    who: str
    key: str
    order: list[int]
    state: str = "open"
    lease_ms: int = 0
    claimed_ms: int = 0
    revision: int = 0
    counted: bool = False
    late: bool = False
    revealed: bool = False
    said: dict | None = None  # as shown
    claimed: object = field(default=None, repr=False)


class DeskMachine(RuleBasedStateMachine):
    """Rules do a work on the store and on the model, and both must say the same."""

    store = None  # set by the test

    @initialize(
        overlap=st.integers(1, 3), ahead=st.integers(1, 3), staged=st.booleans(), seeded=st.booleans(),
        items=st.integers(2, 5),
    )  # fmt: skip
    def begin(self, overlap, ahead, staged, seeded, items):
        self.settings = dataclasses.replace(
            PLAIN, overlap=overlap, ahead=ahead, staged=staged, lease_s=100, uniform_share=1.0 if seeded else 0.0
        )
        self.desk = Desk(self.store, self.settings, PEOPLE)
        self.items: dict[str, Item] = {}
        self.leases: dict[int, Lease] = {}
        self.frozen: set[str] = set()
        self.acknowledged: list[dict] = []  # rows that a result told of
        self.before: list[dict] = []  # all rows of feedback
        self.sent: dict[str, tuple] = {}  # key → who, body, result
        self.keys = 0
        self.put(items, None, 0.0)

    # ------------------------------------------------------------------------------------------ works

    @rule(n=st.integers(1, 2), wanted=st.none() | st.integers(1, 3), priority=st.sampled_from((0.0, 1.0, -0.5)))
    def add(self, n, wanted, priority):
        self.put(n, wanted, priority)

    def put(self, n, wanted, priority):
        batch = f"batch{len(self.items) % 2}"
        new = [new_item(f"item{len(self.items) + k}", wanted=wanted, priority=priority, batch=batch) for k in range(n)]
        if batch in self.frozen:
            self.refused("frozen", lambda: self.desk.add(*new))
            return
        assert self.desk.add(*new) == work.Added(n, 0)
        assert self.desk.add(*new) == work.Added(0, n)
        for one in new:
            place = self.desk.item(one.key)["place"]
            self.items[one.key] = Item(one.key, wanted or self.settings.overlap, priority, place, batch)

    @rule(who=st.sampled_from(PEOPLE), n=st.integers(1, 3))
    def claim(self, who, n):
        got = self.desk.claim(who, n)
        hand = [lease for lease in self.in_order() if lease.who == who and lease.state == "open"]
        for lease in hand:
            lease.lease_ms = self.end()
        self.model_expire()
        expected = [lease.key for lease in hand[:n]]
        for _ in range(min(n - len(expected), self.settings.ahead - len(hand))):
            key = self.model_next(who)
            if key is None:
                break
            claimed = got[len(expected)] if len(expected) < len(got) else None
            assert claimed is not None, f"{key} should have been given"
            self.model_lend(who, key, claimed)
            expected.append(key)
        assert [one.item["key"] for one in got] == expected
        for one in got:
            self.leases[one.assignment["id"]].claimed = one

    def model_next(self, who):
        mine = {lease.key for lease in self.leases.values() if lease.who == who and lease.state not in FREE}
        left = [one for one in self.items.values() if self.room(one) > 0 and one.key not in mine]
        if self.settings.uniform_share:
            return min(left, key=lambda one: one.place).key if left else None
        return min(left, key=lambda one: (self.room(one), -one.priority, one.place)).key if left else None

    def model_lend(self, who, key, claimed):
        number = claimed.assignment["id"]
        lease = self.leases.setdefault(number, Lease(number, who, key, claimed.order))
        assert (lease.who, lease.key, lease.order) == (who, key, claimed.order)
        assert sum(one.who == who and one.key == key for one in self.leases.values()) == 1  # never given twice
        lease.state, lease.claimed_ms, lease.lease_ms = "open", self.desk.now, self.end()

    @rule(who=st.sampled_from(PEOPLE), n=st.integers(1, 3), answers=st.sampled_from((LEFT, RIGHT, EVEN)))
    def label(self, who, n, answers):
        """What is done most: to claim and to hand in."""
        for _ in range(n):
            self.claim(who, 2)
            for lease in self.in_order():
                if lease.who == who and lease.state == "open":
                    if self.settings.staged and not lease.revealed:
                        self.reveal_one(lease)
                    self.hand_in(lease, who, answers, lease.revision)
                    break

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), who=st.sampled_from(PEOPLE), answers=st.sampled_from((LEFT, RIGHT, EVEN, BAD)),
          stale=st.integers(0, 6))  # fmt: skip
    def submit(self, data, who, answers, stale):
        lease = self.pick(data, "open", "expired", "submitted")
        who = who if stale == 1 else lease.who  # now and then another person
        self.hand_in(lease, who, answers, lease.revision - (stale == 2))

    def hand_in(self, lease, who, answers, revision):
        body = {"assignment": lease.number, "revision": revision, "answers": answers}
        key = self.new_key()
        code = self.submit_code(lease, who, revision, answers)
        if code:
            self.refused(code, lambda: self.post(key, who, body))
            assert key not in self.known_keys()
            return
        result = self.post(key, who, body)
        again = lease.state == "submitted"
        if not again:
            item = self.items[lease.key]
            frozen = item.batch in self.frozen
            lease.late = lease.state != "open" or lease.lease_ms <= self.desk.now or frozen
            lease.counted = not frozen and (lease.state == "open" or self.room(item) > 0)
            item.done += lease.counted
        lease.state, lease.said, lease.revision = "submitted", answers, lease.revision + 1
        assert (result["late"], result["revision"]) == (lease.late, lease.revision)
        self.acknowledged.append({"seq": result["seqs"][0], "assignment": lease.number, "said": answers})
        self.sent[key] = (who, body, result)

    def submit_code(self, lease, who, revision, answers):
        if who != lease.who:
            return "not_yours"
        if lease.state == "skipped":
            return "not_open"
        if revision != lease.revision:
            return "stale"
        if lease.state == "submitted" and self.items[lease.key].batch in self.frozen:
            return "frozen"
        if self.settings.staged and not lease.revealed:
            return "not_revealed"
        return "bad_value" if answers is BAD else None

    def post(self, key, who, body):
        person = self.desk.people[who]

        def do(conn):
            def submit():
                rest = {name: body[name] for name in ("revision", "answers")}
                done = work.submit(conn, self.desk.now, person, body["assignment"], key=key, **rest)
                return {"seqs": done.seqs, "late": done.late, "revision": done.revision}

            return work.once(conn, self.desk.now, person, key, "submit", body, submit)

        return self.store.write(do)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), changed=st.booleans())
    def replay(self, data, changed):
        key = data.draw(st.sampled_from(sorted(self.sent)))
        who, body, result = self.sent[key]
        if changed:
            self.refused("key_reused", lambda: self.post(key, who, {**body, "revision": 99}))
        else:
            assert self.post(key, who, body) == result

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def reveal(self, data):
        self.reveal_one(self.pick(data, "open"))

    def reveal_one(self, lease):
        notes = [f"left of {lease.number}", "right"]
        if not self.settings.staged:
            self.refused("bad_value", lambda: self.desk.reveal(lease.who, lease.claimed, notes))
        elif lease.state in ("submitted", "skipped"):
            self.refused("not_open", lambda: self.desk.reveal(lease.who, lease.claimed, notes))
        else:
            shown = self.desk.reveal(lease.who, lease.claimed, notes)
            lease.revealed = True
            assert [shown.assignment["notes"][candidate] for candidate in lease.order] == notes

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def skip(self, data):
        lease = self.pick(data, "open", "expired")
        if lease.state in ("submitted", "skipped"):
            self.refused("not_open", lambda: self.desk.skip(lease.who, lease.claimed))
            return
        self.desk.skip(lease.who, lease.claimed)
        lease.state, lease.revision = "skipped", lease.revision + 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), more=st.booleans())
    def undo(self, data, more):
        lease = self.pick(data, "submitted", "skipped")
        if more:
            self.claim(lease.who, 3)  # a full hand, out of which something must go
        self.take_back(lease)

    def take_back(self, lease):
        item, was = self.items[lease.key], lease.state
        if was not in ("submitted", "skipped"):
            code = "not_open"
        else:
            code = "frozen" if item.batch in self.frozen else None
        if code:
            self.refused(code, lambda: self.desk.undo(lease.who, lease.claimed))
            return
        opened = self.desk.undo(lease.who, lease.claimed)
        assert opened.answers == (lease.said if was == "submitted" else None)
        if was == "skipped" or lease.late:
            lease.state = "expired"
        else:
            lease.state, lease.lease_ms = "open", self.end()
        item.done -= lease.counted
        lease.counted, lease.said, lease.revision = False, None, lease.revision + 1
        held = [one for one in self.leases.values() if one.who == lease.who and one.state == "open"]
        others = sorted((one for one in held if one is not lease), key=lambda one: (-one.claimed_ms, -one.number))
        for one in others[: max(len(held) - self.settings.ahead, 0)]:
            one.state = "released"

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), who=st.sampled_from(PEOPLE))
    def release(self, data, who):
        lease = self.pick(data)
        self.desk.release(who, lease.claimed)
        if lease.who == who and lease.state == "open":
            lease.state = "released"

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def heartbeat(self, data):
        lease = self.pick(data)
        kept = self.desk.heartbeat(lease.who, lease.claimed)
        if lease.state == "open":
            lease.lease_ms = self.end()
        assert kept == ({lease.number: self.end()} if lease.state == "open" else {})

    @rule(s=st.sampled_from((1, 40, 101)))
    def time_passes(self, s):
        self.desk.pass_time(s)

    @rule()
    def expire(self):
        self.desk.expire()
        self.model_expire()

    @rule(batch=st.sampled_from(("batch0", "batch1")), frozen=st.booleans())
    def freeze(self, batch, frozen):
        if not any(one.batch == batch for one in self.items.values()):
            self.refused("unknown", lambda: self.desk.freeze(batch, frozen))
            return
        self.desk.freeze(batch, frozen)
        (self.frozen.add if frozen else self.frozen.discard)(batch)

    @rule(data=st.data(), priority=st.sampled_from((-1.0, 0.0, 2.0)), closed=st.booleans(), many=st.booleans())
    def change(self, data, priority, closed, many):
        item = self.items[data.draw(st.sampled_from(sorted(self.items)))]
        number = self.desk.item(item.key)["id"]
        item.priority = priority
        if many:
            self.store.write(lambda conn: work.set_priorities(conn, self.desk.id, {number: priority}))
        else:
            item.closed = closed
            self.store.write(lambda conn: work.change_item(conn, number, priority=priority, closed=closed))

    # --------------------------------------------------------------------------------------- the model

    def end(self):
        return self.desk.now + 1000 * self.settings.lease_s

    def in_order(self):
        return [self.leases[number] for number in sorted(self.leases)]

    def pick(self, data, *states):
        """A lease; mostly one in a state where something can be done with it."""
        fit = [number for number in sorted(self.leases) if self.leases[number].state in states]
        some = fit if fit and data.draw(st.integers(0, 4)) else sorted(self.leases)
        return self.leases[data.draw(st.sampled_from(some))]

    def new_key(self):
        self.keys += 1
        return f"{self.desk.id}-{self.keys}"

    def room(self, item):
        if item.closed or item.batch in self.frozen:
            return 0
        out = sum(lease.key == item.key and lease.state == "open" for lease in self.leases.values())
        return max(item.wanted - item.done - out, 0)

    def model_expire(self):
        for lease in self.leases.values():
            if lease.state == "open" and lease.lease_ms <= self.desk.now:
                lease.state = "expired"

    def known_keys(self):
        with self.store.reading() as conn:
            return set(conn.execute(select(submission.c.key)).scalars()) & {f"{self.desk.id}-{self.keys}"}

    def refused(self, code, do):
        before = (self.desk.rows(), self.desk.items(), self.desk.leases())
        with pytest.raises(Refused) as error:
            do()
        assert error.value.code == code
        assert (self.desk.rows(), self.desk.items(), self.desk.leases()) == before

    # -------------------------------------------------------------------------------------- invariants

    @invariant()
    def the_store_is_as_the_model_says(self):
        stored = {key: (row["done"], row["room"], row["wanted"]) for key, row in self.desk.items().items()}
        assert stored == {one.key: (one.done, self.room(one), one.wanted) for one in self.items.values()}
        leases = {
            row["id"]: (row["state"], row["revision"], row["counted"], row["lease_ms"]) for row in self.desk.leases()
        }
        expected = {one.number: (one.state, one.revision, one.counted, one.lease_ms) for one in self.leases.values()}
        assert leases == expected

    @invariant()
    def no_item_is_given_beyond_its_overlap(self):
        for one in self.items.values():
            out = sum(lease.key == one.key and lease.state == "open" for lease in self.leases.values())
            assert one.done + out <= one.wanted
            assert one.done == sum(lease.key == one.key and lease.counted for lease in self.leases.values())

    @invariant()
    def nobody_holds_more_than_ahead(self):
        for who in PEOPLE:
            held = sum(lease.who == who and lease.state == "open" for lease in self.leases.values())
            assert held <= self.settings.ahead

    @invariant()
    def feedback_only_grows(self):
        rows = self.desk.rows()
        assert rows[: len(self.before)] == self.before
        self.before = rows

    @invariant()
    def what_was_acknowledged_is_there_once(self):
        rows = {row["seq"]: row for row in self.before}
        for one in self.acknowledged:
            row = rows[one["seq"]]
            order = row["shown"]["order"]
            said = one["said"]["choice"]["choice"]
            assert row["value"]["choice"] == (None if said is None else order[said])
        assert len({one["seq"] for one in self.acknowledged}) == len(self.acknowledged)
        says = [row for row in self.before if row["act"] in ("say", "revise")]
        assert len(says) == len(self.acknowledged)

    @invariant()
    def the_answers_are_what_the_rows_say(self):
        answers = self.desk.answers()
        assert answers == self.desk.rebuilt()
        standing = {row["assignment"]: row["late"] for row in answers}
        assert standing == {one.number: one.late for one in self.leases.values() if one.state == "submitted"}

    def teardown(self):
        if hasattr(self, "desk"):  # the leases of this example are of no concern to the next one
            for who in PEOPLE:
                ids = [one.number for one in self.leases.values() if one.who == who]
                self.store.write(lambda conn, w=who, i=ids: work.release(conn, self.desk.now, self.desk.people[w], i))


def run(store, examples, steps):
    machine = type("Machine", (DeskMachine,), {"store": store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_the_desk_does_what_its_model_does(store):
    run(store, examples=15 if store.path else 6, steps=50)
    with store.reading() as conn:  # the rules did get somewhere
        assert conn.execute(select(func.count()).select_from(feedback)).scalar() > 10
        states = set(conn.execute(select(assignment.c.state).distinct()).scalars())
    assert states >= {"submitted", "skipped", "released"}


@pytest.mark.slow
def test_the_desk_does_what_its_model_does_at_length(store):
    run(store, examples=400, steps=60)
