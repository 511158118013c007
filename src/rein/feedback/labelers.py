"""Simulated labelers: they read a card as a person does, judge by a gold score, err, hesitate, and answer by the API.

Flow     a card (what the page shows: context, candidates in the order of the screen, questions) → `Labeler.answer` →
         answers in that order, notes, times; the client (client.py) sends them as a page would
Source   labelers simulated with noise of their own: Dubois 2023 (AlpacaFarm), sections 2.2 and 3.2, which turns a
         quarter of the labels around; a gold score instead of people: Gao 2022; choice by Bradley & Terry 1952;
         rankings by Luce 1959 and Plackett 1975.

A labeler sees only the card. The gold score is computed from the texts on it, so that nothing which the server hides
from people can help. What it feels about the candidate at place i is

    u_i = s_i / τ + b · (K − 1 − i) / (K − 1) + l · ln(length_i) + g_i          g_i ~ Gumbel(0, 1)

with the gold score s, the temperature τ, the pull b of the side that is read first, and that of length, l. A difference
of two Gumbel numbers is logistic, so of two P(i over j) = σ((s_i − s_j) / τ ± b + l ln(length_i / length_j)), and a
ranking by u is Plackett and Luce's. With probability `noise` the judgement is turned around, about the mean of u (of
one candidate alone, about what is usual). All questions of a card are answered from the same u, so that ratings,
ranking and comparison agree as one person's do.

The random numbers depend on (seed, name, card) alone: the same card gets the same answer, whatever came before it. The
order on the screen belongs to the card, so the same pair with its sides swapped is judged anew, as people do.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from rein.config import flag_of
from rein.errors import UserError

Json = Any
Card = Mapping[str, Json]
Context = Mapping[str, Json]
GoldScore = Callable[[Context, str], float]  # of a prompt and an answer to it: higher is better
Writer = Callable[[Context], str]  # of a prompt: what a demonstration says

COLDEST = 1e-6  # below it, gold scores over temperature leave the range of numbers
EULER = 0.5772156649015329  # the mean of a Gumbel number
PRAISE = frozenset({"satisfies_constraint"})  # of InstructGPT's flags: the good answers have it


@dataclass(frozen=True)
class Habits:
    """How a labeler differs from one who always says what the gold score says.

    Units    side, length: logits; length is per unit of ln(characters). tie_below: of |u_i − u_j|.
    """

    temperature: float = 1.0  # τ, in units of the gold score; 0: the gold score alone decides
    noise: float = 0.0  # P(a judgement is turned around)
    side: float = 0.0  # towards what is shown first
    length: float = 0.0  # towards what is longer
    tie_below: float = 0.0  # a smaller difference is a tie, where ties may be said
    confidence_noise: float = 0.5  # standard deviation of what is said on the scale, in points
    axis_correlation: float = 0.7  # of accuracy, coverage, … with overall
    flag_share: float = 0.1  # how often a fault is flagged in an output of middling quality
    skip: float = 0.0  # P(an item is skipped)
    active_s: float = 20.0  # median time of an answer
    active_spread: float = 0.5  # standard deviation of ln(time)

    def __post_init__(self) -> None:
        shares = ("noise", "axis_correlation", "flag_share", "skip")
        for one in fields(self):
            name, value = one.name, getattr(self, one.name)
            problem = ""
            if not math.isfinite(value):
                problem = "but it must be a finite number"
            elif name in shares and not 0 <= value <= 1:
                problem = "but it is a share: 0 to 1"
            elif name not in (*shares, "side", "length") and value < 0:
                problem = "but it must be 0 or more"
            elif name == "temperature" and 0 < value < COLDEST:
                problem = f"but it is 0, or at least {COLDEST:g}"
            if problem:
                raise UserError(f"A labeler's {name} is {value:g}, {problem}.", f"Change {flag_of(name)}.")


@dataclass(frozen=True)
class Answered:
    """What a labeler does with a card: answers by question, or why it is skipped."""

    answers: Mapping[str, Json]
    times: Mapping[str, Json]
    skipped: str = ""


@dataclass(frozen=True)
class Labeler:
    """One simulated person.

    Example  >>> longer = Labeler("ada", lambda context, text: float(len(text)), Habits(temperature=0.0))
             >>> two = [{"text": "short"}, {"text": "a longer one"}]
             >>> asked = [{"name": "choice", "kind": "comparison", "points": 9, "ties": True}]
             >>> card = {"context": {}, "candidates": two, "questions": asked}
             >>> longer.answer(card).answers["choice"]["choice"]
             1
    """

    name: str
    gold: GoldScore
    habits: Habits = Habits()
    seed: int = 0
    scores: tuple[float, ...] = ()  # gold scores of usual outputs, ascending; (): logistic around 0
    write: Writer = field(default_factory=lambda: lead)  # of demonstrations

    def notes(self, card: Card) -> list[str]:
        """What each candidate seems to say, written before the source is shown."""
        return ["It says: " + (_words(one["text"], 12) or "nothing") for one in card["candidates"]]

    def answer(self, card: Card) -> Answered:
        """What this person says of a card whose source is shown."""
        if card["context"] is None:
            raise ValueError(f"{self.name} was asked about a card whose source is not shown yet: reveal it first.")
        random = self._random(card)
        # Everything is drawn whatever comes of it, so that labelers that differ in one habit are otherwise the same.
        skipped, turned, slow = random.random() < self.habits.skip, random.random(), random.standard_normal()
        active_ms = round(1000 * self.habits.active_s * math.exp(self.habits.active_spread * slow))
        times = {"active_ms": active_ms, "reading_ms": active_ms // 2}
        if skipped:
            return Answered({}, times, "I do not know enough about this.")
        felt_K = self._felt(card, random, turned < self.habits.noise)
        answers = {
            question["name"]: _SAYS[question["kind"]](self, question, card, felt_K, random)
            for question in card["questions"]
        }
        return Answered(answers, times)

    def _random(self, card: Card) -> np.random.Generator:
        shown = [card["context"], [one["text"] for one in card["candidates"]]]
        words = json.dumps([self.seed, self.name, shown], sort_keys=True)
        return np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode("utf-8", "replace")).digest()[:16]))

    def _felt(self, card: Card, random: np.random.Generator, turned: bool) -> npt.NDArray[np.float64]:
        """u, for the places of the screen."""
        texts, habits = [one["text"] for one in card["candidates"]], self.habits
        K = len(texts)
        scores_K = np.array([self.gold(card["context"], text) for text in texts], dtype=np.float64)
        if not np.isfinite(scores_K).all():
            raise UserError(f"The gold score of a candidate is {scores_K.tolist()}.", "It must be a finite number.")
        gumbel_K = random.gumbel(size=K) - EULER
        if habits.temperature == 0:  # the gold score alone decides, in its own units
            felt_K = scores_K
        else:
            first_K = np.array([(K - 1 - place) / max(K - 1, 1) for place in range(K)])
            length_K = np.log([max(len(text), 1) for text in texts])
            felt_K = scores_K / habits.temperature + habits.side * first_K + habits.length * length_K + gumbel_K
        if not turned:
            return felt_K
        usual = self.scores[len(self.scores) // 2] / (habits.temperature or 1.0) if self.scores else 0.0
        return 2 * (felt_K.mean() if K > 1 else usual) - felt_K

    def quality(self, felt: float) -> float:
        """Which share of usual outputs is worse than one that feels so, in (0, 1)."""
        score = felt * self.habits.temperature if self.habits.temperature else felt
        if not self.scores:
            return _sigmoid(score)
        return (bisect_left(self.scores, score) + 0.5) / (len(self.scores) + 1)


# ------------------------------------------------------------------------------------------------- what is said


def _comparison(by: Labeler, question: Card, card: Card, felt_K: npt.NDArray[np.float64], random: Random) -> Json:
    """Confidence grows with the difference that is felt, levels off, and is never the other side's."""
    points = int(question.get("points") or 9)
    middle, steps = (points + 1) // 2, points // 2
    noise = by.habits.confidence_noise * random.standard_normal()
    difference = float(felt_K[1] - felt_K[0])
    if (difference == 0 or abs(difference) < by.habits.tie_below) and question.get("ties", True):
        return {"choice": None, "points": middle}
    how_sure = round(1 + (steps - 1) * math.tanh(abs(difference) / 4) + noise)
    how_sure = min(max(how_sure, 1), steps)
    return {"choice": int(difference > 0), "points": middle + how_sure if difference > 0 else middle - how_sure}


