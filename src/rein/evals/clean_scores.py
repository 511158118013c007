"""How scores differ where the training text does not hold the example: Table C.1's last column.

Flow     what was answered to each problem, and the Collisions of its task → `compare` → the scores of the clean ones,
         of the dirty ones and of all, how the clean differ from all, and what that suggests

Source   Brown 2020, Appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rein.evals import statistics
from rein.evals.metrics import Metric
from rein.evals.overlap import Collisions
from rein.evals.results import finite
from rein.evals.statistics import cluster_numbers, least_of_each

TOLERANCE = 0.01  # a change that the paper takes for none: "1% or 2%"
RESAMPLES = 1000

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What was answered to one problem of an example.

    `value` is the problem's own score under each metric that has one; `counts`, what a score of them all is made of.
    """

    example: int
    value: Mapping[str, float | None]
    counts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    passage: str = ""
    draw: int | None = None


@dataclass(frozen=True)
class Change:
    """(score of the clean − score of all) / score of all, with a 95% interval; of one passage alone it has no ends."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class _Values:
    """One row each problem that has a value, or each example where problems are right or wrong together."""

    counts_NC: Numbers  # what a score is made of when it is summed: (value, 1) where it is a mean
    example_N: Ints
    clusters: list[str]
    draws: list[int | None]

    def where(self, mask_N: Bools) -> _Values:
        chosen = np.flatnonzero(mask_N).tolist()
        clusters, draws = [self.clusters[at] for at in chosen], [self.draws[at] for at in chosen]
        return _Values(self.counts_NC[mask_N], self.example_N[mask_N], clusters, draws)


def compare(metric: Metric, rows: Sequence[Scored], collisions: Collisions) -> dict[str, Any] | None:
    """The scores of all, of the clean and of the dirty; how the clean differ from all, and what that suggests.

    None where no row has a value.
    """
    values = _values(metric, rows)
    if not len(values.counts_NC):
        return None
    dirty_N, asked_N = collisions.dirty_E[values.example_N], collisions.asked_E[values.example_N]
    kinds = {
        "all": np.ones(len(dirty_N), dtype=bool),
        "clean": ~dirty_N,
        "dirty": dirty_N,
        "passage_only": dirty_N & ~asked_N,
        "question_or_answer": asked_N,
    }
    change = relative_change(values.counts_NC, metric.of_counts or _mean, ~dirty_N, values.clusters)
    return {
        "unit": metric.unit,
        "better": metric.better,
        **{name: _estimate(metric, values.where(mask_N)) for name, mask_N in kinds.items()},
        "change": None if change is None else _plain(change),
        "verdict": verdict(change, metric.better, clean=int((~dirty_N).sum()), dirty=int(dirty_N.sum())),
    }


def _values(metric: Metric, rows: Sequence[Scored]) -> _Values:
    kept = [(counts, row) for row in rows if (counts := _counts(metric, row)) is not None]
    if metric.unit_of is not None:
        least = least_of_each([counts[0] for counts, _ in kept], [row.example for _, row in kept])
        kept = [kept[place] for place in least]
    return _Values(
        np.array([counts for counts, _ in kept], dtype=float),
        np.array([row.example for _, row in kept], dtype=np.int64),
        [row.passage for _, row in kept],
        [row.draw for _, row in kept],
    )


def _counts(metric: Metric, row: Scored) -> Sequence[float] | None:
    """What of a row is summed; None where it has no value."""
    if metric.of_counts is not None:
        return row.counts.get(metric.name)
    value = row.value.get(metric.name)
    return None if value is None else (value, 1.0)


def _estimate(metric: Metric, values: _Values) -> dict[str, Any] | None:
    if not len(values.counts_NC):
        return None
    if metric.of_counts is not None:
        return _plain(statistics.whole(values.counts_NC, metric.of_rows, clusters=values.clusters))
    return _plain(
        statistics.summarise(
            values.counts_NC[:, 0], clusters=values.clusters, draws=values.draws, bounded=metric.unit == "%"
        )
    )


def _plain(found: statistics.Estimate | Change) -> dict[str, Any]:
    return {name: finite(value) for name, value in asdict(found).items()}


def _mean(counts_C: Numbers) -> float:
    return float(counts_C[0] / counts_C[1])


def relative_change(
    counts_NC: Numbers, of_counts: Callable[[Numbers], float], clean_N: Bools, clusters: Sequence[str]
) -> Change | None:
    """How much more the clean ones score than all; None where none is clean, or the score of all is 0.

        (score of the clean − score of all) / score of all

    The interval is that of a bootstrap: whole passages are drawn with replacement, and both scores made of the same
    draw, for the clean ones are a part of all.

    Shapes   counts_NC (N, C): what a score is made of when it is summed; clean_N (N,).
    Example  >>> right, clean = np.array([[1.0, 1], [1, 1], [0, 1], [0, 1]]), np.array([True, False, True, True])
             >>> round(relative_change(right, lambda counts: counts[0] / counts[1], clean, [""] * 4).value, 3)
             -0.333
    Source   Brown 2020, Table C.1; Efron 1979.
    """
    cluster_N = cluster_numbers(clusters, len(counts_NC))
    columns_NC = np.concatenate([counts_NC, counts_NC * clean_N[:, None], clean_N[:, None]], axis=1)
    groups, width = int(cluster_N.max()) + 1, counts_NC.shape[1]
    sums_GC = np.zeros((groups, columns_NC.shape[1]))
    np.add.at(sums_GC, cluster_N, columns_NC)

    def change(sums_C: Numbers) -> float:
        score = of_counts(sums_C[:width])
        return float((of_counts(sums_C[width:-1]) - score) / score) if sums_C[-1] and score else math.nan

    value = change(sums_GC.sum(axis=0))
    if math.isnan(value):
        return None
    generator = np.random.default_rng(0)
    draws = (np.bincount(generator.integers(0, groups, groups), minlength=groups) for _ in range(RESAMPLES))
    drawn = [one for one in (change(times_G @ sums_GC) for times_G in draws) if not math.isnan(one)]
    if groups == 1 or not drawn:
        return Change(value, -math.inf, math.inf)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return Change(value, min(value, low), max(value, high))


def verdict(change: Change | None, better: Literal["higher", "lower"], *, clean: int, dirty: int) -> str:
    """What a change suggests, in a few words.

        all clean, none clean       there is nothing to compare
        no score                    the score of all is 0, and no part of it can be told
        similar                     within 1% of the score of all
        not told apart              further, but the interval reaches to 0
        worse where clean           what was read in training may have raised the score
        better where clean          the overlap may have marked the easier, or the harder, examples

    Example  >>> verdict(Change(-0.2, -0.3, -0.1), "higher", clean=50, dirty=50)
             'worse where clean'
             >>> verdict(Change(-0.2, -0.3, -0.1), "lower", clean=50, dirty=50)
             'better where clean'
    Source   Brown 2020, Appendix C: worse by more than 1% or 2% suggests overfitting.
    """
    if not dirty:
        return "all clean"
    if not clean:
        return "none clean"
    if change is None:
        return "no score"
    if abs(change.value) <= TOLERANCE:
        return "similar"
    if change.low <= 0 <= change.high:
        return "not told apart"
    return "worse where clean" if (change.value < 0) == (better == "higher") else "better where clean"
