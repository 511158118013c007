"""What each format writes of a project: rows, one after the other, as they are read from the store.

Flow     `Export`: a connection, a project, what goes out → rows of a format → exporting.py

An answer goes out as it stands: what was undone is only in rein's own format. Practice goes out only there, and where
it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from rein.feedback.exchange import groups, openai, own, pairs, pandalm, trees
from rein.feedback.exchange.pairs import PairOptions
from rein.feedback.exchange.rows import Answer, Item
from rein.feedback.exchange.standing import (
    PAGE,
    Chosen,
    Names,
    answers,
    answers_of,
    documents,
    items,
    items_of_keys,
    people,
)  # fmt: skip
from rein.feedback.project import Project, Question

Json = Any
PREFERENCES = ("comparison", "ranking", "best_of", "rating", "likert", "edit")
WORK = ("work", "calibration", "gold", "drift")  # what is no practice


@dataclass(frozen=True)
class Export:
    """What goes out, and how."""

    conn: Connection
    project: int
    settings: Project
    names: Names
    chosen: Chosen = field(default_factory=lambda: Chosen(roles=WORK))
    pairs: PairOptions = field(default_factory=PairOptions)
    question: str = ""  # this one alone; "": all that fit

    def said(self, *kinds: str, whole: bool = False) -> Iterator[Answer]:
        """The answers that go out, in the order in which they were said."""
        found = answers(self.conn, self.project, kinds, self.names, self.chosen, whole=whole)
        return (one for one in found if not self.question or one.question == self.question)

    def asked(self, answer: Answer) -> Question:
        """The question of an answer, as the project puts it now."""
        known = (one for one in self.settings.questions if one.name == answer.question and one.kind == answer.kind)
        return next(known, Question(answer.question, answer.kind))


def write_own(export: Export) -> Iterator[Json]:
    """Everything."""
    return own.write_own(export.conn, export.project, export.settings, export.names)


def write_comparisons(export: Export) -> Iterator[Json]:
    """Comparisons as OpenAI's; ties, which that form cannot say, as the export wants them."""
    for answer in export.said("comparison"):
        if answer.value["choice"] is not None or "line" in answer.extra:
            yield openai.write_comparison(answer)
        elif export.pairs.ties != "drop":
            yield from openai.write_tie(answer, export.pairs.ties)


def write_axes(export: Export) -> Iterator[Json]:
    """Marks on axes as OpenAI's, a line for each candidate."""
    for answer in export.said("likert"):
        for number in range(len(answer.item.candidates)):
            yield openai.write_axes(answer, number)


def write_ranked(export: Export) -> Iterator[Json]:
    """Judgements as ranked groups."""
    return (groups.write_ranked(one) for one in export.said(*(kind for kind, _ in groups.SAID.values()), whole=True))


def preferring(export: Export) -> Iterator[Answer]:
    """The answers that preferences are made of: of a ranking and ratings in one judgement, the ranking alone.

    Both say which output is better; together they would say it twice. A corrected text is one more.
    """
    for answer in export.said(*PREFERENCES):
        kinds = {kind for kind, _ in answer.others.values()}
        first = next(kind for kind in PREFERENCES if kind in kinds)
        if export.question or answer.kind in (first, "edit"):
            yield answer


def write_pairs(export: Export) -> Iterator[Json]:
    """Every pair that an answer implies."""
    for answer in preferring(export):
        yield from pairs.write_trl(answer, export.pairs)


def write_unpaired(export: Export) -> Iterator[Json]:
    """Each output by itself, wanted or not."""
    for answer in export.said("flags", "rating", "likert"):
        yield from pairs.write_unpaired(answer, export.pairs, export.asked(answer).points)


def write_hh(export: Export) -> Iterator[Json]:
    """Pairs of dialogues."""
    for answer in preferring(export):
        yield from pairs.write_hh(answer, export.pairs)


def write_trees(export: Export) -> Iterator[Json]:
    """The trees that came in, then one for each other item that was ranked."""
    for row in documents(export.conn, export.project, trees.FORMAT):
        some = items_of_keys(export.conn, export.project, trees.keys(row["body"]))
        said = answers_of(export.conn, some, ("ranking",), export.names)
        yield trees.write_tree(row["body"], [answer for one in said.values() for answer in one])
    for item, said_of_it in _by_item(export, "ranking"):
        if item.document is None:
            yield trees.new_tree(said_of_it[0])


def write_pandalm(export: Export) -> Iterator[Json]:
    """Pairs with what each annotator said."""
    named = [export.names.of(number) for number in people(export.conn, export.project)]
    numbers = {name: number for number, name in enumerate((n for n in named if not pandalm.is_annotator(n)), 1)}
    for _, said in _by_item(export, "comparison"):
        yield pandalm.write_pandalm(said, numbers)


def _by_item(export: Export, kind: str) -> Iterator[tuple[Item, list[Answer]]]:
    """Items that have answers, with them, page by page."""
    waiting = list[Item]()

    def page(some: list[Item]) -> Iterator[tuple[Item, list[Answer]]]:
        said: Mapping[int, list[Answer]] = answers_of(export.conn, some, (kind,), export.names)
        for item in some:
            one = [answer for answer in said[item.id] if not export.question or answer.question == export.question]
            if one:
                yield item, one

    for item in items(export.conn, export.project, export.chosen):
        waiting.append(item)
        if len(waiting) == PAGE:
            yield from page(waiting)
            waiting = []
    yield from page(waiting)
