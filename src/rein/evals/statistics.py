"""How far a score may be from what other problems and other shots would have given, and what two scores prove.

Flow     values_N, one number for each problem → `summarise` → Estimate: the mean with a 95% interval
         rows_NC, what a score of them all (BLEU, macro F1) is made of → `whole` → Estimate
         values of two models on the same problems → `paired` → Difference; p-values of many tasks → `holm`
         an Estimate → `verdict` on a published number, `against_chance`, `minimum_detectable`

Problems that share a passage are not independent: `clusters` names each one's passage, "" where it stands alone. Those
that are right or wrong together are one problem first: `least_of_each`.
With grouped draws, `draws` says which draw of shots each problem was asked behind.

Intervals of means in [0, 1] are Wilson's, which stay in [0, 1] and hold for small samples and rare successes. Where
the variance of the mean is not p (1 − p) / n, because of clusters, of draws, or because values are F1 and not 0 or
1, Wilson's n is the number of independent 0/1 problems that would leave as much variance, and t takes the place of z.

Source   Wilson 1927; Korn & Graubard 1998 for clusters; Miller 2024, "Adding error bars to evals".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

Z = float(stats.norm.ppf(0.975))
POWER = float(stats.norm.ppf(0.8))
RESAMPLES = 1000  # of a bootstrap
FLIPS = 10_000  # of a test that swaps; where there are no more ways than that, all are tried
JACKKNIFE = 200  # groups that are left out in turn


@dataclass(frozen=True)
class Estimate:
    """A score and where it lies with 95% confidence.

    `effective_n` is the number of independent problems that would have said as much. `draw_sd` is how far scores of
    one draw of shots stand from those of another, in the score's own units; None where there were no draws to compare.
    """

    value: float
    low: float
    high: float
    n: int
    effective_n: float
    draw_sd: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Difference:
    """First minus second on the same problems, with 95% confidence; how likely as much is by chance alone.

    `minimum_detectable` is the true difference that such a comparison finds in four cases of five.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int
    minimum_detectable: float


# ------------------------------------------------------------------------------------------- what goes together


def cluster_numbers(clusters: Sequence[str] | None, n: int) -> Indices:
    """Clusters as numbers from 0, in the order in which they come; whoever has no name is a cluster of their own.

    Example  >>> cluster_numbers(["a", "", "a", ""], 4).tolist()
             [0, 1, 0, 2]
    """
    if clusters is None:
        return np.arange(n)
    assert len(clusters) == n, f"{len(clusters)} clusters are named for {n} values"
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(name or i, len(numbers)) for i, name in enumerate(clusters)], dtype=np.int64)


def least_of_each(values_N: Sequence[float] | Numbers, units: Sequence[Hashable]) -> list[int]:
    """The place of the least value of each unit: problems of one unit are right or wrong together.

    Example  >>> least_of_each([1, 0, 1, 1], ["q1", "q1", "q2", "q2"])
             [1, 2]
    """
    least: dict[Hashable, int] = {}
    for at, unit in enumerate(units):
        if unit not in least or values_N[at] < values_N[least[unit]]:
            least[unit] = at
    return list(least.values())


# ------------------------------------------------------------------------------------------- one model's score


