"""PIQA: which of two ways reaches a goal? The bare goal, then the way.

    How to apply sealant to wood. Using a brush, brush on sealant onto wood until it is fully saturated with the
    sealant.

Scored on dev, for the answers to the test set are not published. The official files keep the answers in a file of
their own beside the goals. Read from those, from query/choices/gold, and from the hub.

Source   Brown 2020, Appendix G, figure G.4. Bisk 2019.
"""

from collections.abc import Iterable

from rein.errors import UserError
from rein.evals.data import Data, Row, rows
from rein.evals.task import Problem, Split, Task, multiple_choice
from rein.evals.tasks.reading import files, gauntlet, id_of, label_of, options_of, text_in

HUB = ("ybisk/piqa",)
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("physicaliqa-train-dev/train.jsonl", "piqa/train.jsonl", "piqa_train.jsonl"),
    "dev": ("physicaliqa-train-dev/dev.jsonl", "piqa/dev.jsonl", "piqa/valid.jsonl", "piqa.jsonl"),
}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The rows of PIQA, each with its answer."""
    found = files(data, split, NAMES, hub=HUB)
    path = None if data.from_hub else data.need(*NAMES[split])
    labels = path and path.with_name(path.name.replace(".jsonl", "-labels.lst"))
    if not labels or not labels.exists():
        return found
    goals, answers = list(found), [str(row.values).strip() for row in rows(labels)]
    if len(goals) != len(answers):
        raise UserError(f"{path} has {len(goals)} rows, but {labels.name} {len(answers)}.", "Take both from one place.")
    return [
        Row({**goal.values, "label": answer}, goal.where) if isinstance(goal.values, dict) else goal
        for goal, answer in zip(goals, answers, strict=True)
    ]


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    goal, ways, gold = gauntlet(row) or (
        text_in(row, "goal"),
        options_of(row, [row["sol1"], row["sol2"]]),
        label_of(row, ("0", "1")),
    )
    goal = goal.removeprefix("Question: ")
    yield multiple_choice(id_of(row), goal, ways, gold, parts={"question": goal, "answer": ways[gold]})


PIQA = Task("piqa", "PIQA", read, ask, published="PIQA", shots=50, scored_on="dev", chosen_on=None)
