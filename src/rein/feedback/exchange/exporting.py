"""A project's feedback into a file, a stream or a folder, in the memory of one page.

Flow     `open_export` → rows of a format → bytes, piece by piece → a file that is there whole or not at all; standard
         output; a download
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from sqlalchemy import Connection

from rein.errors import UserError, suggestion, writing
from rein.feedback.exchange import standing
from rein.feedback.exchange.folder import write_folder
from rein.feedback.exchange.left_out import fate_lines, not_given
from rein.feedback.exchange.pairs import PairOptions, Ties
from rein.feedback.exchange.rows import compact
from rein.feedback.exchange.standing import Chosen, Names, item_rows
from rein.feedback.exchange.table import FORMATS, Format, Style, named_format
from rein.feedback.exchange.writing import WORK, Export
from rein.feedback.items import load_project
from rein.feedback.lessons import write_lesson
from rein.feedback.refused import Refused

Json = Any
TIES = ("drop", "half", "both")
_KEY_PREFIX = "lesson-"


def open_export(
    conn: Connection, project: str | int, *, secret: bytes, names: bool = False, ties: Ties = "drop",
    split: str | None = None, roles: Sequence[str] = WORK, batches: Sequence[str] = (), question: str = "",
    implicit: bool = False, conversational: bool | None = None, margin: bool = False,
) -> Export:  # fmt: skip
    """What goes out of a project, and how.

    secret           of the store, which pseudonyms are made with
    names            people by the names that they log in with
    ties             drop, half or both: what becomes of two that neither is better of (pairs.PairOptions)
    split            this one alone; None: all
    roles            of items; practice is left out
    question         this one alone; "": all that fit, and of a ranking and ratings in one judgement the ranking

    Raises   UserError for an unknown project, split, batch, question or ties policy.
    """
    try:
        number, settings = load_project(conn, project)
    except Refused as refused:
        raise UserError(refused.text, "Name another --project.") from None
    if ties not in TIES:
        raise UserError(f"--ties is {ties!r}.", suggestion(str(ties), TIES))
    _check_known(settings.name, "question", [question] if question else [], [one.name for one in settings.questions])
    _check_known(settings.name, "split", [split] if split else [], standing.splits(conn, number))
    _check_known(settings.name, "batch", batches, standing.batches(conn, number))
    return Export(
        conn, number, settings, Names(conn, secret, names), Chosen((split,) if split else (), roles, batches),
        PairOptions(ties, implicit, conversational, margin), question,
    )  # fmt: skip


def _check_known(project: str, what: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError for a name that the project has not: nothing would go out, and nobody would know why."""
    for name in wanted:
        if name not in known:
            there = suggestion(name, known) if known else f"It has no {what} yet: nothing has come in."
            raise UserError(f"The project {project} has no {what} {name!r}.", there)


def pieces(export: Export, format: str) -> Iterator[bytes]:
    """A format's file, row by row.

    Raises   UserError for a format that cannot be written as one file or that no question fits, and for a part of one
             that has no parts.
    """
    how = named_format(format)
    _check_whole(export, how)
    _check_fits(export, how)
    if how.writes is None:
        one_file = [one.name for one in FORMATS.values() if one.writes]
        raise UserError(
            f"The format {how.name} is {'a folder of files' if how.style == 'folder' else 'read, not written'}.",
            f"One file is: {', '.join(one_file)}." if how.style != "folder" else "Name a folder with --out.",
        )
    return _encoded(how.writes(export), how.style)


def _check_whole(export: Export, how: Format) -> None:
    """Raises UserError where a part is asked for of what goes out whole, so that it can come in again."""
    if how.name not in ("rein", "tamer"):
        return
    chosen = export.chosen
    parts = {
        "--split": chosen.splits,
        "--batch": chosen.batches,
        "--question": (export.question,) if export.question else (),
        "--role": () if tuple(chosen.roles) == WORK else chosen.roles,
    }
    for flag, wanted in parts.items():
        if wanted:
            raise UserError(
                f"The format {how.name} is the whole project, and {flag} is {', '.join(wanted)}.",
                f"Leave {flag} out, or choose another --format.",
            )


