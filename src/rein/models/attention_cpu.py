"""Attention on a CPU, where a band costs what it reads: plain products over blocks of queries.

Fused queries, keys and values go in, the mixed values come out. A block of queries multiplies its own keys and the band
before it, T · (W + block) instead of T²/2 products, and masks only its two corners. The gradients are hand-written.
Attention weights are kept for them where they are few, and made again where they are many. Blocks are also how a CPU
does dropout; without a band or dropout, PyTorch's operator may be faster (`on_cpu`).

Source   Child 2019 (`local` attention of openai/sparse_attention).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rein.models.attention_plain import plain

_MOST_KEPT_KEYS = 640  # attention weights a query may keep for the backward pass, on average; beyond, they are remade
_QUERIES = 128  # of a block: few, so that little is multiplied in vain; not so few that calls outweigh products
_SHORT = 128  # documents that are shorter, on average, are not worth a call each


@torch.compiler.disable  # type: ignore[untyped-decorator]
def on_cpu(
    qkv_BT3I: Tensor, n_head: int, band: int | None, dropout: float, documents_BT: Tensor | None, seed: int
) -> Tensor:
    """`causal_attention` on a CPU: in blocks of queries, or by PyTorch's operator where that is faster."""
    B, T, _ = qkv_BT3I.shape
    starts = None if documents_BT is None else document_starts(documents_BT)
    if starts is not None and all(len(row) == 1 for row in starts):
        starts = documents_BT = None
    plan = _plan(B, T, n_head, band, starts, _at_once(qkv_BT3I.dtype, starts))
    kept = qkv_BT3I.requires_grad and torch.is_grad_enabled() and _keys_a_query(plan, B, T) <= _MOST_KEPT_KEYS
    in_blocks = band is not None or dropout > 0 or (kept and qkv_BT3I.dtype == torch.bfloat16)
    if starts is None and not in_blocks:
        return plain(qkv_BT3I, n_head, None)
    lengths = [] if starts is None else document_lengths(starts, T)
    if in_blocks or len(lengths) * _SHORT > B * T:
        masks = _Masks(band, documents_BT, dropout, seed)
        return _Blocked.apply(qkv_BT3I, n_head, masks, plan, kept)  # type: ignore[no-any-return, no-untyped-call]
    documents = torch.split(qkv_BT3I.flatten(0, 1), lengths)
    return torch.cat([plain(document_T3I[None], n_head, None)[0] for document_T3I in documents]).view(B, T, -1)


def document_starts(documents_BT: Tensor) -> list[list[int]]:
    """Where documents begin in each row.

    Example  >>> document_starts(torch.tensor([[0, 0, 1], [4, 4, 4]]))
             [[0, 2], [0]]
    """
    changes = (documents_BT[:, 1:] != documents_BT[:, :-1]).nonzero().tolist()
    starts = [[0] for _ in range(documents_BT.shape[0])]
    for row, position in changes:
        starts[row].append(position + 1)
    return starts


def document_lengths(starts: list[list[int]], T: int) -> list[int]:
    """Lengths of all documents, row after row: a document never goes on in the next row.

    Example  >>> document_lengths([[0, 2], [0]], 3)
             [2, 1, 3]
    """
    return [stop - start for row in starts for start, stop in zip(row, [*row[1:], T], strict=True)]


class _Block(NamedTuple):
    """Queries `start … stop` of some rows, with keys `first … stop`; `mixed`: their documents differ."""

    rows: slice
    start: int
    stop: int
    first: int
    mixed: bool


