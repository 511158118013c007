"""What all pages that are one file share: head and tiles (parts.html), style sheets (static/), and what a page may do.

Flow     a folder of templates → `templates`; the style and the scripts of a page → `policy`
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rein.report.legible import cut, percent

_HERE = Path(__file__).parent


def templates(
    folder: Path, *, finalize: Callable[[Any], Any] | None = None, **filters: Callable[..., Any]
) -> Environment:
    """The templates of a folder, which may import parts.html. All that they write is escaped, after `finalize`."""
    environment = Environment(
        loader=FileSystemLoader([folder, _HERE]), autoescape=True, finalize=finalize, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"cut": cut, "percent": percent, **filters}
    return environment


@cache
def static(name: str) -> str:
    """The text of a file in static/, read once per process."""
    return (_HERE / "static" / name).read_text(encoding="utf-8")


def policy(style: str, *scripts: str) -> str:
    """A content security policy that allows this style, these scripts and images in the page itself: nothing else.

    Example  >>> policy("p { margin: 0; }").split("; ")[0::2]
             ["default-src 'none'", 'img-src data:', "form-action 'none'"]
    """
    script_src = f"script-src {' '.join(map(_hash, scripts))}; " if scripts else ""
    return (
        f"default-src 'none'; {script_src}style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
