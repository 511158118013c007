"""What becomes of the answers that stand when a format is written: how many go out, and why others do not.

Flow     the answers of a project, counted by what decides → those that no writer is given, by reason
         a writer, answer by answer → `Fates`: those that went out, those that the form has no place for, by reason

No answer is in both, and together they are all that stand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from sqlalchemy import Connection, Row, func, select

from rein.feedback import tables as t
from rein.feedback.exchange.standing import Chosen
from rein.report.legible import count

Fates = Counter[str]  # by reason
OUT = ""  # the reason of those that went out
TIE = "where neither is better (--ties half or both takes them)"
NO_PAIR = "that prefer no output over another"
NO_SIDE = "that say neither wanted nor unwanted"
NO_MARK = "without a mark"
TWICE = "whose judgement says it by another answer"
SECOND = "beyond the one that the form has a place for"


def not_given(conn: Connection, project: int, chosen: Chosen, kinds: Collection[str], question: str) -> Fates:
    """The answers that a writer of these kinds is not given, by reason."""
    facts = (t.feedback.c.kind, t.answer.c.question, t.answer.c.turn, t.item.c.role, t.item.c.split, t.batch.c.name)
    rows = conn.execute(
        select(*facts, func.count().label("n"))
        .select_from(t.answer)
        .join(t.feedback, t.feedback.c.seq == t.answer.c.seq)
        .join(t.item, t.item.c.id == t.answer.c.item)
        .join(t.batch, t.batch.c.id == t.item.c.batch)
        .where(t.answer.c.project == project)
        .group_by(*facts)
    )
    fates = Fates()
    for row in rows:
        if why := _why(row, chosen, kinds, question):
            fates[why] += row.n
    return fates


def _why(row: Row[tuple[str, str, int, str, str, str, int]], chosen: Chosen, kinds: Collection[str], one: str) -> str:
    if row.kind not in kinds:
        return f"of kind {row.kind}, which the format has no place for"
    if row.turn:
        return "given again, to the same item with the sides mirrored"
    if chosen.roles and row.role not in chosen.roles:
        return "of practice (--role onboarding)" if row.role == "onboarding" else f"to items of the role {row.role}"
    if chosen.splits and row.split not in chosen.splits:
        return "of other splits"
    if chosen.batches and row.name not in chosen.batches:
        return "of other batches"
    return "to other questions" if one and row.question != one else ""


def fate_lines(fates: Fates) -> list[str]:
    """What a command says of them.

    Example  >>> fate_lines(Fates({OUT: 3, NO_MARK: 1}))
             ['answers           3 answers went out, 1 was left out:', '                  1 without a mark']
    """
    left = {why: n for why, n in fates.items() if why != OUT and n}
    went = f"answers           {count(fates[OUT], 'answer')} went out"
    if not left:
        return [f"{went}, none was left out"]
    n = sum(left.values())
    more = [f"{'':18}{each:,} {why}" for why, each in sorted(left.items(), key=lambda one: -one[1])]
    return [f"{went}, {n:,} {'was' if n == 1 else 'were'} left out:", *more]
