"""Where evaluation sets lie: files that the user has, in the form in which their makers published them.

Flow     `--data FOLDER …` → `Data` → `find` the first of several file names → `rows` of JSON, CSV, TSV, text, parquet
         a Hugging Face data set by name → `hub` → rows

A task names the files that it knows, as the end of a path: "superglue/CB/val.jsonl" finds that file anywhere below
the folders. A row that cannot be used raises `BadRow` with the file and the line; the caller reports it and goes on.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rein.errors import UserError

PACKED = ("", ".gz", ".zst")


class NotThere(UserError):
    """No file of a task's is in the folders of `--data`."""


class BadRow(ValueError):
    """A row of a task's file that no problem can be made of; its text says what is wrong with it."""


@dataclass(frozen=True)
class Row:
    """One row of a file: its values, and "file:line"."""

    values: Any  # a dict of a JSON line or a parquet row; a list of cells of CSV and TSV; a str of a text file
    where: str

    def __getitem__(self, name: Any) -> Any:
        """One value. Raises   BadRow when the row has none of that name, or is null there."""
        if self.values is None:
            raise BadRow(f"{self.where}: it is not JSON")
        try:
            value = self.values[name]
        except (KeyError, IndexError, TypeError):
            raise BadRow(f"{self.where}: it has no {name!r}") from None
        if value is None:
            raise BadRow(f"{self.where}: its {name!r} is null")
        return value

    def get(self, name: Any, otherwise: Any = None) -> Any:
        """One value, or another where the row has none."""
        try:
            value = self.values[name]
        except (KeyError, IndexError, TypeError):
            return otherwise
        return otherwise if value is None else value


@dataclass(frozen=True)
class Data:
    """The folders that `--data` names, and whether tasks may be read from the Hugging Face hub."""

    folders: tuple[Path, ...] = ()
    from_hub: bool = False
    asked: list[str] = field(default_factory=list)  # what was looked for and not found

    def check(self) -> None:
        """Raises   UserError when a folder does not exist."""
        for folder in self.folders:
            if not folder.exists():
                raise UserError(f"--data names {folder}, which does not exist.", "Check the path.")

    @cached_property
    def _files(self) -> list[Path]:
        self.check()
        found: list[Path] = []
        for folder in self.folders:
            if folder.is_file():
                found.append(folder)
            for where, names, files in os.walk(folder, followlinks=True):
                names.sort()
                found += [Path(where) / name for name in sorted(files)]
        return found

    @cached_property
    def _named(self) -> dict[str, list[Path]]:
        """The files by the last part of their paths in small letters, which capitals never tell apart."""
        found: dict[str, list[Path]] = {}
        for file in self._files:
            found.setdefault(file.name.lower(), []).append(file)
        return found

    def find(self, *names: str) -> Path | None:
        """The first file whose path ends with one of the names, packed or not; earlier names and folders first."""
        for name in names:
            for ending in PACKED:
                wanted = Path((name + ending).lower()).parts
                for file in self._named.get(wanted[-1], []):
                    if tuple(part.lower() for part in file.parts[-len(wanted) :]) == wanted:
                        return file
        self.asked.extend(names)
        return None

    def need(self, *names: str) -> Path:
        """`find`, or an error that names what was looked for.

        Raises   NotThere when there is none.
        """
        path = self.find(*names)
        if path is None:
            raise NotThere(f"{names[0]} is not in {self._where()}.", f"Add a folder with one of: {', '.join(names)}.")
        return path

    def need_all(self, pattern: str) -> list[Path]:
        """All files whose paths end as a pattern says ("test/high/*.txt"), packed or not, in the order of the folders.

        Raises   NotThere when there is none.
        """
        found: dict[str, Path] = {}
        for file in self._files:
            unpacked = _unpacked(str(file).lower())
            if PurePath(unpacked).match(pattern.lower()):
                found.setdefault(unpacked, file)  # of a file and its packed self, one
        if not found:
            self.asked.append(pattern)
            raise NotThere(f"{pattern} is not in {self._where()}.", "Add a folder that holds such files.")
        return list(found.values())

    def _where(self) -> str:
        return ", ".join(map(str, self.folders)) or "no folder (--data is not given)"


