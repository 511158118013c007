"""Files into a project: line by line, whole or not at all, and as often as one likes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from exchanging import Exchange, axes, comparison, swapped, write_lines
from hypothesis import given as drawn
from hypothesis import strategies as st
from sqlalchemy import func, select

from rein.errors import UserError
from rein.feedback.exchange import importing, putting
from rein.feedback.exchange.checking import Given, split_of
from rein.feedback.exchange.importing import guess, import_file
from rein.feedback.items import freeze, load_project
from rein.feedback.people import add_person, check_password
from rein.feedback.refused import Refused
from rein.feedback.store import Store
from rein.feedback.tables import answer, batch, feedback, item, person, project


@pytest.fixture
def exchange(store, tmp_path):
    return Exchange(store, tmp_path)


def posts(n, **more):
    return [comparison(f"post {number}", worker=f"w{number % 3}", **more) for number in range(n)]


def test_the_same_file_again_adds_nothing(exchange):
    rows = [*posts(5), posts(1)[0], posts(1)[0]]  # one line is there three times, and that is what was said
    first, second = exchange.put(rows), exchange.put(rows)
    assert (first.added, first.known, first.answers) == (5, 2, 7)
    assert (second.added, second.known, second.answers, second.bad_total) == (0, 7, 0, 0)
    assert exchange.rows("openai-comparisons") == rows


def test_a_file_that_grew_adds_what_is_new(exchange):
    exchange.put(posts(3))
    done = exchange.put([comparison("a new one"), *posts(4)])
    assert (done.added, done.known, done.answers) == (2, 3, 2)


def test_bad_lines_are_listed_with_their_numbers_and_the_good_ones_are_kept(exchange):
    good = [json.dumps(row).encode() for row in posts(4)]
    data = b"\n".join([
        good[0], b'{"info": ', good[1], b"[1]", b'{"info": {"id": "\\u0000"}}',
        json.dumps(comparison(choice=7)).encode(),
        b"\xff", good[2], b'{"info": {"id": "\\ud800"}}', good[3], b"7",
    ])  # fmt: skip
    path = exchange.folder / "some.jsonl"
    path.write_bytes(data)
    done = exchange.put(path)
    assert (done.added, done.answers, done.bad_total, done.lines) == (4, 4, 7, 11)
    problems = {bad.line: bad.problem for bad in done.bad}
    assert list(problems) == [2, 4, 5, 6, 7, 9, 11]
    assert "not JSON" in problems[2]
    assert problems[4] == problems[11] == "it is no JSON object"
    assert "NUL" in problems[5]
    assert "choice is neither 0 nor 1" in problems[6]
    assert "not UTF-8" in problems[7]
    assert "half a character" in problems[9]
    assert exchange.rows("openai-comparisons") == posts(4)


def test_of_many_bad_lines_the_first_twenty_are_listed_and_the_rest_counted(exchange):
    done = exchange.put([*posts(1), *[{"info": n} for n in range(70)]])
    assert (done.added, done.bad_total, len(done.bad)) == (1, 70, importing.MOST_SHOWN)
    assert [bad.line for bad in done.bad] == list(range(2, 22))


def test_two_lines_with_one_id_and_different_texts_are_told_apart(exchange):
    rows = [
        {"id": "a", "prompt": "p", "outputs": ["1", "2"]},
        {"id": "b", "prompt": "p", "outputs": ["1", "2"]},
        {"id": "a", "prompt": "p", "outputs": ["1", "3"]},
        {"id": "a", "prompt": "p", "outputs": ["1", "2"]},
    ]
    done = exchange.put(rows, preset="comparison")
    assert (done.added, done.known, done.bad_total) == (2, 1, 1)
    assert (done.bad[0].line, done.bad[0].problem) == (3, "Item 'a' is there already, with another text.")


@pytest.mark.parametrize(("k", "preset"), [(10, "ranking"), (1, "comparison"), (3, "comparison")])
def test_too_many_or_too_few_outputs_are_bad(exchange, k, preset):
    rows = [{"prompt": "p", "outputs": [f"x{i}" for i in range(n)], "id": n} for n in (k, 2)]
    done = exchange.put(rows, preset=preset)
    assert (done.added, done.bad_total) == (1, 1)
    assert f"it has {k} candidates, but the question" in done.bad[0].problem


def test_an_answer_that_is_none_of_its_kind_takes_its_line_with_it(exchange):
    rows = [{"prompt": "p", "outputs": ["a", "b"], "ranks": ranks, "labeler": "l"} for ranks in ([1, 3], [1, 2])]
    done = exchange.put(rows, preset="ranking")
    assert (done.added, done.answers, done.bad_total) == (1, 1, 1)
    assert done.bad[0].problem == "ranking: rank 2 is 3, but it must be from 1 to 2"


def test_numbers_and_names_that_no_database_keeps_are_bad_and_the_rest_is_kept(store, tmp_path):
    tree = {"message_tree_id": "t", "prompt": {"message_id": "t", "text": "Q", "role": "prompter", "replies": []}}
    path = tmp_path / "trees.jsonl"
    good = json.dumps(tree)
    path.write_text("\n".join([
        good, good.replace('"t"', f'"{"x" * 3000}"'), good.replace('"replies"', '"n": 1e999, "replies"'),
        good.replace('"t"', '"u"').replace('"Q"', f'"Q", "n": {10**30}'),
    ]))  # fmt: skip
    done = Exchange(store, tmp_path, "trees").put(path)
    assert [bad.line for bad in done.bad] == [2, 3]
    assert "has 3,000 characters" in done.bad[0].problem
    assert "inf is no number that JSON has" in done.bad[1].problem
    assert len(Exchange(store, tmp_path, "trees").rows("oasst")) == 2
    rows = [{"prompt": "p", "outputs": ["a", "b"], "id": key} for key in ("x" * 300, "ok", 10**25)]
    rows += [{"prompt": "p", "outputs": ["a", "b"], name: "x" * 200} for name in ("batch", "split")]
    done = Exchange(store, tmp_path, "prompts").put(rows, preset="comparison")
    assert (done.added, [bad.line for bad in done.bad]) == (2, [1, 4, 5])


def test_a_rehearsal_says_what_would_come_in_and_writes_nothing(exchange, monkeypatch):
    monkeypatch.setattr(importing, "_LINES", 2)  # what is known is then of an earlier group
    rows = [*posts(5), swapped(posts(1)[0]), {"info": 1}, posts(2)[1]]
    rehearsed = exchange.put(rows, dry=True)
    assert exchange.count(item) == exchange.count(person) == exchange.count(project) == 0
    done = exchange.put(rows)
    assert rehearsed == done
    assert (done.added, done.known, done.answers, done.bad_total) == (5, 2, 7, 1)
    assert exchange.put(rows, dry=True) == exchange.put(rows)


def test_a_rehearsal_tells_one_id_with_two_texts_too(exchange, monkeypatch):
    monkeypatch.setattr(importing, "_LINES", 1)
    rows = [{"id": "a", "prompt": "p", "outputs": outputs} for outputs in (["1", "2"], ["1", "3"], ["1", "2"])]
    rehearsed = exchange.put(rows, preset="comparison", dry=True)
    assert rehearsed == exchange.put(rows, preset="comparison")
    assert (rehearsed.added, rehearsed.known, [bad.line for bad in rehearsed.bad]) == (1, 1, [2])


def test_a_project_is_made_only_where_that_is_asked(exchange):
    with pytest.raises(UserError, match=r"There is no project .tldr.(.|\n)*--create"):
        exchange.put(posts(1), create=False)
    exchange.put(posts(1))
    with exchange.store.reading() as conn:
        _, settings = load_project(conn, "tldr")
    assert [question.kind for question in settings.questions] == ["comparison"]
    exchange.put(posts(2), create=False)


def test_a_project_that_asks_something_else_is_an_error_before_anything_is_read(exchange):
    exchange.put(posts(1))
    with pytest.raises(UserError, match="openai-axes has answers of kind likert, but the project tldr asks for comp"):
        exchange.put([axes()], name="axes.jsonl")


@pytest.mark.parametrize(
    ("format", "preset", "problem"),
    [
        ("trl-unpaired", "", "trl-unpaired is written, not read"),
        ("hf", "", "hf is written, not read"),
        ("csv", "", "There is no format 'csv'"),
        ("prompts", "", "does not say what a new project asks"),
        ("prompts", "compare", "There is no preset 'compare'"),
        ("rein", "", "does not begin with a project's settings"),
    ],
)
def test_what_cannot_be_done_says_what_can(exchange, format, preset, problem):
    with pytest.raises(UserError, match=problem):
        exchange.put(posts(1), format, preset=preset)


def test_a_project_of_a_name_that_is_none_is_refused(store, tmp_path):
    with pytest.raises(UserError, match="A project's name has 1 to 100"):
        Exchange(store, tmp_path, "a/b").put(posts(1))


@pytest.mark.parametrize("data", [b'{"a": 1}\n', b"[3]"])
def test_a_file_of_no_known_format_says_which_there_are(tmp_path, data):
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"of no format that is known(.|\n)*openai-comparisons"):
        guess(path)


@pytest.mark.parametrize("format", ["", "prompts"])
@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "is empty"),
        ("a.json", b"[]", "is empty"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("a.jsonl.gz", b'{"prompt": "p"}\n', "is no whole gzip file: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "p"}\n', mtime=0)[:15], "is no whole gzip file"),
        ("a.jsonl.zst", b'{"prompt": "p"}\n', "is no whole Zstandard file"),
    ],
)
def test_a_file_without_rows_says_what_it_is(exchange, format, name, data, says):
    path = exchange.folder / name
    path.write_bytes(data)
    with pytest.raises(UserError, match=says):
        exchange.put(path, format, preset="demonstration")
    assert exchange.count(item) == 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ('{"prompt": "é"}\n'.encode("latin-1"), "Line 1: not UTF-8: byte 0xe9 at place 13"),
        ('{"prompt": "é"}\n'.encode("utf-16"), "Line 1: not UTF-8: byte 0xff at place 1"),
        (b'{"prompt": "' + b"x" * 8_000_001 + b'"}\n', "Line 1: the line is longer than 8,000,000 bytes"),
        (b"not json\n", "Line 1: not JSON: Expecting value"),
        (b'{\n  "prompt": "p"\n}\n', "Line 1: not JSON: Expecting property name"),
    ],
)
def test_a_file_that_nothing_can_be_read_of_says_why_in_its_first_line(tmp_path, data, says):
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        guess(path)
    first, *rest = str(error.value).split("\n")
    assert f"Nothing of {path} can be read. {says}" in first
    assert len(rest) == 1


# ------------------------------------------------------------------------------------ items of which nothing is told


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "p", "outputs": ["a", " a\n"]}, "its outputs are all the same text"),
        ({"prompt": " ", "outputs": ["a", "b"]}, "its prompt is empty"),
        ({"title": "", "post": "\n", "outputs": ["a", "b"]}, "its prompt is empty"),
    ],
)
@pytest.mark.parametrize("preset", ["comparison", "best-of", "ranking", "instructgpt"])
def test_an_item_that_tells_nothing_is_left_out_before_anybody_is_asked(exchange, row, why, preset):
    done = exchange.put([{"prompt": "p", "outputs": ["a", "b"]}, row], "prompts", preset=preset)
    assert (done.added, [(bad.line, bad.problem) for bad in done.bad]) == (1, [(2, why)])


def test_outputs_that_are_the_same_can_be_rated_and_two_of_three_can_be_ranked(exchange):
    assert exchange.put([{"prompt": "p", "outputs": ["a", "a"]}], preset="rating").bad == ()
    other = Exchange(exchange.store, exchange.folder, "ranked")
    assert other.put([{"prompt": "p", "outputs": ["a", "a", "b"]}], preset="ranking").bad == ()


def test_an_item_that_tells_nothing_is_kept_where_it_has_an_answer_and_is_counted(exchange):
    rows = [
        comparison("p", texts=(" one", " one ")), comparison("p", texts=(" one", " one "), worker="w2"),
        comparison("", texts=(" 1", " 2")), comparison("q"),
    ]  # fmt: skip
    rows[2]["info"]["title"] = ""
    rows[2]["info"]["subreddit"] = ""
    done = exchange.put(rows)
    assert done.bad == ()
    assert dict(done.idle) == {"its outputs are all the same text": 1, "its prompt is empty": 1}
    assert exchange.rows("openai-comparisons") == rows
    copy = exchange.folder / "own.jsonl"
    copy.write_bytes(exchange.bytes("rein"))
    other = Exchange(exchange.store, exchange.folder, "copy")
    done = other.put(copy)
    assert (done.added, done.bad) == (3, ())


def test_prompts_alone_are_work_where_something_is_to_be_written(exchange):
    rows = [{"prompt": "Say hi."}, {"prompt": "Say bye.", "outputs": []}]
    done = exchange.put(rows, preset="demonstration")
    assert (done.format, done.added, done.bad) == ("prompts", 2, ())
    other = Exchange(exchange.store, exchange.folder, "compared")
    done = other.put(rows, preset="comparison")
    assert (done.added, done.bad_total) == (0, 2)
    assert done.bad[0].problem == "it has 0 candidates, but the question choice (comparison) needs 2"


def test_a_bad_first_line_does_not_keep_a_format_from_being_told(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{\n" + json.dumps(comparison()).encode())
    assert guess(path).name == "openai-comparisons"


def test_a_packed_file_that_breaks_off_is_imported_as_far_as_it_goes(exchange):
    data = gzip.compress("".join(json.dumps(row) + "\n" for row in posts(3000)).encode())
    path = exchange.folder / "c.jsonl.gz"
    path.write_bytes(data[: len(data) // 2])
    done = exchange.put(path)
    assert 0 < done.added < 3000
    assert done.bad_total == 1
    assert (done.bad[0].line, "breaks off" in done.bad[0].problem) == (done.added + 1, True)


# ------------------------------------------------------------------------------------------------------- people


def test_those_whom_a_file_names_are_people_who_cannot_log_in(exchange):
    exchange.put(posts(2))
    with exchange.store.reading() as conn:
        rows = conn.execute(select(person).order_by(person.c.id)).mappings().all()
    assert [(row["name"], row["active"], row["password"], row["simulated"]) for row in rows] == [
        ("w0", False, None, False), ("w1", False, None, False),
    ]  # fmt: skip
    assert check_password(exchange.store, 0, "w0", "") is None


def test_nobody_who_works_here_is_credited_with_what_a_file_says(exchange):
    ann = exchange.store.write(lambda conn: add_person(conn, 0, "w0", "researcher", "a password of ann"))
    exchange.put(posts(1))
    with exchange.store.reading() as conn:
        (said,) = conn.execute(select(feedback.c.person)).scalars()
    assert said != ann
    assert exchange.rows("openai-comparisons")[0]["worker"] == "w0"
    assert exchange.put(posts(1)).answers == 0  # and is found again


@pytest.mark.parametrize("worker", ["x" * 300, "a\u202eb", "  spaces  ", "Ω≈ç√ 😀", "W0"])
def test_any_name_of_a_worker_comes_out_as_it_went_in(exchange, worker):
    rows = [comparison("one", worker="w0"), comparison("two", worker=worker)]
    exchange.put(rows)
    assert exchange.rows("openai-comparisons") == rows


# ------------------------------------------------------------------------------------------------------- splits


@drawn(st.text(max_size=5), st.integers(0, 3), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_more_for_one_split_never_moves_a_prompt_of_those_before_it(prompt, seed, first, second):
    small = split_of({"prompt": prompt}, seed, {"valid1": first})
    large = split_of({"prompt": prompt}, seed, {"valid1": first, "valid2": second})
    assert (small == "valid1") == (large == "valid1")


def test_splits_have_their_shares(exchange):
    found = [split_of({"prompt": str(n)}, 0, {"valid1": 0.1, "valid2": 0.2}) for n in range(4000)]
    assert 320 < found.count("valid1") < 480
    assert 700 < found.count("valid2") < 900


def test_pairs_of_one_prompt_are_in_one_split_whatever_file_they_come_in(exchange):
    shares = Given(splits={"valid1": 0.5})
    for number in range(3):
        rows = [{"prompt": f"p{n}", "outputs": [f"{number}", "b"]} for n in range(30)]
        exchange.put(rows, given=shares, preset="comparison", name=f"{number}.jsonl")
    with exchange.store.reading() as conn:
        found = {}
        for context, split in conn.execute(select(item.c.context, item.c.split)):
            found.setdefault(context["prompt"], set()).add(split)
    assert len(found) == 30
    assert all(len(splits) == 1 for splits in found.values())
    assert set.union(*found.values()) == {"train", "valid1"}


def test_batch_and_role_are_those_of_the_import(exchange):
    exchange.put(posts(2), given=Given(batch="ours", role="calibration"))
    with exchange.store.reading() as conn:
        assert conn.execute(select(batch.c.name)).scalars().all() == ["ours"]
        assert conn.execute(select(item.c.role)).scalars().all() == ["calibration"] * 2


# ------------------------------------------------------------------------------------------------ whole or not


def test_a_frozen_batch_refuses_new_items_line_by_line(exchange):
    exchange.put(posts(1))
    exchange.store.write(lambda conn: freeze(conn, 0, 1, "batch9", True))
    done = exchange.put([*posts(2), comparison("free", batch="batch10")])
    assert (done.added, done.known, [bad.line for bad in done.bad]) == (1, 1, [2])
    assert "frozen" in done.bad[0].problem


def test_an_item_and_its_answers_come_in_together_or_not_at_all(exchange, monkeypatch):
    real = putting.record

    def failing(conn, now, number, records):
        """Refuses what one labeler said, when the item that it is of is there already."""
        names = conn.execute(select(person.c.name).where(person.c.id.in_({one.person for one in records}))).scalars()
        if "w1" in names.all():
            raise Refused("bad_value", "Not this one.")
        return real(conn, now, number, records)

    monkeypatch.setattr(putting, "record", failing)
    done = exchange.put(posts(7))
    assert [(bad.line, bad.problem) for bad in done.bad] == [(2, "Not this one."), (5, "Not this one.")]
    assert (done.added, done.answers) == (exchange.count(item), exchange.count(answer)) == (5, 5)
    with exchange.store.reading() as conn:
        assert "w1" not in conn.execute(select(person.c.name)).scalars().all()


_KILLED = """
import sys, time
from pathlib import Path
from rein.feedback.exchange import importing, putting
from rein.feedback.store import Store
importing._LINES = 5
real = putting.record
def slow(*words):
    print("group", flush=True)
    time.sleep(0.02)
    return real(*words)
