"""Whether answers repeat, and whether they are what is known to be right.

Flow     `Counts` of a question → `repeats`; its answers to gold items → `gold` → JSON of agreement.report
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rein.feedback.ballots import alike, aspects
from rein.feedback.columns import SPREAD, Answers
from rein.feedback.counts import Counts, numbers_of
from rein.feedback.estimates import share, shares, simple_shares, undefined
from rein.feedback.judgements import Judgements

Array = npt.NDArray[Any]

_ALIKE = "Of orders, over all pairs of candidates; ties are left out; values on a scale agree within one."


def repeats(judgements: Judgements, counts: Counts) -> dict[str, Any]:
    """What people say when the same item comes again with its sides mirrored: {"same", "flips", "people"}.

    `flips` are choices that stay on their side of the screen, and so change the candidate.
    """
    how = f"Repeats, with the sides mirrored, that agree with the first answer / all. {_ALIKE}"
    how_flips = (
        "Repeats whose choice stays on its side of the screen / repeats with a choice of one of two, both times."
    )
    none = "Nobody has answered an item twice."
    if not len(counts.again.key_P) or not counts.tallies:
        why = "Answers of this kind are not compared." if len(counts.again.key_P) else none
        return {"same": undefined(why), "flips": undefined(why), "people": []}
    _, who, agree, total = numbers_of(counts.again.key_P)
    same = shares(agree, total, who, len(judgements.people), how, none, counts.again.weight_P)
    _, _, agree_I, total_I = numbers_of(counts.again_I.key_P)
    stays, strict = counts.flips[:1], counts.flips[1:]
    return {
        "same": share(agree_I, total_I, how, none, counts.again_I.weight_P),
        "flips": simple_shares(stays, strict, how_flips, "Nobody has chosen one of two candidates twice.")[0],
        "people": [
            {"id": judgements.people[p].id, "name": judgements.people[p].name, "same": same[p]}
            for p in np.unique(who).tolist()
        ],
    }


def gold(judgements: Judgements, answers: Answers) -> dict[str, Any]:
    """How often people say what is known to be right, on items that look like all others: {"accuracy", "people"}.

    answers   to gold items
    """
    how = f"Answers to gold items that agree with the known one / all. {_ALIKE}"
    none = "No gold item of this question has an answer that can be compared."
    right = _right_answers(judgements, answers)
    mine = answers.of_items(right.item)
    mine = mine.of((mine.turn == 0) & mine.last)
    if not len(mine) or not aspects(mine):
        return {"accuracy": undefined(none), "people": []}
    agree_N, all_N = alike(mine, right.of_order(np.searchsorted(right.item, mine.item)))
    by_person = shares(agree_N, all_N, mine.who, len(judgements.people), how, none)
    return {
        "accuracy": share(np.bincount(mine.at, agree_N), np.bincount(mine.at, all_N), how, none),
        "people": [
            {"id": judgements.people[p].id, "name": judgements.people[p].name, "accuracy": by_person[p]}
            for p in np.unique(mine.who).tolist()
        ],
    }


def _right_answers(judgements: Judgements, answers: Answers) -> Answers:
    """What is right, as an answer to each gold item of which it is known."""
    question = answers.question
    found: list[tuple[int, Any]] = []
    for item in answers.items.tolist():
        value = ((judgements.special[item].gold or {}).get("answers") or {}).get(question.name)
        if value is not None:
            found.append((item, value))
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
    nothing, ids = np.zeros(n, np.int64), np.array([item for item, _ in found], np.int64)
    return Answers(
        question, nothing, nothing, ids, nothing, nothing, choice, np.full(n, np.nan), nothing - 1, nothing - 1,
        nothing - 1, nothing, values, np.ones(n, dtype=bool),
    )  # fmt: skip
