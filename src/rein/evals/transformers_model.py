"""Any causal language model of transformers as a `LanguageModel`: what Rein measures of its own models, of others too.

    score   the tokens of many trees lie end to end in one row; a mask shows each its ancestors, and its position is its
            depth. Whether a model really reads it so is tried: every tree deeper than any tried before is also scored
            sequence by sequence. Where the numbers differ, all are scored so from then on, and a note says it.
    write   the same beam search as for our models (models/beam.py), over the model's own cache
    read    overlapping windows, as `rein perplexity` reads

Where a tokenizer begins every text with a token of its own (Llama's <s>), so does every prompt here.

Needs transformers: `pip install "rein[huggingface]"`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rein.errors import UserError
from rein.evals.language_model import BEAM_WIDTH, LENGTH_PENALTY, Decode, Written, add_weights, tokens_with
from rein.models.beam import Beams
from rein.models.generate import sample
from rein.models.machine import resolve_device, resolve_precision
from rein.models.tree import ROOT, Tree, TreeScores

_ROW = 2048  # tokens of a row of trees: their mask has the square of it
_LOGITS_AT_ONCE = 1 << 24
_CLOSE_NATS = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}  # of a token, packed or not
_N_CTX = 2048  # of a model that does not say
_SAYS_NOTHING = ("_name_or_path", "transformers_version")  # in a configuration: about what the model computes


class Theirs:
    """A causal language model of transformers, its tokenizer, and where they run."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self._begin = _beginning(tokenizer)
        self.n_ctx = _n_ctx(model.config, tokenizer) - (self._begin is not None)
        self.n_params = sum(parameter.numel() for parameter in model.parameters())
        # What a text begins behind. Of models that tell beginnings from ends it is the beginning.
        starts = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        self.eot_id: int | None = next((id for id in starts if id is not None), None)
        self.splits_at_space = _splits_at_space(tokenizer)
        self.fingerprint = _fingerprint(model, tokenizer)
        self.notes: list[str] = []
        self._ends: dict[str, frozenset[int]] = {}
        self._packs = True
        if not _sees_everything(model.config):
            self._note("its layers do not all see every token before")
        self._tried_depth = 0
        self._keeps_rows = "logits_to_keep" in inspect.signature(model.forward).parameters

    @staticmethod
    def load(name: str, *, device: str = "auto", precision: str = "fp32") -> Theirs:
        """From a folder, or by its name on the Hugging Face hub.

        Raises   UserError when transformers is not installed, or finds no such model.
        """
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise UserError(
                f"hf:{name} needs the package transformers.", 'Install it: pip install "rein[huggingface]".'
            ) from None
        where = resolve_device(device)
        dtype = torch.bfloat16 if resolve_precision(precision, where) == "bf16" else torch.float32
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=False)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"transformers cannot load hf:{name}: {reason}",
                "Give a folder with a causal language model, or its name on the Hugging Face hub.",
            ) from None
        return Theirs(model.to(where), tokenizer, name=f"hf:{name}")

    # --------------------------------------------------------------------------------------------- tokens

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def ends(self, stop: str) -> frozenset[int]:
        """The tokens that end a text, and every one that holds `stop`'s first character."""
        if stop not in self._ends:
            held = tokens_with(stop[:1], len(self.tokenizer), self.decode)
            self._ends[stop] = held | self._special_ends()
        return self._ends[stop]

    def _begun(self, ids: Sequence[int]) -> list[int]:
        """Behind the token that this model's texts begin with, if they do and it is not there."""
        return [*ids] if self._begin is None or self._begin in ids[:1] else [self._begin, *ids]

    def _special_ends(self) -> frozenset[int]:
        said = getattr(self.model.generation_config, "eos_token_id", None)
        said = said if isinstance(said, list) else [said]
        return frozenset(id for id in (self.eot_id, self.tokenizer.eos_token_id, *said) if id is not None)

    # ---------------------------------------------------------------------------------------------- score

    @torch.inference_mode()
    def score(self, trees: Sequence[Tree], forbidden: Collection[int] = ()) -> list[TreeScores]:
        """log P of the wanted tokens of each tree; equal to that of the plain sequences up to rounding."""
        deepest = max(trees, key=_depth, default=None)
        if deepest is not None and self._packs and _depth(deepest) > self._tried_depth:
            self._try(deepest)
        if not self._packs:
            return [self._plain(tree, forbidden) for tree in trees]
        return [scores for row in _rows(trees) for scores in self._packed(row, forbidden)]

    def _try(self, tree: Tree) -> None:
        """Whether a row of trees is read as its sequences are; afterwards it is known up to this depth."""
        nodes = list(tree.wanted)
        plain = self._plain(tree, ()).logprobs_N[nodes]
        try:
            off = float(np.abs(self._packed([tree], ())[0].logprobs_N[nodes] - plain).max(initial=0.0))
            reason = f"log-probabilities differ by {off:.3g} nats"
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            off, reason = float("inf"), f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        self._tried_depth = _depth(tree)
        if not off <= _CLOSE_NATS.get(self.model.dtype, 1e-3):
            self._note(reason)

    def _note(self, reason: str) -> None:
        self._packs = False
        self.notes.append(
            f"{self.name} does not read trees ({reason}): each sequence is scored alone, which is slower."
        )
        print(self.notes[-1], file=sys.stderr)

    def _packed(self, trees: Sequence[Tree], forbidden: Collection[int]) -> list[TreeScores]:
        """Trees end to end in one row."""
        n = sum(tree.n_read() + (self._begin is not None) for tree in trees)
        seen_NN = np.eye(n, dtype=bool)
        tokens, positions, rows = list[int](), list[int](), list[dict[int, int]]()
        for tree in trees:
            row_of: dict[int, int] = {}
            if self._begin is not None:  # in front of all that do not begin with it
                row_of[ROOT] = len(tokens)
                tokens.append(self._begin)
                positions.append(0)
            for node in np.flatnonzero(tree.read()).tolist():  # parents come before children
                begins = tree.parents[node] == ROOT and tree.tokens[node] == self._begin
                above = None if begins else row_of.get(tree.parents[node])
                row_of[node] = row = len(tokens)
                if above is not None:
                    seen_NN[row] |= seen_NN[above]
                tokens.append(tree.tokens[node])
                positions.append(0 if above is None else positions[above] + 1)
            rows.append(row_of)
        dtype, device = self.model.dtype, self.model.device
        mask_NN = torch.zeros(n, n, dtype=dtype, device=device)
        mask_NN.masked_fill_(torch.from_numpy(~seen_NN).to(device), torch.finfo(dtype).min)
        asked = [(row_of[tree.parents[node]], tree.tokens[node]) for tree, row_of in zip(trees, rows, strict=True)
                 for node in tree.wanted]  # fmt: skip
        how = {"position_ids": torch.tensor([positions], device=device), "attention_mask": mask_NN[None, None]}
        found, at, scores = self._read_off(tokens, asked, forbidden, **how), 0, []
        for tree in trees:
            mine = found[:, at : (at := at + len(tree.wanted))]
            scores.append(_tree_scores(tree, list(tree.wanted), mine))
        return scores

    def _plain(self, tree: Tree, forbidden: Collection[int]) -> TreeScores:
        """Each sequence by itself."""
        nodes, parts = list[int](), list[npt.NDArray[np.float64]]()
        missing = set(tree.wanted)
        for leaf in sorted(tree.wanted, key=lambda node: -tree.depths[node]):
            if leaf not in missing:
                continue
            path = [leaf]
            while tree.parents[path[-1]] != ROOT:
                path.append(tree.parents[path[-1]])
            here = [node for node in path if node in missing]
            missing.difference_update(here)
            ids = self._begun(tree.sequence(leaf))
            row = len(ids) - len(path) - 1  # of what stands before the tree's first token
            asked = [(row + tree.depths[node], tree.tokens[node]) for node in here]
            nodes += here
            parts.append(self._read_off(ids[:-1], asked, forbidden))
        return _tree_scores(tree, nodes, np.concatenate(parts, axis=1) if parts else np.zeros((3, 0)))

    def _read_off(
        self, tokens: Sequence[int], asked: Sequence[tuple[int, int]], forbidden: Collection[int], **how: Tensor
    ) -> npt.NDArray[np.float64]:
        """(3, asked): log P of each token behind a row, is it the likeliest there, is it the likeliest allowed."""
        device = self.model.device
        rows_R, row_M = np.unique([row for row, _ in asked], return_inverse=True)
        token_M = np.array([token for _, token in asked])
        logits_RV = self._logits(tokens, torch.from_numpy(rows_R).to(device), **how)
        found, at_once = np.empty((3, len(asked))), max(1, _LOGITS_AT_ONCE // logits_RV.shape[1])
        banned = torch.tensor(sorted(forbidden), dtype=torch.int64, device=device)
        for first in range(0, len(rows_R), at_once):
            some_RV = logits_RV[first : first + at_once].float()
            mine_M = np.flatnonzero((row_M >= first) & (row_M < first + at_once))
            rows, ids = (torch.from_numpy(each[mine_M]).to(device) for each in (row_M - first, token_M))
            logprobs = some_RV[rows, ids].double() - some_RV.logsumexp(-1).double()[rows]
            top, allowed = some_RV.argmax(-1), some_RV.index_fill(1, banned, -torch.inf).argmax(-1)
            found[:, mine_M] = torch.stack([logprobs, top[rows] == ids, allowed[rows] == ids]).cpu().numpy()
        return found

    def _logits(self, tokens: Sequence[int], rows_R: Tensor, **how: Tensor) -> Tensor:
        """Those behind some of the tokens: (R, V)."""
        ids_1N = torch.tensor([list(tokens)], device=self.model.device)
        if self._keeps_rows:
            kept: Tensor = self.model(ids_1N, logits_to_keep=rows_R, use_cache=False, **how).logits[0]
            return kept
        logits_NV: Tensor = self.model(ids_1N, use_cache=False, **how).logits[0]
        return logits_NV[rows_R]

    # ---------------------------------------------------------------------------------------------- write

    @torch.inference_mode()
    def write(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        decode: Decode,
        max_new_tokens: int,
        ends: frozenset[int],
        seeds: Sequence[int],
    ) -> list[Written]:
        """By beam search (width 4, α = 0.6), greedily, or sampled from the two likeliest tokens; prompt by prompt."""
        if decode == "beam":
            return [self._searched(prompt, max_new_tokens, ends) for prompt in prompts]
        return [
            self._sampled(prompt, max_new_tokens, ends, seed if decode == "top2" else None)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def _searched(self, prompt: Sequence[int], max_new_tokens: int, ends: frozenset[int]) -> Written:
        end_ids = torch.tensor(sorted(ends), dtype=torch.int64, device=self.model.device)
        beams = Beams(1, BEAM_WIDTH, max_new_tokens, LENGTH_PENALTY, end_ids)
        reading = _Reading(self.model, self._begun(prompt))
        logits_WV = reading.logits_WV.expand(BEAM_WIDTH, -1)
        while True:
            parents_1W, tokens_1W = beams.grow(logits_WV[None])
            if bool(beams.over_B()[0]):
                if not (found := beams.hypotheses(0)):
                    return Written((), -math.inf)  # the model gives numbers that are not finite
                best = found[0]
                return Written(self._without_ends(best.tokens), best.logprob)
            logits_WV = reading.go_on(parents_1W[0], tokens_1W[0])

    def _sampled(self, prompt: Sequence[int], max_new_tokens: int, ends: frozenset[int], seed: int | None) -> Written:
        """The likeliest tokens, or with a seed drawn from the two likeliest, with the draws of models/generate.py."""
        ids, reading = list[int](), _Reading(self.model, self._begun(prompt))
        logits_1V = reading.logits_WV
        draws = np.random.Generator(np.random.Philox(key=[0, seed or 0])).random(max_new_tokens)
        for draw in draws:
            u_1 = torch.tensor([draw], device=logits_1V.device)
            token_1 = sample(logits_1V, u_1, temperature=0.0 if seed is None else 1.0, top_k=2)
            ids.append(int(token_1))
            if ids[-1] in ends or len(ids) == max_new_tokens:
                break
            logits_1V = reading.go_on(torch.zeros_like(token_1), token_1)
        return Written(self._without_ends(ids), float("nan"))

    def _without_ends(self, ids: Sequence[int]) -> tuple[int, ...]:
        ends = self._special_ends()
        return tuple(id for id in ids if id not in ends)

    # ----------------------------------------------------------------------------------------------- read

    @torch.inference_mode()
    def read(self, text: str, name: str) -> tuple[float, int]:
        """−log P of a text in nats, in windows of n_ctx tokens that overlap by half, and how many tokens it has.

        Raises   UserError for an empty text.
        """
        ids = self.encode(text)
        if not ids:
            raise UserError(f"{name} is empty: it has no tokens to score.", "Give a file with text.")
        first, ids = (self.eot_id, ids) if self.eot_id is not None else (ids[0], ids[1:])
        tokens, T = [first, *ids], self.n_ctx
        nats, scored = 0.0, 0
        while scored < len(ids):
            start = max(0, scored - (T - T // 2)) if scored else 0
            stop = min(start + T, len(ids))
            asked = [(at - start, tokens[at + 1]) for at in range(scored, stop)]
            nats -= float(self._read_off(tokens[start:stop], asked, ())[0].sum())
            scored = stop
        return nats, len(ids)


class _Reading:
    """Sequences that grow by a token at a time, with the model's cache where it has one."""

    def __init__(self, model: Any, prompt: Sequence[int]) -> None:
        self._model = model
        self._ids_WT = torch.tensor([list(prompt)], device=model.device)
        read = model(self._ids_WT, use_cache=True)
        self._cache = getattr(read, "past_key_values", None)
        self.logits_WV: Tensor = read.logits[:, -1].float()

    def go_on(self, parents_W: Tensor, tokens_W: Tensor) -> Tensor:
        """The logits behind each of these tokens, which follow those sequences: (W, V)."""
        parents_W = parents_W.clamp(max=len(self._ids_WT) - 1)  # of one prompt all are beams
        self._ids_WT = torch.cat([self._ids_WT[parents_W], tokens_W[:, None]], dim=1)
        if self._cache is None:
            return self._model(self._ids_WT).logits[:, -1].float()  # type: ignore[no-any-return]
        self._cache.reorder_cache(parents_W)
        read = self._model(tokens_W[:, None], past_key_values=self._cache, use_cache=True)
        return read.logits[:, -1].float()  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------- trees and rows


def _depth(tree: Tree) -> int:
    return max((tree.depths[node] for node in tree.wanted), default=0)


def _rows(trees: Sequence[Tree]) -> Iterator[list[Tree]]:
    """Trees that share a row: as many as fit, one at least, in order."""
    row, n = list[Tree](), 0
    for tree in trees:
        if row and n + tree.n_read() > _ROW:
            yield row
            row, n = [], 0
        row.append(tree)
        n += tree.n_read()
    if row:
        yield row


def _tree_scores(tree: Tree, nodes: list[int], found: npt.NDArray[np.float64]) -> TreeScores:
    """`found` (3, nodes) as scores of a tree."""
    logprobs_N = np.full(len(tree), np.nan)
    top_N, allowed_N = np.zeros((2, len(tree)), dtype=bool)
    logprobs_N[nodes], top_N[nodes], allowed_N[nodes] = found[0], found[1] > 0, found[2] > 0
    return TreeScores(logprobs_N, top_N, allowed_N)


# -------------------------------------------------------------------------------------- what a model is like


def _n_ctx(config: Any, tokenizer: Any) -> int:
    config = config.get_text_config()
    said = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")]
    said += [tokenizer.model_max_length if tokenizer.model_max_length < 1 << 30 else None]
    return next((int(length) for length in said if length), _N_CTX)


def _beginning(tokenizer: Any) -> int | None:
    """The token that it puts in front of every text, as Llama's does; None: it puts none."""
    added: list[int] = tokenizer.encode("a")
    return added[0] if added[:1] == [tokenizer.bos_token_id] else None


def _sees_everything(config: Any) -> bool:
    """Whether a token sees all tokens before it, and its place follows from its position alone.

    Otherwise a mask and positions do not say all, and it may show only in sequences longer than any that was tried.
    """
    config = config.get_text_config()
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return False
    if getattr(config, "sliding_window", None) or getattr(config, "window_size", None):
        return False
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return rope.get("rope_type", "default") not in ("dynamic", "longrope")


def _splits_at_space(tokenizer: Any) -> bool:
    """Whether it cuts text before a space that follows a word, as GPT-2's does; False where that is not known."""
    before: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    return type(before).__name__ == "ByteLevel" and before.use_regex and not before.add_prefix_space


def _fingerprint(model: Any, tokenizer: Any) -> str:
    """SHA-256 of the shape, the weights, their precision and the tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    config = {name: value for name, value in model.config.to_dict().items() if name not in _SAYS_NOTHING}
    digest = hashlib.sha256(f"{json.dumps(config, sort_keys=True, default=str)}/{words}".encode())
    return add_weights(digest, model.state_dict())
