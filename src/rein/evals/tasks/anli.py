"""ANLI: does a sentence follow from a text? Written by people so that models err, in three rounds.

    anli 2: anli 2: The Gold Coast Hotel & Casino is a hotel and casino located in Paradise, Nevada. …
    Question: The Gold Coast is a budget-friendly casino. True, False, or Neither? Neither

Read from the official files (anli_v1.0/R1/test.jsonl …), and from the hub.

Source   Brown 2020, Appendix G, figures G.2, G.7 and G.10 (the round stands there twice). Nie 2019.
"""

from collections.abc import Iterable
from functools import partial

from rein.evals.data import Data, Row
from rein.evals.task import Problem, Split, Task, multiple_choice
from rein.evals.tasks.reading import files, id_of, label_of, text_in

LABELS = ("e", "n", "c")  # entailment, neutral, contradiction; the hub numbers them so
NAMES = ("True", "Neither", "False")


def read(number: int, data: Data, split: Split) -> Iterable[Row]:
    """The rows of one round."""
    names: dict[Split, tuple[str, ...]] = {
        name: (f"R{number}/{name}.jsonl", f"anli/{name}_r{number}.jsonl") for name in ("train", "dev", "test")
    }
    hub_splits: dict[Split, str] = {name: f"{name}_r{number}" for name in names}
    return files(data, split, names, hub=("facebook/anli",), hub_splits=hub_splits)


def ask(number: int, row: Row) -> Iterable[Problem]:
    """One problem."""
    premise = text_in(row, "context" if row.get("context") is not None else "premise")
    hypothesis = text_in(row, "hypothesis")
    context = f"anli {number}: anli {number}: {premise}\nQuestion: {hypothesis} True, False, or Neither?"
    parts = {"passage": premise, "question": hypothesis}
    gold = label_of(row, LABELS)
    yield multiple_choice(id_of(row, "uid"), context, NAMES, gold, passage=premise, parts=parts)


def _task(number: int) -> Task:
    title, read_round, ask_round = f"ANLI R{number}", partial(read, number), partial(ask, number)
    return Task(f"anli_r{number}", title, read_round, ask_round, published=title, shots=50)


R1 = _task(1)
R2 = _task(2)
R3 = _task(3)
