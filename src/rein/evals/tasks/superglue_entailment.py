"""CB and RTE: does a sentence follow from a text?

    CB    The trend toward lower rents may seem surprising … the recent drop in prices doesn't mean Manhattan comes
          cheap.
          question: Manhattan comes cheap. true, false, or neither?
          answer: false

    RTE   The bet, which won him dinner for four, was regarding the existence and mass of the top quark, …
          question: The Top Quark is the last of six flavors of quarks predicted by … particle physics. True or False?
          answer: False

Scored on dev: SuperGLUE keeps the test answers. Read from SuperGLUE's files, and from the hub.

Choosing among three names can hardly give the 0 % that the paper prints for CB, its smallest model and no shots;
having the answer written can.

Source   Brown 2020, Appendix G, figures G.30 and G.31; §3.7. Wang 2019.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from rein.evals.data import Row
from rein.evals.task import Problem, Task, multiple_choice
from rein.evals.tasks.reading import id_of, label_of, superglue, text_in

CB_LABELS = {"entailment": "true", "contradiction": "false", "neutral": "neither"}  # in the hub's order
RTE_LABELS = {"entailment": "True", "not_entailment": "False"}


def ask_cb(row: Row) -> Iterable[Problem]:
    """A problem of CB, whose sentences have no full stop of their own."""
    hypothesis = text_in(row, "hypothesis").rstrip(".")
    yield _ask(row, hypothesis, f"question: {hypothesis}. true, false, or neither?", CB_LABELS)


def ask_rte(row: Row) -> Iterable[Problem]:
    """A problem of RTE."""
    hypothesis = text_in(row, "hypothesis")
    yield _ask(row, hypothesis, f"question: {hypothesis} True or False?", RTE_LABELS)


def _ask(row: Row, hypothesis: str, question: str, labels: dict[str, str]) -> Problem:
    premise = text_in(row, "premise")
    context, names = f"{premise}\n{question}\nanswer:", tuple(labels.values())
    parts = {"passage": premise, "question": hypothesis}
    gold = label_of(row, tuple(labels))
    return multiple_choice(id_of(row), context, names, gold, passage=premise, parts=parts)


CB = Task(
    "cb",
    "CB",
    partial(superglue, folder="CB"),
    ask_cb,
    ("accuracy", "macro_f1"),
    published="CB",
    shots=32,
    scored_on="dev",
    chosen_on=None,
)
RTE = replace(
    CB,
    name="rte",
    title="RTE",
    read=partial(superglue, folder="RTE"),
    ask=ask_rte,
    metrics=("accuracy",),
    published="RTE",
)
