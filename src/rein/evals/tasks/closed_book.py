"""Questions that are answered from memory: Natural Questions, TriviaQA, WebQuestions.

    Q: Who played tess on touched by an angel?

    A: Roma Downey

Any of the answers that the set's makers took is right, up to case, articles and punctuation. Read from the official
files and from the hub; WebQuestions also as lists of qText and answers.

TriviaQA is its Wikipedia part, whose dev set has the 7,993 questions of Brown 2020, Table C.1.

Source   Brown 2020 §3.2 and Appendix G. GPT-2's Natural Questions, with pairs of question and answer in front and
         greedily: Radford 2019 §3.8; how many pairs is not printed, five here.
Differs  Natural Questions and WebQuestions have no dev set beside the one that is scored (the published test score of
         the first is that of its open-domain dev set), so no K is chosen on one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import HUB_SPLITS, each, files, id_of, one_space, text_in

Names = Mapping[Split, tuple[str, ...]]
_DESCRIPTION = re.compile(r'\(description (?:"([^"]*)"|([^()]*))\)')


def read(names: Names, hub: tuple[str, ...], splits: Mapping[Split, str], data: Data, split: Split) -> Iterable[Row]:
    """JSON lines, a JSON list, or TriviaQA's one object with its rows under "Data"."""
    for row in files(data, split, names, hub=hub, hub_splits=splits):
        yield from [row] if row.get("Data") is None else each(row, "Data")


def ask(row: Row) -> Iterable[Problem]:
    """The question with a capital letter and a question mark, as Appendix G prints it."""
    question = text_in(row, next((name for name in ("Question", "qText", "utterance") if row.get(name)), "question"))
    question = question[0].upper() + question[1:].removesuffix("?").rstrip() + "?"
    answers, id = _answers(row), next((name for name in ("QuestionId", "qId") if row.get(name)), "question_id")
    parts = {"question": question, "answer": answers[0]}
    yield free_form(id_of(row, id), f"Q: {question}\n\nA:", answers, parts=parts)


def _answers(row: Row) -> list[str]:
    given = row[next((name for name in ("answer", "Answer", "targetValue") if row.get(name)), "answers")]
    if isinstance(given, Mapping):  # TriviaQA: the answer, and what else it is called
        given = [given.get("Value", given.get("value")), *(given.get("Aliases", given.get("aliases")) or [])]
    elif isinstance(given, str):  # WebQuestions: (list (description "Jazmyn Bieber") (description Jaxon))
        given = [quoted or bare for quoted, bare in _DESCRIPTION.findall(given)]
    answers = list(dict.fromkeys(one_space(text) for text in given if isinstance(text, str) and text.strip()))
    if not answers:
        raise BadRow(f"{row.where}: it has no answer, but {given!r}")
    return answers


def _task(name: str, title: str, names: Names, hub: tuple[str, ...], splits: Mapping[Split, str]) -> Task:
    reader = partial(read, names, hub, splits)
    return Task(name, title, reader, ask, ("exact_match",), title, "written", shots=64, chosen_on=None)


_NQ: Names = {"train": ("NQ-open.train.jsonl",), "test": ("NQ-open.dev.jsonl",)}
_TRIVIA: Names = {split: (f"wikipedia-{split}.json", f"unfiltered-web-{split}.json") for split in ("train", "dev")}
_WEB: Names = {split: (f"webquestions.examples.{split}.json", f"webquestions/{split}.json", f"main/{split}.json")
               for split in ("train", "test")}  # fmt: skip

NQ = _task("nq", "NQs", _NQ, ("google-research-datasets/nq_open",), {"train": "train", "test": "validation"})
TRIVIAQA = replace(
    _task("triviaqa", "TriviaQA", _TRIVIA, ("mandarjoshi/trivia_qa", "rc.wikipedia.nocontext"), HUB_SPLITS),
    metrics=("em_triviaqa",),
    scored_on="dev",
)
WEBQS = _task("webqs", "WebQs", _WEB, ("stanfordnlp/web_questions",), {"train": "train", "test": "test"})
NQ_GPT2 = replace(NQ, shots=5, decode="greedy")
