"""The onboarding round: practice items with their right answers, and the mark that lets a person work.

Flow     what a person answered to a practice item, and what is right → `agreed` → a share, and what the labeler is told
         the round so far → `settle` → in training still, at work, or stopped

Source   Stiennon 2020, Appendix C: a shared set with immediate feedback, and a threshold on agreement and speed.

A round is of `Project.onboarding` practice items, or of as many as there are that the person has not had. What was
skipped agrees with nothing. A researcher may let a person work all the same, or begin another round, with other items,
by setting the member's state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from sqlalchemy import Connection, func, select, update

from rein.feedback.answers import active_ms
from rein.feedback.kinds import KINDS
from rein.feedback.project import Project
from rein.feedback.queue import TAKEN
from rein.feedback.tables import answer, assignment, feedback, item, member

Json = Any
Answers = Mapping[str, Mapping[str, Json]]

_NEAR = 1  # points of a scale: Likert marks of two careful people differ by as much


def agreed(kind: str, value: Mapping[str, Json], right: Mapping[str, Json], n: int) -> float | None:
    """How far an answer about `n` candidates agrees with the right one, from 0 to 1; None where none is right.

    comparison       1 for the same one, or even in both; ½ where one of the two says even; 0 for the other one
    ranking          the same of each two candidates, on average
    best_of          1 for the same one
    rating, likert   the share of the marks that are at most 1 point from the right ones
    flags            for each candidate the flags in common, of all that either has; on average

    Example  >>> agreed("comparison", {"choice": None, "points": 5}, {"choice": 1, "points": 8}, 2)
             0.5
             >>> agreed("rating", {"ratings": [3, 7]}, {"ratings": [4, 4]}, 2)
             0.5
    """
    if kind in ("comparison", "ranking"):
        said, known = _relations(kind, value, n), _relations(kind, right, n)
        return fmean(1 - abs(said[pair] - known[pair]) / 2 for pair in known) if known else None
    if kind == "best_of":
        return float(value["best"] == right["best"])
    if kind == "rating":
        return _share_near(value["ratings"], right["ratings"])
    if kind == "likert":
        said_axes = [row.get(axis) for row, known_row in _rows("axes", value, right) for axis in known_row]
        return _share_near(said_axes, [mark for row in right["axes"] for mark in row.values()])
    if kind == "flags":
        both = [(set(said_row), set(known_row)) for said_row, known_row in _rows("flags", value, right)]
        return fmean(len(a & b) / len(a | b) if a | b else 1.0 for a, b in both) if both else None
    return None


def _relations(kind: str, value: Mapping[str, Json], n: int) -> dict[tuple[int, int], int]:
    """Of each two candidates i < j: 1 where i is better, -1 where j is, 0 where neither."""
    strict, even = KINDS[kind].pairs(dict(value), n)
    found = {(i, j) if i < j else (j, i): 1 if i < j else -1 for i, j in strict}
    return found | {(min(i, j), max(i, j)): 0 for i, j in even}


def _rows(name: str, value: Mapping[str, Json], right: Mapping[str, Json]) -> list[tuple[Json, Json]]:
    return list(zip(value[name], right[name], strict=True))


def _share_near(said: Sequence[Json], right: Sequence[Json]) -> float | None:
    pairs = [(a, b) for a, b in zip(said, right, strict=True) if b is not None]
    return fmean(a is not None and abs(a - b) <= _NEAR for a, b in pairs) if pairs else None


def agreed_with_gold(settings: Project, gold: Json, answers: Answers, n: int) -> float | None:
    """The same over all questions that have a right answer. One that was not answered agrees with nothing.

    None where no question has a right answer that can be compared.
    """
    shares = []
    for name, right in (gold or {}).get("answers", {}).items():
        kinds = {question.name: question.kind for question in settings.questions}
        if name not in kinds:
            continue
        share = agreed(kinds[name], answers.get(name) or right, right, n)
        if share is not None:
            shares.append(share if name in answers else 0.0)
    return fmean(shares) if shares else None


@dataclass(frozen=True)
class Teach:
    """What a labeler is told right after a practice item."""

    agreed: bool  # with all that is right
    share: float  # of it
    right: dict[str, dict[str, Json]]  # by question, in the order that was shown
    why: str


def teach(settings: Project, gold: Json, answers: Answers, order: Sequence[int]) -> Teach:
    """What to tell of answers in the order of the candidates."""
    found = agreed_with_gold(settings, gold, answers, len(order))
    share = 1.0 if found is None else found
    kinds = {question.name: KINDS[question.kind] for question in settings.questions}
    right = {
        name: kinds[name].unorder(dict(value), order)
        for name, value in (gold or {}).get("answers", {}).items()
        if name in kinds
    }
    return Teach(share == 1.0, share, right, (gold or {}).get("why", ""))


@dataclass(frozen=True)
class Training:
    """How a round stands."""

    done: int
    of: int
    agreed: float  # on average
    median_s: float | None  # active time of an item; None: the page did not measure it
    state: str  # training, working, stopped


def settle(conn: Connection, now: int, project_id: int, person_id: int, settings: Project) -> Training:
    """Counts a person's round, keeps how it stands, and decides when it is over."""
    since = conn.execute(_MEMBER.where(member.c.project == project_id, member.c.person == person_id)).one().since_ms
    had = _had(conn, project_id, person_id, since)
    done = [row for row in had if row.state in ("submitted", "skipped")]
    said = _answers(conn, [row.id for row in done])
    shares, times = [], []
    for row in done:
        answers = {name: value for name, value, _ in said.get(row.id, [])}
        share = 0.0 if row.state == "skipped" else agreed_with_gold(settings, row.gold, answers, len(row.order))
        shares.append(1.0 if share is None else share)
        times += [ms for _, _, ms in said.get(row.id, [])[:1] if ms is not None]
    of = max(min(settings.onboarding, len(done) + _unseen(conn, project_id, person_id)), 1)
    share = fmean(shares) if shares else 0.0
    median_s = median(times) / 1000 if times else None
    state = "training"
    if len(done) >= of:
        state = "working" if passed(settings, share, median_s) else "stopped"
    kept: dict[str, Json] = {"training": {"agreed": share, "of": len(done), "median_s": median_s}}
    if state != "training":
        kept |= {"state": state, "since_ms": now}
    conn.execute(update(member).where(member.c.project == project_id, member.c.person == person_id).values(kept))
    return Training(len(done), of, share, median_s, state)


