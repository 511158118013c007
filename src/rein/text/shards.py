"""Token shards: the ids of many documents in a few large files, read through memory maps.

Flow     documents as ids → `write_shard` → train-00000.bin, train-00000.idx, … → `Shards` → windows of ids.

A shard is two files, little-endian:

    .bin   int32[256]: magic 278895051, version 1, number of tokens, bytes per token (2 or 4), zeros;
           then the tokens: uint16, or uint32 where n_vocab exceeds 65,536
    .idx   uint64[n_documents + 1]: document i is tokens[idx[i] : idx[i + 1]], its end-of-text id included;
           so the first entry is 0, the last one is the number of tokens, and no document needs a special case

A document lies in one shard; a window of `length` tokens may span documents and shards, for the tokens of a
split are one long row. What else there is to know (which shards, their SHA-256, the vocabulary) is in
manifest.json, written last: a folder without it is not a finished corpus.

Source   The .bin is NVIDIA NeMo AutoModel's nanogpt_dataset, which can read it. llm.c and modded-nanogpt use
         magic 20240520 (always uint16), nanoGPT no header; docs/reference/shards.md compares them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.errors import UserError, suggestion
from rein.text.split import SPLITS
from rein.text.store import whole

MANIFEST = "manifest.json"
WORK = "work"  # beside it while a build is not finished
FORMAT = "rein-corpus"
FORMAT_VERSION = 2  # 1 had packages instead of origins, and no mixture
MAGIC = 278895051
MAGIC_UINT16 = 20240520
VERSION = 1
HEADER_BYTES = 1024
MAX_SHARD_TOKENS = 2**31 - 1  # the header counts them in an int32

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


# --------------------------------------------------------------------------------------------------- writing


def cut(n_tokens: Ints, shard_tokens: int, *, used: int = 0) -> Ints:
    """Where a new shard begins among consecutive documents: before one that would exceed `shard_tokens`.

    Shapes   n_tokens (n,) int64, of each document; returns the indices of documents that begin a shard. `used`
             tokens are in the shard at hand already; 0: the first document begins one.
    Example  >>> cut(np.array([3, 4, 5, 20, 1]), 10).tolist(), cut(np.array([3, 4]), 10, used=8).tolist()
             ([0, 2, 3, 4], [0])
    """
    begins: list[int] = []
    for index, count in enumerate(n_tokens.tolist()):
        if used == 0 or used + count > shard_tokens:
            begins.append(index)
            used = 0
        used += count
    return np.array(begins, dtype=np.int64)


def write_shard(folder: Path, name: str, sizes: Ints, tokens: Iterable[Tokens], n_vocab: int) -> dict[str, Any]:
    """Writes NAME.bin and NAME.idx; returns their record, as the manifest keeps it.

    Both get their names when they are whole and on disk. `tokens` is what the documents are, put together, in
    parts of any size, the end-of-text ids included.

    Shapes   sizes (n, 2) int64: tokens and UTF-8 bytes of each document.
    Raises   UserError when the disk is full.
    """
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes[:, 0])])
    assert 0 < offsets[-1] <= MAX_SHARD_TOKENS, f"{offsets[-1]} tokens in one shard"
    dtype = np.dtype("<u2" if n_vocab <= 1 << 16 else "<u4")
    header = np.zeros(HEADER_BYTES // 4, dtype="<i4")
    header[:4] = MAGIC, VERSION, offsets[-1], dtype.itemsize
    bin_path, idx_path = folder / f"{name}.bin", folder / f"{name}.idx"
    written = 0
    with whole(bin_path) as file:
        file.write(header.tobytes())
        for part in tokens:
            assert not len(part) or part.max() < n_vocab, f"token id {part.max()} in a vocabulary of {n_vocab}"
            file.write(part.astype(dtype, copy=False).tobytes())
            written += len(part)
        assert written == offsets[-1], f"{written} tokens, but the documents have {offsets[-1]}"
    with whole(idx_path) as file:
        file.write(offsets.astype("<u8").tobytes())
    return {
        "bin": bin_path.name,
        "idx": idx_path.name,
        "tokens": int(offsets[-1]),
        "documents": len(sizes),
        "bytes": int(sizes[:, 1].sum()),
        "bin_sha256": file_sha256(bin_path),
        "idx_sha256": file_sha256(idx_path),
    }


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --------------------------------------------------------------------------------------------------- reading


class Shards:
    """The tokens of one split of a corpus, as one long row that is never copied into memory as a whole.

    Example  shards = Shards(Path("data/pydocs"), "train")
             x_BT = shards.windows(np.array([0, 500]), 129)     # two windows of 128 tokens and their targets
    """

    def __init__(self, folder: Path, split: str = "train") -> None:
        """Raises   UserError when the folder is no finished corpus, or a shard is missing, cut short or foreign."""
        manifest = read_manifest(folder)
        splits = manifest["splits"]
        if split not in splits:
            raise UserError(f"{folder} has no split {split!r}.", suggestion(split, splits))
        self.folder, self.split = folder, split
        self.n_vocab: int = manifest["tokenizer"]["n_vocab"]
        self.eot_id: int = manifest["tokenizer"]["eot_id"]
        self._records: list[dict[str, Any]] = splits[split]["shards"]
        self._tokens = [self._open(record) for record in self._records]
        self._offsets = [_open_index(folder / record["idx"], record) for record in self._records]
        self._token_starts = _starts(record["tokens"] for record in self._records)
        self._document_starts = _starts(record["documents"] for record in self._records)
        self.n_tokens = int(self._token_starts[-1])
        self.n_documents = int(self._document_starts[-1])
        self.n_bytes = sum(record["bytes"] for record in self._records)

    def _open(self, record: dict[str, Any]) -> Tokens:
        path = self.folder / record["bin"]
        tokens = open_tokens(path)
        if len(tokens) != record["tokens"]:
            raise _not_as_manifest(path, f"{len(tokens):,} tokens", f"{record['tokens']:,}")
        return tokens

    def windows(self, starts_B: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """The `length` tokens from each start on.

        Shapes   starts_B (B,) in [0, n_tokens − length]; returns (B, length) int64.
        """
        starts_B = np.asarray(starts_B, dtype=np.int64)
        if not len(starts_B):
            return np.empty((0, length), dtype=np.int64)
        first, end = int(starts_B.min()), int(starts_B.max()) + length
        assert 0 <= first <= end <= self.n_tokens, f"windows over {first} … {end} of {self.n_tokens} tokens"
        out = np.empty((len(starts_B), length), dtype=np.int64)
        shard_B = np.searchsorted(self._token_starts, starts_B, side="right") - 1
        local_B = starts_B - self._token_starts[shard_B]
        for row, shard, start in zip(out, shard_B.tolist(), local_B.tolist(), strict=True):
            tokens = self._tokens[shard]
            if start + length <= len(tokens):
                row[:] = tokens[start : start + length]
            else:
                self._fill_across(row, shard, start)
        return out

    def _fill_across(self, row: npt.NDArray[np.int64], shard: int, start: int) -> None:
        filled = 0
        while filled < len(row):
            piece = self._tokens[shard][start : start + len(row) - filled]
            row[filled : filled + len(piece)] = piece
            filled, shard, start = filled + len(piece), shard + 1, 0

    def document(self, index: int) -> npt.NDArray[np.int64]:
        """The tokens of document `index` (n,) int64; the last one is the end-of-text id."""
        assert 0 <= index < self.n_documents, f"document {index} of {self.n_documents}"
        shard = int(np.searchsorted(self._document_starts, index, side="right")) - 1
        local = index - int(self._document_starts[shard])
        start, end = self._offsets[shard][local : local + 2].tolist()
        return self._tokens[shard][start:end].astype(np.int64)

    def iter_documents(self) -> Iterator[npt.NDArray[np.int64]]:
        """Every document's tokens, in order."""
        for tokens, offsets in zip(self._tokens, self._offsets, strict=True):
            for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
                yield tokens[start:end].astype(np.int64)

    def verify(self) -> None:
        """Reads everything once, and compares it with the manifest.

        Raises   UserError when a checksum differs, an id is not in the vocabulary, or the index does not fit.
        """
        for record, tokens, offsets in zip(self._records, self._tokens, self._offsets, strict=True):
            bin_path, idx_path = self.folder / record["bin"], self.folder / record["idx"]
            largest = max(int(block.max()) for block in _blocks(tokens))
            if largest >= self.n_vocab:
                raise UserError(
                    f"{bin_path} holds the token id {largest}, but the vocabulary ends at {self.n_vocab - 1}.",
                    "It is damaged or belongs to another tokenizer; build the corpus anew.",
                )
            if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets.astype(np.int64)) < 1).any():
                raise UserError(
                    f"{idx_path} does not cut the {len(tokens):,} tokens of {bin_path.name} into documents.",
                    "It is damaged; build the corpus anew.",
                )
            for path, key in ((bin_path, "bin_sha256"), (idx_path, "idx_sha256")):
                found = file_sha256(path)
                if found != record[key]:
                    raise _not_as_manifest(path, f"SHA-256 {found[:12]}…", f"{record[key][:12]}…")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished corpus.

    Raises   UserError when there is no such folder, it is not finished, or its format is not ours.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_dir():
            raise UserError(f"The corpus {folder} does not exist.", "Build it with `rein text build`.") from None
        if (folder / WORK).is_dir():
            raise UserError(
                f"The corpus {folder} is not finished.", f"Finish it: rein text build --config {folder}/config.json"
            ) from None
        raise UserError(
            f"{folder} is not a corpus: it has no {MANIFEST}.",
            "Build one with `rein text build`. Token files of other programs cannot be used: a .bin does not say "
            "which vocabulary its ids are of.",
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.", "It is damaged; build the corpus anew.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path} is not the manifest of a corpus.", "Name a folder that `rein text build` made.")
    if manifest.get("version") != FORMAT_VERSION:
        raise UserError(
            f"{folder} has version {manifest.get('version')} of the corpus format; this Rein reads {FORMAT_VERSION}.",
            "Build it anew, or use the version of Rein that wrote it.",
        )
    assert set(manifest["splits"]) <= set(SPLITS), f"splits {sorted(manifest['splits'])}"
    return manifest


