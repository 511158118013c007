"""The cleaned text of a corpus on disk: Parquet files that stay beside the tokens, to audit and to re-tokenise.

    documents/train-00000.parquet    the columns of `Document`, zstd, in row groups of a few megabytes of text

Row i of a split, counted over its files in order, is document i of its token shards.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from rein.errors import UserError, writing
from rein.text.documents import Document, n_utf8_bytes

COLUMNS = tuple(field.name for field in fields(Document))
GROUP_BYTES = 4 << 20
GROUP_DOCUMENTS = 10_000
FILE_BYTES = 512 << 20
_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


class DocumentWriter:
    """Writes the documents of one split. Files get their names when they are complete and on disk."""

    def __init__(self, folder: Path, split: str) -> None:
        self.files: list[dict[str, Any]] = []
        self.n_documents = self.n_bytes = 0
        self._folder, self._split = folder, split
        self._file: BinaryIO | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._group: list[Document] = []
        self._group_bytes = self._file_bytes = self._file_documents = 0

    def append(self, document: Document) -> None:
        """Adds a document.

        Raises   UserError when the disk is full.
        """
        n_bytes = n_utf8_bytes(document.text)
        if (self._group and self._group_bytes + n_bytes > GROUP_BYTES) or len(self._group) >= GROUP_DOCUMENTS:
            self._write_group()
        self._group.append(document)
        self._group_bytes += n_bytes
        self.n_documents += 1
        self.n_bytes += n_bytes

    def _write_group(self) -> None:
        if self._file_bytes and self._file_bytes + self._group_bytes > FILE_BYTES:
            self._finish_file()
        columns = [[getattr(document, name) for document in self._group] for name in COLUMNS]
        with writing(self._path()):
            if self._parquet is None:
                self._file = self._part().open("wb")
                self._parquet = pq.ParquetWriter(self._file, _SCHEMA, compression="zstd")
            self._parquet.write_table(pa.table(columns, schema=_SCHEMA))
        self._file_bytes += self._group_bytes
        self._file_documents += len(self._group)
        self._group, self._group_bytes = [], 0

    def _finish_file(self) -> None:
        if self._parquet is None or self._file is None:
            return
        path = self._path()
        with writing(path):
            self._parquet.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._part(), path)
        self.files.append({"file": path.name, "documents": self._file_documents, "bytes": self._file_bytes})
        self._parquet = self._file = None
        self._file_bytes = self._file_documents = 0

    def _path(self) -> Path:
        return self._folder / f"{self._split}-{len(self.files):05d}.parquet"

    def _part(self) -> Path:
        return self._path().with_suffix(".parquet.part")

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the last file; after an error, removes what there is of it."""
        try:
            if kind is None:
                if self._group:
                    self._write_group()
                self._finish_file()
        finally:
            for unfinished in (self._parquet, self._file):
                if unfinished is not None:
                    with suppress(OSError):  # closing writes, and the disk may be full
                        unfinished.close()
            self._part().unlink(missing_ok=True)


def read_groups(paths: Iterable[Path], columns: Iterable[str] = COLUMNS) -> Iterator[dict[str, list[str]]]:
    """The rows of the files, one row group in memory at a time, as column name → values.

    Raises   UserError when a file is missing or damaged.
    """
    for path in paths:
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns)).to_pydict()


def read_documents(paths: Iterable[Path]) -> Iterator[Document]:
    """The documents of the files, in order.  Raises   UserError as `read_groups` does."""
    for group in read_groups(paths):
        for values in zip(*(group[name] for name in COLUMNS), strict=True):
            yield Document(*values)


def read_at(paths: Iterable[Path], indices: Iterable[int]) -> Iterator[Document]:
    """The documents at some positions of a split, in ascending order; other row groups are not read.

    Raises   UserError when a file is missing or damaged.
    """
    wanted = sorted(indices)
    start = 0
    for path in paths:
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                here = [index - start for index in wanted if start <= index < end]
                if here:
                    rows = file.read_row_group(group, columns=list(COLUMNS)).take(here)
                    yield from (Document(**row) for row in rows.to_pylist())
                start = end


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"The corpus file {path} cannot be read: {str(error).splitlines()[0]}.",
            "Remove the corpus and build it anew.",
        ) from None
