"""QuAC: a student asks about a section of an article of which only its title is known to them.

    TITLE: William Perry (American football) - Professional career
    PARAGRAPH: In 1985, he was selected in the first round of the 1985 NFL Draft by the Chicago Bears …

    Q: what team did he play for?

    A: the Chicago Bears

A question is asked behind the earlier ones with their right answers. As a shot, a section stands with all of its
questions, and counts for so many. What the section does not tell is answered by the set's own word, CANNOTANSWER.

Source   Brown 2020 §3.6 and Appendix G. Choi 2018.
"""

from collections.abc import Iterable
from dataclasses import replace

from rein.evals.data import Data, Row
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import each, files, id_of, text_in, within
from rein.evals.text_match import NO_ANSWER

HUB = ("allenai/quac",)
NAMES: dict[Split, tuple[str, ...]] = {"train": ("train_v0.2.json",), "dev": ("val_v0.2.json",)}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The sections, each with its dialogue."""
    for row in files(data, split, NAMES, hub=HUB, hub_splits={"train": "train", "dev": "validation"}):
        yield from [row] if row.get("data") is None else each(row, "data")


def ask(row: Row) -> Iterable[Problem]:
    """A problem for each question of the dialogue."""
    title = text_in(row, "wikipedia_page_title" if row.get("title") is None else "title")
    titled = f"{title} - {text_in(row, 'section_title')}"
    for part in [row] if row.get("paragraphs") is None else each(row, "paragraphs"):
        passage, id = text_in(part, "context").removesuffix(NO_ANSWER).rstrip(), _id(part)
        asked, problems = f"TITLE: {titled}\nPARAGRAPH: {passage}", []
        for turn, (question, own, answers) in enumerate(_turns(part), 1):
            asked += f"\n\nQ: {question}\n\nA:"
            parts = {"passage": passage, "question": question, "answer": own}
            problems.append(free_form(f"{id}/{turn}", asked, answers, passage=id, parts=parts))
            asked += f" {own}"
        yield from (replace(problem, shot=asked, counts=len(problems)) for problem in problems)


def _id(row: Row) -> str:
    return id_of(row, "id" if row.get("dialogue_id") is None else "dialogue_id")


def _turns(row: Row) -> Iterable[tuple[str, str, list[str]]]:
    """Each question with the teacher's answer, and with those of all people, repeated where people agree."""
    if row.get("qas") is None:
        own, everybody = each(within(row, "orig_answers"), "texts"), each(within(row, "answers"), "texts")
        for question, one, all_of_it in zip(each(row, "questions"), own, everybody, strict=True):
            yield question.values, one.values, list(all_of_it.values) or [one.values]
        return
    for qa in each(row, "qas"):
        answers = [text_in(answer, "text") for answer in each(qa, "answers")]
        own_answer = qa.get("orig_answer", {}).get("text") or answers[0]
        yield text_in(qa, "question"), own_answer, answers


QUAC = Task("quac", "QuAC", read, ask, ("f1_quac",), "QuAC", "written", shots=5, scored_on="dev",
            chosen_on=None, max_new_tokens=64)  # fmt: skip
