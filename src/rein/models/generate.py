"""Sampling from a GPT: many sequences at once, in places that the next ones take as they end.

Flow     queries, each to be continued so many times → read, a query once → a token of each place by a forward pass of
         one position → a place whose sequence has ended goes to the next one → what was written, sequence by sequence

The random number behind a sequence's n-th token depends on (seed, its number, n) alone. So a sequence does not
change with the places, the order or what is written beside it, and any of them can be drawn again by itself.
`generate` is for texts and streams, models/rollout.py for training: it returns what the sampler's probabilities were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rein.errors import UserError
from rein.models.cache import Ints
from rein.models.gpt import GPT
from rein.models.machine import autocast
from rein.models.places import Places, Reader, best_width

_NEVER = -1e30  # a logit that is forbidden: not −∞, whose product with the probability 0 is NaN


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    eot_id: int | None = None,
    precision: str = "fp32",
    on_token: Callable[[int, int], bool] | None = None,
) -> list[list[int]]:
    """Continues each prompt by up to `max_new_tokens` tokens; the end-of-text token ends a sequence and is left out.

    `temperature` 0 takes the likeliest token. `top_k` keeps the k likeliest tokens; `top_p` the fewest whose
    probabilities reach p, of what top_k left. `numbers` are those of the sequences, 0, 1, … if not given: where in the
    stream of `seed` each one's random numbers lie. `on_token(sequence, id)` is called for every token as it comes, and
    ends that sequence by returning True. `precision` "bf16" multiplies in bfloat16.

    Shapes   prompts: token ids, each at least one. Returns the new ids of each.
    Raises   UserError when a prompt is empty, an option is out of its range, or the context is too short.
    Source   top-k: Radford 2019 §2.1 of its code (`sample.py`); top-p: Holtzman 2020.
    """
    written = write(
        model, prompts, [1] * len(prompts), max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k,
        top_p=top_p, seed=seed, numbers=numbers, eot_id=eot_id, slots=max(1, len(prompts)), precision=precision,
        on_token=on_token,
    )  # fmt: skip
    answers = [ids[:n].tolist() for ids, n in zip(written.ids_NR, written.lengths_N, strict=True)]
    return [ids[:-1] if ids and ids[-1] == eot_id else ids for ids in answers]


@dataclass(frozen=True)
class Written:
    """What was written behind queries, sequence by sequence; behind a sequence's length, anything may stand.

    Shapes   ids_NR (N, R) int64 and lengths_N (N,), numpy; logprobs_NR, entropies_NR (N, R) float32 on the device.
    Units    nats, of the distribution that was drawn from.
    """

    ids_NR: Ints
    lengths_N: Ints
    logprobs_NR: Tensor
    entropies_NR: Tensor


@torch.inference_mode()
def write(
    model: GPT,
    queries: Sequence[Sequence[int]],
    samples: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    numbers: Sequence[int] | None,
    eot_id: int | None,
    slots: int,
    precision: str,
    min_new_tokens: int = 0,
    on_token: Callable[[int, int], bool] | None = None,
) -> Written:
    """Continues each query as often as `samples` says, `slots` sequences at a time: what `generate` and `rollouts` do.

    Sequences are numbered query after query. One ends with the end-of-text token, which has no probability before
    `min_new_tokens` tokens, at `max_new_tokens`, or where `on_token(sequence, id)` returns True.

    Raises   UserError when a query is empty, an option is out of its range, the context is too short, or the model
             gives NaN.
    """
    _check(model, queries, max_new_tokens, temperature, top_k, top_p, slots)
    device, N, R = model.wte.device, sum(samples), max_new_tokens
    written = Written(
        ids_NR=np.zeros((N, R), dtype=np.int64),
        lengths_N=np.zeros(N, dtype=np.int64),
        logprobs_NR=torch.zeros(N, R, device=device),
        entropies_NR=torch.zeros(N, R, device=device),
    )
    if N == 0 or R == 0:
        return written
    uniform_NR = torch.from_numpy(_uniforms(seed, range(N) if numbers is None else numbers, R)).to(device)
    lengths = [len(query) for query in queries]
    places = Places(
        lengths, samples, slots=min(slots, N), width=best_width(max(lengths), R, min(max(samples), slots)), R=R
    )
    cache = model.cache(places.groups, max(lengths), R - 1, width=places.width, precision=precision)
    reader = Reader(model, queries, cache)
    # Who writes again and again packs the weights around it: laying them out costs as much as some steps.
    packed = nullcontext() if model.packed_head is not None else model.packed(precision, min(slots, N))
    with packed, autocast(device, "fp32" if device.type == "cpu" else precision):
        wte_VD = model.embedding(None)
        while places.fill(reader):
            begun_B, fresh_B = places.going()
            parts = []
            if len(begun_B):
                cache.step(begun_B, places.index_P[begun_B] - 1)
                tokens_B1 = torch.from_numpy(places.last_P[begun_B, None]).to(device)
                parts.append(model.states(tokens_B1, cache)[0][:, 0])
            if len(fresh_B):
                parts.append(reader.behind_GD[torch.from_numpy(fresh_B // places.width).to(device)])
            logits_BV = model.logits(torch.cat(parts)[:, None], wte_VD)[:, 0].float()
            place_B = np.concatenate([begun_B, fresh_B])
            sequence_B, index_B = places.sequence_P[place_B], places.index_P[place_B]
            if eot_id is not None and (index_B < min_new_tokens).any():
                logits_BV[torch.from_numpy(index_B < min_new_tokens).to(device), eot_id] = _NEVER
            at = torch.from_numpy(sequence_B).to(device), torch.from_numpy(index_B).to(device)
            drawn = draw(logits_BV, uniform_NR[at], temperature=temperature, top_k=top_k, top_p=top_p)
            written.logprobs_NR[at], written.entropies_NR[at] = drawn.logprobs_B, drawn.entropies_B
            ids_B = drawn.ids_B.cpu().numpy()
            written.ids_NR[sequence_B, index_B] = ids_B
            written.lengths_N[sequence_B] = index_B + 1
            ended_B = (index_B + 1 == R) | (ids_B == (-1 if eot_id is None else eot_id))
            if on_token is not None:
                for row in np.argsort(sequence_B):
                    if ids_B[row] != eot_id and on_token(int(sequence_B[row]), int(ids_B[row])):
                        ended_B[row] = True
            places.wrote(place_B, ids_B, ended_B)
    if bool(written.logprobs_NR.isnan().any()):
        raise UserError(
            "The model's probabilities are not numbers (NaN): training has diverged, or its files are broken.",
            "Go on from an earlier checkpoint, with a lower --learning-rate.",
        )
    return written


# ---------------------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True)
class Drawn:
    """A token of each row, its log-probability and the entropy of what it was drawn from, in nats: (B,) each."""

    ids_B: Tensor
    logprobs_B: Tensor
    entropies_B: Tensor


def sample(
    logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """One token of each row, by inverting its cumulative distribution at a uniform number.

    Shapes   logits_BV (B, V) float32; uniform_B (B,) in [0, 1); returns (B,) int64.
    """
    return draw(logits_BV, uniform_B, temperature=temperature, top_k=top_k, top_p=top_p).ids_B


def draw(
    logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Drawn:
    """As `sample`, with log-probabilities and entropies of the distribution drawn from.

    That is softmax(logits / temperature), of the tokens that `top_k` and `top_p` leave; at temperature 0 the likeliest
    token alone, with probability 1.
    """
    if temperature == 0:
        nothing_B = torch.zeros_like(logits_BV[:, 0])
        return Drawn(logits_BV.argmax(dim=-1), nothing_B, nothing_B)
    V = logits_BV.shape[-1]
    z_BV = logits_BV if temperature == 1 else logits_BV / temperature
    p_BV = torch.softmax(z_BV, dim=-1)
    if (top_p is None or top_p == 1) and (top_k is None or top_k >= V):
        ids_B = _invert(p_BV, uniform_B)
        logprobs_B = _at(p_BV, ids_B).log()
        # −Σ p log p = log Σ exp z − Σ p z
        return Drawn(ids_B, logprobs_B, _at(z_BV, ids_B) - logprobs_B - torch.linalg.vecdot(p_BV, z_BV))
    p_BK, ids_BK = _likeliest(p_BV, top_k, top_p)
    p_BK = p_BK / p_BK.sum(dim=-1, keepdim=True)
    at_B = _invert(p_BK, uniform_B)
    return Drawn(_at(ids_BK, at_B), _at(p_BK, at_B).log(), torch.special.entr(p_BK).sum(dim=-1))


def _at(x_BK: Tensor, index_B: Tensor) -> Tensor:
    return x_BK.gather(1, index_B[:, None])[:, 0]


def _likeliest(p_BV: Tensor, top_k: int | None, top_p: float | None) -> tuple[Tensor, Tensor]:
    """Probabilities of the tokens that are kept, from the likeliest down, 0 behind them; and which tokens they are."""
    V = p_BV.shape[-1]
    if top_k is not None and top_k < V:
        p_BK, ids_BK = p_BV.topk(top_k, dim=-1)
        p_BK = p_BK / p_BK.sum(dim=-1, keepdim=True)
    else:
        K = min(_SOME, V)
        p_BK, ids_BK = p_BV.topk(K, dim=-1)
        while K < V and top_p is not None and not bool((p_BK.sum(dim=-1) >= top_p).all()):
            K = min(8 * K, V)
            p_BK, ids_BK = p_BV.topk(K, dim=-1)
    if top_p is None:
        return p_BK, ids_BK
    return p_BK.masked_fill(p_BK.cumsum(dim=-1) - p_BK >= top_p, 0.0), ids_BK


_SOME = 256  # tokens that as a rule hold all that top-p keeps: to find them is cheaper than to sort the vocabulary
_BLOCK = 128  # probabilities that are summed before the sums are


def _invert(p_BK: Tensor, uniform_B: Tensor) -> Tensor:
    """The first index whose cumulative probability exceeds u · total, and whose own is not 0.

    First the block of columns, from the blocks' sums, then the column in it.
    """
    K = p_BK.shape[1]
    whole = K // _BLOCK * _BLOCK
    sums_BS = p_BK[:, :whole].reshape(len(p_BK), whole // _BLOCK, _BLOCK).sum(dim=-1)
    if whole < K:
        sums_BS = torch.cat([sums_BS, p_BK[:, whole:].sum(dim=-1, keepdim=True)], dim=1)
    block_B, before_B, target_B = _first_above(sums_BS, uniform_B)
    columns_BC = block_B[:, None] * _BLOCK + torch.arange(_BLOCK, device=p_BK.device)
    p_BC = p_BK.gather(1, columns_BC.clamp(max=K - 1)).masked_fill(columns_BC >= K, 0.0)
    part_B = (target_B - before_B) / sums_BS.gather(1, block_B[:, None])[:, 0].double()
    return (block_B * _BLOCK + _first_above(p_BC, part_B)[0]).clamp(max=K - 1)


def _first_above(p_BK: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first index whose cumulative sum exceeds u · total; the sum before it, and u · total."""
    cumulative_BK = p_BK.double().cumsum(dim=-1)
    total_B = cumulative_BK[:, -1]
    target_B = torch.minimum(uniform_B * total_B, total_B * (1 - 2**-52))  # u · total may round up to the total
    index_B = torch.searchsorted(cumulative_BK, target_B[:, None], right=True)[:, 0]
    index_B = index_B.clamp(max=p_BK.shape[1] - 1)  # beyond it is what NaN gives
    before_B = cumulative_BK.gather(1, (index_B - 1).clamp(min=0)[:, None])[:, 0].masked_fill(index_B == 0, 0.0)
    return index_B, before_B, target_B


