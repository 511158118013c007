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

import numpy as np
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


@compiled()
def splitmix64(x: np.uint64) -> np.uint64:
    """The finaliser of splitmix64: every bit of `x` changes about half of the bits that come out.

    Example  >>> hex(splitmix64(np.uint64(1)))
             '0x5692161d100b05e5'
    Source   Steele, Lea & Flood 2014, fig. 16.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
