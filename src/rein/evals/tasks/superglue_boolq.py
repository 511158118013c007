"""BoolQ: questions that people asked a search engine, to be answered with yes or no from a passage.

    Normal force -- In a simple case such as an object resting upon a table, the normal force on the object is equal …
    question: is the normal force equal to the force of gravity?
    answer: yes

Scored on dev: SuperGLUE keeps the test answers. Read from SuperGLUE's files, from the authors' own (whose answer is
called so), from query/choices/gold, and from the hub.

Source   Brown 2020, Appendix G, figure G.29; §3.7. Clark 2019.
"""

import re
from collections.abc import Iterable
from functools import partial

from rein.evals.data import BadRow, Row
from rein.evals.task import Problem, Task, multiple_choice
from rein.evals.tasks.reading import gauntlet, id_of, label_of, superglue, text_in

NAMES = ("no", "yes")


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    passage, question, gold = _gauntlet(row) or _official(row)
    question = question.rstrip("?").strip()
    context = f"{passage}\nquestion: {question}?\nanswer:"
    parts = {"passage": passage, "question": question}
    yield multiple_choice(id_of(row), context, NAMES, gold, passage=passage, parts=parts)


def _official(row: Row) -> tuple[str, str, int]:
    title = f"{text_in(row, 'title')} -- " if row.get("title") else ""
    label = "label" if row.get("label") is not None else "answer"
    return title + text_in(row, "passage"), text_in(row, "question"), label_of(row, ("false", "true"), label)


def _gauntlet(row: Row) -> tuple[str, str, int] | None:
    found = gauntlet(row)
    if found is None:
        return None
    query, choices, gold = found
    said = re.fullmatch(r"Passage: (.*)\nQuestion: (.*)", query, re.DOTALL)
    if said is None:
        raise BadRow(f"{row.where}: its query is not 'Passage: …', line end, 'Question: …': {query[:80]!r}")
    return said[1], said[2], NAMES.index(choices[gold])


BOOLQ = Task(
    "boolq",
    "BoolQ",
    partial(superglue, folder="BoolQ"),
    ask,
    published="BoolQ",
    shots=32,
    scored_on="dev",
    chosen_on=None,
)
