"""`rein label import`, `rein label export` and `rein label formats`."""

import json
import os

import pytest
from exchanging import axes, comparison, write_lines
from sqlalchemy import select

from rein.agents.simulation import SimulateConfig, simulate
from rein.config import from_flags
from rein.errors import UserError
from rein.feedback.exchange.table import FORMATS
from rein.feedback.store import Store
from rein.feedback.tables import audit, item
from rein.feedback.transfer import (
    ExportConfig,
    FormatsConfig,
    ImportConfig,
    export_command,
    formats_command,
    import_command,
)  # fmt: skip


@pytest.fixture
def labels(tmp_path):
    return str(tmp_path / "labels.db")


def run_import(labels, path, *words):
    import_command(from_flags(ImportConfig, [str(path), "--store", labels, "--project", "tldr", *words], prog="rein"))


def run_export(labels, *words):
    export_command(from_flags(ExportConfig, ["--store", labels, "--project", "tldr", *words], prog="rein"))


def test_a_file_goes_in_and_comes_out_again(labels, tmp_path, capfdbinary):
    rows = [comparison("one"), comparison("two")]
    path = write_lines(tmp_path / "batch9.json", rows)
    run_import(labels, path, "--create")
    said = capfdbinary.readouterr().out.decode()
    assert "openai-comparisons, told by its first row" in said
    assert "2 items added, 0 known" in said
    run_import(labels, path)
    assert "0 items added, 2 known" in capfdbinary.readouterr().out.decode()
    run_export(labels, "--format", "openai-comparisons")
    out = capfdbinary.readouterr().out
    assert [json.loads(line) for line in out.splitlines()] == rows
    run_export(labels, "--format", "openai-comparisons", "--out", str(tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == out
    assert "rows              2" in capfdbinary.readouterr().out.decode()
    with Store.open(labels) as store, store.reading() as conn:
        acts = conn.execute(select(audit.c.act, audit.c.about).order_by(audit.c.seq)).all()
    assert [act for act, _ in acts] == ["import", "import", "export", "export"]
    assert acts[0][1] == {
        "project": "tldr", "format": "openai-comparisons", "items": 2, "answers": 2, "file": "batch9.json",
    }  # fmt: skip
    assert acts[2][1] == {"project": "tldr", "format": "openai-comparisons", "names": False}


def test_bad_lines_are_listed_by_file_and_line(labels, tmp_path, capsys):
    path = write_lines(tmp_path / "some.jsonl", [comparison(), *[{"info": "\x1b[31m"}] * 30])
    run_import(labels, path, "--create")
    said = capsys.readouterr().out
    assert "left out          30 lines of 31:" in said
    assert f"{path}:2: info is a text, but an object is expected" in said
    assert f"{path}:21:" in said
    assert f"{path}:22:" not in said
    assert "and 10 more lines" in said


def test_a_file_of_which_no_line_can_be_taken_is_an_error_whose_first_line_says_why(labels, tmp_path, capsys):
    path = write_lines(tmp_path / "some.jsonl", [{"info": "x"}] * 30)
    with pytest.raises(UserError) as error:
        run_import(labels, path, "--format", "openai-comparisons", "--create")
    assert str(error.value).split("\n")[0] == (
        f"No line of {path} can be taken. Line 1: info is a text, but an object is expected."
    )
    assert "left out          30 lines of 30:" in capsys.readouterr().out


def test_what_came_in_though_nothing_can_be_told_of_it_is_said(labels, tmp_path, capsys):
    run_import(labels, write_lines(tmp_path / "some.jsonl", [comparison(texts=("a", "a"))]), "--create")
    said = capsys.readouterr().out
    assert "kept              1 item with answers, though its outputs are all the same text" in said


def test_an_export_says_on_stderr_what_went_out_and_what_did_not_and_why(labels, tmp_path, capfdbinary):
    rows = [
        {"prompt": f"p{n}", "outputs": ["a", "b"], "choice": [0, None][n % 2], "labeler": "l", "batch": f"b{n % 3}"}
        for n in range(6)
    ]  # fmt: skip
    run_import(labels, write_lines(tmp_path / "some.jsonl", rows), "--create", "--preset", "comparison")
    capfdbinary.readouterr()
    run_export(labels, "--format", "trl")
    out, told = capfdbinary.readouterr()
    assert len(out.splitlines()) == 3
    assert told.decode().splitlines() == [
        "answers           3 answers went out, 3 were left out:",
        "                  3 where neither is better (--ties half or both takes them)",
    ]
    run_export(labels, "--format", "trl", "--ties", "half", "--batch", "b0", "--out", str(tmp_path / "out.jsonl"))
    out, told = capfdbinary.readouterr()
    assert b"rows              2" in out
    assert told.decode().splitlines() == [
        "answers           2 answers went out, 4 were left out:", "                  4 of other batches",
    ]  # fmt: skip
    run_export(labels)
    assert capfdbinary.readouterr().err == b""  # rein has everything, always


def test_a_rehearsal_writes_nothing(labels, tmp_path, capsys):
    path = write_lines(tmp_path / "some.jsonl", [comparison()])
    Store.open(labels, create=True).close()
    run_import(labels, path, "--create", "--dry-run")
    assert "1 item added, 0 known (a rehearsal: nothing was written)" in capsys.readouterr().out
    with Store.open(labels) as store, store.reading() as conn:
        assert conn.execute(select(item)).first() is None
        assert conn.execute(select(audit)).first() is None


def test_splits_are_given_as_shares(labels, tmp_path, capsys):
    path = write_lines(tmp_path / "some.jsonl", [comparison(f"p{n}") for n in range(60)])
    run_import(labels, path, "--create", "--split-frac", "valid1=0.3,valid2=0.3")
    with Store.open(labels) as store, store.reading() as conn:
        splits = set(conn.execute(select(item.c.split)).scalars())
    assert splits == {"train", "valid1", "valid2"}
    capsys.readouterr()
    run_export(labels, "--format", "openai-comparisons", "--split", "valid1", "--out", str(tmp_path / "v1.jsonl"))
    assert {json.loads(line)["split"] for line in (tmp_path / "v1.jsonl").read_text().splitlines()} == {"valid1"}


@pytest.mark.parametrize("word", ["valid", "valid=2", "valid=x", "=0.1", "valid=0", "valid=nan"])
def test_a_split_that_is_none_says_how_one_is_written(labels, tmp_path, word):
    with pytest.raises(UserError, match="Write NAME=SHARE"):
        run_import(labels, tmp_path / "none", "--split-frac", word)


def test_shares_of_more_than_a_whole_are_refused(labels, tmp_path):
    with pytest.raises(UserError, match=r"are 1\.2 together"):
        run_import(labels, tmp_path / "none", "--split-frac", "a=0.6", "b=0.6")


def test_an_unknown_role_is_refused_both_ways(labels, tmp_path):
    with pytest.raises(UserError, match=r"--role is 'gould'(.|\n)*gold"):
        run_import(labels, tmp_path / "none", "--role", "gould")
    with pytest.raises(UserError, match=r"--role has 'gould'(.|\n)*gold"):
        run_export(labels, "--role", "gould")


def test_a_store_that_is_not_there_is_not_made_by_an_export_or_a_rehearsal(labels, tmp_path):
    path = write_lines(tmp_path / "some.jsonl", [axes()])
    for run in (lambda: run_export(labels), lambda: run_import(labels, path, "--create", "--dry-run")):
        with pytest.raises(UserError):
            run()
        assert not os.path.exists(labels)


def test_the_formats_are_listed_with_their_directions(capsys):
    formats_command(FormatsConfig())
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == list(FORMATS)
    directions = {line.split()[0]: set(line.split()[1:3]) & {"in", "out"} for line in said}
    assert directions["trl-unpaired"] == directions["hf"] == {"out"}
    assert directions["argilla"] == directions["prompts"] == {"in"}
    assert directions["tamer"] == directions["rein"] == {"in", "out"}


def test_the_record_of_a_lesson_goes_in_and_comes_out_byte_for_byte(labels, tmp_path, capsys):
    simulate(SimulateConfig("loop-maze", episodes=2, train_episodes=1, out=tmp_path / "maze"))
    path = tmp_path / "maze" / "record.jsonl"
    capsys.readouterr()
    run_import(labels, path, "--create")
    assert "tamer, told by its first row" in capsys.readouterr().out
    run_import(labels, path)
    assert "0 items added, 1 known" in capsys.readouterr().out
    run_export(labels, "--format", "tamer", "--out", str(tmp_path / "out"))
    (copy,) = (tmp_path / "out").iterdir()
    assert copy.read_bytes() == path.read_bytes()


def test_a_lesson_goes_into_no_other_project_and_a_project_without_lessons_gives_none(labels, tmp_path):
    run_import(labels, write_lines(tmp_path / "some.jsonl", [comparison()]), "--create")
    simulate(SimulateConfig("loop-maze", episodes=1, train_episodes=1, out=tmp_path / "maze"))
    with pytest.raises(UserError, match="Lessons have projects of their own"):
        run_import(labels, tmp_path / "maze" / "record.jsonl")
    with pytest.raises(UserError, match="has no lessons"):
        run_export(labels, "--format", "tamer", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
