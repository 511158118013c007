"""Rewards of tokens, and what follows from them: returns and advantages. Pure functions of flat tensors.

Flow     scores of responses, log-probabilities under policy and reference → `token_rewards` → `gae` → `whiten`
         scores of several responses to each query → `group_advantages`, where there is no value network

Everything said of tokens is flat: the tokens of all responses one after the other, (M,), with `lengths_N` of each, so
that there is no padding to be counted by mistake. The last token of a response is its last action: the state behind it
is worth 0.

Shapes   N responses, M tokens of all of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def last_places(lengths_N: Tensor) -> Tensor:
    """Where in (M,) each response's last token is.

    Example  >>> last_places(torch.tensor([2, 3])).tolist()
             [1, 4]
    """
    return lengths_N.cumsum(0) - 1


def token_rewards(
    scores_N: Tensor, logprobs_M: Tensor, ref_logprobs_M: Tensor, lengths_N: Tensor, *, kl_coef: float
) -> Tensor:
    """The reward of each token: the penalty for leaving the reference, and at the last token the score.

        rewards_t = −kl_coef · (log π(t) − log π_ref(t)) + [t is last] · score

    Their sum is R(x, y) = score − kl_coef · log (π(y|x) / π_ref(y|x)).

    Shapes   scores_N, lengths_N (N,); the others and the result (M,).
    Example  >>> token_rewards(torch.tensor([1.0]), torch.tensor([0.4, -0.2, 0.2]), torch.zeros(3),
             ...               torch.tensor([3]), kl_coef=0.05)
             tensor([-0.0200,  0.0100,  0.9900])
    Source   Stiennon 2020, section 3.4; by token: Ziegler 2019, section 2.2.
    """
    assert (lengths_N > 0).all(), "a response without a token has no place for its score"
    return (-kl_coef * (logprobs_M - ref_logprobs_M)).index_add(0, last_places(lengths_N), scores_N.to(logprobs_M))


def gae(
    rewards_M: Tensor, values_M: Tensor, lengths_N: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates, and the returns that a value network learns.

        δ_t = reward_t + gamma · V_{t+1} − V_t           V behind the last token is 0
        A_t = δ_t + gamma · lam · A_{t+1},   return_t = A_t + V_t

    Shapes   rewards_M, values_M (M,); returns (advantages_M, returns_M).
    Example  >>> rewards_M = torch.tensor([-0.02, 0.01, 0.99])
             >>> advantages_M, _ = gae(rewards_M, torch.tensor([0.5, 0.6, 0.8]), torch.tensor([3]))
             >>> [round(a, 6) for a in advantages_M.tolist()]
             [0.450975, 0.3905, 0.19]
    Source   Schulman 2016, equations 11 to 16.
    """
    ends_N = lengths_N.cumsum(0)
    places_M = torch.arange(len(rewards_M), device=rewards_M.device)
    left_M = ends_N.repeat_interleave(lengths_N) - places_M  # tokens from here to the end, this one included
    next_values_M = torch.cat([values_M[1:], values_M.new_zeros(1)]).masked_fill(left_M == 1, 0.0)
    deltas_M = rewards_M + gamma * next_values_M - values_M
    advantages_M = deltas_M.clone()
    for left in range(2, int(lengths_N.max()) + 1):  # all tokens that are so far from their end, at a time
        here = (left_M == left).nonzero()[:, 0]
        advantages_M[here] = deltas_M[here] + gamma * lam * advantages_M[here + 1]
    return advantages_M, advantages_M + values_M


def whiten(values_M: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Brought to a standard deviation of 1, and unless the mean is to stay, to mean 0.

        (x − mean) / √(variance + 1e-8)      + mean, where it stays; the variance is that of the whole: 1 / M

    Example  >>> whiten(torch.tensor([1.0, 3.0])).tolist(), whiten(torch.tensor([1.0, 3.0]), shift_mean=False).tolist()
             ([-1.0, 1.0], [1.0, 3.0])
    Source   openai/lm-human-preferences, core.py, whiten.
    """
    mean = values_M.mean()
    whitened_M = (values_M - mean) * torch.rsqrt(values_M.var(correction=0) + 1e-8)
    return whitened_M if shift_mean else whitened_M + mean


Estimator = Literal["grpo", "rloo", "mean"]


def group_advantages(scores_N: Tensor, samples: int, *, estimator: Estimator) -> Tensor:
    """How much better each response is than the others to the same query: an advantage without a value network.

        rloo    score − mean of the others' scores             without bias, whatever the group's size
        grpo    (score − mean) / (standard deviation + 1e-4)   of the group; the deviation with n − 1
        mean    score − mean                                   of the group (Dr. GRPO): rloo · (samples − 1) / samples

    A group of equal scores has advantages of exactly 0. The division by the deviation lifts the groups in which scores
    hardly differ, those that are too easy or too hard.

    Shapes   scores_N (N,), those of a query one after the other, `samples` each; returns (N,).
    Example  >>> group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), 4, estimator="rloo")
             tensor([ 1.0000, -0.3333, -0.3333, -0.3333])
    Source   rloo: Ahmadian 2024, section 3.2; grpo: Shao 2024 (DeepSeekMath), section 4.1.2; mean: Liu 2025 (Dr. GRPO).
    """
    assert samples > 1, "one response has no others to be compared with"
    scores_GK = scores_N.view(-1, samples)
    scores_GK = scores_GK - scores_GK[:, :1]  # so that equal scores are 0, and no rounding makes a difference of them
    advantages_GK = scores_GK - scores_GK.mean(dim=1, keepdim=True)
    if estimator == "grpo":
        advantages_GK = advantages_GK / (scores_GK.std(dim=1, keepdim=True) + 1e-4)
    elif estimator == "rloo":
        advantages_GK = advantages_GK * (samples / (samples - 1))
    return advantages_GK.flatten()
