"""A labeler's own page: how much, how fast, how near to the researchers, and what is to be learned from most.

Flow     the store, a project, a person → `mine` → JSON → `tell`, which notes what they know by it → the page

    {"answers", "active_ms", "median_s": Number, "days": [{"day", "answers", "active_ms"}],
     "with_researchers": [{"question", "kind", "agreement": Number}],
     "disagreements": [{"item", "at_ms", "question", "kind", "context", "candidates": [{"text"}], "said", "right", "by",
                        "why", "asked", "reply"}]}    item: not on the page

Practice is time, but no item: `answers`, `median_s` and `days` are of work, `active_ms` is of both.

Nobody else is named and nobody is ranked. What a researcher said stands beside what the labeler said, in the order that
the labeler saw; of practice items it is the known answer. Gold items are left out: their answers stay unknown, and so
does that they are gold. What was shown here is no judgement of one's own any more: the answer is fixed by then, and the
item is not given to this person again. Numbers are of estimates.py.

Source   Stiennon 2020, Appendix C: labelers are told how they do, and discuss what they disagree about.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, and_, func, or_, select, update
from sqlalchemy.orm import aliased

from rein.feedback import tables as t
from rein.feedback.ballots import aspects, tally, with_others
from rein.feedback.by_person import AGREE_WITH
from rein.feedback.columns import Answers, among
from rein.feedback.counts import EVEN
from rein.feedback.estimates import share, undefined
from rein.feedback.items import load_project
from rein.feedback.judgements import Judgements
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
        select(func.min(a.at_ms), func.max(a.active_ms), func.max(a.item))
        .where(a.person == person, a.project == project_id)
        .group_by(a.assignment)
    ).all()
    every = np.array([tuple(row) for row in rows], dtype=float).reshape(-1, 3)
    practice = select(t.item.c.id).where(t.item.c.project == project_id, t.item.c.role == "onboarding")
    table = every[~np.isin(every[:, 2], conn.execute(practice).scalars().all())]
    timed = table[~np.isnan(table[:, 1]), 1]
    judgements = Judgements(project_id)
    judgements.read_items(conn, _with_a_researcher(project_id, person))
    me = judgements.person_at(person)
    agreements: list[Json] = []
    found: list[tuple[float, float, int, Json]] = []
    for question in settings.questions:
        answers = judgements.answers[question.name]
        known = among(answers.item, judgements.of_role("onboarding", "gold"))
        first = answers.of(~known & (answers.turn == 0) & answers.last)
        asked = aspects(first)
        if not asked:
            continue
        number = undefined(_NOBODY)
        if me is not None:
            researcher_N = judgements.researchers()[first.who]
            counted = tally(asked[0], first.at, researcher_N)
            pairs = with_others(asked[0], first.at, counted.researchers_BPV, counted.pattern_I)
            agree_N, all_N = (np.where(researcher_N, 0, each) for each in pairs)
            own = first.who == me
            number = share(agree_N[own], all_N[own], AGREE_WITH, _NOBODY)
            found += _against_researchers(first, me, agree_N, all_N)
        agreements.append({"question": question.name, "kind": question.kind, "agreement": number})
    found += _against_practice(conn, project_id, settings, person)
    in_hand = set(
        conn.execute(
            select(t.assignment.c.item).where(
                t.assignment.c.person == person, t.assignment.c.project == project_id, t.assignment.c.state == "open"
            )
        ).scalars()
    )
    found = [each for each in found if each[3]["item"] not in in_hand]  # their own again, with the sides mirrored
    found.sort(key=lambda each: each[:3], reverse=True)
    return {
        "answers": len(table),
        "active_ms": int(np.nansum(every[:, 1])),
        "median_s": median_of(timed / 1000, "Median of active seconds for an item.", "No answer has a measured time."),
        "days": _days(table),
        "with_researchers": agreements,
        "disagreements": [_shown(conn, settings, person, each) for *_, each in found[:SHOWN]],
    }


def tell(conn: Connection, now: int, person: int, page: Json) -> Json:
    """The page as the person may see it, of which they know from now on what others said: their own answers stay.

    What they took back, or were given again, since the page was made is not shown.
    """
    about = t.assignment.c
    items = {each["item"] for each in page["disagreements"]}
    leases = conn.execute(select(about.item, about.state).where(about.person == person, about.item.in_(items))).all()
    states = {number: {lease.state for lease in leases if lease.item == number} for number in items}
    shown = {number for number, found in states.items() if not found or ("submitted" in found and "open" not in found)}
    conn.execute(
        update(t.assignment)
        .where(about.person == person, about.item.in_(shown), about.told_ms.is_(None))
        .values(told_ms=now)
    )
    left = [each for each in page["disagreements"] if each["item"] in shown]
    return {**page, "disagreements": [{n: v for n, v in each.items() if n != "item"} for each in left]}


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
        "item": one["item"],
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