def summarise(
    values_N: Sequence[float] | Numbers,
    *,
    clusters: Sequence[str] | None = None,
    draws: Sequence[int | None] | None = None,
    bounded: bool = True,
) -> Estimate:
    """The mean, with a 95% interval for other problems of the same kind and other draws of shots.

        V = Σ_clusters (Σ_i in it (x_i − m))² / n² · G / (G − 1)  +  σ²_draw · (Σ_draws n_d² − Σ_cells n_c²) / n²

    G is the number of clusters (of problems, without any); a cell is what a cluster and a draw share. σ²_draw comes
    from a one-way analysis of variance of the cells' means between and within draws, and is no less than 0. t has
    G − 1 degrees of freedom, or the draws' less one where they add variance. All 0 or 1, without clusters and draws,
    the interval is Wilson's. Where all values are the same, clusters are taken to be one problem each.

    Shapes   values_N, clusters, draws: one each problem.
    Units    `bounded`: values are in [0, 1]; without it they may be anything, and the interval is m ± t √V.
    Example  >>> print(summarise([1, 1, 0, 1, 0, 1, 1, 1]))
             0.7500 [0.4093, 0.9285]
             >>> print(summarise([1, 1, 0, 1, 0, 1, 1, 1], clusters=["a", "a", "b", "b", "b", "", "", ""]))
             0.7500 [0.2227, 0.9691]
    Source   Wilson 1927; Cameron & Miller 2015 (the sum over clusters); Searle 1992 (analysis of variance).
    """
    values_N = np.asarray(values_N, dtype=float)
    n = len(values_N)
    assert n, "there are no values to summarise"
    assert not bounded or (values_N.min() >= 0 and values_N.max() <= 1), "a value lies outside of [0, 1]"
    cluster_N = cluster_numbers(clusters, n)
    draw_N = _draw_labels(draws)
    mean = float(values_N.mean())

    variance, freedom = _variance_of_mean(values_N, cluster_N)
    draw_sd, extra = (None, 0.0) if draw_N is None else _between_draws(values_N, cluster_N, draw_N)
    if extra:
        assert draw_N is not None, "variance between draws without draws"
        variance, freedom = variance + extra, int(draw_N.max())
    effective = _effective(values_N, variance, freedom)

    plain = cluster_N.max() == n - 1 and not extra
    if bounded and plain and np.isin(values_N, (0, 1)).all():
        low, high = wilson(mean, n)
    elif bounded:
        worth = mean * (1 - mean) / variance if variance else effective
        low, high = wilson(mean, worth, _t(freedom))
    else:
        margin = _margin(variance, freedom)
        low, high = mean - margin, mean + margin
    return Estimate(mean, low, high, n, effective, draw_sd)


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """Wilson's interval of a share of n, which need not be whole.

        (p + z²/2n ± z √(p (1 − p) / n + z²/4n²)) / (1 + z²/n)

    Example  >>> [round(end, 4) for end in wilson(0.75, 4)]
             [0.3006, 0.9544]
    Source   Wilson 1927.
    """
    if math.isinf(z):
        return 0.0, 1.0  # one cluster alone says nothing of others
    centre = share + z * z / (2 * n)
    margin = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - margin) / (1 + z * z / n), (centre + margin) / (1 + z * z / n)
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def whole(
    rows_NC: Sequence[Any] | Numbers,
    score: Callable[[Numbers], float],
    *,
    clusters: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A score of all problems together, with the BCa bootstrap's interval over clusters.

    Whole clusters are drawn with replacement. Quantiles of the drawn scores are corrected for their bias (the part
    of them below the score) and for the score's skewness (from leaving out one group of clusters after another).
    `effective_n` is the number of clusters; one alone says nothing of others, and the interval has no ends.

    Shapes   rows_NC (N, C): what is known of each problem, such as counts of n-grams; (N,) where it is one number.
             `score` is called `resamples` times, with rows of the drawn problems.
    Example  >>> whole([1.0, 2.0, 3.0, 4.0], np.mean).value
             2.5
    Source   Efron 1987, "Better bootstrap confidence intervals".
    """
    rows_NC = np.asarray(rows_NC, dtype=float)
    n, members = len(rows_NC), _members(cluster_numbers(clusters, len(rows_NC)))
    value = float(score(rows_NC))
    if len(members) == 1:
        return Estimate(value, -math.inf, math.inf, n, 1.0)
    drawn = np.array([score(rows_NC[_places(members, pick)]) for pick in _picks(len(members), resamples)])
    if drawn.min() == drawn.max():
        return Estimate(value, value, value, n, float(len(members)))

    below = float(((drawn < value).mean() + (drawn <= value).mean()) / 2)
    bias = float(stats.norm.ppf(min(max(below, 1 / resamples), 1 - 1 / resamples)))
    skew = _acceleration(rows_NC, score, members)
    ends = [bias + (bias + z) / (1 - skew * (bias + z)) for z in (-Z, Z)]
    low, high = np.quantile(drawn, stats.norm.cdf(ends))
    return Estimate(value, min(float(low), value), max(float(high), value), n, float(len(members)))


# -------------------------------------------------------------------------------------------- two models' scores


def paired(
    a_N: Sequence[float] | Numbers,
    b_N: Sequence[float] | Numbers,
    clusters: Sequence[str] | None = None,
    *,
    bounded: bool = True,
) -> Difference:
    """Mean of a − b over the problems that both answered, with a 95% interval and a two-sided p-value.

    The interval is that of a mean over clusters, t with G − 1 degrees of freedom, after Agresti and Min: as if half a
    problem more were a's, and half a problem more b's. The p-value is McNemar's exact one where values are 0 or 1 and
    problems independent; else that of swapping a and b at random, cluster by cluster.

    Shapes   a_N, b_N, clusters: one each problem, in the same order.
    Units    `bounded`: values are in [0, 1]; without it no half problems are added.
    Example  >>> found = paired([1, 1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1])
             >>> found.value, found.p_value
             (0.75, 0.03125)
    Source   McNemar 1947; Agresti & Min 2005; Fisher 1935 (swapping).
    """
    a_N, b_N = np.asarray(a_N, dtype=float), np.asarray(b_N, dtype=float)
    assert len(a_N) == len(b_N) > 0, f"{len(a_N)} values stand against {len(b_N)}"
    difference_N = a_N - b_N
    n, cluster_N = len(difference_N), cluster_numbers(clusters, len(difference_N))
    mean = float(difference_N.mean())
    variance, freedom = _variance_of_mean(difference_N, cluster_N)
    if bounded:
        effective = _effective(difference_N, variance, freedom)
        shrink = effective / (effective + 2)
        middle, variance = mean * shrink, variance * shrink**2 + 1 / (effective + 2) ** 2
    else:
        middle = mean
    margin = _margin(variance, freedom)
    low, high = middle - margin, middle + margin
    if bounded:
        low, high = max(-1.0, low), min(1.0, high)

    binary = bool(np.isin(a_N, (0, 1)).all() and np.isin(b_N, (0, 1)).all())
    if binary and cluster_N.max() == n - 1:
        p_value = _mcnemar(int((difference_N > 0).sum()), int((difference_N < 0).sum()))
    else:
        p_value = _swapping(np.bincount(cluster_N, weights=difference_N).astype(float))
    return Difference(mean, low, high, p_value, n, _detectable(math.sqrt(variance)) if freedom else math.inf)


def paired_whole(
    a_NC: Sequence[Any] | Numbers,
    b_NC: Sequence[Any] | Numbers,
    score: Callable[[Numbers], float],
    *,
    clusters: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> Difference:
    """score(a) − score(b) for a score of all problems together: bootstrap interval, p-value of swapping clusters.

    Of one cluster alone nothing can be told: the interval has no ends, and p is 1.

    Shapes   a_NC, b_NC (N, C), or (N,): as for `whole`, in the same order.
    Example  >>> paired_whole([3.0, 4.0, 5.0], [3.0, 4.0, 5.0], np.sum).p_value
             1.0
    Source   Koehn 2004 (paired bootstrap); Riezler & Maxwell 2005 (swapping, "approximate randomisation").
    """
    a_NC, b_NC = np.asarray(a_NC, dtype=float), np.asarray(b_NC, dtype=float)
    assert len(a_NC) == len(b_NC) > 0, f"{len(a_NC)} rows stand against {len(b_NC)}"
    cluster_N = cluster_numbers(clusters, len(a_NC))
    members = _members(cluster_N)
    value = float(score(a_NC) - score(b_NC))
    if len(members) == 1:
        return Difference(value, -math.inf, math.inf, 1.0, len(a_NC), math.inf)
    draws = [_places(members, pick) for pick in _picks(len(members), resamples)]
    drawn = [score(a_NC[places]) - score(b_NC[places]) for places in draws]
    low, high = np.quantile(drawn, [0.025, 0.975])

    swap_RC = np.random.default_rng(1).integers(0, 2, (resamples, len(members))).astype(bool)
    as_far = 0
    for swap_C in swap_RC:
        swap_N = swap_C[cluster_N].reshape(-1, *[1] * (a_NC.ndim - 1))
        swapped = score(np.where(swap_N, b_NC, a_NC)) - score(np.where(swap_N, a_NC, b_NC))
        as_far += abs(swapped) >= abs(value) - 1e-12
    p_value = float((1 + as_far) / (1 + resamples))
    return Difference(value, float(low), float(high), p_value, len(a_NC), _detectable(float(np.std(drawn))))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several: below 0.05, they hold together with 95% confidence.

        p'_(k) = max_{j ≤ k} min(1, (m − j + 1) · p_(j)),   p_(1) ≤ … ≤ p_(m)

    Example  >>> holm([0.01, 0.04, 0.03])
             [0.03, 0.06, 0.06]
    Source   Holm 1979.
    """
    p_M = np.asarray(p_values, dtype=float)
    order = np.argsort(p_M, kind="stable")
    factors = len(p_M) - np.arange(len(p_M))
    corrected = np.empty(len(p_M))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p_M[order]))
    return [float(p) for p in corrected]


