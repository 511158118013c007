"""Who agrees with whom: everyone with everyone, each labeler with the researchers, and how much surer ones agree more.

Flow     `Counts` of a question → `matrix_and_kappas`, `with_researchers`, `confidence` → JSON of agreement.report

Source   Stiennon 2020, Appendix C: labels whose confidence is above a labeler's own threshold, from which on they
         agree with researchers in 80%.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rein.feedback.ballots import NEITHER, VOTE_POINTS, Aspect, Tally, choice_of
from rein.feedback.counts import EVEN, MOST_PEOPLE, UNSURE, Counts, numbers_of
from rein.feedback.estimates import Number, share, shares, told, undefined, wilson
from rein.feedback.judgements import Judgements, Person
from rein.feedback.reliability import cohen

Array = npt.NDArray[Any]

LEAST_SHARED = 20  # choices that two people have in common, for a kappa of theirs
MOST_KAPPAS = 40  # pairs of people that have one: those with the most in common
CONFIDENT = 0.8  # agreement with researchers that labels count as confident from
LEAST_CONFIDENT = 20  # pairs with researchers that a labeler's threshold is found from

STRICT = "Agreeing pairs / all pairs of answers to the same item by two people; pairs with a tie are left out."
TIES = "Agreeing pairs / all pairs of answers to the same item by two people; a tie agrees with a tie alone."
NO_RESEARCHER = "No item has answers of a labeler and of a researcher."
AGREE_WITH = (
    "A labeler's answers that agree with a researcher's / all pairs; ties are left out, ratings agree within one."
)


def named(person: Person) -> dict[str, Any]:
    """A person, in a report."""
    return {"id": person.id, "name": person.name, "researcher": person.researcher}


def matrix_and_kappas(judgements: Judgements, aspect: Aspect, counts: Counts) -> dict[str, Any]:
    """Everyone against everyone: the matrix of agreement, and Cohen's kappa of those who share enough."""
    written_P = counts.first_P
    chosen = [int(each) for each in np.argsort(-written_P, kind="stable")[:MOST_PEOPLE] if written_P[each]]
    chosen.sort(key=lambda p: (not judgements.people[p].researcher, judgements.people[p].name))
    assert counts.both is not None, f"each two are not counted of {aspect.name}"
    places = np.searchsorted(counts.seen, np.array(chosen, np.int64))
    tables_PVPV, shared_PP = (
        counts.both[0][places][:, :, places].astype(float),
        counts.both[1][np.ix_(places, places)].astype(float),
    )
    people = [judgements.people[each] for each in chosen]
    n, strict = len(chosen), aspect.strict
    rows = _matrix(tables_PVPV[:, :strict, :, :strict], shared_PP, STRICT)
    with_ties = _matrix(tables_PVPV, shared_PP, TIES) if aspect.tie else None
    common_PP = tables_PVPV.sum((1, 3))
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n) if common_PP[a, b] >= LEAST_SHARED]
    pairs.sort(key=lambda pair: -common_PP[pair])
    kappas = [
        {"a": named(people[a]), "b": named(people[b]), "kappa": cohen(tables_PVPV[a, :, b])}
        for a, b in pairs[:MOST_KAPPAS]
    ]
    left_out = int((written_P > 0).sum()) - n
    return {
        "cohen": {"pairs": kappas, "least": LEAST_SHARED, "left_out": max(len(pairs) - MOST_KAPPAS, 0)},
        "matrix": {
            "people": [named(each) for each in people],
            "rows": rows,
            "rows_with_ties": with_ties,
            "left_out": left_out,
        },
    }


def _matrix(tables_PVPV: Array, shared_PP: Array, how: str) -> list[list[Number | None]]:
    """Each two people's agreement. Of theirs an item with several ballots counts as one: they are not independent."""
    agree_PP, all_PP = np.einsum("acbc->ab", tables_PVPV), tables_PVPV.sum((1, 3))
    share_PP = agree_PP / np.maximum(all_PP, 1)
    low_PP, high_PP = wilson(share_PP, np.maximum(np.minimum(shared_PP, all_PP), 1))
    n = len(all_PP)
    return [
        [
            told(float(share_PP[a, b]), float(low_PP[a, b]), float(high_PP[a, b]), int(all_PP[a, b]), how)
            if a != b and all_PP[a, b]
            else None
            for b in range(n)
        ]
        for a in range(n)
    ]


