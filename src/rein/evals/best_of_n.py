"""Best of n: what the response with the highest score of n is worth, for every n, from the same samples.

Flow     scores of N samples of each prompt, by the proxy that chooses and by the gold that judges → `curve` → Points

With N samples of a prompt, all C(N, n) sets of n of them are as likely as any others would have been. The mean over
all of these sets has no bias, and is a weighted mean over the samples in the order of their proxy scores:

    E[gold of the best of n] ≈ Σ_i  C(i − 1, n − 1) / C(N, n) · gold_(i)         gold_(1) of the lowest proxy score

Source   Hilton & Gao 2022, "Measuring Goodhart's law"; Nakano 2021 (WebGPT); Gao 2022, the reward models' curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from rein.evals.statistics import Estimate, summarise

Numbers = npt.NDArray[np.float64]


def kl_nats(n: int) -> float:
    """How far the best of n is from the policy it is chosen from.

        KL(best of n ‖ π) = log n − (n − 1) / n

    Exact where no two responses have the same score; at most that much where some have, or are the same response.

    Example  >>> round(kl_nats(64), 3), kl_nats(1)
             (3.175, 0.0)
    Source   Stiennon 2020, App. G.3.
    """
    return math.log(n) - (n - 1) / n


def choice(scores_N: Sequence[float], texts: Sequence[str], ended: Sequence[bool]) -> int | None:
    """The place of the best sample to learn from: the highest score of those that say something and have an end.

    A response that was cut off says nothing of where one ends, and whoever learns it ends in the middle. None where no
    sample will do; of equal scores the first.

    Example  >>> choice([3.0, 2.0, 1.0], ["cut o", "whole", "less"], [False, True, True]), choice([1.0], [" "], [True])
             (1, None)
    Source   Nakano 2021 (WebGPT), section 3.2 (rejection sampling).
    """
    whole = [n for n, text in enumerate(texts) if ended[n] and text.strip()]
    return max(whole, key=lambda n: scores_N[n], default=None)


def weights(N: int) -> Numbers:
    """The weight of each sample in the best of n: row n − 1, the samples in ascending order of the proxy.

        C(i − 1, n − 1) / C(N, n)

    Shapes   returns (N, N), each row with sum 1.
    Example  >>> weights(3).round(4).tolist()
             [[0.3333, 0.3333, 0.3333], [0.0, 0.3333, 0.6667], [0.0, 0.0, 1.0]]
    """
    n_N1, i_N = np.arange(1, N + 1)[:, None], np.arange(1, N + 1)
    chosen_NN = i_N >= n_N1
    lower_NN = np.where(chosen_NN, i_N - n_N1, 0)
    # By logarithms: C(2048, 1024) is no number of the machine.
    log_NN = gammaln(i_N) - gammaln(n_N1) - gammaln(lower_NN + 1)
    log_NN = log_NN - (gammaln(N + 1) - gammaln(n_N1 + 1) - gammaln(N - n_N1 + 1))
    return np.where(chosen_NN, np.exp(log_NN), 0.0)


def best_of_each(proxy_N: Sequence[float] | Numbers, judged_N: Sequence[float] | Numbers) -> Numbers:
    """What the best of n by the proxy is worth in the mean, for n = 1 … N, without bias.

    Of samples with the same proxy score, each is as likely to be taken.

    Shapes   proxy_N, judged_N (N,); returns (N,).
    Example  >>> best_of_each([1.0, 2.0, 3.0], [10.0, 30.0, 20.0]).round(4).tolist()
             [20.0, 23.3333, 20.0]
    """
    proxy_N, judged_N = np.asarray(proxy_N, dtype=float), np.asarray(judged_N, dtype=float)
    assert len(proxy_N) == len(judged_N) > 0, f"{len(proxy_N)} proxy scores stand beside {len(judged_N)}"
    assert np.isfinite([proxy_N, judged_N]).all(), "a score is no finite number"
    _, place_N, count_U = np.unique(proxy_N, return_inverse=True, return_counts=True)
    mean_U = np.bincount(place_N, weights=judged_N) / count_U
    return weights(len(proxy_N)) @ np.repeat(mean_U, count_U)


@dataclass(frozen=True)
class Point:
    """The best of n: how far it is from the policy, and what it is worth, by the proxy and by the gold.

    Gains are over n = 1, prompt by prompt: what prompts differ in by themselves is not in their intervals.
    """

    n: int
    kl_nats: float
    proxy: Estimate
    proxy_gain: Estimate
    gold: Estimate | None = None
    gold_gain: Estimate | None = None


def curve(proxy_PN: Sequence[Sequence[float]], gold_PN: Sequence[Sequence[float]] | None = None) -> list[Point]:
    """The best of n for every n up to the number of samples, with 95% intervals for other prompts of the same kind.

    A prompt is one value: its samples say more about it, not about others.

    Shapes   proxy_PN, gold_PN: for each of P prompts, N numbers.
    Example  >>> [(p.n, p.proxy.value) for p in curve([[0.0, 1.0], [2.0, 4.0]])]
             [(1, 1.75), (2, 2.5)]
    """
    proxies = np.array([best_of_each(each, each) for each in proxy_PN])
    golds = None if gold_PN is None else np.array(list(map(best_of_each, proxy_PN, gold_PN)))
    points = []
    for place in range(proxies.shape[1]):
        proxy, proxy_gain = _estimates(proxies, place)
        gold, gold_gain = (None, None) if golds is None else _estimates(golds, place)
        points.append(Point(place + 1, kl_nats(place + 1), proxy, proxy_gain, gold, gold_gain))
    return points


def _estimates(values_PN: Numbers, place: int) -> tuple[Estimate, Estimate]:
    gains_P = values_PN[:, place] - values_PN[:, 0]
    return summarise(values_PN[:, place], bounded=False), summarise(gains_P, bounded=False)


def shown_sizes(N: int) -> list[int]:
    """The n of a table: powers of two, and N.

    Example  >>> shown_sizes(10)
             [1, 2, 4, 8, 10]
    """
    return [*(2**power for power in range(N.bit_length()) if 2**power < N), N]