def _plan(B: int, T: int, n_head: int, band: int | None, starts: list[list[int]] | None, at_once: int) -> list[_Block]:
    """All queries in blocks, the last of a row first: each block but the first of a row touches keys not yet touched.

    A block begins a band before its first query, one key more than that query sees: even numbers multiply faster.
    """
    size, plan = min(_QUERIES, T), []
    rows_at_once = max(1, at_once // (n_head * size * min(T, size + (band or T))))
    for row in range(0, B, rows_at_once):
        rows = slice(row, min(row + rows_at_once, B))
        for start in reversed(range(0, T, size)):
            stop, first, mixed = min(start + size, T), max(0, start - (band or T)), False
            if starts is not None:
                first = max(first, min(of_row[bisect_right(of_row, start) - 1] for of_row in starts[rows]))
                mixed = any(bisect_right(of_row, first) < bisect_left(of_row, stop) for of_row in starts[rows])
            plan.append(_Block(rows, start, stop, first, mixed))
    return plan


def _at_once(dtype: torch.dtype, starts: list[list[int]] | None) -> int:
    """Attention weights of one product over several rows: many, so that calls are few.

    Fewer where a single row's keys can be read without copying them, and where rows share a block's keys but their
    documents begin at different ones.
    """
    return 1 << 16 if _reads_strides(dtype) else 1 << 20 if starts is not None else 1 << 22


def _keys_a_query(plan: list[_Block], B: int, T: int) -> float:
    """Attention weights that a plan makes, for one query and head, on average."""
    return float(sum((b.rows.stop - b.rows.start) * (b.stop - b.start) * (b.stop - b.first) for b in plan)) / (B * T)


class _Masks:
    """What queries of a block must not see, and which attention weights dropout takes from it."""

    def __init__(self, band: int | None, documents_BT: Tensor | None, dropout: float, seed: int) -> None:
        self.band, self.documents_BT, self.seed = band, documents_BT, seed
        # A 65,536th is fine enough for a rate, and four draws fit in one random number.
        self._dropped = min(round(dropout * 65536), 65535)
        self.scale = 65536 / (65536 - self._dropped)
        self._corners: dict[tuple[object, ...], Tensor] = {}

    def hide(self, scores: Tensor, block: _Block) -> None:
        """−∞ for keys after a query, before its band, or of another document."""
        n, first_query = block.stop - block.start, block.start - block.first
        scores[:, :, first_query:] += self._corner(n, n, 1, "after", scores.dtype)
        if self.band is not None and block.stop - block.first > self.band:
            # Key c of the block is before query r's band where c ≤ r + first_query − band.
            before = first_query - self.band
            width = min(n + before, block.stop - block.first)
            scores[:, :, :width] += self._corner(n, width, before, "before", scores.dtype)
        if block.mixed:
            assert self.documents_BT is not None
            ids = self.documents_BT[block.rows]
            other = ids[:, block.start : block.stop, None] != ids[:, None, block.first : block.stop]
            scores.view(len(ids), -1, *scores.shape[1:]).masked_fill_(other[:, None], -math.inf)

    def _corner(self, rows: int, columns: int, diagonal: int, side: str, dtype: torch.dtype) -> Tensor:
        key = rows, columns, diagonal, side
        if key not in self._corners:
            full = torch.full((rows, columns), -math.inf, dtype=dtype)
            self._corners[key] = full.triu_(diagonal) if side == "after" else full.tril_(diagonal)
        return self._corners[key]

    def draws(self) -> Callable[[Tensor], Tensor | None]:
        """A function that gives 1 where a block's weights stay and 0 elsewhere, for one block after the other.

        It gives the same each time that it is asked for: in the forward pass, in the backward pass, in a recomputation.
        """
        if self._dropped == 0:
            return lambda weights: None
        generator = torch.Generator().manual_seed(self.seed)

        def stay(weights: Tensor) -> Tensor:
            count = weights.numel()
            bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
            draws = bits.view(torch.int16)[:count].view(weights.shape)
            return torch.ge(draws, self._dropped - 32768, out=torch.empty_like(weights))

        return stay


class _Blocked(Function):
    """Attention by plain products over blocks of queries, and its gradient.

    With P the attention weights of a block, M what dropout leaves of them (0, or the scale of the others) and dO the
    gradient of its output:
        dV = (M ∘ P)ᵀ dO,   dP = M ∘ dO Vᵀ,   dS = P ∘ (dP − rowsum(P ∘ dP)),   dQ = dS K / √E,   dK = dSᵀ Q / √E
    """

    @staticmethod
    def forward(ctx: Any, qkv_BT3I: Tensor, n_head: int, masks: _Masks, plan: list[_Block], kept: bool) -> Tensor:
        B, T, width = qkv_BT3I.shape
        H, E = n_head, width // (3 * n_head)
        qkv = qkv_BT3I.view(B, T, 3, H, E).permute(2, 0, 3, 1, 4)
        q, k, v = qkv if _reads_strides(qkv.dtype) else qkv.contiguous()
        out_BTHE = torch.empty(B, T, H, E, dtype=q.dtype)
        draw = masks.draws()
        all_weights = []
        for block in plan:
            rows, start, stop, _, _ = block
            Q, K, V = _parts(q, k, v, block)
            weights = used = _weights(Q, K, masks, block)
            stay = draw(weights)
            if stay is not None:
                used = weights * stay
            out = torch.bmm(used, V).view(-1, H, stop - start, E).transpose(1, 2)
            torch.mul(out, masks.scale, out=out_BTHE[rows, start:stop])
            if kept:
                all_weights.append(weights)
        ctx.save_for_backward(q, k, v, *all_weights)
        ctx.masks, ctx.plan = masks, plan
        return out_BTHE.view(B, T, H * E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *all_weights = ctx.saved_tensors
        masks: _Masks = ctx.masks
        B, H, T, E = q.shape
        d_out_BHTE = (grads[0] * masks.scale if masks.scale > 1 else grads[0]).view(B, T, H, E).transpose(1, 2)
        d_qkv = torch.empty(B, T, 3, H, E, dtype=q.dtype)
        dq, dk, dv = d_qkv.permute(2, 0, 3, 1, 4)
        draw = masks.draws()
        touched = T  # keys from here on have the gradient of the later blocks of their rows
        for number, block in enumerate(ctx.plan):
            rows, start, stop, first, _ = block
            Q, K, V = _parts(q, k, v, block)
            d_out = _part(d_out_BHTE, rows, start, stop)
            weights = used = all_weights[number] if all_weights else _weights(Q, K, masks, block)
            d_weights = torch.bmm(d_out, V.transpose(1, 2))
            stay = draw(weights)
            if stay is not None:
                used = weights * stay
                d_weights.mul_(stay)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            dq[rows, :, start:stop] = _product(d_scores, K, 1 / math.sqrt(E)).view(-1, H, stop - start, E)
            touched = T if stop == T else touched
            for total, part in (
                (dk, _product(d_scores.transpose(1, 2), Q, 1 / math.sqrt(E))),
                (dv, torch.bmm(used.transpose(1, 2), d_out)),
            ):
                part = part.view(-1, H, stop - first, E)
                total[rows, :, first:touched] = part[:, :, : touched - first]
                total[rows, :, touched:stop] += part[:, :, touched - first :]
            touched = first
        return d_qkv.view(B, T, 3 * H * E), None, None, None, None


def _parts(q: Tensor, k: Tensor, v: Tensor, block: _Block) -> tuple[Tensor, Tensor, Tensor]:
    """A block's queries, keys and values."""
    rows, start, stop, first, _ = block
    return _part(q, rows, start, stop), _part(k, rows, first, stop), _part(v, rows, first, stop)


def _part(x_BHTE: Tensor, rows: slice, start: int, stop: int) -> Tensor:
    """Some positions of some rows: (heads of all these rows, positions, E)."""
    part = x_BHTE[rows, :, start:stop].flatten(0, 1)
    return part if _reads_strides(part.dtype) else part.contiguous()


def _reads_strides(dtype: torch.dtype) -> bool:
    """Whether products read rows wherever they lie (MKL); oneDNN, for 16 bits, first copies what is not whole."""
    return dtype.itemsize > 2


def _weights(Q: Tensor, K: Tensor, masks: _Masks, block: _Block) -> Tensor:
    scores = _product(Q, K.transpose(1, 2), 1 / math.sqrt(Q.shape[2]))
    masks.hide(scores, block)
    return torch.softmax(scores, dim=-1)


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """a b · scale, scaled before it is rounded."""
    return torch.empty(a.shape[0], a.shape[1], b.shape[2], dtype=a.dtype).baddbmm_(a, b, beta=0, alpha=scale)
