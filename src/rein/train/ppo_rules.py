"""The rules of PPO on text, as pure functions: when a response is over, what its tokens earn, what is learned when.

Flow     a sampled response → `Ending.cut` → what is trained on, what is scored, whether it ended
         rewards, values → `targets` → advantages, returns
         seed, batch, epoch → `minibatches`;  batches done → `rate_share`;  a measured KL → `adapted_kl_coef`

Everything is a function of its arguments; where there is chance, of a seed and of numbers that say which batch it is.
Source   Ziegler 2019 with openai/lm-human-preferences; Stiennon 2020; Ouyang 2022; Huang 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rein.bpe.tokenizer import Tokenizer
from rein.errors import UserError
from rein.returns import gae, whiten

Ids = tuple[int, ...]


class Cut(NamedTuple):
    """A sampled response after the rule."""

    trained: Ids  # its tokens are the actions
    scored: Ids  # what the score is of
    ended: bool


@dataclass(frozen=True)
class Ending:
    """When a response is over.

    fixed             it has all its tokens whatever they are, and is cut for its score alone; else it ends at the cut
    truncate_id       a token that ends it, from place `truncate_after_tokens` on; the end of text does in any case

    Example  >>> ending = Ending(eot_id=0, truncate_id=13, truncate_after_tokens=2)
             >>> ending.cut((5, 13, 6, 13, 7)), ending.cut((5, 6, 0))
             (Cut(trained=(5, 13, 6, 13), scored=(5, 13, 6, 13), ended=True), Cut(trained=(5, 6, 0), scored=(5, 6, 0), \
ended=True))
             >>> Ending(eot_id=0, truncate_id=13, truncate_after_tokens=2, fixed=True).cut((5, 13, 6, 13, 7))
             Cut(trained=(5, 13, 6, 13, 7), scored=(5, 13, 6, 13), ended=True)
    Source   Ziegler 2019, section 3.1.1, and openai/lm-human-preferences, lm_tasks.py (fixed); Stiennon 2020, App. B.2.
    """

    eot_id: int | None
    truncate_id: int | None = None
    truncate_after_tokens: int = 0
    fixed: bool = False

    def cut(self, response: Sequence[int]) -> Cut:
        """What of a response is trained on and scored."""
        ids = tuple(response)
        for place, token in enumerate(ids):
            over = token == self.truncate_id and place >= self.truncate_after_tokens
            if over or token == self.eot_id:
                scored = ids[: place + 1]
                return Cut(ids if self.fixed else scored, scored, True)
        return Cut(ids, ids, False)


def truncate_id(text: str, tokenizer: Tokenizer) -> int | None:
    """The token that --truncate-at names; None of an empty text.

    Raises   UserError when it is more than one token.
    """
    ids = tokenizer.encode(text).tolist()
    if len(ids) > 1:
        raise UserError(
            f"--truncate-at {text!r} is {len(ids)} tokens of this tokenizer, but it must be one.",
            "Give a single character, such as '.'.",
        )
    return ids[0] if ids else None


def targets(
    rewards_M: Tensor,
    values_M: Tensor,
    lengths_N: Tensor,
    *,
    gamma: float,
    lam: float,
    whiten_rewards: bool,
    whiten_advantages: bool,
) -> tuple[Tensor, Tensor]:
    """Advantages for the policy and returns for the value network: (rewards whitened) → gae → (advantages whitened).

    Shapes   rewards_M, values_M (M,); lengths_N (N,); returns (advantages_M, returns_M).
    Example  >>> rewards_M, values_M = torch.tensor([-0.02, 0.01, 0.99]), torch.tensor([0.5, 0.6, 0.8])
             >>> advantages_M, _ = targets(rewards_M, values_M, torch.tensor([3]), gamma=1.0, lam=0.95,
             ...                           whiten_rewards=False, whiten_advantages=False)
             >>> [round(a, 4) for a in advantages_M.tolist()]
             [0.451, 0.3905, 0.19]
    Source   openai/lm-human-preferences, train_policy.py, loss.
    """
    if whiten_rewards:
        rewards_M = whiten(rewards_M, shift_mean=False)
    advantages_M, returns_M = gae(rewards_M, values_M, lengths_N, gamma=gamma, lam=lam)
    return (whiten(advantages_M) if whiten_advantages else advantages_M), returns_M


def minibatches(seed: int, batch: int, epoch: int, *, episodes: int, count: int) -> list[list[int]]:
    """The episodes of each update in one pass over a batch: shuffled anew for every pass.

    Example  >>> minibatches(0, 3, 1, episodes=4, count=2) == minibatches(0, 3, 1, episodes=4, count=2)
             True
             >>> sorted(sum(minibatches(0, 3, 1, episodes=4, count=2), []))
             [0, 1, 2, 3]
    """
    order = np.random.default_rng([seed, batch, epoch]).permutation(episodes).tolist()
    size = episodes // count
    return [order[first : first + size] for first in range(0, episodes, size)]


def rate_share(done: int, total: int, *, schedule: Literal["linear", "warmup"], warmup_batches: int) -> float:
    """The share of the peak learning rate in the batch after `done` of `total`.

        linear     1 − done / total
        warmup     0.1 + 0.9 · min(1, done / warmup_batches)

    Example  >>> rate_share(0, 4, schedule="linear", warmup_batches=0), rate_share(3, 4, schedule="linear",
             ...                                                                   warmup_batches=0)
             (1.0, 0.25)
             >>> [rate_share(n, 500, schedule="warmup", warmup_batches=10) for n in (0, 5, 10, 499)]
             [0.1, 0.55, 1.0, 1.0]
    Source   openai/lm-human-preferences, train_policy.py; Ouyang 2022, App. C.4.
    """
    if schedule == "linear":
        return 1 - done / total
    return 0.1 + 0.9 * min(1.0, done / warmup_batches) if warmup_batches else 1.0


def adapted_kl_coef(kl_coef: float, kl_nats: float, *, target_nats: float, horizon_episodes: int, n: int) -> float:
    """The coefficient after a batch of `n` episodes whose KL was `kl_nats`.

        kl_coef · (1 + clip(KL / target − 1, −0.2, 0.2) · n / horizon)

    Example  >>> adapted_kl_coef(0.15, 12.0, target_nats=6.0, horizon_episodes=10_000, n=512)
             0.151536
    Source   Ziegler 2019, section 2.2; openai/lm-human-preferences, train_policy.py, AdaptiveKLController.
    """
    error = min(max(kl_nats / target_nats - 1, -0.2), 0.2)
    return kl_coef * (1 + error * n / horizon_episodes)


def places_of(lengths: Sequence[int], which: Sequence[int]) -> Tensor:
    """Where in (M,) the tokens of these completions are, in the order of `which`.

    Example  >>> places_of([2, 1, 3], [2, 0]).tolist()
             [3, 4, 5, 0, 1]
    """
    starts = np.cumsum([0, *lengths])
    return torch.from_numpy(np.concatenate([np.arange(starts[n], starts[n] + lengths[n]) for n in which]))
