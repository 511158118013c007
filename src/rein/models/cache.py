"""The cache for decoding: what a model has read, so that the next token costs one position.

The next columns' fused queries, keys and values go in, a layer at a time; what they see of all that was read comes out.
A dense layer keeps all keys and values, a banded one the last W in a ring. A first reading is attention over a whole
sequence (attention.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rein.models.attention import causal_attention


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