def open_tokens(path: Path) -> Tokens:
    """The tokens of a .bin file, memory-mapped: ours and NeMo's (magic 278895051), or llm.c's (20240520).

    Raises   UserError when the file is missing, has another header or none, or is cut short.
    """
    try:
        size = path.stat().st_size
        header = np.fromfile(path, dtype="<i4", count=4)
    except OSError as error:
        raise UserError(f"The shard {path} cannot be read: {error.strerror}.", "Build the corpus anew.") from None
    if len(header) < 4 or header[0] not in (MAGIC, MAGIC_UINT16):
        first = int(header[0]) if len(header) else "nothing"
        raise UserError(
            f"{path} does not begin with the number {MAGIC} of a token shard, but with {first}.",
            "A nanoGPT .bin has no header, so its item size and vocabulary would be guesses; tokenise the text "
            "with `rein text build`.",
        )
    magic, version, n_tokens, item_size = header.tolist()
    if magic == MAGIC_UINT16:
        item_size = 2
    if version != VERSION:
        raise UserError(f"{path} has version {version} of the shard format, but {VERSION} is read.", "Build it anew.")
    if item_size not in (2, 4):
        raise UserError(
            f"{path} says {item_size} bytes per token, but 2 or 4 are possible.", "It is damaged; build it anew."
        )
    expected = HEADER_BYTES + n_tokens * item_size
    if size != expected:
        raise UserError(
            f"{path} has {size:,} bytes, but its header announces {n_tokens:,} tokens, so {expected:,} bytes.",
            "It was cut short or written to; build the corpus anew.",
        )
    tokens: Tokens = _mapped(path, "<u2" if item_size == 2 else "<u4", HEADER_BYTES)
    return tokens


