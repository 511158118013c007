"""What each format writes of a project: rows, one after the other, as they are read from the store.

Flow     `Export`: a connection, a project, what goes out → rows of a format → exporting.py

An answer goes out as it stands: what was undone is only in rein's own format. Practice goes out only there, and where
it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from rein.feedback.exchange import groups, openai, own, pairs, pandalm, trees
from rein.feedback.exchange.left_out import NO_PAIR, NO_SIDE, OUT, SECOND, TIE, TWICE, Fates
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
from rein.feedback.kinds import KINDS
from rein.feedback.project import Project, Question

Json = Any
T = TypeVar("T")
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
    fates: Fates = field(default_factory=Fates)  # of the answers that a writer was given so far

    def said(self, *kinds: str) -> Iterator[Answer]:
        """The answers that go out, in the order in which they were said."""
        found = answers(self.conn, self.project, kinds, self.names, self.chosen)
        return (one for one in found if self.takes(one))

    def takes(self, answer: Answer) -> bool:
        """Whether an answer is to the question that is wanted."""
        return not self.question or answer.question == self.question

    def judged(self, *kinds: str) -> Iterator[Answer]:
        """One answer for each judgement; its others are those that go out."""
        for one in answers(self.conn, self.project, kinds, self.names, self.chosen, whole=True):
            others = {name: said for name, said in one.others.items() if not self.question or name == self.question}
            if any(kind in kinds for kind, _ in others.values()):
                yield replace(one, others=others)

    def noted(self, rows: Iterator[T], why: Callable[[], str]) -> Iterator[T]:
        """The rows of one answer, which is counted as gone out; or, where there are none, as left out, and why."""
        some = False
        for row in rows:
            some = True
            yield row
        self.fates[OUT if some else why()] += 1

    def one_of(self, said: int, places: int = 1) -> None:
        """Counts answers that share a row: as many as it has places for have gone out, and the others are left out."""
        self.fates[OUT] += min(said, places)
        self.fates[SECOND] += said - min(said, places)

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
        rows: Iterable[Json] = ()
        if answer.value["choice"] is not None or "line" in answer.extra:
            rows = (openai.write_comparison(answer),)
        elif export.pairs.ties != "drop":
            rows = openai.write_tie(answer, export.pairs.ties)
        yield from export.noted(iter(rows), lambda: TIE)


def write_axes(export: Export) -> Iterator[Json]:
    """Marks on axes as OpenAI's, a line for each candidate."""
    for answer in export.said("likert"):
        rows = (openai.write_axes(answer, number) for number in range(len(answer.item.candidates)))
        yield from export.noted(rows, lambda: NO_SIDE)


def write_ranked(export: Export) -> Iterator[Json]:
    """Judgements as ranked groups."""
    kinds = [kind for kind, _ in groups.SAID.values()]
    for one in export.judged(*kinds):
        said = [kind for kind, _ in one.others.values() if kind in kinds]
        export.one_of(len(said), len(set(said)))
        yield groups.write_ranked(one)


def preferring(export: Export, also: Collection[str] = ()) -> Iterator[Answer]:
    """The answers that preferences are made of: of a ranking and ratings in one judgement, the ranking alone.

    Both say which output is better; together they would say it twice. A corrected text is one more.

    also     kinds that go out in another form besides, and are counted there
    """
    for answer in export.said(*PREFERENCES):
        kinds = {kind for kind, _ in answer.others.values()}
        first = next(kind for kind in PREFERENCES if kind in kinds)
        if export.question or answer.kind in (first, "edit"):
            yield answer
        elif answer.kind not in also:
            export.fates[TWICE] += 1


def no_pair(answer: Answer) -> str:
    """Why an answer gives no pair."""
    _, even = KINDS[answer.kind].pairs(answer.value, len(answer.item.candidates))
    return TIE if even else NO_PAIR


def write_pairs(export: Export) -> Iterator[Json]:
    """Every pair that an answer implies."""
    for answer in preferring(export):
        yield from export.noted(pairs.write_trl(answer, export.pairs), partial(no_pair, answer))


def write_unpaired(export: Export) -> Iterator[Json]:
    """Each output by itself, wanted or not."""
    for answer in export.said("flags", "rating", "likert"):
        rows = pairs.write_unpaired(answer, export.pairs, export.asked(answer).points)
        yield from export.noted(rows, lambda: NO_SIDE)


def write_hh(export: Export) -> Iterator[Json]:
    """Pairs of dialogues."""
    for answer in preferring(export):
        yield from export.noted(pairs.write_hh(answer, export.pairs), partial(no_pair, answer))


def write_trees(export: Export) -> Iterator[Json]:
    """The trees that came in, then one for each other item that was ranked."""
    for row in documents(export.conn, export.project, trees.FORMAT):
        of_tree = items_of_keys(export.conn, export.project, trees.keys(row["body"]))
        some = [item for item in of_tree if export.chosen.takes(item)]
        if not some and (of_tree or export.chosen.splits or export.chosen.batches):
            continue  # else it goes out whole
        said = _said_of(export, some, "ranking")
        for said_of_it in said.values():
            export.one_of(len(said_of_it))
        yield trees.write_tree(row["body"], [answer for one in said.values() for answer in one])
    for item, said_of_it in _by_item(export, "ranking"):
        if item.document is None:
            export.one_of(len(said_of_it))
            yield trees.new_tree(said_of_it[0])


def write_pandalm(export: Export) -> Iterator[Json]:
    """Pairs with what each annotator said."""
    named = [export.names.of(number) for number in people(export.conn, export.project)]
    numbers = {name: number for number, name in enumerate((n for n in named if not pandalm.is_annotator(n)), 1)}
    for _, said in _by_item(export, "comparison"):
        export.one_of(len(said), len({answer.person for answer in said}))
        yield pandalm.write_pandalm(said, numbers)


def _said_of(export: Export, some: list[Item], kind: str) -> dict[int, list[Answer]]:
    """What was said of these items, and goes out."""
    said = answers_of(export.conn, some, (kind,), export.names)
    return {item: [answer for answer in one if export.takes(answer)] for item, one in said.items()}


def _by_item(export: Export, kind: str) -> Iterator[tuple[Item, list[Answer]]]:
    """Items that have answers, with them, page by page."""
    waiting = list[Item]()

    def page(some: list[Item]) -> Iterator[tuple[Item, list[Answer]]]:
        said = _said_of(export, some, kind)
        for item in some:
            if said[item.id]:
                yield item, said[item.id]

    for item in items(export.conn, export.project, export.chosen):
        waiting.append(item)
        if len(waiting) == PAGE:
            yield from page(waiting)
            waiting = []
    yield from page(waiting)
