"""The one exception a user is meant to read.

`UserError` says what is wrong (with its name and value), what was expected, and what to do. The command
line prints it without a traceback and exits with 2. Broken invariants of our own are `assert` with a text.
"""

from __future__ import annotations

import difflib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user can put right.

    Example  >>> print(UserError("--n-layer is 0, but a model needs at least 1 layer.", "Pass --n-layer 6."))
             --n-layer is 0, but a model needs at least 1 layer.
               Pass --n-layer 6.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}\n  {fix}")
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        return UserError, (self.problem, self.fix)  # so that it comes back from another process


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """A "Did you mean" for a mistyped name, or the list of names where nothing is near.

    Example  >>> suggestion("n_layers", ["n_layer", "n_head"])
             'Did you mean n_layer?'
             >>> suggestion("zzz", ["a", "b"])
             'Known names: a, b.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=2, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known names: {', '.join(names)}."


def speaks() -> bool:
    """Whether this process may write to the terminal.

    Of several processes that torchrun started, the first one speaks for all; what is wrong is wrong in each.
    """
    return os.environ.get("RANK", "0") == "0"


# ENOSPC: the disk is full. EDQUOT: this user's share of it is. EFBIG: a file-size limit of this process.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# A file stands where a folder is needed, or a folder where a file is.
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk or a forbidden folder, met while `path` is written, into a `UserError` that names it.

    Raises   UserError when the disk is full, a quota or file-size limit is hit, `path` may not be written,
             or a file stands where a folder is needed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise UserError(
                f"No room left while writing {path} ({os.strerror(error.errno or 0)}; "
                f"{_free_mb(path)} MB free on that disk). Nothing saved before was changed.",
                "Free some space, or write elsewhere with --out, then run the same command again.",
            ) from error
        if error.errno in (*_FORBIDDEN, *_IN_THE_WAY):
            raise UserError(
                f"{path} cannot be written: {os.strerror(error.errno or 0)}.",
                "Choose a folder of your own with --out.",
            ) from error
        raise


def _free_mb(path: Path) -> int:
    for folder in (path, *path.parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free // 1_000_000
    return 0
