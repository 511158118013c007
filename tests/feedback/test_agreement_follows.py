"""A report that follows what changes is the report of reading and counting all anew."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

sys.path.insert(0, str(Path(__file__).parent))
from saying import Question, Saying, prefers

from rein.feedback import counts
from rein.feedback.agreement import report
from rein.feedback.items import change_item
from rein.feedback.judgements import Held
from rein.feedback.store import Store
from rein.feedback.tables import person

AXES = ("overall", "accuracy")
FLAGS = ("wrong", "rude")
OF_TWO = (Question("choice", "comparison"), Question("flags", "flags", flags=FLAGS))
OF_MANY = (
    Question("best", "best_of"),
    Question("order", "ranking"),
    Question("marks", "rating", points=7),
    Question("axes", "likert", points=7, axes=AXES),
)
BATCHES = (None, "batch1", "two")
ACTS = ("say", "say", "again", "revise", "undo", "skip", "new item", "new person", "role", "gold")


def value_of(chance, kind, n):
    """What somebody says of n candidates."""
    if kind == "comparison":
        points = chance.choice([None, 1, 2, 4, 5, 7, 9])
        choice = None if points == 5 else int(points > 5) if points else chance.choice([0, 1, None])
        return prefers(choice, points)
    numbers = [chance.randint(1, 3) for _ in range(n)]
    if kind == "best_of":
        return {"best": chance.randrange(n)}
    if kind == "ranking":
        ranks = {each: rank for rank, each in enumerate(sorted(set(numbers)), 1)}
        return {"ranks": [ranks[each] for each in numbers]}
    if kind == "rating":
        return {"ratings": numbers}
    if kind == "likert":
        return {"axes": [{axis: (each + a) % 3 + 1 for a, axis in enumerate(AXES)} for each in numbers]}
    return {"flags": [[flag for f, flag in enumerate(FLAGS) if each >> f & 1] for each in numbers]}


class World:
    """A project that people work at, by chance."""

    def __init__(self, store, chance, questions):
        self.chance, self.saying, self.questions = chance, Saying(store, questions), questions
        self.texts, self.stands = {}, Counter()
        for n, name in enumerate(("Ann", "Ben", "Cal", "Rea")):
            self.saying.person(name, "researcher" if n == 3 else "labeler")
        for n in range(40):
            self.add(f"i{n}", ("drift", "gold", "work")[min(n // 5, 2)], n % 3 + 2, n % 3 == 0)
        self.say(
            (name, f"i{k}", questions[(k + n) % len(questions)], {"times": {"active_ms": 1000 + 37 * k * n}})
            for n, name in enumerate(self.saying.people) for k in range(35) if (k + n) % 4
        )  # fmt: skip

    def add(self, key, role, n, other):
        n = 2 if self.questions is OF_TWO else n
        self.texts[key] = n
        known = role in ("gold", "onboarding")
        values = {each.name: value_of(self.chance, each.kind, n) for each in self.questions} if known else None
        texts = tuple("word " * (k + 1 + len(self.texts) % 5) for k in range(n))
        self.saying.add(
            key, texts=texts, policies=tuple("abcdef"[:n]), role=role, batch="two" if other else "batch1",
            gold={"answers": values} if values else None,
        )  # fmt: skip

    def say(self, rows, act="say"):
        """Rows of (person, item, question, more)."""
        said = []
        for name, key, question, more in rows:
            value = {} if act == "undo" else value_of(self.chance, question.kind, self.texts[key])
            said.append((name, key, value, {"question": question.name, "kind": question.kind, "act": act, **more}))
            self.stands[name, key, question.name] += {"say": 1, "revise": 0, "undo": -1}[act]
        self.saying.say(said)

    def step(self, act):
        """Something happens."""
        chance, saying = self.chance, self.saying
        name, key = chance.choice(sorted(saying.people)), chance.choice(sorted(saying.items))
        question = chance.choice(self.questions)
        if act == "role":
            change = update(person).where(person.c.id == saying.people[name])
            role = chance.choice(["labeler", "researcher"])
            return saying.store.write(lambda conn: conn.execute(change.values(role=role)))
        if act == "gold":
            role = chance.choice(["work", "drift"])
            return saying.store.write(lambda conn: change_item(conn, saying.items[key], role=role))
        if act == "skip":
            last = max(saying.items, key=lambda each: saying.items[each])  # which nobody may have answered
            skipped = {"question": "", "kind": "skip", "act": "skip"}
            return saying.say([(name, last, {"reason": "unclear"}, skipped)])
        if act in ("revise", "undo"):
            name, key, of = chance.choice(sorted(each for each, n in self.stands.items() if n))
            return self.say([(name, key, {each.name: each for each in self.questions}[of], {})], act)
        if act == "new item":
            key = f"i{len(saying.items)}"
            self.add(key, chance.choice(["work", "gold", "onboarding"]), chance.randint(2, 5), chance.random() < 0.5)
        if act == "new person":
            name = chance.choice("ABCXYZ") + str(len(saying.people))
            saying.person(name)
        times = {"active_ms": chance.randint(0, 5000)} if chance.random() < 0.5 else {}
        return self.say([(name, key, question, {"times": times, "shown": {"turn": int(act == "again")}})])

    def reports(self, held):
        with self.saying.store.reading() as conn:
            return {batch: report(conn, self.saying.id, batch, held=held) for batch in BATCHES}


@pytest.mark.parametrize("questions", [OF_TWO, OF_MANY], ids=["of two", "of many"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), acts=st.lists(st.lists(st.sampled_from(ACTS), min_size=1, max_size=3), max_size=4))
def test_what_is_followed_is_what_would_be_counted_anew(sqlite_template, questions, seed, acts):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(sqlite_template, Path(folder) / "a.sqlite")
        with Store.open(Path(folder) / "a.sqlite") as store:
            world, held = World(store, random.Random(seed), questions), Held()
            for some in [*acts, []]:
                assert world.reports(held) == world.reports(None)
                for act in some:
                    world.step(act)
            assert world.reports(held) == world.reports(None)


def test_answers_of_known_people_are_not_counted_anew(store, monkeypatch):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.person("Rea", "researcher")
    saying.add(*map(str, range(30)))
    saying.say((name, str(n), prefers(n % 2, 2 + 6 * (n % 2))) for n in range(20) for name in saying.people)
    held = Held()

    def followed():
        with store.reading() as conn:
            return report(conn, saying.id, held=held)

    followed()
    anew = counts._anew
    monkeypatch.setattr(counts, "_anew", lambda *_: pytest.fail("all was counted again"))
    saying.say([("Ann", "25", prefers(0, 1)), ("Ben", "25", prefers(1, 9)), ("Ann", "3", prefers(0, 2))])
    first = followed()
    saying.say([("Ann", "25", {})], act="undo")
    second = followed()
    monkeypatch.setattr(counts, "_anew", anew)
    assert (first["items"], first["answers"], second["answers"]) == (21, 63, 62)
    with store.reading() as conn:
        assert second == report(conn, saying.id)


def test_when_another_person_is_among_those_with_the_most_answers_each_two_are_counted_anew(store, monkeypatch):
    monkeypatch.setattr(counts, "MOST_PEOPLE", 1)
    monkeypatch.setattr(counts, "KEPT_PEOPLE", 2)
    monkeypatch.setattr("rein.feedback.by_person.MOST_PEOPLE", 1)
    saying = Saying(store)
    for name in ("Ann", "Ben", "Cal"):
        saying.person(name)
    saying.add(*map(str, range(40)))
    saying.say(
        (name, str(n), prefers(0)) for name, most in (("Ann", 20), ("Ben", 18), ("Cal", 15)) for n in range(most)
    )
    held = Held()
    for n in range(15, 22):
        with store.reading() as conn:
            warm = report(conn, saying.id, held=held)
            assert warm == report(conn, saying.id)
        saying.say([("Cal", str(n), prefers(1))])
    [most] = warm["questions"][0]["matrix"]["people"]
    assert most["name"] == "Cal"


def test_a_change_that_could_not_be_counted_is_counted_the_next_time(store, monkeypatch):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add(*map(str, range(20)))
    saying.say((name, str(n), prefers(0)) for n in range(19) for name in saying.people)
    held = Held()
    with store.reading() as conn:
        report(conn, saying.id, held=held)
    saying.say([("Ann", "19", prefers(0)), ("Ben", "19", prefers(1))])
    with monkeypatch.context() as broken:
        broken.setattr(counts, "times_of", lambda parts: (_ for _ in ()).throw(MemoryError))
        with store.reading() as conn, pytest.raises(MemoryError):
            report(conn, saying.id, held=held)
    with store.reading() as conn:
        assert report(conn, saying.id, held=held) == report(conn, saying.id)


def test_after_so_much_that_all_is_read_again_all_is_counted_again(store):
    saying = Saying(store)
    for name in ("Ann", "Ben"):
        saying.person(name)
    saying.add(*map(str, range(20)))
    saying.say((name, str(n), prefers(n % 2)) for n in range(20) for name in saying.people)
    held = Held()
    for other in (0, 1):
        with store.reading() as conn:
            assert report(conn, saying.id, held=held) == report(conn, saying.id)
        saying.say((("Ann", str(n), prefers((n + other) % 2)) for n in range(10)), act="revise")
    with store.reading() as conn:
        found = report(conn, saying.id, held=held)
    assert found["questions"][0]["aspects"][0]["agreement"]["labeler_labeler"]["value"] == 0.5
