"""Every answer that stands goes out, or is counted with the reason why not."""

import dataclasses
import io
import random

import pytest
from desks import EVEN, LEFT, PLAIN, Desk, new_item
from exchanging import SECRET, Exchange
from sqlalchemy import func, select

from rein.feedback.exchange import left_out
from rein.feedback.exchange.exporting import export_file, fates, open_export, pieces
from rein.feedback.exchange.left_out import OUT, not_given
from rein.feedback.exchange.table import FORMATS
from rein.feedback.project import PRESETS, Question
from rein.feedback.tables import answer, item


@pytest.fixture
def dialect():
    return "sqlite"


def counted(store, project, format, folder, **options):
    """How many went out, the others by reason, and all that stand."""
    with store.reading() as conn:
        export = open_export(conn, project, secret=SECRET, **options)
        if FORMATS[format].writes:
            rows = b"".join(pieces(export, format))
        else:
            rows = export_file(export, format, folder / f"{format}-{random.random()}")
        others = not_given(conn, export.project, export.chosen, FORMATS[format].kinds, export.question)
        stand = conn.execute(
            select(func.count()).select_from(answer).where(answer.c.project == export.project)
        ).scalar_one()
        lines = fates(export, format)
    found = export.fates + others
    left = {why: n for why, n in found.items() if why != OUT}
    assert found.total() == stand, (format, found)
    assert lines[0].startswith(f"answers           {found[OUT]:,} answer")
    assert len(lines) == 1 + len(left)
    return found[OUT], left, rows


def messy(store):
    """A project of five questions with everything that may keep an answer at home."""
    questions = (
        Question("overall", "rating", points=7), Question("marks", "likert", points=7),
        Question("wrong", "flags"), Question("order", "ranking"), Question("best", "best_of"),
        Question("better", "comparison"), Question("also", "comparison"),
    )  # fmt: skip
    settings = dataclasses.replace(PLAIN, questions=questions, overlap=3, repeat_share=0.6)
    items = [new_item(f"p{n}", batch=f"b{n % 2}", split=f"valid{n % 3}") for n in range(24)]
    desk = Desk(store, settings, items=items)
    draw = random.Random(3)
    for _ in range(90):
        who = draw.choice(("ann", "bob", "cid"))
        if not (claimed := desk.claim(who)):
            continue
        one, other = draw.choice([(LEFT, EVEN), (EVEN, LEFT), (LEFT, LEFT), (EVEN, EVEN)])
        said = {
            "overall": {"ratings": draw.choice([[4, 4], [7, 2], [1, 4]])},
            "marks": {"axes": [{**dict.fromkeys(questions[1].axes, draw.choice([4, 6]))}] * 2},
            "wrong": {"flags": [[], ["violent"]]}, "order": {"ranks": draw.choice([[1, 1], [2, 1]])},
            "best": {"best": 1}, "better": one["choice"], "also": other["choice"],
        }  # fmt: skip
        desk.submit(who, claimed[0], said)
        desk.pass_time(3600)
    change = item.update().where(item.c.key.in_(("p0", "p1"))).values(role="onboarding")
    store.write(lambda conn: conn.execute(change).rowcount)
    assert {row["turn"] for row in desk.answers()} == {0, 1}
    return desk


def test_what_went_out_and_what_did_not_are_together_all_that_stand(store, tmp_path):
    desk = messy(store)
    for format, how in FORMATS.items():
        if not how.kinds or not (how.writes or how.style == "folder"):
            continue
        for options in (
            {}, {"ties": "both"}, {"split": "valid1"}, {"batches": ("b1",), "roles": ("work",)},
            {"roles": ("onboarding", "work"), "ties": "half"},
        ):  # fmt: skip
            out, _, _ = counted(store, desk.id, format, tmp_path, **options)
            assert out > 0
        for question in ("better", "order", "overall", "wrong"):
            if desk_kind(question) in how.kinds:
                counted(store, desk.id, format, tmp_path, question=question)


def desk_kind(question):
    return {"better": "comparison", "order": "ranking", "overall": "rating", "wrong": "flags"}[question]


