"""What every tokenizer can do, how to load one, and text that appears token by token.

    tokenizer.json → load_tokenizer → Tokenizer: encode, decode, save     StreamDecoder: ids one by one → characters

There are two kinds: "gpt2" (byte_level.py), for everything since GPT-2, and "gpt1" (gpt1.py).
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rein.bpe import byte_level, formats, gpt1
from rein.bpe.checks import AnyIds, Ids
from rein.bpe.files import read_json
from rein.errors import UserError


class Tokenizer(Protocol):
    """Text to ids and back. `ByteLevelBPE` and `GPT1BPE` are the two."""

    @property
    def kind(self) -> str:
        """ "gpt2" or "gpt1"."""

    @property
    def n_vocab(self) -> int:
        """How many ids there are, the end-of-text id included."""

    @property
    def eot_id(self) -> int:
        """The id that ends a document: the last one. No text encodes to it."""

    def encode(self, text: str) -> Ids:
        """The ids of a text (n,), uint32.  Raises   UserError when `text` has a lone surrogate."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text."""

    def decode(self, ids: AnyIds) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""

    def decode_bytes(self, ids: AnyIds) -> bytes:
        """The bytes of the ids, put together."""

    def token_bytes_V(self) -> npt.NDArray[np.int64]:
        """How many bytes of text each id stands for, (n_vocab,); 0 for the end-of-text id. For bits per byte."""

    def sha256(self) -> str:
        """The SHA-256 of what defines the ids."""

    def save(self, path: Path) -> None:
        """Writes a Hugging Face tokenizer.json to `path`, or into it where it is a folder."""


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer.json, or the one in a folder: a checkpoint, a corpus, a Hugging Face model.

    Raises   UserError when there is none, it is cut short, or it holds another kind of tokenizer.
    """
    if path.is_dir():
        path = path / formats.TOKENIZER_JSON
    if not path.exists():
        raise UserError(
            f"There is no tokenizer at {path}.",
            "Name a tokenizer.json, or a folder with one; `rein bpe train` makes one.",
        )
    content = read_json(path, "a tokenizer.json")
    if formats.is_bpe(content):
        cutting = content.get("pre_tokenizer")
        if isinstance(cutting, dict) and cutting.get("type") == "ByteLevel":
            return byte_level.from_tokenizer_json(content, str(path))
        if content["model"].get("end_of_word_suffix") == formats.END_OF_WORD:
            return gpt1.from_tokenizer_json(content, str(path))
    raise UserError(
        f"{path} holds a tokenizer that is neither GPT-2's kind nor GPT-1's.",
        "Use GPT-2's or GPT-1's own tokenizer.json, or train a vocabulary with `rein bpe train`.",
    )


class StreamDecoder:
    """Text from ids that come one at a time: `push` returns only characters that are complete.

    All that `push` and `flush` returned, put together, is `tokenizer.decode` of all the ids.

    Example  >>> stream = StreamDecoder(byte_level.ByteLevelBPE(()))    # é is the two bytes 0xC3 0xA9
             >>> [stream.push(id) for id in (66, 127, 102)], stream.flush()
             (['c', '', 'é'], '')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """The characters that this id completes; often none, inside a character."""
        return self._decoder.decode(self._tokenizer.decode_bytes([id]))

    def flush(self) -> str:
        """What is left at the end: nothing, or U+FFFD for a character that was never completed."""
        return self._decoder.decode(b"", final=True)
