"""Agreement beyond chance: Cohen's kappa of two people, Fleiss' of as many for each item, Krippendorff's alpha of any.

Flow     counts_BPV, how many gave each value to each unit → `fleiss`, `alpha`, `rank_correlation` → a number
         table_VV, what two people said of the same units → `cohen` → a number
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from krippendorff import alpha as package_alpha
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from rein.feedback.estimates import Number, around, of_coincidences, told, undefined, wilson

Array = npt.NDArray[Any]
Level = Literal["nominal", "ordinal", "interval"]

# Above it the packages, which lay out a table of values for each unit, or of values × values, take seconds and GBs.
PACKAGE_CELLS = 500_000
NOBODY_TWICE = "No item has answers of two labelers."
ALL_ALIKE = "All gave the same value, so that chance alone would agree as often."
_HOW_ALPHA = (
    "Krippendorff's alpha, 1 − observed / expected disagreement, between labelers; the distance of two values is {} "
    "(Krippendorff 2011)."
)
_DISTANCE = {
    "nominal": "1 where they differ",
    "ordinal": "the square of how many answers lie between them",
    "interval": "the square of their difference",
}


def cohen(table_VV: Array) -> Number:
    """Cohen's kappa of two people, from how often one gave the first value and the other the second.

        κ = (p_o − p_e) / (1 − p_e)

    Shapes   table_VV: the first person's values are rows.
    Example  >>> round(cohen(np.array([[20, 5], [10, 15]]))["value"], 3)
             0.4
    Source   Cohen 1960; the interval is Fleiss, Cohen & Everitt's 1969, by statsmodels.
    """
    n = float(table_VV.sum())
    if not n:
        return undefined("The two have answered no item in common.")
    if (table_VV.sum(0) > 0).sum() < 2 or (table_VV.sum(1) > 0).sum() < 2:
        return undefined("One of the two gave the same value each time: kappa is then 0, whatever the other gave.")
    kappa, low, high, se = _cohen(tuple(map(tuple, table_VV.tolist())))
    how = (
        "Cohen's kappa, (p_o − p_e) / (1 − p_e), of two people's choices; neither is a choice of its own (Cohen 1960)."
    )
    if not se:  # they agree always: the interval is that of agreeing always, in as many
        expected = float(table_VV.sum(0) @ table_VV.sum(1)) / n**2
        low = (float(wilson(1.0, n)[0]) - expected) / (1 - expected)
    return told(kappa, max(-1.0, low), min(1.0, high), round(n), how, se=se or None)


@lru_cache(maxsize=4096)  # statsmodels takes a millisecond for each, and most pairs of people are as they were
def _cohen(table: tuple[tuple[float, ...], ...]) -> tuple[float, float, float, float]:
    with np.errstate(divide="ignore"):  # of its test against 0, which nobody asks for
        found = cohens_kappa(np.array(table))
    return float(found.kappa), float(found.kappa_low), float(found.kappa_upp), float(found.std_kappa)


def fleiss(counts_BPV: Array, weight_P: Array) -> Number:
    """Fleiss' kappa, of the units that have the commonest number of answers, of two or more.

        κ = (P̄ − P_e) / (1 − P_e),    P_u = Σ_c n_uc (n_uc − 1) / m (m − 1),    P_e = Σ_c p_c²

    Its interval is that of the infinitesimal jackknife over items.

    Shapes   as for `estimates.coincidences`.
    Source   Fleiss 1971, by statsmodels where the units are not too many for it; Efron 1982.
    """
    size_BP = counts_BPV.sum(-1).astype(np.int64)
    many_BP = np.broadcast_to(weight_P, size_BP.shape).astype(np.int64)
    if not (size_BP >= 2).any():
        return undefined(NOBODY_TWICE)
    raters = int(np.bincount(size_BP[size_BP >= 2], many_BP[size_BP >= 2]).argmax())
    counted_BP = size_BP == raters
    many_BP = np.where(counted_BP, many_BP, 0)
    units = int(many_BP.sum())
    p_V = np.einsum("bp,bpv->v", many_BP, counts_BPV) / (units * raters)
    expected = float(p_V @ p_V)
    if expected >= 1 - 1e-12:
        return undefined(ALL_ALIKE)
    alike_BP = ((counts_BPV**2).sum(-1) - raters) / (raters * (raters - 1))
    alike = float((many_BP * alike_BP).sum()) / units
    value = (alike - expected) / (1 - expected)
    if units * counts_BPV.shape[-1] <= PACKAGE_CELLS:
        table_UV = np.repeat(counts_BPV[counted_BP], many_BP[counted_BP], axis=0)
        value = float(fleiss_kappa(table_UV.astype(float), method="fleiss"))
    chance_BP = 2 * (counts_BPV / raters - p_V) @ p_V
    own_BP = (alike_BP - alike) / (1 - expected) - (1 - alike) / (1 - expected) ** 2 * chance_BP
    own_P = np.where(counted_BP, own_BP, 0).sum(0) / units
    how = f"Fleiss' kappa of what {raters} labelers have answered; neither is a choice of its own (Fleiss 1971)."
    return around(value, own_P, np.where(counted_BP.any(0), weight_P, 0), units, how)


def alpha(counts_BPV: Array, weight_P: Array, level: Level) -> Number:
    """Krippendorff's alpha, however many answers a unit has; values are 0, 1, 2, … in the order of their meaning.

        α = 1 − Σ o_cd δ²_cd / Σ e_cd δ²_cd,    e_cd = (n_c n_d − [c = d] n_c) / (n − 1)

    Shapes   as for `estimates.coincidences`.
    Source   Krippendorff 2011, by the krippendorff package where the units are not too many for it.
    Differs  The package gives no interval: that of the infinitesimal jackknife over items comes from the formula above.
    """
    if why := _untold(counts_BPV):
        return undefined(why)
    value = None
    codes = counts_BPV.shape[-1]
    if len(counts_BPV) * int(weight_P.sum()) * codes**2 <= PACKAGE_CELLS:
        units_UV = np.repeat(counts_BPV, weight_P.astype(np.int64), axis=1).reshape(-1, codes)
        value = float(package_alpha(value_counts=units_UV.astype(np.int64), level_of_measurement=level))
    how = _HOW_ALPHA.format(_DISTANCE[level])
    return of_coincidences(counts_BPV, weight_P, lambda found_VV: _alpha(found_VV, level), how, value=value)


def rank_correlation(counts_BPV: Array, weight_P: Array) -> Number:
    """Spearman's correlation of what two labelers give the same unit, over all pairs of them, each in both orders.

        ρ = Σ o_cd (r_c − r̄)(r_d − r̄) / Σ_c n_c (r_c − r̄)²,    r_c the mid-rank of a value

    Shapes   as for `estimates.coincidences`.
    Source   Spearman 1904; Fisher 1925, for pairs without a first one (the intraclass form).
    """
    if why := _untold(counts_BPV):
        return undefined(why)
    how = "Spearman's rank correlation of two labelers' values for the same output, over all pairs (Spearman 1904)."
    return of_coincidences(counts_BPV, weight_P, _rank_correlation, how)


def _untold(counts_BPV: Array) -> str:
    """Why nothing can be told of the coincidences; empty where it can."""
    paired_UV = counts_BPV[counts_BPV.sum(-1) >= 2]
    if not len(paired_UV):
        return NOBODY_TWICE
    return "" if (paired_UV.sum(0) > 0).sum() >= 2 else ALL_ALIKE


def _alpha(found_VV: Array, level: Level) -> float:
    n_V = found_VV.sum(0)
    n = float(n_V.sum())
    at_V = np.arange(len(n_V))
    if level == "nominal":
        far_VV = 1.0 - np.eye(len(n_V))
    else:
        # Half of a value's answers lie below its middle: the distance of two middles is what lies between them.
        place_V = n_V.cumsum() - n_V / 2 if level == "ordinal" else at_V.astype(float)
        far_VV = (place_V[:, None] - place_V) ** 2
    expected_VV = (np.outer(n_V, n_V) - np.diag(n_V)) / (n - 1)
    return float(1 - (found_VV * far_VV).sum() / (expected_VV * far_VV).sum())


def _rank_correlation(found_VV: Array) -> float:
    n_V = found_VV.sum(0)
    rank_V = n_V.cumsum() - n_V / 2
    off_V = rank_V - float(n_V @ rank_V) / float(n_V.sum())
    return float(off_V @ found_VV @ off_V) / float(n_V @ off_V**2)