def _best_of(by: Labeler, question: Card, card: Card, felt_K: npt.NDArray[np.float64], random: Random) -> Json:
    return {"best": int(felt_K.argmax())}


def _ranking(by: Labeler, question: Card, card: Card, felt_K: npt.NDArray[np.float64], random: Random) -> Json:
    ties = question.get("ties", True)
    ranks, rank, first = [0] * len(felt_K), 0, math.inf
    for place in np.argsort(-felt_K, kind="stable").tolist():
        if not (rank and ties and (first == felt_K[place] or first - felt_K[place] < by.habits.tie_below)):
            rank, first = rank + 1, float(felt_K[place])  # a group of equals reaches as far as from its best one
        ranks[place] = rank
    return {"ranks": ranks}


def _rating(by: Labeler, question: Card, card: Card, felt_K: npt.NDArray[np.float64], random: Random) -> Json:
    return {"ratings": [_point(by.quality(float(felt)), int(question.get("points") or 7)) for felt in felt_K]}


def _likert(by: Labeler, question: Card, card: Card, felt_K: npt.NDArray[np.float64], random: Random) -> Json:
    """Axes beside overall share its normal score z with correlation r: r z + √(1 − r²) e."""
    r, normal, said = by.habits.axis_correlation, NormalDist(), []
    for felt in felt_K:
        quality = by.quality(float(felt))
        z = normal.inv_cdf(min(max(quality, 1e-9), 1 - 1e-9))
        axes = {}
        for axis in question["axes"]:
            own = r * z + math.sqrt(1 - r * r) * random.standard_normal()
            axes[axis] = _point(quality if axis == "overall" else normal.cdf(own), int(question.get("points") or 7))
        said.append(axes)
    return {"axes": said}