putting.record = slow
with Store.open(sys.argv[1]) as store:
    importing.import_file(store, "tldr", "", Path(sys.argv[2]), create=True)
"""


def test_an_import_that_was_killed_is_finished_by_the_same_one(tmp_path):
    address, rows = str(tmp_path / "labels.db"), [*posts(200), *posts(3)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    Store.open(address, create=True).close()
    for groups in (1, 3, 7):
        program = subprocess.Popen(
            [sys.executable, "-c", _KILLED, address, str(path)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        for _ in range(groups):
            program.stdout.readline()
        program.send_signal(signal.SIGKILL)
        program.wait()
        program.stdout.close()
    with Store.open(address, create=True) as store:
        exchange = Exchange(store, tmp_path)
        before = exchange.count(item)
        assert before < 200
        done = import_file(store, "tldr", "", path, create=True)
        assert (done.added, done.known) == (200 - before, before + 3)
        assert exchange.rows("openai-comparisons") == rows
        assert exchange.count(answer) == len(rows)


def test_labelers_go_on_while_a_file_comes_in(exchange):
    """A group at a time: another write never waits for more than one."""
    import threading

    waits, stop = [], threading.Event()

    def write():
        while not stop.is_set():
            begun = time.monotonic()
            exchange.store.write(lambda conn: conn.execute(select(func.count()).select_from(item)).scalar())
            waits.append(time.monotonic() - begun)

    thread = threading.Thread(target=write)
    thread.start()
    exchange.put(posts(1500))
    stop.set()
    thread.join()
    assert len(waits) > 3
