"""Winogrande: schemas like Winograd's, harder, with a blank for the pronoun.

    Johnny likes fruits more than vegetables in his new keto diet because the fruits are saccharine.
    Johnny likes fruits more than vegetables in his new keto diet because the vegetables are saccharine.

How likely is what follows the blank, behind each noun? Scored on dev, for the answers to the test set are not
published. Read from AI2's files, from llm-foundry's context_options, and from the hub.

Source   Brown 2020, Appendix G, figure G.14. Sakaguchi 2019.
"""

from collections.abc import Iterable
from dataclasses import replace

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Split, Task
from rein.evals.tasks import winograd
from rein.evals.tasks.reading import files, gold_of, id_of, options_of, text_in

HUB = ("allenai/winogrande", "winogrande_xl")
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("winogrande_1.1/train_xl.jsonl", "winogrande/train_xl.jsonl", "winogrande_train.jsonl"),
    "dev": ("winogrande_1.1/dev.jsonl", "winogrande/dev.jsonl", "winogrande.jsonl"),
}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The rows of Winogrande."""
    return files(data, split, NAMES, hub=HUB)


def ask(row: Row) -> Iterable[Problem]:
    """One schema."""
    if row.get("context_options") is not None:
        yield from winograd.ask(row)
        return
    sentence = text_in(row, "sentence")
    before, blank, rest = sentence.partition("_")
    if not blank or not rest:
        raise BadRow(f"{row.where}: its sentence has no blank (_) with something behind it: {sentence!r}")
    contexts = [before + noun for noun in options_of(row, [row["option1"], row["option2"]])]
    problem = winograd.schema(id_of(row, "qID"), contexts, rest, gold_of(row, str(row["answer"]), ("1", "2")))
    twins = str(row.get("qID", "")).rpartition("-")[0]  # "3QI-1" and "3QI-2" are one pair
    yield replace(problem, passage=twins or problem.passage)


WINOGRANDE = Task(
    "winogrande", "Winogrande", read, ask, published="Winogrande", shots=50, scored_on="dev", chosen_on=None
)