def _flags(by: Labeler, question: Card, card: Card, felt_K: npt.NDArray[np.float64], random: Random) -> Json:
    """Faults are flagged the more often the worse an output is: P = 2 · flag_share · (1 − quality)."""
    said = []
    for felt in felt_K:
        quality = by.quality(float(felt))
        drawn = {flag: random.random() for flag in sorted(question["flags"])}
        said.append([
            flag for flag in question["flags"]
            if drawn[flag] < (quality if flag in PRAISE else 2 * by.habits.flag_share * (1 - quality))
        ])  # fmt: skip
    return {"flags": said}


def _demonstration(by: Labeler, question: Card, card: Card, felt_K: npt.NDArray[np.float64], random: Random) -> Json:
    return {"text": by.write(card["context"])}


def _edit(by: Labeler, question: Card, card: Card, felt_K: npt.NDArray[np.float64], random: Random) -> Json:
    """The best candidate, with its last sentence left out, or ended with a full stop."""
    place = int(felt_K.argmax())
    text = card["candidates"][place]["text"]
    parts = sentences(text)
    shorter = " ".join(parts[:-1])
    return {"candidate": place, "text": shorter if len(parts) > 1 and shorter != text else text.rstrip() + "."}


Random = np.random.Generator
_Says = Callable[[Labeler, Card, Card, npt.NDArray[np.float64], Random], Json]
_SAYS: dict[str, _Says] = {
    "comparison": _comparison,
    "best_of": _best_of,
    "ranking": _ranking,
    "rating": _rating,
    "likert": _likert,
    "flags": _flags,
    "demonstration": _demonstration,
    "edit": _edit,
}


