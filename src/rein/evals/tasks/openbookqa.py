"""OpenBookQA: elementary science, asked without the book; the bare question, then the answer.

    Organisms require energy in order to do what? mature and develop.

The likelihood of each answer is divided by its likelihood behind "Answer:" alone. Read from AI2's files, from
query/choices/gold, and from the hub.

Source   Brown 2020, Appendix G, figure G.8; §2.4. Mihaylov 2018.
"""

from collections.abc import Iterable

from rein.evals.data import Data, Row
from rein.evals.task import Problem, Split, Task, multiple_choice
from rein.evals.tasks.arc import ai2
from rein.evals.tasks.reading import files, gauntlet, id_of

HUB = ("allenai/openbookqa", "main")
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("OpenBookQA-V1-Sep2018/Data/Main/train.jsonl", "openbookqa/train.jsonl", "open_book_qa_train.jsonl"),
    "dev": ("OpenBookQA-V1-Sep2018/Data/Main/dev.jsonl", "openbookqa/dev.jsonl", "open_book_qa_dev.jsonl"),
    "test": ("OpenBookQA-V1-Sep2018/Data/Main/test.jsonl", "openbookqa/test.jsonl", "openbook_qa.jsonl"),
}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The rows of OpenBookQA."""
    return files(data, split, NAMES, hub=HUB)


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    stem, options, gold = gauntlet(row) or ai2(row)
    yield multiple_choice(id_of(row, "id"), stem, options, gold, parts={"question": stem, "answer": options[gold]})


OPENBOOKQA = Task(
    "openbookqa",
    "OpenBookQA",
    read,
    ask,
    shots=100,
    normalise="answer",
    published="OpenBookQA",
)
