r"""Tasks of your own: a file of JSON lines, one problem a line, in any of these forms.

    {"context": "2 + 2 =", "choices": ["3", "4"], "gold": 1}              one of several completions
    {"context": "2 + 2 =", "answers": ["4", "four"]}                      written
    {"context": "The capital of France is", "continuation": "Paris"}      a last word, scored as LAMBADA is

A completion stands behind a space. "id" and "passage" may be given too: problems with one passage are not independent.
llm-foundry's other forms are read as well: "query" or "context", and "choices" or "context_options" with a
"continuation" and "gold", or "answer" and "aliases".

All lines have the form of the first. Shots come from NAME.train.jsonl beside NAME.jsonl, where it is.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from rein.errors import UserError
from rein.evals.data import BadRow, Data, Row, rows
from rein.evals.task import Form, Option, Problem, Split, Task, free_form, multiple_choice
from rein.evals.tasks.reading import gold_of, id_of, options_of

# What a line is known by, and its form; the first that it has decides.
FORMS: dict[str, Form] = {
    "choices": "choice",
    "context_options": "choice",
    "answers": "written",
    "answer": "written",
    "continuation": "cloze",
}
METRICS: dict[Form, tuple[str, ...]] = {
    "choice": ("accuracy",),
    "written": ("exact_match", "f1"),
    "cloze": ("lambada_last_word", "lambada_last_token", "perplexity_last_word"),
}


def task_from_file(path: Path) -> Task:
    """The task that a file holds, by the form of its first line.

    Raises   UserError when the file cannot be read, is empty, or its first line has none of the forms.
    """
    first = next(iter(rows(path)), None)
    if first is None:
        raise UserError(f"{path} is empty.", "Write one problem a line, as JSON.")
    known_by = _known_by(first)
    if known_by is None:
        raise UserError(
            f"{first.where}: it is no problem, for it has none of: {', '.join(FORMS)}.",
            'Write {"context": …, "choices": […], "gold": 0} or {"context": …, "answers": […]}, one a line.',
        )
    name, form = path.name.removesuffix(".jsonl"), FORMS[known_by]
    shots = path.with_name(f"{name}.train.jsonl")
    return Task(
        name, name, partial(read, path, shots), partial(ask, form), METRICS[form], form=form,
        shots=8 if shots.is_file() else 0, chosen_on=None,
    )  # fmt: skip


def read(path: Path, shots: Path, data: Data, split: Split) -> Iterable[Row]:
    """The file's lines, or those of the file that shots come from."""
    if split == "dev":
        raise UserError(
            f"{path} has no dev split: a file is a test set.", "Name a file of dev problems as a task of its own."
        )
    if split == "train" and not shots.is_file():
        raise UserError(f"{path} has no train split.", f"Write examples into {shots.name} beside it.")
    return rows(shots if split == "train" else path)


def ask(form: Form, row: Row) -> Iterable[Problem]:
    """One problem, of the form that all lines of its file have."""
    _check_form(form, row)
    id, passage = id_of(row, "id"), str(row.get("passage", ""))
    if form == "choice" and row.get("context_options") is not None:
        yield _schema(id, passage, row)
        return
    context = _text(row, "context" if row.get("query") is None else "query").rstrip()
    if form == "written":
        answers = _answers(row)
        parts = {"question": context, "answer": answers[0]}
        yield free_form(id, context, answers, passage=passage, parts=parts)
        return
    choices, gold = _choices(row) if form == "choice" else ([_text(row, "continuation").strip()], 0)
    parts = {"question": context, "answer": choices[gold]}
    yield multiple_choice(id, context, choices, gold, passage=passage, parts=parts)


def _known_by(row: Row) -> str | None:
    return next((name for name in FORMS if row.get(name) is not None), None)


def _check_form(form: Form, row: Row) -> None:
    name = _known_by(row)
    if row.values is not None and (name is None or FORMS[name] != form):
        wanted = " or ".join(repr(name) for name in FORMS if FORMS[name] == form)
        has = "it has none" if name is None else f"it is known by its {name!r}"
        raise BadRow(f"{row.where}: lines of this task have {wanted}, as its first one has, but {has}")


def _schema(id: str, passage: str, row: Row) -> Problem:
    """Several contexts that one continuation stands behind."""
    contexts, end = options_of(row, row["context_options"]), f" {_text(row, 'continuation').lstrip()}"
    gold = gold_of(row, row["gold"], range(len(contexts)))
    options = tuple(Option(context, end) for context in contexts)
    parts = {"question": contexts[gold], "answer": end.strip()}
    return Problem(id, contexts[gold], contexts[gold] + end, options, gold, passage=passage, parts=parts)


def _choices(row: Row) -> tuple[list[str], int]:
    choices = options_of(row, row["choices"])
    gold = gold_of(row, row["gold"], range(len(choices)))
    if choices.count(choices[gold]) > 1:
        raise BadRow(f"{row.where}: its right choice {choices[gold]!r} is there twice")
    return choices, gold


def _text(row: Row, name: str) -> str:
    text = row[name]
    if not isinstance(text, str) or not text.strip():
        raise BadRow(f"{row.where}: its {name!r} must be a text, but is {text!r}")
    return text


def _answers(row: Row) -> list[str]:
    given, more = row.get("answers"), row.get("aliases", [])
    if row.get("answer") is not None:
        given = [row["answer"], *more] if isinstance(more, list) else more
    if not isinstance(given, list) or not given or not all(isinstance(one, str) and one.strip() for one in given):
        raise BadRow(f"{row.where}: its answers must be texts, but are {given!r}")
    return list(dict.fromkeys(one.strip() for one in given))
