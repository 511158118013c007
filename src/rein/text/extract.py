"""From the bytes of a web page to its text: decoded, checked, extracted and tidied.

In: what a server sent, and the charset it declared. Out: text, or the reason why there is none. WebText's text was
extracted "using a combination of the Dragnet and Newspaper content extractors" (Radford 2019, §2.1). Dragnet no longer
builds on the Pythons of today, so that pair cannot be run; the mode `union` combines two that can.

    fast       resiliparse's main content: a page in about a millisecond
    precise    trafilatura: some fifteen times slower, and less of what is around the text
    union      every line that either of them finds, in page order

A page is written by a stranger. Both parsers are compiled code that nothing can interrupt, and some are quadratic in
how deeply elements nest or in how many attributes a tag has; so one pass over the bytes measures a page first, and
what is beyond `Limits` is never parsed.
"""

from __future__ import annotations

import codecs
import ctypes
import functools
import logging
import os
import re
import threading
import time
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, NamedTuple, TypeVar

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from rein.errors import UserError
from rein.text.markup import measure

Mode = Literal["fast", "precise", "union"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond which a page is dropped unread. Each has its own reason, so that a report says which one bites.

    max_bytes        5 MB: the markup of a long book; parsing takes up to 40 times its size in memory
    max_depth        500 open elements, more than people nest; 10,000 take resiliparse 2 s, and 100,000 minutes
    max_tags         200,000: a second in resiliparse, ten in trafilatura
    max_attributes   1,000 of one tag: the parsers compare each one with all before it, and 100,000 take minutes
    max_s            10 s for trafilatura; resiliparse needs no clock within the limits above
    """

    max_bytes: int = 5_000_000
    max_depth: int = 500
    max_tags: int = 200_000
    max_attributes: int = 1_000
    max_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Extracted:
    """A page's text, and the encoding its bytes were read in (Python's name of it)."""

    text: str
    encoding: str


class _Unusable(Exception):
    """Carries the reason out to `extract`."""


def extract(
    page: bytes, *, mode: Mode = "fast", charset: str | None = None, limits: Limits = Limits()
) -> Extracted | str:
    """The text of a page, or the reason why it has none; no page makes it raise.

    Lines end with a newline alone and have no blanks at their ends; at most one empty line stands between two; no NUL
    and no lone surrogate is left.

    Example  >>> page = b"<html><head><meta charset=latin1></head><body><p>D\\xe9j\\xe0 vu.</p></body></html>"
             >>> extract(page)
             Extracted(text='Déjà vu.', encoding='cp1252')
             >>> extract(b"<html><body></body></html>"), extract(b"<div>" * 9999)
             ('no text found', 'page nests too deep')
    Raises   UserError when trafilatura is needed and not installed.
    """
    try:
        if len(page) > limits.max_bytes:
            raise _Unusable("page too large")
        html, encoding = decode(page, charset)
        # The parsers see what was measured: the same characters, as UTF-8.
        measured = page if encoding == "utf-8" else html.encode("utf-8", "replace")
        reason = measure(measured, limits.max_depth, limits.max_tags, limits.max_attributes)
        if reason:
            raise _Unusable(reason)
        text = tidy(_EXTRACTORS[mode](html, limits))
    except _Unusable as unusable:
        return str(unusable)
    except MemoryError:
        return "out of memory"
    return Extracted(text, encoding) if text else "no text found"


# ---------------------------------------------------------------------------------------------- bytes to characters

_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le"))
_META = re.compile(rb"""<meta\s[^>]*?charset\s*=\s*["']?\s*([^\s"'/>;]+)""", re.IGNORECASE)
_XML = re.compile(rb"""\s*<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]+)""")
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*>")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_HEAD_BYTES = 4096  # where a page declares its charset; the standard looks at 1024, but pages do not keep to it
_SAMPLE_BYTES = 16384  # from the first byte beyond ASCII on, to guess from; guessing takes 0.1 ms per kilobyte

# What browsers read under these names is a superset, of which Python has a codec of another name.
_SUPERSET = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs", "iso8859-11": "cp874"}


def decode(page: bytes, charset: str | None = None) -> tuple[str, str]:
    """The characters of a page, and the encoding they were read in.

    A byte order mark decides, then the charset of the HTTP header, then the page's own (`<meta>`, `<?xml`), then
    UTF-8 if it is valid, then statistics. Labels mean what they mean to browsers (latin1 is cp1252); what is not
    valid becomes U+FFFD.

    Example  >>> decode(b"\\x93quoted\\x94", "ISO-8859-1"), decode("\\ufeffé".encode("utf-16-le"), "latin1")
             (('“quoted”', 'cp1252'), ('é', 'utf-16-le'))
    Source   WHATWG Encoding and HTML standards; there, `<?xml` counts in XHTML alone.
    """
    for mark, encoding in _BOMS:
        if page.startswith(mark):
            return page[len(mark) :].decode(encoding, "replace"), encoding
    declared = _known(charset) or _declared(page[:_HEAD_BYTES])
    if declared:
        return page.decode(declared, "replace"), declared
    try:
        # Not final: a page that was cut inside a character is UTF-8 all the same.
        text, used = codecs.utf_8_decode(page, "strict", False)
        return (text if used == len(page) else text + "\ufffd"), "utf-8"
    except UnicodeDecodeError:
        first = _NOT_ASCII.search(page)
        assert first, "ASCII is valid UTF-8"
        guessed = detect_encoding(page[first.start() : first.start() + _SAMPLE_BYTES])
        encoding = _known(guessed) or "cp1252"
        return page.decode(encoding, "replace"), encoding


def _declared(head: bytes) -> str | None:
    meta = _META.search(_COMMENT.sub(b"", head))
    encoding = _known(meta[1].decode("latin-1")) if meta else None
    if not encoding:
        xml = _XML.match(head)
        encoding = _known(xml[1].decode("latin-1")) if xml else None
    # The declaration was read as ASCII, so it cannot be true.
    return "utf-8" if encoding and encoding.startswith("utf-16") else encoding


@functools.lru_cache(maxsize=256)
def _known(label: str | None) -> str | None:
    """Python's codec of what browsers understand by `label`."""
    name = map_encoding_to_html5(label.strip(" \t\r\n\"'"), fallback_utf8=False) if label else None
    return _SUPERSET.get(name, name) if name else None


# ------------------------------------------------------------------------------------------------ characters to text

_SURROGATES = re.compile("[\ud800-\udfff]")
_EMPTY_LINES = re.compile(r"\n{3,}")


def tidy(text: str) -> str:
    """The text with what `extract` promises.

    Example  >>> tidy(" a \\r\\n\\r\\n\\r\\n\\0b\\u2028c\\n")
             'a\\n\\nb\\nc'
    """
    try:
        text.encode()  # many times faster than a search for surrogates
    except UnicodeEncodeError:
        text = _SURROGATES.sub("", text)
    text = "\n".join(map(str.rstrip, text.replace("\0", "").splitlines())).strip()
    return _EMPTY_LINES.sub("\n\n", text) if "\n\n\n" in text else text


def _fast(html: str, limits: Limits) -> str:
    return _guarded(lambda: extract_plain_text(html, main_content=True))


def _precise(html: str, limits: Limits) -> str:
    trafilatura = _trafilatura()
    html = _XML_DECLARATION.sub("", html, count=1) if html[:200].lstrip().startswith("<?xml") else html
    if "html" not in html[:50].lower():
        html = "<!DOCTYPE html>\n" + html  # trafilatura gives up on a page that does not say early that it is HTML
    try:
        text = _guarded(lambda: within(limits.max_s, lambda: trafilatura.extract(html, include_comments=False)))
        return text or ""
    finally:
        if len(html) > _LARGE_CHARS:
            trafilatura.meta.reset_caches()  # which keep thousands of a page's lines, however long


def _union(html: str, limits: Limits) -> str:
    return merge(tidy(_fast(html, limits)), tidy(_precise(html, limits)))


_LARGE_CHARS = 1_000_000
_EXTRACTORS: dict[Mode, Callable[[str, Limits], str]] = {"fast": _fast, "precise": _precise, "union": _union}


@functools.cache
def _trafilatura() -> ModuleType:
    """Imported when it is first needed: that takes as long as hundreds of pages in the mode `fast`."""
    try:
        import trafilatura
        import trafilatura.meta
    except ImportError as error:
        raise UserError(
            f"The modes precise and union need trafilatura, which cannot be imported: {str(error).splitlines()[0]}",
            "Install it: pip install trafilatura lxml_html_clean",
        ) from error
    for name in ("trafilatura", "htmldate"):  # they log every page that they find nothing in
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return trafilatura


def _guarded(run: Callable[[], T]) -> T:
    try:
        return run()
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except TimeUp:
        raise _Unusable("extraction took too long") from None
    except BaseException:  # a panic of compiled code is no Exception
        raise _Unusable("extractor failed") from None


# ------------------------------------------------------------------------------------------------------ time limits


class TimeUp(BaseException):
    """Raised by the clock inside a running function; no `except Exception` holds it up."""


_AGAIN_S = 1.0  # a TimeUp that was swallowed, say in a destructor, is followed by another
_TICK_S = 0.05


class _Clock:
    """One thread that looks at every deadline of this process, however many pages are read."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.deadlines: dict[int, float] = {}
        self._started = threading.Condition(self.lock)
        self._thread: threading.Thread | None = None

    def start(self, thread_id: int, seconds: float) -> None:
        with self.lock:
            assert thread_id not in self.deadlines, "one time limit inside another"
            self.deadlines[thread_id] = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rein-extract-clock", daemon=True)
                self._thread.start()
            self._started.notify()

    def _run(self) -> None:
        while True:
            with self.lock:
                while not self.deadlines:
                    self._started.wait()
                now = time.monotonic()
                for thread_id, deadline in self.deadlines.items():
                    if now >= deadline:
                        _throw(thread_id, TimeUp)
                        self.deadlines[thread_id] = now + _AGAIN_S
            time.sleep(_TICK_S)


def _throw(thread_id: int, error: type[BaseException] | None) -> None:
    """Raises `error` in a thread at its next step of Python; None takes back what it has not noticed yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error) if error else None)


