"""WiC: does a word mean the same in two sentences?

    An outfitter provided everything needed for the safari.
    Before his first walking holiday, he went to a specialist outfitter to buy some boots.
    question: Is the word 'outfitter' used in the same way in the two sentences above?
    answer: no

Scored on dev: SuperGLUE keeps the test answers. Read from SuperGLUE's files, and from the hub.

Choosing between yes and no cannot give the 0 % that the paper prints for every size and no shots; having the answer
written can.

Source   Brown 2020, Appendix G, figure G.32; §3.7. Pilehvar 2018.
"""

from collections.abc import Iterable
from functools import partial

from rein.evals.data import Row
from rein.evals.task import Problem, Task, multiple_choice
from rein.evals.tasks.reading import id_of, label_of, superglue, text_in

QUESTION = "question: Is the word '{}' used in the same way in the two sentences above?"


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    sentences = f"{text_in(row, 'sentence1')}\n{text_in(row, 'sentence2')}"
    context = f"{sentences}\n{QUESTION.format(text_in(row, 'word'))}\nanswer:"
    gold = label_of(row, ("false", "true"))
    yield multiple_choice(id_of(row), context, ("no", "yes"), gold, parts={"question": sentences})


WIC = Task(
    "wic",
    "WiC",
    partial(superglue, folder="WiC"),
    ask,
    published="WiC",
    shots=32,
    scored_on="dev",
    chosen_on=None,
)
