"""`rein text export`: a corpus as other trainers read it, without header.

train-*.bin → train.bin     heldout-*.bin → val.bin     (uint16, little-endian, one document after another)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rein.config import setting
from rein.errors import UserError, writing
from rein.text.shards import Shards, read_manifest

# nanoGPT's names.
NAMES = {"train": "train.bin", "heldout": "val.bin"}
_BLOCK_TOKENS = 1 << 22


@dataclass(frozen=True)
class ExportConfig:
    """Settings of `rein text export`."""

    corpus: Path = setting(help="corpus folder, from `rein text build`", positional=True)
    out: Path = setting(help="folder for train.bin and val.bin; files of these names are replaced")


def export(config: ExportConfig) -> None:
    """Writes a corpus as the header-less train.bin and val.bin of karpathy/nanoGPT: uint16 tokens, nothing else.

      rein text export data/pydocs --out ../nanoGPT/data/pydocs

    Such files do not say which vocabulary they are of: set vocab_size in the model's settings.
    """
    manifest = read_manifest(config.corpus)
    n_vocab = manifest["tokenizer"]["n_vocab"]
    if n_vocab > 1 << 16:
        raise UserError(
            f"The vocabulary of {config.corpus} has {n_vocab:,} entries, but header-less files hold ids below 65,536.",
            "Build the corpus with a smaller --n-vocab.",
        )
    with writing(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    for split in manifest["splits"]:
        n_tokens = write_headerless(Shards(config.corpus, split), config.out / NAMES[split])
        print(f"{config.out / NAMES[split]}: {n_tokens:,} tokens")
    print(f"vocab_size = {n_vocab}; each document ends with {manifest['tokenizer']['eot_id']}")


def write_headerless(shards: Shards, path: Path) -> int:
    """Writes the tokens of a split as bare uint16; returns how many.

    Raises   UserError when the disk is full.
    """
    part = path.with_name(path.name + ".part")
    with writing(path):
        try:
            with part.open("wb") as file:
                for start in range(0, shards.n_tokens, _BLOCK_TOKENS):
                    length = min(_BLOCK_TOKENS, shards.n_tokens - start)
                    file.write(shards.windows(np.array([start]), length).astype("<u2").tobytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return shards.n_tokens
