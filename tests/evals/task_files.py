"""Files put down for a task, and what it asks about them."""

import json
from pathlib import Path

from rein.evals.data import Data, Row
from rein.evals.task import Answer, Problem, Task
from rein.evals.tasks import race, reading


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def put(folder: Path, name: str, content) -> Data:
    """One file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return Data((folder,))


def problems(task: Task, data: Data, split=None) -> list[Problem]:
    """All of a split, by default the one that is scored."""
    return [problem for row in task.read(data, split or task.scored_on) for problem in task.ask(row)]


def problems_in(task: Task, folder, files, split=None) -> list[Problem]:
    """All of a split of the files {name: text}, which are put down first."""
    for name, text in files.items():
        put(folder, name, text)
    return problems(task, Data((folder,)), split)


def only(task: Task, folder, files, split=None) -> Problem:
    (problem,) = problems_in(task, folder, files, split)
    return problem


def of_hub(task: Task, values) -> Problem:
    (problem,) = task.ask(Row(values, "hub/test:0"))
    return problem


def hub(monkeypatch, rows):
    """A hub that holds these rows; returns what was asked of it, (dataset, split) each."""

    def hub_rows(dataset, split):
        asked_for.append((tuple(dataset), split))
        return [Row(values, f"hub/{split}:{number}") for number, values in enumerate(rows)]

    asked_for = []
    monkeypatch.setattr(reading, "hub_rows", hub_rows)
    monkeypatch.setattr(race, "hub_rows", hub_rows)
    return asked_for


def completions(problem):
    return [option.completion for option in problem.options]


def asked(problem):
    """What a model sees of it; where it comes from does not matter."""
    return problem.prompt, problem.shot, problem.options, problem.gold


def answered(problem, text):
    return Answer(problem, 0, 0, text=text)
