"""Causal self-attention: over whole sequences, in bands of recent keys, inside documents; and one token at a time.

    causal_attention   fused queries, keys, values in; the mixed values out; the form that is fastest where it runs
    Cache              what a model has read, for decoding: all keys of a dense layer, the last W of a banded one

                        dense                   a band or documents
    CPU, bfloat16       blocks up to 1,024      blocks of queries, each with the keys it may see
    CPU, otherwise      PyTorch's operator      the same; but long documents without a band each by itself
    GPU                 PyTorch's operator      flash attention over packed spans, else FlexAttention, else a mask

On a CPU a band costs what it reads: a block of queries multiplies its own keys and the band before it, T · (W + block)
instead of T²/2 products, and masks only its two corners. The gradients are hand-written. Attention weights are kept for
them where they are few, and made again where they are many. Blocks are also how a CPU does dropout.

Source   Child 2019 (`local` attention of openai/sparse_attention), which Brown 2020 §2.1 alternates with dense layers;
         Radford 2018 §3.1 for the dense form and its dropout.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

if TYPE_CHECKING:  # FlexAttention takes a while to import, and a CPU has no use for it
    from torch.nn.attention.flex_attention import BlockMask

Made = TypeVar("Made")

_MOST_KEPT_KEYS = 640  # attention weights a query may keep for the backward pass, on average; beyond, they are remade
_QUERIES = 128  # of a block: few, so that little is multiplied in vain; not so few that calls outweigh products
_SHORT = 128  # documents that are shorter, on average, are not worth a call each


def causal_attention(
    qkv_BT3I: Tensor,
    n_head: int,
    *,
    band: int | None = None,
    dropout: float = 0.0,
    documents_BT: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Causal self-attention over fused queries, keys and values.

        out_t = Σ_s softmax_s(q_t · k_s / √E) v_s     over s ≤ t, s > t − band, documents_s = documents_t

    `dropout` zeroes attention weights and scales the others up. Which ones depends on this call's arguments alone, so
    that a recomputation under torch.utils.checkpoint drops the same; no other random number is touched.

    Shapes   qkv_BT3I (B, T, 3 · H · E), queries first, then keys, then values; documents_BT (B, T) whole numbers that
             never fall along a row; returns (B, T, H · E).
    Units    band: keys that a query sees, its own position included.
    Example  >>> qkv = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 3.0], [0.0, 0.0, 8.0]]])  # equal scores: a mean
             >>> causal_attention(qkv, 1).flatten().tolist()
             [1.0, 2.0, 4.0]
             >>> causal_attention(qkv, 1, band=2).flatten().tolist()
             [1.0, 2.0, 5.5]
             >>> causal_attention(qkv, 1, documents_BT=torch.tensor([[0, 1, 1]])).flatten().tolist()
             [1.0, 3.0, 5.5]
    Source   Radford 2018 §3.1; the band: Child 2019, key > query − local_attn_ctx.
    """
    T, width = qkv_BT3I.shape[1:]
    device = qkv_BT3I.device.type
    assert width % (3 * n_head) == 0, f"{width} numbers are not queries, keys and values of {n_head} heads"
    assert band is None or band >= 1, f"a band of {band} keys leaves out the query's own"
    if (
        qkv_BT3I.dtype == torch.float32
        and torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
    ):
        qkv_BT3I = qkv_BT3I.to(torch.get_autocast_dtype(device))
    if band is not None and band >= T:
        band = None
    if device == "cpu":
        return _on_cpu(qkv_BT3I, n_head, band, dropout, documents_BT, seed)  # type: ignore[no-any-return]
    if band is None and documents_BT is None and dropout == 0.0:
        return _plain(qkv_BT3I, n_head, None)
    return _on_gpu(qkv_BT3I, n_head, band, dropout, documents_BT, seed)  # type: ignore[no-any-return]


