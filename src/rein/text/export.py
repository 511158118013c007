"""`rein text export`: a corpus as other trainers and tools read it.

    nanogpt    train.bin, val.bin            tokens as uint16, little-endian, nothing else (karpathy/nanoGPT)
    megatron   train.bin, train.idx, val…    the same tokens, and where each document is (NVIDIA/Megatron-LM)
    parquet    train.parquet, val.parquet    a row per document: where it is from, its text, its tokens

train is the corpus's train part, val its held-out part. Each document ends with the end-of-text id. Files get their
names when they are complete and on disk; in memory is one block of tokens, one shard's index or one row group.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rein.config import setting
from rein.errors import UserError, writing
from rein.progress import Progress
from rein.text.documents import Document
from rein.text.mixture import order_of
from rein.text.shards import Shards, read_manifest
from rein.text.store import read_documents, whole

STEMS = {"train": "train", "heldout": "val"}  # nanoGPT's names
GROUP_DOCUMENTS = 256
GROUP_BYTES = 64 << 20  # a row group ends earlier, where 256 documents would not fit in memory
_BLOCK_TOKENS = 1 << 22
_COLUMNS = ("id", "source", "url", "date", "text")

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ExportConfig:
    """Settings of `rein text export`."""

    corpus: Path = setting(help="corpus folder, from `rein text build`", positional=True)
    out: Path = setting(help="folder for the files; those of the same names are replaced")
    format: Literal["nanogpt", "megatron", "parquet"] = setting("nanogpt", "who is to read it")
    mix_tokens: int | None = setting(
        None,
        "write so many tokens of the train part, in the order `rein pretrain` reads them",
        unit="tokens",
        group="for trainers without mixtures (nanogpt)",
    )
    n_ctx: int = setting(1024, "windows of that order", unit="tokens", group="for trainers without mixtures (nanogpt)")
    seed: int = setting(0, "of that order", group="for trainers without mixtures (nanogpt)")

    def __post_init__(self) -> None:
        if self.mix_tokens is None:
            return
        if self.format != "nanogpt":
            raise UserError(
                f"--mix-tokens cuts the text into windows, but --format {self.format} holds whole documents.",
                "Leave --mix-tokens out, or use --format nanogpt.",
            )
        if not 0 < self.n_ctx <= self.mix_tokens:
            raise UserError(
                f"--mix-tokens {self.mix_tokens:,} does not hold one window of --n-ctx {self.n_ctx:,}.",
                "--n-ctx must be above 0, and --mix-tokens at least as large.",
            )


def export(config: ExportConfig) -> None:
    """Writes a corpus in the files of another program.

      rein text export data/pydocs --out ../nanoGPT/data/pydocs
      rein text export data/pydocs --out megatron --format megatron
      rein text export data/pydocs --out tables --format parquet
      rein text export data/web --out ../nanoGPT/data/web --mix-tokens 1e9 --n-ctx 1024

    nanogpt: the header-less train.bin and val.bin of karpathy/nanoGPT. They do not say which vocabulary they are
    of: set vocab_size in the model's settings. megatron: an indexed dataset of NVIDIA/Megatron-LM, one sequence a
    document. parquet: a row for each document, its id, source, url, date, text and tokens; the file's metadata
    has the vocabulary's size and the tokenizer's SHA-256.

    With --mix-tokens, train.bin is the corpus's mixture written out: windows of --n-ctx tokens one behind another,
    a source as often as its weight says. Read it in steps of n_ctx; elsewhere, a window spans two places of the text.
    """
    manifest = read_manifest(config.corpus)
    n_vocab, eot_id = manifest["tokenizer"]["n_vocab"], manifest["tokenizer"]["eot_id"]
    if config.format == "nanogpt" and n_vocab > 1 << 16:
        raise UserError(
            f"The vocabulary of {config.corpus} has {n_vocab:,} entries, but header-less files hold ids below 65,536.",
            "Build the corpus with a smaller --n-vocab, or use --format megatron.",
        )
    with writing(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    for split in manifest["splits"]:
        shards = Shards(config.corpus, split)
        path = config.out / STEMS[split]
        match config.format:
            case "nanogpt":
                pieces = _blocks(shards)
                n_tokens = shards.n_tokens
                if config.mix_tokens is not None and split == "train":
                    n_tokens = config.mix_tokens // config.n_ctx * config.n_ctx
                    pieces = _mixed(shards, manifest, n_tokens, config.n_ctx, config.seed)
                write_tokens(path.with_suffix(".bin"), pieces, n_tokens, np.dtype("<u2"))
                print(f"{path}.bin: {n_tokens:,} tokens")
            case "megatron":
                write_megatron(path, shards, manifest)
                print(f"{path}.bin, {path}.idx: {shards.n_documents:,} documents, {shards.n_tokens:,} tokens")
            case "parquet":
                write_parquet(path.with_suffix(".parquet"), shards, manifest)
                print(f"{path}.parquet: {shards.n_documents:,} documents, {shards.n_tokens:,} tokens")
    print(f"vocab_size = {n_vocab}; each document ends with {eot_id}")


# ------------------------------------------------------------------------------------------------------- tokens


def write_tokens(path: Path, pieces: Iterable[Ids], n_tokens: int, dtype: np.dtype[Any]) -> None:
    """Writes tokens one after another, without header.

    Raises   UserError when the disk is full.
    """
    with whole(path) as file, Progress(f"writing {path.name}", total=n_tokens, unit="tokens") as bar:
        for piece in pieces:
            file.write(piece.astype(dtype).tobytes())
            bar.advance(piece.size)


def _blocks(shards: Shards) -> Iterator[Ids]:
    for start in range(0, shards.n_tokens, _BLOCK_TOKENS):
        yield shards.windows(np.array([start]), min(_BLOCK_TOKENS, shards.n_tokens - start))


def _mixed(shards: Shards, manifest: dict[str, Any], n_tokens: int, length: int, seed: int) -> Iterator[Ids]:
    order = order_of(manifest, length, seed)
    n_windows, at_once = n_tokens // length, max(1, _BLOCK_TOKENS // length)
    for first in range(0, n_windows, at_once):
        yield shards.windows(order.starts(first, min(at_once, n_windows - first)), length)


# ----------------------------------------------------------------------------------------------------- megatron


def write_megatron(stem: Path, shards: Shards, manifest: dict[str, Any]) -> None:
    """Writes `stem`.bin and `stem`.idx, an indexed dataset whose every sequence is one document.

        .bin   the tokens: uint16, or int32 where n_vocab exceeds 65,536
        .idx   "MMIDIDX", 2 zero bytes; uint64 version 1; uint8 code of the type (8: uint16, 4: int32);
               uint64 n = number of sequences; uint64 n + 1; then of each sequence its int32 length and, behind
               all of these, its int64 position in bytes; then int64 0 … n, the sequence each document begins with

    Raises   UserError when the disk is full.
    Source   NVIDIA/Megatron-LM, megatron/core/datasets/indexed_dataset.py.
    """
    dtype, code = (np.dtype("<u2"), 8) if shards.n_vocab <= 1 << 16 else (np.dtype("<i4"), 4)
    records = manifest["splits"][shards.split]["shards"]
    indices = [(shards.folder / record["idx"], record["tokens"]) for record in records]
    with whole(stem.with_suffix(".idx")) as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, shards.n_documents, shards.n_documents + 1))
        for path, _ in indices:
            file.write(np.diff(_offsets(path)).astype("<i4").tobytes())
        begin = 0
        for path, n_tokens in indices:
            file.write(((begin + _offsets(path)[:-1]) * dtype.itemsize).astype("<i8").tobytes())
            begin += n_tokens
        for first in range(0, shards.n_documents + 1, _BLOCK_TOKENS):
            file.write(np.arange(first, min(first + _BLOCK_TOKENS, shards.n_documents + 1), dtype="<i8").tobytes())
        file.flush()  # so that, where one of the two cannot be written, neither gets its name
        write_tokens(stem.with_suffix(".bin"), _blocks(shards), shards.n_tokens, dtype)


def _offsets(path: Path) -> Ids:
    return np.fromfile(path, dtype="<u8").astype(np.int64)


# ------------------------------------------------------------------------------------------------------ parquet


def write_parquet(path: Path, shards: Shards, manifest: dict[str, Any]) -> None:
    """Writes a row for each document: its id, source, url, date and text, and its tokens, the end-of-text id last.

    Zstandard, in row groups of 256 documents. The metadata of the file's schema has what the tokens mean:
    rein.n_vocab, rein.eot_id, rein.tokenizer_sha256.
    Raises   UserError when the disk is full, or a file of the corpus is missing or damaged.
    """
    token = pa.uint16() if shards.n_vocab <= 1 << 16 else pa.uint32()
    tokenizer = {key: str(manifest["tokenizer"][key]) for key in ("n_vocab", "eot_id", "sha256")}
    schema = pa.schema(
        [*((name, pa.string()) for name in _COLUMNS), ("tokens", pa.list_(token))],
        metadata={
            "rein.n_vocab": tokenizer["n_vocab"],
            "rein.eot_id": tokenizer["eot_id"],
            "rein.tokenizer_sha256": tokenizer["sha256"],
        },
    )
    files = [shards.folder / "documents" / record["file"] for record in manifest["splits"][shards.split]["files"]]
    rows = zip(read_documents(files), shards.iter_documents(), strict=True)
    progress = Progress(f"writing {path.name}", total=shards.n_documents, unit="documents")
    with whole(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer, progress as bar:
        for group in _groups(rows):
            writer.write_table(_table(group, schema))
            bar.advance(len(group))


def _groups(rows: Iterable[tuple[Document, Ids]]) -> Iterator[list[tuple[Document, Ids]]]:
    group: list[tuple[Document, Ids]] = []
    size = 0
    for document, ids in rows:
        group.append((document, ids))
        size += len(document.text) + ids.nbytes
        if len(group) == GROUP_DOCUMENTS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _table(group: list[tuple[Document, Ids]], schema: pa.Schema) -> pa.Table:
    ends = np.cumsum([0, *(len(ids) for _, ids in group)])
    token = schema.field("tokens").type.value_type
    tokens = np.concatenate([ids for _, ids in group]).astype(token.to_pandas_dtype())
    columns: list[Any] = [[getattr(document, name) for document, _ in group] for name in _COLUMNS]
    columns.append(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(tokens, token)))
    return pa.table(columns, schema=schema)
