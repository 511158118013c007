"""A labeler's own page: how much, how fast, how near to the researchers, and what is to be learned from most.

Flow     the store, a project, a person → `mine` → JSON for the page

    {"answers", "active_ms", "median_s": Number, "days": [{"day", "answers", "active_ms"}],
     "with_researchers": [{"question", "kind", "agreement": Number}],
     "disagreements": [{"at_ms", "question", "kind", "context", "candidates": [{"text"}], "said", "right", "by", "why",
                        "asked", "reply"}]}

Nobody else is named and nobody is ranked. What a researcher said stands beside what the labeler said, in the order that
the labeler saw; of practice items it is the known answer. Of gold items only what researchers answered is shown: their
known answers stay unknown, and so does that they are gold. Numbers are of estimates.py.

Source   Stiennon 2020, Appendix C: labelers are told how they do, and discuss what they disagree about.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, and_, func, or_, select
from sqlalchemy.orm import aliased

from rein.feedback import tables as t
from rein.feedback.agreement import COMPARED
from rein.feedback.ballots import aspects, tally
from rein.feedback.by_person import EVEN, with_researchers
from rein.feedback.estimates import undefined
from rein.feedback.items import load_project
from rein.feedback.judgements import Answers, Judgements
from rein.feedback.kinds import KINDS
from rein.feedback.monitors import DAY_MS, median_of
from rein.feedback.project import Project
from rein.feedback.training import agreed

SHOWN = 5  # disagreements
_NOBODY = "No researcher has answered an item of yours yet."

Json = dict[str, Any]


def mine(conn: Connection, project: int | str, person: int) -> Json:
    """A person's own numbers in a project, as above. Days are of UTC, without those on which nothing was answered.

    Raises   Refused: unknown, for a project that there is not.
    """
    project_id, settings = load_project(conn, project)
    # One row for each time that an item was answered, whatever the number of questions.
    a = t.answer.c
    rows = conn.execute(
        select(func.min(a.at_ms), func.max(a.active_ms))
        .where(a.person == person, a.project == project_id)
        .group_by(a.assignment)
    ).all()
    table = np.array([tuple(row) for row in rows], dtype=float).reshape(-1, 2)
    timed = table[~np.isnan(table[:, 1]), 1]
    judgements = Judgements(project_id)
    judgements.read_items(conn, _with_a_researcher(project_id, person))
    me = judgements.person_at(person)
    agreements: list[Json] = []
    found: list[tuple[float, float, int, Json]] = []
    for question in settings.questions:
        answers = judgements.answers[question.name]
        first = answers.of(judgements.with_role(*COMPARED, "gold")[answers.at] & (answers.turn == 0) & answers.last)
        asked = aspects(first)
        if not asked:
            continue
        number = undefined(_NOBODY)
        if me is not None:
            counted = tally(asked[0], first.at, judgements.researchers()[first.who], len(judgements.items))
            numbers, agree_N, all_N = with_researchers(judgements, first, asked[0], counted)
            number = numbers[me] if numbers[me]["value"] is not None else number
            found += _against_researchers(first, me, agree_N, all_N)
        agreements.append({"question": question.name, "kind": question.kind, "agreement": number})
    found += _against_practice(conn, project_id, settings, person)
    found.sort(key=lambda each: each[:3], reverse=True)
    return {
        "answers": len(table),
        "active_ms": int(timed.sum()),
        "median_s": median_of(timed / 1000, "Median of active seconds for an item.", "No answer has a measured time."),
        "days": _days(table),
        "with_researchers": agreements,
        "disagreements": [_shown(conn, settings, person, each) for *_, each in found[:SHOWN]],
    }


def _days(table: Any) -> list[Json]:
    days, place = np.unique(table[:, 0] // DAY_MS, return_inverse=True)
    active = np.bincount(place, np.nan_to_num(table[:, 1]), len(days))
    first = datetime.date(1970, 1, 1)
    return [
        {"day": str(first + datetime.timedelta(days=day)), "answers": int(count), "active_ms": int(ms)}
        for day, count, ms in zip(days, np.bincount(place, minlength=len(days)), active, strict=True)
    ]


def _with_a_researcher(project_id: int, person: int) -> Any:
    """Items that the person and a researcher have answered."""
    own, other = aliased(t.answer), aliased(t.answer)
    return (
        select(own.c.item)
        .join(other, other.c.item == own.c.item)
        .join(t.person, t.person.c.id == other.c.person)
        .where(own.c.person == person, own.c.project == project_id, other.c.person != person)
        .where(t.person.c.role != "labeler")
        .distinct()
    )


def _against_researchers(answers: Answers, me: int, agree_N: Any, all_N: Any) -> list[tuple[float, float, int, Json]]:
    """Answers that most researchers do not share: the surest first, then those that fewest share."""
    far_N = np.nan_to_num(np.abs(answers.points - EVEN)) if answers.question.kind == "comparison" else 0 * answers.at
    rows = np.flatnonzero((answers.who == me) & (all_N > 0) & (2 * agree_N <= all_N) & (agree_N < all_N))
    return [
        (
            float(far_N[n]), 1 - agree_N[n] / all_N[n], int(answers.seq[n]),
            {"seq": int(answers.seq[n]), "item": int(answers.item[n]), "question": answers.question.name, "gold": None},
        )
        for n in rows
    ]  # fmt: skip


def _against_practice(
    conn: Connection, project_id: int, settings: Project, person: int
) -> list[tuple[float, float, int, Json]]:
    """Answers to practice items that are not what is right: the labeler was told so then."""
    kinds = {each.name: each.kind for each in settings.questions}
    rows = conn.execute(
        select(t.answer.c.seq, t.answer.c.question, t.answer.c.points, t.feedback.c.value, t.item)
        .join(t.feedback, t.feedback.c.seq == t.answer.c.seq)
        .join(t.item, t.item.c.id == t.answer.c.item)
        .where(t.answer.c.person == person, t.answer.c.project == project_id, t.item.c.role == "onboarding")
    ).all()
    found = []
    for row in rows:
        right = ((row.gold or {}).get("answers") or {}).get(row.question)
        if right is None or row.question not in kinds:
            continue
        kind = kinds[row.question]
        share = agreed(kind, row.value, right, len(row.candidates))
        if share is None or share == 1:
            continue
        far = abs(row.points - EVEN) if kind == "comparison" and row.points is not None else 0.0
        gold = {"right": right, "why": row.gold.get("why", "")}
        found.append(
            (far, 1 - share, row.seq, {"seq": row.seq, "item": row.id, "question": row.question, "gold": gold})
        )
    return found


def _shown(conn: Connection, settings: Project, person: int, one: Json) -> Json:
    """A disagreement with all that helps to understand it, in the order that the labeler saw."""
    said = conn.execute(select(t.feedback).where(t.feedback.c.seq == one["seq"])).one()
    item = conn.execute(select(t.item).where(t.item.c.id == one["item"])).one()
    order = said.shown.get("order") or list(range(len(item.candidates)))
    kind = KINDS[said.kind]
    if one["gold"] is not None:
        right, by, why = one["gold"]["right"], "known", one["gold"]["why"]
    else:
        right, by, why = _of_a_researcher(conn, one), "researcher", ""
    about = t.thread.c
    talk = conn.execute(
        select(about.text, about.reply)
        .where(about.item == one["item"], about.reply.is_not(None))
        .where(or_(about.person == person, and_(about.pinned, about.person != person)))
        .order_by((about.person == person).desc(), about.id.desc())
        .limit(1)
    ).first()
    fields = settings.fields or tuple(item.context)
    return {
        "at_ms": said.at_ms,
        "question": said.question,
        "kind": said.kind,
        "context": {name: item.context[name] for name in fields if name in item.context},
        "candidates": [{"text": item.candidates[candidate]["text"]} for candidate in order],
        "said": kind.unorder(said.value, order),
        "right": kind.unorder(right, order),
        "by": by,
        "why": why,
        "asked": talk.text if talk else None,
        "reply": talk.reply if talk else None,
    }


def _of_a_researcher(conn: Connection, one: Json) -> Json:
    """The last that a researcher said of it."""
    found = conn.execute(
        select(t.feedback.c.value)
        .join(t.answer, t.answer.c.seq == t.feedback.c.seq)
        .join(t.person, t.person.c.id == t.answer.c.person)
        .where(t.answer.c.item == one["item"], t.answer.c.question == one["question"], t.person.c.role != "labeler")
        .order_by(t.answer.c.seq.desc())
        .limit(1)
    ).scalar_one()
    return dict(found)
