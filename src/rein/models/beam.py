"""Beam search: for many prompts at once, each read a single time, with no copying of what was read.

Flow     prompts of any lengths → one forward pass → the likeliest first tokens → a forward pass of one token a beam and
         step → until no longer continuation can be better than a finished one → hypotheses, the best first

The beams of a prompt share its keys and values, and keep their own tokens' side by side. A beam that goes on from
another's tokens needs no copy of them: a mask says which columns each beam sees. So a step costs `width` rows of the
model and nothing else, however long the prompt.

Source   beam_search.py of tensorflow/mesh (Mesh TensorFlow), which T5 decodes with; the length penalty: Wu 2016 §7,
         without its coverage term. Brown 2020 §2.4 searches with T5's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rein.errors import UserError
from rein.models.attention import causal_attention
from rein.models.gpt import GPT
from rein.models.machine import autocast

# Keys and values of the prompts that are searched together.
_CPU_ROOM_BYTES = 1 << 30
_GPU_ROOM_BYTES = 1 << 33


@dataclass(frozen=True)
class Hypothesis:
    """One continuation of a prompt."""

    tokens: tuple[int, ...]  # with the token that ended it
    logprob: float  # nats, log P(tokens | prompt)
    score: float  # logprob / length_penalty
    finished: bool  # by an end; False: cut off at the longest length


def length_penalty(n_tokens: int, alpha: float) -> float:
    """What a log-probability is divided by, so that long continuations are not worse merely for being long.

        ((5 + |Y|) / 6)^α

    Units    n_tokens: those written, the end included.
    Example  >>> length_penalty(1, 0.6), length_penalty(13, 1.0)
             (1.0, 3.0)
    Source   Wu 2016, eq. 14.
    Differs  `length_penalty` of transformers is the α of another formula, |Y|^α.
    """
    return float(((5 + n_tokens) / 6) ** alpha)


@torch.inference_mode()
def beam_search(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    width: int = 4,
    alpha: float = 0.6,
    max_new_tokens: int,
    ends: Collection[int],
    precision: str = "fp32",
    on_prompt: Callable[[int], None] | None = None,
) -> list[list[Hypothesis]]:
    """The likeliest continuations of each prompt that a search of `width` beams finds, the best first.

        score(Y) = log P(Y | X) / ((5 + |Y|) / 6)^α

    A step makes the 2 · width likeliest continuations by a token. Those that end in one of `ends` compete for `width`
    places among the finished; the `width` likeliest others live on. A search is over when the likeliest of them,
    divided by the penalty of `max_new_tokens`, falls behind the worst of the finished. Where nothing finishes in
    `max_new_tokens`, what is alive then is returned.

    What is found for a prompt does not depend on the other prompts. `on_prompt(number)` is called when one is done.

    Shapes   prompts: token ids, each at least one. Returns 1 to `width` hypotheses of each.
    Raises   UserError when a prompt is empty, an option is out of its range, or the context is too short.
    Source   beam_search.py of tensorflow/mesh.
    Differs  There is one end there, here a set. The `width` likeliest that did not end live on in any case; taken from
             the 2 · width alone, several ends could crowd them out.
    """
    _check(model, prompts, width, max_new_tokens)
    found: list[list[Hypothesis]] = [[] for _ in prompts]
    groups = _groups(model, [len(prompt) for prompt in prompts], width, max_new_tokens)
    device = model.wte.device
    end_ids = torch.tensor(sorted(ends), dtype=torch.int64, device=device)
    rows = width * max(map(len, groups), default=1)
    # Who searches again and again packs the weights around it: laying them out costs as much as some steps.
    packed = nullcontext() if model.packed_head is not None else model.packed(precision, rows)
    with packed, autocast(device, "fp32" if device.type == "cpu" else precision):
        for group in groups:
            beams = Beams(len(group), width, max_new_tokens, alpha, end_ids)
            for row, hypotheses in _search(model, [prompts[number] for number in group], beams):
                found[group[row]] = hypotheses
                if on_prompt is not None:
                    on_prompt(group[row])
    return found


def _search(model: GPT, prompts: list[Sequence[int]], beams: Beams) -> Iterator[tuple[int, list[Hypothesis]]]:
    """(number of a prompt, what was found), each as soon as its search is over."""
    columns = _Columns(model, [len(prompt) for prompt in prompts], beams.width, beams.longest)
    logits_BWV = _read(model, prompts, columns)[:, None].expand(-1, beams.width, -1)
    numbers, told = list(range(len(prompts))), [False] * len(prompts)
    while True:
        parents_BW, tokens_BW = beams.grow(logits_BWV)
        for row, over in enumerate(beams.over_B().tolist()):
            if over and not told[row]:
                told[row] = True
                yield numbers[row], beams.hypotheses(row)
        if all(told):
            return
        if 4 * sum(told) >= len(told):  # fewer leave at a time, not each alone: leaving copies those that stay
            stay = [row for row, over in enumerate(told) if not over]
            rows = torch.tensor(stay, device=tokens_BW.device)
            beams.take(rows)
            columns.take(rows)
            parents_BW, tokens_BW = parents_BW[rows], tokens_BW[rows]
            numbers, told = [numbers[row] for row in stay], [False] * len(stay)
        columns.branch(parents_BW)
        logits_BWV = model(tokens_BW.view(-1, 1), columns, last_only=True).view(*tokens_BW.shape, -1)


def _read(model: GPT, prompts: list[Sequence[int]], columns: _Columns) -> Tensor:
    """Reads the prompts, and returns the logits behind each: (B, V)."""
    device, lengths = model.wte.device, torch.tensor([len(prompt) for prompt in prompts])
    tokens_BT = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, : len(prompt)] = torch.tensor(prompt)
    x_BTD, wte_VD = model.states(tokens_BT.to(device), columns)  # type: ignore[arg-type]
    last_B1D = x_BTD[torch.arange(len(prompts)), lengths - 1][:, None]
    head = model.packed_head
    logits_B1V: Tensor = model.vocabulary.logits(last_B1D, wte_VD) if head is None else head(last_B1D)
    return logits_B1V[:, 0]


# ---------------------------------------------------------------------------------------------------- beams


class Beams:
    """What searches know: the hypotheses of each prompt that are alive, and the best of the finished, best first.

    Whatever gives logits can be searched: `grow` with those behind every beam, until `over_B`, then `hypotheses`.
    Places that nothing has taken yet have −∞ nats. A search begins with one beam that has written nothing.
    """

    def __init__(self, n_prompts: int, width: int, longest: int, alpha: float, ends: Tensor) -> None:
        self.width, self.longest, self._alpha, self._ends = width, longest, alpha, ends
        self._n = 0  # tokens written
        self._alive_BW = torch.full((n_prompts, width), -torch.inf, dtype=torch.float64, device=ends.device)
        self._alive_BW[:, 0] = 0.0
        self._written_BWT = torch.zeros(n_prompts, width, longest, dtype=torch.int64, device=ends.device)
        self._scores_BW = torch.full_like(self._alive_BW, -torch.inf)
        self._finished_BW, self._lengths_BW = self._scores_BW.clone(), torch.zeros_like(self._scores_BW).long()
        self._finished_BWT = self._written_BWT.clone()

    def grow(self, logits_BWV: Tensor) -> tuple[Tensor, Tensor]:
        """Lengthens every beam by a token: returns the beam that each new one goes on from, and its token, (B, W)."""
        W, V = self.width, logits_BWV.shape[-1]
        self._n += 1
        # Per beam, enough of the likeliest that W remain where all ends are among them.
        n_kept = min(V, max(2 * W, W + len(self._ends)))
        logits_BWV = logits_BWV.float()
        kept_BWK, ids_BWK = logits_BWV.topk(n_kept)
        step_BWK = kept_BWK.double() - logits_BWV.logsumexp(-1, keepdim=True).double()
        nats_BC = (self._alive_BW[..., None] + step_BWK).flatten(1)
        ids_BC, ended_BC = ids_BWK.flatten(1), torch.isin(ids_BWK, self._ends).flatten(1)
        self._finish(nats_BC, ids_BC, ended_BC, n_kept)
        self._alive_BW, at_BW = nats_BC.masked_fill(ended_BC, -torch.inf).topk(W)
        parents_BW, tokens_BW = at_BW // n_kept, ids_BC.gather(1, at_BW)
        self._written_BWT = self._with(parents_BW, tokens_BW)
        return parents_BW, tokens_BW

    def _finish(self, nats_BC: Tensor, ids_BC: Tensor, ended_BC: Tensor, n_kept: int) -> None:
        """Lets the ended ones of the 2 · width best candidates compete with what has finished before."""
        nats_BK, at_BK = nats_BC.topk(min(2 * self.width, nats_BC.shape[1]))
        nats_BK = nats_BK.masked_fill(~ended_BC.gather(1, at_BK), -torch.inf)
        if not bool((nats_BK > -torch.inf).any()):
            return
        scores_BK = nats_BK / length_penalty(self._n, self._alpha)
        written_BKT = self._with(at_BK // n_kept, ids_BC.gather(1, at_BK))
        self._scores_BW, best_BW = torch.cat([self._scores_BW, scores_BK], dim=1).topk(self.width)
        self._finished_BW = torch.cat([self._finished_BW, nats_BK], dim=1).gather(1, best_BW)
        lengths_BK = torch.full_like(at_BK, self._n)
        self._lengths_BW = torch.cat([self._lengths_BW, lengths_BK], dim=1).gather(1, best_BW)
        written_BCT = torch.cat([self._finished_BWT, written_BKT], dim=1)
        self._finished_BWT = _beams(written_BCT, best_BW)

    def _with(self, parents_BK: Tensor, tokens_BK: Tensor) -> Tensor:
        """What these beams have written, each with one more token: (B, K, longest)."""
        written_BKT = _beams(self._written_BWT, parents_BK)
        written_BKT[:, :, self._n - 1] = tokens_BK
        return written_BKT

    def over_B(self) -> Tensor:
        """Whether each search is over: all is written, or no continuation can beat the worst that has finished."""
        if self._n == self.longest:
            return torch.ones(len(self._alive_BW), dtype=torch.bool)
        best_alive_B = self._alive_BW[:, 0]
        there_BW = self._scores_BW > -torch.inf
        worst_B = self._scores_BW.masked_fill(~there_BW, torch.inf).amin(dim=1)
        beaten_B = worst_B > best_alive_B / length_penalty(self.longest, self._alpha)
        return (there_BW.any(dim=1) & beaten_B) | (best_alive_B == -torch.inf)

    def hypotheses(self, row: int) -> list[Hypothesis]:
        """What was found for a prompt: the finished ones, or those alive where none has finished."""
        finished = bool(self._scores_BW[row, 0] > -torch.inf)
        if finished:
            nats, lengths, written = self._finished_BW[row], self._lengths_BW[row].tolist(), self._finished_BWT[row]
        else:
            nats, lengths, written = self._alive_BW[row], [self._n] * self.width, self._written_BWT[row]
        return [
            Hypothesis(tuple(ids[:n]), logprob, logprob / length_penalty(n, self._alpha), finished)
            for ids, n, logprob in zip(written.tolist(), lengths, nats.tolist(), strict=True)
            if n and logprob > -torch.inf
        ]

    def take(self, rows: Tensor) -> None:
        """Goes on with these prompts alone."""
        self._alive_BW, self._written_BWT = self._alive_BW[rows], self._written_BWT[rows]
        self._scores_BW, self._finished_BW = self._scores_BW[rows], self._finished_BW[rows]
        self._lengths_BW, self._finished_BWT = self._lengths_BW[rows], self._finished_BWT[rows]


def _beams(x_BWT: Tensor, index_BK: Tensor) -> Tensor:
    """x[b, index[b, k]], for every b and k: (B, K, T)."""
    return x_BWT.gather(1, index_BK[..., None].expand(-1, -1, x_BWT.shape[2]))


# -------------------------------------------------------------------------------------------------- columns


class _Columns:
    """Stands where a `Cache` stands: keys and values of prompts, and of all that their beams have written.

    A prompt's columns come first, as many as the longest has, then `width` of each step, one a beam. Which of them a
    beam sees is a mask; which a banded layer sees besides is decided by their positions. `length` counts what a beam's
    sequence has of them: the model adds to it what it has read.
    """

    def __init__(self, model: GPT, lengths: list[int], width: int, longest: int) -> None:
        config, device = model.config, model.wte.device
        B, self._W, self._H, self._L = len(lengths), width, config.n_head, max(lengths)
        n_columns = self._L + width * (longest - 1)
        # On a CPU float32, as in `Cache`.
        dtype = torch.float32 if device.type == "cpu" else model.wte.dtype
        shape = (B, self._H, n_columns, config.d_inner // config.n_head)
        layers = range(config.n_layer)
        self._keys, self._values = ([torch.empty(shape, dtype=dtype, device=device) for _ in layers] for _ in range(2))
        self._bands = [config.band_of_layer(layer) for layer in layers]
        self.length = 0
        self._lengths_B = torch.tensor(lengths, device=device)
        prompt_L = torch.arange(self._L, device=device)
        self._seen_BWS = torch.zeros(B, width, n_columns, dtype=torch.bool, device=device)
        self._seen_BWS[:, :, : self._L] = (prompt_L < self._lengths_B[:, None])[:, None]
        self._positions_BS = torch.zeros(B, n_columns, dtype=torch.int64, device=device)
        self._positions_BS[:, : self._L] = prompt_L
        self._masks: dict[int | None, Tensor] = {}

    def positions(self, T: int) -> Tensor:
        """Of the prompts' T columns, (T,); later of each beam's next token, (B · W, 1)."""
        if self.length == 0:
            return torch.arange(T, device=self._lengths_B.device)
        return self._next_positions_B().repeat_interleave(self._W)[:, None]

    def _next_positions_B(self) -> Tensor:
        return self._lengths_B + (self.length - self._L)

    def _next(self) -> tuple[int, int]:
        """Where the next step's columns lie."""
        start = self._L + self._W * (self.length - self._L)
        return start, start + self._W

    def branch(self, parents_BW: Tensor) -> None:
        """Before a step: the beams go on from these beams, each with a column of its own."""
        start, stop = self._next()
        seen_BWS = self._seen_BWS
        seen_BWS[:, :, self._L : start] = _beams(seen_BWS[:, :, self._L : start], parents_BW)
        seen_BWS[:, :, start:stop] = torch.eye(self._W, dtype=torch.bool, device=seen_BWS.device)
        position_B1 = self._next_positions_B()[:, None]
        self._positions_BS[:, start:stop] = position_B1
        for band in set(self._bands):
            mask_BWS = seen_BWS[:, :, :stop]
            if band is not None:
                mask_BWS = mask_BWS & (self._positions_BS[:, :stop] > position_B1 - band)[:, None]
            self._masks[band] = mask_BWS[:, None]

    def attend(self, layer: int, qkv_BT3I: Tensor) -> Tensor:
        """Adds the prompts, or a token of each beam, to a layer; returns what they see of it.

        Shapes   qkv_BT3I (B, T, 3 · H · E) for prompts, (B · W, 1, 3 · H · E) for beams; returns (B, T, H · E) or
                 (B · W, 1, H · E).
        """
        keys, values, band = self._keys[layer], self._values[layer], self._bands[layer]
        reading = self.length == 0
        start, stop = (0, self._L) if reading else self._next()
        B, H, _, E = keys.shape
        q, k, v = qkv_BT3I.view(B, stop - start, 3, H, E).to(keys.dtype).permute(2, 0, 3, 1, 4).unbind()
        keys[:, :, start:stop], values[:, :, start:stop] = k, v
        if reading:  # what stands behind a shorter prompt is after it, so nothing of the prompt sees it
            return causal_attention(qkv_BT3I, H, band=band)
        out_BHWE = F.scaled_dot_product_attention(
            q, keys[:, :, :stop], values[:, :, :stop], attn_mask=self._masks[band]
        )
        return out_BHWE.transpose(1, 2).reshape(B * self._W, 1, H * E).to(qkv_BT3I.dtype)

    def take(self, rows: Tensor) -> None:
        """Goes on with these prompts alone."""
        used = self._next()[0]
        for all_kept in (self._keys, self._values):
            for layer, kept in enumerate(all_kept):
                fewer = kept.new_empty(len(rows), *kept.shape[1:])
                fewer[:, :, :used] = kept[:, :, :used].index_select(0, rows)
                all_kept[layer] = fewer
        self._lengths_B, self._seen_BWS = self._lengths_B[rows], self._seen_BWS[rows]
        self._positions_BS = self._positions_BS[rows]


