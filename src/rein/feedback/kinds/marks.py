"""Kinds that mark each candidate by itself: rating, likert, flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from rein.feedback.kinds.kind import (
    BadValue,
    Example,
    Json,
    Kind,
    Measure,
    Pair,
    Value,
    by_marks,
    fields,
    foremost,
    listed,
    measured,
    moved,
    seen,
    whole,
)
from rein.feedback.project import MAX_SHOWN, Question

if TYPE_CHECKING:
    from torch import Tensor


@final
class Rating(Kind):
    """How good each candidate is, on the scale of the question."""

    name = "rating"
    says = "How good each is, on a scale from 1."
    words = "How good is it?"
    schema = '{"ratings": [1 … points of the question, for each candidate]}'
    least, most = 1, MAX_SHOWN
    outputs = "the K scores, shape (K,)"
    formula = "the mean of (r_k − rating_k)² over the K candidates"
    source = "Ouyang 2022, section 3.4 (an overall rating of 1 to 7); the loss: scalar_rating of Ziegler 2019's code"
    example = Example(
        Question("rating", "rating", points=7), {"ratings": [6, 3]}, [5.5, 4.0], 0.625,
        "((5.5 − 6)² + (4 − 3)²) / 2 = (0.25 + 1) / 2 = 0.625",
    )  # fmt: skip

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A rating for each candidate."""
        ratings = listed(fields(value, ["ratings"])["ratings"], "ratings", n)
        return {
            "ratings": [
                whole(rating, f"rating {place + 1}", 1, question.points, scale=True)
                for place, rating in enumerate(ratings)
            ]
        }

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """The ratings by candidate."""
        return {"ratings": moved(value["ratings"], order)}

    def measure(self, value: Value, question: Question, texts: Sequence[str], order: Sequence[int]) -> Measure:
        """A single candidate's rating; of several, which is rated best."""
        ratings = value["ratings"]
        return measured(foremost(ratings), ratings[0] if len(ratings) == 1 else None, texts, order)

    def pairs(self, value: Value, n: int) -> tuple[list[Pair], list[Pair]]:
        """What the ratings imply."""
        return by_marks(value["ratings"])

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """Squared error of each rating, on the scale's own points."""
        from rein.losses import rating

        return rating(outputs[None], outputs.new_tensor([value["ratings"]]))[0]


@final
class Likert(Kind):
    """How good each candidate is on each of several axes."""

    name = "likert"
    says = "How good each is on several axes: overall, accuracy, coverage, coherence."
    words = "How good is it, on each axis?"
    schema = '{"axes": [{axis: 1 … points of the question, for each axis} for each candidate]}; the papers have 7'
    least, most = 1, MAX_SHOWN
    outputs = "a score for each candidate and axis, shape (K, A), axes in the question's order"
    formula = "the mean over the A axes of the mean over the K candidates of (r_ka − mark_ka)²"
    source = "Stiennon 2020, Appendix C: axes and 7 points; the loss is the rating's, on each axis"
    example = Example(
        Question("axes", "likert", points=7, axes=("overall", "accuracy")), {"axes": [{"overall": 5, "accuracy": 7}]},
        [[4.0, 6.5]], 0.625, "((4 − 5)² + (6.5 − 7)²) / 2 = 0.625",
    )  # fmt: skip

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A mark for each candidate on each axis; without `strict`, axes may be missing."""
        found = []
        for place, row in enumerate(listed(fields(value, ["axes"])["axes"], "axes", n)):
            row = fields(row, question.axes if strict else (), question.axes)
            found.append(
                {
                    axis: whole(row[axis], f"{axis} of candidate {place + 1}", 1, question.points, scale=True)
                    for axis in question.axes
                    if axis in row
                }
            )
        return {"axes": found}

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """The marks by candidate."""
        return {"axes": moved(value["axes"], order)}

    def measure(self, value: Value, question: Question, texts: Sequence[str], order: Sequence[int]) -> Measure:
        """As a rating, by the axis "overall"; nothing where that was not asked."""
        marks = _overall(value)
        if marks is None:
            return Measure()
        return measured(foremost(marks), marks[0] if len(marks) == 1 else None, texts, order)

    def pairs(self, value: Value, n: int) -> tuple[list[Pair], list[Pair]]:
        """What the axis "overall" implies."""
        return by_marks(_overall(value) or [])

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """Squared error, averaged on each axis over the candidates that have it, then over the axes."""
        from rein.losses import likert

        marks = [[float(row.get(axis, "nan")) for axis in question.axes] for row in value["axes"]]
        return likert(outputs[None], outputs.new_tensor([marks]))[0]


def _overall(value: Value) -> list[int] | None:
    marks = [row.get("overall") for row in value["axes"]]
    return None if None in marks else marks


@final
class Flags(Kind):
    """What is the matter with each candidate: of a list, those that apply."""

    name = "flags"
    says = "What applies to each, of a list of yes-or-no remarks."
    words = "Which of these apply?"
    schema = '{"flags": [[the names of those that apply] for each candidate]}'
    least, most = 1, MAX_SHOWN
    outputs = "a logit for each candidate and flag, shape (K, F), flags in the question's order"
    formula = "the mean over the K · F yes-or-no remarks of the binary cross-entropy of σ(logit)"
    source = "Ouyang 2022, Table 3"
    example = Example(
        Question("metadata", "flags", flags=("fails_task", "violent")), {"flags": [["violent"]]}, [[0.0, 1.0]],
        0.5032044, "(log 2 + log(1 + e⁻¹)) / 2 = (0.6931472 + 0.3132617) / 2 = 0.5032044",
    )  # fmt: skip

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """For each candidate, names of the question's flags, in its order."""
        found = []
        for place, names in enumerate(listed(fields(value, ["flags"])["flags"], "flags", n)):
            if not isinstance(names, list | tuple):
                raise BadValue(f"flags of candidate {place + 1} is {seen(names)}, but a list of names is expected")
            for name in names:
                if not isinstance(name, str) or name not in question.flags:
                    raise BadValue(f"flags of candidate {place + 1} has {seen(name)}, which this question does not ask")
            if len(set(names)) < len(names):
                raise BadValue(f"flags of candidate {place + 1} has one name twice")
            found.append([name for name in question.flags if name in names])
        return {"flags": found}

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """The flags by candidate."""
        return {"flags": moved(value["flags"], order)}

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """Binary cross-entropy of each flag."""
        from rein.losses import flags

        applies = [[float(name in names) for name in question.flags] for names in value["flags"]]
        return flags(outputs[None], outputs.new_tensor([applies]))[0]
