"""What a kind of feedback is, and how a value that nobody vouches for is checked.

Flow     JSON of a page, a program or a file → `Kind.check` → a clean value, or `BadValue` with a sentence for a person
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from rein.feedback.project import Question
from rein.report.legible import cut, one_line

if TYPE_CHECKING:
    from torch import Tensor

Json = Any
Value = dict[str, Json]
Pair = tuple[int, int]

MOST_TEXT = 20_000  # characters of what a person wrote as an answer
MOST_NOTE = 2_000  # characters of a note or a reason


class BadValue(ValueError):
    """A value that is none of its kind; the text says so in a plain sentence."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Measure(NamedTuple):
    """What statistics need of an answer: the columns of the same names of table `answer`."""

    choice: int | None = None  # of two candidates: 0, 1, or -1 for neither; else the best one's number
    points: float | None = None  # on the scale of the question, towards candidate 1; a rating
    left_side: bool | None = None  # whether the chosen of two was shown first
    longer: bool | None = None  # whether the chosen of two is the longer one


@dataclass(frozen=True)
class Example:
    """A value, what a model gave for it, and the loss by hand."""

    question: Question
    value: Mapping[str, Json]
    outputs: Sequence[Any]  # numbers, nested as `Kind.outputs` says
    loss: float
    by_hand: str  # the same as arithmetic


class Kind(ABC):
    """A kind of feedback: its schema, what it measures, and the loss that a model learns from it by.

    A value is stored in the order of the item's candidates; `reorder` brings it there from the order on the screen.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # of the schema; a stored value keeps the one that it was checked by
    says: ClassVar[str]  # what it is, in a line
    words: ClassVar[str]  # the question, where a project does not put it in its own words
    schema: ClassVar[str]  # the value, as a person reads it
    least: ClassVar[int]  # candidates of an item that it can be asked about
    most: ClassVar[int]
    asked: ClassVar[bool] = True  # of a labeler, as a question; others come about on their own
    outputs: ClassVar[str] = ""  # what `loss` is given of a model
    formula: ClassVar[str] = "none: no model is trained on it"
    source: ClassVar[str]
    example: ClassVar[Example | None] = None  # None: no loss

    @abstractmethod
    def check(
        self, value: Json, question: Question, n: int, *, strict: bool = True, texts: Sequence[str] | None = None
    ) -> Value:
        """The value, clean, about `n` candidates.

        `strict` is for people at work; without it, what other tools left out may be missing. `texts` are the
        candidates', in the order that the value speaks of, where the kind compares with them.

        Raises   BadValue for anything else than a value of this kind.
        """

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        """What was said of places, said of candidates; order[place] is the candidate shown there."""
        return dict(value)

    def unorder(self, value: Value, order: Sequence[int]) -> Value:
        """The inverse of `reorder`: what was said of candidates, said of places."""
        return self.reorder(value, inverse(order))

    def measure(self, value: Value, question: Question, texts: Sequence[str], order: Sequence[int]) -> Measure:
        """What statistics need of a value in the order of the candidates, whose texts are `texts`."""
        return Measure()

    def pairs(self, value: Value, n: int) -> tuple[list[Pair], list[Pair]]:
        """What a value says of each two of the `n` candidates: (better, worse), and (i, j) where neither is."""
        return [], []

    def loss(self, value: Value, question: Question, outputs: Tensor) -> Tensor | None:
        """The training loss of one value (rein.losses has it for batches); None where nothing is learned from it."""
        return None


# ---------------------------------------------------------------------------------------------------- orders


def inverse(order: Sequence[int]) -> list[int]:
    """The places of the candidates, from the candidates of the places.

    Example  >>> inverse([2, 0, 1])
             [1, 2, 0]
    """
    places = [0] * len(order)
    for place, candidate in enumerate(order):
        places[candidate] = place
    return places


def moved(said: Sequence[Json], order: Sequence[int]) -> list[Json]:
    """What is said of each place, as a list by candidate.

    Example  >>> moved(["left", "middle", "right"], [2, 0, 1])
             ['middle', 'right', 'left']
    """
    found: list[Json] = [None] * len(order)
    for place, candidate in enumerate(order):
        found[candidate] = said[place]
    return found


def measured(choice: int | None, points: float | None, texts: Sequence[str], order: Sequence[int]) -> Measure:
    """A choice with the side and the length of what was chosen, where there are two."""
    if len(order) != 2 or choice not in (0, 1):
        return Measure(choice, points)
    chosen, other = len(texts[choice]), len(texts[1 - choice])
    return Measure(choice, points, order[0] == choice, None if chosen == other else chosen > other)


def by_marks(marks: Sequence[float]) -> tuple[list[Pair], list[Pair]]:
    """The pairs that a number for each candidate implies, where more is better."""
    each = [(i, j) for i in range(len(marks)) for j in range(i + 1, len(marks))]
    better = [(i, j) if marks[i] > marks[j] else (j, i) for i, j in each if marks[i] != marks[j]]
    return better, [(i, j) for i, j in each if marks[i] == marks[j]]


def foremost(marks: Sequence[float]) -> int | None:
    """The number of the highest mark, -1 where several are; None for a single candidate, which was compared to none."""
    if len(marks) < 2:
        return None
    best = max(marks)
    return marks.index(best) if list(marks).count(best) == 1 else -1


# ---------------------------------------------------------------------------------------------------- checks


def seen(value: Json) -> str:
    """A value in a message: bounded, on one line, whatever it is."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**15:
        return "a huge number"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return f'"{one_line(cut(value, 40))}"'
    return "a list" if isinstance(value, list | tuple) else "a table" if isinstance(value, Mapping) else "no JSON"


