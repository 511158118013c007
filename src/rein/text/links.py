"""Which pages of the web are worth reading: those that people linked to and others voted for.

Flow     a dump of links (url, score, date) → `read_links` by `LinkRules` → `Links`; document, Links → `keep_linked`

WebText took the pages behind every outbound link from Reddit that had at least 3 karma, up to December 2017, and left
Wikipedia out, because many test sets are made of it. A row of the dump is kept, or dropped for one counted reason;
the checks go in this order: score, date, address, host, page seen before.

A page is kept as 64 bits of the hash of its canonical address, with its score and day: 16 bytes. Among the 45 million
links of WebText, two different pages have the same hash with a probability of n² / 2⁶⁵ = 5·10⁻⁵; that a page nobody
linked to is taken for one of them has n / 2⁶⁴ = 2·10⁻¹², so 0.002 such pages among a billion.

Source   Radford 2019, §2.1.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rein.errors import UserError, suggestion
from rein.text.documents import Document, Dropped
from rein.text.store import load_arrays, save_arrays

LINK_NAMES = (".csv", ".jsonl", ".ndjson", ".parquet")
COLUMNS = ("url", "score", "date")
NOT_A_ROW = "not a row"
BAD_SCORE, LOW_SCORE = "score is no whole number", "score too low"
BAD_DATE, LATE = "date not understood", "linked too late"
NO_URL, EXCLUDED, AGAIN = "no web address", "excluded host", "page linked before"
NO_DOCUMENT_URL, NOT_LINKED = "document without a web address", "not linked"

FORMAT = "rein-links"
FORMAT_VERSION = 1
_ARRAYS = ("pages", "scores", "days")

_EPOCH = date(1970, 1, 1).toordinal()
_INT32 = 2**31
_TRACKING = frozenset(
    [
        "fbclid",
        "gclid",
        "gclsrc",
        "dclid",
        "gbraid",
        "wbraid",
        "msclkid",
        "yclid",
        "twclid",
        "igshid",
        "mc_cid",
        "mc_eid",
    ]
)
_INDEX = frozenset(f"{name}.{kind}" for name in ("index", "default") for kind in ("html", "htm", "php", "asp", "aspx"))
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_LITERAL = _UNRESERVED | frozenset("!$&'()*+,;=:@/")  # RFC 3986: what a path may hold as it is
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)+[a-z0-9-]{2,63}|(?:\d{1,3}\.){3}\d{1,3}")
_SECONDS = re.compile(r"(?!\d{8}\Z)\d+(\.\d*)?")
_IPV6 = re.compile(r"\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True)
class LinkRules:
    """Which links count. The defaults are the paper's."""

    min_score: int = 3
    until: str = "2017-12-31"  # the last day that counts (UTC)
    exclude_hosts: tuple[str, ...] = ("wikipedia.org",)  # and every host below them

    def __post_init__(self) -> None:
        """Raises   UserError when `until` is no day, or a host is no host name."""
        try:
            date.fromisoformat(self.until)
        except ValueError:
            raise UserError(f"until is {self.until!r}, but it must be a day.", "Write it like 2017-12-31.") from None
        for host in self.exclude_hosts:
            if canonical_url(f"https://{host}") != f"https://{host}":
                raise UserError(
                    f"exclude_hosts has {host!r}, but it must be a host name.", "Write it like wikipedia.org."
                )


# -------------------------------------------------------------------------------------------------- addresses


