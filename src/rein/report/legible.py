"""Values as a person reads them on a page or in a terminal: numbers, dates, tables, and text nobody vouches for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len

VALUE_CHARS = 300  # of a setting, or a fact about the environment
NAME_CHARS = 300

# Shown as the pictures Unicode has for them: C0 controls, and delete.
_SIGNS: dict[int, str] = {i: chr(0x2400 + i) for i in range(32) if i not in (9, 10)} | {127: "␡"}
# Shown as their code point: C1 controls, separators, and what could turn the direction of the text around it.
_MARKED = (*range(0x80, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SIGNS |= {i: f"⟨U+{i:04X}⟩" for i in _MARKED}
_NO_CHARACTER = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef" + "".join(f"{chr(p << 16 | 0xFFFE)}{chr(p << 16 | 0xFFFF)}" for p in range(17)) + "]"
)


def visible(text: str, limit: int | None = None) -> str:
    """`text` as it may stand on the page: controls as signs, no lone surrogates, `limit` characters at most.

    Example  >>> visible("a\\x00b")
             'a␀b'
    """
    if limit is not None:
        text = text[:limit]
    return _NO_CHARACTER.sub("\ufffd", text.replace("\r\n", "\n").translate(_SIGNS))


def one_line(text: str, limit: int = NAME_CHARS) -> str:
    """`text` as it may stand in a table: on one line, with controls as signs.

    Example  >>> one_line("a\\x1b  b\\nc")
             'a␛ b c'
    """
    return " ".join(visible(text, limit).split())


def cut(text: str, most: int) -> str:
    """The first `most` characters, and … where there are more.

    Example  >>> cut("a long name", 6), cut("short", 6)
             ('a long…', 'short')
    """
    return text if len(text) <= most else text[:most] + "…"


def short(value: Any) -> str:
    """A value of a JSON file as text of bounded length: strings bare, the rest as JSON."""
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value, ensure_ascii=False)
    return visible(text, VALUE_CHARS) + ("…" if len(text) > VALUE_CHARS else "")


def count(n: int, noun: str) -> str:
    """Like "1 row", "2,000 rows"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def number(value: float | None) -> str:
    """A number a person reads at a glance; – where there is none.

    Example  >>> number(0.0006), number(3.14159), number(1234.0), number(12_345_678), number(None)
             ('0.0006', '3.142', '1,234', '12.3M', '–')
    """
    if value is None:
        return "–"
    size = abs(value)
    if 1e4 <= size < 1e15:
        for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
            if size >= unit * 0.9995:
                return f"{value / unit:.3g}{name}" if size < 999.5 * unit else f"{value / unit:,.0f}{name}"
    if 1000 <= size < 1e4:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def fixed(value: float | None, digits: int) -> str:
    """With `digits` decimals, so that columns line up; large numbers without."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e6 else number(value)
    return f"{value:.{digits}f}"


def percent(part: float) -> str:
    """A part of 1 in percent; what is not nothing, and not all, does not look so.

    Example  >>> percent(0.25), percent(0.00002), percent(0.9999), percent(0.0)
             ('25.0%', '0.002%', '>99.9%', '0%')
    """
    if part == 0:
        return "0%"
    if 0.9995 <= part < 1:
        return ">99.9%"
    return f"{part:.1%}" if part >= 0.001 else f"{part * 100:.2g}%" if part >= 1e-6 else "<0.0001%"


def size(value: float | None) -> str:
    """Bytes as MiB or GiB."""
    if value is None:
        return "–"
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def date(text: Any) -> str:
    """An ISO 8601 time as words; anything else as it is."""
    try:
        return datetime.fromisoformat(text).strftime("%-d %B %Y, %H:%M %Z").strip()
    except (TypeError, ValueError):
        return short(text)


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def table(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Lines of columns, each flush left or right by its sign in `sides`; wide characters count as two.

    Example  >>> table([("a", "n"), ("long", "10")], "<>")
             ['a      n', 'long  10']
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            text + " " * (width - cell_len(text)) if side == "<" else " " * (width - cell_len(text)) + text
            for text, width, side in zip(row, widths, sides, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines
