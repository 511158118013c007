"""The record of a lesson: one append-only file of rows, and the truth about it.

Everything that happened, in the order in which it was dealt with: what the agent saw and did, every press with when it
was meant and when it came, training on and off, every command. Nothing said is lost: a press that could not be credited
is a row that says why. Replaying the rows gives the same weights, to the last bit.

    {"kind": "header", "format": "rein.tamer", "version": 1, "config": {…}, …}      the first line
    {"kind": "step", "k": 0, "t": 0.0, "episode": 1, "obs": […], "action": 2, "source": "tamer", "reward": -1.0, …}
    {"kind": "press", "id": "…", "by": "person", "value": 1.0, "t": 0.41, "k": 1, "credits": [[0, 0.33], …], …}
    {"kind": "training", "on": true, "t": 0.0}
    {"kind": "control", "name": "pause", "value": true, "t": 12.0}
    {"kind": "note", "text": "…", "t": 12.0}
    {"kind": "end", "t": 63.2, "steps": 316, "presses": 41, "digest": "…", "sha256": "…"}

`t` is seconds on the lesson's clock, which starts at 0 and never stops; `obs` stands where an episode begins, `next` is
the state after the action. `digest` is of every number the agent learned; `sha256` of all lines before.

Each row is handed to the operating system as it is written, so a killed program loses none; it is forced to the disk at
least once a second, so a power cut loses one second at most.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rein.errors import UserError, writing

FORMAT, VERSION = "rein.tamer", 1
SYNC_EVERY_S = 1.0
KINDS = ("header", "step", "press", "training", "control", "note", "end")
Row = dict[str, Any]


class RecordWriter:
    """Appends rows to a file that only this process writes."""

    def __init__(self, path: Path, *, append: bool = False) -> None:
        """Opens `path`, which must not exist unless `append`; then a torn last line is cut off.

        Raises   UserError when the file exists, cannot be written, or is open in another process.
        """
        import fcntl

        self.path = path
        if path.exists() and not append:
            raise UserError(f"{path} exists; a record is never written over.", "Choose another --out.")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if append else "xb", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(f"{path} is being written by another process.", "Wait for it to end.") from None
        self._hash = hashlib.sha256()
        if append:
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            with writing(path):
                self._file.truncate(whole)
                self._file.seek(whole)
            self._hash.update(data[:whole])
        # On a thread of its own: a disk may take longer than a person's press may wait.
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="record-sync")
        self._sync: Future[None] | None = None
        self._synced = time.monotonic()

    def write(self, row: Row) -> None:
        """Appends one row, whole."""
        assert row["kind"] in KINDS, row["kind"]
        if row["kind"] == "end":
            row = {**row, "sha256": self._hash.hexdigest()}
        data = encode(row)
        self._hash.update(data)
        with writing(self.path):
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            if time.monotonic() - self._synced > SYNC_EVERY_S and (self._sync is None or self._sync.done()):
                if self._sync is not None:
                    self._sync.result()  # a disk that failed then is an error now
                self._sync = self._syncer.submit(os.fsync, self._file.fileno())
                self._synced = time.monotonic()

    def close(self) -> None:
        """Forces everything to the disk and closes the file."""
        if not self._file.closed:
            self._syncer.shutdown(wait=True)
            with writing(self.path):
                os.fsync(self._file.fileno())
            self._file.close()


def encode(row: Row) -> bytes:
    """A row as its line of the file.

    Raises   ValueError for what a line cannot hold: NaN, infinity, half a character.
    """
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def read_record(path: Path) -> Iterator[Row]:
    """The rows of a record, the header first; a last line that a kill cut short is left out.

    Raises   UserError when the file is no record, one of another version, or broken: with the line and what is wrong.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}.", f"Name the record of a lesson, like {path / 'record.jsonl'}.")
    found, number = hashlib.sha256(), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                if number == 1:
                    raise UserError(f"{path} holds no whole line, so no lesson.", "It can be removed.")
                return
            row = _row(path, number, line)
            if number == 1:
                _check_header(path, row)
            elif row["kind"] == "end" and row.get("sha256") != found.hexdigest():
                raise UserError(
                    f"{path} was changed: the checksum in line {number} is not that of the lines before it.",
                    "Restore it from a copy. To look at it all the same, remove that line.",
                )
            found.update(line)
            yield row
    if number == 0:
        raise UserError(f"{path} is empty, so no lesson.", "It can be removed.")


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or row.get("kind") not in KINDS:
            raise ValueError(f"not a row of a record: {line[:60]!r}")
        needs = {
            "step": ("k", "t", "episode", "action", "source", "reward", "next"),
            "press": ("id", "value", "t"),
            "training": ("on", "t"),
            "control": ("name", "t"),
        }.get(row["kind"], ())
        if missing := [name for name in needs if name not in row]:
            raise ValueError(f"a {row['kind']} row without {', '.join(missing)}")
        for name in ("t", "value") if row["kind"] == "press" else ("t", "k", "action", "reward"):
            if name in row and (isinstance(row[name], bool) or not isinstance(row[name], int | float)):
                raise ValueError(f"{name} is {row[name]!r}, which is no number")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}, line {number} is broken: {error}.",
            "Restore it from a copy."
            + (" The lines before are whole: `head` of them is a record that replays." if number > 1 else ""),
        ) from None
    return dict(row)


def _check_header(path: Path, row: Row) -> None:
    if row["kind"] != "header" or row.get("format") != FORMAT or not isinstance(row.get("config"), dict):
        raise UserError(
            f"{path} does not begin with the header of a lesson's record.", "Name the record.jsonl of a lesson."
        )
    if row.get("version") != VERSION:
        raise UserError(
            f"{path} is a record of version {row.get('version')}, but this Rein reads version {VERSION}.",
            f"Use the Rein that wrote it ({row.get('rein', 'unknown')}).",
        )


def pack(array: NDArray[Any]) -> Any:
    """An observation as JSON: a list of numbers that reads back to the last bit; pictures compressed.

    Example  >>> unpack(pack(np.array([0.1, -0.0]))).tolist()
             [0.1, -0.0]
    """
    if array.ndim == 1:
        return [float(x) for x in array]
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()
    return {"shape": list(array.shape), "dtype": array.dtype.str, "zlib": data}


def unpack(value: Any) -> NDArray[Any]:
    """What `pack` was given.

    Raises   ValueError when it is neither a list of numbers nor a packed picture.
    """
    try:
        if isinstance(value, list):
            return np.array([float(x) for x in value], dtype=np.float64)
        if value["dtype"] != "|u1":
            raise ValueError("its numbers are not bytes")
        data = zlib.decompress(base64.b64decode(value["zlib"], validate=True))
        return np.frombuffer(data, dtype=np.uint8).reshape(value["shape"]).copy()
    except (ValueError, TypeError, KeyError, OverflowError, zlib.error) as error:
        raise ValueError(f"not an observation ({error}): {str(value)[:60]}") from None