def canonical_url(url: str) -> str | None:
    """The same text for all addresses of a page, or None for what is no address on the web.

    What one server practically always answers alike is made one:

        http and https, and their ports 80 and 443; user names; fragments; "www."; upper and lower case of hosts;
        hosts in Unicode and in Punycode; a dot behind the host; "." and ".." in paths; a slash at the end; index.html
        and default.asp and their like; %7E and ~ and other percent signs that say the same; empty and tracking
        parameters (utm_…, fbclid, gclid, …)

    Case of paths, order of parameters, "m." and every other subdomain stay, for servers tell them apart. It is a key
    to compare by, not an address to fetch from.

    Example  >>> canonical_url("HTTP://www.Example.com:80/%7Ebob/./index.html?utm_source=x&b=2#top")
             'https://example.com/~bob?b=2'
             >>> canonical_url("https://bücher.example/"), canonical_url("ftp://example.com")
             ('https://xn--bcher-kva.example', None)
    Source   RFC 3986, §6.2; the list of tracking parameters is ours.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = _host(parts.hostname or "")
        if parts.scheme not in ("http", "https") or host is None:
            return None
        path, query = _path(_percent(parts.path)), _query(parts.query)
    except ValueError:  # a port or a bracket out of place, a lone surrogate
        return None
    shown_port = "" if port in (None, 80, 443) else f":{port}"
    return f"https://{host}{shown_port}{path}{'?' if query else ''}{query}"


def _host(host: str) -> str | None:
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    elif ":" in host:
        host = f"[{host}]"
    host = host.lower().removesuffix(".")
    while host.startswith("www.") and "." in host[4:]:
        host = host[4:]
    return host if _HOST.fullmatch(host) or _IPV6.fullmatch(host) else None


def _path(path: str) -> str:
    """Without dot segments (RFC 3986, §5.2.4), slashes at the end, and index pages."""
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    while kept and (not kept[-1] or kept[-1].lower() in _INDEX):
        kept.pop()
    return "".join(f"/{segment}" for segment in kept)


def _query(query: str) -> str:
    kept = []
    for parameter in query.split("&"):
        normal = _percent(parameter)
        name = normal.partition("=")[0].lower()
        if normal and not name.startswith("utm_") and name not in _TRACKING:
            kept.append(normal)
    return "&".join(kept)


def _percent(text: str) -> str:
    """Percent signs where they are needed, and only there, with upper-case digits.

    Example  >>> _percent("/%7ebob/a b/%e4%2f/100%/é")
             '/~bob/a%20b/%E4%2F/100%25/%C3%A9'
    """
    if _LITERAL.issuperset(text):
        return text
    return re.sub(r"%[0-9A-Fa-f]{2}|.", _percent_one, text, flags=re.DOTALL)


def _percent_one(match: re.Match[str]) -> str:
    found = match[0]
    if len(found) == 3:
        character = chr(int(found[1:], 16))
        return character if character in _UNRESERVED else found.upper()
    return found if found in _LITERAL else "".join(f"%{byte:02X}" for byte in found.encode("utf-8"))


def page_hash(canonical: str) -> int:
    """64 bits that stand for a page.

    Example  >>> page_hash("https://example.com") == page_hash("https://example.com") != page_hash("https://example.org")
             True
    """
    return int.from_bytes(hashlib.blake2b(canonical.encode("ascii"), digest_size=8).digest(), "little")


def _excluded(canonical: str, hosts: Sequence[str]) -> bool:
    host = canonical.removeprefix("https://").partition("/")[0].partition("?")[0].partition(":")[0]
    return any(host == one or host.endswith("." + one) for one in hosts)


# ------------------------------------------------------------------------------------------- scores and dates


def score_of(value: object) -> int | None:
    """A score as a whole number, or None.

    Example  >>> score_of("3"), score_of(4.0), score_of("-2"), score_of("3.5"), score_of(""), score_of(True)
             (3, 4, -2, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) and abs(number) < _INT32 else None


