"""What a policy writes to prompts, cut by the rule: for training, for evaluation, the same way.

Flow     prompts → rollouts (models/rollout.py) → `Ending.cut` → Responses: as trained on, as scored, whether they ended
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rein.models.gpt import GPT
from rein.models.rollout import rollouts
from rein.models.rows import Completion
from rein.train.ppo_rules import Ending
from rein.train.queries import Prompt


@dataclass(frozen=True)
class Responses:
    """Responses to prompts, in their order.

    Shapes   logprobs_M, entropies_M: what the sampler said of the tokens that are trained on, (M,), on the CPU.
    """

    trained: list[Completion]
    scored: list[Completion]
    ended: list[bool]
    logprobs_M: Tensor
    entropies_M: Tensor


def respond(
    model: GPT,
    prompts: Sequence[Prompt],
    ending: Ending,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    numbers: Sequence[int],
    slots: int,
    precision: str,
    samples: int = 1,
) -> Responses:
    """Responses to each prompt; that of number n depends on (seed, n), its prompt and the model alone."""
    drawn = rollouts(
        model, [prompt.ids for prompt in prompts], samples=samples, max_new_tokens=max_new_tokens,
        temperature=temperature, seed=seed, numbers=numbers, eot_id=None if ending.fixed else ending.eot_id,
        slots=slots, precision=precision,
    )  # fmt: skip
    cuts = [ending.cut(each.response) for each in drawn.completions]
    kept, start = [], 0
    for each, cut in zip(drawn.completions, cuts, strict=True):
        kept.append(torch.arange(start, start + len(cut.trained)))
        start += len(each.response)
    kept_M = torch.cat(kept)
    return Responses(
        [Completion(each.query, cut.trained) for each, cut in zip(drawn.completions, cuts, strict=True)],
        [Completion(each.query, cut.scored) for each, cut in zip(drawn.completions, cuts, strict=True)],
        [cut.ended for cut in cuts],
        drawn.logprobs_M.cpu()[kept_M],
        drawn.entropies_M.cpu()[kept_M],
    )
