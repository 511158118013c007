"""Functions compiled by numba and kept on disk, so that only the first run on a machine compiles them.

numba names a kept function by a number, the next that is free in its index. Two processes that compile two variants of
one function at the same time take the same number; one's machine code then stands under the other's types, and the
next process that loads it fails or reads memory that is not its own. Here every process names its files differently:
at worst one of the two variants is forgotten, and compiled again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """A decorator: `numba.njit` that keeps what it compiled, and holds no lock; `options` are njit's."""

    def decorate(function: F) -> F:
        dispatcher: Any = njit(cache=True, nogil=True, **options)(function)
        file = dispatcher._cache._cache_file
        numbered = ".{number:d}.nbc"
        assert file._data_name_pattern.endswith(numbered), "numba names its files differently; see numba.core.caching"
        stem = file._data_name_pattern.removesuffix(numbered)
        file._data_name_pattern = f"{stem}.{{number:d}}-{uuid.uuid4().hex[:12]}.nbc"
        return dispatcher  # type: ignore[no-any-return]

    return decorate
