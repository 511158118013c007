"""What pseudonyms are made with: 32 bytes that belong to one store, made once.

Flow     a SQLite file → a file beside it that its owner alone may read
         PostgreSQL → a row of the database, so that a pseudonym is the same from whichever machine an export is made
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sqlalchemy import Connection, insert, select

from rein.errors import UserError, writing
from rein.feedback import tables
from rein.run import sync

BYTES = 32


def secret_of(conn: Connection) -> bytes:
    """The secret in a database; made where there is none yet."""
    table = tables.secret
    found: str | None = conn.execute(select(table.c.value)).scalar()
    if found is None:
        found = secrets.token_hex(BYTES)
        conn.execute(insert(table).values(id=1, value=found))
    return bytes.fromhex(found)


def secret_of_file(path: Path) -> bytes:
    """The secret in a file; made where there is none yet.

    Raises   UserError when the file is no secret, others may read it, or it cannot be written.
    """
    with writing(path):
        if not path.exists():
            _make(path)
        others = path.stat().st_mode & 0o077
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    if others:
        raise UserError(f"{path} may be read by others.", f"chmod 600 {path}")
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != BYTES:
        raise UserError(f"{path} holds no secret: {BYTES} bytes in hexadecimal.", "Remove it; a new one is made.")
    return secret


def _make(path: Path) -> None:
    """Whole or not at all, and one for all who make it at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_hex(BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was first; its secret is ours too
    finally:
        temporary.unlink()
    sync(path.parent)
