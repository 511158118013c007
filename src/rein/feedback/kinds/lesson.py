"""Kinds of a TAMER lesson: the presses, and what happened besides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from rein.feedback.kinds.kind import BadValue, Example, Json, Kind, Measure, Value, finite, seen, whole
from rein.feedback.project import Question
from rein.feedback.record import KINDS as ROWS
from rein.feedback.refused import unstorable

if TYPE_CHECKING:
    from torch import Tensor

MOST_EVENT = 8_000_000  # characters: a row with two pictures of a screen
MOST_STEPS = 2**53
MOST_DEEP = 50  # tables and lists within each other: no row of a record has more than a few


@final
class Press(Kind):
    """A press of a TAMER lesson: how much the trainer liked what the agent did, when, and which steps it is for."""

    name = "press"
    says = "TAMER: approval or disapproval of what an agent just did."
    words = "Press while you watch."
    schema = (
        '{"value": a number, above 0 for approval, "t": seconds on the lesson\'s clock, "k": the step at that time, '
        '"credits": [[step, its share], …], and what else the record of the lesson says of it}'
    )
    least, most = 1, 1
    asked = False
    outputs = "Ĥ of each step that is credited, shape (S,), in the order of credits"
    formula = "Σ_s share_s · (value − Ĥ_s)²"
    source = "Knox & Stone 2009 (credit) and 2010 (Ĥ by gradient descent); Warnell et al. 2018 (the loss)"
    example = Example(
        Question("", "press"), {"value": 1.0, "t": 0.6, "k": 1, "credits": [[0, 0.25], [1, 0.75]]}, [0.0, 0.5],
        0.4375, "0.25 · (1 − 0)² + 0.75 · (1 − 0.5)² = 0.25 + 0.1875 = 0.4375",
    )  # fmt: skip

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A press with its credits; other fields of the record are kept as they are."""
        row = _row(value)
        for name in ("value", "t"):
            if name not in row:
                raise BadValue(f"{name} is missing")
            finite(row[name], name)
        if "k" in row:
            whole(row["k"], "k", 0, MOST_STEPS)
        credits = row.get("credits", [])
        if not isinstance(credits, list):
            raise BadValue(f"credits is {seen(credits)}, but a list of [step, share] is expected")
        for place, credit in enumerate(credits):
            if not isinstance(credit, list | tuple) or len(credit) != 2:
                raise BadValue(f"credit {place + 1} is {seen(credit)}, but [step, share] is expected")
            whole(credit[0], f"the step of credit {place + 1}", 0, MOST_STEPS)
            share = finite(credit[1], f"the share of credit {place + 1}")
            if not 0 <= share <= 1 + 1e-9:
                raise BadValue(f"the share of credit {place + 1} is {share:g}, but it must be from 0 to 1")
        return row

    def measure(self, value: Value, question: Question, texts: Sequence[str], order: Sequence[int]) -> Measure:
        """The value of the press."""
        return Measure(points=float(value["value"]))

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """Squared error of Ĥ at each credited step, weighted by its share."""
        import torch

        from rein.losses import press

        shares = outputs.new_tensor([share for _, share in value["credits"]])
        return press(outputs, torch.full_like(outputs, float(value["value"])), shares).sum()


@final
class Event(Kind):
    """Another row of a lesson's record, kept so that the record can be written again."""

    name = "event"
    says = "TAMER: a row of a lesson's record that is no press, kept so that the record can be written again."
    words = "What happened?"
    schema = "the row, as feedback/record.py describes it"
    least, most = 1, 1
    asked = False
    source = "feedback/record.py"

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A row of a record."""
        row = _row(value)
        if row.get("kind") not in ROWS:
            raise BadValue(f"kind is {seen(row.get('kind'))}, but one of {', '.join(ROWS)} is expected")
        return row


def _row(value: Json) -> Value:
    """A table of JSON that can be written and read back."""
    if not isinstance(value, dict):
        raise BadValue(f"the value is {seen(value)}, but a table is expected")
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        written.encode("utf-8")
        # As JSON writes NUL; but so begins what has these six characters in it, too.
        why = unstorable(value) if "\\u0000" in written else ""
    except (TypeError, ValueError, RecursionError) as error:
        raise BadValue(f"the value cannot be written as JSON ({type(error).__name__})") from None
    if why:
        raise BadValue(why)
    # A bound on both kinds of brackets, in texts too, is one on how deep they go, and quicker.
    if written.count("[") + written.count("{") > MOST_DEEP and _deeper(value, MOST_DEEP):
        raise BadValue(f"the value is nested more than {MOST_DEEP} deep")
    if len(written) > MOST_EVENT:
        raise BadValue(f"the value has {len(written):,} characters, but at most {MOST_EVENT:,} are kept")
    return dict(value)


def _deeper(value: Json, most: int) -> bool:
    """Whether tables and lists stand more than `most` deep in each other; without recursion, which deep ones end."""
    level = [value]
    for _ in range(most):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [each for part in inner for each in part]
    return any(isinstance(one, dict | list) for one in level)
