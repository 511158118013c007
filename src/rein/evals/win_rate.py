"""How often one model's responses win against another's, and how often they would at equal length.

Flow     of each pair: who won, how long both responses are → `win_rates` → raw, controlled, stratified

Judges, people and models alike, prefer longer responses. What a win rate owes to length alone is taken out by a
logistic regression of the win on the difference in length, of which only the constant is kept; a check that needs no
such model compares pairs where one side is longer with pairs where the other is longer by as much.

Source   Dubois 2024, "Length-Controlled AlpacaEval".
Differs  The paper's regression also has a term for how hard each instruction is, which many models share, and chooses
         its penalty by cross-validation. Two models alone cannot tell an instruction's difficulty, so there is no such
         term, and the penalty only keeps coefficients finite. Lengths are of the caller's choosing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from rein.errors import UserError
from rein.evals.scores import Score
from rein.evals.statistics import cluster_numbers, summarise

Numbers = npt.NDArray[np.float64]

DRAWS = 1000  # of the bootstrap
STRATA = 5  # of |difference in length|
PRIOR_SD = 10.0  # of the coefficients, in logits: it moves a win rate of 0.7 by 0.0001 at a hundred pairs
NEWTON_STEPS = 60


@dataclass(frozen=True)
class WinRates:
    """The first model's win rate, each with a 95% interval.

    `stratified` is None where no two pairs of the same difference, in opposite directions, can be found: then nothing
    but the form of the regression supports `controlled`. `length_logit` is what one unit of difference adds to the
    log-odds of a win: above 0, longer responses win.
    """

    raw: Score
    controlled: Score
    stratified: Score | None
    length_logit: float


def win_rates(
    wins_N: Sequence[float] | Numbers,
    lengths_a_N: Sequence[float] | Numbers,
    lengths_b_N: Sequence[float] | Numbers,
    *,
    clusters: Sequence[str] | None = None,
    difference: Literal["tanh", "log"] = "tanh",
    seed: int = 0,
) -> WinRates:
    """The win rate of a over b: as it is, at equal length, and over strata of equal difference.

        raw          mean of wins
        controlled   σ(c),   where  logit P(win) = c + w · x  has been fitted to all pairs
        stratified   Σ_k n_k · ½ (wins where a is longer by k + wins where b is longer by k) / Σ_k n_k,
                     k: fifths of |x|;  n_k: pairs of the direction that has fewer

    x is tanh((length_a − length_b) / their standard deviation), as in the paper, or with `difference="log"`
    log(length_a / length_b). Intervals are the bootstrap's, over clusters where there are any; `raw`'s is that of
    statistics.summarise.

    Shapes   wins_N, lengths, clusters: one each pair.
    Units    wins_N: 1 where a won, 0 where b did, ½ for a tie; lengths: tokens, words or characters, above 0.
    Example  >>> rates = win_rates([1, 1, 0, 0] * 25, [90, 80, 30, 20] * 25, [40, 20, 80, 80] * 25)
             >>> rates.raw.value, round(rates.controlled.value, 2), rates.stratified.value
             (0.5, 0.5, 0.5)
    Raises   UserError when a length is 0 and `difference` is "log".
    """
    wins_N = np.asarray(wins_N, dtype=float)
    x_N = _difference(np.asarray(lengths_a_N, dtype=float), np.asarray(lengths_b_N, dtype=float), difference)
    assert len(wins_N) == len(x_N) > 0, f"{len(wins_N)} wins stand beside {len(x_N)} pairs of lengths"
    assert ((wins_N >= 0) & (wins_N <= 1)).all(), "a win is a number from 0 to 1"
    n = len(wins_N)

    weights_DN = np.concatenate([np.ones((1, n)), _resampled(n, clusters, seed)])  # the pairs themselves come first
    constant_D, slope_D = _logistic(x_N, wins_N, weights_DN)
    strata_D = _stratified(x_N, wins_N, weights_DN)
    raw = summarise(wins_N, clusters=clusters)
    return WinRates(
        Score("win_rate", raw.value, raw.low, raw.high, n),
        _score("win_rate_controlled", expit(constant_D), n),
        None if np.isnan(strata_D[0]) else _score("win_rate_stratified", strata_D, n),
        float(slope_D[0]),
    )


# ------------------------------------------------------------------------------------------------------ inside


def _difference(a_N: Numbers, b_N: Numbers, how: Literal["tanh", "log"]) -> Numbers:
    if how == "log":
        empty = np.flatnonzero((a_N <= 0) | (b_N <= 0))
        if len(empty):
            i = int(empty[0])
            raise UserError(
                f"Pair {i} has the lengths {a_N[i]:g} and {b_N[i]:g}, but their ratio needs both above 0.",
                'Leave empty responses out, or take difference="tanh".',
            )
        return np.log(a_N / b_N)
    spread = float((a_N - b_N).std())
    return np.tanh((a_N - b_N) / (spread or 1.0))


def _resampled(n: int, clusters: Sequence[str] | None, seed: int) -> Numbers:
    """How often each pair is in each draw of the bootstrap; pairs of a cluster ("": of none) go together."""
    cluster_N = cluster_numbers(clusters, n)
    n_clusters = int(cluster_N.max()) + 1
    drawn_DC = np.random.default_rng(seed).multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=DRAWS)
    return drawn_DC[:, cluster_N].astype(float)


def _logistic(x_N: Numbers, wins_N: Numbers, weights_DN: Numbers) -> tuple[Numbers, Numbers]:
    """Constant and slope of a weighted logistic regression, one for each row of weights.

    Newton's method on the log-likelihood with a normal prior, which keeps both finite where lengths tell every win.
    A step is cut to 1, for far from the maximum the curvature says nothing of where it lies.
    """
    constant_D, slope_D = np.zeros(len(weights_DN)), np.zeros(len(weights_DN))
    precision = PRIOR_SD**-2
    for _ in range(NEWTON_STEPS):
        p_DN = expit(constant_D[:, None] + slope_D[:, None] * x_N)
        wrong_DN, bend_DN = weights_DN * (wins_N - p_DN), weights_DN * p_DN * (1 - p_DN)
        g0_D, g1_D = wrong_DN.sum(1) - precision * constant_D, wrong_DN @ x_N - precision * slope_D
        h00_D, h01_D, h11_D = bend_DN.sum(1) + precision, bend_DN @ x_N, bend_DN @ x_N**2 + precision
        determinant_D = h00_D * h11_D - h01_D**2
        step_2D = np.stack([h11_D * g0_D - h01_D * g1_D, h00_D * g1_D - h01_D * g0_D]) / determinant_D
        step_2D /= np.maximum(1.0, np.abs(step_2D).max(0))
        constant_D, slope_D = constant_D + step_2D[0], slope_D + step_2D[1]
        if np.abs(step_2D).max() < 1e-10:
            break
    return constant_D, slope_D


def _stratified(x_N: Numbers, wins_N: Numbers, weights_DN: Numbers) -> Numbers:
    """The win rate over strata of |x| in which both directions count the same; NaN where no stratum has both."""
    stratum_N = np.searchsorted(np.quantile(np.abs(x_N), np.linspace(0, 1, STRATA + 1)[1:-1]), np.abs(x_N))
    top_D, bottom_D = np.zeros(len(weights_DN)), np.zeros(len(weights_DN))
    for k in range(STRATA):
        n_D, rates_D = [], []
        for direction in (1, -1):
            # A pair of equal length says as much of both directions.
            share_N = (stratum_N == k) * np.where(x_N == 0, 0.5, np.sign(x_N) == direction)
            n_D.append(weights_DN @ share_N)
            rates_D.append((weights_DN @ (share_N * wins_N)) / np.maximum(n_D[-1], 1e-300))
        fewer_D = np.minimum(*n_D)
        top_D, bottom_D = top_D + fewer_D * sum(rates_D) / 2, bottom_D + fewer_D
    return np.divide(top_D, bottom_D, out=np.full_like(top_D, np.nan), where=bottom_D > 0)


def _score(name: str, value_and_draws_D: Numbers, n: int) -> Score:
    low, high = np.nanquantile(value_and_draws_D[1:], [0.025, 0.975])
    return Score(name, float(value_and_draws_D[0]), float(low), float(high), n)
