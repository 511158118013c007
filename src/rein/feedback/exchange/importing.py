"""A file of feedback into a project: line by line, each of them whole or not at all, and as often as one likes.

Flow     a file → a format's reader → checking.py → putting.py, group by group → what came in, and which lines did not

What a line holds goes by a key made of its content, so that the same file again adds nothing, and an import that was
killed is finished by the same command. A line that cannot be taken is left out, and the others are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Connection, select

from rein.errors import UserError, suggestion
from rein.feedback.exchange.checking import Checker, Given, Ready
from rein.feedback.exchange.lines import read_rows
from rein.feedback.exchange.newcomers import Newcomers
from rein.feedback.exchange.putting import Group, Tally, groups
from rein.feedback.exchange.rows import MISSHAPEN, Bad, Parsed, Unreadable, canonical, named
from rein.feedback.exchange.table import FORMATS, Format, named_format
from rein.feedback.items import create_project, load_project
from rein.feedback.kinds import BadValue
from rein.feedback.lessons import lessons, put_lesson
from rein.feedback.project import PRESETS, Project, project_of
from rein.feedback.refused import Refused
from rein.feedback.store import Store
from rein.feedback.tables import project as projects
from rein.report.legible import one_line

Json = Any
T = TypeVar("T")
MOST_SHOWN = 20  # bad lines that are told of; the rest are counted
_LINES, _CHARS = 500, 8_000_000  # of a transaction, at most
_PEEK = 10  # rows of which one must be JSON for a format to be told
_AS_GIVEN = Given()


@dataclass(frozen=True)
class Imported:
    """What an import did, or would do."""

    format: str
    added: int  # items
    known: int  # items that were there already
    answers: int
    bad: tuple[Bad, ...]  # the first ones
    bad_total: int
    lines: int
    unseen: tuple[str, ...] = ()  # fields of items that are kept, and not shown to labelers
    idle: tuple[tuple[str, int], ...] = ()  # why nothing can be told of items that came in with answers, and how many


def import_file(
    store: Store, project: str, format: str, path: Path, *, given: Given = _AS_GIVEN, dry: bool = False,
    create: bool = False, preset: str = "", advance: Callable[[int], None] = lambda lines: None,
) -> Imported:  # fmt: skip
    """Imports a file into a project.

    format   of `table.FORMATS`; "": told by the first row
    given    batch, role and splits, in place of the file's own
    dry      says what would be done, and does nothing
    create   makes the project where there is none: of `preset`, or as the file or the format has it

    Raises   UserError for a file that cannot be read, an unknown format or project, and a project that asks nothing
             that the format answers.
    """
    some = _first_rows(path)
    how = named_format(format) if format else _told_by(path, some)
    with store.reading() as conn:
        there = conn.execute(select(projects.c.id).where(projects.c.name == project)).first() is not None
    make = create and not there
    if how.name == "tamer":
        return _import_lesson(store, _Target(project, lessons(project) if make else None), path, dry)
    if how.reads is None:
        raise UserError(f"The format {how.name} is written, not read.", _readable())
    target = _Target(project, _settings(how, path, project, preset) if make else None)
    return _Import(store, how, target, given, dry).run(path, advance)


def guess(path: Path) -> Format:
    """The format of a file, by its first row.

    Raises   UserError when it is none that is known.
    """
    return _told_by(path, _first_rows(path))


def _told_by(path: Path, some: Sequence[tuple[int, Json] | Bad]) -> Format:
    first = next((row[1] for row in some if not isinstance(row, Bad)), None)
    if first is None:
        bad = next(row for row in some if isinstance(row, Bad))
        raise UserError(
            f"Nothing of {path} can be read. Line {bad.line}: {one_line(bad.problem)}.",
            "Expected are JSON objects in UTF-8, one a line, or one JSON list of them; .gz and .zst are unpacked.",
        )
    if isinstance(first, dict):
        for one in FORMATS.values():
            if one.like is not None and one.like(first):
                return one
        fields = f"Its first row has the fields {', '.join(map(repr, list(first)[:8]))}"
    else:
        fields = f"Its first row is {named(first)}, but a JSON object is expected"
    raise UserError(f"{path} is of no format that is known. {fields}.", _readable())


def _first_rows(path: Path) -> list[tuple[int, Json] | Bad]:
    """What a file begins with. Raises UserError for one without a row."""
    some = list(islice(read_rows(path), _PEEK))
    if not some:
        raise UserError(f"{path} is empty.", "Name a file with a JSON object on each line, or with a list of them.")
    return some


def _readable() -> str:
    names = [one.name for one in FORMATS.values() if one.reads or one.name == "tamer"]
    return f"Name one that is read with --format: {', '.join(names)}."


def _settings(how: Format, path: Path, name: str, preset: str) -> Project:
    """What a project that an import makes asks."""
    if how.name == "rein" and not preset:
        first = next(read_rows(path), None)
        settings = first[1].get("project") if isinstance(first, tuple) and isinstance(first[1], dict) else None
        if not isinstance(settings, dict):
            raise UserError(f"{path} does not begin with a project's settings.", "Pass --preset, or another file.")
        return project_of({**settings, "name": name})
    wanted = preset or how.preset
    if not wanted:
        raise UserError(
            f"A file of the format {how.name} does not say what a new project asks.",
            f"Pass --preset: {', '.join(PRESETS)}.",
        )
    if wanted not in PRESETS:
        raise UserError(f"There is no preset {wanted!r}.", suggestion(wanted, PRESETS))
    return project_of({**PRESETS[wanted].to_json(), "name": name})


# ------------------------------------------------------------------------------------------------ one import


@dataclass(frozen=True)
class _Target:
    """The project that an import goes into, made where it is wanted and there is none."""

    name: str
    new: Project | None

    def find(self, conn: Connection, now: int) -> tuple[int, Project]:
        """Its number and settings."""
        try:
            return load_project(conn, self.name)
        except Refused as refused:
            if self.new is None:
                raise UserError(refused.text, "Name another --project, or make this one with --create.") from None
        try:
            return create_project(conn, now, self.new), self.new
        except Refused as refused:
            raise UserError(refused.text, "Choose another --project.") from None

    def settings(self, conn: Connection) -> Project:
        """Its settings, whether it is there or not yet."""
        return self.new or self.find(conn, 0)[1]


def parsed(path: Path, how: Format, take: Callable[[Parsed, Mapping[str, Json]], T]) -> Iterator[T | Bad]:
    """What `take` makes of each line of a file, as its format reads it and as JSON; or why nothing can be made."""
    assert how.reads is not None, "checked by the caller"
    for row in read_rows(path):
        if isinstance(row, Bad):
            yield row
            continue
        line, value = row
        try:
            if not isinstance(value, dict):
                raise Unreadable("it is no JSON object")
            yield take(how.reads(line, value), value)
        except (Unreadable, BadValue) as error:
            yield Bad(line, str(error))
        except MISSHAPEN:
            yield Bad(line, f"it has not the form of {how.name}")


class _Rehearsed(Exception):
    """Undoes a transaction that was only to show what it does."""


def _write(store: Store, work: Callable[[Connection], T], dry: bool) -> T:
    """A work on the store, or its rehearsal."""
    done = list[T]()

    def rehearsal(conn: Connection) -> NoReturn:
        done.append(work(conn))
        raise _Rehearsed

    if not dry:
        return store.write(work)
    try:
        store.write(rehearsal)
    except _Rehearsed:
        return done[0]


class _Import:
    def __init__(self, store: Store, how: Format, target: _Target, given: Given, dry: bool) -> None:
        self.store, self.how, self.target = store, how, target
        with store.reading() as conn:
            settings = target.settings(conn)
        kinds = {question.kind for question in settings.questions}
        if how.kinds and not kinds & set(how.kinds):
            raise UserError(
                f"The format {how.name} has answers of kind {' or '.join(how.kinds)}, but the project {settings.name} "
                f"asks for {', '.join(sorted(kinds))}.",
                f"Name another --project, or make one: --create --preset {how.preset}.",
            )
        self.checker = Checker(settings, given, whole=how.name == "rein")
        self.people = Newcomers()
        self.rehearsed: dict[str, str] | None = {} if dry else None

    def run(self, path: Path, advance: Callable[[int], None]) -> Imported:
        """Imports the file, group by group."""
        added = known = answers = bad_total = lines = 0
        shown = list[Bad]()
        for group in groups(self._rows(path), _LINES, _CHARS):
            some = self._put([one for one in group if isinstance(one, Ready)])
            bad = sorted([*(one for one in group if isinstance(one, Bad)), *some.bad], key=lambda one: one.line)
            shown += bad[: MOST_SHOWN - len(shown)]
            added, known, answers = added + some.added, known + some.known, answers + some.answers
            bad_total, lines = bad_total + len(bad), lines + len(group)
            advance(len(group))
        unseen, idle = tuple(self.checker.unseen), tuple((why, len(n)) for why, n in self.checker.idle.items())
        return Imported(self.how.name, added, known, answers, tuple(shown), bad_total, lines, unseen, idle)

    def _rows(self, path: Path) -> Iterator[Ready | Bad]:
        return parsed(path, self.how, lambda one, value: self.checker.check(one, len(canonical(value))))

    def _put(self, lines: list[Ready]) -> Tally:
        if not lines:
            return Tally()
        now = time.time_ns() // 1_000_000
        people = self.people.copy()

        def work(conn: Connection) -> Tally:
            number, _ = self.target.find(conn, now)
            return Group(conn, now, number, people, self.rehearsed).put(lines)

        tally = _write(self.store, work, self.rehearsed is not None)
        if self.rehearsed is None:
            self.people = people
        else:
            self.rehearsed |= tally.put
        return tally


def _import_lesson(store: Store, target: _Target, path: Path, dry: bool) -> Imported:
    """The record of a TAMER lesson, which is whole or wrong."""

    def work(conn: Connection) -> Imported:
        now = time.time_ns() // 1_000_000
        number, _ = target.find(conn, now)
        kept = put_lesson(conn, now, number, Newcomers().number(conn, now, "trainer"), path)
        there = int(kept.known > 0)
        return Imported("tamer", 1 - there, there, kept.added, (), 0, kept.added + kept.known)

    try:
        return _write(store, work, dry)
    except Refused as refused:
        raise UserError(refused.text, "Lessons have projects of their own: make one with --create.") from None
