"""Labelled tasks in the files that their makers published, and in files of your own.

    CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE CB SNLI SciTail RACE StoryCloze, your columns → read → Examples

GLUE's files are tab-separated, and a quotation mark in them is a character like any other; CoLA's and SciTail's have
no header; RACE is a folder of JSON files. `TASKS` says for each task where its texts and labels stand, in which order
its labels are the outputs of a model, and which scores its paper reports, the deciding one first.
Source   Radford 2018 §4.2, Tables 2 to 4: the tasks; their types are those of its Figure 1.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rein.bpe.files import read_text
from rein.errors import UserError, suggestion

Form = Literal["classification", "entailment", "similarity", "choice"]
Record = Mapping[str, Any]

MOST_BAD_FRAC = 0.01  # of the rows of a file; more of them and the file is probably not what it is taken for
_HIDDEN = ("-", "-1")  # in the known tasks; "-": the annotators of SNLI did not agree


@dataclass(frozen=True)
class Example:
    """One row: texts, and what somebody said about them.

    `context` is the text, the premise, the first of two, the story, or a document and its question; `others` the
    hypothesis, the second of two, or the choices. `label` is the number of a class or of a choice, or a score.
    """

    context: tuple[str, ...]
    others: tuple[str, ...] = ()
    label: float | None = None
    where: str = ""  # file:line


@dataclass(frozen=True)
class Task:
    """What a file's columns mean. Names that a column goes by in different files are parted by "|"."""

    name: str
    form: Form
    context: tuple[str, ...]  # several are joined by a space
    others: tuple[str, ...] = ()
    label: str = "label"
    labels: tuple[str, ...] = ()  # classes or choices, in the order of a model's outputs; none for a score
    scores: tuple[str, ...] = ("accuracy",)  # names in evals/scores.py; the first one chooses the best epoch
    numeric: bool = False  # the label is a number to be predicted as such
    bare: tuple[str, ...] = ()  # the columns of a file without a header
    spellings: tuple[tuple[str, str], ...] = ()  # other names of labels
    halves: bool = False  # cut as the released code cuts ROCStories

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, the label last."""
        return (*self.context, *self.others, self.label)


def _pair(name: str, form: Form, labels: str, first: str = "sentence1|premise", second: str = "sentence2|hypothesis",
          **more: Any) -> Task:  # fmt: skip
    return Task(name, form, (first,), (second,), labels=tuple(labels.split()), **more)


_NLI = "entailment neutral contradiction"
_STORY = tuple(f"InputSentence{n}" for n in (1, 2, 3, 4))
_ENDINGS = ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")

TASKS = {
    task.name: task
    for task in (
        Task("cola", "classification", ("sentence",), labels=("0", "1"), scores=("matthews", "accuracy"),
             bare=("source", "label", "mark", "sentence"), spellings=(("unacceptable", "0"), ("acceptable", "1"))),
        Task("sst2", "classification", ("sentence|text",), labels=("0", "1"),
             spellings=(("negative", "0"), ("positive", "1"))),
        _pair("mrpc", "similarity", "0 1", "#1 String|sentence1", "#2 String|sentence2", label="Quality|label",
              scores=("f1", "accuracy")),
        _pair("qqp", "similarity", "0 1", "question1", "question2", label="is_duplicate|label",
              scores=("f1", "accuracy")),
        _pair("stsb", "similarity", "", "sentence1", "sentence2", label="score|label", numeric=True,
              scores=("pearson", "spearman")),
        _pair("mnli", "entailment", _NLI, label="gold_label|label"),
        _pair("snli", "entailment", _NLI, label="gold_label|label"),
        _pair("qnli", "entailment", "entailment not_entailment", "question", "sentence"),
        _pair("rte", "entailment", "entailment not_entailment"),
        _pair("cb", "entailment", "entailment contradiction neutral", scores=("accuracy", "macro_f1")),
        _pair("scitail", "entailment", "entailment neutral", label="gold_label|label",
              bare=("premise", "hypothesis", "label"), spellings=(("entails", "entailment"),)),
        Task("race", "choice", ("article", "question"), ("options",), "answer", labels=("A", "B", "C", "D")),
        Task("storycloze", "choice", _STORY, _ENDINGS, "AnswerRightEnding", labels=("1", "2"), halves=True),
    )
}  # fmt: skip

# Of your own: how many columns, the label included, and what they are.
_OWN: dict[str, tuple[Form, str]] = {
    "classification": ("classification", "text label"),
    "entailment": ("entailment", "premise hypothesis label"),
    "similarity": ("similarity", "text1 text2 label"),
    "similarity-score": ("similarity", "text1 text2 score"),
    "choice": ("choice", "context choice1 choice2 label"),
}


def task_of(name: str, columns: Sequence[str] = ()) -> Task:
    """The task of that name, or, with `columns`, a type of task for files of your own. The label's column is the last.

    Example  >>> task_of("rte").labels
             ('entailment', 'not_entailment')
             >>> task_of("choice", ["story", "ending1", "ending2", "right"]).others
             ('ending1', 'ending2')
    Raises   UserError for an unknown name, or columns that do not fit the type.
    """
    if name in TASKS:
        if columns:
            raise UserError(
                f"--columns {' '.join(columns)} is given with --task {name}, whose columns are known.",
                f"Leave --columns out, or name a type of task: {', '.join(_OWN)}.",
            )
        return TASKS[name]
    if name not in _OWN:
        raise UserError(f"There is no task {name!r}.", suggestion(name, [*TASKS, *_OWN]))
    form, example = _OWN[name]
    wanted = len(example.split())
    if len(columns) != wanted if form != "choice" else len(columns) < 3:
        given = f"has {len(columns)}" if columns else "is missing"
        raise UserError(
            f"--task {name} needs columns like `{example}`, but --columns {given}.", f"Add --columns {example}."
        )
    if name == "similarity-score":
        return Task(name, form, (columns[0],), (columns[1],), columns[2], scores=("pearson", "spearman"), numeric=True)
    scores = ("accuracy",) if form == "choice" else ("accuracy", "macro_f1")
    return Task(name, form, (columns[0],), tuple(columns[1:-1]), columns[-1], scores=scores)


def with_labels(task: Task, paths: Iterable[Path]) -> Task:
    """`task` with the labels found in training files, where it is one of your own: numbers in their order, or names.

    Raises   UserError when a file cannot be read, or has no labels.
    """
    if task.labels or task.numeric or task.form == "choice":
        return task
    found: set[str] = set()
    for path in paths:
        for _, record in _records(task, path):
            if not isinstance(record, str):
                found.add(_label_text(_value(record, task.label)))
    found.discard("")
    numbers = all(re.fullmatch("-?[0-9]+", label) for label in found)
    return replace(task, labels=tuple(sorted(found, key=int if numbers else None)))


@dataclass(frozen=True)
class Rows:
    """What a file holds: examples (where the label is hidden, without one), and the rows that are none."""

    examples: list[Example]
    bad: list[str]  # "file:line: why"


def read(task: Task, path: Path) -> Rows:
    """The examples of one file (of one folder for RACE).

    The kind of file is seen from its content and ending: JSON lines, comma-separated with RFC 4180's quotes (.csv), or
    tab-separated, where quotes are characters. Rows that cannot be used are left out and named; a row without a
    label is an example without one.

    Raises   UserError when the file cannot be read, lacks a column, is empty, or has more than 1% of bad rows.
    """
    examples, bad = [], []
    for where, record in _records(task, path):
        made = record if isinstance(record, str) else _example(task, record, where)
        if isinstance(made, str):
            bad.append(f"{where}: {made}")
        else:
            examples.append(made)
    rows = len(examples) + len(bad)
    if not rows:
        raise UserError(f"{path} has no rows.", "Check the file; it may have been cut short.")
    if len(bad) > MOST_BAD_FRAC * rows:
        raise UserError(
            f"{len(bad):,} of the {rows:,} rows of {path} cannot be used as {task.name}: {'; '.join(bad[:3])}.",
            "Correct them, or check --task and the file; up to 1% of bad rows would be left out.",
        )
    return Rows(examples, bad)


# --------------------------------------------------------------------------------------- a record → an example


def _example(task: Task, record: Record, where: str) -> Example | str:
    """The example, or why there is none."""
    context = [_text(_value(record, name)) for name in task.context]
    listed = [_value(record, name) for name in task.others]
    if task.form == "choice":
        listed = [item for value in listed for item in (value if isinstance(value, list) else [value])]
    others = [_text(value) for value in listed]
    for names, texts in ((task.context, context), (task.others, others)):
        for number, text in enumerate(texts):
            if not text:
                return f"no text in {names[min(number, len(names) - 1)]}"
    if task.form == "choice" and len(others) < 2:
        return "fewer than two choices"
    parts = tuple(context) if task.name == "race" else (" ".join(context),)
    try:
        label = _label(task, _label_text(_value(record, task.label)), others)
    except ValueError as error:
        return str(error)
    return Example(parts, tuple(others), label, where)


def _value(record: Record, names: str) -> Any:
    return next((record[name] for name in names.split("|") if name in record), None)


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def _label_text(value: Any) -> str:
    """As a file of names would have it: 1.0 and True of JSON are "1" and "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _text(value)


