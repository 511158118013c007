"""Checkpoints: folders that are whole or not there, with what a run needs to continue to the last bit.

    checkpoints/step-00001000/
      config.json model.safetensors tokenizer.json …    a Hugging Face model folder (models/huggingface.py)
      rein.json                                         our config, progress, and every file's size and SHA-256
      training_state/                                   the optimiser, by torch.distributed.checkpoint

A checkpoint is written under another name, flushed to the disk, and renamed: a kill at any moment leaves the
earlier ones as they were. This module knows files and states, no model.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from rein.errors import UserError, writing

STATE = "training_state"


def save(folder: Path, write: Callable[[Path], None], about: dict[str, Any]) -> None:
    """Makes the checkpoint `folder`: `write` fills it, `about` goes into its rein.json.

    Raises   UserError when the disk is full; `folder` is then not there, and no other checkpoint is touched.
    """
    part = folder.with_name(folder.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    try:
        with writing(folder):
            part.mkdir(parents=True)
            with _disk_errors_as_such():
                write(part)
            files = {str(path.relative_to(part)): _fingerprint(path) for path in _files(part)}
            (part / "rein.json").write_text(json.dumps({**about, "files": files}, indent=2) + "\n", encoding="utf-8")
            for path in _files(part):
                _flush(path)
            for path in {path.parent for path in _files(part)}:
                _flush(path)
            if folder.exists():  # the same update saved twice, by a run that was resumed from before it
                shutil.rmtree(folder)
            os.rename(part, folder)
            _flush(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def read_about(folder: Path) -> dict[str, Any]:
    """The rein.json of a checkpoint.

    Raises   UserError when `folder` is no checkpoint of ours, or its rein.json is damaged.
    """
    path = folder / "rein.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return about
    except FileNotFoundError:
        raise UserError(f"{folder} is not a checkpoint: it has no rein.json.", "Give a run or a checkpoint.") from None
    except ValueError:
        raise UserError(f"{path} is damaged.", f"Remove {folder}: an earlier checkpoint is then used.") from None


def verify(folder: Path) -> None:
    """Compares every file with the size and SHA-256 it was saved with.

    Raises   UserError that names a file which is missing, cut short, or changed.
    """
    for name, (size, digest) in read_about(folder).get("files", {}).items():
        path = folder / name
        if not path.exists():
            problem = "is missing"
        elif path.stat().st_size != size:
            problem = f"is {path.stat().st_size:,} bytes, but {size:,} were saved: it was cut short or replaced"
        elif _fingerprint(path)[1] != digest:
            problem = "has changed since it was saved"
        else:
            continue
        raise UserError(f"The checkpoint file {path} {problem}.", f"Remove {folder}: an earlier one is then used.")


def all_steps(folder: Path) -> list[Path]:
    """The whole checkpoints in a run's `checkpoints` folder, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def step_folder(folder: Path, opt_step: int) -> Path:
    """Where the checkpoint after `opt_step` updates belongs."""
    return folder / f"step-{opt_step:08d}"


def latest(path: Path) -> Path:
    """The checkpoint that `path` means: itself, or the newest of the run folder it is.

    Raises   UserError when there is none.
    """
    if (path / "config.json").exists() and not (path / "run.lock").exists():
        return path
    steps = all_steps(path / "checkpoints") or all_steps(path)
    if not steps:
        what = "has no checkpoint yet" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}.", "Give a run folder with checkpoints, or a checkpoint or model folder.")
    return steps[-1]


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and what a killed save left behind."""
    for path in all_steps(folder)[:-keep]:
        doomed = path.with_name(path.name + ".part")  # so that a kill leaves no half checkpoint under its name
        os.rename(path, doomed)
    for path in folder.glob("*.part"):
        shutil.rmtree(path)


def write_training_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Saves the optimiser into `folder`, keyed by parameter names, so that it can be resharded on loading."""
    _quietly(dcp_save, get_optimizer_state_dict(model, optimizer), checkpoint_id=folder)


def read_training_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Loads the optimiser from `folder`, bit for bit.

    Raises   UserError when the folder is missing or does not fit the model.
    """
    state = get_optimizer_state_dict(model, optimizer)
    try:
        _quietly(dcp_load, state, checkpoint_id=folder)
    except Exception as error:
        raise UserError(
            f"The training state in {folder} cannot be read: {error}.",
            "Continue from an earlier checkpoint by removing this one, or start a new run with --out.",
        ) from error
    set_optimizer_state_dict(model, optimizer, state)


def _quietly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():  # it warns that one process is one process
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        warnings.filterwarnings("ignore", category=FutureWarning)
        try:
            return function(*args, **kwargs)
        except CheckpointException as error:  # not an Exception; what it holds is
            raise next(iter(error.failures.values()))[0] from None


@contextmanager
def _disk_errors_as_such() -> Iterator[None]:
    """Libraries wrap the system's error in one of their own: raises it again as the OSError it was."""
    try:
        yield
    except Exception as error:
        found = _disk_error(error)
        if found is None or found is error:
            raise
        raise found from error


def _disk_error(error: BaseException | None) -> OSError | None:
    if error is None or isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))  # safetensors, written in Rust
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if "unexpected pos" in str(error):  # torch's file writer wrote less than it was given, which only a full disk does
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _disk_error(error.__cause__) or _disk_error(error.__context__)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fingerprint(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
