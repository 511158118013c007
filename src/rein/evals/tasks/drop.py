"""DROP: questions whose answers take counting, comparing and reckoning with what a passage tells.

    Passage: Saint Jean de Brébeuf was a French Jesuit missionary who travelled to New France in 1625. …
    Question: How many years did Saint Jean de Brébeuf stay in New France before he went back to France?
    Answer: 4

An answer is a number, a date ("15 May 1948"), or spans of the passage, parted by semicolons.

Source   Brown 2020 §3.6 and Appendix G. Dua 2019.
"""

from collections.abc import Iterable

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import each, files, id_of, text_in, within
from rein.evals.text_match import SPAN_SEPARATOR

HUB = ("ucinlp/drop",)
NAMES: dict[Split, tuple[str, ...]] = {"train": ("drop_dataset_train.json",), "dev": ("drop_dataset_dev.json",)}


def read(data: Data, split: Split) -> Iterable[Row]:
    """The passages with their questions; of the hub, one question a row."""
    for row in files(data, split, NAMES, hub=HUB, hub_splits={"train": "train", "dev": "validation"}):
        if row.get("section_id") is not None or not isinstance(row.values, dict):
            yield row
        else:
            yield from (Row(entry, f"{row.where}:{name}") for name, entry in row.values.items())


def ask(row: Row) -> Iterable[Problem]:
    """A problem for each question about the passage."""
    passage = text_in(row, "passage")
    id = str(row.get("section_id", row.where.rpartition(":")[2]))
    for qa in [row] if row.get("qa_pairs") is None else each(row, "qa_pairs"):
        question, answers = text_in(qa, "question"), _answers(qa)
        prompt = f"Passage: {passage}\nQuestion: {question}\nAnswer:"
        parts = {"passage": passage, "question": question, "answer": answers[0]}
        yield free_form(id_of(qa, "query_id"), prompt, answers, passage=id, parts=parts)


def _answers(row: Row) -> list[str]:
    """The answer and those of the people who checked it."""
    if row.get("answers_spans") is not None:
        return [SPAN_SEPARATOR.join(dict.fromkeys(within(row, "answers_spans")["spans"]))]
    checked = each(row, "validated_answers") if row.get("validated_answers") else []
    answers = [_words(answer) for answer in [within(row, "answer"), *checked]]
    if not answers[0]:
        raise BadRow(f"{row.where}: its answer has no number, no spans and no date")
    return list(dict.fromkeys(filter(None, answers)))


def _words(answer: Row) -> str:
    number, spans, date = answer.get("number"), answer.get("spans"), answer.get("date") or {}
    if number not in (None, ""):
        return str(number)
    return SPAN_SEPARATOR.join(spans or [" ".join(filter(None, (date.get(part) for part in ("day", "month", "year"))))])


DROP = Task("drop", "DROP", read, ask, ("f1_drop",), "DROP", "written", shots=20, scored_on="dev", chosen_on=None)