def _label(task: Task, text: str, choices: Sequence[str]) -> float | None:
    if not text or (task.name in TASKS and text in _HIDDEN):
        return None
    if task.numeric:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"the score {text!r} is not a number")
        return number
    names = task.labels
    if task.form == "choice" and not names:
        return _choice(task, text, choices)
    name = dict(task.spellings).get(text, text)
    if name in names:
        return names.index(name)
    # A file exported with numbers for words; where the names are numbers themselves, only those are meant.
    if text.isdecimal() and int(text) < len(names) and not any(name.isdecimal() for name in names):
        return int(text)
    raise ValueError(f"the label {text!r} is none of {', '.join(names[:8])}")


def _choice(task: Task, text: str, choices: Sequence[str]) -> int:
    """Which choice: its column's name, its number from 0, its letter from A, or its text."""
    ways = (
        list(task.others) if len(task.others) == len(choices) else [],
        [str(number) for number in range(len(choices))],
        [chr(ord("A") + number) for number in range(len(choices))],
        list(choices),
    )
    for names in ways:
        if names.count(text) == 1:
            return names.index(text)
    raise ValueError(f"the label {text!r} is no choice: give its column, its number from 0, its letter or its text")


# ------------------------------------------------------------------------------------------- files → records


def _records(task: Task, path: Path) -> Iterator[tuple[str, Record | str]]:
    """(file:line, the columns by name or what is wrong with the row) of every row that is not blank."""
    if task.name == "race":
        yield from _race(path)
        return
    text = read_text(path).removeprefix("\ufeff")
    head = text.lstrip()[:1]
    if head == "{":
        yield from _json_lines(task, path, text)
    elif path.suffix == ".csv":
        yield from _table(task, path, _csv_rows(path, text))
    elif task.name == "sst2" and "\t" not in text.partition("\n")[0]:
        for where, line in _lines(path, text):
            label, _, sentence = line.partition(" ")
            yield where, {"label": label, "sentence": sentence}
    else:
        yield from _table(task, path, ((where, line.split("\t")) for where, line in _lines(path, text)))


