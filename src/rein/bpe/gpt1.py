"""GPT-1's BPE: merges of characters inside the lower-cased words of `gpt1_text.py`.

    id 0               <unk>, for every character that is not in the vocabulary
    ids 1 … C          the C characters
    ids C+1 … 2C       the same characters at the end of a word: `e</w>`
    id 2C + 1 + i      the result of merge i
    the last but one   \\n</w>, the newline
    the last id        <|endoftext|>, which ends a document

GPT-1 has C = 238 and 40,000 merges, so 40,478 ids, and no end of text: its books were one long stream. Packing
documents needs one, so Rein appends it as id 40,478; the other ids are GPT-1's own. A released model has no row
for it, and needs none as long as no document is ended.

Encoding loses letter case and the exact spaces: `decode` gives lower-cased words with single spaces.

Flow     merges (trained here, or OpenAI's files) → GPT1BPE → encode, decode, tokenizer.json.
Source   Radford 2018, §4.1; openai/finetune-transformer-lm, text_utils.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.bpe import formats
from rein.bpe.alphabet import EOT
from rein.bpe.checks import AnyIds, Ids, checked_ids, sha256_of
from rein.bpe.files import read_text
from rein.bpe.formats import END_OF_WORD, UNKNOWN
from rein.bpe.gpt1_text import NEWLINE, Words
from rein.bpe.merging import merge_word
from rein.bpe.oracle import Pair, learn_merges
from rein.bpe.trainer import MAX_BYTES, check_max_bytes, check_n_vocab, check_supported, first_bytes
from rein.errors import UserError

# The most frequent characters of the training text that get ids of their own (GPT-1 has 238).
N_CHARACTERS = 256

_CACHE_WORDS = 1_000_000


@dataclass(frozen=True)
class GPT1BPE:
    """A GPT-1 style tokenizer: its characters in the order of their ids, and its merges, best first.

    Example  >>> tokenizer = GPT1BPE(("a", "b"), (("a", "b</w>"),))
             >>> tokenizer.n_vocab, tokenizer.eot_id, tokenizer.encode("Ab\\n\\nba C").tolist()
             (8, 7, [5, 6, 2, 3, 0])
             >>> tokenizer.decode([5, 6, 2, 3])
             'ab \\n ba '
    Raises   UserError when a merge joins a token that no earlier merge makes, or makes one twice.
    """

    characters: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        known = set(self._base)
        for index, (left, right) in enumerate(self.merges):
            if left not in known or right not in known or left + right in known:
                raise UserError(
                    f"Merge {index:,} is {left!r} + {right!r}, but a merge joins two tokens made before it "
                    "into one that is new.",
                    "The merges may be out of order or incomplete; take them from a trainer or a whole file.",
                )
            known.add(left + right)

    def __reduce__(self) -> tuple[type[GPT1BPE], tuple[tuple[str, ...], tuple[tuple[str, str], ...]]]:
        return GPT1BPE, (self.characters, self.merges)  # leaves spaCy and the caches behind

    @property
    def kind(self) -> str:
        """Always "gpt1"."""
        return "gpt1"

    @property
    def n_vocab(self) -> int:
        """How many ids there are, the end-of-text id included."""
        return len(self._tokens)

    @property
    def eot_id(self) -> int:
        """The id that ends a document: the last one, appended to GPT-1's own."""
        return self.n_vocab - 1

    @property
    def _base(self) -> list[str]:
        ends = [character + END_OF_WORD for character in self.characters]
        return [UNKNOWN, *self.characters, *ends]

    @cached_property
    def _tokens(self) -> list[str]:
        merged = [left + right for left, right in self.merges]
        return [*self._base, *merged, NEWLINE + END_OF_WORD, EOT]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: id for id, token in enumerate(self._tokens)}

    @cached_property
    def _new_symbol(self) -> dict[Pair, int]:
        ids = self._ids
        return {(ids[left], ids[right]): ids[left + right] for left, right in self.merges}

    @cached_property
    def _words(self) -> Words:
        return Words()

    @cached_property
    def _cache(self) -> dict[str, list[int]]:
        return {NEWLINE: [self._ids[NEWLINE + END_OF_WORD]]}

    def _symbols(self, word: str) -> list[int]:
        """A word's characters as ids, before any merge."""
        return [*(self._ids.get(character, 0) for character in word[:-1]), self._ids.get(word[-1] + END_OF_WORD, 0)]

    def _encode_word(self, word: str) -> list[int]:
        if len(self._cache) >= _CACHE_WORDS:
            del self.__dict__["_cache"]
        ids = self._cache[word] = merge_word(self._symbols(word), self._new_symbol)
        return ids

    def encode(self, text: str) -> Ids:
        """The ids of a text (n,), uint32.

        Raises   UserError when `text` has a lone surrogate, or ftfy or spaCy is not installed.
        """
        ids: list[int] = []
        for word in self._words.of(text):
            known = self._cache.get(word)
            ids += self._encode_word(word) if known is None else known
        return np.array(ids, dtype=np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text.  Raises   UserError as `encode` does."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: AnyIds) -> str:
        """Lower-cased words, a space behind each; <unk> and the end of text are written out.

        Raises   UserError when an id is not in the vocabulary.
        """
        texts = self._texts
        return "".join([texts[id] for id in checked_ids(ids, self.n_vocab)])

    @cached_property
    def _texts(self) -> list[str]:
        """What each id reads: `</w>` is the space behind a word."""
        return [token.removesuffix(END_OF_WORD) + " " * token.endswith(END_OF_WORD) for token in self._tokens]

    def decode_bytes(self, ids: AnyIds) -> bytes:
        """`decode`, as UTF-8."""
        return self.decode(ids).encode()

    def token_bytes_V(self) -> npt.NDArray[np.int64]:
        """How many bytes of lower-cased, single-spaced text each id stands for, (n_vocab,).

        The end of a word counts its space. <unk> counts 1, the least that a character can have; the end of
        text 0.
        """
        counts = np.array([len(text.encode()) for text in self._texts], dtype=np.int64)
        counts[0], counts[self.eot_id] = 1, 0
        return counts

    def sha256(self) -> str:
        """The SHA-256 of what defines the ids: kind, characters and merges, as canonical JSON."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return sha256_of({"kind": self.kind, "characters": self.characters, "merges": self.merges})

    def save(self, path: Path) -> None:
        """Writes a Hugging Face tokenizer.json to `path`, or into it where `path` is a folder.

        `load_tokenizer` restores this tokenizer exactly. Hugging Face libraries read the file too, ids and
        all, but such a file cannot say ftfy or spaCy: they cut text as BERT does, which gives other ids for
        contractions, ellipses, dashes and accents, and never the newline. Encode with Rein.

        Raises   UserError when it cannot be written.
        """
        added = (formats.added_token(EOT, self.eot_id),)
        merges = [f"{left} {right}" for left, right in self.merges]
        formats.save(formats.word_level(self._ids, merges, added), path)


def from_openai(encoder: Path, merges: Path) -> GPT1BPE:
    """Reads the pair of files that OpenAI released: `encoder_bpe_40000.json` and `vocab_40000.bpe`.

    Raises   UserError when a file cannot be read, is cut short, or the two do not belong together.
    """
    return _from_parts(formats.read_ids(encoder), formats.read_merges(merges), f"{encoder} with {merges}")


def from_tokenizer_json(content: dict[str, Any], source: str) -> GPT1BPE:
    """Reads the content of a Hugging Face tokenizer.json that holds a GPT-1 style vocabulary, Rein's or another.

    Raises   UserError when its ids are not laid out as GPT-1's, or it has more special tokens than <unk>.
    """
    ids = formats.ids_with_eot(content, source)
    return _from_parts(ids, formats.merge_pairs(content["model"]["merges"], source), source)


def _from_parts(ids: Mapping[str, int], pairs: Iterable[tuple[str, str]], source: str) -> GPT1BPE:
    merges = tuple(pairs)
    own = {token: id for token, id in ids.items() if token != EOT}
    n_characters = (len(own) - len(merges) - 2) // 2
    characters = sorted(own, key=own.__getitem__)[1 : n_characters + 1] if n_characters > 0 else []
    tokenizer = GPT1BPE(tuple(characters), merges)
    formats.check_ids(ids, tokenizer._tokens if EOT in ids else tokenizer._tokens[:-1], source)
    return tokenizer


def train(documents: Iterable[str | Path], n_vocab: int, *, max_bytes: int = MAX_BYTES) -> GPT1BPE:
    """Learns a GPT-1 style vocabulary of `n_vocab` ids, in plain Python.

    Each document is a text, or the path of a UTF-8 file that holds one. Those beyond the first `max_bytes` bytes
    are left out.

    Raises   UserError when `n_vocab` is below what the characters need or more than the text supports, when there
             is no text, when `max_bytes` is not between 1 and 2³¹ − 1, or when a document is not UTF-8 text.
    """
    check_n_vocab(n_vocab, 3)
    check_max_bytes(max_bytes)
    return train_from_counts(count_words(documents, max_bytes), n_vocab)


def count_words(documents: Iterable[str | Path], max_bytes: int = MAX_BYTES) -> Counter[str]:
    """How often each word occurs in the first `max_bytes` bytes. Counts of parts of a corpus may be added up.

    Raises   UserError when a document is not UTF-8 text, or ftfy or spaCy is not installed.
    """
    words = Words()
    counts: Counter[str] = Counter()
    for document in documents:
        if max_bytes <= 0:
            break
        data = first_bytes(read_text(document) if isinstance(document, Path) else document, max_bytes)
        counts.update(words.of(data.decode()))
        max_bytes -= len(data)
    del counts[NEWLINE]
    return counts


def train_from_counts(counts: Mapping[str, int], n_vocab: int, n_characters: int = N_CHARACTERS) -> GPT1BPE:
    """Learns a GPT-1 style vocabulary from counted words.

    The `n_characters` most frequent characters get ids, the most frequent first; the others become <unk>, and
    no merge reaches over them. Of equally frequent pairs, the one with the smaller ids is merged first.

    Example  >>> train_from_counts({"low": 3, "slow": 2}, n_vocab=14).merges
             (('l', 'o'), ('lo', 'w</w>'), ('s', 'low</w>'))
    Raises   UserError when there are no words, or `n_vocab` is too small or too large for them.
    """
    if not counts:
        raise UserError("There is no text to train on: every document is empty.", "Give files that hold text.")
    frequency: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            frequency[character] += count
    common = sorted(frequency, key=lambda character: (-frequency[character], character))[:n_characters]
    base = GPT1BPE(tuple(common), ())
    check_n_vocab(n_vocab, base.n_vocab)

    runs: Counter[tuple[int, ...]] = Counter()
    for word, count in counts.items():
        if UNKNOWN not in word:  # its merges could spell the token of that name
            for known, run in groupby(base._symbols(word), key=bool):
                if known:
                    runs[tuple(run)] += count
    tokens = list(base._base)
    merges = []
    for left, right in learn_merges(runs, len(tokens), n_vocab - base.n_vocab):
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    check_supported(len(merges), n_vocab - base.n_vocab, n_vocab)
    return GPT1BPE(base.characters, tuple(merges))