# --------------------------------------------------------------------------------------------------- before


def _groups(model: GPT, lengths: Sequence[int], width: int, max_new_tokens: int) -> list[list[int]]:
    """Which prompts are searched together: of like length, so that half of what is read is no padding at least."""
    config = model.config
    room_bytes = _CPU_ROOM_BYTES if model.wte.device.type == "cpu" else _GPU_ROOM_BYTES
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        longest = lengths[groups[-1][0]] if groups else 0
        column_bytes = 2 * config.n_layer * config.d_inner * 4
        fit = room_bytes // (column_bytes * (longest + width * max_new_tokens))
        read = lengths[number] + sum(lengths[mate] for mate in groups[-1]) if groups else 0
        if groups and len(groups[-1]) < fit and 2 * read >= longest * (len(groups[-1]) + 1):
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def _check(model: GPT, prompts: Sequence[Sequence[int]], width: int, max_new_tokens: int) -> None:
    if any(len(prompt) == 0 for prompt in prompts):
        raise UserError("A prompt has no tokens.", "Start it with the end-of-text token, as training does.")
    if width < 1:
        raise UserError(f"width is {width}, but a search needs at least 1 beam.", "Use 4, as GPT-3 does.")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}, but at least 1 is needed.", "Raise it.")
    n_ctx, longest = model.config.n_ctx, max(map(len, prompts), default=0)
    if longest + max_new_tokens > n_ctx:
        raise UserError(
            f"A prompt of {longest} tokens and max_new_tokens={max_new_tokens} need n_ctx ≥ "
            f"{longest + max_new_tokens}, but this model has n_ctx={n_ctx}.",
            f"Lower max_new_tokens to {n_ctx - longest}." if longest < n_ctx else "Shorten the prompt.",
        )