def rows(path: Path, *, delimiter: str | None = None, header: bool = True) -> Iterator[Row]:
    """The rows of a file, one by one: .json(l), .csv, .tsv, .parquet; of other names, its lines of text.

    CSV and TSV rows are dicts by the header, or lists of cells where there is no `header`. A quotation mark groups
    cells in .csv alone. Files may be packed as .gz or .zst.

    Raises   UserError when the file cannot be read. A line of JSON lines that is no JSON is a row whose every value
             raises BadRow.
    """
    kind = Path(_unpacked(path.name.lower())).suffix
    try:
        if kind == ".parquet":
            yield from _parquet(path)
            return
        with pa.input_stream(str(path), compression="detect") as stream:
            lines = _lines(stream)
            if kind in (".jsonl", ".ndjson"):
                yield from _json_lines(path, lines)
            elif kind == ".json":
                yield from _json(path, "\n".join(lines))
            elif kind in (".csv", ".tsv") or delimiter is not None:
                yield from _cells(path, lines, delimiter or ("\t" if kind == ".tsv" else ","), header)
            else:
                for number, line in enumerate(lines, 1):
                    yield Row(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read: {said}.", "Check that it is whole, and UTF-8.") from None


def text_of(path: Path) -> str:
    """A whole text file, as it is.

    Raises   UserError when it cannot be read.
    """
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            return str(stream.read().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Check that it is whole, and UTF-8.") from None


def hub_rows(dataset: Sequence[str], split: str) -> Iterator[Row]:
    """The rows of a Hugging Face data set: (name,) or (name, configuration); a name may be a folder on this machine.

    Raises   UserError when `datasets` is not installed, or the data set cannot be had.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"Reading {'/'.join(dataset)} needs the package datasets.", 'Install it: pip install "rein[huggingface]".'
        ) from None
    try:
        found = load_dataset(*dataset, split=split)
    except Exception as error:  # whatever a hub, a network or a file may say
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"The data set {'/'.join(dataset)} ({split}) cannot be had: {said}", "Check it.") from None
    for number, values in enumerate(found):
        yield Row(values, f"{'/'.join(dataset)}/{split}:{number}")


# --------------------------------------------------------------------------------------------------- inside


def _unpacked(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".zst")


def _lines(stream: Any) -> Iterator[str]:
    """Lines of UTF-8, cut at line feeds alone: U+2028 may stand inside a JSON string.

    Bytes that are none become lone surrogates, which no tokenizer takes: so only the problem that has them is lost.
    """
    rest, first = b"", True
    while block := stream.read(1 << 20):
        if first:
            block, first = block.removeprefix(b"\xef\xbb\xbf"), False
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "surrogateescape").removesuffix("\r")
    if rest:
        yield rest.decode("utf-8", "surrogateescape").removesuffix("\r")


def _json_lines(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield Row(json.loads(line), f"{path}:{number}")
            except (ValueError, RecursionError):
                yield Row(None, f"{path}:{number}")


def _json(path: Path, text: str) -> Iterator[Row]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}.", "Check that it is whole.") from None
    for number, values in enumerate(content if isinstance(content, list) else [content], 1):
        yield Row(values, f"{path}:{number}")


def _cells(path: Path, lines: Iterator[str], delimiter: str, header: bool) -> Iterator[Row]:
    limit = csv.field_size_limit(1 << 30)  # a passage may be longer than the 128 KiB that csv allows
    try:
        text = (line + "\n" for line in lines)
        if delimiter == "\t":
            reader = csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(text, delimiter=delimiter)
        names: list[str] | None = None
        for cells in reader:
            if not cells:
                continue
            if header and names is None:
                names = cells
                continue
            where = f"{path}:{reader.line_num}"
            yield Row(cells if names is None else dict(zip(names, cells, strict=False)), where)
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path) -> Iterator[Row]:
    number = 0
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{path}:{number}")
