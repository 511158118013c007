"""The English that every Python installation has: documentation topics and docstrings.

Flow     the standard library and the installed packages → their .py files → `Document | Dropped`.

A file is parsed, never imported: nothing of a package runs. The order is the same on every machine with
the same packages: first the standard library ("python"), then the packages by name, their files by path,
the docstrings by line. Each document names its package, version, licence, file and dotted name.

Left out, each with a counted reason:

    test code                tests speak of bug numbers, not of the thing
    copy of another package  `_vendor` folders: one of the two could be held out
    does not parse as Python
    short docstring          below the source's `min_chars`: mostly a name, said again
    mostly symbols           fewer than 60% letters and spaces: tables, formulas, escape sequences
    mostly repeated          at least half of it is paragraphs of the package's earlier docstrings: generated
                             classes, the asynchronous twin of an API, the same parameters of a hundred functions

Copyright lines are cut off (the licence is a column). Rein's own package is not read. Docstrings of compiled
code (`len.__doc__`) are in no .py file, so not here.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from rein.text.documents import Document, Dropped
from rein.text.recipe import Source
from rein.text.sources import PARTITION_BYTES, Advance, Partition, size_of

STDLIB = "python"
_TOPICS = "pydoc_data/topics.py"
_TEST_FOLDERS = {"test", "tests", "idle_test"}
_VENDOR_FOLDERS = {"_vendor", "_vendored", "vendor", "vendored"}
_MIN_PROSE_FRAC = 0.6
_MAX_REPEATED_FRAC = 0.5
_WORDS = re.compile(r"(?:[^\W\d_]| )+")  # letters and spaces
_COPYRIGHT_LINE = re.compile(
    r"^ *(:copyright:|:license:|copyright \(c\)|\(c\) copyright).*\n?", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True)
class Package:
    """An installed package: what its metadata says, and its .py files relative to `root`."""

    name: str
    version: str
    license: str
    root: Path
    files: tuple[str, ...]


class PyDocs:
    """The documents of the standard library and of every installed package, some packages to a partition."""

    def __init__(self, source: Source, search_path: list[str] | None = None) -> None:
        """`search_path` lists the folders with packages, for tests; by default, Python's own (`sys.path`)."""
        self._source = source
        self._search_path = search_path
        self._paragraphs: set[bytes] = set()  # 8-byte hashes of those met before in the package

    def inputs(self) -> list[Path]:
        """None: a corpus keeps what was installed when it was built, and its manifest names the versions."""
        return []

    def partitions(self) -> list[Partition]:
        """Whole packages, some megabytes of them at a time."""
        partitions: list[Partition] = []
        for package in installed_packages(self._search_path):
            n_bytes = sum(size_of(package.root / file) for file in package.files)
            if not partitions or partitions[-1]["bytes"] + n_bytes > PARTITION_BYTES:
                partitions.append({"packages": [], "bytes": 0})
            partitions[-1]["packages"].append({**asdict(package), "root": str(package.root)})
            partitions[-1]["bytes"] += n_bytes
        return partitions

    def read(self, partition: Partition, advance: Advance) -> Iterator[Document | Dropped]:
        """The documents, and the files and docstrings that are none."""
        for about in partition["packages"]:
            package = Package(**{**about, "root": Path(about["root"])})
            self._paragraphs.clear()
            if not package.files:
                yield Dropped(package.name, "package without .py files")
            for file in package.files:
                yield from self._file(package, file)
                advance(size_of(package.root / file))

    def _file(self, package: Package, file: str) -> Iterator[Document | Dropped]:
        where = f"{package.name}:{file}"
        reason = _unwanted(file)
        if reason:
            yield Dropped(where, reason)
            return
        try:
            code = (package.root / file).read_bytes()
        except OSError:
            yield Dropped(where, "unreadable file")
            return
        try:
            tree = _parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            yield Dropped(where, "does not parse as Python")
            return
        is_topics = package.name == STDLIB and file == _TOPICS
        for mark, name, raw in _topics(tree) if is_topics else _docstrings(tree, _module_name(file)):
            text = _tidy(raw)
            reason = self._not_prose(text)
            if reason:
                yield Dropped(f"{where}:{mark}", reason, text)
                continue
            about = {"package": package.name, "version": package.version, "license": package.license}
            yield Document(text, f"{where}:{mark}", self._source.name, metadata={**about, "object": name, "path": file})

    def _not_prose(self, text: str) -> str | None:
        if len(text) < self._source.shortest:
            return "short docstring"
        if sum(map(len, _WORDS.findall(text))) < _MIN_PROSE_FRAC * len(text):
            return "mostly symbols"
        if self._repeated_frac(text) >= _MAX_REPEATED_FRAC:
            return "mostly repeated"
        return None

    def _repeated_frac(self, text: str) -> float:
        """Which part of the text's characters are paragraphs met before; remembers those it has now."""
        repeated = total = 0
        for paragraph in text.split("\n\n"):
            key = hashlib.blake2b(paragraph.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
            total += len(paragraph)
            repeated += len(paragraph) * (key in self._paragraphs)
            self._paragraphs.add(key)
        return repeated / total


def _unwanted(file: str) -> str | None:
    *folders, name = PurePosixPath(file).parts
    if _TEST_FOLDERS.intersection(folders) or name.startswith("test_") or name == "conftest.py":
        return "test code"
    if _VENDOR_FOLDERS.intersection(folders):
        return "copy of another package"
    return None


# -------------------------------------------------------------------------------------------------- packages


def installed_packages(search_path: list[str] | None = None) -> list[Package]:
    """The standard library, then every installed package by name; of two with one name, the one Python imports."""
    found: dict[str, Package] = {}
    distributions = metadata.distributions() if search_path is None else metadata.distributions(path=search_path)
    for distribution in distributions:
        name = distribution.metadata["Name"]
        if name is None or name.lower() == "rein" or name.lower() in found:
            continue
        files = [file.as_posix() for file in distribution.files or [] if file.suffix == ".py"]
        found[name.lower()] = Package(
            name=name,
            version=distribution.version,
            license=license_of(distribution.metadata),
            root=Path(str(distribution.locate_file(""))),
            files=tuple(sorted(file for file in files if ".." not in file)),
        )
    return [_stdlib(), *(found[name] for name in sorted(found))]


def _stdlib() -> Package:
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for path in root.rglob("*.py"):
        file = path.relative_to(root)
        if not {"site-packages", "dist-packages", "__pycache__"}.intersection(file.parts):
            files.append(file.as_posix())
    return Package(STDLIB, platform.python_version(), "PSF-2.0", root, tuple(sorted(files)))


def license_of(fields: metadata.PackageMetadata) -> str:
    """What a package's metadata says of its licence: the expression, else the field, else the classifiers.

    Some packages put the whole licence text into the field; then the classifiers are the better name, and
    without those the text's first line.
    """
    expressions = fields.get_all("License-Expression")
    if expressions:
        return str(expressions[0]).strip()
    lines = "".join(fields.get_all("License") or []).strip().splitlines()
    if len(lines) == 1 and lines[0].upper() != "UNKNOWN":
        return lines[0].strip()
    classifiers = [
        text.split(" :: ")[-1] for text in fields.get_all("Classifier") or [] if text.startswith("License ::")
    ]
    if classifiers:
        return " AND ".join(classifiers)
    return lines[0].strip() if len(lines) > 1 else "not stated"


# ------------------------------------------------------------------------------------------------ docstrings

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _parse(code: bytes) -> ast.Module:
    with warnings.catch_warnings():  # an invalid escape in somebody's regular expression is not ours to report
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _topics(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(name, name, text) of every entry of the dict that pydoc's topics module assigns."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in ast.literal_eval(node.value).items():
                yield name, f"topics.{name}", text


def _docstrings(tree: ast.Module, module: str) -> Iterator[tuple[str, str, str]]:
    """(line, dotted name, docstring) of the module and of its classes, methods and functions, nested ones too."""
    text = ast.get_docstring(tree, clean=False)
    if text:
        yield "1", module, text
    yield from _docstrings_below(tree.body, module)


def _docstrings_below(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str, str]]:
    for node in _definitions(body):
        name = f"{prefix}.{node.name}"
        text = ast.get_docstring(node, clean=False)
        if text:
            yield str(node.lineno), name, text
        if isinstance(node, ast.ClassDef):
            yield from _docstrings_below(node.body, name)


def _definitions(body: list[ast.stmt]) -> Iterator[_Definition]:
    """The classes and functions of a block, and of the `if`, `try` and `with` blocks in it."""
    for node in body:
        if isinstance(node, _Definition):
            yield node
        elif isinstance(node, ast.If):
            yield from _definitions(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            handled = [statement for handler in node.handlers for statement in handler.body]
            yield from _definitions(node.body + handled + node.orelse + node.finalbody)
        elif isinstance(node, ast.With):
            yield from _definitions(node.body)


def _module_name(file: str) -> str:
    parts = list(PurePosixPath(file).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def _tidy(raw: str) -> str:
    """A docstring without its indentation, trailing spaces, runs of empty lines and copyright lines."""
    lines = [line.rstrip() for line in _COPYRIGHT_LINE.sub("", inspect.cleandoc(raw)).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