def _point(quality: float, points: int) -> int:
    return min(int(quality * points), points - 1) + 1


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


# --------------------------------------------------------------------------------------------- gold scores, texts


def score_table(rows: Iterable[Mapping[str, Json]]) -> GoldScore:
    """A gold score that is looked up: of rows with a text and its "gold", or with "outputs" that have both.

    Example  >>> score_table([{"outputs": [{"text": "good", "gold": 2.0}]}])({}, "good")
             2.0
    Raises   UserError, when asked, for a text that no row holds.
    """
    table = {}
    for row in rows:
        for one in row.get("outputs", row.get("candidates", [row])):
            gold = one.get("gold", one.get("extra", {}).get("gold"))
            if gold is not None:
                table[one["text"]] = float(gold)

    def gold_of(context: Context, text: str) -> float:
        if text not in table:
            raise UserError(
                f"No gold score is known of {_words(text, 8)!r} ({len(table):,} texts have one).",
                "Give the file that the items came from, with a gold for each output.",
            )
        return table[text]

    return gold_of


def by_length(context: Context, text: str) -> float:
    """A plain gold score for trying things out: ln of the number of words; longer is better."""
    return math.log1p(len(text.split()))


def sentences(text: str) -> list[str]:
    """The sentences of a text, by their full stops.

    Example  >>> sentences("One. Two?  Three")
             ['One.', 'Two?', 'Three']
    """
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def lead(context: Context, n: int = 3) -> str:
    """The first sentences of a source's last field: the usual baseline of summaries, lead-3."""
    texts = [text for text in context.values() if isinstance(text, str) and text.strip()]
    return " ".join(sentences(texts[-1])[:n]) if texts else "Nothing was asked."


def from_references(rows: Iterable[tuple[Context, str]]) -> Writer:
    """Demonstrations that say what somebody wrote for the prompt, known by its longest text; lead-3 where nobody did.

    Example  >>> from_references([({"title": "T", "post": "Who is it?"}, "It is me.")])({"post": "Who is it?"})
             'It is me.'
    """
    known = {_longest(context): reference for context, reference in rows}
    return lambda context: known.get(_longest(context)) or lead(context)


def _longest(context: Context) -> str:
    return max((text for text in context.values() if isinstance(text, str)), key=len, default="")


def _words(text: str, n: int) -> str:
    words = text.split()
    return " ".join(words[:n]) + (" …" if len(words) > n else "")


# --------------------------------------------------------------------------------------------- what to expect of them


def preference(difference: float, habits: Habits, *, log_length_ratio: float = 0.0, first: bool | None = None) -> float:
    """P(i is said to be better than j) of a labeler who may not say that they are equal.

        p = σ((s_i − s_j) / τ + l ln(length_i / length_j) ± b),   (1 − ε) p + ε (1 − p)

    `first`: whether i is shown first; None: as often as not.

    Units    difference: of the gold score, s_i − s_j.
    Example  >>> round(preference(1.0, Habits(noise=0.25)), 3)
             0.616
    """
    if habits.temperature == 0:
        chance = (1.0 if difference > 0 else 0.0) if difference else 0.5
    else:
        x = difference / habits.temperature + habits.length * log_length_ratio
        pulls = [habits.side, -habits.side] if first is None else [habits.side if first else -habits.side]
        chance = sum(_sigmoid(x + pull) for pull in pulls) / len(pulls)
    return habits.noise + (1 - 2 * habits.noise) * chance


def agreement(differences: Sequence[float], one: Habits, other: Habits) -> float:
    """Which share of pairs two labelers agree on, each with sides of its own, both without ties.

        mean over pairs of p q + (1 − p) (1 − q)

    Example  >>> agreement([0.0, 100.0], Habits(), Habits())
             0.75
    """
    chances = [(preference(d, one), preference(d, other)) for d in differences]
    return sum(p * q + (1 - p) * (1 - q) for p, q in chances) / len(chances)
