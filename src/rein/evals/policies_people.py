"""What people in a labeling store said of policies: who wins, and marks on axes, as they are and at equal length.

Flow     a store and a project → `Duel`s of policies (policies_measures.py); marks of each policy on each axis → means
         with 95% intervals, and where they would lie at the length of the references

Candidates go by the policy that the store has for each. Practice is left out; intervals are over what was asked, for
judgements of one prompt are not independent.
Source   Stiennon 2020, section 4 and App. F: a linear regression of Likert marks on policies and log length.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from rein.evals.policies_measures import Duel, rates, told
from rein.evals.statistics import Estimate, cluster_numbers, summarise
from rein.feedback.draw import REFERENCE
from rein.feedback.exchange.exporting import open_export
from rein.feedback.exchange.rows import digest
from rein.feedback.exchange.texts import completion_text
from rein.feedback.judged import REFERENCES, Judged, from_store
from rein.feedback.store import Store

Json = dict[str, Any]
PEOPLE = "people"  # the judge


@dataclass(frozen=True)
class Mark:
    """What somebody gave a text of a policy on an axis."""

    policy: str
    axis: str
    mark: float
    characters: int
    topic: str


def from_people(store: str, project: str, batches: Sequence[str], against: str) -> tuple[list[Json], list[Json]]:
    """Win rates and Likert marks in a project, as they are in policies.json.

    Raises   UserError for an unknown store, project or batch, and a project that asks for no preference.
    """
    judged, _ = from_store(store, project, batches=batches)
    return [rates(duel) for duel in duels_of(judged, against)], axis_means(marks_in(store, project, batches))


def marks_in(store: str, project: str, batches: Sequence[str] = ()) -> list[Mark]:
    """The marks that stand, of Likert axes, and of ratings as an axis of that name."""
    found = list[Mark]()
    with Store.open(store, to_read=True) as opened, opened.reading() as conn:
        export = open_export(conn, project, secret=opened.secret, batches=batches)
        for answer in export.said("likert", "rating"):
            topic = answer.item.document or digest(dict(answer.item.context))
            for n, candidate in enumerate(answer.item.candidates):
                given = answer.value["axes"][n] if answer.kind == "likert" else {"rating": answer.value["ratings"][n]}
                text = completion_text(answer.item, n)
                policy = _named(str(candidate.get("policy", "")))
                found += [Mark(policy, axis, float(mark), len(text), topic) for axis, mark in given.items()]
    return found


def duels_of(judged: Sequence[Judged], against: str) -> list[Duel]:
    """Each policy of the judgements against the references, and against `against`.

    Example  >>> from rein.feedback.judged import Candidate
             >>> two = (Candidate("short", "a"), Candidate("a longer one", "ref"))
             >>> duel, = duels_of([Judged({"prompt": "p"}, two, "ranking", (1, 2), "w", "1", "t")], "a")
             >>> duel.policy, duel.against, duel.wins, duel.lengths
             ('a', 'ref', [1.0], [5])
    """
    met: dict[tuple[str, str], list[tuple[float, int, int, str]]] = defaultdict(list)
    for each in judged:
        better, even = each.pairs()
        for i, j, win in [*((i, j, 1.0) for i, j in better), *((i, j, 0.5) for i, j in even)]:
            one, other = (replace(each.candidates[place], policy=_named(each.candidates[place].policy))
                          for place in (i, j))  # fmt: skip
            if one.policy != other.policy:
                met[one.policy, other.policy].append((win, len(one.text), len(other.text), each.topic))
                met[other.policy, one.policy].append((1 - win, len(other.text), len(one.text), each.topic))
    found = list[Duel]()
    for base in dict.fromkeys((REFERENCE, against)):
        for policy in dict.fromkeys(policy for policy, other in met if other == base):
            if policy != REFERENCE:
                wins, ours, theirs, topics = zip(*met[policy, base], strict=True)
                found.append(Duel(policy, base, PEOPLE, list(wins), list(ours), list(theirs), list(topics)))
    return found


def axis_means(marks: Sequence[Mark]) -> list[Json]:
    """The mean mark of each policy on each axis, as it is and at equal length.

    Equal is the length of the references where they have marks on the axis, else of all texts that have: the mean of
    ln(characters + 1).
    """
    found = list[Json]()
    for axis in dict.fromkeys(mark.axis for mark in marks):
        some = [mark for mark in marks if mark.axis == axis]
        length_N = np.log([mark.characters + 1 for mark in some])
        of_reference = [n for n, mark in enumerate(some) if mark.policy == REFERENCE]
        level = float(length_N[of_reference or slice(None)].mean())
        names = list(dict.fromkeys(mark.policy for mark in some))
        means, slope = adjusted(
            [mark.mark for mark in some], [names.index(mark.policy) for mark in some], length_N - level,
            [mark.topic for mark in some],
        )  # fmt: skip
        for name, controlled in zip(names, means, strict=True):
            own = [mark for mark in some if mark.policy == name]
            raw = summarise([mark.mark for mark in own], clusters=[mark.topic for mark in own], bounded=False)
            found.append(
                {
                    "policy": name, "axis": axis, "marks": len(own), "raw": told(raw),
                    "controlled": told(controlled), "per_log_length": slope,
                }
            )  # fmt: skip
    return found


def adjusted(
    y_N: Sequence[float], group_N: Sequence[int], x_N: npt.NDArray[np.float64], clusters: Sequence[str]
) -> tuple[list[Estimate], float]:
    """Each group's mean of y where x is 0, by one slope of all groups, and that slope.

        y = c_group + w · x + e,     V = G / (G − 1) · (ZᵀZ)⁻¹ Σ_clusters (Zᵀe)(Zᵀe)ᵀ (ZᵀZ)⁻¹

    Intervals are c ± t √V with G − 1 degrees of freedom, G the number of clusters. Where x says nothing within
    groups, w is 0 and the c are plain means.

    Shapes   one entry each mark; groups are numbers from 0, none of them empty.
    Example  >>> means, slope = adjusted([1, 2, 4, 5], [0, 0, 1, 1], np.array([0.0, 1.0, 0.0, 1.0]), list("abcd"))
             >>> [round(one.value, 6) for one in means], round(slope, 6)
             ([1.0, 4.0], 1.0)
    Source   Cameron & Miller 2015, equation 11.
    """
    marks_N, of_N = np.asarray(y_N, dtype=float), np.asarray(group_N)
    groups = int(of_N.max()) + 1
    Z_NC = np.eye(groups)[of_N]
    centred_N = x_N - (Z_NC @ (Z_NC.T @ x_N / Z_NC.sum(0)))
    if float(centred_N @ centred_N) > 1e-12 * max(1.0, float(x_N @ x_N)):
        Z_NC = np.column_stack([Z_NC, x_N])
    bread_CC = np.linalg.inv(Z_NC.T @ Z_NC)
    found_C = bread_CC @ Z_NC.T @ marks_N
    cluster_N = cluster_numbers(clusters, len(marks_N))
    G = int(cluster_N.max()) + 1
    sums_GC = np.zeros((G, Z_NC.shape[1]))
    np.add.at(sums_GC, cluster_N, Z_NC * (marks_N - Z_NC @ found_C)[:, None])
    margin_C = np.full(len(found_C), math.inf)
    if G > 1:
        V_CC = G / (G - 1) * bread_CC @ (sums_GC.T @ sums_GC) @ bread_CC
        margin_C = float(stats.t.ppf(0.975, G - 1)) * np.sqrt(np.maximum(np.diag(V_CC), 0.0))
    counts = np.bincount(of_N)
    means = [
        Estimate(float(c), float(c - margin), float(c + margin), int(n), float(G))
        for c, margin, n in zip(found_C[:groups], margin_C[:groups], counts, strict=True)
    ]
    return means, float(found_C[groups]) if len(found_C) > groups else 0.0


def _named(policy: str) -> str:
    """References have one name, whatever a file called them."""
    return REFERENCE if policy in REFERENCES else policy or "(unnamed)"
