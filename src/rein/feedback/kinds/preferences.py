"""Kinds that compare candidates with each other: comparison, best_of, ranking."""

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
    whole,
)
from rein.feedback.project import MAX_SHOWN, Question

if TYPE_CHECKING:
    from torch import Tensor

POINTS = 9  # of the comparison scale: Stiennon 2020, Appendix C
EVEN = 5


def side(points: int) -> int | None:
    """Which of two candidates a place on the comparison scale is nearer to: None for the middle.

    Example  >>> side(1), side(5), side(6)
             (0, None, 1)
    """
    return None if points == EVEN else int(points > EVEN)


@final
class Comparison(Kind):
    """Which of two candidates is better, and how surely.

    The scale has no other ends than "much better": 1 is candidate 0 by far, 5 is even, 9 is candidate 1 by far.
    """

    name = "comparison"
    says = "Which of two is better, on a scale of 9 points from one to the other."
    words = "Which is better?"
    schema = (
        '{"choice": 0 | 1 | null, "points": 1 … 9 | null}; choice null is a tie; points 1 is candidate 0 much better, '
        "5 even, 9 candidate 1 much better; choice and points agree (an import may say only choice, or both as given)"
    )
    least, most = 2, 2
    outputs = "the two scores, shape (2,)"
    formula = "−log σ(r_better − r_worse); a tie: the mean of both directions"
    source = "Stiennon 2020, section 3.4 and Appendix C"
    example = Example(
        Question("choice", "comparison"), {"choice": 1, "points": 8}, [0.5, 1.5], 0.3132617,
        "−log σ(1.5 − 0.5) = log(1 + e⁻¹) = 0.3132617",
    )  # fmt: skip

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A choice that its points agree with; with `strict`, both."""
        row = fields(value, ["choice", "points"] if strict else ["choice"], ["points"])
        choice = row["choice"]
        choice = None if choice is None else whole(choice, "choice", 0, 1)
        if not strict and row.get("points") is None:
            return {"choice": choice, "points": None}
        points = whole(row["points"], "points", 1, POINTS, scale=True)
        if strict and side(points) != choice:
            words = {None: "even, which is choice null", 0: "nearer to choice 0", 1: "nearer to choice 1"}
            said = "null" if choice is None else choice
            raise BadValue(f"choice is {said}, but points is {points}: {words[side(points)]}")
        if strict and choice is None and not question.ties:
            raise BadValue("points is 5, but this question takes no ties")
        return {"choice": choice, "points": points}

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """The choice by candidate; the scale turned round where the sides are."""
        choice, points = value["choice"], value["points"]
        turned = order[0] == 1 and points is not None
        return {
            "choice": None if choice is None else order[choice],
            "points": POINTS + 1 - points if turned else points,
        }

    def measure(self, value: Value, question: Question, texts: Sequence[str], order: Sequence[int]) -> Measure:
        """The choice, -1 for a tie, and the points."""
        return measured(-1 if value["choice"] is None else value["choice"], value["points"], texts, order)

    def pairs(self, value: Value, n: int) -> tuple[list[Pair], list[Pair]]:
        """One pair."""
        choice = value["choice"]
        return ([], [(0, 1)]) if choice is None else ([(choice, 1 - choice)], [])

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """Negative log-likelihood of the choice; a tie is half of each."""
        from rein.losses import pairwise

        choice = value["choice"]
        if choice is None:
            return pairwise(outputs[0], outputs[1], p=outputs.new_tensor(0.5))
        return pairwise(outputs[choice], outputs[1 - choice])


@final
class BestOf(Kind):
    """Which of K candidates is the best; nothing is said of the others."""

    name = "best_of"
    says = "Which one of several is the best."
    words = "Which is the best?"
    schema = '{"best": the number of a candidate, from 0}'
    least, most = 2, MAX_SHOWN
    outputs = "the K scores, shape (K,)"
    formula = "−log (e^r_best / Σ_k e^r_k)"
    source = "Ziegler 2019, section 2 (four candidates)"
    example = Example(
        Question("best", "best_of"), {"best": 2}, [0.0, 0.0, 1.0, 0.0], 0.7436684,
        "log(3 + e¹) − 1 = 0.7436684",
    )  # fmt: skip

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """The number of one candidate."""
        return {"best": whole(fields(value, ["best"])["best"], "best", 0, n - 1)}

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """The best by candidate."""
        return {"best": order[value["best"]]}

    def measure(self, value: Value, question: Question, texts: Sequence[str], order: Sequence[int]) -> Measure:
        """The best."""
        return measured(value["best"], None, texts, order)

    def pairs(self, value: Value, n: int) -> tuple[list[Pair], list[Pair]]:
        """The best over each of the others; of the others with each other, nothing is known."""
        return [(value["best"], other) for other in range(n) if other != value["best"]], []

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """Cross-entropy of the best among all."""
        from rein.losses import best_of

        return best_of(outputs[None], outputs.new_tensor([value["best"]]).long())[0]


@final
class Ranking(Kind):
    """All K candidates from best to worst, some of them perhaps equal."""

    name = "ranking"
    says = "All of several from best to worst, ties allowed."
    words = "Rank them from best to worst."
    schema = (
        '{"ranks": [a rank for each candidate]}; 1 is the best, equal ranks are a tie, none is left out: 1, 2, 2, 3'
    )
    least, most = 2, MAX_SHOWN
    outputs = "the K scores, shape (K,)"
    formula = "the mean of −log σ(r_better − r_worse) over the pairs of different rank, at most K(K − 1)/2"
    source = "Ouyang 2022, section 3.5 and equation 1"
    example = Example(
        Question("ranking", "ranking"), {"ranks": [1, 2, 2]}, [1.0, 0.0, -1.0], 0.2200948,
        "(log(1 + e⁻¹) + log(1 + e⁻²)) / 2 = (0.3132617 + 0.1269280) / 2 = 0.2200948; the tie is dropped",
    )  # fmt: skip

    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """A rank for each candidate, none left out."""
        ranks = listed(fields(value, ["ranks"])["ranks"], "ranks", n)
        ranks = [whole(rank, f"rank {place + 1}", 1, n) for place, rank in enumerate(ranks)]
        for rank in range(1, max(ranks)):
            if rank not in ranks:
                raise BadValue(f"no candidate has rank {rank}, but one has rank {max(ranks)}; ranks go up one by one")
        if strict and not question.ties and max(ranks) < n:
            raise BadValue("two candidates have the same rank, but this question takes no ties")
        return {"ranks": ranks}

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """The ranks by candidate."""
        return {"ranks": moved(value["ranks"], order)}

    def measure(self, value: Value, question: Question, texts: Sequence[str], order: Sequence[int]) -> Measure:
        """The best one, -1 where several are."""
        return measured(foremost([-rank for rank in value["ranks"]]), None, texts, order)

    def pairs(self, value: Value, n: int) -> tuple[list[Pair], list[Pair]]:
        """Every two."""
        return by_marks([-rank for rank in value["ranks"]])

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor:
        """The mean over the pairs of different rank; 0 where all are equal."""
        from rein.losses import ranking

        return ranking(outputs[None], outputs.new_tensor([value["ranks"]]).long())[0]
