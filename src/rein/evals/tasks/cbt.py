"""Children's Book Test: 20 sentences of a book, and a word that is missing from the 21st: a noun, or a name.

    … Esther felt relieved. She thought that Mr. Cropper had exaggerated matters a little.

Each of ten words is put in the gap. The likeliest wins, by its own probability times that of the rest of the sentence
behind it. The books are given as a treebank has them; here signs and endings are back at their words. Scored on the
validation set, for a book of the test set is in WebText. Read from the official files, and from the hub.

Source   Radford 2019 §3.2. Hill 2016.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Option, Problem, Split, Task
from rein.evals.tasks.reading import each, files, gold_of, id_of, one_space, options_of, text_in

HUB = "cam-cst/cbt"
GAP = "XXXXX"  # how the files of the set mark the missing word


def read(kind: str, data: Data, split: Split) -> Iterator[Row]:
    """A row for each block of 21 numbered lines; the last has the answer and the choices behind it."""
    names: dict[Split, tuple[str, ...]] = {
        "train": (f"cbtest_{kind}_train.txt",),
        "dev": (f"cbtest_{kind}_valid_2000ex.txt",),
        "test": (f"cbtest_{kind}_test_2500ex.txt",),
    }
    sentences: list[str] = []
    for row in files(data, split, names, hub=(HUB, kind)):
        if isinstance(row.values, dict):
            yield row
        elif row.values.strip():
            sentence, *more = row.values.partition(" ")[2].split("\t")
            sentences.append(sentence)
            if more:
                answer, choices = more[0], more[-1].split("|")
                values = {"sentences": sentences[:-1], "question": sentence, "answer": answer, "options": choices}
                yield Row(values, row.where)
                sentences = []


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    before, gap, after = text_in(row, "question").partition(GAP)
    if not gap:
        raise BadRow(f"{row.where}: its question has no {GAP}")
    story = " ".join(one_space(sentence.values) for sentence in each(row, "sentences"))
    choices = options_of(row, row["options"])
    context = detokenised(f"{story} {before}")
    whole = [detokenised(f"{story} {before}{choice}{after}") for choice in choices]
    options = tuple(Option(context, text[len(context) :]) for text in whole)
    gold = gold_of(row, one_space(row["answer"]), choices)
    parts = {"passage": detokenised(story), "question": detokenised(f"{before}{choices[gold]}{after}")}
    yield Problem(id_of(row), prompt=context, shot=whole[gold], options=options, gold=gold, parts=parts)


def detokenised(text: str) -> str:
    """A text of the Penn Treebank's tokens as people write it.

    Not detokenise.py's PTB: that corpus has lost its quotation marks and brackets, and is to be had back to the
    character; these books have both, and nothing here has to be found again.

    Example  >>> detokenised("`` I wo n't , '' said he -LRB- and went -RRB- .")
             '"I won\\'t," said he (and went).'
    """
    text = text.replace("-LRB-", "(").replace("-RRB-", ")")
    text = re.sub(r"`` ?", '"', re.sub(r" ?''", '"', text))
    text = re.sub(r" (n't|'(?:s|re|ve|ll|d|m)|[.,;:!?)])(?=\W|$)", r"\1", text, flags=re.IGNORECASE)
    return re.sub(r"\( ", "(", text).strip()


def _task(name: str, title: str, kind: str) -> Task:
    return Task(
        name,
        title,
        partial(read, kind),
        ask,
        published=title,
        scored_on="dev",
        chosen_on=None,
        normalise="none",
    )


COMMON_NOUNS = _task("cbt_cn", "CBT-CN", "CN")
NAMED_ENTITIES = _task("cbt_ne", "CBT-NE", "NE")
