"""What both kinds of tokenizer refuse in the same words: broken text, ids out of range."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.errors import UserError

Ids = npt.NDArray[np.uint32]
AnyIds = Sequence[int] | npt.NDArray[np.integer[Any]]


def check_text(text: str, name: str = "The text") -> None:
    """Refuses a string that is not Unicode text.

    Raises   UserError when `text` has a lone surrogate, naming it and its place.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{name} has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start:,}: "
            "half of a character, which UTF-8 cannot express.",
            "Read the source as bytes and decode it with errors='replace'.",
        ) from None


def check_texts(texts: Iterable[str]) -> None:
    """`check_text` for each of several texts."""
    for index, text in enumerate(texts):
        check_text(text, f"Text {index} of the batch")


def checked_ids(ids: AnyIds, n_vocab: int) -> list[int]:
    """`ids` as a list of Python integers, each of them in the vocabulary.

    Raises   UserError when an id is no whole number, negative, or not below `n_vocab`.
    """
    array = np.asarray(ids).ravel()
    if array.dtype.kind in "iu":
        wrong = array[(array < 0) | (array >= n_vocab)].tolist()
    else:  # an empty list, an integer beyond 64 bits, or no integers
        wrong = [id for id in array.tolist() if not isinstance(id, int) or not 0 <= id < n_vocab]
    if wrong:
        raise UserError(
            f"{wrong[0]} is not a token id: in this vocabulary they are the whole numbers 0 to {n_vocab - 1}.",
            "Use the tokenizer that made these ids.",
        )
    numbers: list[int] = array.tolist()
    return numbers


def sha256_of(value: Any) -> str:
    """The SHA-256 of a value as canonical JSON: keys sorted, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
