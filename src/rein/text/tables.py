"""Text in tables: JSON lines, Parquet, and Hugging Face datasets. One row is one document.

Flow     files → ranges of lines, groups of rows, shards → rows → the text field → `Document | Dropped`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from rein.errors import UserError, suggestion
from rein.text.documents import Document, Dropped
from rein.text.recipe import Source
from rein.text.sources import PARTITION_BYTES, Advance, Partition, find_files, named, size_of

JSONL_NAMES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")
PARQUET_NAMES = (".parquet",)
MAX_LINE_BYTES = 1 << 28
_READ_BYTES = 1 << 20
_ADVANCE_ROWS = 256


class JsonLines:
    """One JSON object per line, its text in the source's `text_field`; plain, .gz or .zst.

    A plain file is cut into ranges of lines; a compressed one is a single partition, so many files are read in
    parallel and one is not.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return find_files(self._source.paths, JSONL_NAMES)

    def partitions(self) -> list[Partition]:
        """Ranges of bytes that begin with a line, and the number of that line."""
        return [
            {"file": str(path), "name": name, "start": start, "end": end, "line": line, "bytes": end - start}
            for path, name in named(self.inputs())
            for start, end, line in _line_ranges(path)
        ]

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """One document per line.  Raises   UserError when the file is damaged, or its first line has no such field."""
        path = Path(partition["file"])
        with _open(path) as raw:
            raw.seek(partition["start"])
            done = partition["start"]
            try:
                lines = _lines(_unpacked(raw, path), partition["end"] - done if _is_plain(path) else None)
                for number, line in enumerate(lines, start=partition["line"]):
                    yield self._document(partition["name"], path, number, line)
                    if number % _ADVANCE_ROWS == 0:
                        advance(raw.tell() - done)
                        done = raw.tell()
            except (OSError, EOFError) as error:  # pyarrow's name for a damaged archive
                raise UserError(
                    f"{path} cannot be read to its end: {error}.", "Check that it is whole, or leave it out."
                ) from None
            advance(partition["end"] - done)

    def _document(self, name: str, path: Path, number: int, line: bytes | None) -> Document | Dropped:
        id = f"{name}:{number}"
        if line is None:
            return Dropped(id, "line over 256 MiB")
        if not line.strip():
            return Dropped(id, "empty line")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return Dropped(id, "not JSON")
        if not isinstance(row, dict):
            return Dropped(id, "not a JSON object")
        if number == 1:
            _check_fields(path, row, self._source)
        text = row.get(self._source.text_field)
        if not isinstance(text, str):
            return Dropped(id, "no text in the field")
        return document_of_row(self._source, id, path, text, row)


class Parquet:
    """One text per row of Parquet tables, in the column `text_field`, one row group in memory at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return find_files(self._source.paths, PARQUET_NAMES)

    def partitions(self) -> list[Partition]:
        """Runs of row groups, some megabytes of text each."""
        partitions: list[Partition] = []
        for path, name in named(self.inputs()):
            try:
                with pq.ParquetFile(path) as file:
                    self._check(path, file.schema_arrow)
                    partitions += _group_runs(path, name, file.metadata)
            except (OSError, pa.ArrowException) as error:
                raise _not_parquet(path, error) from None
        return partitions

    def _check(self, path: Path, schema: pa.Schema) -> None:
        field = self._source.text_field
        _check_fields(path, schema.names, self._source)
        kind = schema.field(field).type
        if not _is_text(kind):
            raise UserError(
                f"The column {field!r} of {path} holds {kind}, not text.",
                "Name a text column with --text-field. "
                + suggestion(field, [column.name for column in schema if _is_text(column.type)]),
            )

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """One document per row.  Raises   UserError when the file is damaged."""
        path = Path(partition["file"])
        groups = range(*partition["groups"])
        number = partition["row"]
        try:
            with pq.ParquetFile(path) as file:
                wanted = (self._source.text_field, self._source.id_field, "url", "date")
                columns = [name for name in dict.fromkeys(wanted) if name in file.schema_arrow.names]
                for batch in file.iter_batches(1024, row_groups=groups, columns=columns):
                    # As bytes, because one value that is not UTF-8 would fail the whole batch.
                    texts = batch.column(columns[0]).cast(pa.large_binary()).to_pylist()
                    rows = batch.select(columns[1:]).to_pylist() if len(columns) > 1 else [{}] * len(texts)
                    for data, row in zip(texts, rows, strict=True):
                        number += 1
                        yield self._document(partition, number, data, row)
                    advance(partition["bytes"] * len(texts) / partition["rows"])
        except (OSError, pa.ArrowException) as error:
            raise _not_parquet(path, error) from None

    def _document(
        self, partition: Partition, number: int, data: bytes | None, row: dict[str, Any]
    ) -> Document | Dropped:
        id = f"{partition['name']}:{number}"
        if data is None:
            return Dropped(id, "no text in the field")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return Dropped(id, "not UTF-8")
        return document_of_row(self._source, id, Path(partition["file"]), text, row)


class HuggingFace:
    """A dataset by its name (or a folder with one), streamed: `pip install 'rein[huggingface]'`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def inputs(self) -> list[Path]:
        """None of this machine: the dataset's name and split stand for it."""
        return []

    def partitions(self) -> list[Partition]:
        """The dataset's own shards."""
        n_shards = int(self._open().num_shards)
        return [{"shard": shard, "of": n_shards, "bytes": 1} for shard in range(n_shards)]

    def _open(self) -> Any:
        try:
            import datasets
        except ImportError:
            raise UserError(
                f"The source {self._source.name!r} is a Hugging Face dataset, but `datasets` is not installed.",
                "Install it: pip install 'rein[huggingface]'.",
            ) from None
        try:
            return datasets.load_dataset(
                self._source.dataset, self._source.subset, split=self._source.split, streaming=True
            )
        except Exception as error:  # the library raises its own, the file system's and the network's
            raise UserError(
                f"The Hugging Face dataset {self._source.dataset!r} cannot be opened: {error}.",
                "Check its name, --subset and --split, and the network.",
            ) from None

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """One document per row."""
        name = Path(str(self._source.dataset))
        shard = self._open().shard(num_shards=partition["of"], index=partition["shard"])
        for number, row in enumerate(shard, start=1):
            id = f"{name.name}/{self._source.split}-{partition['shard']}:{number}"
            if number == 1:
                _check_fields(name, row, self._source)
            text = row.get(self._source.text_field)
            if isinstance(text, str):
                yield document_of_row(self._source, id, name, text, row)
            else:
                yield Dropped(id, "no text in the field")
        advance(1)


