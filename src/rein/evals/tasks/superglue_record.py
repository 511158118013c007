"""ReCoRD: a news text, its highlights, and a sentence in which an entity is missing.

    (CNN) Yuval Rabin, whose father, Yitzhak Rabin, was assassinated while serving as Prime Minister of Israel, …

    - The son of a former Israeli Prime Minister who was assassinated wrote an op ed about …
    - Warns of "parallels" between Israel of the 1990s and the U.S. today.
    - Referencing his father, … Rabin condemned Donald Trump's aggressive rhetoric.

The sentence is completed by each entity of the text in turn, and the likeliest one chosen; several may be right, as
`answers` lists them. Scored on dev: SuperGLUE keeps the test answers. Read from SuperGLUE's files, and from the hub.

Source   Brown 2020, Appendix G, figure G.6; §3.7. Zhang 2018.
"""

from collections.abc import Iterable
from functools import partial

from rein.evals.data import BadRow, Row
from rein.evals.task import Option, Problem, Task
from rein.evals.tasks.reading import each, id_of, number_in, one_space, superglue, text_in, within

BLANK = "@placeholder"


def ask(row: Row) -> Iterable[Problem]:
    """A problem for each sentence; the hub has one a row."""
    if isinstance(row["passage"], str):
        entities = [one_space(entity.values) for entity in each(row, "entities")]
        answers = [one_space(answer.values) for answer in each(row, "answers")]
        return [_problem(row, row["passage"], entities, text_in(row, "query"), answers, id_of(row))]
    text = str(within(row, "passage")["text"])
    spans = [(number_in(span, "start"), number_in(span, "end")) for span in each(within(row, "passage"), "entities")]
    entities = [one_space(text[start : end + 1]) for start, end in spans]
    problems = []
    for number, query in enumerate(each(row, "qas")):
        answers = [text_in(answer, "text") for answer in each(query, "answers")]
        problems.append(_problem(row, text, entities, text_in(query, "query"), answers, f"{id_of(row)}/{number}"))
    return problems


def _problem(row: Row, text: str, entities: list[str], query: str, answers: list[str], id: str) -> Problem:
    entities, answers = list(dict.fromkeys(entities)), list(dict.fromkeys(answers))
    right = [number for number, entity in enumerate(entities) if entity in answers]
    if BLANK not in query or not right or len(entities) < 2:
        raise BadRow(
            f"{row.where}: a sentence needs {BLANK} and two entities, one of them right, but of {len(entities)} "
            f"entities {len(right)} are right in {query!r}"
        )
    article, *highlights = (one_space(part) for part in text.split("\n@highlight\n"))
    context = article + "\n" + "".join(f"\n- {highlight}" for highlight in highlights)
    options = tuple(Option(context, f"\n- {query.replace(BLANK, entity)}") for entity in entities)
    return Problem(
        id,
        prompt=context,
        shot=context + options[right[0]].completion,
        options=options,
        gold=right[0],
        answers=tuple(answers),
        passage=id_of(row),
        parts={"passage": context, "question": query, "answer": entities[right[0]]},
    )


RECORD = Task(
    "record",
    "ReCoRD",
    partial(superglue, folder="ReCoRD"),
    ask,
    ("record_em", "record_f1"),
    published="ReCoRD",
    shots=32,
    scored_on="dev",
    chosen_on=None,
)
