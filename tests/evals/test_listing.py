"""`rein eval tasks`: how each task is asked, which files it reads, and its first problem."""

import json

import pytest
from task_files import lines
from task_rows import COPA, GAUNTLET_WINOGRAD, MONCRIEFF, MULTIRC

from rein.cli import main
from rein.evals.listing import how
from rein.evals.tasks.table import TASKS, load


@pytest.fixture
def listed(tmp_path, capsys):
    """Prints tasks with what is found of the files {name: text}."""

    def run(*names, files=None, flags=()):
        for name, text in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        words = ["eval", "tasks", *names, *flags]
        assert main([*words, "--data", str(tmp_path)] if files else words) == 0
        return capsys.readouterr().out.splitlines()

    return run


def shown(out):
    """The lines of the first problem: what is asked, and what may be answered."""
    return [line.strip() for line in out if line.startswith("    ")]


@pytest.mark.parametrize(
    ("protocol", "name", "words"),
    [
        ("gpt3", "arc_easy", "choice / answer"),
        ("gpt3", "piqa", "choice / token"),
        ("gpt3", "wsc", "beam search"),
        ("gpt3", "multirc", "choice / token"),
        ("gpt3", "record", "choice / token"),
        ("gpt3", "lambada", "cloze"),
        ("gpt3", "squad_v2", "beam search"),
        ("gpt3", "2d+", "beam search"),
        ("gpt3", "ptb", "likelihood"),
        ("gpt2", "lambada", "cloze"),
        ("gpt2", "winograd_full", "choice / none"),
        ("gpt2", "coqa", "greedy"),
        ("gpt2", "cnn_dm", "top-k 2"),
        ("gpt2", "enwik8", "likelihood"),
    ],
)
def test_how_an_answer_is_found_is_said(protocol, name, words):
    assert how(load(protocol, name)) == words


@pytest.mark.parametrize("protocol", TASKS)
def test_every_task_is_listed_with_the_files_that_it_reads(listed, protocol):
    out = listed(flags=("--protocol", protocol))
    assert [line.split()[0] for line in out if not line.startswith(" ")] == list(TASKS[protocol])
    assert len(out) == 4 * len(TASKS[protocol])


def test_files_that_are_missing_are_named_for_each_split_alone(listed):
    head, train, dev, test = listed("copa")
    assert head.split() == ["copa", "COPA", "K", "32", "choice", "/", "token", "accuracy"]
    assert train == "  train – (COPA/train.jsonl, COPA/train32.jsonl, copa_train.jsonl)"
    assert dev == "  dev   – (COPA/val.jsonl, COPA/dev.jsonl, copa.jsonl)"
    assert test == "  test  – (The task has no test split, only: train, dev.)"


def test_a_file_that_cannot_be_read_is_named_rather_than_those_that_are_not_there(listed):
    *_, test = listed("cnn_dm", files={"cnn_dailymail/test.jsonl.gz": "not packed"}, flags=("--protocol", "gpt2"))
    assert "test.jsonl.gz cannot be read" in test
    assert "test.source" not in test


def test_problems_are_counted_and_so_are_rows_that_cannot_be_used(listed):
    files = {"COPA/val.jsonl": lines(COPA | {"label": 7}, COPA, COPA), "COPA/train.jsonl": lines(COPA)}
    _, train, dev, _ = listed("copa", files=files)
    assert (train, dev) == ("  train 1 problems, shots", "  dev   2 problems, scored, 1 rows cannot be used")


def test_the_first_problem_that_can_be_asked_is_shown_apart_from_its_answers(listed):
    out = listed("copa", files={"COPA/val.jsonl": lines({"premise": "A."}, COPA)}, flags=("--prompt",))
    assert shown(out) == [
        "│ My body cast a shadow over the grass because",
        "✓ the sun was rising.",
        "✗ the grass was cut.",
    ]


def test_a_cloze_is_shown_as_it_is_asked_without_shots(listed):
    out = listed("lambada", files={"lambada_test.jsonl": '{"text": "A cat.\\nIt sat"}\n'}, flags=("--prompt",))
    assert shown(out) == ["│ A cat.", "│ It", "✓ sat"]


def test_a_description_that_always_stands_in_front_is_shown(listed):
    out = listed("wsc", files={"WSC/val.jsonl": lines(MONCRIEFF | {"label": False})}, flags=("--prompt",))
    assert shown(out)[0] == "│ Final Exam with Answer Key"
    assert shown(out)[3].startswith("│ Passage: Mr. Moncrieff")
    assert shown(out)[-2:] == ["│ Answer:", "✗ mr. moncrieff"]  # the pronoun does not mean it
    out = listed("multirc", files={"MultiRC/val.jsonl": lines(MULTIRC)}, flags=("--prompt",))
    assert shown(out)[-2:] == ["✓ - [False] Bin Laden", "✗ - [True] Bin Laden"]


def test_schemas_are_shown_whole_where_they_have_nothing_in_common(listed):
    files = {"winograd_wsc.jsonl": lines(GAUNTLET_WINOGRAD)}
    assert shown(listed("winograd", files=files, flags=("--prompt",))) == [
        f"{mark} Grace was happy to trade me her sweater for my jacket. She thinks the {noun} ▸ looks dowdy on her."
        for mark, noun in (("✓", "sweater"), ("✗", "jacket"))
    ]


def test_a_long_text_is_cut_and_has_no_answer(listed):
    out = listed("ptb", files={"ptb.test.txt": " word" * 200 + " \n"}, flags=("--prompt", "--protocol", "gpt2"))
    assert shown(out) == ["│ " + "word " * 60 + " …"]


def test_a_task_without_problems_shows_none(listed):
    assert shown(listed("copa", flags=("--prompt",))) == []
    assert shown(listed("copa", files={"COPA/val.jsonl": "{}\n"}, flags=("--prompt",))) == []


def test_a_file_of_the_users_is_listed(listed, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"context": "The capital of France is", "continuation": "Paris"}) + "\n")
    head, _, dev, test, *problem = listed(str(path), flags=("--prompt",))
    assert "cloze" in head
    assert "has no dev split" in dev
    assert test == "  test  1 problems, scored"
    assert [line.strip() for line in problem] == ["│ The capital of France is", "✓ Paris"]
