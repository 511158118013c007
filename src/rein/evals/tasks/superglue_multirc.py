"""MultiRC: a passage, questions about it, and answers of which any number may be right.

    READING COMPREHENSION ANSWER KEY

    While this process moved along, diplomacy continued its rounds. …

    Who did The State Department feel should visit both India and Pakistan?
    - [False] Bin Laden

Each answer is a problem: is it more likely behind "[True]" or behind "[False]"? The answers of a question are right or
wrong together. As a shot, a passage stands with all of its questions and their answers, and counts for so many; one
draw serves all problems. Scored on dev: SuperGLUE keeps the test answers. Read from SuperGLUE's files, and from the
hub, which has a row for each answer.

Source   Brown 2020, Appendix G, figure G.15; §3.7. Khashabi 2018.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from rein.evals.data import Data, Row
from rein.evals.task import Option, Problem, Split, Task
from rein.evals.tasks.reading import each, id_of, label_of, superglue, text_in, within

MARKS = ("- [False]", "- [True]")


def read(data: Data, split: Split) -> Iterable[Row]:
    """The rows of MultiRC, a passage each."""
    found = superglue(data, split, "MultiRC")
    return _passages(found) if data.from_hub else found


def _passages(answers: Iterable[Row]) -> Iterable[Row]:
    """A row for each passage, as the official files have it, of rows for each answer."""
    for number, of_passage in groupby(answers, lambda row: row["idx"]["paragraph"]):
        questions: list[dict[str, Any]] = []
        for _, of_question in groupby(of_passage, lambda row: row["idx"]["question"]):
            rows = list(of_question)
            found = [{"text": row["answer"], "label": row["label"]} for row in rows]
            questions.append({"question": rows[0]["question"], "answers": found})
        yield Row({"idx": number, "passage": {"text": rows[0]["paragraph"], "questions": questions}}, rows[0].where)


def ask(row: Row) -> Iterable[Problem]:
    """A problem for each answer."""
    passage, id = text_in(within(row, "passage"), "text"), id_of(row)
    questions = [
        (
            text_in(question, "question"),
            [(text_in(a, "text"), label_of(a, ("0", "1"))) for a in each(question, "answers")],
        )
        for question in each(within(row, "passage"), "questions")
    ]
    shot = passage + "".join(
        f"\n\n{question}" + "".join(f"\n{MARKS[label]} {text}" for text, label in answers)
        for question, answers in questions
    )
    return [
        Problem(
            f"{id}/{number}/{place}",
            prompt=f"{passage}\n\n{question}",
            shot=shot,
            options=tuple(Option(f"{passage}\n\n{question}", f"\n{mark} {text}") for mark in MARKS),
            gold=label,
            counts=len(questions),
            passage=id,
            question=f"{id}/{number}",
            parts={"passage": passage, "question": question, "answer": text},
        )
        for number, (question, answers) in enumerate(questions)
        for place, (text, label) in enumerate(answers)
    ]


MULTIRC = Task(
    "multirc",
    "MultiRC",
    read,
    ask,
    ("multirc_accuracy", "f1a"),
    published="MultiRC",
    shots=32,
    scored_on="dev",
    chosen_on=None,
    draw="fixed",
    description="READING COMPREHENSION ANSWER KEY",
)
