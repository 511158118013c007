"""Simulated labelers through the real server: their rows are those of people, and show their habits."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select

from rein.errors import UserError
from rein.feedback import client as api
from rein.feedback import people, simulated_work, tables
from rein.feedback.agreement import report
from rein.feedback.items import NewItem, add_items, create_project
from rein.feedback.labelers import Habits, agreement, by_length, preference
from rein.feedback.project import PRESETS, Project
from rein.feedback.simulated_work import SimulateLabelsConfig, at_work, crew, gold_score, keys_of, simulate_labels
from rein.feedback.store import Store
from rein.web.app import bind, make_server
from rein.web.label.serve import application
from rein.web.label.service import Service, now_ms

RIGHT = {"answers": {"choice": {"choice": 1, "points": 9}}, "why": "because"}
NO_EXTRAS = {"calibration_share": 0.0, "gold_share": 0.0, "repeat_share": 0.0}


def number(context, text: str) -> float:
    return float(text.split()[0])


def fill(store: Store, project: Project, n: int, *, difference: float = 1.0, **roles: int) -> None:
    """`n` items whose second candidate is better, and some of other roles."""

    def work(conn):
        number = create_project(conn, 0, project)
        kinds = itertools.chain(itertools.repeat("work", n), *(itertools.repeat(role, k) for role, k in roles.items()))
        new = [
            NewItem(
                key=str(at), role=role, context={"post": f"Post {at}. It is long."},
                gold=RIGHT if role == "onboarding" else None,
                candidates=[{"text": f"0 {at:05d}", "policy": "SECRET-a"},
                            {"text": f"{difference:g} {at:05d}", "policy": "SECRET-b"}],
            )
            for at, role in enumerate(kinds)
        ]  # fmt: skip
        add_items(conn, 0, number, new)

    store.write(work)


def shift(store: Store, names, habits: Habits, project="p", seed=0, **options):
    """Works in this process, through the whole application."""

    async def all_of_them():
        app = application(Service(store))
        keys = keys_of(store, project, names)
        async with app.router.lifespan_context(app):
            clients = [
                api.AsyncClient("http://127.0.0.1:8423", key=key, transport=httpx.ASGITransport(app)) for key in keys
            ]
            return await asyncio.gather(*(
                at_work(client, labeler, project, **options)
                for client, labeler in zip(clients, crew(names, number, habits, seed=seed), strict=True)
            ))  # fmt: skip

    return asyncio.run(all_of_them())


@contextmanager
def served(store: Store):
    sock = bind("127.0.0.1", 0)
    sock.listen(128)
    server = make_server(application(Service(store)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_they_write_the_rows_that_people_write(store):
    fill(store, replace(PRESETS["comparison"], name="p", overlap=2, **NO_EXTRAS), 6)
    tallies = shift(store, ["sim-1", "sim-2"], Habits())
    assert [(tally.answered, tally.ended) for tally in tallies] == [(6, "all done")] * 2
    with store.reading() as conn:
        rows = conn.execute(select(tables.feedback)).all()
        done = conn.scalars(select(tables.item.c.done)).all()
        simulated = conn.scalars(select(tables.person.c.simulated)).all()
    assert Counter((row.question, row.kind) for row in rows) == {("choice", "comparison"): 12, ("notes", "notes"): 12}
    assert all(row.times["active_ms"] > 0 for row in rows if row.kind == "comparison")
    assert set(done) == {2}
    assert simulated == [True, True]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_can_be_worked_on(tmp_path, preset):
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS[preset], name="p", **NO_EXTRAS), 3)
        (tally,) = shift(store, ["sim-1"], Habits())
        assert (tally.answered, tally.skipped, tally.ended) == (3, 0, "all done")


def test_a_prompt_without_outputs_can_be_answered(tmp_path):
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["demonstration"], name="p", **NO_EXTRAS), 0)
        store.write(lambda conn: add_items(conn, 0, 1, [NewItem("a", {"prompt": "Say hi. Be short."}, [])]))
        (tally,) = shift(store, ["sim-1"], Habits())
        assert (tally.answered, tally.ended) == (1, "all done")


def test_the_practice_round_is_passed_or_not(tmp_path):
    with Store.open(tmp_path / "a.db", create=True) as store:
        project = replace(PRESETS["comparison"], name="p", onboarding=4, pass_agreement=0.9, **NO_EXTRAS)
        fill(store, project, 5, onboarding=4)
        (good,) = shift(store, ["good"], Habits(temperature=0.0))
        (bad,) = shift(store, ["bad"], Habits(temperature=0.0, noise=1.0))
    assert (good.answered, good.ended) == (9, "all done")
    assert (bad.answered, bad.ended) == (4, "failed training")


def test_what_is_not_wanted_any_more_is_given_back(tmp_path):
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["best-of"], name="p", **NO_EXTRAS), 5)
        (tally,) = shift(store, ["sim-1"], Habits(), enough=lambda tally: tally.answered >= 3)
        with store.reading() as conn:
            states = Counter(conn.scalars(select(tables.assignment.c.state)))
    assert (tally.answered, tally.ended) == (3, "enough")
    assert states["submitted"] == 3
    assert states["open"] == 0


def test_the_monitors_find_agreement_and_the_pull_of_the_first_side(tmp_path):
    habits = Habits(side=0.8, noise=0.05)
    n, people_ = 150, ["sim-1", "sim-2", "sim-3"]
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["comparison"], name="p", staged=False, overlap=3, **NO_EXTRAS), n)
        shift(store, people_, habits, seed=1)
        with store.reading() as conn:
            (question,) = report(conn, "p")["questions"]
            answers = conn.execute(select(tables.answer)).all()
    found = question["aspects"][0]["agreement"]["labeler_labeler"]
    expected = agreement([1.0], habits, habits)
    assert found["low"] < expected < found["high"]
    left = np.mean([row.left_side for row in answers])
    first, second = preference(1.0, habits, first=True), preference(1.0, habits, first=False)
    expected_left = (first + 1 - second) / 2  # the better one is shown first as often as not
    assert abs(left - expected_left) < 4 * np.sqrt(0.25 / len(answers)), (left, expected_left)
    bias = question["bias"]["left"]
    assert bias["low"] < expected_left < bias["high"]


# ----------------------------------------------------------------------------------------------------- the command


def test_the_command_works_through_a_running_server_and_goes_on_as_the_same_people(tmp_path, capsys):
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["best-of"], name="p", overlap=2, **NO_EXTRAS), 12)
        with served(store) as address:
            config = SimulateLabelsConfig(
                project="p", address=address, store=str(tmp_path / "a.db"), labelers=2, answers=5, skip=0.2
            )
            simulate_labels(config)
            simulate_labels(replace(config, answers=None))
            out = capsys.readouterr().out
            with store.reading() as conn:
                names = conn.scalars(select(tables.person.c.name).order_by(tables.person.c.id)).all()
                log = conn.execute(select(tables.audit)).all()
                per_person = conn.execute(
                    select(tables.assignment.c.person, func.count()).group_by(tables.assignment.c.person)
                ).all()
    assert names == ["simulated-1", "simulated-2"]
    assert [row.about["names"] for row in log if row.act == "simulate labelers"] == [names, names]
    assert "simulated-1" in out
    assert "enough" in out
    assert "all done" in out
    assert all(n == 12 for _, n in per_person), "everybody met every item once"


def test_demonstrations_say_what_the_references_say(tmp_path):
    rows = [{"post": f"Post {at}. It is long.", "reference": f"Reference {at}."} for at in range(2)]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["demonstration"], name="p", **NO_EXTRAS), 3)
        with served(store) as address:
            simulate_labels(SimulateLabelsConfig(
                project="p", address=address, store=str(tmp_path / "a.db"), labelers=1,
                references=tmp_path / "posts.jsonl",
            ))  # fmt: skip
        with store.reading() as conn:
            said = conn.scalars(select(tables.feedback.c.value)).all()
    assert {one["text"] for one in said} == {"Reference 0.", "Reference 1.", "Post 2. It is long."}


def test_ratings_use_the_whole_scale_because_they_know_what_is_usual(tmp_path):
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["rating"], name="p", **NO_EXTRAS), 0)
        texts = ["word " * (at + 1) for at in range(60)]
        new = [
            NewItem(key=str(at), context={"post": "x"}, candidates=[{"text": text}]) for at, text in enumerate(texts)
        ]
        store.write(lambda conn: add_items(conn, 0, 1, new))
        with served(store) as address:
            simulate_labels(SimulateLabelsConfig(
                project="p", address=address, store=str(tmp_path / "a.db"), labelers=1, temperature=0.0
            ))  # fmt: skip
        with store.reading() as conn:
            rows = conn.execute(select(tables.feedback.c.value).order_by(tables.feedback.c.item)).scalars().all()
    ratings = [row["ratings"][0] for row in rows]
    assert ratings == sorted(ratings)
    assert Counter(ratings).keys() == set(range(1, 8))
    assert max(Counter(ratings).values()) <= 10


def test_by_an_invitation_they_come_in_as_guests_do(tmp_path, capsys):
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["best-of"], name="p", overlap=3, **NO_EXTRAS), 4)

        def invite(conn):
            number = conn.scalar(select(tables.project.c.id))
            return people.invite(conn, now_ms(), "labeler", project=number, uses=3, life_ms=60_000)

        token = store.write(invite)
        with served(store) as address:
            config = SimulateLabelsConfig(
                project="p", address=address, invite=f"{address}/label/join#{token}", labelers=3, name="guest"
            )
            simulate_labels(config)
            with pytest.raises(UserError, match="The server says"):
                simulate_labels(config)  # the names are taken, and the invitation is used up
    assert "12 answers" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_waited_for_aloud_and_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(simulated_work, "REACHED_S", 0.3)
    sock = bind("127.0.0.1", 0)  # bound, but nobody listens
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["best-of"], name="p"), 1)
    address = f"http://127.0.0.1:{sock.getsockname()[1]}"
    began = time.monotonic()
    with sock, pytest.raises(UserError, match="rein label serve"):
        simulate_labels(SimulateLabelsConfig(project="p", address=address, store=str(tmp_path / "a.db"), labelers=1))
    assert time.monotonic() - began < 5
    assert f"waiting for the server at {address}" in capsys.readouterr().err
    with Store.open(tmp_path / "a.db") as store, store.reading() as conn:
        assert conn.execute(select(tables.person)).all() == []  # nobody was made for nothing


def test_a_server_that_comes_up_late_is_worked_on(tmp_path, capsys):
    sock = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with Store.open(tmp_path / "a.db", create=True) as store:
        fill(store, replace(PRESETS["best-of"], name="p", **NO_EXTRAS), 2)
        server = make_server(application(Service(store)))

        def late():
            time.sleep(0.5)
            sock.listen(128)
            server.run(sockets=[sock])

        thread = threading.Thread(target=late, daemon=True)
        thread.start()
        simulate_labels(SimulateLabelsConfig(project="p", address=address, store=str(tmp_path / "a.db"), labelers=1))
        server.should_exit = True
        thread.join(10)
    said = capsys.readouterr()
    assert said.err.count("waiting for the server") == 1
    assert "2 answers" in said.out


def test_a_name_of_a_real_person_is_left_alone(store):
    fill(store, replace(PRESETS["best-of"], name="p"), 1)
    store.write(lambda conn: people.add_person(conn, 0, "Ada", "labeler"))
    with pytest.raises(UserError, match="ada is a person of this store"):
        keys_of(store, "p", ["ada"])
    with pytest.raises(UserError, match="no project 'q'"):
        keys_of(store, "q", ["sim"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"labelers": 0}, "--labelers is 0"),
        ({"answers": 0}, "--answers is 0"),
        ({"pause_s": -1.0}, "--pause-s is -1"),
        ({"spread": float("nan")}, "--spread is nan"),
        ({"noise": 2.0}, "noise is 2, but it is a share"),
        ({"address": "localhost:8423"}, r"--address is 'localhost:8423'(.|\n)*Write http://"),
    ],
)
def test_settings_that_are_none(settings, says):
    with pytest.raises(UserError, match=says):
        SimulateLabelsConfig(project="p", **settings)


def test_gold_scores_by_name(tmp_path):
    assert gold_score("length") is by_length
    assert gold_score("rein.feedback.labelers:by_length") is by_length
    (tmp_path / "gold.jsonl").write_text('{"text": "a", "gold": 3}\n', encoding="utf-8")
    assert gold_score(str(tmp_path / "gold.jsonl"))({}, "a") == 3
    with pytest.raises(UserError, match=r"'none\.jsonl', which is no file"):
        gold_score("none.jsonl")
    with pytest.raises(UserError, match="cannot be imported"):
        gold_score("nowhere:Score")


def test_a_spread_makes_people_differ_and_the_same_seed_makes_the_same_people():
    some = crew(["a", "b"], by_length, Habits(), seed=3, spread=0.5)
    assert some[0].habits != some[1].habits
    assert some == crew(["a", "b"], by_length, Habits(), seed=3, spread=0.5)
    assert crew(["a"], by_length, Habits(), seed=3)[0].habits == Habits()