# ------------------------------------------------------------------------------------------------- judgements


def minimum_detectable(estimate: Estimate) -> float:
    """The difference to another model, scored on as many other problems, that a 5% test finds in four cases of five.

        (z_0.975 + z_0.8) · √2 · standard error,   the standard error read off the interval's width

    On the same problems much less can be found: see `Difference.minimum_detectable`.

    Example  >>> round(minimum_detectable(summarise([1, 0] * 500)), 3)
             0.063
    """
    return math.sqrt(2) * _detectable((estimate.high - estimate.low) / (2 * Z))


def verdict(estimate: Estimate, published: float | None) -> Literal["inside", "above", "below", "no number"]:
    """Whether a published number, in the estimate's units, lies inside the interval, or the score above or below it.

    "above" is a greater number, whether or not that is better. The paper's own number has an interval too, which it
    does not print: "inside" means that there is no sign of a difference. A score whose interval has no ends is held to
    no number.

    Example  >>> verdict(Estimate(0.30, 0.28, 0.32, 2000, 2000.0), 0.337)
             'below'
    """
    if published is None or math.isinf(estimate.high - estimate.low):
        return "no number"
    if estimate.low <= published <= estimate.high:
        return "inside"
    return "above" if estimate.low > published else "below"


def against_chance(estimate: Estimate, chance: float) -> Literal["above", "near", "below"]:
    """Whether the score is told apart from guessing.

    Example  >>> against_chance(Estimate(0.26, 0.24, 0.28, 2000, 2000.0), 0.25)
             'near'
    """
    if estimate.low <= chance <= estimate.high:
        return "near"
    return "above" if estimate.low > chance else "below"


