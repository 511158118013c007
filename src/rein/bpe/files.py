"""Reading: text files in blocks, so that a file larger than memory can be read, and JSON vocabularies.

Every failure names the file, and for bytes that are not UTF-8 the offset of the first one.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rein.errors import UserError

_BLOCK_BYTES = 1 << 20


def text_blocks(path: Path, max_bytes: int | None = None) -> Iterator[str]:
    """The text of a UTF-8 file, as it is (no newline is translated), block by block.

    With `max_bytes` the text ends there, or up to three bytes earlier: never inside a character.

    Raises   UserError when the file cannot be read, or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with path.open("rb") as file:
            while True:
                room = _BLOCK_BYTES if max_bytes is None else min(_BLOCK_BYTES, max_bytes - offset)
                block = file.read(room)
                pending = len(decoder.getstate()[0])
                cut = max_bytes is not None and offset + len(block) == max_bytes
                try:
                    text = decoder.decode(block, final=not block and not cut)
                except UnicodeDecodeError as error:
                    raise not_utf8(str(path), error.object[error.start], offset - pending + error.start) from None
                offset += len(block)
                if text:
                    yield text
                if not block or cut:
                    return
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None


def read_text(path: Path) -> str:
    """The whole text of a UTF-8 file.  Raises   UserError as `text_blocks` does."""
    return "".join(text_blocks(path))


def not_utf8(source: str, byte: int, offset: int) -> UserError:
    """The error for text that is not UTF-8."""
    return UserError(
        f"{source} is not UTF-8 text: byte 0x{byte:02x} at offset {offset:,}.",
        "Convert it first, for example with `iconv -f LATIN1 -t UTF-8`, or leave the file out.",
    )


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`; `what` says what the file should be.

    Raises   UserError when the file cannot be read, is cut short or is not a JSON object.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not {what}: it stops being JSON at line {error.lineno}, column {error.colno} ({error.msg}).",
            "The file may have been cut short; copy or download it again.",
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not {what}: it holds no JSON object.", "Check the path.")
    return value