def _check_fits(export: Export, how: Format) -> None:
    """Raises UserError where nothing that is asked, or was, has a place in the format."""
    kinds = {one.kind for one in export.settings.questions if export.question in ("", one.name)}
    if not how.kinds or kinds & set(how.kinds):
        return
    if not export.question and standing.has_kinds(export.conn, export.project, how.kinds):
        return
    what = f"question {export.question}" if export.question else f"project {export.settings.name}"
    fit = [one.name for one in FORMATS.values() if kinds & set(one.kinds) and (one.writes or one.style == "folder")]
    raise UserError(
        f"The format {how.name} is for answers of kind {', '.join(how.kinds)}, but the {what} asks for "
        f"{', '.join(sorted(kinds))}.",
        f"What fits: {', '.join(['rein', *fit])}.",
    )


def fates(export: Export, format: str) -> list[str]:
    """Once all is written: how many answers went out, how many did not, and why; nothing where all do, always."""
    how = named_format(format)
    if not how.kinds:
        return []
    others = not_given(export.conn, export.project, export.chosen, how.kinds, export.question)
    return fate_lines(export.fates + others)


def _encoded(rows: Iterator[Json], style: Style) -> Iterator[bytes]:
    if style != "list":
        for row in rows:
            yield (json.dumps(row) if style == "ascii" else compact(row)).encode() + b"\n"
        return
    between = "[\n"
    for row in rows:
        # As json.dumps(…, indent=4) has the elements of a list.
        yield (between + "\n".join("    " + line for line in json.dumps(row, indent=4).split("\n"))).encode()
        between = ",\n"
    yield b"[]" if between == "[\n" else b"\n]"


def export(conn: Connection, project: str | int, format: str, out: IO[bytes], *, secret: bytes, **options: Any) -> int:
    """Writes a project's feedback to a stream; returns the number of bytes. `options` are those of `open_export`."""
    n = 0
    for piece in pieces(open_export(conn, project, secret=secret, **options), format):
        out.write(piece)
        n += len(piece)
    return n


def export_file(
    export: Export, format: str, out: Path, check_read: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Writes a format's file, or its folder, so that a kill at any moment leaves none or the whole.

    check_read   raises where what was read is not to be trusted (`Store.check_unmoved`); then nothing gets its name

    Returns the number of rows, by what they are.

    Raises   UserError where it cannot be written, for a folder that is not empty, a format that no question fits, and
             for a part of a format that has no parts.
    """
    how = named_format(format)
    if how.style == "folder":
        _check_whole(export, how)
        _check_fits(export, how)
        return _whole_folder(out, export, how, check_read)
    rows, found = 0, pieces(export, format)
    with _whole_file(out) as file:
        for piece in found:
            file.write(piece)
            rows += 1
        check_read()
    return {"rows": rows - (how.style == "list")}


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name when it is whole; packed where the name says so, always the same way."""
    part = path.with_name(path.name + ".part")
    with writing(path):
        try:
            with part.open("wb") as raw:
                if path.suffix == ".gz":
                    with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                        yield cast(IO[bytes], packed)
                else:
                    yield raw
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _whole_folder(path: Path, export: Export, how: Format, check_read: Callable[[], None]) -> dict[str, int]:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is there already.", "Choose another --out, or remove it.")
    part = path.with_name(path.name + ".part")
    with writing(path):
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            rows = write_folder(part, export) if how.name == "hf" else _lessons(part, export)
            check_read()
            if path.exists():
                path.rmdir()
            os.replace(part, path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return rows


def _lessons(folder: Path, export: Export) -> dict[str, int]:
    """The record of each lesson, in a file of its own."""
    n = 0
    for row in item_rows(export.conn, export.project):
        if row["key"].startswith(_KEY_PREFIX):
            n += 1
            with (folder / f"{n:05}.jsonl").open("wb") as file:
                write_lesson(export.conn, row["id"], file)
    if n == 0:
        raise UserError(f"The project {export.settings.name} has no lessons.", "Name another --project.")
    return {"lessons": n}
