"""Sampling from a GPT: batched, with a cache of keys and values, the same whatever else is in the batch.

Flow     prompts of any lengths → padded on the left → one forward pass → a token each → one forward pass of one
         position a token, until every sequence has ended.
The random number behind a sequence's n-th token depends on (seed, its number, n) alone. So a sequence does not
change with its batch mates, and any of them can be drawn again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rein.errors import UserError
from rein.models.gpt import GPT
from rein.models.machine import autocast


@torch.inference_mode()
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
    _check(model, prompts, max_new_tokens, temperature, top_k, top_p)
    if not prompts or max_new_tokens == 0:
        return [[] for _ in prompts]
    device, B, longest = model.wte.device, len(prompts), max(map(len, prompts))
    tokens_BT = torch.zeros(B, longest, dtype=torch.int64)
    pad_B = torch.tensor([longest - len(prompt) for prompt in prompts])
    for row, prompt in enumerate(prompts):
        tokens_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
    cache = model.cache(B, longest + max_new_tokens - 1, pad_B=pad_B.to(device))
    uniform_BT = torch.from_numpy(_uniforms(seed, range(B) if numbers is None else numbers, max_new_tokens)).to(device)
    answers: list[list[int]] = [[] for _ in prompts]
    running = [True] * B
    next_BT = tokens_BT.to(device)
    with model.packed(precision, B), autocast(device, "fp32" if device.type == "cpu" else precision):
        for position in range(max_new_tokens):
            logits_BV = model(next_BT, cache, last_only=True)[:, -1].float()
            next_B = sample(logits_BV, uniform_BT[:, position], temperature=temperature, top_k=top_k, top_p=top_p)
            for row, token in enumerate(next_B.tolist()):
                if running[row] and token == eot_id:
                    running[row] = False
                elif running[row]:
                    answers[row].append(token)
                    if on_token is not None and on_token(row, token):
                        running[row] = False
            if not any(running):
                break
            next_BT = next_B[:, None]
    return answers


def sample(
    logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """One token of each row, by inverting its cumulative distribution at a uniform number.

    Shapes   logits_BV (B, V) float32; uniform_B (B,) in [0, 1); returns (B,) int64.
    """
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    V = logits_BV.shape[-1]
    if top_p is not None or (top_k is not None and top_k < V):
        kept_BK, ids_BK = torch.topk(logits_BV, min(top_k or V, V), dim=-1)  # from the likeliest down
        p_BK = torch.softmax(kept_BK / temperature, dim=-1)
        if top_p is not None:
            before_BK = p_BK.cumsum(dim=-1) - p_BK
            p_BK = p_BK.masked_fill(before_BK >= top_p, 0.0)
        return ids_BK.gather(1, _invert(p_BK, uniform_B)[:, None])[:, 0]
    return _invert(torch.softmax(logits_BV / temperature, dim=-1), uniform_B)


def _invert(p_BK: Tensor, uniform_B: Tensor) -> Tensor:
    """The first index whose cumulative probability exceeds u · total, and whose own is not 0."""
    cumulative_BK = p_BK.double().cumsum(dim=-1)
    total_B = cumulative_BK[:, -1]
    target_B = torch.minimum(uniform_B * total_B, total_B * (1 - 2**-52))  # u · total may round up to the total
    return torch.searchsorted(cumulative_BK, target_B[:, None], right=True)[:, 0]


def _uniforms(seed: int, rows: Sequence[int], columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    streams = [np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), row])) for row in rows]
    return np.stack([stream.random(columns) for stream in streams])


def _check(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
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
