"""Losses of models that learn from what people say: a reward model's, a policy's, Ĥ's. Pure functions of tensors.

Flow     scores, logits or log-probabilities of a model, and what people said → a loss for each row, shape (B,)

A row is an item: a prompt with its candidates, a demonstration, a credited step. The mean over rows is the caller's:
`ranking(scores_BK, ranks_BK).mean()`. Where rows have different numbers of candidates, `mask_BK` is True for those that
are there; what stands in the others changes nothing, whatever it is.

Losses of tokens are flat, as in returns.py: one number for each token of each response, (M,), and no padding.

Shapes   B rows, K candidates, A axes, F flags, T tokens, N credited steps, M tokens of all responses.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Ties = Literal["drop", "half", "rao_kupper", "davidson"]


def pairwise(better_B: Tensor, worse_B: Tensor, *, p: Tensor | None = None, margin: Tensor | None = None) -> Tensor:
    """The negative log-likelihood of a comparison, by Bradley and Terry's model.

        −log σ(r_better − r_worse)
        −p · log σ(r_better − r_worse − margin) − (1 − p) · log σ(r_worse − r_better − margin)

    `p` is how surely the better one is better (without it, 1; a tie is ½); `margin` is by how much its score should
    be higher. An edit is a comparison whose better one is the corrected text.

    Shapes   all (B,), or of any one shape; returns that.
    Example  >>> pairwise(torch.tensor([1.5]), torch.tensor([0.5]))
             tensor([0.3133])
             >>> pairwise(torch.tensor([1.5]), torch.tensor([0.5]), p=torch.tensor([0.5]))
             tensor([0.8133])
             >>> pairwise(torch.tensor([1.5]), torch.tensor([0.5]), margin=torch.tensor([1.0]))
             tensor([0.6931])
    Source   Stiennon 2020, section 3.4; margin: Touvron 2023 (Llama 2), section 3.2.2.
    """
    gap = better_B - worse_B
    room = 0.0 if margin is None else margin
    if p is None:
        return -F.logsigmoid(gap - room)
    return -(p * F.logsigmoid(gap - room) + (1 - p) * F.logsigmoid(-gap - room))


def ranking(
    scores_BK: Tensor,
    ranks_BK: Tensor,
    *,
    mask_BK: Tensor | None = None,
    ties: Ties = "drop",
    theta: Tensor | float | None = None,
    nu: Tensor | float | None = None,
) -> Tensor:
    """The mean negative log-likelihood of the pairs that a ranking implies; all pairs of a prompt are one row.

        drop          mean over the pairs of different rank of −log σ(r_i − r_j), i the better one
        half          mean over all pairs; of a tie, −½ log σ(r_i − r_j) − ½ log σ(r_j − r_i)
        rao_kupper    P(i over j) = π_i / (π_i + θ π_j), P(tie) = (θ² − 1) π_i π_j / ((π_i + θ π_j)(θ π_i + π_j))
        davidson      P(i over j) = π_i / (π_i + π_j + ν √(π_i π_j)), P(tie) = ν √(π_i π_j) / (the same)

    with π = e^r. θ > 1 and ν > 0 say how often two of equal score tie: (θ − 1) / (θ + 1), and ν / (2 + ν) of the time.
    They may be tensors that are learned. A row without a pair that counts has loss 0.

    Shapes   scores_BK, ranks_BK, mask_BK (B, K), rank 1 the best; returns (B,).
    Example  >>> scores_BK, ranks_BK = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[1, 2, 2]])
             >>> ranking(scores_BK, ranks_BK)
             tensor([0.2201])
             >>> ranking(scores_BK, ranks_BK, ties="half")
             tensor([0.4178])
             >>> ranking(torch.zeros(1, 2), torch.tensor([[1, 1]]), ties="davidson", nu=2.0)  # −log ½
             tensor([0.6931])
    Raises   ValueError where `theta` or `nu` is missing, not wanted, or out of its range.
    Source   Ouyang 2022, section 3.5, equation 1; Rao & Kupper 1967; Davidson 1970.
    Differs  Equation 1 divides by K(K − 1)/2; here by the pairs that count, so that rows with ties weigh as much.
    """
    _check_ties(ties, theta, nu)
    i_P, j_P = torch.triu_indices(scores_BK.shape[1], scores_BK.shape[1], 1, device=scores_BK.device)
    there_BP = torch.ones_like(ranks_BK[:, i_P], dtype=torch.bool)
    if mask_BK is not None:
        there_BP = mask_BK[:, i_P] & mask_BK[:, j_P]
    # Zeroed before any logarithm: what stands in a missing candidate must not reach a gradient either.
    gap_BP = torch.where(there_BP, scores_BK[:, i_P] - scores_BK[:, j_P], 0.0)
    sign_BP = torch.sign(ranks_BK[:, j_P] - ranks_BK[:, i_P]).to(gap_BP.dtype)  # 1 where i is better, 0 for a tie
    tied_BP = sign_BP == 0
    win_BP, tie_BP = _pair_terms(gap_BP * sign_BP, gap_BP, ties, theta, nu)
    counts_BP = there_BP & ~tied_BP if ties == "drop" else there_BP
    return _mean(torch.where(tied_BP, tie_BP, win_BP), counts_BP)


def _pair_terms(
    lead_BP: Tensor, gap_BP: Tensor, ties: Ties, theta: Tensor | float | None, nu: Tensor | float | None
) -> tuple[Tensor, Tensor]:
    """−log P(the better one wins), whose lead is given, and −log P(tie)."""
    if ties == "rao_kupper":
        theta_ = torch.as_tensor(theta, dtype=gap_BP.dtype, device=gap_BP.device)
        shift = theta_.log()
        tie = -torch.log(theta_**2 - 1) - F.logsigmoid(gap_BP - shift) - F.logsigmoid(-gap_BP - shift)
        return -F.logsigmoid(lead_BP - shift), tie
    if ties == "davidson":
        log_nu = torch.as_tensor(nu, dtype=gap_BP.dtype, device=gap_BP.device).log().expand_as(gap_BP)
        half = gap_BP / 2
        total = torch.logsumexp(torch.stack([half, -half, log_nu]), dim=0)  # both scores less their mean
        return total - lead_BP / 2, total - log_nu
    return -F.logsigmoid(lead_BP), -(F.logsigmoid(gap_BP) + F.logsigmoid(-gap_BP)) / 2


def _check_ties(ties: Ties, theta: Tensor | float | None, nu: Tensor | float | None) -> None:
    for name, value, model, least in (("theta", theta, "rao_kupper", 1), ("nu", nu, "davidson", 0)):
        if (value is None) == (ties == model):
            raise ValueError(f"ties={ties!r} {'needs' if ties == model else 'takes no'} {name}")
        if isinstance(value, int | float) and not value > least:
            raise ValueError(f"{name} is {value:g}, but it must be above {least}")


def best_of(scores_BK: Tensor, best_B: Tensor, *, mask_BK: Tensor | None = None) -> Tensor:
    """The cross-entropy of which candidate was chosen as the best.

        −log (e^r_best / Σ_k e^r_k)

    Shapes   scores_BK, mask_BK (B, K); best_B (B,), numbers of candidates that are there; returns (B,).
    Example  >>> best_of(torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.tensor([2]))
             tensor([0.7437])
    Source   Ziegler 2019, section 2, equation 1.
    """
    if mask_BK is not None:
        scores_BK = scores_BK.masked_fill(~mask_BK, float("-inf"))
    return F.cross_entropy(scores_BK, best_B, reduction="none")


def rating(scores_BK: Tensor, ratings_BK: Tensor, *, mask_BK: Tensor | None = None) -> Tensor:
    """The squared error of ratings.

        mean over k of (r_k − rating_k)²

    Shapes   all (B, K); returns (B,).
    Example  >>> rating(torch.tensor([[5.5, 4.0]]), torch.tensor([[6.0, 3.0]]))
             tensor([0.6250])
    Source   openai/lm-human-preferences, label_types.py: scalar_rating.
    """
    there_BK = torch.ones_like(scores_BK, dtype=torch.bool) if mask_BK is None else mask_BK
    gap_BK = torch.where(there_BK, scores_BK - ratings_BK, 0.0)
    return _mean(gap_BK**2, there_BK)


def likert(scores_BKA: Tensor, marks_BKA: Tensor, *, mask_BK: Tensor | None = None) -> Tensor:
    """The squared error of marks on several axes: each axis weighs the same, however many marks it has.

        mean over axes of (mean over k of (r_ka − mark_ka)²)

    Shapes   scores_BKA, marks_BKA (B, K, A), a mark that is missing NaN; mask_BK (B, K); returns (B,).
    Example  >>> likert(torch.tensor([[[4.0, 6.5]]]), torch.tensor([[[5.0, 7.0]]]))
             tensor([0.6250])
    Source   the axes are Stiennon 2020's, Appendix C; the loss is `rating`, on each.
    """
    there_BKA = ~marks_BKA.isnan()
    if mask_BK is not None:
        there_BKA = there_BKA & mask_BK[..., None]
    gap_BKA = torch.where(there_BKA, scores_BKA - marks_BKA, 0.0)
    each_BA = _mean((gap_BKA**2).transpose(1, 2), there_BKA.transpose(1, 2))
    return _mean(each_BA, there_BKA.any(dim=1))


def flags(logits_BKF: Tensor, applies_BKF: Tensor, *, mask_BK: Tensor | None = None) -> Tensor:
    """The binary cross-entropy of yes-or-no remarks about each candidate.

        mean over k and f of −y_kf · log σ(z_kf) − (1 − y_kf) · log (1 − σ(z_kf))

    Shapes   logits_BKF, applies_BKF (B, K, F), 1 where the flag applies; mask_BK (B, K); returns (B,).
    Example  >>> flags(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.0, 1.0]]]))
             tensor([0.5032])
    Source   the flags are Ouyang 2022's, Table 3.
    """
    there_BKF = torch.ones_like(logits_BKF, dtype=torch.bool)
    if mask_BK is not None:
        there_BKF = there_BKF & mask_BK[..., None]
    logits_BKF = torch.where(there_BKF, logits_BKF, 0.0)
    applies_BKF = torch.where(there_BKF, applies_BKF, 0.0)
    loss_BKF = F.binary_cross_entropy_with_logits(logits_BKF, applies_BKF, reduction="none")
    return _mean(loss_BKF.flatten(1), there_BKF.flatten(1))


def demonstration(logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The negative log-likelihood of a demonstration: of the response's tokens alone, not of the prompt's.

        −(1 / response tokens) · Σ_t log π(token_t | tokens before)

    Shapes   logprobs_BT (B, T), of the tokens that stand there; mask_BT (B, T), True for the response; returns (B,).
    Example  >>> demonstration(torch.tensor([[-9.0, -0.5, -1.5]]), torch.tensor([[False, True, True]]))
             tensor([1.])
    Source   Ouyang 2022, section 3.5 (supervised fine-tuning).
    """
    return _mean(-logprobs_BT, mask_BT)


