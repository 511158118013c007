"""GPT-2's byte-level BPE: any bytes in, ids out, and the same bytes back.

    ids 0 … 255        the bytes, printable ones first (alphabet.py)
    id 256 + i         the result of merge i
    the last id        <|endoftext|>, which ends a document; no text encodes to it

Flow     merges (trainer.py, or OpenAI's files) → ByteLevelBPE → encode, decode, tokenizer.json.
Source   Radford 2019, §2.2; openai/gpt-2, src/encoder.py. GPT-2 has 50,000 merges, so 50,257 ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.bpe import formats
from rein.bpe.alphabet import BYTE_ORDER, EOT, from_visible, to_visible
from rein.bpe.checks import AnyIds, Ids, checked_ids, sha256_of
from rein.bpe.engines import Engine, best_engine
from rein.errors import UserError

# `bytes.decode(…, "surrogateescape")` turns a byte that is not UTF-8, 0x80 … 0xff, into U+DC80 … U+DCFF.
_ESCAPED = re.compile("([\udc80-\udcff]+)")


@dataclass(frozen=True)
class ByteLevelBPE:
    """A GPT-2 style tokenizer, which is its list of merges, best first.

    Example  >>> tokenizer = ByteLevelBPE(((b"l", b"o"), (b"lo", b"w")))
             >>> tokenizer.n_vocab, tokenizer.eot_id, tokenizer.encode("low").tolist()
             (259, 258, [257])
             >>> tokenizer.decode([257, 79])
             'lowp'
    Raises   UserError when a merge joins a token that no earlier merge makes, or makes one twice.
    """

    merges: tuple[tuple[bytes, bytes], ...]

    def __post_init__(self) -> None:
        known = {bytes([byte]) for byte in BYTE_ORDER}
        for index, (left, right) in enumerate(self.merges):
            if left not in known or right not in known or left + right in known:
                raise UserError(
                    f"Merge {index:,} is {to_visible(left)!r} + {to_visible(right)!r}, but a merge joins two tokens "
                    "made before it into one that is new.",
                    "The merges may be out of order or incomplete; take them from a trainer or a whole file.",
                )
            known.add(left + right)

    def __reduce__(self) -> tuple[type[ByteLevelBPE], tuple[tuple[tuple[bytes, bytes], ...]]]:
        return ByteLevelBPE, (self.merges,)  # leaves the engine behind, so that worker processes can be sent one

    @property
    def kind(self) -> str:
        """Always "gpt2"."""
        return "gpt2"

    @property
    def n_vocab(self) -> int:
        """How many ids there are, the end-of-text id included."""
        return 256 + len(self.merges) + 1

    @property
    def eot_id(self) -> int:
        """The id that ends a document: the last one."""
        return self.n_vocab - 1

    @cached_property
    def _tokens(self) -> list[bytes]:
        """The bytes of each id, the end-of-text id left out."""
        return [bytes([byte]) for byte in BYTE_ORDER] + [left + right for left, right in self.merges]

    @cached_property
    def _engine(self) -> Engine:
        vocab = {to_visible(token): id for id, token in enumerate(self._tokens)}
        return best_engine(json.dumps(formats.byte_level(vocab, self._visible_merges(), added=())), self._tokens)

    def _visible_merges(self) -> list[str]:
        return [f"{to_visible(left)} {to_visible(right)}" for left, right in self.merges]

    def encode(self, text: str) -> Ids:
        """The ids of a text (n,), uint32.

        Raises   UserError when `text` has a lone surrogate.
        """
        return self._engine.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, on all cores. The arrays are rows of one buffer.

        Raises   UserError when a text has a lone surrogate.
        """
        return self._engine.encode_batch(texts)

    def encode_bytes(self, data: bytes) -> Ids:
        """The ids of any bytes: what is UTF-8 as text, every other byte as its own token.

        `decode_bytes` gives `data` back exactly.
        """
        spans = _ESCAPED.split(data.decode("utf-8", "surrogateescape"))
        ids = [self.encode(spans[0])]
        for escaped, text in zip(spans[1::2], spans[2::2], strict=True):
            ids.append(np.array([_ID_OF_BYTE[ord(character) - 0xDC00] for character in escaped], dtype=np.uint32))
            ids.append(self.encode(text))
        return np.concatenate(ids)

    def decode_bytes(self, ids: AnyIds) -> bytes:
        """The bytes that the ids stand for, put together; the end-of-text id reads `<|endoftext|>`.

        Raises   UserError when an id is not in the vocabulary.
        """
        tokens = self._tokens_with_eot
        return b"".join([tokens[id] for id in checked_ids(ids, self.n_vocab)])

    @cached_property
    def _tokens_with_eot(self) -> list[bytes]:
        return [*self._tokens, EOT.encode()]

    def decode(self, ids: AnyIds) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD.

        Raises   UserError when an id is not in the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_bytes_V(self) -> npt.NDArray[np.int64]:
        """How many bytes of text each id stands for, (n_vocab,); 0 for the end-of-text id."""
        return np.array([*map(len, self._tokens), 0], dtype=np.int64)

    def sha256(self) -> str:
        """The SHA-256 of what defines the ids: kind and merges, as canonical JSON."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return sha256_of({"kind": self.kind, "merges": self._visible_merges()})

    def save(self, path: Path) -> None:
        """Writes a Hugging Face tokenizer.json to `path`, or into it where `path` is a folder.

        Raises   UserError when it cannot be written.
        """
        vocab = {to_visible(token): id for id, token in enumerate(self._tokens)} | {EOT: self.eot_id}
        added = (formats.added_token(EOT, self.eot_id),)
        formats.save(formats.byte_level(vocab, self._visible_merges(), added), path)


_ID_OF_BYTE = {byte: id for id, byte in enumerate(BYTE_ORDER)}


def from_openai(encoder: Path, merges: Path) -> ByteLevelBPE:
    """Reads the pair of files that OpenAI released: `encoder.json` and `vocab.bpe`.

    Raises   UserError when a file cannot be read, is cut short, or the two do not belong together.
    """
    return _from_parts(formats.read_ids(encoder), formats.read_merges(merges), f"{encoder} with {merges}")


def from_tokenizer_json(content: dict[str, Any], source: str) -> ByteLevelBPE:
    """Reads the content of a Hugging Face tokenizer.json that holds a GPT-2 style vocabulary.

    Raises   UserError when it does anything else than GPT-2 does: other cutting, other ids, more special tokens.
    """
    cutting = content.get("pre_tokenizer") or {}
    if content.get("normalizer") or cutting.get("add_prefix_space") or not cutting.get("use_regex", True):
        raise UserError(
            f"{source} changes or cuts text otherwise than GPT-2 does.",
            "Use GPT-2's tokenizer.json, or one that `rein bpe train` wrote.",
        )
    ids = formats.ids_with_eot(content, source)
    return _from_parts(ids, formats.merge_pairs(content["model"]["merges"], source), source)


def _from_parts(ids: dict[str, int], pairs: Iterable[tuple[str, str]], source: str) -> ByteLevelBPE:
    merges = [(from_visible(left, source), from_visible(right, source)) for left, right in pairs]
    tokenizer = ByteLevelBPE(tuple(merges))
    formats.check_ids(ids, [*map(to_visible, tokenizer._tokens), EOT], source)
    return tokenizer
