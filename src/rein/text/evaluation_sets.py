"""Test and dev sets as they lie on disk: what `grams.gather` makes grams of.

Flow     files and folders → `read_evaluation` → (name of the set, its examples: the text fields of each).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from rein.errors import UserError

EVALUATION_NAMES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet")


def read_evaluation(paths: Sequence[Path]) -> Iterator[tuple[str, Iterator[tuple[str, ...]]]]:
    """Evaluation files, and those below folders, as `gather` takes them: (name, examples), one after the other.

        .jsonl .json .parquet   every string of an example, nested ones included, in order; numbers are no text.
                                A .json that is one object is one example
        .csv .tsv               the cells of a row; a header is a row like the others. Quotation marks group cells in
                                .csv alone: in .tsv files of the GLUE kind they are text
        .txt                    the file is one example, for lines of prose end anywhere

    Text files may be packed as .gz or .zst. Files of other names in folders are passed over. A set is called by its
    path from the folder given, that folder's name included.

    Raises   UserError when a path does not exist, has no such name, holds no such file, or cannot be read.
    """
    for path in paths:
        if path.is_dir():
            files = sorted((file for file in path.rglob("*") if file.is_file() and _kind(file)), key=lambda f: f.parts)
            if not files:
                raise UserError(f"{path} holds no evaluation set.", f"They are named *{', *'.join(EVALUATION_NAMES)}.")
        elif path.is_file():
            if _kind(path) is None:
                raise UserError(
                    f"{path} is no evaluation set: its name does not tell its format.",
                    f"Name it *{', *'.join(EVALUATION_NAMES)}; text files may be packed as .gz or .zst.",
                )
            files = [path]
        else:
            raise UserError(f"{path} does not exist.", "Check the path.")
        for file in files:
            name = file.relative_to(path.parent) if path.name else file
            yield name.as_posix(), _examples(file)


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    packed = name.endswith((".gz", ".zst"))
    name = name.removesuffix(".gz").removesuffix(".zst")
    kind = next((kind for kind in EVALUATION_NAMES if name.endswith(kind)), None)
    return None if packed and kind == ".parquet" else kind


def _examples(path: Path) -> Iterator[tuple[str, ...]]:
    kind = _kind(path)
    try:
        if kind == ".parquet":
            with pq.ParquetFile(path) as table:
                for batch in table.iter_batches(1024):
                    yield from (tuple(_strings(row)) for row in batch.to_pylist())
            return
        with io.TextIOWrapper(
            io.BufferedReader(pa.input_stream(str(path), compression="detect")), encoding="utf-8-sig", newline=""
        ) as file:
            if kind == ".txt":
                yield (file.read(),)
            elif kind in (".csv", ".tsv"):
                yield from _rows(file, kind)
            else:
                yield from (tuple(_strings(example)) for example in _json_examples(file, kind))
    except (OSError, EOFError, ValueError, csv.Error, RecursionError, pa.ArrowException) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"The evaluation set {path} cannot be read: {said}.", "Check that it is whole, and UTF-8."
        ) from None


def _json_examples(file: TextIO, kind: str | None) -> Iterator[object]:
    if kind == ".json":
        content = json.load(file)
        yield from content if isinstance(content, list) else [content]
        return
    for line in file:
        if line.strip():
            yield json.loads(line)


def _rows(file: TextIO, kind: str) -> Iterator[tuple[str, ...]]:
    if kind == ".tsv":
        for line in file:
            if line.strip():
                yield tuple(line.rstrip("\r\n").split("\t"))
        return
    with _long_cells():
        for row in csv.reader(file):
            if row:
                yield tuple(row)


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv module refuses cells above 128 KiB, and a passage can be longer."""
    before = csv.field_size_limit(1 << 30)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