def day_of(value: object) -> int | None:
    """A date as days since 1970 (UTC), or None: ISO 8601, or seconds since 1970.

    Eight digits are a date (20171231), any other number is seconds.

    Example  >>> day_of("1970-01-03"), day_of("1970-01-03T23:30:00-01:00"), day_of(86400), day_of("172800.5")
             (2, 3, 1, 2)
             >>> day_of("yesterday"), day_of(""), day_of(1e15)
             (None, None, None)
    """
    if isinstance(value, datetime):
        value = value.isoformat()
    elif isinstance(value, date):
        return value.toordinal() - _EPOCH
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        if isinstance(value, str) and not _SECONDS.fullmatch(value.strip()):
            moment = datetime.fromisoformat(value.strip())
            if moment.tzinfo is not None:
                moment = moment.astimezone(UTC)
        else:
            moment = datetime.fromtimestamp(float(value), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.toordinal() - _EPOCH


# ------------------------------------------------------------------------------------------------------ links


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """The pages that were linked to and voted for: the highest score of each, and the first day.

    Of every page those rows count that are kept by the rules. rows = pages + Σ dropped.

    Shapes   pages (L,) uint64, ascending; scores, days (L,) int32, days since 1970.
    """

    pages: npt.NDArray[np.uint64]
    scores: npt.NDArray[np.int32]
    days: npt.NDArray[np.int32]
    rules: LinkRules
    rows: int
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.pages)

    def select(self, url: str) -> tuple[int, str] | None:
        """The score and the day (ISO 8601) of the page at an address, or None where it is not linked."""
        canonical = canonical_url(url)
        if canonical is None:
            return None
        page = np.uint64(page_hash(canonical))
        at = int(np.searchsorted(self.pages, page))
        if at == len(self.pages) or self.pages[at] != page:
            return None
        return int(self.scores[at]), date.fromordinal(int(self.days[at]) + _EPOCH).isoformat()

    def save(self, path: Path) -> None:
        """Writes the links into an .npz file.

        Raises   UserError when it cannot be written.
        """
        header = {"rules": asdict(self.rules), "rows": self.rows, "dropped": dict(self.dropped)}
        save_arrays(path, FORMAT, FORMAT_VERSION, header, {name: getattr(self, name) for name in _ARRAYS})

    @staticmethod
    def load(path: Path) -> Links:
        """The links that `save` wrote.

        Raises   UserError when the file is missing, or is not such a file.
        """
        header, (pages, scores, days) = load_arrays(path, FORMAT, FORMAT_VERSION, _ARRAYS, "links")
        rules = header["rules"]
        kept = LinkRules(rules["min_score"], rules["until"], tuple(rules["exclude_hosts"]))
        return Links(pages, scores, days, kept, header["rows"], header["dropped"])


def gather_links(rows: Iterable[tuple[object, object, object] | None], rules: LinkRules) -> Links:
    """The links of (url, score, date) rows; None stands for a row that could not be read as one.

    Units    memory: 16 bytes per row that the rules keep, and some 50 more for each at the end, to sort them.
    Example  >>> links = gather_links([("http://a.example/x", 3, "2017-12-31"), ("https://a.example/x/", "9", 0),
             ...                       ("http://b.example", 2, 0)], LinkRules())
             >>> len(links), links.select("http://www.a.example/x#top"), links.select("http://b.example")
             (1, (9, '1970-01-01'), None)
             >>> links.dropped
             {'score too low': 1, 'page linked before': 1}
    """
    pages, scores, days = array("Q"), array("i"), array("i")
    last_day = date.fromisoformat(rules.until).toordinal() - _EPOCH
    dropped: Counter[str] = Counter()
    n_rows = 0
    for row in rows:
        n_rows += 1
        kept = _kept(row, rules, last_day)
        if isinstance(kept, str):
            dropped[kept] += 1
            continue
        page, score, day = kept
        pages.append(page)
        scores.append(score)
        days.append(day)
    all_pages = np.frombuffer(pages, dtype=np.uint64)
    order = np.argsort(all_pages, kind="stable")
    all_pages = all_pages[order]
    firsts = np.flatnonzero(np.concatenate([[True], all_pages[1:] != all_pages[:-1]])[: len(all_pages)])
    if len(firsts) < len(all_pages):
        dropped[AGAIN] += len(all_pages) - len(firsts)
    if len(firsts):
        best = np.maximum.reduceat(np.frombuffer(scores, dtype=np.int32)[order], firsts)
        first_day = np.minimum.reduceat(np.frombuffer(days, dtype=np.int32)[order], firsts)
    else:
        best = first_day = np.zeros(0, dtype=np.int32)
    return Links(all_pages[firsts], best, first_day, rules, n_rows, dict(dropped))


