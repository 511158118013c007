"""What the desk says no with: a code for programs, a sentence for people.

Flow     a work on the store → `Refused` → the server's answer, or the line of an import that is not taken

    unknown       there is no such thing, or not for this person
    not_yours     it is another person's
    not_open      it was handed in, skipped, or has meanwhile gone to others
    stale         it was changed since it was read
    frozen        its batch takes no more changes; nor does an answer once the labeler saw a researcher's, or what is
                  right
    stopped       the person does not work in this project any more
    bad_value     what was said is none of its kind, or a setting or an item is none
    not_revealed  staged reading: the notes come first
    key_reused    the key of another request
    too_many      more than may be asked at once
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Code = Literal[
    "unknown", "not_yours", "not_open", "stale", "frozen", "stopped", "bad_value", "not_revealed", "key_reused",
    "too_many",
]  # fmt: skip

MOST_ID = 2**63 - 1  # that either database can hold
MOST_KEY = 200  # characters of a client's or an importer's key


class Refused(Exception):
    """A request that the desk does not follow. Nothing of it was kept.

    Example  >>> print(Refused("frozen", "Its batch takes no more changes."))
             Its batch takes no more changes.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code: Code = code
        self.text = text

    def __reduce__(self) -> tuple[type[Refused], tuple[Code, str]]:
        return Refused, (self.code, self.text)  # so that it comes back from another process


def is_id(value: Any) -> bool:
    """Whether a value can be a number that the store gave: databases choke on larger ones.

    Example  >>> is_id(1), is_id(0), is_id(2**63), is_id(True)
             (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_ID


def unstorable(value: Any) -> str:
    """Why a database cannot keep a value; empty when it can.

    Example  >>> unstorable({"post": ["a", "b\\0"]})
             'it has a NUL character'
             >>> unstorable({"post": "ok"})
             ''
    """
    if isinstance(value, str):
        if "\0" in value:
            return "it has a NUL character"
        return "it has half a character (a lone surrogate)" if not _encodes(value) else ""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"{value} is no number that JSON has"
    if isinstance(value, Mapping):
        return next((why for key, one in value.items() for why in (unstorable(key), unstorable(one)) if why), "")
    if isinstance(value, list | tuple):
        return next((why for one in value if (why := unstorable(one))), "")
    return ""


def check_key(key: Any) -> str:
    """A client's key of a request. Raises Refused."""
    if not isinstance(key, str) or not 0 < len(key) <= MOST_KEY or unstorable(key):
        raise Refused("bad_value", f"A request's key is a text of 1 to {MOST_KEY} characters.")
    return key


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
