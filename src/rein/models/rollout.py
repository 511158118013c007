"""Rollouts: what a policy answers to queries, with the probabilities that its sampler had.

Flow     queries → `write` (generate.py): each read once, its samples beside each other, the next in a place that ends
         → Completions, query after query, with log-probabilities and entropies of every token of every response

A sample depends on (seed, its number) and its query alone. Updates take their old log-probabilities from the trainer's
own pass (rows.logprobs); the sampler's say how far the two are apart: in float32 by rounding.

Shapes   N completions, M tokens of all responses, as in rows.py.
Source   the sampler's temperature in every probability: Huang 2024, detail 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rein.models.generate import write
from rein.models.gpt import GPT
from rein.models.rows import Completion


@dataclass(frozen=True)
class Rollouts:
    """Completions, and one number for each token of each response, completion after completion.

    Shapes   logprobs_M, entropies_M (M,) float32, on the model's device.
    Units    nats, at the sampling temperature, of the tokens that top-k and top-p leave.
    """

    completions: list[Completion]
    logprobs_M: Tensor
    entropies_M: Tensor


def rollouts(
    model: GPT,
    queries: Sequence[Sequence[int]],
    *,
    samples: int | Sequence[int] = 1,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    eot_id: int | None,
    min_new_tokens: int = 0,
    slots: int = 64,
    precision: str = "fp32",
) -> Rollouts:
    """Responses to each query: `samples` of each, or as many as the list says of each one.

    A response ends with the end-of-text token, which is part of it, or is cut off at `max_new_tokens`. End-of-text has
    no probability before `min_new_tokens` tokens; never, where that is `max_new_tokens`. `numbers` say where in the
    stream of `seed` each completion's random numbers lie: 0, 1, … if not given. `slots` responses are written at a
    time, and change nothing but speed and memory. The other options are those of `generate`.

    Shapes   queries: token ids, each at least one; numbers: one for each completion, query after query.
    Raises   UserError when a query is empty, an option is out of its range, or the context is too short.
    """
    counts = [samples] * len(queries) if isinstance(samples, int) else list(samples)
    assert len(counts) == len(queries), f"{len(counts)} numbers of samples for {len(queries)} queries"
    assert numbers is None or len(numbers) == sum(counts), f"{len(numbers or ())} numbers for {sum(counts)} completions"
    written = write(
        model, queries, counts, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
        seed=seed, numbers=numbers, eot_id=eot_id, slots=slots, precision=precision, min_new_tokens=min_new_tokens,
    )  # fmt: skip
    asked = [tuple(query) for query, n in zip(queries, counts, strict=True) for _ in range(n)]
    answers = zip(asked, written.ids_NR.tolist(), written.lengths_N.tolist(), strict=True)
    lengths_N = torch.from_numpy(written.lengths_N).to(written.logprobs_NR.device)
    there_NR = torch.arange(max_new_tokens, device=lengths_N.device) < lengths_N[:, None]
    return Rollouts(
        [Completion(query, tuple(ids[:length])) for query, ids, length in answers],
        logprobs_M=written.logprobs_NR[there_NR],
        entropies_M=written.entropies_NR[there_NR],
    )
