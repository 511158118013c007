"""WSC of SuperGLUE: which noun does a pronoun mean? Answered in words.

    Final Exam with Answer Key
    Instructions: Please carefully read the following passages. For each passage, you must identify which noun the
    pronoun marked in *bold* refers to.
    =====
    Passage: Mr. Moncrieff visited Chester's luxurious New York apartment, … he no longer requires *his* financial
    support.
    Question: In the passage above, what does the pronoun "*his*" refer to?
    Answer: mr. moncrieff

SuperGLUE asks whether the pronoun means a given noun. So a problem's answer is that noun and its `gold` is 1 where the
pronoun means it and 0 where not: right is to write it in the first case, and something else in the second. Shots are
rows of the first kind, for of the others nobody says what the pronoun means; one draw serves all problems. One line
end parts them, as it parts the instructions from the passage in the paper. Scored on dev: SuperGLUE keeps the test
answers. Read from SuperGLUE's files, and from the hub.

Source   Brown 2020, Appendix G, figure G.33; §3.7. Raffel 2020: so T5 is scored.
"""

from collections.abc import Iterable

from rein.evals.data import BadRow, Data, Row
from rein.evals.task import Problem, Split, Task, free_form
from rein.evals.tasks.reading import id_of, label_of, number_in, superglue, text_in, within

DESCRIPTION = """Final Exam with Answer Key
Instructions: Please carefully read the following passages. For each passage, you must identify which noun the pronoun \
marked in *bold* refers to.
====="""


def read(data: Data, split: Split) -> Iterable[Row]:
    """The rows of WSC; of the train set, those whose pronoun means the noun."""
    found = superglue(data, split, "WSC")
    return found if split != "train" else (row for row in found if str(row.get("label")).lower() in ("true", "1"))


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    target = within(row, "target") if row.get("target") is not None else row  # the hub has no level of its own
    pronoun, noun = text_in(target, "span2_text"), text_in(target, "span1_text")
    passage = marked(row, text_in(row, "text").split(" "), pronoun, number_in(target, "span2_index"))
    question = f'In the passage above, what does the pronoun "*{pronoun}*" refer to?'
    prompt = f"Passage: {passage}\nQuestion: {question}\nAnswer:"
    parts = {"question": text_in(row, "text"), "answer": noun}
    label = label_of(row, ("false", "true"))
    yield free_form(id_of(row), prompt, [noun.lower()], gold=label, passage=text_in(row, "text"), parts=parts)


def marked(row: Row, words: list[str], pronoun: str, at: int) -> str:
    """The text with stars around the pronoun; where the index misses it, around the next word that is it.

    Raises   BadRow when the pronoun does not follow.
    """
    for place in range(at, len(words)):
        if words[place].lower().startswith(pronoun.lower()):
            word, rest = words[place][: len(pronoun)], words[place][len(pronoun) :]
            return " ".join([*words[:place], f"*{word}*{rest}", *words[place + 1 :]])
    raise BadRow(f"{row.where}: its pronoun {pronoun!r} is not word {at} of the text, nor behind it")


WSC = Task(
    "wsc",
    "WSC",
    read,
    ask,
    ("wsc_accuracy",),
    published="WSC",
    form="written",
    shots=32,
    scored_on="dev",
    chosen_on=None,
    draw="fixed",
    description=DESCRIPTION,
    separator="\n",
    max_new_tokens=16,
)
