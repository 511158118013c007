"""What flows through the text pipeline: a document, or the reason why there is none.

A source yields `Document | Dropped`; every later step takes a `Document` and passes it on, or gives back
a `Dropped`. Both are counted, so that for a finished corpus: items in = documents kept + items dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

# Parquet and Arrow hold at most 2 GiB in one value.
MAX_DOCUMENT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and where it is from.

    `id` is unique in its corpus. `object` is the thing described (a dotted Python name), where there is
    one; `path` is the file, relative to the package or to the folder that was given.
    """

    id: str
    text: str
    source: str
    package: str
    version: str
    license: str
    object: str
    path: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that became no document. Reasons are a few constant texts: they are counted."""

    id: str
    reason: str


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