# ------------------------------------------------------------------------------------- inside: means, clusters


def _t(freedom: int) -> float:
    return float(stats.t.ppf(0.975, freedom)) if freedom else math.inf


def _margin(variance: float, freedom: int) -> float:
    return _t(freedom) * math.sqrt(variance) if freedom else math.inf


def _draw_labels(draws: Sequence[int | None] | None) -> Indices | None:
    """Draws as numbers from 0; None where there are none, or only one."""
    known = [draw for draw in draws or () if draw is not None]
    if draws is None or len(known) < len(draws) or len(set(known)) < 2:
        return None
    return np.unique(known, return_inverse=True)[1]


def _variance_of_mean(values_N: Numbers, cluster_N: Indices) -> tuple[float, int]:
    """Of the mean of clustered values, and its degrees of freedom; 0 and 0 for a single cluster."""
    n, groups = len(values_N), int(cluster_N.max()) + 1
    if groups == 1:
        return 0.0, 0
    sums = np.bincount(cluster_N, weights=values_N - values_N.mean())
    squares = float(sums @ sums)
    if squares <= 1e-24 * float(values_N @ values_N):
        squares = 0.0  # nothing but rounding: all the values, or all the clusters, are alike
    return squares / n**2 * groups / (groups - 1), groups - 1