def document_of_row(source: Source, id: str, path: Path, text: str, row: dict[Any, Any]) -> Document:
    """The document of a row: its own id where the source names the field, its url and date where it has them."""
    given = row.get(source.id_field) if source.id_field else None
    url, date = row.get("url"), row.get("date")
    return Document(
        text,
        str(given) if isinstance(given, str | int) else id,
        source.name,
        url if isinstance(url, str) else "",
        date if isinstance(date, str) else "",
        {"path": path.as_posix(), "license": source.license},
    )


def _line_ranges(path: Path) -> Iterator[tuple[int, int, int]]:
    """(first byte, end, number of the first line) of runs of whole lines, each of some megabytes."""
    size = size_of(path)
    if not _is_plain(path) or size <= PARTITION_BYTES:
        yield 0, size, 1
        return
    with _open(path) as file:
        start, line = 0, 1
        while start < size:
            end, n_lines = _run_of_lines(file, start)
            yield start, end, line
            start, line = end, line + n_lines


def _run_of_lines(file: BinaryIO, start: int) -> tuple[int, int]:
    """Where the run of lines from `start` ends, at a line's end behind PARTITION_BYTES, and its number of lines."""
    file.seek(start)
    position, n_lines = start, 0
    while block := file.read(_READ_BYTES):
        if position + len(block) >= start + PARTITION_BYTES:
            found = block.find(b"\n", max(0, start + PARTITION_BYTES - position))
            if found >= 0:
                return position + found + 1, n_lines + block.count(b"\n", 0, found + 1)
        n_lines += block.count(b"\n")
        position += len(block)
    return position, n_lines


def _lines(file: BinaryIO, n_bytes: int | None) -> Iterator[bytes | None]:
    """The lines of the next `n_bytes`; None for one too long to be held in memory."""
    while n_bytes is None or n_bytes > 0:
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            return
        length, whole = len(line), len(line) < MAX_LINE_BYTES or line.endswith(b"\n")
        while not whole:
            rest = file.readline(MAX_LINE_BYTES)
            length, whole = length + len(rest), len(rest) < MAX_LINE_BYTES or rest.endswith(b"\n")
            line = b""
        n_bytes = None if n_bytes is None else n_bytes - length
        yield line or None


def _group_runs(path: Path, name: str, about: pq.FileMetaData) -> Iterator[Partition]:
    first = row = 0
    for group in range(about.num_row_groups):
        rows = [about.row_group(i).num_rows for i in range(first, group + 1)]
        n_bytes = sum(about.row_group(i).total_byte_size for i in range(first, group + 1))
        last = group == about.num_row_groups - 1
        if last or n_bytes >= PARTITION_BYTES:
            yield {
                "file": str(path),
                "name": name,
                "groups": [first, group + 1],
                "row": row,
                "rows": max(sum(rows), 1),
                "bytes": n_bytes,
            }
            first, row = group + 1, row + sum(rows)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None


def _is_plain(path: Path) -> bool:
    return path.suffix not in (".gz", ".zst")


def _unpacked(raw: BinaryIO, path: Path) -> BinaryIO:
    if _is_plain(path):
        return raw
    kind = {".gz": "gzip", ".zst": "zstd"}[path.suffix]
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), kind), _READ_BYTES)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _check_fields(path: Path, known: Iterable[str], source: Source) -> None:
    names = list(known)
    for field, flag in ((source.text_field, "--text-field"), (source.id_field, "--id-field")):
        if field is not None and field not in names:
            raise UserError(
                f"{path} has no field {field!r}.", f"Name the right one with {flag}. {suggestion(field, names)}"
            )


def _not_parquet(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.", "Check that the file is whole."
    )
