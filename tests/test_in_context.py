"""recipes/in_context.py: what the pages hold, and the whole demonstration at a size that learns nothing."""

from __future__ import annotations

import json
import re
from itertools import islice
from random import Random

import pytest

from rein.cli import main
from rein.evals.data import Data
from rein.recipes.in_context import PUZZLES, RULES, TASKS, pages


@pytest.mark.parametrize("name", TASKS)
def test_a_page_reads_as_a_few_shot_prompt_of_its_task(name):
    for page in islice(pages(name, Random(0)), 20):
        shots = page.split(TASKS[name].separator)
        if name in RULES:
            assert len(shots) == PUZZLES
            for puzzle, word in (shot.split(" = ") for shot in shots):
                assert RULES[name](word) == puzzle
        else:
            sums = re.findall(r"Q: What is (\d+) plus (\d+)\?\n\nA: (\d+)", page)
            assert len(sums) == PUZZLES
            assert all(int(a) + int(b) == int(c) for a, b, c in sums)


@pytest.mark.parametrize("name", TASKS)
def test_no_page_holds_what_is_asked_on_dev_or_test(name):
    asked = {str(row["context"]).strip() for split in ("dev", "test") for row in TASKS[name].read(Data(), split)}
    text = "\n".join(islice(pages(name, Random(1)), 80))
    found = [context for context in asked if f"\n{context} " in f"\n{text}"]
    if name == "2d+":
        assert found == []
    else:  # a made-up word may be a word
        assert len(found) < len(asked) / 20


def test_the_demonstration_runs_and_goes_on(tmp_path, capsys):
    words = ["eval", "demo", "--out", str(tmp_path / "demo"), "--train-tokens", "3000", "--problems", "3"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "Reversed words:" in first
    scores = json.loads((tmp_path / "demo" / "eval" / "scores.json").read_text())
    assert {entry["task"] for entry in scores["tasks"]} == set(TASKS)
    assert all(entry["chosen_k"] is not None for entry in scores["tasks"])
    assert (tmp_path / "demo" / "eval" / "report.html").exists()
    assert main(words) == 0  # nothing is done twice
    assert json.loads((tmp_path / "demo" / "eval" / "scores.json").read_text()) == scores


def test_sizes_below_one_are_refused(capsys):
    assert main(["eval", "demo", "--problems", "0"]) == 2
    assert "--problems is 0" in capsys.readouterr().err
