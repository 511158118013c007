"""The operations that decide how fast a GPT runs, each with its plain form beside it. (Attention has its own file.)

    linear       x W + b
    gelu         0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), the form that GPT-1 and GPT-2 released
    lm_loss      −log softmax(x wteᵀ)[target], without ever holding all the logits; the vocabulary may be spread out
    token_logprobs   log softmax(x wteᵀ / temperature)[target] of each token, likewise, with its gradient
    dropout      with a mask that follows from a seed and a place
    Vocabulary   what a model does with its token embedding
    Packed       x Wᵀ + b with W laid out once for the processor, for generation

On a GPU, in float32 and wherever a hand-written form has nothing to gain, the plain PyTorch operator runs. The
hand-written backward passes of `linear` and `gelu` are for bfloat16 on a CPU, where PyTorch's tanh is a scalar-speed
polynomial. The tests hold both forms to the same numbers (tests/equivalence/test_ops.py); docs/log.md has the
measurements.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

IGNORED = -100  # a target that is no target: padding, or a prompt

_LOGITS_AT_ONCE = 1 << 22  # logits held at a time, in numbers (16 MiB in float32): they stay in the cache


# --------------------------------------------------------------------------------------------------- linear


def linear(x: Tensor, weight_IO: Tensor, bias_O: Tensor) -> Tensor:
    """x W + b.

    Shapes   x (B, T, in), weight_IO (in, out), bias_O (out,); returns (B, T, out), in bfloat16 under autocast.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled() and _has_onednn():
        return _Linear.apply(x, weight_IO, bias_O)  # type: ignore[no-any-return, no-untyped-call]
    return torch.addmm(bias_O, x.flatten(0, 1), weight_IO).view(*x.shape[:2], -1)


class _Linear(Function):
    """A product in bfloat16 that adds the bias as it goes; torch's addmm writes it into the result first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_IO: Tensor, bias_O: Tensor) -> Tensor:
        x_NI, weight_IO = x.flatten(0, 1).to(torch.bfloat16), weight_IO.to(torch.bfloat16)
        ctx.save_for_backward(x_NI, weight_IO)
        ctx.dtypes = x.dtype, bias_O.dtype
        y_NO = torch.ops.mkldnn._linear_pointwise(x_NI, weight_IO.t(), bias_O.to(torch.bfloat16), "none", [], "")
        return y_NO.view(*x.shape[:2], -1)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_NI, weight_IO = ctx.saved_tensors
        x_dtype, dtype = ctx.dtypes
        g_NO = grads[0].flatten(0, 1)
        dx = (g_NO @ weight_IO.t()).view(*grads[0].shape[:2], -1)
        return dx.to(x_dtype), (x_NI.t() @ g_NO).to(dtype), g_NO.sum(dim=0).to(dtype)


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available()  # type: ignore[no-any-return, no-untyped-call]


# ----------------------------------------------------------------------------------------------------- gelu

_C1 = math.sqrt(2 / math.pi)
_C3 = 0.044715


def gelu(x: Tensor) -> Tensor:
    """The Gaussian error linear unit in its tanh form.

        gelu(x) = 0.5 x (1 + tanh(u)) = x · sigmoid(2u),   u = √(2/π) (x + 0.044715 x³)

    Source   openai/finetune-transformer-lm and openai/gpt-2, `model.py`; GPT-3 "uses the same model".
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.requires_grad:
        return _Gelu.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return F.gelu(x, approximate="tanh")


class _Gelu(Function):
    """gelu and its derivative in one pass over a bfloat16 tensor, computed in float32 in cache-sized pieces.

    gelu'(x) = s + x s (1 − s) 2u',   s = sigmoid(2u),   2u' = 2√(2/π) (1 + 3 · 0.044715 x²)
    """

    _piece = 1 << 19  # numbers: 2 MiB in float32

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, slope = torch.empty_like(x), torch.empty_like(x)
        k = torch.tensor(2 * _C1)
        buffers = torch.empty(3, min(_Gelu._piece, x.numel()))
        pieces = (torch.split(t.view(-1), _Gelu._piece) for t in (x, y, slope))
        for x_piece, y_piece, slope_piece in zip(*pieces, strict=True):
            x32, square, s = buffers[:, : x_piece.numel()]
            torch.mul(x32.copy_(x_piece), x32, out=square)
            torch.add(k, square, alpha=2 * _C1 * _C3, out=s).mul_(x32).sigmoid_()
            y_piece.copy_(x32.mul_(s))
            d_2u = torch.add(k, square, alpha=6 * _C1 * _C3, out=square)
            slope_piece.copy_(s.addcmul_(x32.addcmul_(x32, s, value=-1), d_2u))
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------------------------------- loss