def passed(settings: Project, share: float, median_s: float | None) -> bool:
    """Whether a finished round lets a person work. A limit on time needs a time."""
    slow = settings.pass_median_s > 0 and (median_s is None or median_s > settings.pass_median_s)
    return share >= settings.pass_agreement and not slow


_MEMBER = select(member.c.since_ms)


def _had(conn: Connection, project_id: int, person_id: int, since_ms: int) -> Sequence[Any]:
    return conn.execute(
        select(assignment.c.id, assignment.c.state, assignment.c.order, item.c.gold)
        .join(item, item.c.id == assignment.c.item)
        .where(
            assignment.c.person == person_id, assignment.c.project == project_id, assignment.c.turn == 0,
            assignment.c.state.in_(TAKEN), assignment.c.claimed_ms >= since_ms, item.c.role == "onboarding",
        )
    ).all()  # fmt: skip


def begun(conn: Connection, project_id: int, person_id: int, since_ms: int) -> int:
    """How many practice items of the round a person has, or had."""
    return len(_had(conn, project_id, person_id, since_ms))


def _unseen(conn: Connection, project_id: int, person_id: int) -> int:
    """Practice items that the person could still answer, those in hand among them."""
    finished = select(assignment.c.item).where(
        assignment.c.person == person_id, assignment.c.project == project_id, assignment.c.turn == 0,
        assignment.c.state.in_(("submitted", "skipped")),
    )  # fmt: skip
    count = select(func.count()).where(
        item.c.project == project_id, item.c.role == "onboarding", item.c.room == 1, item.c.id.not_in(finished)
    )
    return int(conn.execute(count).scalar_one())


def _answers(conn: Connection, numbers: Sequence[int]) -> dict[int, list[tuple[str, Json, int | None]]]:
    found: dict[int, list[tuple[str, Json, int | None]]] = {}
    rows = conn.execute(
        select(answer.c.assignment, answer.c.question, feedback.c.value, feedback.c.times)
        .join(feedback, feedback.c.seq == answer.c.seq)
        .where(answer.c.assignment.in_(numbers))
    )
    for number, question, value, times in rows:
        found.setdefault(number, []).append((question, value, active_ms(times)))
    return found
