"""The kinds of feedback: each has its schema, what it measures, its loss, and an example that is worked by hand.

Flow     a value as JSON → `KINDS[name].check` → clean; shown order ↔ candidate order; columns of table `answer`; pairs;
         a loss (rein/losses.py)

A value is kept in the order of the item's candidates. What is said on the screen is said of places; `reorder` brings it
to the candidates, `unorder` back.
"""

from __future__ import annotations

from typing import Any

from rein.errors import suggestion
from rein.feedback.kinds.kind import MOST_NOTE, MOST_TEXT, BadValue, Example, Kind, Measure, inverse
from rein.feedback.kinds.lesson import Event, Press
from rein.feedback.kinds.marks import Flags, Likert, Rating
from rein.feedback.kinds.preferences import EVEN, POINTS, BestOf, Comparison, Ranking
from rein.feedback.kinds.texts import Demonstration, Edit, Notes, Skip
from rein.feedback.project import Question

__all__ = (
    "EVEN", "KINDS", "MOST_NOTE", "MOST_TEXT", "POINTS", "BadValue", "Example", "Kind", "Measure", "check_question",
    "describe", "inverse",
)  # fmt: skip

KINDS: dict[str, Kind] = {
    "rating": Rating(),
    "comparison": Comparison(),
    "best_of": BestOf(),
    "ranking": Ranking(),
    "likert": Likert(),
    "flags": Flags(),
    "demonstration": Demonstration(),
    "edit": Edit(),
    "notes": Notes(),
    "press": Press(),
    "event": Event(),
    "skip": Skip(),
}

MOST_POINTS = 100  # of a scale that a person can use


def check_question(question: Question) -> None:
    """Whether a project can ask this.

    A project of lessons (lessons.py) asks for presses, though no page of a labeler does.

    Raises   BadValue for a kind that is none or comes about on its own, and a scale, axes or flags that do not fit it.
    """
    asked = [name for name, kind in KINDS.items() if kind.asked or name == "press"]
    if question.kind not in asked:
        raise BadValue(f"{question.name} is of kind {question.kind!r}. {suggestion(str(question.kind), asked)}")
    if question.kind == "comparison" and question.points != POINTS:
        raise BadValue(f"{question.name} has points {question.points}, but a comparison has {POINTS}")
    if question.kind in ("rating", "likert") and not (
        isinstance(question.points, int) and 2 <= question.points <= MOST_POINTS
    ):
        raise BadValue(f"{question.name} has points {question.points}, but a scale has from 2 to {MOST_POINTS}")
    for name, kind, names in (("axes", "likert", question.axes), ("flags", "flags", question.flags)):
        if question.kind == kind and (not names or len(set(names)) < len(names)):
            raise BadValue(f"{question.name} has {name} {list(names)}, but one or more different names are needed")


def describe() -> list[dict[str, Any]]:
    """What a page of documentation says of each kind."""
    return [
        {
            "name": kind.name, "version": kind.version, "says": kind.says, "words": kind.words, "schema": kind.schema,
            "least": kind.least, "most": kind.most, "asked": kind.asked, "outputs": kind.outputs,
            "formula": kind.formula, "source": kind.source,
            "example": None if kind.example is None else {
                "value": dict(kind.example.value), "outputs": list(kind.example.outputs),
                "loss": kind.example.loss, "by_hand": kind.example.by_hand,
            },
        }
        for kind in KINDS.values()
    ]  # fmt: skip