def with_researchers(judgements: Judgements, counts: Counts) -> list[Number]:
    """Each labeler's agreement with researchers; of each of `people`."""
    _, who, agree, total = numbers_of(counts.with_researchers.key_P)
    people = len(judgements.people)
    return shares(agree, total, who, people, AGREE_WITH, NO_RESEARCHER, counts.with_researchers.weight_P)


def labelers(judgements: Judgements, written_P: Array) -> list[int]:
    """Places of the labelers among those who answered."""
    return [p for p in np.flatnonzero(written_P).tolist() if not judgements.people[p].researcher]


# ------------------------------------------------------------------------------------------------ confidence


def confidence(judgements: Judgements, counts: Counts, votes: Tally) -> dict[str, Any]:
    """Whether those who were surer agree more, and from where on each labeler's answers agree with researchers'.

    Confidence is how far from even an answer is on the 9-point scale: |points − 5|.
    """
    choices = choice_of(votes)
    strict_BPV, experts_BPV = choices.labelers_BPV[..., :NEITHER], choices.researchers_BPV[..., :NEITHER]
    by_points_BPVQ = votes.labelers_BPV.reshape(*votes.labelers_BPV.shape[:2], 3, VOTE_POINTS)[..., :NEITHER, :]
    steps = []
    for distance in range(1, EVEN):
        here_BPV = by_points_BPVQ[..., [EVEN - distance, EVEN + distance]].sum(-1)
        with_labelers = (here_BPV * (strict_BPV - 1)).sum((0, -1)), (here_BPV.sum(-1) * (strict_BPV.sum(-1) - 1)).sum(0)
        with_experts = (here_BPV * experts_BPV).sum((0, -1)), (here_BPV.sum(-1) * experts_BPV.sum(-1)).sum(0)
        steps.append(
            {
                "distance": distance,
                "labeler_labeler": share(
                    *with_labelers,
                    "Labelers' answers as far from even that agree with another labeler's, over all pairs.",
                    "No such answer is on an item that another labeler has answered.",
                    votes.weight_P,
                ),
                "labeler_researcher": share(
                    *with_experts,
                    "Labelers' answers as far from even that agree with a researcher's, over all pairs.",
                    "No such answer is on an item that a researcher has answered.",
                    votes.weight_P,
                ),
            }
        )
    return {"steps": steps, "people": _thresholds(judgements, counts), "aim": CONFIDENT}


def _thresholds(judgements: Judgements, counts: Counts) -> list[dict[str, Any]]:
    """Each labeler's lowest distance from even from which on their answers agree with researchers' in CONFIDENT."""
    people = len(judgements.people)
    assert counts.surely is not None, "a comparison has a distance from even"
    far, who, agree, total = numbers_of(counts.surely.key_P)
    how = "Agreement with researchers of a labeler's answers at least as far from even (Stiennon 2020, Appendix C)."
    none = "No answer of theirs is on an item that a researcher has answered."
    by_distance = []
    for distance in range(1, EVEN):
        here = (far >= distance) & (far != UNSURE)
        by_distance.append(shares(agree[here], total[here], who[here], people, how, none, counts.surely.weight_P[here]))
    held_against = np.bincount(who, minlength=people)
    found = []
    for p in labelers(judgements, held_against):
        person = judgements.people[p]
        enough = [
            n for n, each in enumerate(by_distance) if each[p]["value"] is not None and each[p]["n"] >= LEAST_CONFIDENT
        ]
        reached = [n for n in enough if by_distance[n][p]["value"] >= CONFIDENT]
        if reached:
            found.append({"person": named(person), "from": reached[0] + 1, "agreement": by_distance[reached[0]][p]})
            continue
        why = (
            f"At no distance from even do {CONFIDENT:.0%} of their answers agree with researchers'."
            if enough
            else f"Fewer than {LEAST_CONFIDENT} pairs with a researcher's answer."
        )
        found.append({"person": named(person), "from": None, "agreement": undefined(why)})
    return found
