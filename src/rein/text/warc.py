"""Common Crawl's files: the pages of a WARC or WET archive, and a writer of small ones.

In: a .warc or .wet file, plain or gzip (told by its content). Out: `Page | Dropped` for every record, in file order.
A WARC has what servers sent (`response` records); a WET has text that was extracted before (`conversion` records).

Archives of this size are damaged somewhere. fastwarc reads records, HTTP headers and content encodings; but it ends at
a damaged gzip member, takes a record that was cut short for a whole one, and trusts every length. So where records
begin and end is found here: what is damaged becomes a `Dropped`, and reading goes on at the next gzip member or at the
next line that begins a record.

Source   ISO 28500:2017 (WARC 1.1). Brown 2020, App. A (41 monthly shards of Common Crawl); Radford 2019, §2.1.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from fastwarc.warc import WarcRecord

from rein.errors import UserError, writing
from rein.text.documents import Dropped

# 32 MiB: a record is held in memory as a whole, and no text of value is in a larger page.
MAX_RECORD_BYTES = 1 << 25

_CHUNK_BYTES = 1 << 18
_MAX_HEADER_BYTES = 1 << 16
_HEAD_BYTES = 4096  # of a gzip member, enough to inflate its first line
_MAGIC, _GZIP = b"WARC/", b"\x1f\x8b\x08"
_RECORD = re.compile(rb"(?<=\n)WARC/\d\.\d\r?\n")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_URN = re.compile(r"<urn:uuid:[0-9a-f-]{36}>")
_LENGTH = re.compile(r"[0-9]{1,18}")

_KINDS: dict[str, Literal["html", "text"]] = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/plain": "text",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page as it was crawled.

    `id` is the WARC-Record-ID; a second record of the same id in a file gets "#2" at its end. `charset` is what the
    HTTP header declares. `kind` says whether `payload` is HTML or text. `metadata` has "truncated", the crawler's
    reason, where it cut the page.
    """

    id: str
    url: str
    date: str
    payload: bytes
    kind: Literal["html", "text"] = "html"
    charset: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class Reader:
    """The pages of one archive, and why each other record is none.

        for item in Reader(Path("CC-MAIN-….warc.gz")):
            ...

    Of an archive in gzip, `start` and `end` choose a part: the records that begin in a gzip member which begins
    there. Parts that follow each other have every record once; of an archive in one gzip member, or in none, the first
    part has all.

    The part's bytes are read up to `position_bytes`. It can be iterated over again.
    """

    def __init__(
        self, path: Path, *, start: int = 0, end: int | None = None, max_record_bytes: int = MAX_RECORD_BYTES
    ) -> None:
        """Raises   UserError when the file cannot be read or is no WARC."""
        self._path, self._max_record_bytes = path, max_record_bytes
        self._start = self.position_bytes = start
        try:
            self.size_bytes = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(_CHUNK_BYTES)
                self.gzipped = not head.startswith(_MAGIC) and not _RECORD.search(head)
                if head and self.gzipped and _next_member(file, 0) is None:
                    raise UserError(
                        f"{path} is no WARC file: it begins with {head[:16]!r}, and has no record of WARC/1.0, plain "
                        "or in gzip.",
                        "Name the .warc, .warc.gz, .wet or .wet.gz files of a crawl.",
                    )
        except OSError as error:
            raise UserError(
                f"The archive {path} cannot be read: {error.strerror}.", "Name a .warc.gz or .wet.gz file."
            ) from None
        self._end = self.size_bytes if end is None else end

    def __iter__(self) -> Iterator[Page | Dropped]:
        seen: Counter[str] = Counter()
        if self._start and not self.gzipped:
            return
        with self._path.open("rb") as file:
            pieces = _members(file, self._start, self._end) if self.gzipped else _chunks(file)
            for number, (record, reason) in enumerate(self._records(pieces)):
                self.position_bytes = file.tell()
                place = f"{self._start}+{number}" if self._start else number
                name = record.field("warc-record-id") or f"{self._path.name}:{place}"
                item = reason or _page(record, name, self._max_record_bytes)
                if isinstance(item, str):
                    yield Dropped(name, item)
                    continue
                seen[name] += 1
                yield item if seen[name] == 1 else replace(item, id=f"{name}#{seen[name]}")
        self.position_bytes = self._end

    def _records(self, pieces: Iterator[_Piece]) -> Iterator[tuple[_Record, str]]:
        """Every record, and why it is none, or "": found by its own length, held against what follows it."""
        buffer = _Buffer(pieces)
        while True:
            if not buffer.fill(1):
                if buffer.stop is _Stop.END:
                    return
                if buffer.stop is not _Stop.MEMBER:
                    yield _NO_RECORD, "bytes that are no record" if buffer.stop is _Stop.GARBAGE else "record damaged"
                buffer.resume()
                continue
            if buffer.drop_blank():
                continue
            if not buffer.starts_record():
                yield _NO_RECORD, "bytes that are no record"
                buffer.seek_record(0)
                continue
            begin = buffer.header_end()
            record = _Record(bytes(buffer.data[:begin]), b"")
            length = record.field("content-length")
            if not _LENGTH.fullmatch(length):
                yield record, "record damaged"
                buffer.seek_record(begin or len(_MAGIC))
                continue
            n_bytes, end = int(length), begin + int(length)
            if n_bytes > self._max_record_bytes:
                yield record, "record too large"
                # A length beyond the file is a lie; records may follow.
                buffer.seek_record(begin) if n_bytes > self._most_bytes() else buffer.skip(end)
            elif buffer.fill(end) and buffer.ends_record(end):
                yield _Record(record.header, bytes(buffer.data[begin:end])), ""
                del buffer.data[:end]
            else:
                yield record, "record damaged"
                buffer.seek_record(begin)
                if not buffer.data and buffer.stop is _Stop.DAMAGE:
                    buffer.resume()  # it is this damage

    def _most_bytes(self) -> int:
        return self.size_bytes * (1032 if self.gzipped else 1)  # as far as gzip can compress


