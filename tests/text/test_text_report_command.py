"""`rein report` of corpora, and of runs beside them: what is drawn anew, what is refused and why."""

from __future__ import annotations

import json

import pytest

from rein.cli import main
from rein.errors import UserError
from rein.report.page import ReportConfig
from rein.text.report import draw, report


def test_a_build_draws_it_and_the_command_draws_it_anew(corpus, capsys):
    built = (corpus / "report.html").read_bytes()
    (corpus / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", str(corpus)]) == 0
    assert capsys.readouterr().out == f"{corpus / 'report.html'}\n"
    assert (corpus / "report.html").read_bytes() == built
    manifest = json.loads((corpus / "manifest.json").read_text())
    tokens = sum(split["tokens"] for split in manifest["splits"].values())
    assert f"<strong>{tokens:,}</strong>" in built.decode()


def test_runs_and_corpora_may_be_named_together(corpus, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    report(ReportConfig(runs=(tmp_path / "run", corpus)))
    assert "report of a run" in (tmp_path / "run" / "report.html").read_text()
    assert "report of a corpus" in (corpus / "report.html").read_text()


def test_runs_alone_are_compared_as_before(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    report(ReportConfig(runs=(tmp_path / "a", tmp_path / "b"), out=tmp_path / "compare.html"))
    assert "comparison of 2 runs" in (tmp_path / "compare.html").read_text()


def test_a_corpus_is_not_compared(corpus, tmp_path):
    with pytest.raises(UserError, match="is a corpus") as raised:
        report(ReportConfig(runs=(corpus,), out=tmp_path / "page.html"))
    raised.match("Leave --out away")


def test_a_corpus_that_is_not_finished_says_so(corpus):
    (corpus / "manifest.json").unlink()
    (corpus / "work").mkdir()
    with pytest.raises(UserError, match="is not finished"):
        report(ReportConfig(runs=(corpus,)))


@pytest.mark.parametrize(("text", "problem"), [(None, "has no report.json"), ("{", "is not valid JSON")])
def test_a_corpus_without_its_counts_says_so(corpus, text, problem):
    (corpus / "report.json").unlink()
    if text is not None:
        (corpus / "report.json").write_text(text)
    with pytest.raises(UserError, match=problem):
        draw(corpus)
