"""What would go wrong unseen: a preferred side or length, haste, drift over weeks; repeats.py has the rest.

Flow     `Counts` of one question, and its answers to a sample or to fixed pairs → `bias`, `drift` → JSON of
         agreement.report
         `Times` of all questions → `speed`; the report's agreement and pace → `cost`

Speed is a question and never a verdict: whoever reads fast may know the texts. Numbers are of estimates.py.

Source   Stiennon 2020, Appendix C (speed, a fixed set of pairs over time), and its control for length; Wilson 1927.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sqlalchemy import Connection

from rein.feedback.ballots import MISSING
from rein.feedback.columns import Answers
from rein.feedback.counts import Counts, Times, timed
from rein.feedback.estimates import Number, share, simple_shares, told, trend, undefined
from rein.feedback.judgements import Judgements, Lengths

Array = npt.NDArray[Any]

LEAST_FITTED = 100  # answers that a regression is made of
FAST_WORDS = 600  # a minute; twice what most adults read, 175 to 300: Brysbaert 2019
LEAST_TIMED = 20  # answers that a person's pace is told from
SECOND_MS, DAY_MS, WEEK_MS = 1000, 86_400_000, 7 * 86_400_000
MONDAY_MS = 4 * DAY_MS  # 1970 began on a Thursday
HALF_WIDTHS = (0.05, 0.02, 0.01)  # of the intervals whose cost is predicted

_NO_PAIR = "No answer prefers one of two candidates."


# ---------------------------------------------------------------------------------------------- sides, length


def bias(judgements: Judgements, counts: Counts, answers: Answers, lengths: Lengths) -> dict[str, Any] | None:
    """Left side and longer text among strict choices between two; None for a question that has no such choices.

    {"left", "longer", "ties", "length_slope", "people": [{"id", "name", "left", "longer"}]}

    answers   the first ones to the items whose lengths are known
    """
    if counts.ways_PW is None:
        return None
    how_left = "Choices of the text that was shown first / choices whose side is known; 0.5 without a bias (Wilson)."
    how_longer = "Choices of the text with more characters / choices between texts of different lengths (Wilson)."
    ways_PW = counts.ways_PW
    by_P33 = ways_PW[:, :9].reshape(len(ways_PW), 3, 3)
    left_P2, longer_P2 = by_P33[:, :2].sum(2), by_P33[:, :, :2].sum(1)
    sides = simple_shares(left_P2[:, 1], left_P2.sum(1), how_left, _NO_PAIR)
    sizes = simple_shares(longer_P2[:, 1], longer_P2.sum(1), how_longer, _NO_PAIR)
    return {
        "left": _rate(left_P2[:, 1], left_P2, how_left, "No choice between two has a known side."),
        "longer": _rate(longer_P2[:, 1], longer_P2, how_longer, "No choice is between texts of different lengths."),
        "ties": _rate(
            ways_PW[:, 9],
            ways_PW,
            "Answers that prefer neither / all (Wilson).",
            "No item that is compared has an answer.",
        ),
        "length_slope": length_slope(answers, lengths),
        "people": [
            {"id": person.id, "name": person.name, "left": sides[p], "longer": sizes[p]}
            for p, person in enumerate(judgements.people)
            if ways_PW[p].any()
        ],
    }


def length_slope(answers: Answers, lengths: Lengths) -> Number:
    """What a longer text adds to its odds of being chosen: the slope of a logistic regression.

        log P(1 chosen) / P(0 chosen) = intercept + slope · log(characters of 1 / characters of 0)

    The variance is that of items as clusters (White's sandwich). `even` is how often candidate 1 is chosen at equal
    lengths.

    Source   Stiennon 2020, which controls for length so; Liang & Zeger 1986.
    """
    x_N = lengths.log_ratio_S[np.searchsorted(lengths.items_S, answers.item)]
    used = (answers.choice >= 0) & ~np.isnan(x_N)
    x_N, y_N, item_N = x_N[used], answers.choice[used].astype(float), answers.at[used]
    if len(x_N) < LEAST_FITTED:
        return undefined(f"{len(x_N)} choices between two texts of known length; a regression needs {LEAST_FITTED}.")
    if x_N.min() == x_N.max():
        return undefined("All pairs have the same ratio of lengths.")
    fitted = _logistic(x_N, y_N, item_N)
    if fitted is None:
        return undefined("The ratio of lengths tells all choices apart, so that the slope has no bound.")
    intercept, slope, se, items = fitted
    margin = float(stats.t.ppf(0.975, items - 1)) * se
    how = (
        "Slope of a logistic regression of the choice on the log of the ratio of characters, in logits (0: no effect)."
    )
    even = 1 / (1 + math.exp(-intercept))
    return {**told(slope, slope - margin, slope + margin, len(x_N), how, se=se), "even": even}


def _logistic(x_N: Array, y_N: Array, item_N: Array) -> tuple[float, float, float, int] | None:
    """Newton's steps to the likeliest intercept and slope; None where there are none."""
    design_N2 = np.stack([np.ones(len(x_N)), x_N], 1)
    weights_2 = np.zeros(2)
    for _ in range(30):
        p_N = 1 / (1 + np.exp(-np.clip(design_N2 @ weights_2, -500, 500)))
        curve_22 = (design_N2 * (p_N * (1 - p_N))[:, None]).T @ design_N2
        if np.linalg.cond(curve_22) > 1e12:
            return None
        step_2 = np.linalg.solve(curve_22, design_N2.T @ (y_N - p_N))
        weights_2 = weights_2 + step_2
        if np.abs(step_2).max() < 1e-9:
            break
    else:
        return None
    items, item_N = np.unique(item_N, return_inverse=True)
    score_I2 = np.stack([np.bincount(item_N, (y_N - p_N) * each) for each in design_N2.T], 1)
    bread_22 = np.linalg.inv(curve_22)
    groups = len(items)
    variance_22 = bread_22 @ (score_I2.T @ score_I2) @ bread_22 * groups / (groups - 1)
    return float(weights_2[0]), float(weights_2[1]), math.sqrt(variance_22[1, 1]), groups


def _rate(yes: Array, counted: Array, how: str, why: str) -> Number:
    return simple_shares(np.array([yes.sum()]), np.array([counted.sum()]), how, why)[0]


# ------------------------------------------------------------------------------------------------------ weeks


def drift(judgements: Judgements, conn: Connection, answers: Answers) -> list[dict[str, Any]]:
    """For each two policies of the fixed pairs: how often the first is preferred, week by week, and whether that moves.

    [{"policies": [a, b], "weeks": [{"week": "2026-W48", "preferred": Number}], "trend": Number with "p_value"}]

    answers   to the fixed pairs
    """
    here = answers.of((answers.turn == 0) & answers.last & (answers.choice >= 0))
    if answers.question.kind != "comparison" or not len(here):
        return []
    ids = here.items.tolist()
    policies = judgements.policies(conn, ids)
    pair_of = {each: tuple(sorted(policies[each])) for each in ids if len(set(policies[each])) == 2}
    found = []
    for pair in sorted(set(pair_of.values())):
        first_I = np.array([policies[each].index(pair[0]) if pair_of.get(each) == pair else MISSING for each in ids])
        first_N = first_I[here.at]
        mine = here.of(first_N != MISSING)
        yes = (mine.choice == first_N[first_N != MISSING]).astype(float)
        week = (mine.at_ms - MONDAY_MS) // WEEK_MS
        weeks = []
        for each in np.unique(week).tolist():
            inside = week == each
            item = np.unique(mine.at[inside], return_inverse=True)[1]
            weeks.append(
                {
                    "week": _week_name(each),
                    "preferred": share(
                        np.bincount(item, yes[inside]), np.bincount(item),
                        f"Choices of {pair[0] or 'the unnamed policy'} / strict choices, on the fixed pairs.", _NO_PAIR,
                    ),
                }
            )  # fmt: skip
        how = "Change of that share from a week to the next, by least squares; items are clusters (Liang & Zeger 1986)."
        found.append({"policies": list(pair), "weeks": weeks, "trend": trend(yes, week.astype(float), mine.at, how)})
    return found


def _week_name(week: int) -> str:
    """The ISO name of a week, from its number since the first Monday of 1970."""
    monday = datetime.date(1970, 1, 5) + datetime.timedelta(weeks=week)
    return f"{monday.isocalendar().year}-W{monday.isocalendar().week:02d}"


# ------------------------------------------------------------------------------------------------------ speed


def speed(judgements: Judgements, times: Times, answers: Sequence[Answers], lengths: Lengths) -> dict[str, Any]:
    """How long people take: {"median_s", "people": [{"id", "name", "median_s", "words_per_minute", "question"}]}.

    The time is the page's own measure of when it was active. `question` is set where someone answers faster than most
    people read: it is worth asking how they do it.

    answers   to all questions, of the items whose lengths are known
    """
    how = "Median of active seconds for an item; the interval is of order statistics (Conover 1999)."
    how_words = "Words of all texts of an item / active minutes: median over the items of a fixed sample."
    none = "No answer has a measured time."
    if not judgements.people:
        return {"median_s": undefined(none), "people": []}
    who_N, ms_N, item_N = timed(answers)
    words_N = lengths.words_S[np.searchsorted(lengths.items_S, item_N)]
    paces = _by_person(who_N, words_N * 60 / np.maximum(ms_N / SECOND_MS, 1e-3), len(judgements.people))
    people = []
    for p, (person, words) in enumerate(zip(judgements.people, paces, strict=True)):
        taken = times.of(p)
        if len(taken):
            rate = median_of(words, how_words, f"Fewer than {LEAST_TIMED} measured items.", LEAST_TIMED)
            people.append(
                {
                    "id": person.id, "name": person.name, "median_s": _seconds(taken, how, none),
                    "words_per_minute": rate, "question": _question_of_haste(rate),
                }
            )  # fmt: skip
    return {"median_s": _seconds(times.ms_N, how, none), "people": people}


def _by_person(who_N: Array, values_N: Array, people: int) -> list[Array]:
    order = np.argsort(who_N, kind="stable")
    return np.split(values_N[order], np.cumsum(np.bincount(who_N, minlength=people))[:-1])


def _question_of_haste(rate: Number) -> str | None:
    if rate["value"] is None or rate["low"] <= FAST_WORDS:
        return None
    return (
        f"Half of their answers come faster than {rate['value']:,.0f} words a minute are read; most people read 175 to "
        "300 (Brysbaert 2019). Do they know the texts, or skim them?"
    )


def median_of(values_N: Array, how: str, why: str, least: int = 1) -> Number:
    """The median with the order statistics that hold it with 95% confidence; none of fewer than `least` values.

    Source   Conover 1999, confidence intervals of quantiles.
    """
    n = len(values_N)
    if n < least:
        return undefined(why)
    places = _middle(n)
    parted = np.partition(values_N, sorted(set(places)))
    return _told(parted[list(places)], n, how)


def _seconds(ms_N: Array, how: str, why: str) -> Number:
    """The median, in seconds, of milliseconds that are sorted."""
    return _told(ms_N[list(_middle(len(ms_N)))] / SECOND_MS, len(ms_N), how) if len(ms_N) else undefined(why)


def _told(parted_4: Array, n: int, how: str) -> Number:
    low, before, after, high = (float(each) for each in parted_4)
    return told((before + after) / 2, low, high, n, how)


@lru_cache(maxsize=10_000)
def _middle(n: int) -> tuple[int, int, int, int]:
    """The places, among n sorted values, of the lower end, of the two in the middle, and of the upper end."""
    low = int(stats.binom.ppf(0.025, n, 0.5))
    return max(low - 1, 0), (n - 1) // 2, n // 2, min(n - low, n - 1)


# ------------------------------------------------------------------------------------------------------- cost


def answers_to_reach(half_width: float, wanted: float, answers: float) -> float:
    """How many answers in all narrow an interval to ± wanted, as its width goes with one over the root of their number.

        answers · (half width / wanted)²

    Example  >>> answers_to_reach(0.04, 0.02, 1000)
             4000.0
    """
    return answers * (half_width / wanted) ** 2


def cost(questions: Sequence[Mapping[str, Any]], pace: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What ± 5%, 2% and 1% would take on each agreement between people: more pairs of answers, and hours of people.

    [{"question", "groups", "half_width", "pairs": Number, "hours": Number}]
    """
    found = []
    for question in questions:
        for aspect in question["aspects"][:1]:
            for groups, each in aspect["agreement"].items():
                for wanted in HALF_WIDTHS if each["value"] is not None else ():
                    found.append(
                        {
                            "question": question["name"], "groups": groups, "half_width": wanted,
                            **_more(each, wanted, pace["median_s"]),
                        }
                    )  # fmt: skip
    return found


def _more(each: Number, wanted: float, seconds: Number) -> dict[str, Number]:
    half = (each["high"] - each["low"]) / 2
    if each["n"] < 2 or each["se"] is None:
        why = "Too few pairs to tell how much one more would say."
        return {"pairs": undefined(why), "hours": undefined(why)}
    more = max(0, math.ceil(answers_to_reach(half, wanted, each["n"])) - each["n"])
    pairs = {
        "value": more,
        "how": f"Pairs · (half width / {wanted})², less those there are: if new items are as these.",
    }
    if seconds["value"] is None:
        return {"pairs": pairs, "hours": undefined(seconds["why"])}
    # Each pair takes no more than one answer more: the second one of its item.
    hours = {"value": more * seconds["value"] / 3600, "how": "One more answer for each pair, at the median time."}
    return {"pairs": pairs, "hours": hours}