# ------------------------------------------------------------------------------------------------ where a record ends


class _Stop(Enum):
    """Why no more bytes can be joined to those in the buffer."""

    END = auto()
    MEMBER = auto()  # a gzip member begins, with a record
    DAMAGE = auto()  # the rest of the gzip member is lost
    LOST = auto()  # a gzip member of which nothing can be read
    GARBAGE = auto()  # something between two gzip members


_Piece = tuple[bytes, bool] | _Stop  # bytes, and whether a gzip member begins with them


class _Record(NamedTuple):
    header: bytes
    block: bytes

    def field(self, name: str) -> str:
        """A field of the WARC header, or ""."""
        found = re.search(rb"(?im)^" + name.encode() + rb":[ \t]*(.*?)[ \t\r]*$", self.header)
        return found[1].decode("utf-8", "replace") if found else ""


_NO_RECORD = _Record(b"", b"")


class _Buffer:
    """The bytes from the current record on, as far as they were needed."""

    def __init__(self, pieces: Iterator[_Piece]) -> None:
        self.data = bytearray()
        self.stop: _Stop | None = None
        self._pieces, self._held = pieces, b""

    def fill(self, n_bytes: int) -> bool:
        """Whether there are that many bytes before the next stop."""
        while len(self.data) < n_bytes and self.stop is None:
            piece = next(self._pieces, _Stop.END)
            if isinstance(piece, _Stop):
                self.stop = piece
            elif piece[1] and piece[0][:5] == _MAGIC[: len(piece[0])]:
                self.stop, self._held = _Stop.MEMBER, piece[0]
            else:
                self.data += piece[0]
        return len(self.data) >= n_bytes

    def resume(self) -> None:
        assert not self.data, "bytes before a stop are still unread"
        self.data += self._held
        self.stop, self._held = None, b""

    def drop_blank(self) -> bool:
        """Whether there were line ends, which are gone now; two of them end every record."""
        n_bytes = len(self.data) - len(self.data.lstrip(b"\r\n")) if self.data[0] in b"\r\n" else 0
        del self.data[:n_bytes]
        return n_bytes > 0

    def starts_record(self) -> bool:
        self.fill(len(_MAGIC))
        return self.data.startswith(_MAGIC)

    def header_end(self) -> int:
        """Where the header ends that begins here, or 0."""
        while not (found := _HEADER_END.search(self.data, 0, _MAX_HEADER_BYTES)):
            if len(self.data) >= _MAX_HEADER_BYTES or not self.fill(len(self.data) + 1):
                return 0
        return found.end()

    def ends_record(self, end: int) -> bool:
        """Whether what follows `end` is what follows a record: two line ends, another record, or nothing."""
        self.fill(end + 4 + len(_MAGIC))
        after = bytes(self.data[end : end + 4 + len(_MAGIC)])
        rest = after.lstrip(b"\r\n")
        if not rest:
            return self.stop is not _Stop.DAMAGE  # the checksum of the gzip member comes last
        return after.startswith(b"\r\n\r\n") or _MAGIC.startswith(rest[: len(_MAGIC)])

    def seek_record(self, start: int) -> None:
        """Drops everything up to the next line that begins a record, or up to the next stop."""
        while not (found := _RECORD.search(self.data, start)):
            del self.data[: max(len(self.data) - 16, 0)]  # which may hold the beginning of such a line
            start = 0
            if not self.fill(len(self.data) + 1):
                self.data.clear()
                return
        del self.data[: found.start()]

    def skip(self, n_bytes: int) -> None:
        """Drops that many bytes without holding them."""
        while n_bytes > len(self.data):
            n_bytes -= len(self.data)
            self.data.clear()
            if not self.fill(1):
                return
        del self.data[:n_bytes]


