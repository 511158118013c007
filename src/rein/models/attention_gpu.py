"""Attention on a GPU: PyTorch's operator, flash attention over packed spans, or FlexAttention.

Fused queries, keys and values go in, the mixed values come out. Which form is the fastest for a device, `gpu_form`
says; then come the spans that flash attention is given, and the blocks that FlexAttention is. What follows from a
batch's documents alone is made once for all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from rein.models.attention_plain import plain, seen_keys

if TYPE_CHECKING:  # FlexAttention takes a while to import, and a CPU has no use for it
    from torch.nn.attention.flex_attention import BlockMask

Made = TypeVar("Made")


@torch.compiler.disable  # type: ignore[untyped-decorator]
def on_gpu(
    qkv_BT3I: Tensor, n_head: int, band: int | None, dropout: float, documents_BT: Tensor | None, seed: int
) -> Tensor:
    """`causal_attention` on a GPU, in the form that `gpu_form` names."""
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
        return plain(qkv_BT3I, n_head, seen, dropout)


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
