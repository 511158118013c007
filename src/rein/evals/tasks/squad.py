"""SQuAD 2.0: questions about a paragraph of Wikipedia, half of which it does not answer.

    Title: The Blitz

    Background: From the German point of view, March 1941 saw an improvement. …

    Q: How many sorties were flown in March 1941?

    A: 4,000

    Q: When did the Luftwaffe fly inland missions?

    A: only on moonlit nights

A question is asked behind the paragraph's earlier ones with their right answers. As a shot, a paragraph stands with all
of its questions, and counts for so many.

Source   Brown 2020 §3.6 and Appendix G. Rajpurkar 2018.
Differs  How a question without an answer is answered is not printed; "N/A" here.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from rein.evals.data import Data, Row, hub_rows
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import HUB_SPLITS, each, files, id_of, text_in

HUB = ("rajpurkar/squad_v2",)
NAMES: dict[Split, tuple[str, ...]] = {"train": ("train-v2.0.json",), "dev": ("dev-v2.0.json",)}
UNANSWERED = "N/A"


def read(data: Data, split: Split) -> Iterable[Row]:
    """The paragraphs, each with its title and all of its questions."""
    if data.from_hub:
        for context, found in groupby(hub_rows(HUB, HUB_SPLITS[split]), lambda row: row["context"]):
            rows = list(found)
            qas = [{**row.values, "answers": [{"text": text} for text in row["answers"]["text"]]} for row in rows]
            yield Row({"title": rows[0]["title"], "context": context, "qas": qas}, rows[0].where)
        return
    for file in files(data, split, NAMES):
        for article in each(file, "data"):
            for number, paragraph in enumerate(each(article, "paragraphs"), 1):
                yield Row({**paragraph.values, "title": article["title"]}, f"{file.where}:{article['title']}:{number}")


def ask(row: Row) -> Iterable[Problem]:
    """A problem for each question about the paragraph."""
    passage, id = text_in(row, "context"), id_of(row)
    asked, problems = f"Title: {text_in(row, 'title').replace('_', ' ')}\n\nBackground: {passage}", []
    for qa in each(row, "qas"):
        asked += f"\n\nQ: {text_in(qa, 'question')}\n\nA:"
        answers = list(dict.fromkeys(text_in(answer, "text") for answer in each(qa, "answers"))) or [UNANSWERED]
        parts = {"passage": passage, "question": text_in(qa, "question"), "answer": answers[0]}
        problems.append(free_form(id_of(qa, "id"), asked, answers, passage=id, parts=parts))
        asked += f" {answers[0]}"
    return [replace(problem, shot=asked, counts=len(problems)) for problem in problems]


SQUAD = Task("squad_v2", "SQuADv2", read, ask, ("f1_squad", "em_squad"), "SQuADv2", "written", shots=16,
             scored_on="dev", chosen_on=None)  # fmt: skip
