"""How good a reward model is: accuracy, calibration, and what of it is more than the length of the texts.

Flow     scores of judged pairs → `Pairs` → `quality` → plain data: numbers with 95% intervals, tables, a curve

Every number stands beside that of length alone, a logistic regression on ln(length of one / length of the other):
longer texts win 67 to 70% of the pairs of some collections of preferences and 45% of others, so accuracy alone says
little. Intervals are over prompts: pairs of one prompt are not independent.
Source   Stiennon 2020, sections 3.4 and 4.3 (accuracy beside agreement of people, length); Guo 2017 (ECE);
         Dubois 2024 (at equal length).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit

from rein.evals.statistics import Estimate, paired, summarise, whole
from rein.evals.win_rate import win_rates

Array = npt.NDArray[np.float64]
Json = dict[str, Any]

BINS = 10  # of calibration, from ½ to 1
LEAST_PAIRS = 2  # of a row of a table
LEAST_AT_EQUAL_LENGTH = 20  # pairs, for a regression on length


@dataclass(frozen=True)
class Pairs:
    """Pairs of which one is better: the lead of its score, and what accuracy is told apart by.

    Shapes   all one each pair; `length_P` ln(characters of the better one / of the other).
    """

    gap_P: Array
    length_P: Array
    topics: Sequence[str]
    batches: Sequence[str]
    policies: Sequence[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.gap_P)

    def take(self, places: Sequence[int]) -> Pairs:
        """Some of them."""

        def some(values: Sequence[Any]) -> list[Any]:
            return [values[place] for place in places]

        return Pairs(
            self.gap_P[list(places)], self.length_P[list(places)], some(self.topics), some(self.batches),
            some(self.policies),
        )  # fmt: skip


def length_ratio(better: str, worse: str) -> float:
    """ln of how many times as long the better text is, in characters; one more of each, for texts without any.

    Example  >>> round(length_ratio("abc", "a"), 3), length_ratio("", "")
             (0.693, 0.0)
    """
    return math.log((len(better) + 1) / (len(worse) + 1))


def right(gap_P: Array) -> Array:
    """1 where the better one leads, ½ where both are equal, 0 otherwise.

    Example  >>> right(np.array([0.5, 0.0, -2.0])).tolist()
             [1.0, 0.5, 0.0]
    """
    found: Array = (np.sign(gap_P) + 1) / 2
    return found


def nll(gap_P: Array) -> Array:
    """−log σ(lead) of each pair, in nats.

    Example  >>> nll(np.array([0.0])).round(3).tolist()
             [0.693]
    """
    found: Array = np.logaddexp(0, -gap_P)
    return found


def length_weight(length_P: Array) -> float:
    """The weight w of length alone, fitted to training pairs: P(better over worse) = σ(w · ln(their lengths' ratio)).

    A constant would say that one side is better because it is on that side; there is none.

    Example  >>> round(length_weight(np.log([2.0, 2.0, 2.0, 0.5])), 3)  # ln 3 / ln 2
             1.585
    """
    if not len(length_P) or not np.any(length_P):
        return 0.0
    found = minimize_scalar(
        lambda w: float(np.logaddexp(0, -w * length_P).sum() + 1e-6 * w * w), bounds=(-100, 100), method="bounded",
        options={"xatol": 1e-8},
    )  # fmt: skip
    return float(found.x)


def calibration(gap_P: Array, bins: int = BINS) -> tuple[float, list[Json]]:
    """The expected calibration error, and each bin: how sure the model was, how often it was right, of how many.

        ECE = Σ_bins n_b / n · |right_b − sure_b|,   sure = σ(|lead|), from ½ to 1

    Example  >>> gap = np.log([9.0, 9.0, 1 / 9, 1.5])  # sure of 0.9, 0.9, 0.9 and 0.6; right but for the third
             >>> round(calibration(gap)[0], 4)  # ¾ · |⅔ − 0.9| + ¼ · |1 − 0.6|
             0.275
    Source   Guo 2017, equation 3.
    """
    sure_P, right_P = expit(np.abs(gap_P)), right(gap_P)
    bin_P = np.minimum(((sure_P - 0.5) * 2 * bins).astype(int), bins - 1)
    found = []
    for each in range(bins):
        here = bin_P == each
        if here.any():
            n = int(here.sum())
            found.append({"sure": float(sure_P[here].mean()), "right": float(right_P[here].mean()), "n": n})
    return float(sum(one["n"] * abs(one["right"] - one["sure"]) for one in found) / len(gap_P)), found


def perfect(agreement: Json | None) -> Json | None:
    """How often a model that is never wrong agrees with one labeler, where two labelers agree so often; with its ends.

        agreement = q² + (1 − q)²        q = (1 + √(2 · agreement − 1)) / 2

    Labelers are right q of the time, on every pair alike and each by themselves: mistakes that they have in common
    raise their agreement, and pairs that differ in difficulty change it too. So this is no bound, but what accuracy is
    fairly held against; the agreement itself is lower, and a model may well be above it. None where less than half
    agree.

    Example  >>> {name: round(x, 2) for name, x in perfect({"value": 0.73, "low": 0.7, "high": 0.76, "n": 40}).items()}
             {'value': 0.84, 'low': 0.82, 'high': 0.86, 'n': 40}
    """
    if agreement is None or agreement["value"] is None or agreement["value"] < 0.5:
        return None
    ends = {name: x if x is None else (1 + math.sqrt(max(2 * x - 1, 0))) / 2 for name, x in agreement.items()
            if name != "n"}  # fmt: skip
    return {**ends, "n": agreement["n"]}


def tells_length(wins: Sequence[float] | Array) -> bool:
    """Whether these outcomes can say what would be at equal length: some pairs, and not all with the same outcome.

    Of fewer, or where one side has won all, the prior of the regression decides, and the bootstrap's interval, of draws
    that are all alike, is far too narrow.

    Example  >>> tells_length([1.0, 0.0] * 10), tells_length([1.0, 0.0] * 9), tells_length([1.0] * 100)
             (True, False, False)
    """
    return len(wins) >= LEAST_AT_EQUAL_LENGTH and len(set(map(float, wins))) > 1


def quality(
    pairs: Pairs, *, weight: float, agreement: Sequence[float] = (), agreement_topics: Sequence[str] = ()
) -> Json:
    """Everything that a report says of a model on some pairs.

    weight      of length alone, from `length_weight` of the training pairs
    agreement   of each two people and pair that both judged: 1 where they agree

    Returns     accuracy, nll, ece, length_accuracy, length_nll, over_length (accuracy less that of length alone),
                at_equal_length (by regression), at_equal_length_strata, both None where `tells_length` says no,
                agreement: {"value", "low", "high", "n"};
                bins of calibration; by_batch and by_policies
    """
    right_P, length_gap_P = right(pairs.gap_P), weight * pairs.length_P
    length_right_P = right(length_gap_P)
    _, bins = calibration(pairs.gap_P)
    more = paired(right_P, length_right_P, pairs.topics)
    # A length is given to a win by the model as to a win by a policy: what remains of accuracy where both are as long.
    equal = win_rates(right_P, np.exp(pairs.length_P), np.ones(len(pairs)), clusters=pairs.topics, difference="log")
    controlled, stratified = (equal.controlled, equal.stratified) if tells_length(right_P) else (None, None)
    return {
        "n": len(pairs),
        "prompts": len(set(pairs.topics)),
        "accuracy": _said(summarise(right_P, clusters=pairs.topics)),
        "nll": _said(summarise(nll(pairs.gap_P), clusters=pairs.topics, bounded=False)),
        "ece": _said(whole(pairs.gap_P, lambda gap_P: calibration(gap_P)[0], clusters=pairs.topics, resamples=200)),
        "longer_wins": _said(summarise(right(pairs.length_P), clusters=pairs.topics)),
        "length_accuracy": _said(summarise(length_right_P, clusters=pairs.topics)),
        "length_nll": _said(summarise(nll(length_gap_P), clusters=pairs.topics, bounded=False)),
        "over_length": {"value": more.value, "low": more.low, "high": more.high, "n": more.n, "p": more.p_value},
        "at_equal_length": None if controlled is None else _part(asdict(controlled)),
        "at_equal_length_strata": None if stratified is None else _part(asdict(stratified)),
        "agreement": _said(summarise(agreement, clusters=agreement_topics)) if len(agreement) else None,
        "bins": bins,
        "by_batch": list(_table(pairs, [name or "–" for name in pairs.batches])),
        "by_policies": list(_table(pairs, [" · ".join(sorted(a or "–" for a in two)) for two in pairs.policies])),
    }


def _table(pairs: Pairs, names: Sequence[str]) -> Iterator[Json]:
    """Accuracy by name, those with most pairs first."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    for name, some in sorted(places.items(), key=lambda one: (-len(one[1]), one[0])):
        if len(some) >= LEAST_PAIRS:
            part = pairs.take(some)
            yield {"name": name, **_said(summarise(right(part.gap_P), clusters=part.topics))}


def _said(estimate: Estimate) -> Json:
    return _part(asdict(estimate))


def _part(values: Json) -> Json:
    kept = {name: values[name] for name in ("value", "low", "high", "n")}
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in kept.items()}
