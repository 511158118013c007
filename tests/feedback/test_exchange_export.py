"""Feedback out of a store: as it stands, without names, in the memory of a page, whole or not at all."""

import dataclasses
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc

import pytest
from desks import EVEN, LEFT, PLAIN, RIGHT, Desk, new_item
from exchanging import SECRET, Exchange, comparison
from sqlalchemy import insert, select

from rein.errors import UserError
from rein.feedback import tables as t
from rein.feedback.exchange.checking import Given
from rein.feedback.exchange.exporting import export, export_file, open_export
from rein.feedback.exchange.table import FORMATS
from rein.feedback.people import add_person
from rein.feedback.project import PRESETS, Project, Question


def exported(desk):
    return Exchange(desk.store, None, desk.id)


def busy_desk(store):
    """A desk where everything happened: notes, ties, a change of mind, an undo, a skip, what came late."""
    settings = dataclasses.replace(PLAIN, staged=True, overlap=2)
    splits = ["train"] * 5 + ["valid1"]
    desk = Desk(
        store, settings, items=[new_item(f"p{n}", batch=f"b{n % 2}", split=split) for n, split in enumerate(splits)]
    )
    for who, answers in (("ann", LEFT), ("bob", RIGHT), ("ann", EVEN), ("cid", LEFT), ("bob", EVEN)):
        (claimed,) = desk.claim(who)
        desk.pass_time(5)
        last = desk.reveal(who, claimed, [f"{who} on the left", f"{who} on the right"])
        desk.submit(who, last, answers)
    desk.undo("bob", last)
    (claimed,) = desk.claim("bob")
    desk.submit("bob", claimed, LEFT)
    desk.submit("bob", desk.look("bob", claimed), RIGHT)
    (skipped,) = desk.claim("cid")
    desk.skip("cid", skipped)
    (late,) = desk.claim("ann")
    late = desk.reveal("ann", late, ["a", "b"])
    desk.pass_time(settings.lease_s + 1)
    desk.expire()
    desk.submit("ann", late, LEFT)
    return desk


def test_everything_that_happened_comes_back_into_another_store_byte_for_byte(new_store, tmp_path):
    desk = busy_desk(new_store())
    desk.freeze("b1")
    desk.store.write(
        lambda conn: (
            conn.execute(
                insert(t.instruction), {"project": desk.id, "version": 1, "text": "Be kind.", "created_ms": 5}
            ).rowcount
        )
    )
    path = tmp_path / "own.jsonl"
    path.write_bytes(exported(desk).bytes("rein"))
    name = json.loads(path.read_bytes().splitlines()[0])["project"]["name"]
    other = Exchange(new_store(), tmp_path, name)
    done = other.put(path)
    assert done.bad == ()
    assert other.bytes("rein") == path.read_bytes()
    for format in ("trl", "openai-comparisons", "ranked", "pandalm"):
        assert other.bytes(format, ties="half") == exported(desk).bytes(format, ties="half")
    again = other.put(path)
    assert (again.added, again.answers, again.bad) == (0, 0, ())
    acts = [row["said"]["act"] for row in other.rows("rein") if "said" in row]
    assert {"say", "revise", "undo", "skip", "note"} == set(acts)


def test_what_stands_goes_out_and_what_was_taken_back_does_not(store):
    desk = Desk(store, PLAIN, people=("ann",), items=[new_item("a"), new_item("b")])
    first, _ = desk.label("ann", LEFT)
    second, _ = desk.label("ann", LEFT)
    desk.undo("ann", first)
    (one,) = exported(desk).rows("openai-comparisons")
    assert one["summaries"][0]["text"] == second.item["candidates"][second.order[0]]["text"]
    desk.submit("ann", desk.look("ann", second), RIGHT)
    (one,) = exported(desk).rows("openai-comparisons")
    assert (one["choice"], one["extra"]["confidence"]) == (1, 8)