_clock = _Clock()


def _new_clock() -> None:
    global _clock
    _clock = _Clock()  # a fork has none of its parent's threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_clock)


def within(seconds: float, run: Callable[[], T]) -> T:
    """What `run()` returns, if it takes no longer than `seconds`; in any thread, and without a thread of its own.

    One call of compiled code is not interrupted; the time is up at the first step of Python after it.

    Example  >>> within(1.0, lambda: 7)
             7
    Raises   TimeUp.
    """
    thread_id, clock = threading.get_ident(), _clock
    clock.start(thread_id, seconds)
    try:
        return run()
    finally:
        # Time may be up at any step of this clean-up too, and nothing of it may reach whatever runs next.
        while True:
            try:
                with clock.lock:
                    clock.deadlines.pop(thread_id, None)
                    _throw(thread_id, None)
                break
            except TimeUp:
                continue


# ------------------------------------------------------------------------------------------------ two texts into one


class _Line(NamedTuple):
    text: str
    key: str  # equal for lines that differ in blanks, bullets and cell borders alone
    apart: bool  # an empty line stands before it


_BULLETS = frozenset("•◦▪·*-–")
_CANDIDATES = 32  # places at which a line is looked for among the other extractor's words


def merge(first: str, second: str) -> str:
    """Every line that either of two extractions of one page has, in page order, and none twice.

    The lines that both have, in the longest common order, are the frame. What only one of them found goes between the
    lines of the frame that it stood between, the first's before the second's. A line of one whose words follow each
    other in the other's lines there (broken differently, as around inline code) is not repeated; and of lines that
    both have in another order, the first's place holds.

    Example  >>> print(merge("Title\\nA long paragraph.\\nEnd", "Title\\n- End\\nA note after the end"))
             Title
             A long paragraph.
             End
             A note after the end
    """
    a, b = list(_lines(first)), list(_lines(second))
    places: defaultdict[str, list[int]] = defaultdict(list)
    for j, line in enumerate(b):
        places[line.key].append(j)
    seen: Counter[str] = Counter()
    pairs = []
    for i, line in enumerate(a):
        if seen[line.key] < len(places.get(line.key, ())):
            pairs.append((i, places[line.key][seen[line.key]]))
            seen[line.key] += 1
    in_both = {j for _, j in pairs}
    merged: list[_Line] = []
    i = j = 0
    for at_a, at_b in [*_ascending(pairs), (len(a), len(b))]:
        merged += _between(a[i:at_a], [b[k] for k in range(j, at_b) if k not in in_both])
        merged += a[at_a : at_a + 1]
        i, j = at_a + 1, at_b + 1
    return "".join(("\n" if line.apart else "") + line.text + "\n" for line in merged).strip()