def lm_loss(x_BTD: Tensor, wte_VD: Tensor, targets_BT: Tensor, shard: Shard | None = None) -> Tensor:
    """The language-model loss with a tied output, in nats per counted target.

        L1 = mean over targets of −log softmax(x wteᵀ)[target]

    Logits are made, used and overwritten a piece of the batch at a time; they never exist as a whole.

    Shapes   x_BTD (B, T, D), the last hidden states; wte_VD (V, D); targets_BT (B, T) int64, where
             `IGNORED` marks a position that is not counted. Returns a scalar in float32.
             With a `shard`, wte_VD is this process's rows, and every process of the shard gets the same result.
    Source   Radford 2018 §3.1, L1 (the survey prints L_i), as a mean and with its sign turned.
    """
    x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
    if torch.is_grad_enabled() and (x_ND.requires_grad or wte_VD.requires_grad):
        if torch.is_autocast_enabled(x_ND.device.type):
            x_ND = x_ND.to(torch.get_autocast_dtype(x_ND.device.type))
        return _LmLoss.apply(x_ND, wte_VD, targets_N, shard)  # type: ignore[no-any-return, no-untyped-call]
    losses_N = token_losses(x_BTD, wte_VD, targets_BT, shard).flatten()
    return losses_N.sum() / (targets_N != IGNORED).sum()


def token_losses(x_BTD: Tensor, wte_VD: Tensor, targets_BT: Tensor, shard: Shard | None = None) -> Tensor:
    """−log softmax(x wteᵀ)[target] of every position, 0 where the target is `IGNORED`: (B, T) in float32."""
    rows = _rows_at_once(wte_VD)
    pieces = zip(torch.split(x_BTD.flatten(0, 1), rows), torch.split(targets_BT.flatten(), rows), strict=True)
    if shard is None:
        losses = [
            F.cross_entropy((x @ wte_VD.t()).float(), t, ignore_index=IGNORED, reduction="none") for x, t in pieces
        ]
    else:
        losses = [
            -_log_softmax((x @ wte_VD.t()).float(), t, shard)[1].masked_fill(t == IGNORED, 0.0) for x, t in pieces
        ]
    return torch.cat(losses).view(targets_BT.shape)


def token_logprobs(x_MD: Tensor, wte_VD: Tensor, targets_M: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log softmax(x wteᵀ / temperature)[target] of each token, (M,) in float32.

    Neither forward nor backward holds all logits: what the backward pass needs of them is computed again.

    Shapes   x_MD (M, D), wte_VD (V, D), targets_M (M,) int64.
    """
    assert temperature > 0, f"no probabilities at a temperature of {temperature}"
    if torch.is_autocast_enabled(x_MD.device.type):
        x_MD = x_MD.to(torch.get_autocast_dtype(x_MD.device.type))
    return _TokenLogprobs.apply(x_MD, wte_VD, targets_M, temperature)  # type: ignore[no-any-return, no-untyped-call]


class _TokenLogprobs(Function):
    """A piece of the tokens at a time: ∂ log p(target) / ∂ logits = (onehot − softmax) / temperature."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, wte_VD: Tensor, targets_M: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(x_MD, wte_VD, targets_M)
        ctx.temperature = temperature
        weights_VD = wte_VD.to(x_MD.dtype)
        rows = _rows_at_once(wte_VD)
        found = []
        for x, targets in zip(torch.split(x_MD, rows), torch.split(targets_M, rows), strict=True):
            logits = _wide(x @ weights_VD.t()).div_(temperature)
            found.append(logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1))
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_MD, wte_VD, targets_M = ctx.saved_tensors
        weights_VD = wte_VD.to(x_MD.dtype)
        rows = _rows_at_once(wte_VD)
        dx_MD, d_wte_VD = torch.empty_like(x_MD), torch.zeros_like(wte_VD)
        pieces = (torch.split(t, rows) for t in (x_MD, dx_MD, targets_M, grads[0] / ctx.temperature))
        for x, dx, targets, grad in zip(*pieces, strict=True):
            logits = _wide(x @ weights_VD.t()).div_(ctx.temperature)
            d_logits = torch.softmax(logits, dim=1).neg_()
            d_logits.scatter_add_(1, targets[:, None], torch.ones_like(d_logits[:, :1]))
            d_logits = d_logits.mul_(grad[:, None]).to(x.dtype)
            torch.mm(d_logits, weights_VD, out=dx)
            d_wte_VD += d_logits.t() @ x
        return dx_MD, d_wte_VD, None, None