def _chunks(file: BinaryIO) -> Iterator[_Piece]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk, False


def _members(file: BinaryIO, first_byte: int, end: int) -> Iterator[_Piece]:
    """The content of gzip members, at most `_CHUNK_BYTES` at a time, however well it was compressed.

    They are those from the first that begins a record at or behind `first_byte` to the last before such a one at or
    behind `end`.
    """
    start, raw = 0, b""
    if first_byte:
        found = _next_member(file, first_byte)
        if found is None or found >= end:
            return
        start = found
        file.seek(start)
    while True:
        if len(raw) < len(_GZIP):
            raw += file.read(_CHUNK_BYTES)
        if not raw:
            return
        if start >= end:
            raw += file.read(_HEAD_BYTES - len(raw)) if len(raw) < _HEAD_BYTES else b""
            if _begins_record(raw[:_HEAD_BYTES]):
                return
        whole, first, garbage = False, True, not raw.startswith(_GZIP)
        if not garbage:
            inflate = zlib.decompressobj(31)
            try:
                while not inflate.eof:
                    if not raw and not (raw := file.read(_CHUNK_BYTES)):
                        break
                    content = inflate.decompress(raw, _CHUNK_BYTES)
                    raw = inflate.unconsumed_tail
                    if content:
                        yield content, first
                        first = False
                whole = inflate.eof
            except zlib.error:
                pass
            raw = inflate.unused_data
        if whole:
            start = file.tell() - len(raw)
            continue
        yield _Stop.GARBAGE if garbage else _Stop.LOST if first else _Stop.DAMAGE
        found = _next_member(file, start + 1)
        if found is None or found >= end:
            return
        start, raw = found, b""
        file.seek(start)


def _next_member(file: BinaryIO, start: int) -> int | None:
    """Where the first gzip member from `start` on begins that holds a record."""
    file.seek(start)
    window = b""
    while chunk := file.read(_CHUNK_BYTES):
        window += chunk
        at = window.find(_GZIP)
        while at >= 0:
            begin = file.tell() - len(window) + at
            if _begins_record(window[at : at + _HEAD_BYTES]):
                return begin
            at = window.find(_GZIP, at + 1)
        window = window[-_HEAD_BYTES:]
    return None


def _begins_record(raw: bytes) -> bool:
    try:
        return zlib.decompressobj(31).decompress(raw, len(_MAGIC)) == _MAGIC
    except zlib.error:
        return False


# ------------------------------------------------------------------------------------------------- what a record holds


