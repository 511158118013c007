"""CoQA: a conversation about a passage.

    Helsinki is the capital and largest city of Finland. …

    Q: what is the most populous municipality in Finland?

    A: Helsinki

    Q: how many people live there?

    A: 1.4 million in 2014

A question is asked behind the earlier ones with their right answers. As a shot, a passage stands with all of its
questions, and counts for so many. Any annotator's answer is right, by the words that are shared.

Source   Brown 2020 §3.6 and Appendix G; Radford 2019 §3.5, greedily and without shots. Reddy 2019.
"""

from collections.abc import Iterable
from dataclasses import replace

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import each, files, id_of, text_in, within

HUB = ("stanfordnlp/coqa",)
NAMES: dict[Split, tuple[str, ...]] = {"train": ("coqa-train-v1.0.json",), "dev": ("coqa-dev-v1.0.json",)}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The stories, each with its conversation."""
    for row in files(data, split, NAMES, hub=HUB, hub_splits={"train": "train", "dev": "validation"}):
        yield from [row] if row.get("data") is None else each(row, "data")


def ask(row: Row) -> Iterable[Problem]:
    """A problem for each question of the conversation."""
    story, id = text_in(row, "story"), id_of(row, "id")
    questions, answers = _texts(row, "questions"), _texts(row, "answers")
    more = within(row, "additional_answers") if row.get("additional_answers") else Row({}, row.where)
    annotators = [answers, *(_texts(more, who) for who in more.values)]
    if any(len(texts) != len(questions) for texts in annotators):
        raise BadRow(f"{row.where}: {len(questions)} questions have {[len(texts) for texts in annotators]} answers")
    asked, problems = story, []
    for turn, (question, right) in enumerate(zip(questions, zip(*annotators, strict=True), strict=True), 1):
        asked += f"\n\nQ: {question}\n\nA:"
        parts = {"passage": story, "question": question, "answer": right[0]}
        problems.append(free_form(f"{id}/{turn}", asked, right, passage=id, parts=parts))
        asked += f" {right[0]}"
    return [replace(problem, shot=asked, counts=len(problems)) for problem in problems]


def _texts(row: Row, name: str) -> list[str]:
    """The turns of a conversation; the hub has lists of texts where the file has lists of objects."""
    if isinstance(row[name], dict):
        row, name = within(row, name), "input_text"
    return [text_in(turn, "input_text") if isinstance(turn.values, dict) else turn.values for turn in each(row, name)]


COQA = Task("coqa", "CoQA", read, ask, ("f1_coqa",), "CoQA", "written", shots=5, scored_on="dev", chosen_on=None)
GPT2 = replace(COQA, shots=0, decode="greedy")
