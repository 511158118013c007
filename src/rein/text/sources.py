"""Your own text: folders of files, single files, JSON lines and Parquet tables.

Flow     paths → files in a fixed order → `Document | Dropped`, one at a time.

A source is iterated once; meanwhile `done` of `total` says how far it is, in `unit`. What cannot be a
document is dropped with a reason; a mistake that concerns all of it (a path that does not exist, a wrong
`--text-field`) is a `UserError` at once.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rein.errors import UserError, suggestion
from rein.progress import Progress
from rein.text.documents import MAX_DOCUMENT_BYTES, Document, Dropped, fault

JSONL_NAMES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")
PARQUET_NAMES = (".parquet",)
_READ_BYTES = 1 << 20


class Source(Protocol):
    """Where documents come from."""

    unit: str

    @property
    def total(self) -> float:
        """How much there is to read."""

    @property
    def done(self) -> float:
        """How much of it has been read."""

    def inputs(self) -> Sequence[Path]:
        """The files whose content decides the documents."""

    def __iter__(self) -> Iterator[Document | Dropped]: ...


class Folder:
    """Every file below the folders whose name ends in one of `extensions`: one document per file.

    Hidden files and folders (`.git`) are left out, and so is what is not UTF-8 text. A byte-order mark is cut
    off, and line ends become "\\n", as Python reads text.
    """

    unit = "files"

    def __init__(self, paths: Sequence[Path], extensions: Sequence[str], license: str) -> None:
        self._license = license
        self._files: list[tuple[Path, Path]] = []  # (folder, file relative to it)
        self._wanted = tuple(extension.lower() for extension in extensions)
        for path in paths:
            if not path.is_dir():
                raise UserError(f"{path} is not a folder.", "Give a folder, or read single files with --source text.")
            self._files += [(path, file) for file in _below(path)]
        self._ids_need_root = len(paths) > 1
        self.total, self.done = len(self._files), 0

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return [root / file for root, file in self._files if self._unwanted(file) is None]

    def _unwanted(self, file: Path) -> str | None:
        if any(part.startswith(".") for part in file.parts):
            return "hidden"
        return None if file.name.lower().endswith(self._wanted) else "other file type"

    def __iter__(self) -> Iterator[Document | Dropped]:
        for root, file in self._files:
            id = (root.resolve().name / file if self._ids_need_root else file).as_posix()
            yield self._document(id, root, file)
            self.done += 1

    def _document(self, id: str, root: Path, file: Path) -> Document | Dropped:
        reason = self._unwanted(file)
        if reason:
            return Dropped(id, reason)
        try:
            data = (root / file).read_bytes()
            text = decode(data)
        except OSError:
            return Dropped(id, "unreadable file")
        except UnicodeDecodeError:
            return Dropped(id, "binary file" if b"\0" in data else "not UTF-8")
        return Document(id, text, "folder", root.resolve().name, "", self._license, "", file.as_posix())


class TextFiles:
    """Single files, read whole: one document per file, cut in two by the split (split.py)."""

    unit = "files"

    def __init__(self, paths: Sequence[Path], license: str) -> None:
        for path in paths:
            if not path.is_file():
                fix = "Read folders with --source folder." if path.is_dir() else "Check the path."
                raise UserError(f"{path} is not a file.", fix)
        self._paths, self._license = paths, license
        self.total, self.done = len(paths), 0

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return list(self._paths)

    def __iter__(self) -> Iterator[Document | Dropped]:
        for path in self._paths:
            try:
                if path.stat().st_size > MAX_DOCUMENT_BYTES:
                    raise UserError(
                        f"{path} is larger than 1 GiB, and a text file is one document.",
                        "Split it into documents: files of a folder, or lines of a JSONL file.",
                    )
                text = decode(path.read_bytes())
            except OSError as error:
                raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path} is not UTF-8 text: byte {error.start:,} is 0x{error.object[error.start]:02x}.",
                    "Convert it, for example with `iconv -f latin1 -t utf-8`.",
                ) from None
            reason = fault(text)
            if reason:
                raise UserError(f"{path} cannot be a corpus: {reason}.", "Give a file of plain UTF-8 text.")
            yield Document(path.as_posix(), text, "text", path.name, "", self._license, "", path.as_posix())
            self.done += 1


class JsonLines:
    """One JSON object per line, its text in the field `text_field`; plain, .gz or .zst."""

    unit = "MB"

    def __init__(self, paths: Sequence[Path], text_field: str, license: str) -> None:
        self._files = _files(paths, JSONL_NAMES)
        self._field, self._license = text_field, license
        self.total: float = sum(file.stat().st_size for file in self._files) / 1e6
        self.done = 0.0

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return self._files

    def __iter__(self) -> Iterator[Document | Dropped]:
        before = 0
        for path in self._files:
            with _open(path) as raw:
                try:
                    for number, line in enumerate(_unpacked(raw, path), start=1):
                        yield self._document(path, number, line)
                        self.done = (before + raw.tell()) / 1e6
                except (OSError, EOFError) as error:  # pyarrow's name for a damaged archive
                    raise UserError(f"{path} cannot be read to its end: {error}.", "Check that it is whole.") from None
            before += path.stat().st_size
            self.done = before / 1e6

    def _document(self, path: Path, number: int, line: bytes) -> Document | Dropped:
        id = f"{path.name}:{number}"
        if not line.strip():
            return Dropped(id, "empty line")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return Dropped(id, "not JSON")
        if not isinstance(row, dict):
            return Dropped(id, "not a JSON object")
        if self._field not in row and number == 1:
            raise _no_field(path, self._field, row)
        text = row.get(self._field)
        if not isinstance(text, str):
            return Dropped(id, "no text in the field")
        return Document(id, text, "jsonl", path.name, "", self._license, "", path.as_posix())


class Parquet:
    """One text per row of Parquet tables, in the column `text_field`, one row group in memory at a time."""

    unit = "rows"

    def __init__(self, paths: Sequence[Path], text_field: str, license: str) -> None:
        self._files = _files(paths, PARQUET_NAMES)
        self._field, self._license = text_field, license
        self.total, self.done = 0, 0
        for path in self._files:
            try:
                with pq.ParquetFile(path) as file:
                    self._check(path, file.schema_arrow)
                    self.total += file.metadata.num_rows
            except (OSError, pa.ArrowException) as error:
                raise _not_parquet(path, error) from None

    def _check(self, path: Path, schema: pa.Schema) -> None:
        if self._field not in schema.names:
            raise _no_field(path, self._field, schema.names)
        kind = schema.field(self._field).type
        if not _is_text(kind):
            raise UserError(
                f"The column {self._field!r} of {path} holds {kind}, not text.",
                "Name a text column with --text-field. "
                + suggestion(self._field, [field.name for field in schema if _is_text(field.type)]),
            )

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return self._files

    def __iter__(self) -> Iterator[Document | Dropped]:
        for path in self._files:
            for row, text in enumerate(self._texts(path), start=1):
                id = f"{path.name}:{row}"
                if isinstance(text, str):
                    yield Document(id, text, "parquet", path.name, "", self._license, "", path.as_posix())
                else:
                    yield Dropped(id, "no text in the field" if text is None else "not UTF-8")
                self.done += 1

    def _texts(self, path: Path) -> Iterator[str | bytes | None]:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(1024, columns=[self._field]):
                    # As bytes, because one value that is not UTF-8 would fail the whole batch.
                    for data in batch.column(0).cast(pa.large_binary()).to_pylist():
                        yield None if data is None else _text_or_bytes(data)
        except (OSError, pa.ArrowException) as error:
            raise _not_parquet(path, error) from None


def decode(data: bytes) -> str:
    """UTF-8 text as Python's text mode reads it: without byte-order mark, every line end as "\\n".

    Example  >>> decode(b"\\xef\\xbb\\xbfone\\r\\ntwo\\r")
             'one\\ntwo\\n'
    Raises   UnicodeDecodeError
    """
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def inputs_sha256(paths: Sequence[Path]) -> str:
    """A hash of the files' names and contents: whether a corpus was built from what is there now."""
    all_files = hashlib.sha256()
    if not paths:
        return all_files.hexdigest()
    with Progress("hashing the input", total=len(paths), unit="files") as bar:
        for path in paths:
            try:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                content = f"unreadable: {error.strerror}"
            all_files.update(f"{path.as_posix()}\0{content}\n".encode("utf-8", "surrogateescape"))
            bar.advance()
    return all_files.hexdigest()


def _below(root: Path) -> list[Path]:
    """The files below `root`, relative to it, in an order that no file system changes."""
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    return sorted(files, key=lambda file: file.parts)


def _files(paths: Sequence[Path], names: tuple[str, ...]) -> list[Path]:
    """The files given, and those below the folders given whose names end in one of `names`."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = [path / file for file in _below(path) if file.name.lower().endswith(names)]
            if not below:
                raise UserError(f"{path} holds no file named {' or '.join('*' + name for name in names)}.", "Check it.")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist.", "Check the path.")
    return found


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None


def _unpacked(raw: BinaryIO, path: Path) -> BinaryIO:
    kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    if kind is None:
        return raw
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), kind), _READ_BYTES)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _no_field(path: Path, field: str, known: Iterable[str]) -> UserError:
    return UserError(
        f"{path} has no field {field!r}.",
        f"Name the field that holds the text with --text-field. {suggestion(field, known)}",
    )


def _not_parquet(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.", "Check that the file is whole."
    )
