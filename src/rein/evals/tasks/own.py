r"""Tasks of your own: a file of JSON lines, one problem a line, in any of these forms.

    {"context": "2 + 2 =", "choices": ["3", "4"], "gold": 1}              one of several completions
    {"context": "2 + 2 =", "answers": ["4", "four"]}                      written
    {"context": "The capital of France is", "continuation": "Paris"}      a last word, scored as LAMBADA is

A completion stands behind a space. "id" and "passage" may be given too: problems with one passage are not independent.
llm-foundry's other forms are read as well: "query" or "context", and "choices" or "context_options" with a
"continuation" and "gold", or "answer" and "aliases".

All lines have one form. Shots come from NAME.train.jsonl beside NAME.jsonl, where it is.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rein.errors import UserError
from rein.evals.data import BadRow, Data, Row, rows
from rein.evals.task import Option, Problem, Split, Task, free_form, multiple_choice
from rein.evals.tasks.reading import gold_of, id_of, options_of

# What each form of a line is known by, and what its tasks are scored by. The first that fits decides.
FORMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("choices", {"metrics": ("accuracy",)}),
    ("context_options", {"metrics": ("accuracy",)}),
    ("answers", {"metrics": ("exact_match", "f1")}),
    ("answer", {"metrics": ("exact_match", "f1")}),
    ("continuation", {"metrics": ("lambada_last_word", "lambada_last_token", "perplexity_last_word")}),
)


def task_from_file(path: Path) -> Task:
    """The task that a file holds, by the form of its first line.

    Raises   UserError when the file cannot be read, is empty, or its first line has none of the forms.
    """
    first = next(iter(rows(path)), None)
    if first is None:
        raise UserError(f"{path} is empty.", "Write one problem a line, as JSON.")
    form = next((more for name, more in FORMS if first.get(name) is not None), None)
    if form is None:
        raise UserError(
            f"{first.where}: it is no problem, for it has none of: {', '.join(name for name, _ in FORMS)}.",
            'Write {"context": …, "choices": […], "gold": 0} or {"context": …, "answers": […]}, one a line.',
        )
    name = path.name.removesuffix(".jsonl")
    shots = path.with_name(f"{name}.train.jsonl")
    return Task(name, name, partial(read, path, shots), ask, chosen_on=None, shots=8 if shots.is_file() else 0, **form)


def read(path: Path, shots: Path, data: Data, split: Split) -> Iterable[Row]:
    """The file's lines, or those of the file that shots come from."""
    if split == "dev" or (split == "train" and not shots.is_file()):
        raise UserError(f"{path} has no {split} split.", f"Write examples into {shots.name} beside it.")
    return rows(shots if split == "train" else path)


def ask(row: Row) -> Iterable[Problem]:
    """One problem."""
    id, passage = id_of(row, "id"), str(row.get("passage", ""))
    more: dict[str, Any] = {"passage": passage}
    if row.get("context_options") is not None:
        contexts, end = options_of(row, row["context_options"]), f" {_text(row, 'continuation').lstrip()}"
        gold = gold_of(row, row["gold"], range(len(contexts)))
        more["parts"] = {"question": contexts[gold], "answer": end.strip()}
        options = tuple(Option(context, end) for context in contexts)
        yield Problem(id, contexts[gold], contexts[gold] + end, options, gold, **more)
        return
    context = _text(row, "context" if row.get("query") is None else "query").rstrip()
    if row.get("choices") is not None:
        choices = options_of(row, row["choices"])
        gold = gold_of(row, row["gold"], range(len(choices)))
        if choices.count(choices[gold]) > 1:
            raise BadRow(f"{row.where}: its right choice {choices[gold]!r} is there twice")
        more["parts"] = {"question": context, "answer": choices[gold]}
        yield multiple_choice(id, context, choices, gold, **more)
    elif row.get("continuation") is not None:
        word = _text(row, "continuation").strip()
        yield multiple_choice(id, context, [word], 0, parts={"question": context, "answer": word}, **more)
    else:
        answers = _answers(row)
        yield free_form(id, context, answers, parts={"question": context, "answer": answers[0]}, **more)


def _text(row: Row, name: str) -> str:
    text = row[name]
    if not isinstance(text, str) or not text.strip():
        raise BadRow(f"{row.where}: its {name!r} must be a text, but is {text!r}")
    return text


def _answers(row: Row) -> list[str]:
    given = row["answers"] if row.get("answer") is None else [row["answer"], *row.get("aliases", [])]
    if not isinstance(given, list) or not given or not all(isinstance(one, str) and one.strip() for one in given):
        raise BadRow(f"{row.where}: its answers must be texts, but are {given!r}")
    return list(dict.fromkeys(one.strip() for one in given))
