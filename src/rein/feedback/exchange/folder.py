"""A folder that Hugging Face's datasets loads: data/*.jsonl by configuration and split, and a card about it.

Flow     a project → data/CONFIG-SPLIT.jsonl, README.md with its YAML head
Source   Dataset cards and repository structure, in the documentation of Hugging Face's hub: `configs`, `data_files`.

Three configurations, each where there is something for it: preferences (prompt, chosen, rejected), ratings (prompt,
completion, rating) and demonstrations (prompt, completion). The card holds no names and nothing of the labelers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any

from rein.feedback.exchange.left_out import NO_MARK
from rein.feedback.exchange.pairs import margin, preferences
from rein.feedback.exchange.rows import Answer, compact
from rein.feedback.exchange.standing import splits
from rein.feedback.exchange.texts import completion_text, prompt_text
from rein.feedback.exchange.writing import Export, no_pair, preferring
from rein.feedback.kinds import KINDS
from rein.report.legible import count, one_line

Json = Any
# Configuration → what it holds, and its columns.
CONFIGS = {
    "preferences": (
        "Two outputs for one prompt, of which a person preferred the first. Rows of one prompt share a `group_id`.",
        {
            "prompt": "string", "chosen": "string", "rejected": "string", "margin": "float64", "probability": "float64",
            "question": "string", "group_id": "string", "labeler": "string",
        },
    ),
    "ratings": (
        "One output with what a person gave it; `axis` is empty for a rating of the whole.",
        {
            "prompt": "string", "completion": "string", "rating": "int64", "points": "int64", "axis": "string",
            "question": "string", "group_id": "string", "labeler": "string",
        },
    ),
    "demonstrations": (
        "What a person wrote as a good output.",
        {"prompt": "string", "completion": "string", "question": "string", "group_id": "string", "labeler": "string"},
    ),
}  # fmt: skip

_MARKED = ("rating", "likert")  # go out as ratings, and as the preferences that they imply


def write_folder(folder: Path, export: Export) -> dict[str, int]:
    """Writes the data and the card; returns the rows by configuration and split."""
    (folder / "data").mkdir()
    rows = dict[tuple[str, str], int]()
    names = _file_names(splits(export.conn, export.project))
    with ExitStack() as stack:
        files = dict[tuple[str, str], IO[str]]()
        for config, its_split, row in _rows(export):
            split = names[its_split]
            if (config, split) not in files:
                path = folder / "data" / f"{config}-{split}.jsonl"
                files[config, split] = stack.enter_context(path.open("w", encoding="utf-8"))
            files[config, split].write(compact(row) + "\n")
            rows[config, split] = rows.get((config, split), 0) + 1
    ordered = {
        at: rows[at] for at in sorted(rows, key=lambda at: (list(CONFIGS).index(at[0]), at[1] != "train", at[1]))
    }
    (folder / "README.md").write_text(_card(export, ordered), encoding="utf-8")
    return {f"{config}, {split}": n for (config, split), n in ordered.items()}


def _rows(export: Export) -> Iterator[tuple[str, str, dict[str, Json]]]:
    for answer in preferring(export, _MARKED):
        rows = (("preferences", answer.item.split, row) for row in _preferred(export, answer))
        yield from rows if answer.kind in _MARKED else export.noted(rows, partial(no_pair, answer))
    for answer in export.said(*_MARKED):
        rows = (("ratings", answer.item.split, row) for row in _rated(export, answer))
        yield from export.noted(rows, lambda: NO_MARK)
    for answer in export.said("demonstration"):
        row = {"prompt": prompt_text(answer.item), "completion": answer.value["text"]}
        export.one_of(1)
        yield "demonstrations", answer.item.split, {**row, **_about(answer)}


def _preferred(export: Export, answer: Answer) -> Iterator[dict[str, Json]]:
    for chosen, rejected, probability in preferences(answer, export.pairs.ties):
        pair = [one if isinstance(one, str) else completion_text(answer.item, one) for one in (chosen, rejected)]
        row = {"prompt": prompt_text(answer.item), "chosen": pair[0], "rejected": pair[1]}
        yield {**row, "margin": margin(answer), "probability": probability, **_about(answer)}


def _rated(export: Export, answer: Answer) -> Iterator[dict[str, Json]]:
    for number, axis, mark in _marks(answer):
        row = {"prompt": prompt_text(answer.item), "completion": completion_text(answer.item, number)}
        yield {**row, "rating": mark, "points": export.asked(answer).points, "axis": axis, **_about(answer)}


def _about(answer: Answer) -> dict[str, str]:
    return {"question": answer.question, "group_id": answer.item.key, "labeler": answer.person}


def _marks(answer: Answer) -> Iterator[tuple[int, str, int]]:
    if answer.kind == "rating":
        yield from ((number, "", mark) for number, mark in enumerate(answer.value["ratings"]))
    else:
        for number, axes in enumerate(answer.value["axes"]):
            yield from ((number, axis, mark) for axis, mark in axes.items())


def _file_names(splits: Iterable[str]) -> dict[str, str]:
    """The names of splits as names of files, and as what datasets takes for a split's; no two are the same.

    Where a file system knows no capitals, they are not the same either. What needs no change keeps its name.

    Example  >>> _file_names(["../x y", "valid1", "valid 1", "valid-1"])
             {'valid1': 'valid1', '../x y': '___x_y', 'valid 1': 'valid_1', 'valid-1': 'valid_1_2'}
    """
    plain = {split: "".join(one if one.isascii() and one.isalnum() else "_" for one in split) for split in splits}
    owners = {name.lower(): split for split, name in plain.items() if split == name}
    names = {split: split for split in owners.values()}
    for split, name in sorted(plain.items()):  # as no database sorts them
        if split not in names:
            free = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
            names[split] = next(one for one in free if one.lower() not in owners)
            owners[names[split].lower()] = split
    return names


# --------------------------------------------------------------------------------------------------------- the card


def _card(export: Export, rows: dict[tuple[str, str], int]) -> str:
    configs = [config for config in CONFIGS if any(one == config for one, _ in rows)]
    head = ["---", f"pretty_name: {_yaml(export.settings.title or export.settings.name)}", "tags:"]
    head += [f"- {tag}" for tag in ("human-feedback", *(["preference"] if "preferences" in configs else ()), "rein")]
    head += ["configs:"] if configs else []
    for config in configs:
        head += [f"- config_name: {config}", *(["  default: true"] if config == configs[0] else []), "  data_files:"]
        for split in (split for one, split in rows if one == config):
            head += [f"  - split: {split}", f"    path: data/{config}-{split}.jsonl"]
    head += ["dataset_info:"] if configs else []
    for config in configs:
        head += [f"- config_name: {config}", "  features:"]
        head += [f"  - name: {name}\n    dtype: {kind}" for name, kind in CONFIGS[config][1].items()]
    return "\n".join([*head, "---", "", *_text(export, rows, configs)]) + "\n"


def _text(export: Export, rows: dict[tuple[str, str], int], configs: list[str]) -> Iterator[str]:
    settings = export.settings
    yield f"# {one_line(settings.title or settings.name)}\n"
    yield "What people said of outputs of language models, collected with Rein.\n"
    yield "| Configuration | Split | Rows |\n| --- | --- | ---: |"
    yield from (f"| {config} | {split} | {n:,} |" for (config, split), n in rows.items())
    yield "\n## What is in it\n"
    for config in configs:
        yield f"**{config}**: {CONFIGS[config][0]} Columns: {', '.join(f'`{name}`' for name in CONFIGS[config][1])}.\n"
    if "preferences" in configs:
        yield f"`chosen` is the preferred output with probability `probability`. {_TIES[export.pairs.ties]}"
        yield "`margin` is how far from even a comparison was on its scale, from 1 to 4; 0 where nobody said.\n"
    yield "## How it was labelled\n"
    for question in settings.questions:
        words = one_line(question.text or KINDS[question.kind].words)
        scale = f", {question.points} points" if question.kind in ("comparison", "rating", "likert") else ""
        yield f"- `{one_line(question.name)}` ({question.kind}{scale}): {words}"
    yield f"\nEach item was meant for {count(settings.overlap, 'person')}" + (
        "; labelers wrote what each output seems to say before they saw what it answers." if settings.staged else "."
    )
    yield "Who wrote an output was hidden, and the order on the screen was drawn anew for each labeler.\n"
    yield "## People\n"
    yield (
        "Labelers go by pseudonyms that mean nothing outside of this installation."
        if not export.names.real
        else "Labelers go by the names that they work under."
    )
    yield "Nothing else is known of them here. Prompts and outputs are as they came: read them before publishing.\n"
    yield "## How to load it\n"
    config = f', "{configs[0]}"' if configs else ""
    yield f'```python\nfrom datasets import load_dataset\n\nload_dataset("path/to/this/folder"{config})\n```'


_TIES = {
    "drop": "Ties are left out.",
    "half": "Of a tie there is one row, with probability 0.5.",
    "both": "Of a tie there are two rows, one each way, with probability 0.5.",
}


def _yaml(text: str) -> str:
    """A text as YAML has it: JSON's strings are YAML's."""
    return compact(one_line(text))
