"""The cache for decoding: what a model has read, so that the next token costs one position.

Flow     queries' fused queries, keys and values → what causal attention makes of them, and the keys and values kept
         the next token's of each sequence, a layer at a time → what it sees of all that its sequence has read

What is written behind one query, several times over, shares the query's keys and values: they are kept once, and read
once a step for all. Such sequences are a group, each in a place of it:

    columns of a group      · q0 q1 q2 | a0 b0 a1 b1 · ·     a query, right-aligned; then, step by step, a token a place
    what place b sees         q0 q1 q2 |    b0    b1

A banded layer keeps the last tokens only: of the query as many as the band, of each place a ring of as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rein.models.attention import causal_attention

Ints = npt.NDArray[np.int64]


class Cache:
    """Keys and values of queries and of what is written behind them.

    `groups` queries of up to `longest_query` tokens are held at a time, and up to `longest_new` tokens behind each in
    `width` places. A place's number is group · width + place in the group; it sees its query and itself alone.

    Before a pass of the model `read` or `step` says what it is to read; the pass calls `attend` once a layer.
    `bands` has an entry a layer.
    """

    def __init__(
        self,
        *,
        n_head: int,
        d_head: int,
        bands: Sequence[int | None],
        groups: int,
        width: int,
        longest_query: int,
        longest_new: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.width, self.groups = width, groups
        self._layouts = {band: _Layout.of(band, width, longest_query, longest_new) for band in bands}
        self._bands = list(bands)
        shapes = [(groups, n_head, self._layouts[band].columns, d_head) for band in bands]
        # What nothing was written to is masked, but 0 · NaN would be NaN.
        self._keys, self._values = ([torch.zeros(s, dtype=dtype, device=device) for s in shapes] for _ in range(2))
        self._device = device
        self._lengths_G = np.ones(groups, dtype=np.int64)
        self._step: _Step | None = None
        self._groups_N = np.zeros(0, dtype=np.int64)
        self.length = 0  # the highest position that the next pass reads; the model adds to it, and nobody reads the sum

    @property
    def nbytes(self) -> int:
        """Memory of all keys and values."""
        return sum(kept.nbytes for kept in (*self._keys, *self._values))

    def read(self, groups_N: Ints, lengths_N: Ints) -> None:
        """The next pass reads a query into each of these groups, padded on the right behind these lengths."""
        self._step, self._groups_N, self.length = None, groups_N, 0
        self._lengths_G[groups_N] = lengths_N

    def copy(self, sources_N: Ints, targets_N: Ints, *, written: bool = False) -> None:
        """Puts the queries of some groups into others as if they had been read there, what is `written` too or not."""
        sources, targets = (torch.from_numpy(groups).to(self._device) for groups in (sources_N, targets_N))
        self._lengths_G[targets_N] = self._lengths_G[sources_N]
        for all_kept in (self._keys, self._values):
            for band, kept in zip(self._bands, all_kept, strict=True):
                some = kept if written else kept.narrow(2, 0, self._layouts[band].query)
                some.index_copy_(0, targets, some.index_select(0, sources))

    def step(self, places_B: Ints, index_B: Ints) -> None:
        """The next pass reads one token of each of these places: its query's continuation at this index from 0."""
        self._step = _Step(self, places_B, index_B)
        self.length = int(self._step.positions_B.max())

    def positions(self, T: int) -> Tensor:
        """Position embeddings' indices of the next pass: (T,) of queries, (B, 1) of one token a place."""
        if self._step is None:
            return torch.arange(T, device=self._device)
        return torch.from_numpy(self._step.positions_B).to(self._device)[:, None]

    def attend(self, layer: int, qkv_BT3I: Tensor) -> Tensor:
        """Adds what is read to a layer, and what it sees of all that its sequence has read.

        Shapes   qkv_BT3I (B, T, 3 · H · E) as for `causal_attention`, T = 1 in a step; returns (B, T, H · E).
        """
        keys, values, band = self._keys[layer], self._values[layer], self._bands[layer]
        _, H, _, E = keys.shape
        B, T, _ = qkv_BT3I.shape
        if self._step is None:
            self._keep(layer, qkv_BT3I)
            return causal_attention(qkv_BT3I, H, band=band)
        assert T == 1, f"a step reads one token a place, not {T}"
        step = self._step
        view = step.views[band]
        q, k, v = qkv_BT3I.view(B, 3, H, E).to(keys.dtype).unbind(1)
        keys[step.groups_B, :, view.columns_B] = k
        values[step.groups_B, :, view.columns_B] = v
        G, W, I = step.groups, self.width, H * E
        # Rows without a token are places that nothing is written in now: what comes out there is not read.
        q_PI = q.reshape(B, I)
        if not step.whole:
            q_PI = q_PI.new_zeros(G * W, I).index_copy_(0, step.places_B, q_PI)
        seen = slice(view.start, view.stop)
        mixed_GHWE = F.scaled_dot_product_attention(
            q_PI.view(G, W, H, E).transpose(1, 2), keys[:G, :, seen], values[:G, :, seen], attn_mask=view.mask
        )
        out_PI = mixed_GHWE.transpose(1, 2).reshape(G * W, I)
        out_BI = out_PI if step.whole else out_PI.index_select(0, step.places_B)
        return out_BI[:, None].to(qkv_BT3I.dtype)

    def _mask(self, seen_GWS: npt.NDArray[np.bool_]) -> Tensor:
        """What is added to scores: PyTorch would make it of booleans in every layer anew."""
        mask = torch.from_numpy(np.where(seen_GWS, np.float32(0), np.float32(-np.inf)))
        return mask.to(self._device, self._keys[0].dtype)[:, None]

    def _keep(self, layer: int, qkv_NT3I: Tensor) -> None:
        """Puts the ends of queries where the columns of what follows them begin."""
        N, T, _ = qkv_NT3I.shape
        _, H, _, E = self._keys[layer].shape
        n_query = self._layouts[self._bands[layer]].query
        kept = min(T, n_query)
        lengths_N = self._lengths_G[self._groups_N]
        groups = torch.from_numpy(self._groups_N).to(self._device)
        _, k, v = qkv_NT3I.view(N, T, 3, H, E).permute(2, 0, 3, 1, 4).unbind()
        if bool((lengths_N == T).all()):
            k, v = k[:, :, T - kept :], v[:, :, T - kept :]
        else:  # of a query shorter than `kept`, what stands before it is never seen
            index_NK = (lengths_N[:, None] - kept + np.arange(kept)).clip(min=0)
            index = torch.from_numpy(index_NK).to(self._device)[:, None, :, None].expand(N, H, kept, E)
            k, v = k.gather(2, index), v.gather(2, index)
        for cache, new in ((self._keys[layer], k), (self._values[layer], v)):
            cache.narrow(2, n_query - kept, kept).index_copy_(0, groups, new.to(cache.dtype))