def _open_index(path: Path, record: dict[str, Any]) -> npt.NDArray[np.uint64]:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"The index {path} cannot be read: {error.strerror}.", "Build the corpus anew.") from None
    expected = 8 * (record["documents"] + 1)
    if size != expected:
        raise _not_as_manifest(path, f"{size:,} bytes", f"{expected:,}")
    offsets: npt.NDArray[np.uint64] = _mapped(path, "<u8", 0)
    return offsets


def _mapped(path: Path, dtype: str, offset: int) -> Any:
    # As a plain array: every slice of a memmap object costs ten times as much as the bytes it shows.
    return np.memmap(path, dtype=dtype, mode="r", offset=offset).view(np.ndarray)


def _starts(counts: Iterator[int]) -> npt.NDArray[np.int64]:
    """Where each shard begins, and where the last one ends.

    Example  >>> _starts(iter([3, 2])).tolist()
             [0, 3, 5]
    """
    return np.cumsum([0, *counts], dtype=np.int64)


def _blocks(tokens: Tokens) -> Iterator[Tokens]:
    for start in range(0, len(tokens), 1 << 22):
        yield tokens[start : start + (1 << 22)]


def _not_as_manifest(path: Path, found: str, expected: str) -> UserError:
    return UserError(
        f"{path} does not match the manifest: {found}, but {expected} expected.",
        "It was damaged or replaced; build the corpus anew.",
    )
