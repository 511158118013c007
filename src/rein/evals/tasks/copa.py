"""COPA: which of two sentences is the cause, or the effect, of a first?

    My body cast a shadow over the grass because the sun was rising.

"because" asks for a cause, "therefore" for an effect. Scored on dev: SuperGLUE keeps the test answers. Read from
SuperGLUE's files, from query/choices/gold, and from the hub.

Source   Brown 2020, Appendix G, figure G.5. Roemmele 2011; Wang 2019.
"""

import re
from collections.abc import Iterable
from functools import partial

from rein.evals.data import Row
from rein.evals.task import Problem, Task, multiple_choice
from rein.evals.tasks.reading import gauntlet, gold_of, id_of, label_of, options_of, superglue, text_in

WORDS = {"cause": "because", "effect": "therefore"}


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    premise, choices, gold = gauntlet(row) or _official(row)
    premise = re.sub(r",? (because|therefore)$", r" \1", premise)  # llm-foundry puts a comma in front
    choices = [_small(choice) for choice in choices]
    yield multiple_choice(id_of(row), premise, choices, gold, parts={"question": premise, "answer": choices[gold]})


def _official(row: Row) -> tuple[str, list[str], int]:
    word = WORDS[list(WORDS)[gold_of(row, row["question"], tuple(WORDS))]]
    choices = options_of(row, [row["choice1"], row["choice2"]])
    return f"{text_in(row, 'premise').rstrip('.')} {word}", choices, label_of(row, ("0", "1"))


def _small(sentence: str) -> str:
    """A sentence as it goes on behind "because": with a small letter, unless it speaks of "I"."""
    word = sentence.split()[0]
    small = sentence[0].lower() + sentence[1:]
    return "I" + sentence[1:] if word.split("'")[0].lower() == "i" else small


COPA = Task(
    "copa",
    "COPA",
    partial(superglue, folder="COPA"),
    ask,
    published="COPA",
    shots=32,
    scored_on="dev",
    chosen_on=None,
)
