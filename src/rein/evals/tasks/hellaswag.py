"""HellaSwag: how does it go on? The activity, what happened, and one of four endings.

    Making a cake: Several cake pops are shown on a display. A woman and girl are shown making the cake pops in a
    kitchen. They bake them, then frost and decorate.

Scored on dev, for the answers to the test set are not published. Read from the official files, from
query/choices/gold, and from the hub.

Source   Brown 2020, Appendix G, figure G.9. Zellers 2019.
Differs  The paper does not say what becomes of WikiHow's marks ("[header]", "[step]"); here they are left out.
"""

import re
from collections.abc import Iterable

from rein.evals.data import Data, Row
from rein.evals.task import Problem, Split, Task, multiple_choice
from rein.evals.tasks.reading import files, gauntlet, id_of, label_of, one_space, options_of, text_in

HUB = ("Rowan/hellaswag",)
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("hellaswag_train.jsonl", "hellaswag/train.jsonl"),
    "dev": ("hellaswag_val.jsonl", "hellaswag/val.jsonl", "hellaswag.jsonl"),
}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The rows of HellaSwag."""
    return files(data, split, NAMES, hub=HUB)


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    context, endings, gold = gauntlet(row) or _official(row)
    passage = str(row.get("source_id", ""))  # several rows may be cut from one video or article
    parts = {"question": context, "answer": endings[gold]}
    yield multiple_choice(id_of(row), context, endings, gold, passage=passage, parts=parts)


def _official(row: Row) -> tuple[str, list[str], int]:
    begun = one_space(row.get("ctx_b", ""))  # how each ending begins: "they"
    context = f"{text_in(row, 'ctx_a')} {begun[:1].upper()}{begun[1:]}"
    context = without_marks(f"{text_in(row, 'activity_label')}: {context}")
    endings = [without_marks(ending) for ending in options_of(row, row["endings"])]
    return context, options_of(row, endings), label_of(row, [str(number) for number in range(len(endings))])


def without_marks(text: str) -> str:
    """The text without WikiHow's marks.

    Example  >>> without_marks("Clean it. [title] Wipe [step] Take a cloth.")
             'Clean it. Wipe. Take a cloth.'
    """
    text = re.sub(r"(?<![.!?:]) \[(title|step)\] ", ". ", text)  # a title ends without a full stop
    return one_space(re.sub(r"\[[a-z]+\] ?", "", text))


HELLASWAG = Task("hellaswag", "HellaSwag", read, ask, published="HellaSwag", shots=20, scored_on="dev", chosen_on=None)
