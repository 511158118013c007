"""Passwords: what the store keeps of them, and the checking of one.

Flow     a password as typed → argon2id with the parameters of RFC 9106 that argon2-cffi takes for its own → a digest
         a digest and a password → whether they belong together, in the same time whether or not there is a digest
"""

from __future__ import annotations

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from rein.errors import UserError

LEAST_CHARS, MOST_CHARS = 10, 200

_HASHER = PasswordHasher()
# Each digest takes 64 MiB for some 50 ms: more at once would fill the memory, and be no quicker.
_AT_ONCE = threading.BoundedSemaphore(4)
# Of a password that was thrown away: checked where there is none to check. Making one takes long, so it is here.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$kh3fopIzJC8Infv83Sq9pw$QjUzcVwvrIq0ug2p/3Mx0YbqmnuNaMtE91xIIXHmenM"


class Hashed(str):
    """A password as the store keeps it. `hashed` makes one."""

    __slots__ = ()


def hashed(password: str) -> Hashed:
    """What the store keeps of a password. A `Hashed` is one already.

    Raises   UserError when it is too short, too long, or holds what is no character.
    """
    if isinstance(password, Hashed):
        return password
    if not LEAST_CHARS <= len(password) <= MOST_CHARS:
        raise UserError(
            f"A password has {LEAST_CHARS} to {MOST_CHARS} characters, and this one {len(password)}.", "Choose another."
        )
    try:
        password.encode()
    except UnicodeEncodeError:
        raise UserError("The password holds half a surrogate pair, which is no character.", "Choose another.") from None
    with _AT_ONCE:
        return Hashed(_HASHER.hash(_plain(password)))


def belongs(password: str, digest: str | None) -> bool:
    """Whether a digest is of this password. Without a digest: False, after as much work."""
    short = password if len(password) <= MOST_CHARS else ""  # a long one costs more to digest, and is nobody's
    with _AT_ONCE:
        try:
            return _HASHER.verify(digest or _NOBODY, _plain(short)) and digest is not None
        except (VerificationError, InvalidHashError):
            return False


def outdated(digest: str) -> bool:
    """Whether it was made with other parameters than are used now."""
    return _HASHER.check_needs_rehash(digest)


def _plain(password: str) -> bytes:
    # The same password typed on another keyboard may come composed otherwise.
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