def _wide(x: Tensor) -> Tensor:
    """In float32, or wider where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rows_at_once(wte_VD: Tensor) -> int:
    """Rows of logits made at a time: on a CPU as many as its caches hold, on a GPU enough to keep it busy."""
    return max(1, (_LOGITS_AT_ONCE if wte_VD.device.type == "cpu" else 16 * _LOGITS_AT_ONCE) // wte_VD.shape[0])


def _log_softmax(logits_NV: Tensor, targets_N: Tensor, shard: Shard | None) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the columns that are here, and those of the targets (garbage where one is ignored)."""
    if shard is None:
        log_p_NV = F.log_softmax(logits_NV, dim=-1)
        return log_p_NV, log_p_NV.gather(1, targets_N.clamp(min=0).unsqueeze(1)).squeeze(1)
    highest_N = shard.all_reduce(logits_NV.amax(dim=-1), "max")
    logits_NV = logits_NV - highest_N.unsqueeze(1)
    log_z_N = shard.all_reduce(logits_NV.exp().sum(dim=-1), "sum").log()
    log_p_NV = logits_NV - log_z_N.unsqueeze(1)
    index_N, here_N = shard.index(targets_N, logits_NV.shape[1])
    found_N = log_p_NV.gather(1, index_N.unsqueeze(1)).squeeze(1).masked_fill(~here_N, 0.0)
    return log_p_NV, shard.all_reduce(found_N, "sum")


class _LmLoss(Function):
    """The loss and its gradients, a piece of the batch at a time: softmax − onehot replaces the logits in place."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, wte_VD: Tensor, targets_N: Tensor, shard: Shard | None) -> Tensor:
        rows = _rows_at_once(wte_VD)
        counted = (targets_N != IGNORED).sum()
        total = torch.zeros((), dtype=torch.float64, device=x_ND.device)
        dx_ND, d_wte_VD = torch.empty_like(x_ND), torch.zeros_like(wte_VD)
        wte_VD = wte_VD.to(x_ND.dtype)
        for x, dx, targets in zip(*(torch.split(t, rows) for t in (x_ND, dx_ND, targets_N)), strict=True):
            counts = targets != IGNORED
            log_p, log_p_target = _log_softmax((x @ wte_VD.t()).float(), targets, shard)
            total -= log_p_target.masked_fill(~counts, 0.0).double().sum()
            index, here = (targets.clamp(min=0), counts) if shard is None else shard.index(targets, log_p.shape[1])
            d_logits = log_p.exp_().scatter_add_(1, index.unsqueeze(1), -here.float().unsqueeze(1))
            d_logits = d_logits.mul_((counts / counted).unsqueeze(1)).to(x.dtype)
            torch.mm(d_logits, wte_VD, out=dx)
            d_wte_VD += d_logits.t() @ x
        if shard is not None:
            dx_ND = shard.all_reduce(dx_ND, "sum")
        ctx.save_for_backward(dx_ND, d_wte_VD)
        return (total / counted).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dx_ND, d_wte_VD = ctx.saved_tensors
        return dx_ND * grads[0], d_wte_VD * grads[0], None, None


# --------------------------------------------------------------------------------------------------- sharded


def local(parameter: Tensor) -> Tensor:
    """The part of a parameter that this process holds, with its gradient: itself where nothing is sharded."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


