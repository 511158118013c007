"""Tasks of your own: a file of lines is a task."""

import json

import pytest
from task_files import problems

from rein.errors import UserError
from rein.evals import metrics
from rein.evals.data import BadRow, Data
from rein.evals.tasks.own import task_from_file


def test_a_file_of_choices_is_a_task(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"context": "2 + 2 =", "choices": ["3", "4"], "gold": 1, "id": "a", "passage": "p"}\n')
    (tmp_path / "mine.train.jsonl").write_text('{"context": "1 + 1 =", "choices": ["2", "3"], "gold": 0}\n')
    task = task_from_file(path)
    [problem] = problems(task, Data())
    [shot] = problems(task, Data(), "train")
    assert (task.name, task.metrics, task.shots > 0) == ("mine", ("accuracy",), True)
    assert [option.completion for option in problem.options] == [" 3", " 4"]
    assert (problem.id, problem.passage, problem.gold) == ("a", "p", 1)
    assert shot.shot == "1 + 1 = 2"


@pytest.mark.parametrize(
    ("line", "metric", "context", "right"),
    [
        ({"context": "Q: 2?\nA:", "answers": ["4", "four"]}, "exact_match", "Q: 2?\nA:", ("4", "four")),
        ({"context": "Q: 2?\nA: ", "answer": "4", "aliases": ["four"]}, "exact_match", "Q: 2?\nA:", ("4", "four")),
        ({"context": "The capital is", "continuation": " Paris"}, "lambada_last_word", "The capital is", (" Paris",)),
        ({"query": "Is it? ", "choices": ["no", "yes"], "gold": 1}, "accuracy", "Is it?", (" no", " yes")),
        ({"context_options": ["Ann ran because Ann", "Ann ran because Bob"], "continuation": "was late", "gold": 0},
         "accuracy", "Ann ran because Ann", (" was late", " was late")),
    ],
)  # fmt: skip
def test_every_form_of_line_is_read(tmp_path, line, metric, context, right):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(line) + "\n")
    task = task_from_file(path)
    [problem] = problems(task, Data())
    assert task.metrics[0] == metric
    assert all(name in metrics.METRICS for name in task.metrics)
    assert problem.prompt == context
    assert (problem.answers or tuple(option.completion for option in problem.options)) == right
    assert task.shots == 0
    with pytest.raises(UserError, match="no train split"):
        problems(task, Data(), "train")


@pytest.mark.parametrize(
    ("content", "says"), [("", "is empty"), ('{"question": "?"}\n', "none of: choices"), ("no json\n", "none of")]
)
def test_a_file_that_is_no_task_says_why(tmp_path, content, says):
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=says):
        task_from_file(path)


@pytest.mark.parametrize(
    "line",
    [
        {"context": "x", "choices": ["a", "b"], "gold": 2},
        {"context": "x", "choices": ["a", "b"]},
        {"context": "x", "choices": ["a"], "gold": 0},
        {"context": "x", "answers": [4]},
        {"context": "x", "answers": []},
        {"context": 7, "answers": ["a"]},
        {"answers": ["a"]},
        {"context": "x", "answer": "a", "aliases": [None]},
    ],
)
def test_a_line_that_cannot_be_asked_is_a_bad_row(tmp_path, line):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"context": "2 =", "choices": ["1", "2"], "gold": 1}\n' + json.dumps(line) + "\n")
    task = task_from_file(path)
    good, bad = task.read(Data(), "test")
    assert len(list(task.ask(good))) == 1
    with pytest.raises(BadRow, match=r"mine\.jsonl:2"):
        list(task.ask(bad))