def test_notes_go_out_beside_what_they_are_of(store):
    desk = Desk(store, dataclasses.replace(PLAIN, staged=True), people=("ann",), items=[new_item("a")])
    (claimed,) = desk.claim("ann")
    claimed = desk.reveal("ann", claimed, ["of the left one", "of the right one"])
    desk.submit("ann", claimed, LEFT)
    (row,) = exported(desk).rows("openai-comparisons")
    assert [one["note"] for one in row["summaries"]] == ["of the left one", "of the right one"]


def test_labelers_go_by_pseudonyms_that_stay_the_same_and_do_not_say_who_they_are(store):
    desk = Desk(store, PLAIN, people=("ann", "bob"), items=[new_item(f"{n}") for n in range(4)])
    for who in ("ann", "bob", "ann", "bob"):
        desk.label(who)
    names = [row["worker"] for row in exported(desk).rows("openai-comparisons")]
    assert names[0] == names[2] != names[1] == names[3]
    assert all(name.startswith("labeler-") and len(name) == 20 for name in names)
    assert "ann" not in exported(desk).bytes("rein").decode()
    out = io.BytesIO()
    with store.reading() as conn:
        export(conn, desk.id, "openai-comparisons", out, secret=bytes(32))
        other = [json.loads(line)["worker"] for line in out.getvalue().splitlines()]
    assert set(other).isdisjoint(names)
    real = [row["worker"].split("-")[0] for row in exported(desk).rows("openai-comparisons", names=True)]
    assert real == ["ann", "bob", "ann", "bob"]


def test_a_name_of_a_file_is_not_taken_by_whoever_sets_it_for_themselves(store):
    desk = Desk(store, PLAIN, people=("ann",), items=[new_item("a")])
    desk.label("ann")
    mine = t.person.update().where(t.person.c.id == desk.people["ann"]).values(preferences={"imported": "w1"})
    store.write(lambda conn: conn.execute(mine).rowcount)
    assert exported(desk).rows("openai-comparisons")[0]["worker"].startswith("labeler-")


def test_practice_does_not_go_out_and_the_split_and_the_batch_choose(store):
    desk = Desk(store, PLAIN, people=("ann",), items=[
        new_item("a", split="valid1"), new_item("b", batch="b2"), new_item("c"),
    ])  # fmt: skip
    for _ in range(3):
        desk.label("ann")
    change = t.item.update().where(t.item.c.key == "c", t.item.c.project == desk.id).values(role="onboarding")
    store.write(lambda conn: conn.execute(change).rowcount)
    exchange = exported(desk)
    keys = lambda **options: sorted(row["group_id"] for row in exchange.rows("trl", **options))  # noqa: E731
    assert keys() == ["a", "b"]
    assert keys(split="valid1") == ["a"]
    assert keys(batches=("b2",)) == ["b"]
    assert keys(roles=("onboarding",)) == ["c"]
    assert len([row for row in exchange.rows("rein") if "item" in row]) == 3


def test_one_question_of_several_goes_out_alone(store):
    questions = (Question("helpful", "comparison"), Question("harmless", "comparison"))
    desk = Desk(store, dataclasses.replace(PLAIN, questions=questions), people=("ann",), items=[new_item("a")])
    desk.label("ann", {"helpful": {"choice": 0, "points": 1}, "harmless": {"choice": 1, "points": 9}})
    assert len(exported(desk).rows("trl")) == 2
    one, other = (exported(desk).rows("trl", question=name)[0] for name in ("helpful", "harmless"))
    assert one["chosen"] == other["rejected"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"question": "chioce"}, "has no question 'chioce'"),
        ({"split": "trian"}, r"has no split 'trian'(.|\n)*Did you mean train"),
        ({"batches": ("batch1", "batch2")}, r"has no batch 'batch2'(.|\n)*Did you mean batch1"),
        ({"format": "oasst"}, r"oasst is for answers of kind ranking(.|\n)*What fits: rein, openai-comparisons"),
        ({"ties": "keep"}, "--ties is 'keep'"),
        ({"project": "none"}, "There is no project 'none'"),
        ({"format": "cvs"}, "There is no format 'cvs'"),
        ({"format": "argilla"}, "argilla is read, not written"),
        ({"format": "hf"}, "hf is a folder of files"),
    ],
)
def test_what_cannot_go_out_says_why(store, options, problem):
    desk = Desk(store, items=[new_item("a")])
    rest = {name: value for name, value in options.items() if name not in ("project", "format")}
    with pytest.raises(UserError, match=problem):
        Exchange(store, None, options.get("project", desk.id)).bytes(options.get("format", "trl"), **rest)