def _lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also cut at U+2028
        line = line.removesuffix("\r")
        if line.strip():
            yield f"{path}:{number}", line


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield f"{path}:{reader.line_num}", row
    except csv.Error as error:
        raise UserError(
            f"{path} stops being comma-separated values at line {reader.line_num} ({error}).", "Correct that line."
        ) from None


def _table(task: Task, path: Path, rows: Iterable[tuple[str, list[str]]]) -> Iterator[tuple[str, Record | str]]:
    """Rows below a header; of a task known to come without one, also all of them."""
    header: list[str] | None = None
    for where, cells in rows:
        if header is None:
            names = [cell.strip() for cell in cells]
            if _missing(task, names) and task.bare and len(cells) == len(task.bare):
                header = list(task.bare)
            else:
                _check_columns(task, path, names)
                header = names
                continue
        if len(cells) == len(header):
            yield where, dict(zip(header, cells, strict=True))
        else:
            yield where, f"{len(cells)} columns, but {len(header)} are expected"


def _json_lines(task: Task, path: Path, text: str) -> Iterator[tuple[str, Record | str]]:
    checked = False
    for where, line in _lines(path, text):
        try:
            record = json.loads(line)
        except ValueError as error:
            yield where, f"not JSON ({error})"
            continue
        if not isinstance(record, dict):
            yield where, "not a JSON object"
            continue
        if not checked:
            _check_columns(task, path, list(record))
            checked = True
        yield where, record


def _missing(task: Task, names: Sequence[str]) -> list[str]:
    """Columns of text that are not there. A label may be hidden: test files have none."""
    return [column for column in task.columns[:-1] if not set(column.split("|")) & set(names)]


def _check_columns(task: Task, path: Path, names: Sequence[str]) -> None:
    missing = _missing(task, names)
    if missing:
        wanted = missing[0].replace("|", " or ")
        raise UserError(
            f"{path} has no column {wanted}, which {task.name} needs; it has {', '.join(names[:12])}.",
            "Check --task and the file, or name its columns with --columns." if task.name in TASKS
            else suggestion(missing[0], names),
        )  # fmt: skip


def _race(path: Path) -> Iterator[tuple[str, Record | str]]:
    """RACE: each .txt below a folder is one JSON object of an article and its questions."""
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} has no .txt files below it.", "Name a folder of RACE, like RACE/train.")
    for file in files:
        try:
            passage = json.loads(read_text(file))
            questions = list(zip(passage["questions"], passage["options"], passage["answers"], strict=True))
            article = passage["article"]
        except (ValueError, KeyError, TypeError):
            yield str(file), "not a JSON object with article, questions, options and answers"
            continue
        for number, (question, options, answer) in enumerate(questions, start=1):
            record = {"article": article, "question": question, "options": options, "answer": answer}
            yield f"{file}:question {number}", record