class Shard(Protocol):
    """A vocabulary whose rows are spread over processes (models/parallel.py): what the loss needs of it."""

    def all_reduce(self, x: Tensor, how: Literal["sum", "max"]) -> Tensor:
        """Over the processes that share the vocabulary; without a gradient."""

    def index(self, ids: Tensor, n_here: int) -> tuple[Tensor, Tensor]:
        """Row numbers among the `n_here` rows of this process (0 for those elsewhere), and which are here."""


class Vocabulary:
    """What a model does with its token embedding: rows for ids, logits for states, dropout.

    models/parallel.py puts another in its place where the rows are spread over processes.
    """

    def embed(self, tokens_BT: Tensor, wte_VD: Tensor) -> Tensor:
        """The rows of these ids, (B, T, D)."""
        return F.embedding(tokens_BT, wte_VD)

    def dropout(self, wte_VD: Tensor, p: float, seed: int | None, *, site: int) -> Tensor:
        """The matrix with elements dropped: GPT-1's."""
        return dropout(wte_VD, p, seed, site=site)  # type: ignore[no-any-return]

    def logits(self, x_BTD: Tensor, wte_VD: Tensor) -> Tensor:
        """(B, T, V)."""
        return (x_BTD.flatten(0, 1) @ wte_VD.t()).view(*x_BTD.shape[:2], -1)

    def loss(self, x_BTD: Tensor, wte_VD: Tensor, targets_BT: Tensor) -> Tensor:
        """`lm_loss`."""
        return lm_loss(x_BTD, wte_VD, targets_BT)

    def token_losses(self, x_BTD: Tensor, wte_VD: Tensor, targets_BT: Tensor) -> Tensor:
        """`token_losses`."""
        return token_losses(x_BTD, wte_VD, targets_BT)


# --------------------------------------------------------------------------------------------------- dropout


@torch.compiler.disable  # type: ignore[untyped-decorator]
def dropout(x: Tensor, p: float, seed: int | None, *, site: int) -> Tensor:
    """x with each element set to 0 with probability p, the others scaled by 1/(1 − p); x itself without a seed.

    The mask is a function of (seed, site) and x's shape alone: the same again when a block is computed anew for the
    backward pass, and in whichever process the site is.
    """
    if seed is None or p == 0.0:
        return x
    generator = torch.Generator(x.device).manual_seed(site_seed(seed, site))
    return x * torch.empty_like(x).bernoulli_(1 - p, generator=generator).div_(1 - p)


def site_seed(seed: int, *sites: int) -> int:
    """The seed of one place, from the seed of the whole: of a place in a model, of an update in a run.

    Zeros at the end of `sites` do not count.

    Example  >>> site_seed(1, 0) == site_seed(1, 1), site_seed(1, 0) == site_seed(1, 0, 0)
             (False, True)
    """
    return int(np.random.SeedSequence([seed, *sites]).generate_state(1, np.uint64)[0] >> np.uint64(1))


# --------------------------------------------------------------------------------------------------- packed


class Packed:
    """A weight laid out once as oneDNN multiplies it fastest, where otherwise every product lays it out anew.

    Shapes   weight_OI (out, in); called with x (B, T, in), returns (B, T, out) in the packed precision.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype, batch: int) -> None:
        self._dtype = dtype
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach().to(dtype), batch)
        self._bias = None if bias_O is None else bias_O.detach().to(dtype)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        form = "tanh" if activation == "gelu" else ""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._weight, self._bias, activation, [], form
        )
        return y


def packing_helps(weight: Tensor, precision: str, batch: int) -> bool:
    """Whether `Packed` exists for this weight and is faster: not for one sequence in float32 (docs/log.md)."""
    usable = weight.device.type == "cpu" and weight.dtype == torch.float32 and _has_onednn()
    return usable and (precision == "bf16" or batch > 1)