# ------------------------------------------------------------------------------------------------------ in whole


def test_a_file_is_packed_the_same_way_each_time_and_there_whole_or_not_at_all(store, tmp_path):
    desk = Desk(store, PLAIN, people=("ann",), items=[new_item("a")])
    desk.label("ann")
    paths = [tmp_path / name for name in ("1.jsonl.gz", "2.jsonl.gz", "3.jsonl")]
    with store.reading() as conn:
        for path in paths:
            assert export_file(open_export(conn, desk.id, secret=SECRET), "trl", path) == {"rows": 1}
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert gzip.decompress(paths[0].read_bytes()) == paths[2].read_bytes()
        with pytest.raises(UserError, match="cannot be written"):
            export_file(open_export(conn, desk.id, secret=SECRET), "trl", tmp_path / "no" / "folder.jsonl")
        with pytest.raises(UserError, match="read, not written"):
            export_file(open_export(conn, desk.id, secret=SECRET), "argilla", paths[2])
    assert json.loads(paths[2].read_bytes())["group_id"] == "a"  # the old one is still there
    assert sorted(tmp_path.glob("*.part")) == []


_KILLED = """
import sys, time
from pathlib import Path
from rein.feedback.exchange import exporting
from rein.feedback.store import Store
real = exporting.pieces
def slow(*words):
    for piece in real(*words):
        print("row", flush=True)
        time.sleep(0.01)
        yield piece
exporting.pieces = slow
with Store.open(sys.argv[1]) as store, store.reading() as conn:
    exporting.export_file(exporting.open_export(conn, "tldr", secret=bytes(32)), "rein", Path(sys.argv[2]))
"""


