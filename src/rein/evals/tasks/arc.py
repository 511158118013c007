"""ARC: questions of American school exams in science, Easy and Challenge.

    Question: George wants to warm his hands quickly by rubbing them. Which skin surface will produce the most heat?
    Answer: dry palms

The likelihood of each answer is divided by its likelihood behind "Answer:" alone. Read from AI2's files, from columns
without a header (question, four options, letter), from query/choices/gold, and from the hub.

Source   Brown 2020, Appendix G, figures G.11 and G.16; §2.4. Clark 2018.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Split, Task, multiple_choice
from rein.evals.tasks.reading import each, files, gauntlet, gold_of, id_of, one_space, options_of, text_in, within


def read(level: str, data: Data, split: Split) -> Iterable[Row]:
    """The rows of ARC's Easy or Challenge part."""
    official, short, hub = f"ARC-{level}", f"arc_{level.lower()}", f"ARC-{level}"
    names: dict[Split, tuple[str, ...]] = {
        "train": (f"{official}-Train.jsonl", f"{short}_train.jsonl", f"arc/{level}_train.csv"),
        "dev": (f"{official}-Dev.jsonl", f"{short}_dev.jsonl", f"arc/{level}_dev.csv"),
        "test": (f"{official}-Test.jsonl", f"{short}.jsonl", f"arc/{level}_test.csv"),
    }
    return files(data, split, names, hub=("allenai/ai2_arc", hub), header=False)


def ask(row: Row) -> Iterable[Problem]:
    """One problem; none, but BadRow, of a row whose options were lost."""
    question, options, gold = gauntlet(row) or (_columns(row) if isinstance(row.values, list) else ai2(row))
    question = question.removeprefix("Question: ")
    parts = {"question": question, "answer": options[gold]}
    yield multiple_choice(id_of(row, "id"), f"Question: {question}\nAnswer:", options, gold, parts=parts)


def ai2(row: Row) -> tuple[str, list[str], int]:
    """Question, options and the right one of a row as AI2 or the hub writes it."""
    if isinstance(row.get("choices"), dict):  # the hub keeps texts and labels apart
        question = text_in(row, "question_stem" if row.get("question_stem") else "question")
        texts, labels = within(row, "choices")["text"], within(row, "choices")["label"]
    else:
        question = text_in(within(row, "question"), "stem")
        choices = each(within(row, "question"), "choices")
        texts, labels = [choice["text"] for choice in choices], [choice["label"] for choice in choices]
    return question, options_of(row, texts), gold_of(row, row["answerKey"], labels)


def _columns(row: Row) -> tuple[str, list[str], int]:
    if len(row.values) < 4 or not all(isinstance(cell, str) for cell in row.values):
        raise BadRow(f"{row.where}: a row has a question, its options and the right letter, not {row.values!r}")
    question, *cells, key = row.values
    options = [cell for cell in cells if cell.strip()]  # some have three, and a blank fourth
    if not options:
        raise BadRow(f"{row.where}: its options are lost")
    return one_space(question), options_of(row, options), gold_of(row, key, "ABCDE"[: len(options)])


def _task(name: str, level: str, **more: Any) -> Task:
    return Task(name, f"ARC-{level}", partial(read, level), ask, shots=50, normalise="answer", **more)


EASY = _task("arc_easy", "Easy", published="ARC-Easy")
CHALLENGE = _task("arc_challenge", "Challenge", published="ARC-Challenge")