def _uniforms(seed: int, rows: Sequence[int], columns: int) -> npt.NDArray[np.float64]:
    streams = [np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), row])) for row in rows]
    return np.stack([stream.random(columns) for stream in streams])


def _check(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    slots: int,
) -> None:
    if any(len(prompt) == 0 for prompt in prompts):
        raise UserError("A prompt has no tokens.", "Start it with the end-of-text token, as training does.")
    n_ctx = model.config.n_ctx
    longest = max(map(len, prompts), default=0)
    if longest + max_new_tokens > n_ctx:
        raise UserError(
            f"A prompt of {longest} tokens and max_new_tokens={max_new_tokens} need n_ctx ≥ "
            f"{longest + max_new_tokens}, but this model has n_ctx={n_ctx}.",
            f"Lower --max-new-tokens to {n_ctx - longest}." if longest < n_ctx else "Shorten the prompt.",
        )
    if temperature < 0:
        raise UserError(f"temperature is {temperature}, but it must be 0 or more.", "Use 0 for the likeliest token.")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}, but it must be 1 or more.", "Leave it out to keep every token.")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}, but it must be in (0, 1].", "Leave it out to keep every token.")
    if slots < 1:
        raise UserError(f"slots is {slots}, but at least 1 is needed.", "Use 64, or fewer where memory is short.")
