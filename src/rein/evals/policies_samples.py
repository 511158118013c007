"""Texts that were released beside a paper, as policies whose answers are there already.

Flow     a CSV file with the columns model_type, context, ref_text, sample → queries, and the texts of each model

Source   openai/following-instructions-human-feedback: the TL;DR samples of InstructGPT's twelve models.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rein.errors import UserError
from rein.text.prompts import Query

COLUMNS = ("model_type", "context", "ref_text", "sample")
_MOST_CHARS = 10_000_000  # of a cell


def read_samples(path: Path) -> tuple[list[Query], dict[str, list[Sequence[str] | None]]]:
    """The queries of the file, in the order in which they come, and of each model its texts, query by query.

    Rows of one context are one prompt. A context with two references is an error: they could not both be right.

    Raises   UserError when there is no such file, it is no CSV with these columns, or it has no rows.
    """
    wanted = f"Give a CSV file with the columns {', '.join(COLUMNS)}."
    if not path.is_file():
        raise UserError(f"There is no file {path}.", wanted)
    queries: dict[str, Query] = {}
    texts: dict[str, dict[str, list[str]]] = {}
    csv.field_size_limit(_MOST_CHARS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} has no column {', '.join(missing)}.", wanted)
            for row in reader:
                context, reference, model = row["context"], row["ref_text"], row["model_type"]
                if None in (context, reference, model, row["sample"]):
                    raise UserError(f"{path}, line {reader.line_num}, is cut short.", "Fetch the file again.")
                where = f"{path.name}:{reader.line_num}"
                new = Query({"prompt": context}, context, reference, f"post {len(queries) + 1}", "test", where)
                known = queries.setdefault(context, new)
                if known.reference != reference:
                    raise UserError(f"{where} has another reference than {known.where} for the same context.", wanted)
                texts.setdefault(model, {}).setdefault(context, []).append(row["sample"])
    except (UnicodeDecodeError, csv.Error) as problem:
        raise UserError(f"{path} is no CSV file: {problem}.", wanted) from None
    if not queries:
        raise UserError(f"{path} has no rows.", wanted)
    return list(queries.values()), {
        model: [said.get(context) for context in queries] for model, said in texts.items()
    }  # fmt: skip
