"""What a model answered, kept by what it was asked: nothing is computed twice, and a killed evaluation goes on.

Flow     the model's fingerprint, the tokens put to it, how it was asked → SHA-256 → one row of an SQLite file

A row is written when its batch is done, before anything else is. Rows do not depend on the task's name, on batches
or on other problems, so that evaluations of other settings find what they share with earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rein.errors import UserError, writing

_AT_ONCE = 500  # of SQLite's 999 parameters


def key_of(*parts: object) -> str:
    """The name of a response: SHA-256 of everything it depends on.

    Example  >>> key_of("model", [1, 2])[:8] == key_of("model", [1, 2])[:8] != key_of("model", [12])[:8]
             True
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Responses:
    """An open file of responses; several processes may have it open."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it.  Raises   UserError when it is no such file, or cannot be written."""
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._db.commit()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The responses that are there, by key."""
        wanted, found = list(dict.fromkeys(keys)), {}
        try:
            for first in range(0, len(wanted), _AT_ONCE):
                some = wanted[first : first + _AT_ONCE]
                query = f"SELECT key, value FROM responses WHERE key IN ({','.join('?' * len(some))})"
                found.update({key: json.loads(value) for key, value in self._db.execute(query, some)})
        except sqlite3.Error as error:
            raise self._broken(error) from None
        return found

    def put(self, responses: Mapping[str, Any]) -> None:
        """Adds responses, on disk when this returns."""
        rows = [(key, json.dumps(value)) for key, value in responses.items()]
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO responses VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _broken(self, error: sqlite3.Error) -> UserError:
        return UserError(f"{self.path} cannot be used: {error}.", "Name another file with --responses, or remove it.")

    def __enter__(self) -> Responses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
