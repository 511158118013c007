"""The process that `trainer.py` starts. It needs gigatoken only, and nothing of Rein.

    python trainer_process.py OUT TIES SPOOL SIZE [SPOOL SIZE …]

Trains a vocabulary of SIZE entries (256 bytes and merges) on each SPOOL, documents separated by the byte 0xff, and
writes the lists of merges to OUT as JSON: [[["6c", "6f"], …], …], each token in hexadecimal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gigatoken


def main(out: str, ties: str, *jobs: str) -> None:
    """Runs the jobs in turn."""
    learned = []
    for spool, size in zip(jobs[::2], jobs[1::2], strict=True):
        source = gigatoken.TextFileSource([spool], separator=b"\xff")
        _, merges = gigatoken.train_bpe(source, int(size), [], tie_breaking=ties)
        learned.append([[left.hex(), right.hex()] for left, right in merges])
    Path(out).write_text(json.dumps(learned), encoding="ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