def fields(value: Json, needed: Collection[str], optional: Collection[str] = ()) -> Value:
    """A table with the fields `needed`, and none but these and the `optional` ones.

    Raises   BadValue.
    """
    if not isinstance(value, dict):
        raise BadValue(f"the value is {seen(value)}, but a table with {_names(needed)} is expected")
    for name in value:
        if name not in needed and name not in optional:
            raise BadValue(f"the value has a field {seen(name)}, but only {_names([*needed, *optional])} is known")
    for name in needed:
        if name not in value:
            raise BadValue(f"{name} is missing")
    return value


def whole(value: Json, name: str, low: int, high: int, *, scale: bool = False) -> int:
    """A whole number from `low` to `high`.

    Raises   BadValue.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue(f"{name} is {seen(value)}, but a whole number from {low} to {high} is expected")
    if not low <= value <= high:
        what = "the scale goes" if scale else "it must be"
        raise BadValue(f"{name} is {seen(value)}, but {what} from {low} to {high}")
    return value


def finite(value: Json, name: str) -> float:
    """A number that is one.

    Raises   BadValue.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValue(f"{name} is {seen(value)}, but a number is expected")
    try:
        number = float(value)
    except OverflowError:
        raise BadValue(f"{name} is a huge number, but one of ordinary size is expected") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise BadValue(f"{name} is {number}, but a finite number is expected")
    return number


def text(value: Json, name: str, most: int, *, blank: bool) -> str:
    """A text of at most `most` characters, as it is: nothing is trimmed.

    Raises   BadValue; also for NUL and half a character, which no database or file can keep.
    """
    if not isinstance(value, str):
        raise BadValue(f"{name} is {seen(value)}, but a text is expected")
    if len(value) > most:
        raise BadValue(f"{name} has {len(value):,} characters, but at most {most:,} are kept")
    if "\0" in value:
        raise BadValue(f"{name} has a NUL character, which cannot be kept")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadValue(f"{name} has half a character (a lone surrogate), which cannot be kept")
    if not blank and not value.strip():
        raise BadValue(f"{name} is empty")
    return value


def listed(value: Json, name: str, n: int) -> list[Json]:
    """A list with one entry for each of `n` candidates.

    Raises   BadValue.
    """
    if not isinstance(value, list | tuple):
        raise BadValue(f"{name} is {seen(value)}, but a list with one entry for each of {n} candidates is expected")
    if len(value) != n:
        raise BadValue(f"{name} has {len(value):,} entries, but there are {n} candidates")
    return list(value)


def _names(names: Collection[str]) -> str:
    if not names:
        return "no field"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