def clipped_policy(logprobs_M: Tensor, old_logprobs_M: Tensor, advantages_M: Tensor, *, cliprange: float) -> Tensor:
    """PPO's loss of a policy, for each token: how far a likelier good action may carry is limited.

        ratio = π(token) / π_old(token)
        max(−A · ratio, −A · clip(ratio, 1 − cliprange, 1 + cliprange))

    Shapes   all (M,).
    Example  >>> old = torch.zeros(3)
             >>> clipped_policy(torch.tensor([0.0, 0.5, 0.5]), old, torch.tensor([1.0, 1.0, -1.0]), cliprange=0.2)
             tensor([-1.0000, -1.2000,  1.6487])
    Source   Schulman 2017, equation 7.
    """
    ratio_M = torch.exp(logprobs_M - old_logprobs_M)
    return torch.maximum(-advantages_M * ratio_M, -advantages_M * ratio_M.clamp(1 - cliprange, 1 + cliprange))


def clipped_value(values_M: Tensor, old_values_M: Tensor, returns_M: Tensor, *, cliprange: float) -> Tensor:
    """PPO's loss of a value network, for each token.

        ½ max((V − return)², (clip(V, V_old − cliprange, V_old + cliprange) − return)²)

    Shapes   all (M,).
    Example  >>> clipped_value(torch.tensor([0.5]), torch.tensor([0.0]), torch.tensor([1.0]), cliprange=0.2)
             tensor([0.3200])
    Source   openai/lm-human-preferences, train_policy.py, loss.
    """
    clipped_M = torch.minimum(torch.maximum(values_M, old_values_M - cliprange), old_values_M + cliprange)
    return 0.5 * torch.maximum((values_M - returns_M) ** 2, (clipped_M - returns_M) ** 2)