@dataclass(frozen=True)
class _Layout:
    """The columns of one kind of layer: of a query's end, and of so many steps of `width` tokens."""

    band: int | None
    query: int
    steps: int
    width: int

    @classmethod
    def of(cls, band: int | None, width: int, longest_query: int, longest_new: int) -> _Layout:
        limit = longest_query + longest_new if band is None else band
        return cls(band, min(longest_query, limit), min(max(longest_new, 1), limit), width)

    @property
    def columns(self) -> int:
        return self.query + self.steps * self.width


@dataclass(frozen=True)
class _View:
    """What a step reads of one kind of layer, and where it writes."""

    columns_B: Tensor
    start: int
    stop: int
    mask: Tensor | None  # (groups or 1, 1, width, stop − start), 0 or −∞; None where everything is seen


class _Step:
    """Which token of which place is read, and what it sees: the same for all layers of a kind."""

    def __init__(self, cache: Cache, places_B: Ints, index_B: Ints) -> None:
        W = cache.width
        groups_B = places_B // W
        self.groups = int(groups_B.max()) + 1
        self.positions_B = cache._lengths_G[groups_B] + index_B
        self.whole = len(places_B) == self.groups * W and bool((places_B == np.arange(len(places_B))).all())
        self.places_B, self.groups_B = (torch.from_numpy(x).to(cache._device) for x in (places_B, groups_B))
        lengths_G, index_GW = cache._lengths_G[: self.groups], np.zeros((self.groups, W), dtype=np.int64)
        index_GW.reshape(-1)[places_B] = index_B
        longest = int(lengths_G[groups_B].max())
        if W == 1 and self.whole and len(set(index_B)) == 1 and len(set(lengths_G)) == 1:  # all see the same columns
            lengths_G, index_GW = lengths_G[:1], index_GW[:1]
        self.views: dict[int | None, _View] = {}
        for band, layout in cache._layouts.items():
            columns_B = layout.query + index_B % layout.steps * W + places_B % W
            start = max(0, layout.query - longest)
            stop = layout.query + W * min(int(index_B.max()) + 1, layout.steps)
            seen_GWS = _seen(layout, lengths_G, index_GW)[:, :, start:stop]
            mask = None if seen_GWS.all() else cache._mask(seen_GWS)
            self.views[band] = _View(torch.from_numpy(columns_B).to(cache._device), start, stop, mask)


def _seen(layout: _Layout, lengths_G: Ints, index_GW: Ints) -> npt.NDArray[np.bool_]:
    """Which columns each place's newest token sees, at its index behind queries of these lengths: (G, W, columns).

    Example  >>> layout = _Layout.of(None, 2, 2, 2)
             >>> _seen(layout, np.array([1]), np.array([[0, 1]])).astype(int).tolist()
             [[[0, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1]]]
    """
    (G, W), steps = index_GW.shape, np.arange(layout.steps)
    # How far back each column's token lies.
    before_GQ = lengths_G[:, None] - layout.query + np.arange(layout.query)  # positions of the query's columns
    back_GWQ = (lengths_G[:, None] + index_GW)[..., None] - before_GQ[:, None]
    back_GWT = (index_GW[..., None] - steps) % layout.steps
    seen_GWQ = np.broadcast_to((before_GQ >= 0)[:, None], back_GWQ.shape)
    seen_GWT = back_GWT <= index_GW[..., None]
    if layout.band is not None:
        seen_GWQ, seen_GWT = seen_GWQ & (back_GWQ < layout.band), seen_GWT & (back_GWT < layout.band)
    own_GWTW = seen_GWT[..., None] & np.eye(W, dtype=bool)[:, None]
    return np.concatenate([seen_GWQ, own_GWTW.reshape(G, W, -1)], axis=2)
