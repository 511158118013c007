"""How far labelers and researchers agree, in the papers' form and beyond chance; what cannot be told says why.

Flow     the store → `Judgements` (held by a server, so that only what is new is read) → `report` → JSON for the page,
         the command and the API; a labeler's own page is mine.py

    {"project", "batch", "answers", "items", "not_compared", "people": {"labelers", "researchers"}, "questions": [
      {"name", "kind", "aspects": [
        {"name", "shape": "choice" | "scale" | "flag",
         "agreement": {"labeler_labeler", "labeler_researcher", "researcher_researcher"},      # neither left out
         "with_ties" | "within_one": {the same three},                             # of a choice with ties | of a scale
         "beyond_chance": {"fleiss", "alpha_nominal", "alpha_ordinal", "rank_correlation"},       # those that fit it
         "majority": {"one_labeler", "mode_of_three", "leave_one_out"},                                   # of a choice
         "flagged"}],                                                                                # share, of a flag
       "cohen": {"pairs": [{"a", "b", "kappa"}], "least", "left_out"},        # a, b: {"id", "name", "researcher"}
       "matrix": {"people": [{"id", "name", "researcher"}], "rows", "rows_with_ties": [[Number | null]], "left_out"},
       "with_researchers": [{"person", "agreement"}],
       "confidence": {"steps": [{"distance", "labeler_labeler", "labeler_researcher"}],
                      "people": [{"person", "from", "agreement"}], "aim"} | null,
       "bias": {…} | null, "repeats": {…}, "gold": {…}, "drift": […]}],                            # monitors.py
     "speed": {…}, "cost": […]}

A number is {"value", "low", "high", "se", "n", "how"}, or {"value": null, "why"}: estimates.py. Of pairs of answers to
the same item by different people; their first answers, so that mirrored repeats do not count twice. Items for practice
and with known answers are left out: they have numbers of their own.

Source   Stiennon 2020, section 3.3 and Appendix C; Ouyang 2022, section 3.4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from rein.feedback.ballots import (
    POINTS,
    Aspect,
    Tally,
    across,
    aspects,
    choice_of,
    points_of,
    with_mode_of_three,
    with_most_others,
    within,
)
from rein.feedback.by_person import (
    NO_RESEARCHER,
    STRICT,
    TIES,
    confidence,
    labelers,
    matrix_and_kappas,
    named,
    with_researchers,
)
from rein.feedback.columns import Answers, among
from rein.feedback.counts import Counts, first_of, sums_of
from rein.feedback.estimates import Number, share
from rein.feedback.items import load_project
from rein.feedback.judgements import Held, Judgements, Lengths
from rein.feedback.monitors import bias, cost, drift, speed
from rein.feedback.reliability import alpha, fleiss, rank_correlation
from rein.feedback.repeats import gold, repeats

Array = npt.NDArray[Any]

_NONE = {
    "labeler_labeler": "No item has answers of two labelers.",
    "labeler_researcher": NO_RESEARCHER,
    "researcher_researcher": "No item has answers of two researchers.",
}
_EXACT = "Pairs of answers by two people that give an output the same value / all such pairs."
_NEAR = "Pairs of answers by two people that give an output the same value or neighbouring ones / all such pairs."


def report(
    conn: Connection, project: int | str, batch: str | None = None, *, held: Held | None = None
) -> dict[str, Any]:
    """All numbers of a project, or of one batch of it, as above.

    A server gives `held`, so that a later report reads what is new alone, and is the same one where nothing is.

    Raises   Refused: unknown, for a project or a batch that there is not.
    """
    project_id, _ = load_project(conn, project)
    with (held or Held()).of(conn, project_id) as judgements:
        state = judgements.state()
        of, found = judgements.reports.get(batch, (None, None))
        if of != state:
            found = report_of(judgements, conn, batch)
            judgements.reports[batch] = state, found
        return dict(found)


def report_of(judgements: Judgements, conn: Connection, batch: str | None = None) -> dict[str, Any]:
    """The report of judgements that have followed the store."""
    sums = sums_of(judgements, batch)
    lengths = judgements.measure(conn)
    sampled = judgements.in_batch(lengths.items_S, batch)
    of_sample = {name: each.of_items(sampled) for name, each in judgements.answers.items()}
    questions = [
        _question(judgements, conn, name, counts, of_sample[name], lengths, batch)
        for name, counts in sums.counts.items()
    ]
    written = [each.written_P for each in sums.counts.values()]
    researchers = judgements.researchers()
    present = np.flatnonzero(np.sum(written, 0)) if written else np.zeros(0, np.int64)
    of_researchers = int(researchers[present].sum()) if len(present) else 0
    pace = speed(judgements, sums.times, list(of_sample.values()), lengths)
    return {
        "project": judgements.project.name,
        "batch": batch,
        "answers": sum(int(each.sum()) for each in written),
        "items": sums.items,
        "not_compared": _not_compared(judgements, batch),  # of the answers: for practice, or with a known right answer
        "people": {"labelers": len(present) - of_researchers, "researchers": of_researchers},
        "questions": questions,
        "speed": pace,
        "cost": cost(questions, pace),
    }


def _not_compared(judgements: Judgements, batch: str | None) -> int:
    ids = judgements.of_role("onboarding", "gold")
    some = judgements.in_batch(ids[among(ids, judgements.items)], batch)
    return sum(len(each.of_items(some).who) for each in judgements.answers.values())


def _question(
    judgements: Judgements, conn: Connection, name: str, counts: Counts, of_sample: Answers, lengths: Lengths,
    batch: str | None,
) -> dict[str, Any]:  # fmt: skip
    answers = judgements.answers[name]
    asked = aspects(answers.of_order(np.zeros(0, np.int64)), counts.frame.best)
    of_people: dict[str, Any] = {"cohen": None, "matrix": None, "with_researchers": [], "confidence": None}
    votes = counts.tallies[0] if answers.question.kind == "comparison" else None
    tallies = (choice_of(votes),) if votes else counts.tallies
    found = [_aspect(aspect, counted) for aspect, counted in zip(asked, tallies, strict=True)]
    if asked:
        of_people |= _of_people(judgements, asked[0], counts, votes)
    if votes and points_of(votes).labelers_BPV.any():
        found.append(_aspect(POINTS, points_of(votes)))

    def of_role(role: str) -> Answers:
        ids = judgements.of_role(role)
        return answers.of_items(judgements.in_batch(ids[among(ids, judgements.items)], batch))

    return {
        "name": name,
        "kind": answers.question.kind,
        "aspects": found,
        **of_people,
        "bias": bias(judgements, counts, first_of(of_sample, counts.frame), lengths),
        "repeats": repeats(judgements, counts),
        "gold": gold(judgements, of_role("gold")),
        "drift": drift(judgements, conn, of_role("drift")),
    }


def _of_people(judgements: Judgements, aspect: Aspect, counts: Counts, votes: Tally | None) -> dict[str, Any]:
    numbers = with_researchers(judgements, counts)
    found: dict[str, Any] = {
        "with_researchers": [
            {"person": named(judgements.people[p]), "agreement": numbers[p]}
            for p in labelers(judgements, counts.first_P)
        ]
    }
    if aspect.shape == "choice":
        found |= matrix_and_kappas(judgements, aspect, counts)
    if votes:
        found["confidence"] = confidence(judgements, counts, votes)
    return found


# ------------------------------------------------------------------------------------------- groups of people


def _aspect(aspect: Aspect, counted: Tally) -> dict[str, Any]:
    choice = aspect.shape == "choice"
    strict = replace(
        counted,
        labelers_BPV=counted.labelers_BPV[..., : aspect.strict],
        researchers_BPV=counted.researchers_BPV[..., : aspect.strict],
    )
    found: dict[str, Any] = {"name": aspect.name, "shape": aspect.shape}
    found["agreement"] = _groups(strict, STRICT if choice else _EXACT)
    if aspect.tie:
        found["with_ties"] = _groups(counted, TIES)
    if aspect.shape == "scale":
        found["within_one"] = _groups(counted, _NEAR, near=True)
    labelers_BPV, weight_P = counted.labelers_BPV, counted.weight_P
    beyond = {"fleiss": fleiss(labelers_BPV, weight_P), "alpha_nominal": alpha(labelers_BPV, weight_P, "nominal")}
    if aspect.shape == "scale":
        beyond["alpha_ordinal"] = alpha(labelers_BPV, weight_P, "ordinal")
        beyond["rank_correlation"] = rank_correlation(labelers_BPV, weight_P)
    found["beyond_chance"] = beyond
    if choice:
        found["majority"] = _majority(strict)
    if aspect.shape == "flag":
        how = "Labelers' answers with the flag / all of theirs."
        yes_and_all = labelers_BPV[..., 1], labelers_BPV.sum(-1)
        found["flagged"] = _summed(yes_and_all, weight_P, how, "No labeler has answered.")
    return found


def _groups(counted: Tally, how: str, *, near: bool = False) -> dict[str, Number]:
    """Agreement within and between the groups, over all ballots; an item is one cluster, with all of its ballots."""
    some, others = counted.labelers_BPV, counted.researchers_BPV
    pairs = {
        "labeler_labeler": within(some, near=near),
        "labeler_researcher": across(some, others, near=near),
        "researcher_researcher": within(others, near=near),
    }
    return {name: _summed(each, counted.weight_P, how, _NONE[name]) for name, each in pairs.items()}


def _summed(pairs: tuple[Array, Array], weight_P: Array, how: str, why: str) -> Number:
    agree_BP, all_BP = pairs
    return share(agree_BP.sum(0), all_BP.sum(0), how, why, weight_P)


def _majority(counted: Tally) -> dict[str, Number]:
    """What the mode of three labelers adds to one: the first two numbers are of items that three have answered."""
    some, others = counted.labelers_BPV, counted.researchers_BPV
    of_three = np.where(some.sum(-1, keepdims=True) >= 3, some, 0)
    none = "No item has answers of three labelers and of a researcher."
    return {
        "one_labeler": _summed(
            across(of_three, others),
            counted.weight_P,
            "Pairs of a labeler's and a researcher's answer that agree / all, of items with three labelers or more.",
            none,
        ),
        "mode_of_three": _summed(
            with_mode_of_three(of_three, others),
            counted.weight_P,
            "What two or more of three labelers say, against a researcher's answer; over all threes of an item.",
            none,
        ),
        "leave_one_out": _summed(
            with_most_others(some),
            counted.weight_P,
            "Labelers' answers that are what most of the other labelers say / all those where most others agree.",
            "No item has a labeler's answer and two or more other labelers most of whom agree.",
        ),
    }