def _lines(text: str) -> Iterator[_Line]:
    apart = False
    for line in text.split("\n"):
        words = [word for word in line.split() if word != "|"]
        if len(words) > 1 and words[0] in _BULLETS:
            del words[0]
        if words or line:
            yield _Line(line, unicodedata.normalize("NFC", " ".join(words)) or line, apart)
        apart = not line


def _ascending(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest part of `pairs` in which both numbers ascend; the first ones do already.

    Example  >>> _ascending([(0, 5), (1, 0), (2, 1), (3, 9)])
             [(1, 0), (2, 1), (3, 9)]
    """
    ends: list[int] = []  # ends[n]: the smallest number that a run of n + 1 can end with
    last: list[int] = []  # and which pair that is
    before: list[int] = []
    for at, (_, j) in enumerate(pairs):
        n = bisect_left(ends, j)
        before.append(last[n - 1] if n else -1)
        ends[n:], last[n:] = [j, *ends[n + 1 :]], [at, *last[n + 1 :]]
    out = []
    at = last[-1] if last else -1
    while at >= 0:
        out.append(pairs[at])
        at = before[at]
    return out[::-1]


def _between(a: list[_Line], b: list[_Line]) -> list[_Line]:
    """The lines of two gaps between the same lines of the frame, without those that the other has in other breaks."""
    if not a or not b:
        return a or b
    held: set[int] = set()  # lines of a that stand for a line of b, and so must stay
    words_a = _Words(a)
    b_only = []
    for line in b:
        covering = words_a.find(line)
        held.update(covering)
        if not covering:
            b_only.append(line)
    words_b = _Words(b_only)
    return [line for i, line in enumerate(a) if i in held or not words_b.find(line)] + b_only


class _Words:
    """The words of consecutive lines, to look a line up in."""

    def __init__(self, lines: list[_Line]) -> None:
        self._words: list[str] = []
        self._line_of: list[int] = []
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for i, line in enumerate(lines):
            for word in line.key.split():
                self._places[word].append(len(self._words))
                self._words.append(word)
                self._line_of.append(i)

    def find(self, line: _Line) -> range:
        """The lines that the words of `line` go through; an empty range where they are not."""
        words = line.key.split()
        for start in self._places.get(words[0], ())[:_CANDIDATES]:
            if self._words[start : start + len(words)] == words:
                return range(self._line_of[start], self._line_of[start + len(words) - 1] + 1)
        return range(0)