def _effective(values_N: Numbers, variance: float, freedom: int) -> float:
    """n over the design effect, which is no less than 1; the number of clusters where all values are alike."""
    n = len(values_N)
    independent, _ = _variance_of_mean(values_N, np.arange(n))
    if not independent or not variance:
        return float(freedom + 1)
    return n * min(1.0, independent / variance)


def _between_draws(values_N: Numbers, cluster_N: Indices, draw_N: Indices) -> tuple[float | None, float]:
    """Standard deviation between draws, and what it adds to the variance of the mean."""
    groups = int(draw_N.max()) + 1
    cell_N = np.unique(cluster_N * groups + draw_N, return_inverse=True)[1]
    size_C = np.bincount(cell_N)
    mean_C = np.bincount(cell_N, weights=values_N) / size_C
    draw_C = np.zeros(len(size_C), dtype=np.int64)
    draw_C[cell_N] = draw_N
    cells_D = np.bincount(draw_C)
    if len(size_C) == groups:
        return None, 0.0  # each cell is a draw of its own: between and within cannot be told apart

    mean_D = np.bincount(draw_C, weights=mean_C) / cells_D
    between = float(cells_D @ (mean_D - mean_C.mean()) ** 2) / (groups - 1)
    within = float(((mean_C - mean_D[draw_C]) ** 2).sum()) / (len(size_C) - groups)
    typical = (cells_D.sum() - (cells_D**2).sum() / cells_D.sum()) / (groups - 1)
    variance = max(0.0, (between - within) / typical)
    size_D = np.bincount(draw_N)
    extra = variance * float((size_D**2).sum() - (size_C**2).sum()) / len(values_N) ** 2
    return math.sqrt(variance), extra


# ------------------------------------------------------------------------------------- inside: bootstrap, swapping


def _members(cluster_N: Indices) -> list[Indices]:
    """The places of each cluster's problems."""
    sizes = np.bincount(cluster_N)
    return np.split(np.argsort(cluster_N, kind="stable"), np.cumsum(sizes)[:-1])


def _picks(clusters: int, resamples: int) -> Indices:
    return np.random.default_rng(0).integers(0, clusters, (resamples, clusters))


def _places(members: list[Indices], pick: Indices) -> Indices:
    return np.concatenate([members[cluster] for cluster in pick])


def _acceleration(rows_NC: Numbers, score: Callable[[Numbers], float], members: list[Indices]) -> float:
    """Efron's a = Σ d³ / 6 (Σ d²)^1.5, d what is lost without a group of clusters."""
    group_C = np.arange(len(members)) % min(len(members), JACKKNIFE)
    left = [score(rows_NC[_places(members, np.flatnonzero(group_C != k))]) for k in range(group_C.max() + 1)]
    lost = np.mean(left) - np.array(left)
    spread = float((lost**2).sum()) ** 1.5
    return float((lost**3).sum()) / (6 * spread) if spread else 0.0


def _mcnemar(only_a: int, only_b: int) -> float:
    either = only_a + only_b
    return float(stats.binomtest(only_a, either, 0.5).pvalue) if either else 1.0


def _swapping(sum_C: Numbers) -> float:
    """How often random signs give clusters' sums a total as far from 0."""
    sum_C = sum_C[sum_C != 0]
    most, count = abs(float(sum_C.sum())) - 1e-9, len(sum_C)
    if 2**count <= FLIPS:
        sign_RC = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((np.abs(sign_RC @ sum_C) >= most).mean())
    generator, as_far = np.random.default_rng(0), 0
    for _ in range(FLIPS // 100):
        kept_RC = generator.integers(0, 2, (100, count), dtype=np.int8).astype(float)
        as_far += int((np.abs(2 * (kept_RC @ sum_C) - sum_C.sum()) >= most).sum())
    return (1 + as_far) / (1 + FLIPS)


def _detectable(standard_error: float) -> float:
    return (Z + POWER) * standard_error
