"""Episodes of PPO: a prompt, what the policy answers, what the answer scores.

Flow     prompts, their numbers → `respond` (responses.py) → Episode → text → score

An episode depends on (seed, its number), its prompt and the policy alone: not on which others are written beside it, so
several processes can share a batch in any way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rein.models.rows import Completion, split
from rein.train.ppo_config import PPOConfig, known
from rein.train.ppo_parts import Parts
from rein.train.queries import Prompt
from rein.train.responses import respond


class Episode(NamedTuple):
    """A response as it is trained on and as it is scored, and what the sampler said of its tokens: (T,), on the CPU."""

    trained: Completion
    scored: Completion
    ended: bool
    logprobs_T: Tensor
    entropies_T: Tensor


def write_episodes(
    config: PPOConfig, parts: Parts, prompts: Sequence[Prompt], first: int, which: Sequence[int]
) -> list[Episode]:
    """Writes those of a batch's episodes that `which` says; the batch's first one has the number `first`."""
    asked = [prompts[n] for n in which]
    if not asked:
        return []
    written = respond(
        parts.actors.policy, asked, parts.ending, max_new_tokens=parts.text.response_tokens,
        temperature=known(config.temperature), seed=config.seed, numbers=[first + n for n in which],
        slots=config.slots, precision=parts.precision,
    )  # fmt: skip
    lengths = [len(each.response) for each in written.trained]
    of_tokens = (split(x_M, lengths) for x_M in (written.logprobs_M, written.entropies_M))
    return [Episode(*one) for one in zip(written.trained, written.scored, written.ended, *of_tokens, strict=True)]


def score_episodes(
    parts: Parts, prompts: Sequence[Prompt], episodes: Sequence[Episode], which: Sequence[int]
) -> list[float]:
    """The scores of those that `which` says.

    Raises   UserError for one that is no finite number.
    """
    scored = [episodes[n].scored for n in which]
    contexts = [prompts[n].query.fields for n in which]
    return parts.reward.scores(scored, contexts, parts.text.decoded(scored)).tolist() if scored else []