def test_the_reasons_are_the_true_ones(store, tmp_path):
    desk = Desk(store, dataclasses.replace(PLAIN, overlap=2), people=("ann", "bob"), items=[
        new_item("a", split="valid1"), new_item("b", batch="b2"), new_item("c"), new_item("d"),
    ])  # fmt: skip
    for _ in range(4):
        desk.label("ann", LEFT)
        desk.label("bob", EVEN)
    change = item.update().where(item.c.key == "c", item.c.project == desk.id).values(role="onboarding")
    store.write(lambda conn: conn.execute(change).rowcount)
    practice = {"of practice (--role onboarding)": 2}
    assert counted(store, desk.id, "trl", tmp_path)[:2] == (3, {left_out.TIE: 3, **practice})
    assert counted(store, desk.id, "trl", tmp_path, ties="half")[:2] == (6, practice)
    assert counted(store, desk.id, "trl", tmp_path, split="valid1", ties="half")[:2] == (
        2, {"of other splits": 4, **practice},
    )  # fmt: skip
    out, left, rows = counted(store, desk.id, "hf", tmp_path, batches=("b2",))
    assert (out, left) == (1, {left_out.TIE: 1, "of other batches": 4, **practice})
    assert rows == {"preferences, train": 1}


def test_ratings_beside_a_ranking_go_out_as_ratings_and_not_twice_as_pairs(store, tmp_path):
    settings = dataclasses.replace(PRESETS["instructgpt"], calibration_share=0, gold_share=0, repeat_share=0)
    desk = Desk(store, settings, people=("ann",), items=[new_item("a")])
    desk.label("ann", {"overall": {"ratings": [7, 4]}, "ranking": {"ranks": [1, 2]}})
    assert counted(store, desk.id, "trl", tmp_path)[:2] == (1, {left_out.TWICE: 1})
    assert counted(store, desk.id, "hf", tmp_path)[:2] == (2, {})
    assert counted(store, desk.id, "trl-unpaired", tmp_path)[:2] == (
        1, {"of kind ranking, which the format has no place for": 1},
    )  # fmt: skip


def test_a_rating_of_one_output_alone_makes_no_pair_and_one_of_the_middle_no_side(store, tmp_path):
    desk = Desk(store, dataclasses.replace(PLAIN, questions=(Question("r", "rating", points=7),)), people=("ann",),
                items=[new_item("a", k=1)])  # fmt: skip
    desk.label("ann", {"r": {"ratings": [4]}})
    assert counted(store, desk.id, "trl", tmp_path)[:2] == (0, {left_out.NO_PAIR: 1})
    assert counted(store, desk.id, "trl-unpaired", tmp_path)[:2] == (0, {left_out.NO_SIDE: 1})


def test_one_question_of_a_judgement_goes_out_as_a_group_of_its_own(store, tmp_path):
    desk = messy(store)
    exchange = Exchange(store, None, desk.id)
    rows = exchange.rows("ranked", question="order")
    assert rows
    assert all("ranks" in row and "ratings" not in row for row in rows)
    assert len(exchange.rows("ranked", question="better")) == len(rows)


def test_a_person_s_second_answer_has_no_place_in_a_form_of_one(store, tmp_path):
    settings = dataclasses.replace(PLAIN, questions=(Question("choice", "comparison"), Question("also", "comparison")))
    desk = Desk(store, settings, people=("ann",), items=[new_item("a")])
    desk.label("ann", {"choice": LEFT["choice"], "also": LEFT["choice"]})
    for format in ("pandalm", "ranked"):
        assert counted(store, desk.id, format, tmp_path)[:2] == (1, {left_out.SECOND: 1})
    assert counted(store, desk.id, "trl", tmp_path)[:2] == (2, {})


def test_an_answer_to_a_question_that_is_asked_no_more_still_goes_out(store):
    desk = Desk(store, PLAIN, people=("ann",), items=[new_item("a")])
    desk.label("ann", LEFT)
    from rein.feedback.items import change_project, load_project

    def change(conn):
        _, settings = load_project(conn, desk.id)
        change_project(conn, 0, desk.id, dataclasses.replace(settings, questions=(Question("d", "demonstration"),)))

    store.write(change)
    with store.reading() as conn:
        out = io.BytesIO(b"".join(pieces(open_export(conn, desk.id, secret=SECRET), "trl")))
    assert len(out.getvalue().splitlines()) == 1
