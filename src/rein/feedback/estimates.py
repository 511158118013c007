"""Numbers with their intervals, as a page shows them; what cannot be told says why.

Flow     agree_M of total_M, each of one item, in groups → `shares` → {"value", "low", "high", "se", "n", "how"}
         counts of each value at each unit → `of_coincidences` → the same for a statistic of pairs within units
         what cannot be told → `undefined` → {"value": null, "why"}

`se` is one standard error, the ± of a number; `low` and `high` are the ends of its 95% interval. What is said of one
item is not independent: items are, and the variance is that of items. `n` is what was counted, pairs or answers.

Source   Cameron & Miller 2015 (sums over clusters); Wilson 1927; Korn & Graubard 1998 (Wilson's interval on the number
         of independent judgements that say as much); Efron 1982 (infinitesimal jackknife).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

Array = npt.NDArray[Any]
Number = dict[str, Any]

Z = float(stats.norm.ppf(0.975))


def undefined(why: str) -> Number:
    """A number that cannot be told, and why."""
    return {"value": None, "why": why}


def told(value: float, low: float, high: float, n: int, how: str, *, se: float | None = None) -> Number:
    """A number with the ends of its interval."""
    assert math.isfinite(value), f"{value} is no number to show"
    return {"value": value, "low": low, "high": high, "se": se, "n": n, "how": how}


def wilson(share_M: Array | float, n_M: Array | float, z_M: Array | float = Z) -> tuple[Array, Array]:
    """The ends of Wilson's interval of shares of n, which need not be whole.

    Example  >>> [round(float(end), 4) for end in wilson(0.75, 4)]
             [0.3006, 0.9544]
    Source   Wilson 1927.
    """
    low, high = proportion_confint(share_M * n_M, n_M, alpha=2 * stats.norm.sf(z_M), method="wilson")
    return np.minimum(np.maximum(low, 0.0), share_M), np.maximum(np.minimum(high, 1.0), share_M)


def share(agree_M: Array, total_M: Array, how: str, why: str, weight_M: Array | None = None) -> Number:
    """Σ agree / Σ total, each pair of numbers of one item. See `shares`.

    Example  >>> found = share(np.array([1, 0, 3]), np.array([1, 1, 3]), "share of pairs", "There are no pairs.")
             >>> found["value"], found["n"]
             (0.8, 5)
    """
    return shares(agree_M, total_M, np.zeros(len(agree_M), np.int64), 1, how, why, weight_M)[0]


def shares(
    agree_M: Array, total_M: Array, group_M: Array, groups: int, how: str, why: str, weight_M: Array | None = None
) -> list[Number]:
    """For each group the share of what agrees, with a 95% interval for other items of the same kind.

        p = Σ a / Σ n        V = Σ_items (a − p n)² / (Σ n)² · G / (G − 1)

    The interval is Wilson's on p (1 − p) / V judgements, at most Σ n, with the t of G − 1 degrees of freedom in place
    of z. Where all items say the same, each counts as one judgement; of a single one nothing is told of others, and
    the interval is 0 to 1.

    Shapes   agree_M, total_M, group_M: one each item and group; an item is at most once in a group. With weight_M an
             entry stands for as many items that are alike.
    """
    said = total_M > 0
    agree_M, total_M, group_M = agree_M[said].astype(float), total_M[said].astype(float), group_M[said]
    weight_M = np.ones(len(agree_M)) if weight_M is None else weight_M[said].astype(float)
    agree_G, total_G = (np.bincount(group_M, each * weight_M, groups) for each in (agree_M, total_M))
    items_G = np.bincount(group_M, weight_M, groups)
    some = np.maximum(total_G, 1)
    p_G = agree_G / some
    squares_G = np.bincount(group_M, weight_M * (agree_M - p_G[group_M] * total_M) ** 2, groups)
    squares_G[squares_G <= 1e-12 * total_G] = 0.0  # nothing but rounding
    variance_G = squares_G / some**2 * items_G / np.maximum(items_G - 1, 1)
    known = variance_G > 0
    worth_G = np.where(known, p_G * (1 - p_G) / np.where(known, variance_G, 1), np.maximum(items_G, 1))
    t_G = stats.t.ppf(0.975, np.maximum(items_G - 1, 1))
    low_G, high_G = wilson(p_G, np.minimum(worth_G, some), t_G)
    found = []
    for g in range(groups):
        if not total_G[g]:
            found.append(undefined(why))
            continue
        low, high = (float(low_G[g]), float(high_G[g])) if items_G[g] > 1 else (0.0, 1.0)
        se = math.sqrt(variance_G[g]) if known[g] else None
        found.append(told(float(p_G[g]), low, high, round(float(total_G[g])), how, se=se))
    return found


def simple_shares(yes_G: Array, n_G: Array, how: str, why: str) -> list[Number]:
    """For each group yes of n independent answers, with Wilson's interval.

    Example  >>> [found["value"] for found in simple_shares(np.array([3, 0]), np.array([4, 0]), "yes of n", "Empty.")]
             [0.75, None]
    """
    some = np.maximum(n_G, 1)
    p_G = yes_G / some
    low_G, high_G = wilson(p_G, some)
    return [
        told(float(p), float(low), float(high), int(n), how, se=math.sqrt(p * (1 - p) / n) or None)
        if n
        else undefined(why)
        for p, low, high, n in zip(p_G, low_G, high_G, n_G, strict=True)
    ]


def coincidences(counts_BPV: Array, weight_P: Array) -> Array:
    """How often two values meet within a unit, each unit by its number of values.

        o_cd = Σ_u (n_uc n_ud − [c = d] n_uc) / (m_u − 1),    m_u = Σ_c n_uc ≥ 2

    Shapes   counts_BPV: how many gave value V to unit B of an item; weight_P: for how many items; returns (V, V).
    Example  >>> coincidences(np.array([[[2, 0], [1, 1], [0, 1]]]), np.array([1, 1, 1])).tolist()
             [[2.0, 1.0], [1.0, 0.0]]
    Source   Krippendorff 2011, "Computing Krippendorff's alpha-reliability".
    """
    counts_BPV, share_BP = _paired(counts_BPV)
    share_BP = share_BP * weight_P
    met_VV = np.einsum("bpc,bp,bpd->cd", counts_BPV, share_BP, counts_BPV, optimize=True)
    found: Array = met_VV - np.diag(np.einsum("bp,bpc->c", share_BP, counts_BPV))
    return found


def of_coincidences(
    counts_BPV: Array,
    weight_P: Array,
    statistic: Callable[[Array], float],
    how: str,
    *,
    value: float | None = None,
) -> Number:
    """A statistic of the coincidences of values within units, with a 95% interval for other items of the same kind.

        V = Σ_items (Σ_units of it ∂f/∂o · o_u)² · G / (G − 1),    ± t_{G − 1} · √V

    o_u is a unit's own part of the coincidences; the derivative is taken in steps of one part in a million. `value`
    may be given by whoever has it already. n is the number of units with two values or more.

    Shapes   as for `coincidences`.
    Source   Efron 1982, "The jackknife, the bootstrap and other resampling plans".
    """
    whole_VV = coincidences(counts_BPV, weight_P)
    total = float(whole_VV.sum())
    value = statistic(whole_VV) if value is None else value
    slope_VV = np.zeros_like(whole_VV)
    for c, d in zip(*np.triu_indices(len(whole_VV)), strict=True):
        moved = np.zeros_like(whole_VV)
        moved[c, d] = moved[d, c] = 1e-6 * total
        low_VV = np.maximum(whole_VV - moved, 0)
        step = (whole_VV + moved - low_VV)[c, d]
        change = (statistic(whole_VV + moved) - statistic(low_VV)) / step
        slope_VV[c, d] = slope_VV[d, c] = change if c == d else change / 2
    counts_BPV, share_BP = _paired(counts_BPV)
    own_BP = ((counts_BPV @ slope_VV) * counts_BPV).sum(-1) - counts_BPV @ np.diag(slope_VV)
    own_P, there_P = (own_BP * share_BP).sum(0), np.where((share_BP > 0).any(0), weight_P, 0)
    n = round(float(((share_BP > 0) * weight_P).sum()))
    return around(value, own_P, there_P, n, how)


def _paired(counts_BPV: Array) -> tuple[Array, Array]:
    """Counts as they are, and 1 / (m − 1); 0 for units with fewer than two values."""
    size_BP = counts_BPV.sum(-1)
    return counts_BPV.astype(float), np.where(size_BP >= 2, 1 / np.maximum(size_BP - 1, 1), 0.0)


def around(value: float, own_P: Array, weight_P: Array, n: int, how: str) -> Number:
    """A statistic between −1 and 1 from what each item adds to it; `weight` is how many items are alike.

    Where all items add the same, the interval is that of a share of as many items, as wide as −1 to 1 is to 0 to 1.
    """
    items = float(weight_P.sum())
    if items < 2:
        return told(value, -1.0, 1.0, n, how)
    off_P = own_P - float(weight_P @ own_P) / items
    se = math.sqrt(float(weight_P @ off_P**2) * items / (items - 1))
    known = se > 1e-9
    margin = float(stats.t.ppf(0.975, items - 1)) * se if known else 2 * (1 - float(wilson(1.0, items)[0]))
    return told(value, max(-1.0, value - margin), min(1.0, value + margin), n, how, se=se if known else None)


def trend(yes_N: Array, at_N: Array, item_N: Array, how: str) -> Number:
    """How much a share changes from one step of `at` to the next, and how likely as much is by chance alone.

        slope = Σ (x − x̄)(y − ȳ) / Σ (x − x̄)²,    V = Σ_items (Σ_i of it (x − x̄) e)² / (Σ (x − x̄)²)² · G / (G − 1)

    Shapes   yes_N 0 or 1; at_N where in time; item_N whose answer it is.
    Source   Liang & Zeger 1986, for the variance over clusters.
    """
    items, item_N = np.unique(item_N, return_inverse=True)
    x_N, y_N = at_N - at_N.mean(), yes_N - yes_N.mean()
    spread = float(x_N @ x_N)
    if not spread:
        return undefined("All answers are of one week.")
    if len(items) < 3:
        return undefined(f"There are answers on {len(items)} items; a trend needs 3.")
    slope = float(x_N @ y_N) / spread
    sums_I = np.bincount(item_N, x_N * (y_N - slope * x_N))
    groups = len(sums_I)
    se = math.sqrt(float(sums_I @ sums_I) * groups / (groups - 1)) / spread
    if se < 1e-12:
        return undefined("All items changed alike, so that chance cannot be told from a trend.")
    margin = float(stats.t.ppf(0.975, groups - 1)) * se
    p_value = float(2 * stats.t.sf(abs(slope / se), groups - 1))
    return {**told(slope, slope - margin, slope + margin, len(yes_N), how, se=se), "p_value": p_value}
