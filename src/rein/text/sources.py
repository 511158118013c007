"""Your own text: folders of files, and single files. What every reader of a source is, and which there are.

Flow     a source's paths → files in a fixed order → partitions of a few megabytes → `Document | Dropped`.

A partition is plain data (JSON can hold it), so that it can be sent to another process or machine and read
there. What is in it depends on the files alone, never on how many processes read them. What cannot be a
document is dropped with a reason; a mistake that concerns all of a source (a path that does not exist, a wrong
text field) is a `UserError` at once.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rein.errors import UserError
from rein.progress import Progress
from rein.text.documents import MAX_DOCUMENT_BYTES, Document, Dropped, fault
from rein.text.recipe import Source

PARTITION_BYTES = 16 << 20
PARTITION_FILES = 4000
_HASHED_BYTES = 64 << 20

Partition = dict[str, Any]
Advance = Callable[[float], None]
READERS = {
    "pydocs": "rein.text.pydocs:PyDocs",
    "folder": "rein.text.sources:Folder",
    "text": "rein.text.sources:TextFiles",
    "jsonl": "rein.text.tables:JsonLines",
    "parquet": "rein.text.tables:Parquet",
    "huggingface": "rein.text.tables:HuggingFace",
    "html": "rein.text.pages:HtmlFolder",
    "warc": "rein.text.pages:Crawl",
}


class Reader(Protocol):
    """Where documents come from. It is made of its `Source`, in each process anew, and must be cheap to make."""

    def inputs(self) -> Sequence[Path]:
        """The files whose content decides the documents."""

    def partitions(self) -> list[Partition]:
        """What there is to read, in order; each with its "bytes".  Raises   UserError when it cannot be read."""

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """The documents of one of them; `advance` is told how many bytes more have been read."""


def open_source(source: Source) -> Reader:
    """The reader of a source's kind.

    Raises   UserError when a reader of the user's own cannot be imported.
    """
    reader: Reader = load_object(READERS.get(source.kind, source.kind), f"The kind of the source {source.name!r}")(
        source
    )
    return reader


def load_object(name: str, what: str) -> Any:
    """What `package.module:Name` names; modules are looked for in the current folder first, as `python -m` does.

    Example  >>> load_object("math:sqrt", "a step")(16.0)
             4.0
    Raises   UserError when there is no such module, it fails while it is imported, or nothing in it has that name.
    """
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)  # an installed command, unlike `python -m`, has its own folder there
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{what} is {name!r}, which cannot be imported: {error}. It was looked for in {here}, and among what is "
            "installed.",
            "Name it as package.module:Name, and run the command in the folder that holds the package or module.py.",
        ) from None
    except Exception as error:  # the module is the user's own
        raise UserError(
            f"{what} is {name!r}, which cannot be imported: {type(error).__name__}: {error}.", f"Mend {module}."
        ) from None
    finally:
        if here in sys.path:
            sys.path.remove(here)
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise UserError(f"{what} is {name!r}, but {module} has no {attribute!r}.", "Check the name.") from None


def read_all(reader: Reader) -> Iterator[Document | Dropped]:
    """Everything a reader has, one partition after the other."""
    for partition in reader.partitions():
        yield from reader.read(partition, lambda _: None)


# --------------------------------------------------------------------------------------------------- two readers


class Folder:
    """Every file below the folders whose name ends in one of `extensions`: one document per file.

    Hidden files and folders (`.git`) are left out, and so is what is not UTF-8 text. A byte-order mark is cut
    off, and line ends become "\\n", as Python reads text.
    """

    def __init__(self, source: Source, extensions: tuple[str, ...] | None = None) -> None:
        self._source = source
        self._wanted = tuple(extension.lower() for extension in extensions or source.extensions)

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return [root / file for root, file in self.files() if self.unwanted(file) is None]

    def partitions(self) -> list[Partition]:
        """Files in the order of their paths, some megabytes of them at a time."""
        return batches(self.files(), named=len(expand(self._source.paths)) > 1)

    def files(self) -> list[tuple[Path, Path]]:
        """(folder, file relative to it) of everything below the folders.

        Raises   UserError when one is not a folder.
        """
        found: list[tuple[Path, Path]] = []
        for path in expand(self._source.paths):
            if not path.is_dir():
                raise UserError(f"{path} is not a folder.", "Give a folder, or read single files with --source text.")
            found += [(path, file) for file in below(path)]
        return found

    def unwanted(self, file: Path) -> str | None:
        """Why a file, by its name alone, is none of ours."""
        if any(part.startswith(".") for part in file.parts):
            return "hidden"
        return None if file.name.lower().endswith(self._wanted) else "other file type"

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """One document per file."""
        for id, path, file in files_of(partition):
            yield self.document(id, path, file)
            advance(size_of(path))

    def document(self, id: str, path: Path, file: Path) -> Document | Dropped:
        """The document of one file."""
        reason = self.unwanted(file)
        if reason:
            return Dropped(id, reason)
        try:
            data = path.read_bytes()
            text = decode(data)
        except OSError:
            return Dropped(id, "unreadable file")
        except UnicodeDecodeError:
            return Dropped(id, "binary file" if b"\0" in data else "not UTF-8")
        metadata = {"path": file.as_posix(), "license": self._source.license}
        return Document(text, id, self._source.name, metadata=metadata)


class TextFiles:
    """Single files, read whole: one document per file, cut in two by the split (split.py)."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def inputs(self) -> list[Path]:
        """The files that are read."""
        return expand(self._source.paths)

    def partitions(self) -> list[Partition]:
        """The files, some megabytes of them at a time."""
        paths = expand(self._source.paths)
        for path in paths:
            if not path.is_file():
                fix = "Read folders with --source folder." if path.is_dir() else "Check the path."
                raise UserError(f"{path} is not a file.", fix)
        return batches([(Path(), path) for path in paths], named=False)

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """One document per file.  Raises   UserError when one cannot be used: each of them was named."""
        for id, path, _ in files_of(partition):
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
            metadata = {"path": path.as_posix(), "license": self._source.license}
            yield Document(text, id, self._source.name, metadata=metadata)
            advance(size_of(path))


