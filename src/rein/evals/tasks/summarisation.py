"""Summaries of news (CNN and Daily Mail), asked for with the words that people put before one.

    <article>
    TL;DR:

Sampled from the two likeliest tokens, 100 of them; the first three sentences are the summary.

Source   Radford 2019 §3.6.
Differs  What stands between the article and "TL;DR:" is not printed; a line end here. Nor is what becomes of articles
         that are longer than the context; they lose their end here.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from rein.evals.data import Data, Row, rows
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import files, id_of, text_in

HINT = "\nTL;DR:"
HUB = ("abisee/cnn_dailymail", "3.0.0")
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("cnn_dailymail/train.csv", "cnn_dailymail/train.jsonl"),
    "dev": ("cnn_dailymail/validation.csv", "cnn_dailymail/validation.jsonl"),
    "test": ("cnn_dailymail/test.csv", "cnn_dailymail/test.jsonl"),
}


def read(data: Data, split: Split) -> Iterable[Row]:
    """Articles with their highlights; also as two files of lines, `test.source` and `test.target`."""
    part = "val" if split == "dev" else split
    sides = None if data.from_hub else (data.find(f"{part}.source"), data.find(f"{part}.target"))
    if sides and all(sides):
        pairs = enumerate(zip(*(rows(path) for path in sides if path), strict=True), 1)
        return (Row({"article": a.values, "highlights": b.values}, f"{sides[0]}:{n}") for n, (a, b) in pairs)
    return files(data, split, NAMES, hub=HUB)


def ask(row: Row) -> Iterable[Problem]:
    """The article and TL;DR:."""
    article, summary = text_in(row, "article"), text_in(row, "highlights")
    parts = {"passage": article, "answer": summary}
    yield free_form(id_of(row, "id"), f"{article}{HINT}", [summary], tail=HINT, parts=parts)


def ask_without_hint(row: Row) -> Iterable[Problem]:
    """The article alone; one that is too long loses its end, and nothing is put in its place."""
    for problem in ask(row):
        article, summary = problem.parts["passage"], problem.parts["answer"]
        yield replace(problem, prompt=article, shot=f"{article}\n{summary}", tail="")


def first_sentences(text: str, n: int = 3) -> str:
    """The beginning of a text, up to so many sentences, one a line.

    Example  >>> first_sentences("One. Two! Three? Four.", 2)
             'One.\\nTwo!'
    """
    sentences = [part.strip() for part in re.split(r'(?<=[.!?])\s+|(?<=[.!?]["”’)])\s+|\n+', text) if part.strip()]
    return "\n".join(sentences[:n])


TLDR = Task("cnn_dm", "CNN/DM", read, ask, ("rouge_average", "rouge1", "rouge2", "rougeL"), "CNN/DM", "written",
            chosen_on=None, max_new_tokens=100, stop="", decode="top2", cut=first_sentences)  # fmt: skip
NO_HINT = replace(TLDR, name="cnn_dm_no_hint", title="CNN/DM, no hint", ask=ask_without_hint, published="")
