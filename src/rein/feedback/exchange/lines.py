"""Files of JSON that nobody vouches for, row by row: JSON lines or one JSON list, plain, gzip or Zstandard.

Flow     a file → (line number, value) or `Bad`, in order, in the memory of one row

A row that is not JSON, not UTF-8, too long, too deep, or holds what no database keeps (NUL, half a character) is `Bad`
with the line it begins at, and the rest is read on. In a list what follows a syntax error cannot be told apart: it ends
there.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import pyarrow as pa

from rein.errors import UserError
from rein.feedback.exchange.rows import Bad
from rein.report.legible import one_line

Json = Any
MOST_BYTES = 8_000_000  # of a row
MOST_DEEP = 200  # lists and objects in each other
_CHUNK_BYTES = 1 << 20
# As JSON writes them; whether they stand for themselves, only the value tells.
_SUSPECT = re.compile(rb"\\u0000|\\u[dD][89a-fA-F]|\x00")
_GONE = (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException, OSError)


def read_rows(path: Path) -> Iterator[tuple[int, Json] | Bad]:
    """The rows of a file with the number of the line that each begins at, from 1.

    Raises   UserError when the file cannot be opened, or is packed and damaged before its first row.
    """
    with _opened(path) as file:
        yield from _until_torn(_rows(file), path)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.is_dir():
        raise UserError(f"{path} is a folder, but a file is expected.", "Name a file in it.")
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
    with raw:
        if path.suffix == ".gz":
            yield cast(BinaryIO, gzip.GzipFile(fileobj=raw))
        elif path.suffix == ".zst":
            yield pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
        else:
            yield raw


def _until_torn(rows: Iterator[tuple[int, Json] | Bad], path: Path) -> Iterator[tuple[int, Json] | Bad]:
    """The rows as far as the file goes; where a packed file breaks off, that is said as a bad row.

    Raises   UserError where it breaks off before there is any.
    """
    line = 0
    try:
        for row in rows:
            line = row.line if isinstance(row, Bad) else row[0]
            yield row
    except _GONE as error:
        why = one_line(str(error)) or type(error).__name__
        if line == 0:
            kind = {".gz": "whole gzip file", ".zst": "whole Zstandard file"}.get(path.suffix, "file that can be read")
            raise UserError(f"{path} is no {kind}: {why}.", "Get it again; unpacked, its name has no ending.") from None
        yield Bad(line + 1, f"the file breaks off or is damaged here: {why}")


def _rows(file: BinaryIO) -> Iterator[tuple[int, Json] | Bad]:
    head = bytes(file.read(4096)).removeprefix(codecs.BOM_UTF8)
    source = _Bytes(file, head)
    yield from _elements(source) if head.lstrip()[:1] == b"[" else _lines(source)


class _Bytes:
    """A file whose beginning was looked at."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self.file, self.held = file, head

    def read(self, size: int) -> bytes:
        """The next bytes; b"" at the end."""
        data, self.held = self.held, b""
        return data or bytes(self.file.read(size))


# ---------------------------------------------------------------------------------------------------- JSON lines


def _lines(source: _Bytes) -> Iterator[tuple[int, Json] | Bad]:
    for number, line in enumerate(_split(source), 1):
        if line is None:
            yield Bad(number, f"the line is longer than {MOST_BYTES:,} bytes, which is the most for one")
        elif line.strip():
            try:
                text = line.decode("utf-8")
                value = json.loads(text, parse_constant=_no_number)
                if line.count(b"{") + line.count(b"[") > MOST_DEEP:
                    _check_depth(value)
                if _SUSPECT.search(line):
                    _keepable(value)
            except UnicodeDecodeError as error:
                yield Bad(number, f"not UTF-8: byte 0x{error.object[error.start]:02x} at place {error.start + 1}")
            except RecursionError:
                yield Bad(number, _TOO_DEEP)
            except ValueError as error:
                yield Bad(number, _why(error))
            else:
                yield number, value


def _split(source: _Bytes) -> Iterator[bytes | None]:
    """Lines without their end; None for one too long to be held."""
    rest, too_long = b"", False
    while chunk := source.read(_CHUNK_BYTES):
        *whole, tail = chunk.split(b"\n")
        for part in whole:
            line, rest = rest + part, b""
            yield None if too_long or len(line) > MOST_BYTES else line
            too_long = False
        rest += tail
        if len(rest) > MOST_BYTES:
            rest, too_long = b"", True
    if rest or too_long:
        yield None if too_long else rest


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _why(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}, at place {error.pos + 1}"
    return one_line(str(error))


_TOO_DEEP = f"nested too deeply: more than {MOST_DEEP} lists and objects in each other"


def _check_depth(value: Json) -> None:
    """Raises ValueError for what functions that call themselves would not come out of."""
    level = [value]
    for _ in range(MOST_DEEP + 1):
        inside = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [part for parts in inside for part in parts]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _keepable(value: Json) -> None:
    """Raises ValueError for what no database or file can keep."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text has a NUL character, which cannot be kept")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("a text has half a character (a lone surrogate), which cannot be kept")
    elif isinstance(value, dict):
        for name, one in value.items():
            _keepable(name)
            _keepable(one)
    elif isinstance(value, list):
        for one in value:
            _keepable(one)


# --------------------------------------------------------------------------------------------------- a JSON list


def _elements(source: _Bytes) -> Iterator[tuple[int, Json] | Bad]:
    window, decoder = _Window(source), json.JSONDecoder(parse_constant=_no_number)
    try:
        window.take("[")
        if window.next() == "]":
            return
        while True:
            window.next()
            line = window.line
            try:
                value = window.value(decoder)
            except RecursionError:
                yield Bad(line, f"{_TOO_DEEP}; the rest of the list is not read")
                return
            try:
                _check_depth(value)
                _keepable(value)
                yield line, value
            except ValueError as error:
                yield Bad(line, str(error))
            if window.next() != ",":
                window.take("]")
                return
            window.take(",")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        yield Bad(window.line, f"not UTF-8: byte 0x{byte:02x}, near here; the rest of the list is not read")
    except ValueError as error:
        yield Bad(window.line, f"{_why(error)}; the rest of the list is not read")


class _Window:
    """The part of a list that is being read, as text, and the number of the line it has come to."""

    def __init__(self, source: _Bytes) -> None:
        self.source, self.decode = source, codecs.getincrementaldecoder("utf-8")().decode
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def more(self) -> None:
        """Reads on, and lets go of what is behind."""
        data = self.source.read(_CHUNK_BYTES)
        self.ended = not data
        self.text, self.at = self.text[self.at :] + self.decode(data, self.ended), 0

    def move(self, end: int) -> None:
        """Goes on to a place."""
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            end = self.at
            while end < len(self.text) and self.text[end] in " \t\r\n":
                end += 1
            self.move(end)
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def take(self, character: str) -> None:
        """Goes past `character`. Raises ValueError when it is another."""
        if (found := self.next()) != character:
            raise ValueError(f"not a JSON list: {character!r} is expected, but {repr(found) if found else 'it ends'}")
        self.move(self.at + 1)

    def value(self, decoder: json.JSONDecoder) -> Json:
        """The value that begins here. Raises ValueError."""
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:
                    self.move(end)
                    return value
            except json.JSONDecodeError:  # broken, or not all here yet
                if self.ended:
                    raise
            if len(self.text) - self.at > MOST_BYTES:
                raise ValueError(f"not JSON, or longer than {MOST_BYTES:,} bytes")
            self.more()
