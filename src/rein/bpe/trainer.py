"""Learns byte-level merges from text, with gigatoken; with the oracle where gigatoken cannot be trusted.

    documents → a spool file, separated by a byte that UTF-8 never has → gigatoken in its own process → merges

The spool bounds memory by the number of distinct words instead of the size of the corpus, and no word reaches
over the border between two documents. The process of its own keeps gigatoken's chatter off standard output, can
be interrupted, and gives its memory back.
"""

from __future__ import annotations

import codecs
import json
import re
import subprocess
import sys
import tempfile
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from rein.bpe import oracle
from rein.bpe.byte_level import ByteLevelBPE
from rein.bpe.checks import check_text
from rein.bpe.files import text_blocks
from rein.errors import UserError

MAX_BYTES = 1_000_000_000

# Trainers count pairs in 32 bits. A pair cannot occur more often than its text has bytes, so below this many
# bytes no count can overflow, which would give a bad vocabulary without a word (huggingface/tokenizers #1170).
COUNTABLE_BYTES = 2**31 - 1

_SEPARATOR = b"\xff"  # in no UTF-8 text
_SEPARATOR_DECODED = _SEPARATOR.decode("utf-8", "surrogateescape")
_UP_TO_A_SPACE = re.compile(r".*\S(?=[ \n])", re.DOTALL)  # no piece goes on behind it: spaces begin a piece
_WORKER = Path(__file__).with_name("trainer_process.py")

# Ties, runs of one letter, and more than one document: what trainers differ in.
_CANARY = ("low lower lowest newest widest aaaa aaaaa", "bb aa ab ba it's IT'S\n\n  low 2024", "é中😀 é中😀")
_CANARY_MERGES = 40


def train(
    documents: Iterable[str | Path],
    n_vocab: int,
    *,
    ties: oracle.Ties = "huggingface",
    max_bytes: int = MAX_BYTES,
) -> ByteLevelBPE:
    """A vocabulary of `n_vocab` ids: 256 bytes, n_vocab − 257 merges and the end of text.

    Each document is a text, or the path of a UTF-8 file that holds one. Those beyond the first `max_bytes` bytes
    are left out. The result depends on the text, `n_vocab` and `ties` only.

    Example  >>> train(["low low low lower slow slow"], n_vocab=259).merges
             ((b'l', b'o'), (b'lo', b'w'))
    Raises   UserError when `n_vocab` is below 257 or more than the text supports, when there is no text, when
             `max_bytes` is not between 1 and 2³¹ − 1, or when a document is not UTF-8 text.
    """
    check_n_vocab(n_vocab, 257)
    check_max_bytes(max_bytes)
    with tempfile.TemporaryDirectory(prefix="rein-bpe-") as folder:
        spool = Path(folder) / "text"
        spooled = spool_documents(documents, spool, max_bytes)
        if spooled == 0:
            raise UserError("There is no text to train on: every document is empty.", "Give files that hold text.")
        tokenizer = _without_empty_merges(_train_spooled(spool, n_vocab - 257, ties), spool)
    check_supported(len(tokenizer.merges), n_vocab - 257, n_vocab)
    return tokenizer


def check_n_vocab(n_vocab: int, least: int) -> None:
    """Refuses a vocabulary smaller than its `least` size.

    Raises   UserError that names the flag.
    """
    if n_vocab < least:
        raise UserError(
            f"--n-vocab is {n_vocab}, but this vocabulary has {least} entries before its first merge.",
            f"Pass --n-vocab {max(8192, 2 * least)}, or any number from {least} on.",
        )


def check_max_bytes(max_bytes: int) -> None:
    """Refuses more text than can be counted.

    Raises   UserError that names the flag.
    """
    if not 1 <= max_bytes <= COUNTABLE_BYTES:
        raise UserError(
            f"--max-bytes is {max_bytes:,}, but it must be between 1 and {COUNTABLE_BYTES:,}: "
            "beyond that, a trainer's 32-bit counts could overflow.",
            f"Pass --max-bytes {MAX_BYTES}; a sample of that size gives a vocabulary as good.",
        )


def check_supported(found: int, wanted: int, n_vocab: int) -> None:
    """Refuses a vocabulary that the text cannot fill.

    Raises   UserError that names the largest possible --n-vocab.
    """
    if found < wanted:
        raise UserError(
            f"--n-vocab {n_vocab} needs {wanted:,} merges, but the text supports only {found:,}: "
            "then every word is a single token.",
            f"Pass --n-vocab {n_vocab - wanted + found} or less, or give more text.",
        )


