"""Documents on disk: Parquet files, written atomically and read one row group at a time.

    id, text, source, url, date    text columns
    metadata                       a map from text to text

Every stage of a build hands its documents to the next one in such files, and those of a finished corpus stay
beside the tokens, to audit and to re-tokenise: row i of a split, counted over its files in order, is document i
of its token shards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rein.errors import UserError, writing
from rein.text.documents import Document, n_utf8_bytes

COLUMNS = ("text", "id", "source", "url", "date", "metadata")
GROUP_BYTES = 4 << 20
GROUP_DOCUMENTS = 10_000

T = TypeVar("T")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in COLUMNS[:-1]),
        pa.field("metadata", pa.map_(pa.string(), pa.string())),
    ]
)


class DocumentWriter:
    """Writes one Parquet file of documents. It has its name when it is complete and on disk, never before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_documents = self.n_bytes = 0
        self._part = unfinished(path)
        self._file: BinaryIO | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._group: list[Document] = []
        self._group_bytes = 0

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
        columns: list[list[Any]] = [[getattr(document, name) for document in self._group] for name in COLUMNS[:-1]]
        columns.append([list(document.metadata.items()) for document in self._group])
        with writing(self.path):
            if self._parquet is None:
                self._file = self._part.open("wb")
                self._parquet = pq.ParquetWriter(self._file, _SCHEMA, compression="zstd")
            self._parquet.write_table(pa.table(columns, schema=_SCHEMA))
        self._group, self._group_bytes = [], 0

    def _finish(self) -> None:
        if self._group or self._parquet is None:
            self._write_group()  # a file without documents is a file too
        assert self._parquet is not None, "a group was written"
        assert self._file is not None, "a group was written"
        with writing(self.path):
            self._parquet.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._part, self.path)

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the file; after an error, removes what there is of it."""
        try:
            if kind is None:
                self._finish()
        finally:
            for open_file in (self._parquet, self._file):
                if open_file is not None:
                    with suppress(OSError):  # closing writes, and the disk may be full
                        open_file.close()
            self._part.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """The name of a file that is being written, the process in it: two that make the same file do not meet."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name when it is whole and on disk.

    Raises   UserError when the disk is full.
    """
    part = unfinished(path)
    with writing(path):
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Writes an array as .npy, whole or not at all."""
    array = np.ascontiguousarray(array)
    with whole(path) as file:
        np.lib.format.write_array_header_2_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.tobytes())  # numpy's own writing says nothing of a full disk


def load(path: Path) -> Any:
    """The array of an .npy file, as a memory map."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def save_arrays(path: Path, kind: str, version: int, header: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Writes arrays and a header of plain data into an .npz file, whole or not at all.

    Raises   UserError when it cannot be written.
    """
    text = json.dumps({"format": kind, "version": version, **header})
    with whole(path) as file:
        np.savez(file, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)


def load_arrays(
    path: Path, kind: str, version: int, names: Iterable[str], what: str
) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """The header and the arrays of these names that `save_arrays` wrote; nothing but numbers is read.

    Raises   UserError when the file is missing, or does not hold `what`.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != kind or header["version"] != version:
                raise ValueError
            return header, [arrays[name] for name in names]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.", "Check the path.") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile):
        raise UserError(f"{path} does not hold {what} as this Rein writes them.", "Make it anew.") from None


def load_once(loader: Callable[[Path], T], path: str) -> T:
    """What `loader` makes of a file, once for all tasks of this process while the file stays as it is."""
    loaded: T = _load_once(loader, path, Path(path).stat().st_mtime_ns)
    return loaded


@lru_cache(maxsize=4)
def _load_once(loader: Callable[[Path], Any], path: str, mtime_ns: int) -> Any:
    return loader(Path(path))


def read_groups(paths: Iterable[Path], columns: Iterable[str] = COLUMNS) -> Iterator[dict[str, list[Any]]]:
    """The rows of the files, one row group in memory at a time, as column name → values.

    Raises   UserError when a file is missing or damaged.
    """
    for path in paths:
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns)).to_pydict()


def read_texts(path: Path) -> Iterator[tuple[list[str], npt.NDArray[np.int64]]]:
    """The texts of a file and the UTF-8 bytes of each, one row group in memory at a time.

    Raises   UserError as `read_groups` does.
    """
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, columns=["text"]).column(0)
            yield column.to_pylist(), pc.binary_length(column).to_numpy().astype(np.int64)


def read_documents(paths: Iterable[Path]) -> Iterator[Document]:
    """The documents of the files, in order.  Raises   UserError as `read_groups` does."""
    for group in read_groups(paths):
        yield from _documents(group)


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
                    yield from _documents(file.read_row_group(group, columns=list(COLUMNS)).take(here).to_pydict())
                start = end


def _documents(group: dict[str, list[Any]]) -> Iterator[Document]:
    columns = (group[name] for name in COLUMNS)
    for text, id, source, url, date, metadata in zip(*columns, strict=True):
        yield Document(text, id, source, url, date, dict(metadata))


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