def _page(record: _Record, name: str, max_bytes: int) -> Page | str:
    url, date = record.field("warc-target-uri").strip("<>"), record.field("warc-date")
    truncated = record.field("warc-truncated")
    metadata = {"truncated": truncated} if truncated else {}
    kind = record.field("warc-type").lower()
    if kind == "conversion":
        if not record.field("content-type").startswith("text/plain"):
            return "not HTML or text"
        return Page(name, url, date, record.block, "text", "utf-8", metadata)
    if kind != "response":
        return "not a response"
    if not record.block.startswith(b"HTTP/"):
        return "no HTTP header"
    http = _http(record, "none")
    if http.http_headers.status_code != 200:
        return "HTTP status not 200"
    media_type = (http.http_content_type or record.field("warc-identified-payload-type")).strip().lower()
    if media_type not in _KINDS:
        return "not HTML or text"
    if "content-encoding" in http.http_headers or "transfer-encoding" in http.http_headers:
        payload = _decoded(record, max_bytes + 1)
        if payload is None:
            return "content encoding not readable"
    else:
        payload = _read(http, max_bytes + 1)
    if len(payload) > max_bytes:
        return "record too large"
    return Page(name, url, date, payload, _KINDS[media_type], http.http_charset, metadata)


def _http(record: _Record, decode: Literal["all", "none"]) -> WarcRecord:
    # A header of ours: fastwarc refuses one that is odd, and nothing of it is needed here.
    header = f"WARC/1.0\r\nContent-Type: application/http\r\nContent-Length: {len(record.block)}\r\n\r\n"
    http = WarcRecord.from_bytes(header.encode() + record.block + b"\r\n\r\n")
    http.parse_http(decode, quirks_mode=True, strict_mode=False)
    return http


def _decoded(record: _Record, n_bytes: int) -> bytes | None:
    """The payload with its encodings undone. Many archives hold the plain page below the header of an encoded one."""
    try:
        return _read(_http(record, "all"), n_bytes)
    except OSError:
        payload = _read(_http(record, "none"), n_bytes)
        return payload if b"<" in payload[:1024] and b"\0" not in payload[:1024] else None


def _read(record: WarcRecord, n_bytes: int) -> bytes:
    """At most `n_bytes` of the payload; it is decoded as it is read."""
    payload = bytearray()
    while len(payload) < n_bytes and (piece := record.reader.read(min(n_bytes - len(payload), _CHUNK_BYTES))):
        payload += piece
    return bytes(payload)


# ------------------------------------------------------------------------------------------------------------ writing


def write(path: Path, pages: Iterable[Page]) -> None:
    """Packs pages as a crawl: a warcinfo record and a response for each page, each a gzip member if `path` ends in .gz.

    The same pages give the same bytes. An `id` that is not of the form <urn:uuid:…> becomes one, by its
    hash: some readers take no other.

    Raises   UserError when `path` cannot be written.
    """
    pack = (lambda record: gzip.compress(record, mtime=0)) if path.suffix == ".gz" else bytes
    part = path.with_name(path.name + ".part")
    with writing(path):
        with part.open("wb") as file:
            info = b"software: rein\r\nformat: WARC File Format 1.0\r\n"
            info_id = _urn(f"warcinfo {path.name}")
            file.write(pack(_packed("warcinfo", info_id, "1970-01-01T00:00:00Z", "application/warc-fields", {}, info)))
            for page in pages:
                media_type = "text/html" if page.kind == "html" else "text/plain"
                charset = f"; charset={page.charset}" if page.charset else ""
                http = (
                    f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}{charset}\r\n"
                    f"Content-Length: {len(page.payload)}\r\n\r\n"
                )
                fields = {"WARC-Target-URI": page.url}
                if "truncated" in page.metadata:
                    fields["WARC-Truncated"] = page.metadata["truncated"]
                name = page.id if _URN.fullmatch(page.id) else _urn(page.id)
                date = page.date or "1970-01-01T00:00:00Z"
                block = http.encode() + page.payload
                file.write(pack(_packed("response", name, date, "application/http; msgtype=response", fields, block)))
        part.replace(path)


def _urn(name: str) -> str:
    return f"<urn:uuid:{uuid.UUID(bytes=hashlib.blake2b(name.encode(), digest_size=16).digest(), version=4)}>"


def _packed(kind: str, name: str, date: str, media_type: str, fields: Mapping[str, str], block: bytes) -> bytes:
    lines = {
        "WARC-Type": kind,
        "WARC-Record-ID": name,
        "WARC-Date": date,
        **fields,
        "Content-Type": media_type,
        "Content-Length": str(len(block)),
    }
    for key, value in lines.items():
        assert value.isprintable(), f"{key} of {name} is {value!r}"
    header = "WARC/1.0\r\n" + "".join(f"{key}: {value}\r\n" for key, value in lines.items()) + "\r\n"
    return header.encode() + block + b"\r\n\r\n"
