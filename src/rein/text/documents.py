"""What flows through the text pipeline: a document, or the reason why there is none.

A source yields `Document | Dropped`; every later step is a plain function that takes a `Document` and gives
one back, or a `Dropped`. Both are counted, so that for every step: documents in = documents kept + dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# Parquet and Arrow hold at most 2 GiB in one value.
MAX_DOCUMENT_BYTES = 1 << 30
NUMBER_BITS = 32  # a document's number in a build: its partition · 2³² + its row


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and where it is from.

    `id` is unique in its corpus; `source` is the recipe's name of where it was read. `url` and `date` (ISO
    8601) are empty where they are not known. `metadata` has what else is worth keeping, as text: the file's
    path, the licence, a package and its version, the language, the classifier's score.
    """

    text: str
    id: str
    source: str
    url: str = ""
    date: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that became no document. Reasons are a few constant texts: they are counted.

    `text` is what a reader that saw some had of it, to show as an example.
    """

    id: str
    reason: str
    text: str = ""


Step = Callable[[Document], Document | Dropped]


def fault(text: str) -> str | None:
    """Why `text` cannot be a document, or None.

    Example  >>> fault("  "), fault("a\\0b"), fault("\\ud800"), fault("fine")
             ('empty', 'NUL character', 'lone surrogate', None)
    """
    if not text or text.isspace():
        return "empty"
    if "\0" in text:
        return "NUL character"
    try:
        n_bytes = n_utf8_bytes(text)
    except UnicodeEncodeError:
        return "lone surrogate"
    return "over 1 GiB" if n_bytes > MAX_DOCUMENT_BYTES else None


def n_utf8_bytes(text: str) -> int:
    """The length of `text` in UTF-8.

    Example  >>> n_utf8_bytes("déjà")
             6
    """
    return len(text) if text.isascii() else len(text.encode("utf-8"))
