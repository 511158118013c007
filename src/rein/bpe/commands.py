"""`rein bpe train`, `rein bpe encode` and `rein bpe decode`."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rein.bpe import byte_level, formats, gpt1, trainer
from rein.bpe.checks import Ids
from rein.bpe.files import not_utf8, read_text
from rein.bpe.oracle import Ties
from rein.bpe.tokenizer import Tokenizer, load_tokenizer
from rein.config import setting
from rein.errors import UserError, writing
from rein.progress import Progress

STDIN = Path("-")


@dataclass(frozen=True)
class TrainConfig:
    """What `rein bpe train` is told."""

    files: tuple[Path, ...] = setting((), "UTF-8 text files; each is one document", positional=True)
    n_vocab: int = setting(
        8192, "entries in all: base symbols, merges and <|endoftext|>", paper="GPT-1 40,478, GPT-2 and GPT-3 50,257"
    )
    kind: Literal["gpt2", "gpt1"] = setting("gpt2", "gpt2: any bytes; gpt1: lower-cased words, needs rein[gpt1]")
    out: Path = setting(Path("tokenizer.json"), "where the vocabulary goes; an existing file is replaced")
    max_bytes: int = setting(trainer.MAX_BYTES, "learn from the first so many bytes", unit="bytes")
    ties: Ties = setting("huggingface", "which of equally frequent pairs comes first (gpt2 only); see oracle.py")
    encoder: Path | None = setting(
        None, "released encoder.json, to convert instead of learning", group="converting released files"
    )
    merges: Path | None = setting(None, "released vocab.bpe that belongs to it", group="converting released files")


def train(config: TrainConfig) -> None:
    """Learns a vocabulary from text, or converts a released one, and writes it as a tokenizer.json.

      rein bpe train book.txt                                      8,192 entries, GPT-2's kind
      rein bpe train corpus/*.txt --n-vocab 32768 --out bpe.json
      rein bpe train books/*.txt --kind gpt1 --n-vocab 40000
      rein bpe train --encoder encoder.json --merges vocab.bpe     the vocabulary that OpenAI released

    Hugging Face's tokenizers and transformers read the file too. The same text gives the same vocabulary, however
    many cores there are. Every file is one document: no token reaches over the border between two.
    """
    start = time.monotonic()
    if config.encoder is not None or config.merges is not None:
        tokenizer, made = _convert(config), "converted"
    else:
        if not config.files:
            raise UserError(
                "rein bpe train has no text to learn from.",
                "Name one or more text files, or --encoder and --merges to convert a released vocabulary.",
            )
        tokenizer, made = _learn(config), f"learned in {time.monotonic() - start:.1f} s"
    tokenizer.save(config.out)
    out = config.out / formats.TOKENIZER_JSON if config.out.is_dir() else config.out
    print(f"{out}: {tokenizer.n_vocab:,} entries, kind {tokenizer.kind}, {made}, sha256 {tokenizer.sha256()[:16]}…")


def _convert(config: TrainConfig) -> Tokenizer:
    if config.encoder is None or config.merges is None:
        given, missing = ("--merges", "--encoder") if config.encoder is None else ("--encoder", "--merges")
        raise UserError(f"{given} is given without {missing}; a released vocabulary is two files.", f"Add {missing}.")
    if config.files:
        raise UserError(
            f"{config.files[0]} is given as text to learn from, together with --encoder and --merges.",
            "Leave out the text, or leave out the two flags.",
        )
    if config.kind == "gpt1":
        return gpt1.from_openai(config.encoder, config.merges)
    return byte_level.from_openai(config.encoder, config.merges)


def _learn(config: TrainConfig) -> Tokenizer:
    total = sum(map(_size, config.files))
    with Progress("learning", total=min(total, config.max_bytes), unit="bytes") as bar:
        if 0 < config.max_bytes < total:
            bar.say(f"Learning from the first {config.max_bytes:,} of {total:,} bytes (--max-bytes).")
        documents = _watched(config.files, bar)
        if config.kind == "gpt1":
            return gpt1.train(documents, config.n_vocab, max_bytes=config.max_bytes)
        return trainer.train(documents, config.n_vocab, ties=config.ties, max_bytes=config.max_bytes)


def _watched(files: Sequence[Path], bar: Progress) -> Iterator[Path]:
    for file in files:
        yield file
        bar.advance(_size(file), note=file.name)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0  # reading it says what is wrong


@dataclass(frozen=True)
class EncodeConfig:
    """What `rein bpe encode` is told."""

    tokenizer: Path = setting(help="a tokenizer.json, or a folder with one: a checkpoint, a corpus")
    files: tuple[Path, ...] = setting(
        (), "UTF-8 text files, each one document; - or none is standard input", positional=True
    )
    out: Path | None = setting(None, "write one flat uint32 array (.npy) instead of printing")
    append_eot: bool = setting(False, "end each document with the end-of-text id")


def encode(config: EncodeConfig) -> None:
    """Turns text into token ids: one line of numbers for each document.

      rein bpe encode book.txt --tokenizer tokenizer.json
      echo "Hello world" | rein bpe encode --tokenizer runs/tiny/checkpoints/last
      rein bpe encode *.txt --tokenizer tokenizer.json --append-eot --out ids.npy

    For a training corpus use `rein text build`, which works in parallel and can be resumed.
    """
    tokenizer = load_tokenizer(config.tokenizer)
    documents = _encoded(config, tokenizer)
    if config.out is None:
        for ids in documents:
            print(*ids.tolist())
    else:
        _save_array(np.concatenate([np.empty(0, np.uint32), *documents]), config.out)


def _encoded(config: EncodeConfig, tokenizer: Tokenizer) -> Iterator[Ids]:
    for file in config.files or (STDIN,):
        ids = tokenizer.encode(_stdin_text() if file == STDIN else read_text(file))
        yield np.append(ids, np.uint32(tokenizer.eot_id)) if config.append_eot else ids


def _stdin_text() -> str:
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8("Standard input", data[error.start], error.start) from None


def _save_array(ids: Ids, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                np.save(file, ids)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


@dataclass(frozen=True)
class DecodeConfig:
    """What `rein bpe decode` is told."""

    tokenizer: Path = setting(help="a tokenizer.json, or a folder with one: a checkpoint, a corpus")
    file: Path = setting(STDIN, "ids as text, with any white space, or .npy; - is standard input", positional=True)


def decode(config: DecodeConfig) -> None:
    """Turns token ids back into text, exactly: no newline is added, and bytes that are not UTF-8 stay as they are.

    rein bpe decode ids.npy --tokenizer tokenizer.json
    rein bpe encode book.txt --tokenizer tokenizer.json | rein bpe decode --tokenizer tokenizer.json
    """
    tokenizer = load_tokenizer(config.tokenizer)
    sys.stdout.flush()
    sys.stdout.buffer.write(tokenizer.decode_bytes(_read_ids(config.file)))


def _read_ids(file: Path) -> Sequence[int] | Ids:
    if file.suffix == ".npy":
        return _load_array(file)
    text = _stdin_text() if file == STDIN else read_text(file)
    ids = []
    for word in text.split():
        if not re.fullmatch("-?[0-9]+", word):
            source = "Standard input" if file == STDIN else str(file)
            raise UserError(
                f"{source} holds {word[:40]!r}, but token ids are whole numbers.",
                "Give what `rein bpe encode` prints or writes.",
            )
        ids.append(int(word))
    return ids


def _load_array(path: Path) -> Ids:
    try:
        array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is not an array of ids: {error}.", "Give what `rein bpe encode --out` wrote."
        ) from None
    ids: Ids = array
    return ids
