"""How every task finds its rows: the files of a split as their makers named them, or the same split of the hub.

Flow     `Task.read` says which file names it knows for each split → `files` → rows → `Task.ask`, with what rows of
         several tasks have in common: whose answer is right, and under which name

Texts are asked about with single spaces (`one_space`), so that a problem reads the same from each form of its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rein.errors import UserError
from rein.evals.data import BadRow, Data, Row, hub_rows, rows
from rein.evals.task import Split

HUB_SPLITS: Mapping[Split, str] = MappingProxyType({"train": "train", "dev": "validation", "test": "test"})


def files(
    data: Data,
    split: Split,
    names: Mapping[Split, tuple[str, ...]],
    *,
    hub: tuple[str, ...] = (),
    hub_splits: Mapping[Split, str] = HUB_SPLITS,
    **how: Any,
) -> Iterable[Row]:
    """The rows of a split: of the first of its files that is there, or of the hub where rows may come from it.

    `names` are the names that the file of each split is known by, the official one first; `hub_splits` is what the
    hub calls each split; `how` goes to `rows`.

    Raises   UserError when the task has no such split, or none of its files is there.
    """
    if split not in names:
        raise UserError(f"The task has no {split} split, only: {', '.join(names)}.", "Name one of those.")
    if data.from_hub and hub:
        if split not in hub_splits:
            there = ", ".join(hub_splits)
            raise UserError(f"The task has no {split} split on the hub, only: {there}.", "Name one, or give its files.")
        return hub_rows(hub, hub_splits[split])
    return rows(data.need(*names[split]), **how)


def superglue(data: Data, split: Split, folder: str) -> Iterable[Row]:
    """The rows of a SuperGLUE task, which has no test answers.

    Raises   UserError as `files` does.
    """
    names: dict[Split, tuple[str, ...]] = {
        "train": (f"{folder}/train.jsonl", f"{folder}/train32.jsonl", f"{folder.lower()}_train.jsonl"),
        "dev": (f"{folder}/val.jsonl", f"{folder}/dev.jsonl", f"{folder.lower()}.jsonl"),
    }
    return files(data, split, names, hub=("aps/super_glue", folder.lower()))


def within(row: Row, name: Any) -> Row:
    """A part of a row, as a row of its own: what is missing there is reported with the same file and line."""
    return Row(row[name], row.where)


def each(row: Row, name: Any) -> list[Row]:
    """The parts of a row that are a list, as rows of their own.

    Raises   BadRow when it is no list.
    """
    parts = row[name]
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        raise BadRow(f"{row.where}: its {name!r} is no list, but {parts!r}")
    return [Row(part, row.where) for part in parts]


def id_of(row: Row, name: str = "") -> str:
    """A row's own id, where it has one of that name, or else its file and line; folders differ between machines.

    Example  >>> id_of(Row({"id": "Mercury_1"}, "/data/test.jsonl:3"), "id"), id_of(Row({}, "/data/test.jsonl:3"))
             ('Mercury_1', 'test.jsonl:3')
    """
    return str(row.get(name) if name and row.get(name) is not None else Path(row.where).name)


def one_space(text: Any) -> str:
    """The text with single spaces in place of several, and none around it; line ends stay.

    Example  >>> one_space("  A  cat sat. ")
             'A cat sat.'
    """
    return re.sub(r"[^\S\n]+", " ", str(text)).strip()


def text_in(row: Row, name: Any) -> str:
    """One text of a row, with single spaces.

    Raises   BadRow when there is none, or it is empty.
    """
    text = row[name]
    if not isinstance(text, str):
        raise BadRow(f"{row.where}: its {name!r} is no text, but {text!r}")
    if not text.strip():
        raise BadRow(f"{row.where}: its {name!r} is empty")
    return one_space(text)


def number_in(row: Row, name: Any) -> int:
    """One whole number of a row, 0 or above.

    Raises   BadRow when it is something else.
    """
    number = row[name]
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise BadRow(f"{row.where}: its {name!r} is no place in a text, but {number!r}")
    return number


def gold_of(row: Row, label: Any, labels: Any) -> int:
    """Which of the labels a row calls right.

    Example  >>> gold_of(Row({"answerKey": "B"}, "test.jsonl:1"), "B", "ABCD")
             1
    Raises   BadRow when it is none of them.
    """
    if not isinstance(labels, Sequence) or isinstance(label, bool) or label not in list(labels):
        raise BadRow(f"{row.where}: its answer is {label!r}, but it has {_listed(labels)}")
    return list(labels).index(label)


def _listed(labels: Any) -> str:
    return (", ".join(map(str, labels)) if isinstance(labels, Sequence) else str(labels)) or "no options"


def label_of(row: Row, labels: Sequence[str], name: str = "label") -> int:
    """Which label a row has: official files name it, as text or as true and false; the hub numbers it.

    Example  >>> label_of(Row({"label": True}, "val.jsonl:1"), ("false", "true"))
             1
    Raises   BadRow when it is none of them.
    """
    label = row[name]
    if isinstance(label, str):
        return gold_of(row, label.lower(), labels)
    return gold_of(row, int(label) if isinstance(label, bool) else label, range(len(labels)))


def options_of(row: Row, options: Any) -> list[str]:
    """The options of a row, with single spaces.

    Raises   BadRow when one of them is no text, or there are fewer than two.
    """
    if not isinstance(options, Sequence) or isinstance(options, str) or len(options) < 2:
        raise BadRow(f"{row.where}: it needs at least two options, but has {options!r}")
    if any(not isinstance(option, str) or not option.strip() for option in options):
        raise BadRow(f"{row.where}: one of its options is empty: {options!r}")
    return [one_space(option) for option in options]


def gauntlet(row: Row) -> tuple[str, list[str], int] | None:
    """Query, choices and the right one of a row in llm-foundry's form; None where it has another.

    Raises   BadRow when it is in that form, but something is missing.
    """
    if row.get("query") is None or row.get("choices") is None:
        return None
    choices = options_of(row, row["choices"])
    return text_in(row, "query"), choices, gold_of(row, row["gold"], range(len(choices)))
