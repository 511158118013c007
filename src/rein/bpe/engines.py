"""The encoders behind byte-level BPE: gigatoken, watched by tiktoken.

gigatoken is ten times as fast as tiktoken and gives the same ids, but it is young. So each time one is built,
both encode the same canaries, short texts on which encoders are known to go wrong; where they differ, tiktoken
does the work, and a warning says so. The check takes as long as building tiktoken does, some 50 ms for GPT-2.

Neither engine knows the end-of-text token, so no text can forge a document's end.

Engines also differ in what they take for a letter: gigatoken 0.10 knows Unicode 17, tiktoken 0.14 and Hugging Face
tokenizers Unicode 16, the Python package regex Unicode 18. A character assigned in 2025 or later may therefore be
cut from its neighbours by one and not by another. Every text still comes back as it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import gigatoken
import numpy as np
import tiktoken

from rein.bpe.alphabet import PATTERN
from rein.bpe.checks import Ids, check_text, check_texts

CANARIES = (
    "Hello world",
    " Hello  world\n\n",
    "it's IT'S 'Sup they'll THEY'LL we've I'm he'd you're 'tis '",
    "don't DON'T I'll I'LL don’t",
    "\t'derived'\n's \u00a0't  'll",
    "dog. dog! dog? (dog) --dog-- ...dog",
    "x <|endoftext|> y<|endoftext|>",
    "中文 😀 é 日本語テキスト 한국어 العربية עברית हिन्दी ไทย",
    "👩‍👩‍👧‍👦 🇩🇪 👍🏽 e\u0301 \u200b\u200d\ufe0f",
    "naïve café Straße ǅ ﬁ ① ½ Ⅷ ٣ ²",
    "\x00\x01\x1b\x7f\x85\x9f",
    "\ufeff\xa0a\u3000b\u2028c\u2029d\u1680e\u180ef",
    " \t \n x \r\n\r\n  y\x0b\x0cz\x1c\x1d",
    "2+2=4 1234567 3.14e-10 0x1F a1b2",
    "a" * 300 + " " * 300 + "b" + "\n" * 300 + "^" * 300 + "\t\t  \t" * 60 + "é" * 100,
    "def f(x):\n    return {'a': [x, 1_000]}  # ünïcödé\n\n\n",
    "\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff",
    "snake_case camelCase SCREAMING kebab-case http://a.b/c?d=e&f=%20#g",
    "trailing space ",
    " ",
    "\n",
    "",
)

# Characters encoded before the gigatoken engine is built anew: it remembers every piece it has met (some 100
# bytes each), and would otherwise grow for as long as ever new words come.
CACHE_CHARACTERS = 1 << 30


class Engine(Protocol):
    """What turns text into ids."""

    def encode(self, text: str) -> Ids:
        """The ids of one text."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text."""


class GigatokenEngine:
    """gigatoken on a tokenizer.json without added tokens."""

    def __init__(self, tokenizer_json: str) -> None:
        self._json = tokenizer_json
        self._tokenizer = gigatoken.Tokenizer.from_json(tokenizer_json)
        self._characters = 0

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > CACHE_CHARACTERS:
            self._tokenizer = gigatoken.Tokenizer.from_json(self._json)
            self._characters = characters

    def encode(self, text: str) -> Ids:
        """The ids of one text."""
        self._count(len(text))
        try:
            ids: Ids = self._tokenizer.encode(text)
        except TypeError:
            check_text(text)
            raise
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, on all cores; on one core inside a worker process. Rows share one buffer."""
        self._count(sum(map(len, texts)))
        try:
            layout: Any = self._tokenizer.encode_batch(list(texts)).layout
        except TypeError:
            check_texts(texts)
            raise
        ids: Ids = np.asarray(layout.content.data)
        ends = np.asarray(layout.offsets).tolist()
        return [ids[start:end] for start, end in pairwise(ends)]


class TiktokenEngine:
    """tiktoken on the same tokens, without special tokens; it replaces lone surrogates, so they are refused first."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        ranks = {token: id for id, token in enumerate(tokens)}
        self._encoding = tiktoken.Encoding("rein", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})

    def encode(self, text: str) -> Ids:
        """The ids of one text."""
        check_text(text)
        return self._encoding.encode_to_numpy(text).copy()

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text."""
        check_texts(texts)
        return [self.encode(text) for text in texts]


def best_engine(tokenizer_json: str, tokens: Sequence[bytes]) -> Engine:
    """gigatoken, or tiktoken where the two differ on a canary.

    `tokens` are the bytes of each id, without the end-of-text token; `tokenizer_json` says the same to gigatoken.
    """
    careful = TiktokenEngine(tokens)
    fast = GigatokenEngine(tokenizer_json)
    for canary in CANARIES:
        if not np.array_equal(fast.encode(canary), careful.encode(canary)):
            warnings.warn(
                f"gigatoken {_version()} and tiktoken differ on {canary[:40]!r}; tiktoken is used: right, but slower.",
                RuntimeWarning,
                stacklevel=2,
            )
            return careful
    return fast


def _version() -> str:
    from importlib.metadata import version

    return version("gigatoken")
