"""What an evaluation asks of a model: likelihoods of token trees, texts written, texts scored. `Ours` is a GPT of ours.

    score   trees of prompts and completions → log-probabilities           multiple choice, LAMBADA
    write   prompts → continuations, by beam search, greedily or sampled    free form
    read    a text → nats                                                   perplexity

transformers_model.py has the same three for any causal model of Hugging Face's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from rein.bpe.tokenizer import Tokenizer
from rein.evals.perplexity import score_text
from rein.models import tree
from rein.models.beam import beam_search
from rein.models.generate import generate
from rein.models.gpt import GPT
from rein.models.huggingface import end_of_text, load_model
from rein.models.machine import resolve_device, resolve_precision
from rein.models.tree import Tree, TreeScores

Decode = Literal["beam", "greedy", "top2"]

BEAM_WIDTH = 4  # Brown 2020 §2.4: "the same parameters as" T5
LENGTH_PENALTY = 0.6  # α of ((5 + |Y|) / 6)^α


@dataclass(frozen=True)
class Written:
    """What a model wrote behind a prompt, the token that ended it included but for the end of text."""

    ids: tuple[int, ...]
    logprob: float  # nats, the end included; NaN where the decoding does not tell; −∞ where nothing was finite


class LanguageModel(Protocol):
    """A model, its tokenizer, and where they run."""

    name: str
    n_ctx: int  # tokens that it can read
    n_params: int
    fingerprint: str  # two models of one fingerprint give the same numbers
    eot_id: int | None  # the end of a document; None: it knows none
    splits_at_space: bool  # encode(a + b) = encode(a) + encode(b) where a ends in a letter or sign and b in none begins

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""

    def ends(self, stop: str) -> frozenset[int]:
        """The tokens that end an answer: the end of text, and those that hold `stop`'s first character."""

    def score(self, trees: Sequence[Tree], forbidden: Collection[int] = ()) -> list[TreeScores]:
        """log P of the wanted tokens of each tree; see models/tree.py."""

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        decode: Decode,
        max_new_tokens: int,
        ends: frozenset[int],
        seeds: Sequence[int],
    ) -> list[Written]:
        """Continues each prompt until one of `ends`, or `max_new_tokens`. `seeds`: one for each, where it samples."""

    def read(self, text: str, name: str) -> tuple[float, int]:
        """−log P of a whole text in nats, in overlapping windows, and how many tokens it has."""


class Ours:
    """A GPT of ours as a `LanguageModel`."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, *, name: str, precision: str = "fp32") -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.n_ctx, self.n_params = model.config.n_ctx, model.config.n_params()
        self.eot_id = end_of_text(model.config, tokenizer)
        self.splits_at_space = tokenizer.kind == "gpt2"
        self.precision = precision
        self.fingerprint = f"{_fingerprint(model, tokenizer)}/{precision}"
        self._ends: dict[str, frozenset[int]] = {}

    @staticmethod
    def load(path: Path, *, device: str = "auto", precision: str = "fp32") -> Ours:
        """From a run, one of its checkpoints, or a model folder.

        Raises   UserError as `load_model` does.
        """
        where = resolve_device(device)
        model, tokenizer = load_model(path)
        precision = resolve_precision(precision, where)
        return Ours(model.to(where), tokenizer, name=str(path), precision=precision)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added."""
        ids: list[int] = self.tokenizer.encode(text).tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self.tokenizer.decode(np.asarray(ids, dtype=np.uint32))

    def ends(self, stop: str) -> frozenset[int]:
        """The end of text, and every token that holds `stop`'s first character."""
        if stop not in self._ends:
            eot = () if self.eot_id is None else (self.eot_id,)
            self._ends[stop] = tokens_with(stop[:1], self.tokenizer.n_vocab, self.decode).union(eot)
        return self._ends[stop]

    def score(self, trees: Sequence[Tree], forbidden: Collection[int] = ()) -> list[TreeScores]:
        """One forward pass over all of them."""
        return tree.score(self.model, trees, precision=self.precision, forbidden=forbidden)

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        decode: Decode,
        max_new_tokens: int,
        ends: frozenset[int],
        seeds: Sequence[int],
    ) -> list[Written]:
        """By beam search (width 4, α = 0.6), greedily, or sampled from the two likeliest tokens."""
        if decode == "beam":
            found = beam_search(
                self.model, prompts, width=BEAM_WIDTH, alpha=LENGTH_PENALTY, max_new_tokens=max_new_tokens, ends=ends,
                precision=self.precision,
            )  # fmt: skip
            return [
                Written(self._whole(best[0].tokens, ends), best[0].logprob) if best else Written((), -math.inf)
                for best in found
            ]
        answers = generate(
            self.model, prompts, max_new_tokens=max_new_tokens, precision=self.precision, numbers=seeds,
            temperature=0.0 if decode == "greedy" else 1.0, top_k=None if decode == "greedy" else 2,
            on_token=lambda _, token: token in ends,
        )  # fmt: skip
        return [Written(self._whole(ids, ends), float("nan")) for ids in answers]

    def read(self, text: str, name: str) -> tuple[float, int]:
        """As `rein perplexity` does."""
        found = score_text(self.model, self.tokenizer, text, precision=self.precision, name=name)
        return found.nats, found.n_tokens

    def _whole(self, ids: Sequence[int], ends: frozenset[int]) -> tuple[int, ...]:
        """Up to the token that ended it: text may stand in it before the stop."""
        stop = next((at for at, token in enumerate(ids) if token in ends), len(ids))
        return tuple(id for id in ids[: stop + 1] if id != self.eot_id)


def _fingerprint(model: GPT, tokenizer: Tokenizer) -> str:
    """SHA-256 of the shape, the weights and the tokenizer."""
    digest = hashlib.sha256(f"{model.config}/{tokenizer.sha256()}".encode())
    return add_weights(digest, model.state_dict())


def add_weights(digest: hashlib._Hash, state: Mapping[str, Tensor]) -> str:
    """The digest with the name, precision and bits of every weight."""
    for name, value in sorted(state.items()):
        digest.update(f"/{name}/{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokens_with(character: str, n_vocab: int, decode: Callable[[Sequence[int]], str]) -> frozenset[int]:
    """The tokens whose text holds a character; none for ""."""
    return frozenset(id for id in range(n_vocab) if character and character in decode([id]))