# ---------------------------------------------------------------------------------------------- what readers share


def decode(data: bytes) -> str:
    """UTF-8 text as Python's text mode reads it: without byte-order mark, every line end as "\\n".

    Example  >>> decode(b"\\xef\\xbb\\xbfone\\r\\ntwo\\r")
             'one\\ntwo\\n'
    Raises   UnicodeDecodeError
    """
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def expand(paths: Sequence[Path]) -> list[Path]:
    """The paths, those with * or ** replaced by what they match, in order.

    Raises   UserError when a path does not exist, or a pattern matches nothing.
    """
    found: list[Path] = []
    for path in paths:
        if path.exists():
            found.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True)) if any(mark in str(path) for mark in "*?[") else []
        if not matches:
            raise UserError(f"{path} does not exist.", "Check the path.")
        found += map(Path, matches)
    return found


def find_files(paths: Sequence[Path], names: tuple[str, ...]) -> list[Path]:
    """The files given, and those below the folders given whose names end in one of `names`.

    Raises   UserError when there is none.
    """
    found: list[Path] = []
    for path in expand(paths):
        if path.is_dir():
            here = [path / file for file in below(path) if file.name.lower().endswith(names)]
            if not here:
                raise UserError(f"{path} holds no file named {' or '.join('*' + name for name in names)}.", "Check it.")
            found += here
        else:
            found.append(path)
    return found


def named(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """The files with the shortest names that tell them apart: the last parts of their paths, as many as it takes.

    Example  >>> [name for _, name in named([Path("a/x.jsonl"), Path("b/x.jsonl"), Path("c/y.jsonl")])]
             ['a/x.jsonl', 'b/x.jsonl', 'c/y.jsonl']
    """
    most = max((len(path.parts) for path in paths), default=1)
    for length in range(1, most):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(paths):
            return list(zip(paths, names, strict=True))
    return [(path, path.as_posix()) for path in paths]


def below(root: Path) -> list[Path]:
    """The files below `root`, relative to it, in an order that no file system changes; links are not followed.

    Raises   UserError when a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"The folder {error.filename} cannot be read: {error.strerror}.", "See its permissions.")

    found = [Path(folder, name) for folder, _, names in os.walk(root, onerror=refuse) for name in names]
    return sorted((path.relative_to(root) for path in found), key=lambda file: file.parts)


def batches(files: Sequence[tuple[Path, Path]], *, named: bool, most_bytes: int = PARTITION_BYTES) -> list[Partition]:
    """(folder, file) pairs in order, cut into partitions of some megabytes. `named`: ids start with the folder."""
    partitions: list[Partition] = []
    for root, file in files:
        n_bytes = size_of(root / file)
        last = partitions[-1] if partitions else None
        if (
            last is None
            or last["root"] != str(root)
            or last["bytes"] + n_bytes > most_bytes
            or len(last["files"]) >= PARTITION_FILES
        ):
            last = {"root": str(root), "named": named, "files": [], "bytes": 0}
            partitions.append(last)
        last["files"].append(str(file))
        last["bytes"] += n_bytes
    return partitions


def files_of(partition: Partition) -> Iterator[tuple[str, Path, Path]]:
    """(id, path, path below its folder) of the files that `batches` put together."""
    root = Path(partition["root"])
    prefix = Path(root.resolve().name) if partition["named"] else Path()
    for name in partition["files"]:
        yield (prefix / name).as_posix(), root / name, Path(name)


def size_of(path: Path) -> int:
    """The bytes of a file; none where it cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def inputs_sha256(paths: Sequence[Path]) -> str:
    """A hash of the files' names and contents: whether a corpus was built from what is there now.

    Of a file above 64 MiB, its size, the time it was last written to and its two ends stand for the content: to
    read a crawl once more only to learn that it is the same would take as long as building from it.
    """
    all_files = hashlib.sha256()
    if not paths:
        return all_files.hexdigest()
    with Progress("checking the input", total=len(paths), unit="files") as bar:
        for path in paths:
            try:
                content = _content_sha256(path)
            except OSError as error:
                content = f"unreadable: {error.strerror}"
            all_files.update(f"{path.as_posix()}\0{content}\n".encode("utf-8", "surrogateescape"))
            bar.advance()
    return all_files.hexdigest()


def _content_sha256(path: Path) -> str:
    with path.open("rb") as file:
        about = path.stat()
        if about.st_size <= _HASHED_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        ends = hashlib.sha256(file.read(1 << 20))
        file.seek(-(1 << 20), 2)
        ends.update(file.read())
        return f"{about.st_size} {about.st_mtime_ns} {ends.hexdigest()}"