def dpo(
    better_P: Tensor, worse_P: Tensor, *, kl_coef: float, p: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """The loss of a policy that learns from comparisons directly: `pairwise` of the rewards that it implies.

        reward = kl_coef · log (π(response) / π_ref(response))
        −log σ(reward_better − reward_worse)

    `p` is how surely the better one is better, as for `pairwise`; `label_smoothing` is how often people are taken to
    err: p (1 − label_smoothing) + (1 − p) label_smoothing takes the place of p.

    Shapes   better_P, worse_P (P,): log (π / π_ref) of whole responses, the sums over their tokens; returns (P,).
    Example  >>> dpo(torch.tensor([2.0]), torch.tensor([-3.0]), kl_coef=0.2)
             tensor([0.3133])
             >>> dpo(torch.tensor([2.0]), torch.tensor([-3.0]), kl_coef=0.2, label_smoothing=0.1)
             tensor([0.4133])
    Source   Rafailov 2023, equation 7; label smoothing ("conservative DPO"): Mitchell 2023.
    Differs  The paper writes β for kl_coef.
    """
    return pairwise(kl_coef * better_P, kl_coef * worse_P, p=_smoothed(p, label_smoothing, better_P))


def ipo(
    better_P: Tensor, worse_P: Tensor, *, kl_coef: float, p: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """The same aim without Bradley and Terry's model: a gap that is wanted, and neither more nor less.

        p (gap − 1 / (2 kl_coef))² + (1 − p) (gap + 1 / (2 kl_coef))²         gap = better − worse

    Where people are unanimous, DPO's gap grows without end; this one stays finite, and kl_coef keeps its meaning.

    Shapes   as for `dpo`.
    Example  >>> ipo(torch.tensor([2.0]), torch.tensor([-3.0]), kl_coef=0.1)
             tensor([0.])
    Source   Azar 2023, equation 17.
    Differs  The paper writes τ for kl_coef, and has p = 1.
    """
    wanted, gap_P = 1 / (2 * kl_coef), better_P - worse_P
    p = _smoothed(p, label_smoothing, better_P)
    if p is None:
        return (gap_P - wanted) ** 2
    return p * (gap_P - wanted) ** 2 + (1 - p) * (gap_P + wanted) ** 2


def _smoothed(p: Tensor | None, label_smoothing: float, like: Tensor) -> Tensor | None:
    if label_smoothing == 0:
        return p
    p = torch.ones_like(like) if p is None else p
    return p * (1 - label_smoothing) + (1 - p) * label_smoothing


def kl_k2(logprobs_M: Tensor, ref_logprobs_M: Tensor) -> Tensor:
    """An estimate of KL(π ‖ π_ref) at each token, to be in a loss: its gradient is that of the KL.

        ½ (log π − log π_ref)²

    Example  >>> kl_k2(torch.tensor([-1.0]), torch.tensor([-1.5]))
             tensor([0.1250])
    Source   Schulman 2020, "Approximating KL divergence", k2.
    """
    return 0.5 * (logprobs_M - ref_logprobs_M) ** 2


def kl_k3(logprobs_M: Tensor, ref_logprobs_M: Tensor) -> Tensor:
    """GRPO's estimate of KL(π ‖ π_ref) at each token: without bias, and never below 0.

        π_ref / π − log (π_ref / π) − 1

    In a loss, its gradient over samples of π is that of KL(π_ref ‖ π), the other way round: both are 0 at π = π_ref.

    Example  >>> kl_k3(torch.tensor([-1.0]), torch.tensor([-1.5]))
             tensor([0.1065])
    Source   Shao 2024 (DeepSeekMath), equation 4; Schulman 2020, k3.
    """
    ratio_M = ref_logprobs_M - logprobs_M
    return torch.expm1(ratio_M) - ratio_M


TokenMean = Literal["token", "response", "limit", "none"]


def token_weights(lengths_N: Tensor, mean: TokenMean, *, limit: int) -> Tensor:
    """What each token of these responses weighs in a loss that is Σ weight · loss of the token.

        token       1 / tokens of all responses: each token alike, whichever response it is in (DAPO, PPO here)
        response    1 / (responses · tokens of its response): each response alike. Where the advantage is below 0, a
                    longer response is punished less for each token; so wrong ones grow (GRPO as it was printed)
        limit       1 / (responses · limit): a sum over tokens, so nothing depends on length (Dr. GRPO)
        none        1 / responses: the same without the constant, the gradient of the expected reward (RLOO)

    The responses are those of one update, so that the way it is cut into forward passes changes nothing.

    Shapes   lengths_N (N,); `limit` the most tokens that a response may have; returns (M,).
    Example  >>> token_weights(torch.tensor([1, 3]), "response", limit=4)
             tensor([0.5000, 0.1667, 0.1667, 0.1667])
    Source   Shao 2024, equation 3; Yu 2025 (DAPO), section 3.3; Liu 2025 (Dr. GRPO), section 3; Ahmadian 2024 (RLOO).
    """
    N = len(lengths_N)
    if mean == "response":
        return (1 / (N * lengths_N.float())).repeat_interleave(lengths_N)
    parts = {"token": int(lengths_N.sum()), "limit": N * limit, "none": N}
    return torch.full((int(lengths_N.sum()),), 1 / parts[mean], device=lengths_N.device)


def press(predicted_N: Tensor, labels_N: Tensor, weights_N: Tensor) -> Tensor:
    """The squared error of Ĥ at credited steps, each by its weight: a share of a press, or 1 for a step's whole label.

        weight · (label − Ĥ(s, a))²

    Shapes   all (N,), of the samples that feedback/credit.py gives; returns (N,).
    Example  >>> press(torch.tensor([0.0, 0.5]), torch.tensor([1.0, 1.0]), torch.tensor([0.25, 0.75]))
             tensor([0.2500, 0.1875])
    Source   Warnell et al. 2018 (Deep TAMER). Half its gradient is the update of Knox & Stone 2010, which
             agents/human_model.py makes.
    """
    return weights_N * (labels_N - predicted_N) ** 2


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """The mean over the last dimension of what is there; 0 where nothing is."""
    kept = torch.where(there, values, 0.0)
    return kept.sum(dim=-1) / there.sum(dim=-1).clamp(min=1)
