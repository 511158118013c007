"""Winograd's schemas: a pronoun stands for one of two nouns. 273 of them, in one set.

    partial   Grace was happy to trade me her sweater for my jacket. She thinks the sweater looks dowdy on her.
              Grace was happy to trade me her sweater for my jacket. She thinks the jacket looks dowdy on her.

Each noun stands in the pronoun's place. Partial scoring asks how likely the rest of the sentence is behind each; full
scoring, how likely each whole text is. There is one set: shots come from it, never the problem itself. The files that
can be read: winograd_files.py.

Source   Brown 2020, Appendix G, figure G.13; §3.4. Radford 2019 §3.4. Trinh & Le 2018: the two ways of scoring.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile

from rein.evals.data import Row
from rein.evals.task import Option, Problem, Task
from rein.evals.tasks.reading import id_of
from rein.evals.tasks.winograd_files import parted, read


def ask(row: Row) -> Iterable[Problem]:
    """One schema, scored in part."""
    yield schema(id_of(row), *parted(row))


def ask_full(row: Row) -> Iterable[Problem]:
    """One schema, scored as a whole."""
    for problem in ask(row):
        whole = tuple(Option("", option.context + option.completion) for option in problem.options)
        yield replace(problem, options=whole)


def schema(id: str, contexts: list[str], rest: str, gold: int) -> Problem:
    """A schema as a problem; those about the same two nouns are twins, and not independent."""
    words = [context.split(" ") for context in contexts]
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*words, strict=False))))
    twins = " or ".join(" ".join(each[same:]) for each in words)
    options = tuple(Option(context, rest) for context in contexts)
    whole = contexts[gold] + rest
    return Problem(id, shot=whole, options=options, gold=gold, passage=twins, parts={"question": whole})


WINOGRAD = Task("winograd", "Winograd", read, ask, published="Winograd", shots=7, shots_from="test", chosen_on=None)
PARTIAL = replace(WINOGRAD, name="winograd_partial", title="Winograd, partial scoring", shots=0)
FULL = replace(
    PARTIAL, name="winograd_full", title="Winograd, full scoring", ask=ask_full, normalise="none", published=""
)