def _kept(row: tuple[object, object, object] | None, rules: LinkRules, last_day: int) -> tuple[int, int, int] | str:
    """The hash, score and day of a row, or why it is dropped."""
    if row is None:
        return NOT_A_ROW
    url, raw_score, raw_date = row
    score = score_of(raw_score)
    if score is None:
        return BAD_SCORE
    if score < rules.min_score:
        return LOW_SCORE
    day = day_of(raw_date)
    if day is None:
        return BAD_DATE
    if day > last_day:
        return LATE
    canonical = canonical_url(url) if isinstance(url, str) else None
    if canonical is None:
        return NO_URL
    if _excluded(canonical, rules.exclude_hosts):
        return EXCLUDED
    return page_hash(canonical), score, day


def keep_linked(document: Document, links: Links) -> Document | Dropped:
    """A document whose page is among the links, with its "link_score" and "link_date" as metadata."""
    link = links.select(document.url)
    if link is None:
        return Dropped(document.id, NOT_LINKED if canonical_url(document.url) else NO_DOCUMENT_URL)
    score, day = link
    return replace(document, metadata={**document.metadata, "link_score": str(score), "link_date": day})


# ---------------------------------------------------------------------------------------------------- reading


def read_links(paths: Sequence[Path], rules: LinkRules) -> Links:
    """The links of dump files: .csv with a header, .jsonl (both also packed, .gz or .zst), .parquet.

    Each has the fields url, score and date (ISO 8601, or seconds since 1970). Rows are read one after the other.

    Raises   UserError when a path does not exist, has another name, lacks a field, or cannot be read to its end.
    """
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is not a file.", "Name the files of the dump.")
        if _kind(path) is None:
            raise UserError(
                f"{path} is no dump of links: its name does not tell its format.",
                f"Name it *{', *'.join(LINK_NAMES)}; text files may be packed as .gz or .zst.",
            )
    return gather_links((row for path in paths for row in _rows(path)), rules)


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    packed = name.endswith((".gz", ".zst"))
    name = name.removesuffix(".gz").removesuffix(".zst")
    kind = next((kind for kind in LINK_NAMES if name.endswith(kind)), None)
    return None if packed and kind == ".parquet" else kind


def _rows(path: Path) -> Iterator[tuple[object, object, object] | None]:
    kind = _kind(path)
    try:
        if kind == ".parquet":
            with pq.ParquetFile(path) as table:
                _check(path, table.schema_arrow.names)
                for batch in table.iter_batches(1 << 16, columns=list(COLUMNS)):
                    yield from zip(*(_values(batch.column(name)) for name in COLUMNS), strict=True)
            return
        # What is not UTF-8 becomes a surrogate, which no address can hold: it costs its own row alone.
        with io.TextIOWrapper(
            io.BufferedReader(pa.input_stream(str(path), compression="detect")),
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
        ) as file:
            yield from _csv_rows(path, file) if kind == ".csv" else _json_rows(path, file)
    except (OSError, EOFError, ValueError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read to its end: {error}.", "Check that it is whole.") from None


def _values(column: pa.Array) -> list[object]:
    if pa.types.is_timestamp(column.type):  # Python's datetime knows no nanoseconds; without a zone, it is UTC
        column = column.cast(pa.timestamp("us"), safe=False)
    values: list[object] = column.to_pylist()
    return values


def _csv_rows(path: Path, file: TextIO) -> Iterator[tuple[object, object, object] | None]:
    reader = csv.reader(file)
    header = next(reader, [])
    _check(path, header)
    url, score, day = (header.index(name) for name in COLUMNS)
    for row in reader:
        yield (row[url], row[score], row[day]) if len(row) == len(header) else None


def _json_rows(path: Path, file: TextIO) -> Iterator[tuple[object, object, object] | None]:
    for number, line in enumerate(file, start=1):
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            yield None
            continue
        if number == 1:
            _check(path, row)
        yield row.get("url"), row.get("score"), row.get("date")


def _check(path: Path, names: Iterable[str]) -> None:
    known = list(names)
    for name in COLUMNS:
        if name not in known:
            raise UserError(
                f"{path} has no field {name!r}: a dump of links has url, score and date.",
                f"Rename its fields. {suggestion(name, known)}" if known else "Give it a header line.",
            )
