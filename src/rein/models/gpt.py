"""GPT-1, GPT-2 and GPT-3: one model, whole, in this file.

What the three papers changed are three named choices; everything else is shared:

                         GPT-1 (2018)        GPT-2 (2019)              GPT-3 (2020)
    norm                 "post"              "pre"                     "pre"
    attention            "dense"             "dense"                   "banded"
    initialisation       "flat"              "scaled"                  "scaled"

    norm            "post": LayerNorm after each residual sum, none at the end; embedding dropout acts on the
                    embedding matrix before rows are taken from it, and the tied softmax uses the same dropped
                    matrix, as openai/finetune-transformer-lm does.
                    "pre": LayerNorm before each sub-block and one more, ln_f, after the last; embedding dropout
                    acts on the sum of the two embeddings.
    attention       "dense": every earlier position. "banded": layers alternate, dense first, then the `band` most
                    recent keys, the position itself included. GPT-3's band width and which kind comes first were
                    never published; 256 and dense-first are those of GPT-Neo.
    initialisation  "flat": N(0, 0.02) everywhere. "scaled": the two projections into the residual stream are
                    N(0, 0.02/√(2 n_layer)) and positions N(0, 0.01): the 1/√N of Radford 2019 §2.3, with N the
                    residual additions, and the position embedding of openai/gpt-2. (That released code has no
                    1/√N; it only loads weights.)

Parameters keep OpenAI's names and layout: `h.0.attn.c_attn.weight` is (in, out).
Flow: tokens_BT → embeddings x_BTD → n_layer blocks → logits_BTV, tied to `wte`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rein.errors import UserError
from rein.models import ops
from rein.models.attention import causal_attention
from rein.models.cache import Cache


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model, in GPT-2's words."""

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int
    d_head: int | None = None  # width of one head; None: n_embd / n_head
    norm: Literal["post", "pre"] = "pre"
    attention: Literal["dense", "banded"] = "dense"
    initialisation: Literal["flat", "scaled"] = "scaled"
    band: int = 256  # keys that a banded layer sees, the position itself included
    dropout: float = 0.0  # on embeddings, residual branches and attention weights; GPT-1: 0.1, GPT-3: not stated

    def __post_init__(self) -> None:
        for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "band"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}, but a model needs at least 1.", f"Raise {name}.")
        if self.d_head is None and self.n_embd % self.n_head:
            raise UserError(
                f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}.",
                "Change one of them.",
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} is not in [0, 1).", "Use 0.1, or 0 for none.")
        # Two ways of saying the same model are one.
        if self.d_head is not None and self.d_head * self.n_head == self.n_embd:
            object.__setattr__(self, "d_head", None)
        if self.attention == "dense":
            object.__setattr__(self, "band", GPTConfig.band)

    @property
    def d_inner(self) -> int:
        """Width of all heads together: n_embd, but for two of GPT-3's sizes as printed."""
        return self.n_head * (self.d_head or self.n_embd // self.n_head)

    def band_of_layer(self, layer: int) -> int | None:
        """The band of a layer, None where it is dense."""
        return self.band if self.attention == "banded" and layer % 2 else None

    def n_params(self) -> int:
        """Exact number of parameters, the tied output counted once.

        V d + T d + L (3 d i + 3 i + i d + d + 8 d² + 5 d + 4 d), and 2 d for ln_f;  i = d_inner.
        """
        d, i = self.n_embd, self.d_inner
        block = 3 * d * i + 3 * i + i * d + d + 8 * d * d + 5 * d + 4 * d
        return (self.n_vocab + self.n_ctx) * d + self.n_layer * block + (2 * d if self.norm == "pre" else 0)

    def train_flops_per_token(self, context: int | None = None) -> float:
        """Floating-point operations of one training token, forward and backward, in this design's own products.

        6 for each weight that is multiplied (the tied output included, the embeddings not), and for attention
        6 · 2 · i · mean number of keys seen, a layer: causal and banded layers are counted for what they need.
        """
        T, d, i = context or self.n_ctx, self.n_embd, self.d_inner
        weights = self.n_layer * (4 * d * i + 8 * d * d) + self.n_vocab * d
        bands = (self.band_of_layer(layer) or T for layer in range(self.n_layer))
        keys = sum((min(w, T) * (min(w, T) + 1) / 2 + max(T - w, 0) * w) / T for w in bands)
        return 6 * weights + 12 * i * keys


class Linear(nn.Module):
    """x weight + bias, with the weight as (in, out): the layout of OpenAI's `conv1d` and of both released models."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_in, d_out))
        self.bias = nn.Parameter(torch.empty(d_out))

        self.packed: ops.Packed | None = None

    def forward(self, x: Tensor, *, activation: Literal["none", "gelu"] = "none") -> Tensor:
        if self.packed is not None:
            return self.packed(x, activation)
        # Sharded by heads, c_attn is (in, 3, heads, width of a head) and (3, heads, width): here (in, out) and (out,).
        y = ops.linear(x, ops.local(self.weight).flatten(1), ops.local(self.bias).flatten())
        return ops.gelu(y) if activation == "gelu" else y


class Attention(nn.Module):
    """Multi-head causal self-attention, dense or banded."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.n_head, self.layer, self.band = config.n_head, layer, config.band_of_layer(layer)
        self.dropout = config.dropout
        self.first_head = 0  # of the whole layer's: another one where tensor parallelism has cut it
        self.c_attn = Linear(config.n_embd, 3 * config.d_inner)
        self.c_proj = Linear(config.d_inner, config.n_embd)

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        qkv_BT3I = self.c_attn(x_BTD)
        if context.cache is not None:
            return self.c_proj(context.cache.attend(self.layer, qkv_BT3I))  # type: ignore[no-any-return]
        dropped: dict[str, Any] = {}
        if context.seed is not None and self.dropout:
            dropped = {
                "dropout": self.dropout,
                "seed": ops.site_seed(context.seed, 3 * self.layer + 4 + (self.first_head << 20)),
            }
        out_BTI = causal_attention(qkv_BT3I, self.n_head, band=self.band, documents_BT=context.documents_BT, **dropped)
        return self.c_proj(out_BTI)  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear maps with a GELU between them, four times as wide inside."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.c_proj(self.c_fc(x_BTD, activation="gelu"))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Context:
    """What the blocks of one forward pass share."""

    cache: Cache | None = None
    documents_BT: Tensor | None = None  # the document each token is of: attention stays within it
    positions_BT: Tensor | None = None  # where in its own text each token stands; None: where it stands in its row
    seed: int | None = None  # of this pass's dropout; None: no dropout


class Block(nn.Module):
    """Attention, then an MLP, each with a residual connection and a LayerNorm before or after it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.norm = config.norm
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)
        self.dropout, self.layer = config.dropout, layer

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        if self.norm == "pre":
            x_BTD = x_BTD + self._dropped(self.attn(self.ln_1(x_BTD), context), context, 0)
            return x_BTD + self._dropped(self.mlp(self.ln_2(x_BTD)), context, 1)
        x_BTD = self.ln_1(x_BTD + self._dropped(self.attn(x_BTD, context), context, 0))
        return self.ln_2(x_BTD + self._dropped(self.mlp(x_BTD), context, 1))  # type: ignore[no-any-return]

    def _dropped(self, x_BTD: Tensor, context: Context, branch: int) -> Tensor:
        if context.seed is None or not self.dropout:
            return x_BTD
        return ops.dropout(x_BTD, self.dropout, context.seed, site=3 * self.layer + 2 + branch)  # type: ignore[no-any-return]


def initial(config: GPTConfig, name: str, shape: Sequence[int], seed: int) -> Tensor:
    """The first value of one parameter, in float32: a function of the seed and its name, whoever asks."""
    if name.endswith("bias"):
        return torch.zeros(shape)
    if ".ln_" in name or name.startswith("ln_f"):
        return torch.ones(shape)
    std = 0.02
    if config.initialisation == "scaled" and name.endswith("c_proj.weight"):
        std = 0.02 / math.sqrt(2 * config.n_layer)
    elif config.initialisation == "scaled" and name == "wpe":
        std = 0.01
    return normal(shape, std, key=f"{seed}/{name}")


def normal(shape: Sequence[int], std: float, *, key: str) -> Tensor:
    """Numbers from N(0, std²) in float32, from a generator of their own: a function of `key` and the shape."""
    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return torch.randn(tuple(shape), generator=generator).mul_(std)


class GPT(nn.Module):
    """A causal transformer language model.

    `model(tokens_BT)` gives logits_BTV; `model.loss(tokens_BT, targets_BT)` the mean loss without holding them.
    A new model's weights are not yet set: call `initialise(seed)`, or load a checkpoint.

    In training mode a model with dropout needs a seed for every forward pass (`seed_dropout`). Each place where
    something is dropped draws its mask from (seed, place), so a mask depends neither on what was drawn before it
    nor on which process draws it.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Parameter(torch.empty(config.n_vocab, config.n_embd))
        self.wpe = nn.Parameter(torch.empty(config.n_ctx, config.n_embd))
        # By name, so that a pipeline stage can leave out layers and the others keep theirs.
        self.h = nn.ModuleDict({str(layer): Block(config, layer) for layer in range(config.n_layer)})
        self.ln_f = nn.LayerNorm(config.n_embd) if config.norm == "pre" else nn.Identity()
        self.vocabulary = ops.Vocabulary()
        self.packed_head: ops.Packed | None = None
        self._seed: int | None = None

    def seed_dropout(self, seed: int) -> None:
        """From here on, forward passes in training mode drop what this seed says."""
        self._seed = seed

    def cache(
        self, groups: int, longest_query: int, longest_new: int, *, width: int = 1, precision: str = "fp32"
    ) -> Cache:
        """An empty cache for `groups` queries, each with `width` places to write behind it (models/cache.py)."""
        device = self.wte.device
        # PyTorch's CPU attention for one query is three times as fast in float32 as in bfloat16 (docs/log.md).
        on_gpu = torch.bfloat16 if precision == "bf16" else self.wte.dtype
        return Cache(
            n_head=self.config.n_head,
            d_head=self.config.d_inner // self.config.n_head,
            bands=[self.config.band_of_layer(layer) for layer in range(self.config.n_layer)],
            groups=groups,
            width=width,
            longest_query=longest_query,
            longest_new=longest_new,
            device=device,
            dtype=torch.float32 if device.type == "cpu" else on_gpu,
        )

    def forward(self, tokens_BT: Tensor, cache: Cache | None = None, *, last_only: bool = False) -> Tensor:
        """Logits of the next token at every position, or at the last one only.

        Shapes   tokens_BT (B, T) int64; returns (B, T, V), or (B, 1, V). With a cache, they are what it was told that
                 the pass reads.
        Raises   UserError when the sequence is longer than n_ctx.
        """
        x_BTD, wte_VD = self.states(tokens_BT, cache)
        return self.logits(x_BTD[:, -1:] if last_only else x_BTD, wte_VD)

    def logits(self, x_BTD: Tensor, wte_VD: Tensor) -> Tensor:
        """Logits of the next token, (B, T, V), from what `states` gives."""
        if self.packed_head is not None:
            return self.packed_head(x_BTD)
        return self.vocabulary.logits(x_BTD, wte_VD)

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Mean −log p(target) in nats over the targets that are not `ops.IGNORED`: a scalar in float32."""
        x_BTD, wte_VD = self.states(tokens_BT, documents_BT=documents_BT)
        return self.vocabulary.loss(x_BTD, wte_VD, targets_BT)

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """−log p(target) of every position in nats, (B, T) float32; 0 where the target is `ops.IGNORED`."""
        x_BTD, wte_VD = self.states(tokens_BT, documents_BT=documents_BT)
        return self.vocabulary.token_losses(x_BTD, wte_VD, targets_BT)

    def states(
        self,
        tokens_BT: Tensor,
        cache: Cache | None = None,
        *,
        documents_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The last hidden states (B, T, D), and the token embedding they were made with (dropped in GPT-1).

        `documents_BT` numbers the document of each token, growing along a row: no token then sees another
        document's. (None of the three papers masks documents.) With `positions_BT`, where each text begins anew at
        position 0, texts that share a row are computed as if each had its own (models/rows.py).
        """
        context = Context(cache, documents_BT, positions_BT, self.dropout_seed())
        wte_VD = self.embedding(context.seed)
        x_BTD = self.blocks(self.embed(tokens_BT, wte_VD, context), context)
        if cache is not None:
            cache.length += tokens_BT.shape[1]
        return self.ln_f(x_BTD), wte_VD

    # The parts of `states`, which a pipeline calls in different processes.

    def dropout_seed(self) -> int | None:
        """The seed of a pass that begins now: None where nothing is dropped."""
        if not (self.training and self.config.dropout):
            return None
        assert self._seed is not None, "a training pass with dropout needs seed_dropout(seed) before it"
        return self._seed

    def embedding(self, seed: int | None) -> Tensor:
        """The token embedding, with GPT-1's dropout on the matrix itself."""
        wte_VD = ops.local(self.wte)
        if self.config.norm == "post":
            return self.vocabulary.dropout(wte_VD, self.config.dropout, seed, site=0)
        return wte_VD

    def embed(self, tokens_BT: Tensor, wte_VD: Tensor, context: Context) -> Tensor:
        """Token and position embeddings, summed: what goes into the first block."""
        T = tokens_BT.shape[1]
        stop = T if context.cache is None else T + context.cache.length
        if context.positions_BT is not None:
            stop = int(context.positions_BT.max()) + 1
        if stop > self.config.n_ctx:
            raise UserError(
                f"A sequence of {stop} tokens is longer than the model's context, n_ctx={self.config.n_ctx}.",
                "Shorten it, or ask for fewer new tokens.",
            )
        cache = context.cache
        positions = context.positions_BT
        if positions is None:
            positions = torch.arange(T, device=tokens_BT.device) if cache is None else cache.positions(T)
        wpe_TD = ops.local(self.wpe)
        if self.config.norm == "post":
            wpe_TD = ops.dropout(wpe_TD, self.config.dropout, context.seed, site=1)
            return self.vocabulary.embed(tokens_BT, wte_VD) + F.embedding(positions, wpe_TD)
        x_BTD = self.vocabulary.embed(tokens_BT, wte_VD) + F.embedding(positions, wpe_TD)
        return ops.dropout(x_BTD, self.config.dropout, context.seed, site=0)  # type: ignore[no-any-return]

    def blocks(self, x_BTD: Tensor, context: Context) -> Tensor:
        """Through the layers that are here: all of them, but in a stage of a pipeline."""
        for block in self.h.values():
            x_BTD = block(x_BTD, context)
        return x_BTD

    @torch.no_grad()
    def initialise(self, seed: int) -> GPT:
        """Sets every weight, each from a generator of its own that depends on `seed` and the parameter's name.

        So a parameter's start does not depend on the others: not on their order, number, or placement.
        """
        for name, parameter in self.named_parameters():
            parameter.copy_(initial(self.config, name, parameter.shape, seed))
        return self

    @contextmanager
    def packed(self, precision: str, batch: int) -> Iterator[GPT]:
        """For its duration the weights are also held in the layout that a CPU multiplies fastest (ops.Packed).

        `precision` "bf16" multiplies in bfloat16. For forward passes only; changes to the weights are not seen.
        """
        linears = [module for module in self.modules() if isinstance(module, Linear)]
        if ops.packing_helps(self.wte, precision, batch):
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            for linear in linears:
                linear.packed = ops.Packed(linear.weight.t(), linear.bias, dtype, batch)
            self.packed_head = ops.Packed(self.wte, None, dtype, batch)
        try:
            yield self
        finally:
            self.packed_head = None
            for linear in linears:
                linear.packed = None
