"""`rein label import` and `rein label export`: files into a labeling project, and out of it.

Flow     flags → exchange/importing.py → what came in, and which lines did not
         flags → exchange/exporting.py → a file, a folder, or standard output
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rein.config import setting
from rein.errors import UserError, suggestion
from rein.feedback.exchange.checking import Given
from rein.feedback.exchange.exporting import export_file, fates, open_export, pieces
from rein.feedback.exchange.importing import Imported, import_file
from rein.feedback.exchange.seen import unseen_line
from rein.feedback.exchange.table import FORMATS
from rein.feedback.exchange.writing import WORK
from rein.feedback.people import audit
from rein.feedback.project import PRESETS
from rein.feedback.store import Store
from rein.feedback.tables import ITEM_ROLES
from rein.progress import Progress
from rein.report.legible import count, one_line

_STORE = "the feedback store: an SQLite file, or postgresql://USER@HOST/DATABASE"


@dataclass(frozen=True)
class ImportConfig:
    """Settings of `rein label import`."""

    file: Path = setting(help="the file: JSON lines or a JSON list; .gz and .zst are unpacked", positional=True)
    project: str = setting(help="the project that it goes into")
    store: str = setting("labels.db", f"{_STORE}; made where there is none, with --create")
    format: str = setting("", "of `rein label formats`; without it, told by the first row")
    create: bool = setting(False, "make the project where there is none")
    preset: str = setting(
        "", f"what a new project asks: {', '.join(PRESETS)}; without it, as the file or its format has it"
    )
    batch: str = setting("", "the batch of all items; without it, the file's own, or batch1")
    role: str = setting("", f"the role of all items: {', '.join(ITEM_ROLES)}; without it, the file's own, or work")
    split_frac: tuple[str, ...] = setting(
        (), "NAME=SHARE of the prompts for each split, like valid1=0.05 valid2=0.05; the rest is train"
    )
    dry_run: bool = setting(False, "say what would come in, and write nothing")


def import_command(config: ImportConfig) -> None:
    """Imports a file of feedback, or of outputs that are to be judged, into a labeling project.

    A line comes in whole or not at all; the ones that cannot be taken are listed, and the others are kept. The same
    file again adds nothing, and an import that was stopped is finished by the same command. Those whom a file names
    become people who cannot log in.

    Examples
      rein label import prompts.jsonl --project summaries
      rein label import comparisons/batch9.json --project tldr --create
      rein label import hh.jsonl.gz --project hh --create --split-frac valid1=0.05 valid2=0.05
      rein label import labels.jsonl --project again --create --dry-run
    """
    if config.role and config.role not in ITEM_ROLES:
        raise UserError(f"--role is {config.role!r}.", suggestion(config.role, ITEM_ROLES))
    given = Given(config.batch, config.role, _splits(config.split_frac))
    with (
        Store.open(config.store, create=config.create and not config.dry_run) as store,
        Progress("import", total=None, unit="lines") as bar,
    ):
        done = import_file(
            store, config.project, config.format, config.file, given=given, dry=config.dry_run, create=config.create,
            preset=config.preset, advance=bar.advance,
        )  # fmt: skip
        if not config.dry_run:
            about = {"project": config.project, "format": done.format, "items": done.added, "answers": done.answers}
            _note(store, "import", {**about, "file": config.file.name})
    print("\n".join(_lines(config, done)))
    if done.bad_total == done.lines:
        first = done.bad[0]
        raise UserError(
            f"No line of {config.file} can be taken. Line {first.line}: {one_line(first.problem)}.",
            "Correct the lines, or choose another --format, or a project that asks what they hold.",
        )


def _splits(words: Sequence[str]) -> dict[str, float]:
    """Raises UserError for what is no NAME=SHARE, and for shares above 1 together."""
    splits = dict[str, float]()
    for word in (one for words_ in words for one in words_.split(",")):
        name, _, share = word.partition("=")
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not name or not 0 < value <= 1:
            raise UserError(f"--split-frac has {word!r}.", "Write NAME=SHARE with a share from 0 to 1: valid1=0.05.")
        splits[name] = value
    if (whole := sum(splits.values())) > 1:
        raise UserError(
            f"The shares of --split-frac are {whole:g} together.", "They are shares of one whole: 1 at most."
        )
    return splits


def _lines(config: ImportConfig, done: Imported) -> list[str]:
    told = "" if config.format else ", told by its first row"
    would = " (a rehearsal: nothing was written)" if config.dry_run else ""
    lines = [
        f"format            {done.format}{told}",
        f"items             {count(done.added, 'item')} added, {done.known:,} known{would}",
        f"answers           {count(done.answers, 'answer')} added",
    ]
    if done.unseen:
        lines.append(unseen_line(done.unseen))
    lines += [f"kept              {count(n, 'item')} with answers, though {why}" for why, n in done.idle]
    if done.bad_total:
        lines.append(f"left out          {count(done.bad_total, 'line')} of {done.lines:,}:")
        lines += [f"{config.file}:{bad.line}: {one_line(bad.problem)}" for bad in done.bad]
        if done.bad_total > len(done.bad):
            lines.append(f"and {count(done.bad_total - len(done.bad), 'more line')}")
    return lines


# ---------------------------------------------------------------------------------------------------------- out


@dataclass(frozen=True)
class ExportConfig:
    """Settings of `rein label export`."""

    project: str = setting(help="the project that goes out")
    store: str = setting("labels.db", _STORE)
    format: str = setting("rein", "of `rein label formats`; rein has everything")
    out: Path | None = setting(
        None, "the file, packed where it ends in .gz, or the folder of hf and tamer; else it is printed"
    )
    ties: Literal["drop", "half", "both"] = setting(
        "drop",
        "of two that neither is better of: no pair; one, with a column probability of 0.5; two, one each way",
        paper="Ouyang 2022: drop",
    )  # fmt: skip
    split: str = setting("", "this split alone")
    role: tuple[str, ...] = setting(WORK, f"items of these roles: {', '.join(ITEM_ROLES)}")
    batch: tuple[str, ...] = setting((), "items of these batches; without any, of all")
    question: str = setting("", "answers to this question alone; without it, to all that fit the format")
    implicit: bool = setting(False, "trl: the prompt inside chosen and rejected")
    conversational: bool | None = setting(None, "trl: chat messages; none: as the item came")
    margin: bool = setting(False, "trl: a column with |points − 5| of a comparison, which its reward trainer subtracts")
    names: bool = setting(False, "labelers by the names that they log in with, not by pseudonyms")


def export_command(config: ExportConfig) -> None:
    """Writes the feedback of a labeling project as a file of another program, or of Rein's own.

    The answers that stand go out, in the order in which they were given; rein has those too that were revised or taken
    back. Labelers go by pseudonyms unless --names. A file is there whole or not at all. Of formats that have no place
    for some answers, how many went out, and why others did not, is said on stderr.

    Examples
      rein label export --project summaries --out summaries.jsonl
      rein label export --project summaries --format trl --ties half --out pairs.jsonl.gz
      rein label export --project summaries --format hf --out summaries-dataset
      rein label export --project tldr --format openai-comparisons --split valid2
    """
    for role in config.role:
        if role not in ITEM_ROLES:
            raise UserError(f"--role has {role!r}.", suggestion(role, ITEM_ROLES))
    with Store.open(config.store, to_read=True) as store, store.reading() as conn:
        export = open_export(
            conn, config.project, secret=b"" if config.names else store.secret, names=config.names, ties=config.ties,
            split=config.split or None, roles=config.role, batches=config.batch, question=config.question,
            implicit=config.implicit, conversational=config.conversational, margin=config.margin,
        )  # fmt: skip
        about = {"project": config.project, "format": config.format, "names": config.names}
        if config.out is None:
            rows = pieces(export, config.format)
            _note(store, "export", about)
            for row in rows:
                sys.stdout.buffer.write(row)
            written = {}
        else:
            written = export_file(export, config.format, config.out, store.check_unmoved)
            _note(store, "export", about)
        told = fates(export, config.format)
    if config.out is not None:
        print(f"written           {config.out}")
    for what, n in written.items():
        print(f"{what:17} {n:,}")
    if told:
        print("\n".join(told), file=sys.stderr)


def _note(store: Store, act: str, about: Mapping[str, Any]) -> None:
    """Files that came in or went out are in the audit log; this one came from the command line."""
    if store.only_read:
        print(f"This is not in the audit log: {store.address} may not be written.", file=sys.stderr)
        return
    store.write(lambda conn: audit(conn, time.time_ns() // 1_000_000, None, act, about))


@dataclass(frozen=True)
class FormatsConfig:
    """Settings of `rein label formats`."""


def formats_command(config: FormatsConfig) -> None:
    """Lists the forms of files that are read and written.

    Examples
      rein label formats
    """
    for one in FORMATS.values():
        special = one.name in ("hf", "tamer")
        reads = "in" if one.reads or one.name == "tamer" else "  "
        writes = "out" if one.writes or special else "   "
        print(f"{one.name:19} {reads}  {writes}  {one.says}")
