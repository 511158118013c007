"""RACE: English exams of Chinese high and middle schools: an article, and questions about it.

    Article:

    Mrs. Smith is an unusual teacher. …

    Q: The children complained about _ besides the weight trouble.

    A: the smell

    Q: Mrs. Smith asked her students to write _ on the potatoes.

    A: names

A question is asked behind the article's earlier ones with their right answers. As a shot, an article stands with all
of its questions, and counts for so many. The likelihood of each answer is divided by its likelihood behind "A:" alone.
Read from the official folders (one article a file), and from the hub.

Source   Brown 2020, Appendix G, figures G.1 and G.3; §2.4. Lai 2017.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import groupby

from rein.evals.data import BadRow, Data, Row, hub_rows, text_of
from rein.evals.task import Problem, Split, Task, multiple_choice
from rein.evals.tasks.reading import HUB_SPLITS, each, gold_of, id_of, one_space, options_of, text_in


def read(level: str, data: Data, split: Split) -> Iterable[Row]:
    """The articles of RACE's high or middle part, each with all of its questions."""
    if data.from_hub:
        for id, found in groupby(hub_rows(("ehovy/race", level), HUB_SPLITS[split]), lambda row: row["example_id"]):
            questions = list(found)
            values = {name + "s": [row[name] for row in questions] for name in ("question", "answer")}
            values |= {"id": id, "article": questions[0]["article"], "options": [row["options"] for row in questions]}
            yield Row(values, questions[0].where)
        return
    for path in data.need_all(f"{split}/{level}/*.txt"):
        try:
            yield Row(json.loads(text_of(path)), f"{path}:1")
        except ValueError:
            yield Row(None, f"{path}:1")


def ask(row: Row) -> Iterable[Problem]:
    """A problem for each question of the article."""
    article, asked = text_in(row, "article"), f"Article:\n\n{text_in(row, 'article')}"
    problems = []
    for number, (question, options, answer) in enumerate(_questions(row)):
        asked += f"\n\nQ: {question}\n\nA:"
        id = f"{id_of(row, 'id')}/{number}"
        parts = {"passage": article, "question": question, "answer": options[answer]}
        problems.append(multiple_choice(id, asked, options, answer, passage=id_of(row, "id"), parts=parts))
        asked += f" {options[answer]}"
    return [replace(problem, shot=asked, counts=len(problems)) for problem in problems]


def _questions(row: Row) -> Iterable[tuple[str, list[str], int]]:
    questions, options, answers = each(row, "questions"), each(row, "options"), each(row, "answers")
    if not len(questions) == len(options) == len(answers):
        raise BadRow(
            f"{row.where}: it has {len(questions)} questions, {len(options)} lists of options, {len(answers)} answers"
        )
    for question, offered, answer in zip(questions, options, answers, strict=True):
        found = options_of(row, offered.values)
        yield one_space(question.values), found, gold_of(row, answer.values, "ABCD"[: len(found)])


def _task(name: str, title: str, level: str) -> Task:
    return Task(
        name,
        title,
        partial(read, level),
        ask,
        published=title,
        shots=10,
        normalise="answer",
        answer_context="A:",
    )


HIGH = _task("race_h", "RACE-h", "high")
MIDDLE = _task("race_m", "RACE-m", "middle")