def seen_keys(T: int, band: int | None, documents_BT: Tensor | None, device: torch.device) -> Tensor:
    """Which keys each query sees, as a mask: (T, T), or (B, 1, T, T) with documents.

    Example  >>> seen_keys(3, 2, None, torch.device("cpu")).int().tolist()
             [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    query, key = torch.arange(T, device=device)[:, None], torch.arange(T, device=device)[None, :]
    seen = key <= query
    if band is not None:
        seen = seen & (key > query - band)
    if documents_BT is not None:
        seen = seen & (documents_BT[:, None, :, None] == documents_BT[:, None, None, :])
    return seen


def _plain(qkv_BT3I: Tensor, n_head: int, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """PyTorch's operator: causal, or with the mask."""
    B, T, width = qkv_BT3I.shape
    q, k, v = qkv_BT3I.view(B, T, 3, n_head, width // (3 * n_head)).permute(2, 0, 3, 1, 4)
    out_BHTE = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None)
    return out_BHTE.transpose(1, 2).reshape(B, T, width // 3)


# ---------------------------------------------------------------------------------------------------- a CPU


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _on_cpu(
    qkv_BT3I: Tensor, n_head: int, band: int | None, dropout: float, documents_BT: Tensor | None, seed: int
) -> Tensor:
    B, T, _ = qkv_BT3I.shape
    starts = None if documents_BT is None else document_starts(documents_BT)
    if starts is not None and all(len(row) == 1 for row in starts):
        starts = documents_BT = None
    plan = _plan(B, T, n_head, band, starts, _at_once(qkv_BT3I.dtype, starts))
    kept = qkv_BT3I.requires_grad and torch.is_grad_enabled() and _keys_a_query(plan, B, T) <= _MOST_KEPT_KEYS
    in_blocks = band is not None or dropout > 0 or (kept and qkv_BT3I.dtype == torch.bfloat16)
    if starts is None and not in_blocks:
        return _plain(qkv_BT3I, n_head, None)
    lengths = [] if starts is None else document_lengths(starts, T)
    if in_blocks or len(lengths) * _SHORT > B * T:
        masks = _Masks(band, documents_BT, dropout, seed)
        return _Blocked.apply(qkv_BT3I, n_head, masks, plan, kept)  # type: ignore[no-any-return, no-untyped-call]
    documents = torch.split(qkv_BT3I.flatten(0, 1), lengths)
    return torch.cat([_plain(document_T3I[None], n_head, None)[0] for document_T3I in documents]).view(B, T, -1)


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


# ---------------------------------------------------------------------------------------------------- a GPU


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _on_gpu(
    qkv_BT3I: Tensor, n_head: int, band: int | None, dropout: float, documents_BT: Tensor | None, seed: int
) -> Tensor:
    B, T, width = qkv_BT3I.shape
    device, E = qkv_BT3I.device, width // (3 * n_head)
    masked = band is not None or documents_BT is not None
    form = gpu_form(masked, dropout, qkv_BT3I.dtype, E, abilities(device))
    if form == "varlen":
        return _varlen(qkv_BT3I, n_head, band, documents_BT)
    if form == "flex":
        mask = _band_blocks(T, band, device) if documents_BT is None else _document_blocks(documents_BT, band)
        q, k, v = qkv_BT3I.view(B, T, 3, n_head, E).permute(2, 0, 3, 1, 4)
        out_BHTE = _compiled_flex()(q, k, v, block_mask=mask)
        return out_BHTE.transpose(1, 2).reshape(B, T, width // 3)  # type: ignore[no-any-return]
    seen = seen_keys(T, band, documents_BT, device) if masked else None
    with _seeded(device, seed) if dropout > 0 else nullcontext():
        return _plain(qkv_BT3I, n_head, seen, dropout)


class Abilities(NamedTuple):
    """What a device can do: its CUDA capability, flash attention built into PyTorch, Triton to compile with."""

    capability: tuple[int, int]
    flash: bool
    triton: bool


@cache
def abilities(device: torch.device) -> Abilities:
    """Those of a device; all low where it is none of CUDA's."""
    if device.type != "cuda":
        return Abilities((0, 0), flash=False, triton=False)
    # Flash attention over spans is known to be right with a band on NVIDIA's devices alone.
    flash = torch.version.cuda is not None and torch.backends.cuda.is_flash_attention_available()
    return Abilities(torch.cuda.get_device_capability(device), flash, find_spec("triton") is not None)


def gpu_form(
    masked: bool, dropout: float, dtype: torch.dtype, d_head: int, device: Abilities
) -> Literal["plain", "varlen", "flex"]:
    """The fastest form for this attention: PyTorch's operator (with a mask if any), packed spans, or FlexAttention.

    Neither of the last two has dropout. Flash attention has 16-bit numbers and heads of multiples of 8, up to 192 wide
    for gradients on every device.

    Example  >>> hopper = Abilities((9, 0), flash=True, triton=True)
             >>> gpu_form(True, 0.0, torch.bfloat16, 64, hopper), gpu_form(True, 0.0, torch.float32, 64, hopper)
             ('varlen', 'flex')
    """
    if not masked or dropout > 0:
        return "plain"
    if device.flash and device.capability >= (8, 0) and dtype.itemsize == 2 and d_head % 8 == 0 and d_head <= 192:
        return "varlen"
    return "flex" if device.triton and device.capability >= (7, 0) and d_head >= 16 else "plain"


def _varlen(qkv_BT3I: Tensor, n_head: int, band: int | None, documents_BT: Tensor | None) -> Tensor:
    """Flash attention over packed spans: rows, or the documents in them."""
    from torch.nn.attention.varlen import varlen_attn

    B, T, width = qkv_BT3I.shape
    if documents_BT is None:
        offsets = torch.arange(0, B * T + 1, T, dtype=torch.int32, device=qkv_BT3I.device)
    else:
        offsets = _shared(documents_BT, "offsets", document_offsets)
    q, k, v = qkv_BT3I.reshape(B * T, 3, n_head, width // (3 * n_head)).unbind(1)
    # The longest span may be overstated: it only sizes the grid. Asking for it would wait for the device.
    out = varlen_attn(q, k, v, offsets, offsets, T, T, window_size=flash_window(band))
    assert isinstance(out, Tensor), "varlen_attn was not asked for more than its result"
    return out.reshape(B, T, width // 3)


def flash_window(band: int | None) -> tuple[int, int]:
    """Keys before and after a query, which flash attention counts without the query's own; −1 is all.

    Example  >>> flash_window(256), flash_window(None)
             ((255, 0), (-1, 0))
    """
    return (-1, 0) if band is None else (band - 1, 0)


def document_offsets(documents_BT: Tensor) -> Tensor:
    """Where documents begin when all rows are laid end to end, and the end of the last: (documents + 1,) int32.

    Example  >>> document_offsets(torch.tensor([[0, 0, 1], [1, 1, 1]])).tolist()
             [0, 2, 3, 6]
    """
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return F.pad(begins_BT.flatten().nonzero()[:, 0], (0, 1), value=documents_BT.numel()).int()


@lru_cache(maxsize=16)
def _band_blocks(T: int, band: int | None, device: torch.device) -> BlockMask:
    return block_mask(T, band, None, device)


def _document_blocks(documents_BT: Tensor, band: int | None) -> BlockMask:
    return _shared(documents_BT, band, lambda ids_BT: block_mask(ids_BT.shape[1], band, ids_BT, ids_BT.device))


def block_mask(T: int, band: int | None, documents_BT: Tensor | None, device: torch.device) -> BlockMask:
    """FlexAttention's description of `seen_keys`: which blocks of 128 × 128 are all seen, in part, or not at all."""
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        near = key <= query
        if band is not None:
            near = near & (key > query - band)
        return near if documents_BT is None else near & (documents_BT[row, query] == documents_BT[row, key])

    rows = None if documents_BT is None else documents_BT.shape[0]
    return create_block_mask(seen, rows, None, T, T, device=device)


@cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


_OF_DOCUMENTS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _shared(documents_BT: Tensor, what: object, make: Callable[[Tensor], Made]) -> Made:
    """What is made of a batch's documents, made once for all its layers, and anew when the tensor has changed."""
    if documents_BT.is_inference():  # whether it has changed cannot be told
        return make(documents_BT)
    made: dict[object, tuple[int, Any]] = _OF_DOCUMENTS.setdefault(documents_BT, {})  # type: ignore[no-untyped-call]
    version = documents_BT._version
    if what not in made or made[what][0] != version:
        made[what] = version, make(documents_BT.detach())  # a name of its own: what is made must not keep its key alive
    return made[what][1]  # type: ignore[no-any-return]


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """For its duration the random numbers of a CUDA device, or of the CPU, are those of a seed."""
    devices, kind = ([device], "cuda") if device.type == "cuda" else ([], "cpu")
    with torch.random.fork_rng(devices, device_type=kind):
        torch.manual_seed(seed)
        yield


# ------------------------------------------------------------------------------------------------- decoding


class Cache:
    """Keys and values of the positions a model has read, so that the next token costs one position.

    Columns are time. A sequence shorter than its batch is padded on the left by `pad_B` columns, which no other column
    attends to. A dense layer keeps all `length` columns; a banded one a ring of the last `band`, column c in slot
    c mod band: attention does not ask in which order its keys lie.

    `bands` has an entry a layer; `like` gives the device and, but on a CPU, the precision of what is kept. The model
    calls `attend` once a layer and then adds the columns it has read to `length`.
    """

    def __init__(
        self,
        *,
        n_head: int,
        d_head: int,
        bands: Sequence[int | None],
        batch: int,
        length: int,
        pad_B: Tensor | None,
        like: Tensor,
    ) -> None:
        # PyTorch's CPU attention for one query is three times as fast in float32 as in bfloat16, which saves it memory.
        dtype = torch.float32 if like.device.type == "cpu" else like.dtype
        self._bands = [None if band is None or band >= length else band for band in bands]
        shapes = [(batch, n_head, band or length, d_head) for band in self._bands]
        self._keys, self._values = ([torch.empty(s, dtype=dtype, device=like.device) for s in shapes] for _ in range(2))
        self._room = length
        self.length = 0
        self._set_padding(pad_B)

    def _set_padding(self, pad_B: Tensor | None) -> None:
        self.pad_B = pad_B if pad_B is not None and bool(pad_B.any()) else None
        self._longest_pad = 0 if self.pad_B is None else int(self.pad_B.max())
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Memory of all keys and values."""
        return sum(kept.nbytes for kept in (*self._keys, *self._values))

    def positions(self, T: int) -> Tensor:
        """Position embeddings' indices of the next T columns: (T,), or (B, T) where there is padding."""
        columns = torch.arange(self.length, self.length + T, device=self._keys[0].device)
        return columns if self.pad_B is None else (columns - self.pad_B[:, None]).clamp(min=0)

    def attend(self, layer: int, qkv_BT3I: Tensor) -> Tensor:
        """Adds the next T columns to a layer, and what they see of all that it has read.

        Shapes   qkv_BT3I (B, T, 3 · H · E) as for `causal_attention`; returns (B, T, H · E).
        """
        keys, values, band = self._keys[layer], self._values[layer], self._bands[layer]
        B, H, size, E = keys.shape
        T, start = qkv_BT3I.shape[1], self.length
        stop = start + T
        assert stop <= self._room, f"{stop} columns do not fit in a cache of {self._room}"
        q, k, v = qkv_BT3I.view(B, T, 3, H, E).to(keys.dtype).permute(2, 0, 3, 1, 4).unbind()
        if band is not None and start > 0 and T > 1:  # the first new query sees keys that the last new ones replace
            all_keys, all_values = (
                torch.cat([kept.narrow(2, 0, min(start, size)), new], dim=2) for kept, new in ((keys, k), (values, v))
            )
        else:
            all_keys, all_values = keys.narrow(2, 0, min(stop, size)), values.narrow(2, 0, min(stop, size))
        self._write(keys, k)
        self._write(values, v)
        if start == 0 and T > 1:
            return causal_attention(qkv_BT3I, H, band=band, documents_BT=self._padding(T))
        out_BHTE = F.scaled_dot_product_attention(q, all_keys, all_values, attn_mask=self._mask(T, band))
        return out_BHTE.transpose(1, 2).reshape(B, T, H * E).to(qkv_BT3I.dtype)

    def take(self, rows: Tensor) -> None:
        """Keeps these rows of the batch, in this order; a row may be taken more than once.

        Shapes   rows (any number,) int64.
        """
        for all_kept in (self._keys, self._values):
            for layer, kept in enumerate(all_kept):
                used = min(self.length, kept.shape[2])
                taken = kept.narrow(2, 0, used).index_select(0, rows)
                if len(rows) != len(kept):
                    all_kept[layer] = kept.new_empty(len(rows), *kept.shape[1:])
                all_kept[layer].narrow(2, 0, used).copy_(taken)
        self._set_padding(None if self.pad_B is None else self.pad_B[rows])

    def _write(self, kept: Tensor, new_BHTE: Tensor) -> None:
        """Puts the next columns in their slots: one after the other, round the ring where the layer is banded."""
        T, size, slot = new_BHTE.shape[2], kept.shape[2], self.length % kept.shape[2]
        if slot + T <= size:
            kept.narrow(2, slot, T).copy_(new_BHTE)
        else:
            stop, last = self.length + T, min(T, size)
            slots = torch.arange(stop - last, stop, device=kept.device) % size
            kept.index_copy_(2, slots, new_BHTE[:, :, T - last :])

    def _padding(self, T: int) -> Tensor | None:
        """Padding and text as two documents."""
        if self.pad_B is None:
            return None
        return (torch.arange(T, device=self.pad_B.device) >= self.pad_B[:, None]).int()

    def _mask(self, T: int, band: int | None) -> Tensor | None:
        """Which keys each of the next T queries sees, (B or 1, 1, T, keys); None where it is all of them."""
        start, stop = self.length, self.length + T
        oldest = 0 if band is None else max(0, stop - band)
        if T == 1 and self._longest_pad <= oldest:
            return None
        key = start, T, band
        if key not in self._masks:
            self._masks = {other: mask for other, mask in self._masks.items() if other[:2] == key[:2]}
            self._masks[key] = self._make_mask(T, band)
        return self._masks[key]

    def _make_mask(self, T: int, band: int | None) -> Tensor:
        device, start, stop = self._keys[0].device, self.length, self.length + T
        query, column = torch.arange(start, stop, device=device)[:, None], torch.arange(stop, device=device)
        if band is not None:
            column = (
                in_ring(stop, band, device) if T == 1 else torch.cat([in_ring(start, band, device), column[start:]])
            )
        seen = column <= query
        if band is not None:
            seen = seen & (column > query - band)
        if self.pad_B is not None:  # a padding query sees itself: a softmax over nothing would be NaN
            seen = (seen & (column >= self.pad_B[:, None, None])) | (column == query)
        return seen[:, None] if seen.dim() == 3 else seen


def in_ring(read: int, band: int, device: torch.device) -> Tensor:
    """The column in each slot of a ring after `read` columns, which are put in slot c mod band.

    Example  >>> in_ring(2, 4, torch.device("cpu")).tolist(), in_ring(6, 4, torch.device("cpu")).tolist()
             ([0, 1], [4, 5, 2, 3])
    """
    slots = torch.arange(min(read, band), device=device)
    return read - 1 - (read - 1 - slots) % band