def spool_documents(documents: Iterable[str | Path], spool: Path, max_bytes: int) -> int:
    """Writes the documents' first `max_bytes` bytes to `spool`, with a separator after each; returns how many.

    A document that does not fit is cut between two characters. Separators are not counted.

    Raises   UserError when a document is not UTF-8 text, or the disk has no room for the copy.
    """
    written = 0
    try:
        with spool.open("wb") as file:
            for document in documents:
                room = max_bytes - written
                if room <= 0:
                    break
                written += _write_document(document, file, room)
                file.write(_SEPARATOR)
    except OSError as error:
        raise UserError(
            f"The text to train on cannot be copied to {spool.parent}: {error.strerror}.",
            "Free some space there, or set TMPDIR to a folder on another disk.",
        ) from None
    return written


def _write_document(document: str | Path, file: BinaryIO, room: int) -> int:
    if isinstance(document, Path):
        blocks = (block.encode() for block in text_blocks(document, room))
        return sum(file.write(block) for block in blocks)
    return file.write(first_bytes(document, room))


def first_bytes(text: str, room: int) -> bytes:
    """The first `room` bytes of a text, never ending inside a character.

    Example  >>> first_bytes("né", 2)
             b'n'
    Raises   UserError when `text` has a lone surrogate.
    """
    check_text(text, "A document")
    data = text.encode()
    return data if len(data) <= room else data[:room].decode("utf-8", "ignore").encode()


def _train_spooled(spool: Path, n_merges: int, ties: oracle.Ties) -> list[tuple[bytes, bytes]]:
    canary = spool.with_name("canary")
    spool_documents(_CANARY, canary, MAX_BYTES)
    learned = _run_gigatoken([(canary, _CANARY_MERGES), (spool, n_merges)], ties)
    expected = oracle.train(oracle.count_words(_CANARY), _CANARY_MERGES, ties)
    if learned[0] == expected:
        return learned[1]
    warnings.warn(
        "gigatoken learns other merges than the oracle from a small text; the oracle is used: right, but slow.",
        RuntimeWarning,
        stacklevel=3,
    )
    return oracle.train(oracle.count_words(_spooled_texts(spool)), n_merges, ties)


def _run_gigatoken(jobs: list[tuple[Path, int]], ties: oracle.Ties) -> list[list[tuple[bytes, bytes]]]:
    """Trains on each (spool, number of merges) in one process of its own."""
    out = jobs[0][0].with_name("merges.json")
    words = [str(out), ties, *chain.from_iterable((str(spool), str(256 + n_merges)) for spool, n_merges in jobs)]
    done = subprocess.run(
        [sys.executable, str(_WORKER), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(
            f"The trainer's process ended with status {done.returncode}: {last or 'it was killed'}.",
            "If memory ran out, lower --max-bytes.",
        )
    lists = json.loads(out.read_text(encoding="ascii"))
    return [[(bytes.fromhex(left), bytes.fromhex(right)) for left, right in merges] for merges in lists]


def _without_empty_merges(merges: list[tuple[bytes, bytes]], spool: Path) -> ByteLevelBPE:
    """The merges that occur in the text.

    When no pair is left to merge, gigatoken goes on with pairs that occur nowhere. The most frequent pair is
    merged first, so such merges come last: none is there if the last one occurs.
    """
    seen: set[bytes] = set()
    for left, right in merges:
        if left + right in seen:  # only empty merges make a token twice
            break
        seen.add(left + right)
    candidates = merges[: len(seen)]

    def first(count: int) -> ByteLevelBPE:
        return ByteLevelBPE(tuple(candidates[:count]))

    whole = first(len(candidates))
    if _last_merge_occurs(whole, spool):
        return whole
    sizes = range(1, len(candidates) + 1)
    return first(bisect_left(sizes, True, key=lambda size: not _last_merge_occurs(first(size), spool)))


def _last_merge_occurs(tokenizer: ByteLevelBPE, spool: Path) -> bool:
    last = tokenizer.eot_id - 1
    return not tokenizer.merges or any((tokenizer.encode(text) == last).any() for text in _spooled_texts(spool))


def _spooled_texts(spool: Path) -> Iterator[str]:
    """The spooled text in spans of about a megabyte, cut only where a document or one of GPT-2's pieces ends."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    rest = ""
    with spool.open("rb") as file:
        while block := file.read(1 << 20):
            *spans, rest = (rest + decoder.decode(block)).split(_SEPARATOR_DECODED)
            if not spans and (span := _UP_TO_A_SPACE.match(rest)):
                spans, rest = [span.group()], rest[span.end() :]
            yield from spans
