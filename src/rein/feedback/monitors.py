"""What would go wrong unseen: a preferred side or length, haste, answers that do not repeat, drift over weeks.

Flow     `Answers` of one question → `bias`, `repeats`, `gold`, `drift` → JSON of agreement.report
         answers of all questions → `speed`; the report's agreement and pace → `cost`

Speed is a question and never a verdict: whoever reads fast may know the texts. Numbers are of estimates.py.

Source   Stiennon 2020, Appendix C (speed, a fixed set of pairs over time), and its control for length; Wilson 1927.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sqlalchemy import Connection

from rein.feedback.ballots import MISSING, aspects
from rein.feedback.estimates import Number, share, shares, simple_shares, told, trend, undefined
from rein.feedback.judgements import NONE, SPREAD, Answers, Judgements, Lengths

Array = npt.NDArray[Any]

LEAST_FITTED = 100  # answers that a regression is made of
FAST_WORDS = 600  # a minute; twice what most adults read, 175 to 300: Brysbaert 2019
LEAST_TIMED = 20  # answers that a person's pace is told from
DAY_MS, WEEK_MS = 86_400_000, 7 * 86_400_000
MONDAY_MS = 4 * DAY_MS  # 1970 began on a Thursday
HALF_WIDTHS = (0.05, 0.02, 0.01)  # of the intervals whose cost is predicted

_NO_PAIR = "No answer prefers one of two candidates."
_ALIKE = "Of orders, over all pairs of candidates; ties are left out; values on a scale agree within one."


# ---------------------------------------------------------------------------------------------- sides, length


def bias(judgements: Judgements, answers: Answers, lengths: Lengths) -> dict[str, Any] | None:
    """Left side and longer text among strict choices between two; None for a question that has no such choices.

    {"left", "longer", "ties", "length_slope", "people": [{"id", "name", "left", "longer"}]}
    """
    if answers.question.kind != "comparison":
        return None
    people = len(judgements.people)
    how_left = "Choices of the text that was shown first / choices whose side is known; 0.5 without a bias (Wilson)."
    how_longer = "Choices of the text with more characters / choices between texts of different lengths (Wilson)."
    # How often each person chose how: neither, and of others the side and the length, each 0, 1 or not known.
    said = answers.choice >= -1
    way_N = np.where(answers.choice == -1, 9, (answers.left % 3) * 3 + answers.longer % 3)
    key_N = answers.who[said] * 10 + way_N[said]
    ways_PW = np.bincount(key_N, minlength=people * 10).reshape(people, 10)
    by_P33 = ways_PW[:, :9].reshape(people, 3, 3)
    left_P2, longer_P2 = by_P33[:, :2].sum(2), by_P33[:, :, :2].sum(1)
    sides = simple_shares(left_P2[:, 1], left_P2.sum(1), how_left, _NO_PAIR)
    sizes = simple_shares(longer_P2[:, 1], longer_P2.sum(1), how_longer, _NO_PAIR)
    return {
        "left": _rate(left_P2[:, 1], left_P2, how_left, "No choice between two has a known side."),
        "longer": _rate(longer_P2[:, 1], longer_P2, how_longer, "No choice is between texts of different lengths."),
        "ties": _rate(ways_PW[:, 9], ways_PW, "Answers that prefer neither / all (Wilson).", "There are no answers."),
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
    x_N = lengths.log_ratio_I[answers.at]
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


# --------------------------------------------------------------------------------- repeats and known answers


def repeats(judgements: Judgements, answers: Answers) -> dict[str, Any]:
    """What people say when the same item comes again with its sides mirrored: {"same", "flips", "people"}.

    `flips` are choices that stay on their side of the screen, and so change the candidate.
    """
    how = f"Repeats, with the sides mirrored, that agree with the first answer / all. {_ALIKE}"
    how_flips = (
        "Repeats whose choice stays on its side of the screen / repeats with a choice of one of two, both times."
    )
    none = "Nobody has answered an item twice."
    again = answers.of((answers.turn == 1) & answers.last)
    twice = np.zeros(len(judgements.items), dtype=bool)
    twice[again.at] = True
    first = answers.of(twice[answers.at] & (answers.turn == 0) & answers.last)
    people = len(judgements.people)
    one, other = (each.at.astype(np.int64) * people + each.who for each in (first, again))
    _, before, after = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    both = [first.of_order(before), again.of_order(after)]
    if not len(both[0]) or not aspects(both[0]):
        why = "Answers of this kind are not compared." if len(both[0]) else none
        return {"same": undefined(why), "flips": undefined(why), "people": []}
    agree_N, all_N = _alike(*both)
    who, at = both[0].who, both[0].at
    items = len(judgements.items)
    strict = (both[0].left != NONE) & (both[1].left != NONE) & (both[0].choice >= 0) & (both[1].choice >= 0)
    stays = strict & (both[0].choice != both[1].choice) & (both[0].left == both[1].left)
    same = shares(agree_N, all_N, who, people, how, none)
    return {
        "same": share(np.bincount(at, agree_N, items), np.bincount(at, all_N, items), how, none),
        "flips": _rate(stays, strict, how_flips, "Nobody has chosen one of two candidates twice."),
        "people": [
            {"id": judgements.people[p].id, "name": judgements.people[p].name, "same": same[p]}
            for p in np.unique(who).tolist()
        ],
    }


def gold(judgements: Judgements, answers: Answers) -> dict[str, Any]:
    """How often people say what is known to be right, on items that look like all others: {"accuracy", "people"}."""
    how = f"Answers to gold items that agree with the known one / all. {_ALIKE}"
    none = "No gold item of this question has an answer that can be compared."
    right, known = _right_answers(judgements, answers)
    here = (known & judgements.with_role("gold"))[answers.at] & (answers.turn == 0) & answers.last
    mine = answers.of(here)
    if not len(mine) or not aspects(mine):
        return {"accuracy": undefined(none), "people": []}
    agree_N, all_N = _alike(mine, right.of_order(np.searchsorted(right.at, mine.at)))
    items, people = len(judgements.items), len(judgements.people)
    by_person = shares(agree_N, all_N, mine.who, people, how, none)
    return {
        "accuracy": share(np.bincount(mine.at, agree_N, items), np.bincount(mine.at, all_N, items), how, none),
        "people": [
            {"id": judgements.people[p].id, "name": judgements.people[p].name, "accuracy": by_person[p]}
            for p in np.unique(mine.who).tolist()
        ],
    }


def _right_answers(judgements: Judgements, answers: Answers) -> tuple[Answers, Array]:
    """What is right, as an answer to each item of which it is known; and which items those are."""
    question = answers.question
    known = np.zeros(len(judgements.items), dtype=bool)
    found: list[tuple[int, Any]] = []
    for item, special in judgements.special.items():
        at = int(np.searchsorted(judgements.items, item))
        value = ((special.gold or {}).get("answers") or {}).get(question.name)
        if value is not None and at < len(known) and judgements.items[at] == item:
            known[at] = True
            found.append((at, value))
    found.sort(key=lambda pair: pair[0])
    n = len(found)
    choice, values = np.full(n, -2, np.int8), None
    if question.kind == "comparison":
        choice[:] = [-1 if value["choice"] is None else value["choice"] for _, value in found]
    elif question.kind == "best_of":
        choice[:] = [value["best"] for _, value in found]
    elif answers.values is not None:
        values = np.full((n, answers.values.shape[1]), np.nan, np.float32)
        for row, (_, value) in enumerate(found):
            numbers = SPREAD[question.kind](value, question)[: values.shape[1]]
            values[row, : len(numbers)] = numbers
    nothing = np.zeros(n, np.int64)
    right = Answers(
        question, nothing, nothing, nothing, nothing, nothing, choice, np.full(n, np.nan), nothing - 1, nothing - 1,
        nothing - 1, nothing, values, np.array([at for at, _ in found], np.int64), np.ones(n, dtype=bool),
    )  # fmt: skip
    return right, known


def _alike(a: Answers, b: Answers) -> tuple[Array, Array]:
    """Of each two answers: on how many votes of the first aspect they agree, and of how many; ties are left out."""
    agree_N, all_N = np.zeros(len(a), np.int64), np.zeros(len(a), np.int64)
    one, other = aspects(a)[0], aspects(b)[0]
    for x, y in zip(one.ballots, other.ballots, strict=True):
        said = (x.code_N != MISSING) & (y.code_N != MISSING)
        if one.tie:
            said &= (x.code_N < one.strict) & (y.code_N < other.strict)
        agree_N += said & (np.abs(x.code_N - y.code_N) <= (one.shape == "scale"))
        all_N += said
    return agree_N, all_N


# ------------------------------------------------------------------------------------------------------ weeks


def drift(judgements: Judgements, conn: Connection, answers: Answers) -> list[dict[str, Any]]:
    """For each two policies of the fixed pairs: how often the first is preferred, week by week, and whether that moves.

    [{"policies": [a, b], "weeks": [{"week": "2026-W48", "preferred": Number}], "trend": Number with "p_value"}]
    """
    fixed = judgements.with_role("drift")
    here = answers.of(fixed[answers.at] & (answers.turn == 0) & answers.last & (answers.choice >= 0))
    if answers.question.kind != "comparison" or not len(here):
        return []
    ids = judgements.items[np.unique(here.at)].tolist()
    policies = judgements.policies(conn, ids)
    pair_of = {each: tuple(sorted(policies[each])) for each in ids if len(set(policies[each])) == 2}
    found = []
    for pair in sorted(set(pair_of.values())):
        first = np.full(len(judgements.items), MISSING)
        for item in (each for each, its in pair_of.items() if its == pair):
            first[np.searchsorted(judgements.items, item)] = policies[item].index(pair[0])
        mine = here.of(first[here.at] != MISSING)
        yes = (mine.choice == first[mine.at]).astype(float)
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


def speed(judgements: Judgements, answers: Sequence[Answers], lengths: Lengths) -> dict[str, Any]:
    """How long people take: {"median_s", "people": [{"id", "name", "median_s", "words_per_minute", "question"}]}.

    The time is the page's own measure of when it was active. `question` is set where someone answers faster than most
    people read: it is worth asking how they do it.
    """
    how = "Median of active seconds for an item; the interval is of order statistics (Conover 1999)."
    how_words = "Words of all texts of an item / active minutes: median over the items of a fixed sample."
    none = "No answer has a measured time."
    if not answers or not judgements.people:
        return {"median_s": undefined(none), "people": []}
    # One row for each time that an item was answered, whichever question has it.
    parts, seen = [], np.zeros(0, np.int64)
    for each in answers:
        timed = np.flatnonzero(each.active_ms != NONE)
        if len(answers) > 1:
            timed = timed[~np.isin(each.assignment[timed], seen)]
            seen = np.concatenate([seen, each.assignment[timed]])
        parts.append((each.who[timed], each.at[timed], each.active_ms[timed] / np.float32(1000)))
    who_N, at_N, second_N = (np.concatenate(each) for each in zip(*parts, strict=True))
    sampled = np.flatnonzero(~np.isnan(lengths.words_I)[at_N])
    pace = lengths.words_I[at_N[sampled]] * 60 / np.maximum(second_N[sampled], 1e-3)
    seconds = _by_person(who_N, second_N, len(judgements.people))
    paces = _by_person(who_N[sampled], pace, len(judgements.people))
    people = []
    for person, taken, words in zip(judgements.people, seconds, paces, strict=True):
        if len(taken):
            rate = median_of(words, how_words, f"Fewer than {LEAST_TIMED} measured items.", LEAST_TIMED)
            people.append(
                {
                    "id": person.id, "name": person.name, "median_s": median_of(taken, how, none),
                    "words_per_minute": rate, "question": _question_of_haste(rate),
                }
            )  # fmt: skip
    return {"median_s": median_of(second_N, how, none), "people": people}


def _by_person(who_N: Array, values_N: Array, people: int) -> list[Array]:
    order = np.argsort(who_N.astype(np.int16) if people < 2**15 else who_N, kind="stable")  # radix: 16 bits are quick
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
    low = int(stats.binom.ppf(0.025, n, 0.5))
    places = sorted({max(low - 1, 0), (n - 1) // 2, n // 2, min(n - low, n - 1)})
    parted = np.partition(values_N, places)
    middle = float(parted[(n - 1) // 2] + parted[n // 2]) / 2
    return told(middle, float(parted[max(low - 1, 0)]), float(parted[min(n - low, n - 1)]), n, how)


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
