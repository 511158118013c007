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
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from rein.errors import UserError, writing
from rein.optim import adam_state
from rein.run import sync

STATE = "training_state"
BEST = "best"  # of a run folder: the model that the run selected


def save(
    folder: Path, write: Callable[[Path], None], about: dict[str, Any], group: dist.ProcessGroup | None = None
) -> None:
    """Makes the checkpoint `folder`: `write` fills it, `about` goes into its rein.json.

    Of several processes all take part in `write`, and the first one does the rest.

    Raises   UserError when the disk is full; `folder` is then not there, and no other checkpoint is touched.
    """
    part = folder.with_name(folder.name + ".part")
    if group is not None and dist.get_rank(group) > 0:
        _meet(group)  # the folder is there
        write(part)
        _meet(group)  # all have written
        return
    if part.exists():
        shutil.rmtree(part)
    try:
        with writing(folder):
            part.mkdir(parents=True)
            _meet(group)
            with _disk_errors_as_such():
                write(part)
            _meet(group)
            files = {str(path.relative_to(part)): _fingerprint(path) for path in _files(part)}
            (part / "rein.json").write_text(json.dumps({**about, "files": files}, indent=2) + "\n", encoding="utf-8")
            for path in _files(part):
                shutil.copymode(part / "rein.json", path)  # safetensors gives its files to their owner alone
                sync(path)
            for path in {path.parent for path in _files(part)}:
                sync(path)
            if folder.exists():  # the same update saved twice, by a run that was resumed from before it
                shutil.rmtree(folder)
            os.rename(part, folder)
            sync(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _meet(group: dist.ProcessGroup | None) -> None:
    """Until all processes that write are here."""
    if group is not None:
        dist.barrier(group)


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
        raise UserError(f"{path} is damaged.", f"Remove {folder}: one before it, if any, is then used.") from None


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
        raise UserError(
            f"The checkpoint file {path} {problem}.", f"Remove {folder}: one before it, if any, is then used."
        )


def all_steps(folder: Path) -> list[Path]:
    """The whole checkpoints in a run's `checkpoints` folder, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=step_of)


def step_folder(folder: Path, opt_step: int) -> Path:
    """Where the checkpoint after `opt_step` updates belongs."""
    return folder / f"step-{opt_step:08d}"


def step_of(path: Path) -> int:
    """After how many updates a checkpoint was made: what `step_folder` wrote into its name.

    Example  >>> step_of(step_folder(Path("checkpoints"), 1000))
             1000
    """
    return int(path.name.removeprefix("step-"))


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


def chosen(path: Path) -> Path:
    """The model that `path` means to whoever uses it: what a run selected, if it selects, or its newest checkpoint.

    Raises   UserError when there is none.
    """
    best = path / BEST
    return best if best.is_dir() and (path / "run.lock").exists() else latest(path)


def prune(folder: Path, keep: int, *, spare: int | None = None) -> None:
    """Removes all but the newest `keep` checkpoints, and what a killed save left behind; never that of step `spare`."""
    for path in all_steps(folder)[:-keep]:
        if spare is not None and path == step_folder(folder, spare):
            continue
        doomed = path.with_name(path.name + ".part")  # so that a kill leaves no half checkpoint under its name
        os.rename(path, doomed)
    for path in folder.glob("*.part"):
        shutil.rmtree(path)


def write_tensors(folder: Path, state: dict[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Saves tensors by name into `folder`; DTensors as the wholes they are parts of. All of the group take part."""
    _quietly(dcp_save, state, checkpoint_id=folder, process_group=group, no_dist=group is None)


def read_tensors(folder: Path, state: dict[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Fills the tensors of `state` from `folder`, bit for bit, however they were cut when they were saved.

    Raises   UserError when the folder is missing or does not fit.
    """
    try:
        _quietly(dcp_load, state, checkpoint_id=folder, process_group=group, no_dist=group is None)
    except Exception as error:
        raise UserError(
            f"The training state in {folder} cannot be read: {error}.",
            "Continue from an earlier checkpoint by removing this one, or start a new run with --out.",
        ) from error


def optimizer_tensors(parameters: Iterable[tuple[str, Tensor]], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by the names of its parameters: `h.0.ln_1.weight/exp_avg`. Made, at 0, where it has none.

    They are the tensors themselves: what is read into them, the optimiser has.
    """
    return {
        f"{name}/{key}": value
        for name, parameter in parameters
        for key, value in adam_state(optimizer, parameter).items()
    }


def write_training_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Saves the optimiser of a model that one process holds."""
    write_tensors(folder, optimizer_tensors(model.named_parameters(), optimizer))


def read_training_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Loads it again, bit for bit.

    Raises   UserError when the folder is missing or does not fit the model.
    """
    read_tensors(folder, optimizer_tensors(model.named_parameters(), optimizer))


class Writer:
    """Writes checkpoints in a thread while training goes on; one at a time.

    What goes wrong there is raised by the next call here.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begins `work`, after what is under way has ended."""
        self.wait()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what went wrong, if anything has."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends when nothing is under way, whatever went wrong elsewhere: who comes next may clear the folder."""
        if kind is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        """Until nothing is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()


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
