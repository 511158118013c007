"""Translation of news between English and French (WMT 2014), German and Romanian (WMT 2016).

    without shots     Q: What is the German translation of In no case may they be used. A: Keinesfalls …

    behind shots      In no case may they be used. = Keinesfalls dürfen diese verwendet werden.
                      A second sentence. = Ein zweiter Satz.

Source   Brown 2020 §3.3 and Appendix G; Radford 2019 §3.7, "english sentence = french sentence" greedily.
Differs  Whether one line end or two part the shots is not printed; one, as in the released word puzzles of that form.
         How many pairs GPT-2 had in front is not printed; five here.
"""

import html
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from rein.errors import UserError
from rein.evals.data import Data, Row, hub_rows, rows, text_of
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import HUB_SPLITS, id_of, text_in, within
from rein.evals.tasks.summarisation import first_sentences

LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}
TEST = {"14": "newstest2014", "16": "newstest2016"}
DEV = {"fr": "newstest2013", "de": "newstest2015", "ro": "newsdev2016"}


def read(source: str, target: str, year: str, data: Data, split: Split) -> Iterable[Row]:
    """Pairs of lines: WMT's .sgm files, plain text (`newstest2014.en` and `.fr`), JSON lines, or the hub."""
    other = target if source == "en" else source
    if data.from_hub:
        return hub_rows((f"wmt/wmt{year}", f"{other}-en"), HUB_SPLITS[split])
    stem = {"train": "train", "dev": DEV[other], "test": TEST[year]}[split]
    known = [
        (f"{stem}-{pair}-src.{source}.sgm", f"{stem}-{pair}-ref.{target}.sgm") for pair in (other + "en", "en" + other)
    ]
    known += [(f"{name}.{source}", f"{name}.{target}") for name in (f"{other}-en/{stem}", f"{stem}.{other}-en", stem)]
    for names in known:
        ours, theirs = (data.find(name) for name in names)
        if ours and theirs:
            sides = [_lines(text_of(path), path.name) for path in (ours, theirs)]
            if len(sides[0]) != len(sides[1]):
                raise UserError(
                    f"{ours} has {len(sides[0])} lines, {theirs} {len(sides[1])}.", "Give files that match."
                )
            pairs = enumerate(zip(*sides, strict=True), 1)
            return (Row({"translation": {source: one, target: two}}, f"{ours}:{n}") for n, (one, two) in pairs)
    return rows(data.need(f"{other}-en/{stem}.jsonl", *(name for names in known for name in names)))


def _lines(text: str, name: str) -> list[str]:
    if ".sgm" in name:
        return [html.unescape(segment).strip() for segment in re.findall(r"(?s)<seg\b[^>]*>(.*?)</seg>", text)]
    return text.removesuffix("\n").split("\n")


def ask_pairs(source: str, target: str, row: Row) -> Iterable[Problem]:
    """The sentence and an equals sign."""
    pair = within(row, "translation")
    sentence, translation = text_in(pair, source), text_in(pair, target)
    parts = {"passage": sentence, "answer": translation, "language": target}
    yield free_form(id_of(row), f"{sentence} =", [translation], parts=parts)


def ask(source: str, target: str, row: Row) -> Iterable[Problem]:
    """The same, and without shots a question."""
    for problem in ask_pairs(source, target, row):
        question = f"Q: What is the {LANGUAGES[target]} translation of {problem.parts['passage']} A:"
        yield replace(problem, alone=replace(problem, prompt=question, shot=f"{question} {problem.answers[0]}"))


def _task(source: str, target: str, year: str) -> Task:
    title = f"{source.title()}-{target.title()} {year}"
    return Task(
        f"{source}_{target}_{year}", title, partial(read, source, target, year), partial(ask, source, target),
        ("bleu_sb", "bleu_mb"), title, "written", shots=64, separator="\n", max_new_tokens=128,
    )  # fmt: skip


EN_FR, FR_EN = _task("en", "fr", "14"), _task("fr", "en", "14")
EN_DE, DE_EN = _task("en", "de", "16"), _task("de", "en", "16")
EN_RO, RO_EN = _task("en", "ro", "16"), _task("ro", "en", "16")
_GPT2: dict[str, Any] = {"shots": 5, "decode": "greedy", "cut": partial(first_sentences, n=1)}
EN_FR_GPT2 = replace(EN_FR, ask=partial(ask_pairs, "en", "fr"), **_GPT2)
FR_EN_GPT2 = replace(FR_EN, ask=partial(ask_pairs, "fr", "en"), **_GPT2)
