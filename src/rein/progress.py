"""Progress of long work: a bar with time left on a terminal, a plain line every few seconds elsewhere.

Everything goes to standard error, so that standard output stays what the command was asked for.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 10.0


class Progress:
    """`with Progress("tokenising", total=9000, unit="documents") as bar: bar.advance(10, note="…")`.

    `total` may be None where it is not known; then there is no time left to show. `start` is work done
    by an earlier start of the same run: it counts as done, not as speed. `quiet` shows nothing: of several processes
    that do one work, one speaks.
    """

    def __init__(self, what: str, *, total: float | None, unit: str, start: float = 0, quiet: bool = False) -> None:
        self._quiet = quiet
        self._what, self._total, self._unit = what, total, unit
        self._done, self._start, self._note = start, start, ""
        self._began = time.monotonic()
        self._next_line = self._began + LINE_EVERY_S
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self._quiet:
            self._bars = Bars(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[status]}"),
                console=Console(stderr=True),
            )
            self._task = self._bars.add_task(self._what, total=self._total, status="")
            self._bars.update(self._task, completed=self._start)
            self._bars.start()
        return self

    def advance(self, amount: float = 1, *, note: str | None = None) -> None:
        """`amount` more is done; `note` (a loss, a file name) replaces the last note."""
        self._done += amount
        if note is not None:
            self._note = note
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=self._done, status=self.status())
        elif time.monotonic() >= self._next_line and not self._quiet:
            self._next_line = time.monotonic() + LINE_EVERY_S
            print(f"{self._what}: {self.status()}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False)
        elif not self._quiet:
            print(line, file=sys.stderr, flush=True)

    def status(self) -> str:
        """Like "12,000/50,000 documents · 24% · 1,234/s · 31 s left · the note"."""
        elapsed = time.monotonic() - self._began
        rate = (self._done - self._start) / elapsed if elapsed > 0 else 0.0
        parts = [f"{self._done:,.0f} {self._unit}"]
        if self._total:
            parts = [f"{self._done:,.0f}/{self._total:,.0f} {self._unit}", f"{self._done / self._total:.0%}"]
        if rate > 0:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if rate > 0 and self._total and self._done < self._total:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        if self._note:
            parts.append(self._note)
        return " · ".join(parts)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        elif kind is None and not self._quiet:
            print(f"{self._what}: {self.status()}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time a person reads at a glance.

    Example  >>> duration(8), duration(95), duration(7400), duration(260000)
             ('8 s', '1 min 35 s', '2 h 3 min', '3 d 0 h')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
