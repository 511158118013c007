"""Stages: the steps of a long program, each done once and known by its content. A kill costs the step at hand at most.

Flow     `Stage` (a name, its settings, what it reads by digest, a function) → `run` → its folder, and `Done`

    FOLDER/
      begun.json   the key and all that it is made of; written before anything else
      …            what the function makes
      done.json    the same, with size and SHA-256 of every file that was made; written last, in one piece

A stage with a record is never done again: its files are compared with the record instead. One without is asked to make
its folder, whatever an earlier start left there, so that a function which goes on where it was costs what is missing.
Later stages are keyed by what was made, so that equal bytes are equal wherever and whenever they were made.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rein import __version__
from rein.errors import UserError, writing
from rein.feedback.exchange.rows import canonical
from rein.report.legible import short
from rein.run import sync, write_atomically
from rein.text.shards import file_sha256

Json = Any
BEGUN, DONE = "begun.json", "done.json"


@dataclass(frozen=True)
class Stage:
    """A step: `make` fills the folder it is given, as a function of the settings and of the inputs alone."""

    name: str  # for people, as "round 2, reward model"
    settings: Mapping[str, Json]  # plain data
    inputs: Mapping[str, str]  # name → digest of its content
    make: Callable[[Path], None]
    files: Sequence[str]  # patterns of what counts as made: no logs, no times

    @property
    def key(self) -> str:
        """A digest of all that decides what is made."""
        return _sha([dict(self.settings), dict(self.inputs)])


@dataclass(frozen=True)
class Done:
    """A step that is done."""

    folder: Path
    key: str
    made: Mapping[str, Sequence[Json]]  # file, relative to the folder → [bytes, SHA-256]

    @property
    def digest(self) -> str:
        """Of the content of all files that were made: what the stages after it are keyed by."""
        return _sha({name: list(one) for name, one in self.made.items()})


class Waiting(Exception):
    """A stage cannot go on before people have done something; the text says what."""


def run(folder: Path, stage: Stage) -> Done:
    """What a stage makes: from its record where there is one, else made now.

    Raises   UserError when the folder was made or begun with other settings or from other inputs, each named; when
             what it made was changed since; and whatever the stage raises. Waiting, from the stage.
    """
    known = read(folder)
    if known is not None:
        _check_same(folder / DONE, stage)
        _check_files(known)
        return known
    if (folder / BEGUN).exists():
        _check_same(folder / BEGUN, stage)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    about = {"key": stage.key, "settings": dict(stage.settings), "inputs": dict(stage.inputs)}
    write_atomically(folder / BEGUN, _text(about))
    stage.make(folder)
    paths = sorted({path for pattern in stage.files for path in folder.glob(pattern) if path.is_file()})
    assert paths, f"{stage.name} made none of {', '.join(stage.files)}"
    made: dict[str, list[Json]] = {}
    for path in paths:
        sync(path)
        made[str(path.relative_to(folder))] = [path.stat().st_size, file_sha256(path)]
    finished = {"rein": __version__, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_atomically(folder / DONE, _text({**about, "made": made, **finished}))
    return Done(folder, stage.key, made)


def read(folder: Path) -> Done | None:
    """The record of a stage; None where it is not done.

    Raises   UserError when it is damaged.
    """
    if not (folder / DONE).exists():
        return None
    about = _about(folder / DONE)
    return Done(folder, about["key"], about["made"])


def _about(path: Path) -> dict[str, Json]:
    try:
        about: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
        if not {"key", "settings", "inputs"} <= about.keys() or (path.name == DONE and "made" not in about):
            raise ValueError
        return about
    except (ValueError, AttributeError):
        raise UserError(f"{path} is damaged.", f"Remove {path.parent}: it is then made anew.") from None


def _check_same(path: Path, stage: Stage) -> None:
    about = _about(path)
    if about["key"] == stage.key:
        return
    begun = "was made" if path.name == DONE else "was begun"
    for what, old, new in (("settings", about["settings"], stage.settings), ("inputs", about["inputs"], stage.inputs)):
        names = [name for name in sorted({*old, *new}) if canonical(old.get(name)) != canonical(new.get(name))]
        if not names:
            continue
        if what == "inputs":
            raise UserError(
                f"{path.parent} ({stage.name}) {begun} from another {', '.join(names)} than there is now.",
                "Restore what was changed, or choose another --out.",
            )
        changed = "; ".join(f"{name}: {short(old.get(name))} → {short(new.get(name))}" for name in names[:4])
        raise UserError(
            f"{path.parent} ({stage.name}) {begun} with other settings ({changed}).",
            "Go on with the settings it has, or choose another --out.",
        )
    raise UserError(f"{path} is damaged: its key is not that of what it lists.", f"Remove {path.parent}.")


def _check_files(done: Done) -> None:
    for name, (size, digest) in done.made.items():
        path = done.folder / name
        if not path.is_file():
            problem = "is missing"
        elif path.stat().st_size != size or file_sha256(path) != digest:
            problem = "has changed since it was made"
        else:
            continue
        raise UserError(
            f"{path} {problem}, and what came after was made from it.",
            f"Restore it; or remove {done.folder} and all later folders, to make them anew.",
        )


def _sha(value: Json) -> str:
    return hashlib.sha256(canonical(value).encode("utf-8", "replace")).hexdigest()


def _text(about: Mapping[str, Json]) -> str:
    return json.dumps(about, indent=1, ensure_ascii=False) + "\n"