def test_an_export_that_is_killed_leaves_no_half_of_a_file(new_store, tmp_path, dialect):
    if dialect != "sqlite":
        pytest.skip("the file is the same whatever the database")
    store = new_store()
    Exchange(store, tmp_path).put([comparison(f"p{n}") for n in range(50)])
    out = tmp_path / "out.jsonl"
    out.write_text("what was there\n")
    program = subprocess.Popen(
        [sys.executable, "-c", _KILLED, store.address, str(out)], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    for _ in range(20):
        program.stdout.readline()
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    assert out.read_text() == "what was there\n"


# ------------------------------------------------------------------------------------------------------- memory


def fill(store, n):
    """A project with n answers, put there at once."""
    exchange = Exchange(store, None, f"n{n}")

    def work(conn):
        from rein.feedback.items import create_project

        number = create_project(conn, 0, Project(exchange.project, questions=(Question("choice", "comparison"),)))
        ann = add_person(conn, 0, f"ann {n}", "labeler")
        lot = conn.execute(
            insert(t.batch).returning(t.batch.c.id), {"project": number, "name": "b", "created_ms": 0}
        ).scalar()
        base = {"project": number, "batch": lot, "role": "work", "split": "train", "extra": {}, "wanted": 1, "done": 1}
        two = [{"text": "x" * 200, "policy": ""}, {"text": "y" * 200, "policy": ""}]
        for start in range(0, n, 5000):
            some = [
                {**base, "key": f"k{i}", "context": {"post": "p" * 400}, "candidates": two, "room": 0, "place": i,
                 "created_ms": 0} for i in range(start, min(n, start + 5000))
            ]  # fmt: skip
            conn.execute(insert(t.item), some)
        ids = conn.execute(select(t.item.c.id).where(t.item.c.project == number)).scalars().all()
        said = {
            "project": number, "person": ann, "question": "choice", "kind": "comparison", "version": 1, "act": "say",
            "value": {"choice": 0, "points": 1}, "shown": {}, "times": {}, "extra": {}, "at_ms": 0,
        }  # fmt: skip
        for start in range(0, n, 5000):
            conn.execute(insert(t.feedback), [{**said, "item": i, "key": f"k{i}"} for i in ids[start : start + 5000]])
        rows = conn.execute(select(t.feedback.c.seq, t.feedback.c.item).where(t.feedback.c.project == number)).all()
        stands = {"question": "choice", "project": number, "person": ann, "turn": 0, "late": False, "at_ms": 0}
        for start in range(0, n, 5000):
            some = rows[start : start + 5000]
            conn.execute(insert(t.answer), [{**stands, "assignment": -s, "seq": s, "item": i} for s, i in some])

    store.write(work)
    return exchange


class Counting(io.RawIOBase):
    """Counts what is written and keeps none of it."""

    n = 0

    def write(self, data):
        self.n += len(data)
        return len(data)


FLAT = [("rein", 2_000), ("trl", 2_000), ("pandalm", 2_000)]
FLAT += [pytest.param(one, 20_000, marks=pytest.mark.slow) for one in ("rein", "trl", "openai-comparisons", "ranked")]


@pytest.mark.parametrize(("format", "n"), FLAT)
def test_an_export_takes_no_more_memory_for_five_times_the_rows(dialect, new_store, format, n):
    if dialect != "sqlite":
        pytest.skip("counted in Python, where both are the same")
    store = new_store()
    peaks, sizes = [], []
    for rows in (n // 5, n):
        exchange, out = fill(store, rows), Counting()
        with store.reading() as conn:
            export(conn, exchange.project, format, Counting(), secret=SECRET)  # what is made once is there by now
            tracemalloc.start()
            try:
                export(conn, exchange.project, format, out, secret=SECRET)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        sizes.append(out.n)
    assert sizes[1] > 4.8 * sizes[0]
    assert peaks[1] < 2 * peaks[0]


def test_each_page_of_an_export_is_found_and_not_searched_for(dialect, new_store):
    if dialect != "sqlite":
        pytest.skip("plans are SQLite's here")
    from sqlalchemy import event

    store = new_store()
    exchange, plans = fill(store, 500), set()
    with store.reading() as conn:
        seen = []
        event.listen(conn, "before_cursor_execute", lambda c, cursor, sql, p, x, many: seen.append((sql, p)))
        for format in ("trl", "rein", "ranked", "pandalm"):
            export(conn, exchange.project, format, Counting(), secret=SECRET)
        for sql, parameters in list(seen):
            for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters):
                plans.add(row[3])
    scans = {plan for plan in plans if plan.startswith("SCAN")}
    assert scans <= {"SCAN project", "SCAN batch", "SCAN instruction"}, scans
    assert not any("USE TEMP B-TREE FOR ORDER BY" in plan for plan in plans if "feedback" in plan)


def test_every_format_that_is_written_writes_an_empty_project(store):
    for one in FORMATS.values():
        if one.writes:
            settings = PRESETS[one.preset or ("rating" if one.name == "trl-unpaired" else "comparison")]
            desk = Desk(store, dataclasses.replace(PLAIN, questions=settings.questions))
            assert exported(desk).bytes(one.name) in (b"", b"[]") or one.name == "rein"


def test_the_presets_go_out_in_every_format_that_has_a_place_for_them(store):
    said = {
        "comparison": {"choice": {"choice": 0, "points": 2}}, "axes": {"axes": {"axes": [{
            "overall": 6, "accuracy": 5, "coverage": 4, "coherence": 3}] * 2}}, "best-of": {"best": {"best": 1}},
        "rating": {"rating": {"ratings": [2, 6]}}, "ranking": {"ranking": {"ranks": [1, 2]}},
        "demonstration": {"demonstration": {"text": "Yes."}}, "edit": {"edit": {"candidate": 0, "text": "new"}},
    }  # fmt: skip
    rows = {}
    for name, answers in said.items():
        settings = dataclasses.replace(PLAIN, questions=PRESETS[name].questions)
        desk = Desk(store, settings, people=("ann",), items=[new_item(name)])
        desk.label("ann", answers)
        kind = settings.questions[0].kind
        fit = [one.name for one in FORMATS.values() if one.writes and one.style != "list" and kind in one.kinds]
        rows[name] = {format: len(exported(desk).rows(format)) for format in fit}
    pairs = {name: found["trl"] for name, found in rows.items() if "trl" in found}
    assert pairs == {"comparison": 1, "axes": 0, "best-of": 1, "rating": 1, "ranking": 1, "edit": 1}
    assert rows["axes"] == {"trl": 0, "hh-rlhf": 0, "trl-unpaired": 2, "ranked": 1, "openai-axes": 2}
    assert rows["rating"]["trl-unpaired"] == 2
    assert rows["demonstration"] == {}


@pytest.mark.parametrize("format", [one.name for one in FORMATS.values() if one.writes and one.name != "rein"])
def test_a_mirrored_repeat_is_no_second_judgement_of_what_goes_out(store, format):
    settings = PRESETS["instructgpt" if format in ("oasst", "ranked", "trl-unpaired") else "comparison"]
    answers = LEFT
    k = 2
    if settings.name == "instructgpt":
        answers = {"overall": {"ratings": [7, 1]}, "ranking": {"ranks": [1, 2]}}
    if format == "openai-axes":
        settings, k = PRESETS["axes"], 1
        answers = {"axes": {"axes": [dict.fromkeys(settings.questions[0].axes, 6)]}}
    plain = {"calibration_share": 0.0, "gold_share": 0.0, "uniform_share": 0.0, "staged": False}
    settings = dataclasses.replace(settings, **plain, repeat_share=0.99)
    desk = Desk(store, settings, people=("ann",), items=[new_item(f"p{n}", k=k) for n in range(11)])
    for _ in range(11):
        desk.label("ann", answers)
    before = exported(desk).bytes(format)
    assert desk.label("ann", answers)[0].assignment["turn"] == 1
    assert exported(desk).bytes(format) == before
    turns = [row["said"]["shown"]["turn"] for row in exported(desk).rows("rein") if "said" in row]
    assert 1 in turns


@pytest.mark.parametrize("format", ["rein", "tamer"])
@pytest.mark.parametrize(
    ("part", "flag"),
    [
        ({"split": "valid1"}, "--split is valid1"),
        ({"batches": ("b0", "b1")}, "--batch is b0, b1"),
        ({"roles": ("gold",)}, "--role is gold"),
        ({"question": "choice"}, "--question is choice"),
    ],
)
def test_what_goes_out_whole_has_no_parts(store, tmp_path, format, part, flag):
    desk = busy_desk(store)
    with store.reading() as conn, pytest.raises(UserError, match=f"is the whole project, and {flag}"):
        export_file(open_export(conn, desk.id, secret=SECRET, **part), format, tmp_path / "out")
    if format == "rein":
        with pytest.raises(UserError, match=f"is the whole project, and {flag}"):
            exported(desk).bytes(format, **part)
    assert not any(tmp_path.glob("out*"))


def test_trees_go_out_of_the_split_that_is_asked_for(store, tmp_path):
    def tree(name):
        replies = [
            {"message_id": f"{name}{n}", "text": f"A{n}", "role": "assistant", "rank": n, "replies": []} for n in (0, 1)
        ]
        message = {"message_id": name, "text": f"Q {name}", "role": "prompter", "replies": replies}
        return {"message_tree_id": name, "prompt": message}

    exchange = Exchange(store, tmp_path, "trees")
    exchange.put([tree("a")], given=Given(batch="one"))
    exchange.put([tree("b")], given=Given(batch="two"))
    assert exchange.rows("oasst") == [tree("a"), tree("b")]
    assert exchange.rows("oasst", batches=("two",)) == [tree("b")]
