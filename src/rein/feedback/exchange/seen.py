"""Which fields of a file labelers are shown, where nobody declared what its prompt is.

Flow     a line's own fields, the project's `fields` → what is shown, and what is kept beside it

A file often says on the same line who wrote an output, or which one won; a labeler who reads that is not blind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from rein.report.legible import one_line

T = TypeVar("T")
# Names of what is asked about. Any other field may say who wrote what: "generator", "model_a", "winner", "name".
SHOWN = (
    "prompt", "instruction", "input", "question", "title", "post", "article", "text", "context", "subreddit", "site",
    "document", "dialogue", "conversation",
)  # fmt: skip
HOW = f"Name what is to be read in the project's setting fields; without it, that is: {', '.join(SHOWN)}"
_NAMED = 20


def seen_of(context: Mapping[str, T], fields: Sequence[str]) -> tuple[dict[str, T], dict[str, T]]:
    """What labelers are shown of a line's fields, and the rest.

    fields   of the project: these alone; none: those of SHOWN

    Example  >>> seen_of({"title": "A", "generator": "gpt"}, ())
             ({'title': 'A'}, {'generator': 'gpt'})
    """
    shown = {name: value for name, value in context.items() if name in (fields or SHOWN)}
    return shown, {name: value for name, value in context.items() if name not in shown}


def unseen_line(names: Sequence[str]) -> str:
    """What a command says of fields that are kept out of sight.

    Example  >>> unseen_line(["generator", "winner"])
             'not shown         to labelers: generator, winner'
    """
    more = f", and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"not shown         to labelers: {one_line(', '.join(names[:_NAMED]))}{more}"
