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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rein.errors import UserError, suggestion
from rein.models import ops


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
                "Change one of them, or give d_head, the width of one head.",
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} is not in [0, 1).", "Use 0.1, or 0 for none.")

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


def _gpt2(n_layer: int, n_embd: int, n_head: int) -> GPTConfig:
    return GPTConfig(50257, 1024, n_embd, n_head, n_layer)


def _gpt3(n_layer: int, n_embd: int, n_head: int, d_head: int) -> GPTConfig:
    return GPTConfig(50257, 2048, n_embd, n_head, n_layer, d_head=d_head, attention="banded")


# Radford 2018 §4.1; Radford 2019 Table 2, with the released checkpoints' names; Brown 2020 Table 2.1. Two of its
# rows contradict themselves: 24 heads of 128 are not 2048, 40 heads of 128 are not 5140. Table D.1's parameter
# counts fit 16 heads and 5120, which the plain names mean; the `-printed` names are the table to the letter.
PRESETS = {
    "tiny": GPTConfig(8192, 256, 384, 6, 6),
    "gpt1": GPTConfig(40478, 512, 768, 12, 12, norm="post", initialisation="flat", dropout=0.1),
    "gpt2-124m": _gpt2(12, 768, 12),
    "gpt2-355m": _gpt2(24, 1024, 16),
    "gpt2-774m": _gpt2(36, 1280, 20),
    "gpt2-1558m": _gpt2(48, 1600, 25),
    "gpt3-125m": _gpt3(12, 768, 12, 64),
    "gpt3-350m": _gpt3(24, 1024, 16, 64),
    "gpt3-760m": _gpt3(24, 1536, 16, 96),
    "gpt3-1.3b": _gpt3(24, 2048, 16, 128),
    "gpt3-1.3b-printed": _gpt3(24, 2048, 24, 128),
    "gpt3-2.7b": _gpt3(32, 2560, 32, 80),
    "gpt3-6.7b": _gpt3(32, 4096, 32, 128),
    "gpt3-13b": _gpt3(40, 5120, 40, 128),
    "gpt3-13b-printed": _gpt3(40, 5140, 40, 128),
    "gpt3-175b": _gpt3(96, 12288, 96, 128),
}


def preset(name: str) -> GPTConfig:
    """A named size.  Raises  UserError with a suggestion when there is none of that name."""
    if name not in PRESETS:
        raise UserError(f"There is no preset {name!r}.", suggestion(name, PRESETS))
    return PRESETS[name]


