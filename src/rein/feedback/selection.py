"""Which pairs next: what an answer is expected to tell, from a reward model's doubt or from how people differ so far.

Flow     scores of an ensemble for each item's candidates, or the votes so far → expected information in nats →
         `prioritise` → item.priority, which the queue follows but for the project's uniform share
         the votes so far → `settled` → items that need no more answers are closed

The priority changes which items are asked first and never what is asked. The uniform share of each person's work stays
in the seeded order (queue.py), so that numbers of those items are numbers of all; those of the others are not.

Source   Houlsby et al. 2011, "Bayesian active learning for classification and preference learning" (BALD);
         Lakshminarayanan et al. 2017 (ensembles); Bradley & Terry 1952.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from sqlalchemy import Connection, select

from rein.errors import UserError
from rein.feedback.ballots import aspects, tally
from rein.feedback.items import change_item, set_priorities
from rein.feedback.judgements import Judgements
from rein.feedback.tables import item

Array = npt.NDArray[Any]

MOST_LINE = 1_000_000  # characters of a line of scores


@dataclass(frozen=True)
class Selected:
    """What `prioritise` did: items by their id, with what an answer is expected to tell of each."""

    information: Mapping[int, float]  # nats
    closed: tuple[int, ...]
    unknown: tuple[str, ...]  # keys of scores that no open item has


# ------------------------------------------------------------------------------------------ what an answer tells


def information_of_scores(scores_MK: Sequence[Sequence[float]] | Array) -> float:
    """What a comparison is expected to tell about which member of an ensemble is right; of K > 2, the mean over pairs.

        I = H(mean_m p_m) − mean_m H(p_m),    p_m = σ(s_mi − s_mj),    H in nats

    It is high where members are sure and differ, and low where all of them are in doubt: that is no ignorance of
    theirs but what people differ about, and one more answer would not change it.

    Shapes   scores_MK: member, candidate; M ≥ 2. Returns nats, from 0 to ln 2.
    Example  >>> round(information_of_scores([[9.0, 0.0], [0.0, 9.0]]), 3), information_of_scores([[1, 1], [1, 1]])
             (0.692, 0.0)
    Source   Houlsby et al. 2011; Bradley & Terry 1952.
    """
    scores_MK = np.asarray(scores_MK, dtype=float)
    i, j = np.triu_indices(scores_MK.shape[1], 1)
    p_MP = special.expit(scores_MK[:, i] - scores_MK[:, j])
    found = _entropy(p_MP.mean(0)) - _entropy(p_MP).mean(0)
    return max(0.0, float(found.mean()))


def information_of_votes(first: Array, second: Array) -> Array:
    """What one more answer is expected to tell about how many people prefer the first, after the votes so far.

        I = H(a / (a + b)) − [ψ(a + b + 1) − (a ψ(a + 1) + b ψ(b + 1)) / (a + b)],    a = 1 + first, b = 1 + second

    The share of people has a uniform prior, so that it is Beta(a, b) now. An item that nobody has answered has most to
    tell, and of two with as many answers the one on which people differ.

    Shapes   first, second: votes, one each item. Returns nats.
    Example  >>> information_of_votes(np.array([0, 1, 2]), np.array([0, 1, 0])).round(3).tolist()
             [0.193, 0.11, 0.104]
    Source   Houlsby et al. 2011, for a Beta posterior.
    """
    a, b = 1.0 + np.asarray(first), 1.0 + np.asarray(second)
    known = special.digamma(a + b + 1) - (a * special.digamma(a + 1) + b * special.digamma(b + 1)) / (a + b)
    found: Array = np.maximum(0.0, _entropy(a / (a + b)) - known)
    return found


def sure_of_majority(first: Array, second: Array) -> Array:
    """How sure it is that most people prefer what most of the votes do.

        P(p > ½ | votes) of Beta(1 + first, 1 + second), or of p < ½ where that is more

    Example  >>> sure_of_majority(np.array([0, 3, 4]), np.array([0, 0, 0])).round(3).tolist()
             [0.5, 0.938, 0.969]
    """
    below = special.betainc(1.0 + np.asarray(first), 1.0 + np.asarray(second), 0.5)
    found: Array = np.maximum(below, 1 - below)
    return found


def _entropy(p: Array) -> Array:
    found: Array = special.entr(p) + special.entr(1 - p)
    return found


# ----------------------------------------------------------------------------------------------- in the store


def prioritise_by_scores(conn: Connection, project_id: int, scores: Iterable[tuple[str, Array]]) -> Selected:
    """Gives open items of work the information of their scores (M, K) as priority, each by the importer's key.

    Raises   UserError for scores that are not of an item's candidates.
    """
    rows = conn.execute(_open(project_id).add_columns(item.c.key, item.c.candidates)).all()
    items = {row.key: (row.id, len(row.candidates)) for row in rows}
    found: dict[int, float] = {}
    unknown = []
    for key, scores_MK in scores:
        if key not in items:
            unknown.append(key)
            continue
        number, candidates = items[key]
        if scores_MK.shape[1] != candidates:
            raise UserError(
                f"Item {key!r} has {candidates} candidates, but scores of {scores_MK.shape[1]}.",
                "Give one score for each candidate, in their order, by each member.",
            )
        found[number] = information_of_scores(scores_MK)
    set_priorities(conn, project_id, found)
    return Selected(found, (), tuple(unknown))


def prioritise_by_disagreement(
    conn: Connection, project_id: int, question: str | None = None, *, sure: float | None = None
) -> Selected:
    """Gives open items of work the information of one more vote as priority; closes those of which `sure` is known.

    Of K > 2 candidates, the mean over their pairs; closed once it is so of each pair. Researchers vote as labelers do.

    question   whose answers are the votes; None: the first one that says which candidate is better

    Raises   UserError where no question does, or the named one does not.
    """
    judgements = Judgements(project_id)
    judgements.follow(conn)
    answered, first_BI, second_BI = _votes(judgements, question)
    ids = np.array(conn.execute(_open(project_id)).scalars().all(), dtype=np.int64)
    place = {each: n for n, each in enumerate(answered.tolist())}
    at = np.array([place.get(each, -1) for each in ids.tolist()], dtype=np.int64)
    votes = [
        np.where(at >= 0, each[:, at], 0) if each.shape[1] else np.zeros((1, len(ids)))
        for each in (first_BI, second_BI)
    ]
    found = information_of_votes(*votes).mean(0)
    closed: tuple[int, ...] = ()
    if sure is not None:
        closed = tuple(ids[(sure_of_majority(*votes) >= sure).all(0)].tolist())
        for number in closed:
            change_item(conn, number, closed=True)
    left = dict(zip(ids.tolist(), found.tolist(), strict=True))
    for number in closed:
        del left[number]
    set_priorities(conn, project_id, left)
    return Selected(left, closed, ())


def _open(project_id: int) -> Any:
    return (
        select(item.c.id)
        .where(item.c.project == project_id, item.c.role == "work", item.c.room > 0, ~item.c.closed)
        .order_by(item.c.id)
    )


def _votes(judgements: Judgements, question: str | None) -> tuple[Array, Array, Array]:
    """Items, and votes for the first and for the second of each two candidates, shape (pairs, items)."""
    kinds = {each.name: each.kind for each in judgements.project.questions}
    comparing = [name for name, kind in kinds.items() if kind in ("comparison", "ranking", "rating", "likert")]
    if question is not None and question not in comparing:
        raise UserError(
            f"The question {question!r} does not say which of two candidates is better.",
            f"Name one of: {', '.join(comparing) or 'none of this project does'}.",
        )
    if not comparing:
        raise UserError(
            "No question of this project says which of two candidates is better.",
            "Give --scores of a reward model instead.",
        )
    answers = judgements.answers[question or comparing[0]]
    first = answers.of((answers.turn == 0) & answers.last)
    asked = [each for each in aspects(first) if each.shape == "choice"]
    if not asked or not asked[0].ballots:
        nothing = np.zeros((1, len(first.items)))
        return first.items, nothing, nothing
    counted = tally(asked[0], first.at, np.zeros(len(first), dtype=bool))
    of_items = counted.labelers_BPV[:, counted.pattern_I]
    return first.items, of_items[..., 0], of_items[..., 1]


# ------------------------------------------------------------------------------------------------------ files


def read_scores(path: Path) -> Iterable[tuple[str, Array]]:
    """Scores of an ensemble: {"key": the item's own name, "scores": [[member 1 of each candidate], [member 2], …]}.

    Raises   UserError that names the line, for one that is not that.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the path given to --scores.") from None
    with file:
        for n, line in enumerate(file, 1):
            if line.strip():
                yield _scores(line, f"{path}, line {n}")


def _scores(line: bytes, where: str) -> tuple[str, Array]:
    fix = 'Write {"key": "item 1", "scores": [[0.3, -1.2], [0.1, -0.7]]}: a list for each of two or more members.'
    if len(line) > MOST_LINE:
        raise UserError(f"{where} is longer than {MOST_LINE:,} bytes.", fix)
    try:
        row = json.loads(line)
        key, scores_MK = row["key"], np.array(row["scores"], dtype=float)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise UserError(f"{where} is not an item's key with its scores: {line[:60]!r}.", fix) from None
    if not isinstance(key, str) or scores_MK.ndim != 2 or min(scores_MK.shape) < 2 or not np.isfinite(scores_MK).all():
        raise UserError(f"{where} has scores that are not finite numbers of two members and two candidates.", fix)
    return key, scores_MK


def scores_of(conn: Connection, project_id: int, scorer: Any) -> Iterable[tuple[str, Array]]:
    """Scores by a function of the user's own: scorer(context, texts) gives (M, K), M ≥ 2 members.

    Raises   UserError where it gives something else.
    """
    rows = conn.execute(_open(project_id).add_columns(item.c.key, item.c.context, item.c.candidates)).all()
    for row in rows:
        scores_MK = np.asarray(scorer(row.context, [each["text"] for each in row.candidates]), dtype=float)
        if scores_MK.ndim != 2 or scores_MK.shape[0] < 2 or not np.isfinite(scores_MK).all():
            raise UserError(
                f"The scores of item {row.key!r} have the shape {scores_MK.shape} or are not finite.",
                "A scorer returns a row for each of two or more members, with a finite score for each candidate.",
            )
        yield row.key, scores_MK