class Cache:
    """Keys and values of the positions a model has read, so that the next token costs one position.

    Columns are time; a sequence shorter than its batch is padded on the left by `pad_B`, and the padding is
    never attended to. `length` columns are in use.
    """

    def __init__(
        self, config: GPTConfig, batch: int, length: int, *, pad_B: Tensor | None = None, like: Tensor
    ) -> None:
        shape = (config.n_layer, batch, config.n_head, length, config.d_inner // config.n_head)
        # PyTorch's CPU attention for one query is three times as fast in float32 as in bfloat16, which saves it memory.
        dtype = torch.float32 if like.device.type == "cpu" else like.dtype
        self._keys_LBHTE = torch.empty(shape, dtype=dtype, device=like.device).unbind()
        self._values_LBHTE = torch.empty(shape, dtype=dtype, device=like.device).unbind()
        self.length = 0
        self.pad_B = pad_B if pad_B is not None and bool(pad_B.any()) else None

    def extend(self, layer: int, qkv_BT3HE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Adds the next T keys and values of a layer. Returns the queries, and all of its keys and values."""
        q_BHTE, k_BHTE, v_BHTE = qkv_BT3HE.to(self._keys_LBHTE[0].dtype).permute(2, 0, 3, 1, 4).unbind()
        T, keys, values = q_BHTE.shape[2], self._keys_LBHTE[layer], self._values_LBHTE[layer]
        keys.narrow(2, self.length, T).copy_(k_BHTE)
        values.narrow(2, self.length, T).copy_(v_BHTE)
        stop = self.length + T
        return q_BHTE, keys.narrow(2, 0, stop), values.narrow(2, 0, stop)

    def positions(self, T: int) -> Tensor:
        """Position embeddings' indices of the next T columns: (T,), or (B, T) where there is padding."""
        columns = torch.arange(self.length, self.length + T, device=self._keys_LBHTE[0].device)
        return columns if self.pad_B is None else (columns - self.pad_B[:, None]).clamp(min=0)

    def mask(self, T: int, band: int | None) -> Tensor | None:
        """Which of the columns each of the next T queries may see: None for all of them (one query, no padding)."""
        stop = self.length + T
        if T == 1 and self.pad_B is None and (band is None or stop <= band):
            return None
        query = torch.arange(self.length, stop, device=self._keys_LBHTE[0].device)[:, None]
        key = torch.arange(stop, device=self._keys_LBHTE[0].device)[None, :]
        seen = key <= query
        if band is not None:
            seen = seen & (key > query - band)
        if self.pad_B is not None:  # a padding query sees itself: a softmax over nothing would be NaN
            seen = (seen & (key >= self.pad_B[:, None, None])) | (key == query)
            seen = seen[:, None]
        return seen


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
        y = ops.linear(x, self.weight, self.bias)
        return ops.gelu(y) if activation == "gelu" else y


class Attention(nn.Module):
    """Multi-head causal self-attention, dense or banded."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.n_head, self.layer, self.band = config.n_head, layer, config.band_of_layer(layer)
        self.dropout = config.dropout
        self.c_attn = Linear(config.n_embd, 3 * config.d_inner)
        self.c_proj = Linear(config.d_inner, config.n_embd)

    def forward(self, x_BTD: Tensor, cache: Cache | None) -> Tensor:
        qkv_BT3I = self.c_attn(x_BTD)
        if cache is None:
            dropout = self.dropout if self.training else 0.0
            out_BTI = ops.causal_attention(qkv_BT3I, self.n_head, band=self.band, dropout=dropout)
        else:
            out_BTI = self._cached(qkv_BT3I, cache)
        return self.c_proj(out_BTI)  # type: ignore[no-any-return]

    def _cached(self, qkv_BT3I: Tensor, cache: Cache) -> Tensor:
        B, T, width = qkv_BT3I.shape
        q, k, v = cache.extend(self.layer, qkv_BT3I.view(B, T, 3, self.n_head, -1))
        out_BHTE = F.scaled_dot_product_attention(q, k, v, attn_mask=cache.mask(T, self.band))
        return out_BHTE.transpose(1, 2).reshape(B, T, width // 3)


class MLP(nn.Module):
    """Two linear maps with a GELU between them, four times as wide inside."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.c_proj(self.c_fc(x_BTD, activation="gelu"))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention, then an MLP, each with a residual connection and a LayerNorm before or after it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.norm = config.norm
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)
        self.dropout = config.dropout

    def forward(self, x_BTD: Tensor, cache: Cache | None) -> Tensor:
        if self.norm == "pre":
            x_BTD = x_BTD + self._dropped(self.attn(self.ln_1(x_BTD), cache))
            return x_BTD + self._dropped(self.mlp(self.ln_2(x_BTD)))
        x_BTD = self.ln_1(x_BTD + self._dropped(self.attn(x_BTD, cache)))
        return self.ln_2(x_BTD + self._dropped(self.mlp(x_BTD)))  # type: ignore[no-any-return]

    def _dropped(self, x_BTD: Tensor) -> Tensor:
        return F.dropout(x_BTD, self.dropout) if self.training and self.dropout else x_BTD


class GPT(nn.Module):
    """A causal transformer language model.

    `model(tokens_BT)` gives logits_BTV; `model.loss(tokens_BT, targets_BT)` the mean loss without holding them.
    A new model's weights are not yet set: call `initialise(seed)`, or load a checkpoint.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Parameter(torch.empty(config.n_vocab, config.n_embd))
        self.wpe = nn.Parameter(torch.empty(config.n_ctx, config.n_embd))
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd) if config.norm == "pre" else nn.Identity()
        self.packed_head: ops.Packed | None = None

    def forward(self, tokens_BT: Tensor, cache: Cache | None = None, *, last_only: bool = False) -> Tensor:
        """Logits of the next token at every position, or at the last one only.

        Shapes   tokens_BT (B, T) int64; returns (B, T, V), or (B, 1, V). With a cache, T new positions follow
                 those it holds.
        Raises   UserError when the sequence is longer than n_ctx.
        """
        x_BTD, wte_VD = self._states(tokens_BT, cache)
        if last_only:
            x_BTD = x_BTD[:, -1:]
        if self.packed_head is not None:
            return self.packed_head(x_BTD)
        return (x_BTD.flatten(0, 1) @ wte_VD.t()).view(*x_BTD.shape[:2], -1)

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean −log p(target) in nats over the targets that are not `ops.IGNORED`: a scalar in float32."""
        x_BTD, wte_VD = self._states(tokens_BT, None)
        return ops.lm_loss(x_BTD, wte_VD, targets_BT)

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """−log p(target) of every position in nats, (B, T) float32; 0 where the target is `ops.IGNORED`."""
        x_BTD, wte_VD = self._states(tokens_BT, None)
        return ops.token_losses(x_BTD, wte_VD, targets_BT)

    def _states(self, tokens_BT: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """The last hidden states (B, T, D), and the token embedding they were made with (dropped in GPT-1)."""
        T = tokens_BT.shape[1]
        stop = T if cache is None else T + cache.length
        if stop > self.config.n_ctx:
            raise UserError(
                f"A sequence of {stop} tokens is longer than the model's context, n_ctx={self.config.n_ctx}.",
                "Shorten it, or ask for fewer new tokens.",
            )
        positions = torch.arange(T, device=tokens_BT.device) if cache is None else cache.positions(T)
        dropout = self.config.dropout if self.training else 0.0
        wte_VD: Tensor = self.wte
        wpe_TD: Tensor = self.wpe
        if dropout and self.config.norm == "post":
            wte_VD, wpe_TD = F.dropout(wte_VD, dropout), F.dropout(wpe_TD, dropout)
        x_BTD = F.embedding(tokens_BT, wte_VD) + F.embedding(positions, wpe_TD)
        if dropout and self.config.norm == "pre":
            x_BTD = F.dropout(x_BTD, dropout)
        for block in self.h:
            x_BTD = block(x_BTD, cache)
        if cache is not None:
            cache.length += T
        return self.ln_f(x_BTD), wte_VD

    @torch.no_grad()
    def initialise(self, seed: int) -> GPT:
        """Sets every weight, each from a generator of its own that depends on `seed` and the parameter's name.

        So a parameter's start does not depend on the others: not on their order, number, or placement.
        """
        scaled = self.config.initialisation == "scaled"
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in name or name.startswith("ln_f"):
                parameter.fill_(1.0)
            else:
                std = 0.02
                if scaled and name.endswith("c_proj.weight"):
                    std = 0.02 / math.sqrt(2 * self.config.n_layer)
                elif scaled and name == "wpe":
                    std = 0.01
                digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
                generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
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
