"""How far each labeler is believed: learned with the reward model, or beforehand from whom they agree with.

Flow     judgements → `People`: a temperature for each labeler and how often equals tie, parameters beside the model's
         judgements → `consensus`: Dawid and Skene's accuracies → one comparison for each pair, with its probability
         points of comparisons → `certainty` → how likely a choice so sure is this way round

    P(i over j | labeler) = σ((r_i − r_j) / temperature_labeler)

Filtering by confidence or by labeler made reward models worse (Stiennon 2020, App. C): here nothing is left out, and
what is doubtful weighs less.
Source   Bradley & Terry 1952; Dawid & Skene 1979; Stiennon 2020, Appendix C, for the scale of nine points.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import isotonic_regression
from scipy.special import expit
from torch import Tensor, nn

from rein.errors import UserError
from rein.feedback.judged import Judged
from rein.feedback.kinds import POINTS
from rein.losses import Ties

Array = npt.NDArray[np.float64]
Confidence = Literal["ignore", "logistic", "empirical"]

OTHERS = "(others)"  # labelers with too few judgements for a temperature of their own
CONSENSUS = "(consensus)"
LEVELS = POINTS // 2 + 1  # of how far from even a comparison is: 0 to 4
LEAST_REPEATS = 50  # of judgements beside another's of the same pair, for rates by level
ROUNDS = 1_000  # of expectation and maximisation, at most


# ------------------------------------------------------------------------------------- learned beside the model


class People(nn.Module):
    """What is learned of labelers: a temperature for each, and how often two of equal score tie.

        temperature = e^−w,   w ~ N(0, prior_sd²);   theta = 1 + e^tie,   nu = e^tie

    Labelers with fewer than `least` judgements share one temperature. The prior is a penalty of the loss; it also says
    that the temperatures' geometric mean is 1, which the scale of the scores could else make up for.
    """

    def __init__(
        self,
        judged: Iterable[Judged],
        *,
        temperatures: bool = True,
        prior_sd: float = 0.5,
        least: int = 5,
        ties: Ties = "drop",
        tie_share: float = 0.1,
    ) -> None:
        super().__init__()
        counts = Counter(each.labeler for each in judged)
        self.counts: Mapping[str, int] = dict(sorted(counts.items()))
        own = [name for name, n in self.counts.items() if n >= least]
        self.names = [OTHERS, *own]
        self.place = {name: own.index(name) + 1 if n >= least else 0 for name, n in self.counts.items()}
        self.few = sorted(name for name, n in self.counts.items() if n < least)
        self.prior_sd, self.ties = prior_sd, ties
        self.w_L = nn.Parameter(torch.zeros(len(self.names)), requires_grad=temperatures)
        self.tie = nn.Parameter(torch.tensor(_first_tie(ties, tie_share)), requires_grad=ties in _LEARNED)

    def scales(self, labeler_J: Tensor) -> Tensor:
        """1 / temperature of each judgement's labeler: (J,)."""
        return self.w_L.exp()[labeler_J]

    def penalty(self) -> Tensor:
        """−log of the prior, without its constant; a sum, which belongs to the sum over all judgements."""
        return (self.w_L**2).sum() / (2 * self.prior_sd**2)

    def tie_terms(self) -> dict[str, Tensor]:
        """What `losses.ranking` wants to know of ties."""
        if self.ties == "rao_kupper":
            return {"theta": 1 + self.tie.exp()}
        return {"nu": self.tie.exp()} if self.ties == "davidson" else {}

    def temperatures(self) -> dict[str, float]:
        """The temperature of each labeler."""
        found_L = (-self.w_L.detach()).exp().tolist()
        return {name: found_L[place] for name, place in self.place.items()}


_LEARNED = ("rao_kupper", "davidson")


def _first_tie(ties: Ties, share: float) -> float:
    """Where theta − 1 or nu begins: with two of equal score tying so often as all do.

    Rao and Kupper's equals tie (θ − 1) / (θ + 1) of the time, Davidson's ν / (2 + ν).
    """
    share = min(max(share, 0.01), 0.9)
    return math.log(2 * share / (1 - share))  # the same number for both: θ − 1 = ν


# ----------------------------------------------------------------------------------------- from who agrees with whom


@dataclass(frozen=True)
class Consensus:
    """What `dawid_skene` found: of each unit P(side 0 is right), of each labeler how often they are; the likelihood."""

    p_U: Array
    accuracy_L: Array
    log_posterior: float


def dawid_skene(
    unit_V: Sequence[int], labeler_V: Sequence[int], side_V: Sequence[int], *, prior: tuple[float, float] = (4.0, 2.0)
) -> Consensus:
    """Which side of each unit is right and how often each labeler is, by expectation and maximisation from votes.

        P(side 0 of u) = σ(Σ_votes ± logit a_l)          + for a vote for side 0
        a_l = (α − 1 + Σ_votes P(the side voted for)) / (α + β − 2 + votes of l)

    It begins with the majority. a has the prior Beta(α, β), which is above ½, so that of the two solutions which swap
    right and wrong the one is found in which people are mostly right.

    Shapes   one entry for each vote: numbers of unit and labeler from 0, side 0 or 1.
    Example  >>> found = dawid_skene([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 1, 0])
             >>> found.p_U.round(2).tolist(), found.accuracy_L.round(2).tolist()
             ([0.95, 0.05], [0.82, 0.82, 0.52])
    Source   Dawid & Skene 1979.
    Differs  Which of two is side 0 means nothing: a labeler has one accuracy, and both sides are as likely beforehand.
    """
    unit_of_V, by_V, second_V = np.array(unit_V), np.array(labeler_V), np.array(side_V, dtype=bool)
    units, labelers = int(unit_of_V.max()) + 1, int(by_V.max()) + 1
    alpha, beta = prior
    votes_U, said_L = np.bincount(unit_of_V, minlength=units), np.bincount(by_V, minlength=labelers)
    p_U = (1 + np.bincount(unit_of_V, weights=~second_V, minlength=units)) / (2 + votes_U)
    before, a_L = -math.inf, np.full(labelers, 0.75)
    for _ in range(ROUNDS):
        right_V = np.where(second_V, 1 - p_U[unit_of_V], p_U[unit_of_V])
        a_L = (alpha - 1 + np.bincount(by_V, weights=right_V, minlength=labelers)) / (alpha + beta - 2 + said_L)
        first_U, second_U = (
            np.bincount(unit_of_V, weights=np.log(np.where(voted_V, a_L[by_V], 1 - a_L[by_V])), minlength=units)
            for voted_V in (~second_V, second_V)
        )
        p_U = expit(first_U - second_U)
        prior_L = (alpha - 1) * np.log(a_L) + (beta - 1) * np.log1p(-a_L)
        now = float(np.logaddexp(first_U, second_U).sum() - units * math.log(2) + prior_L.sum())
        if now - before < 1e-9 * max(1.0, abs(now)):
            break
        before = now
    return Consensus(p_U, a_L, now)


def consensus(judged: Sequence[Judged]) -> tuple[list[Judged], dict[str, float]]:
    """One comparison for each pair of candidates that somebody judged, with how likely it is; accuracies of labelers.

    A tie is a vote for neither. Pairs that all called even stay as a tie of each.

    Raises   UserError where no pair has a vote.
    """
    votes = list[tuple[int, int, int]]()
    units: dict[tuple[str, str, str], int] = {}
    about: dict[int, Judged] = {}
    labelers: dict[str, int] = {}
    ties = list[Judged]()
    for each in judged:
        better, even = each.pairs()
        for i, j in better:
            a, b = sorted((i, j), key=lambda place: each.candidates[place].text)
            unit = units.setdefault((each.item, each.candidates[a].text, each.candidates[b].text), len(units))
            about.setdefault(unit, _pair(each, a, b))
            votes.append((unit, labelers.setdefault(each.labeler, len(labelers)), int(i != a)))
        ties += [replace(_pair(each, i, j), marks=(1.0, 1.0), labeler=each.labeler) for i, j in even]
    if not votes:
        raise UserError("Nobody said of two candidates that one is better.", "Give judgements that are no ties.")
    found = dawid_skene(*map(list, zip(*votes, strict=True)))
    pairs = []
    for unit, p in enumerate(found.p_U.tolist()):
        one = about[unit]
        pairs.append(replace(one, p=p) if p >= 0.5 else replace(one, marks=(2.0, 1.0), p=1 - p))
    voted = {(one.item, frozenset(two.text for two in one.candidates)) for one in about.values()}
    left = [one for one in ties if (one.item, frozenset(two.text for two in one.candidates)) not in voted]
    return pairs + left, {name: float(found.accuracy_L[place]) for name, place in labelers.items()}


def _pair(each: Judged, i: int, j: int) -> Judged:
    """Two of a judgement's candidates, the first as the better one."""
    two = each.candidates[i], each.candidates[j]
    return replace(each, candidates=two, kind="ranking", marks=(1.0, 2.0), labeler=CONSENSUS, points=None)


# ------------------------------------------------------------------------------------------- how sure a person was


def certainty(judged: Sequence[Judged], how: Confidence, *, scale: float = 0.7) -> list[float]:
    """How likely it is that a comparison is the way it was said, by how far from even it was said to be: 0 to 4.

        ignore       1
        logistic     σ(scale · distance): of 0.7, ½, 0.67, 0.80, 0.89, 0.94
        empirical    from A_d, how often another labeler agrees with a choice of distance d:
                     A_d = p_d q + (1 − p_d)(1 − q),   q² + (1 − q)² = A of all;  p_d no less than p_{d − 1}, nor than ½

    q is how often a choice of any distance is right, if labelers err independently.

    Example  >>> [round(p, 2) for p in certainty([], "logistic")]
             [0.5, 0.67, 0.8, 0.89, 0.94]
    Raises   UserError where too few pairs were judged by several people to know the rates, or they agree as by chance.
    """
    if how == "ignore":
        return [1.0] * LEVELS
    if how == "logistic":
        return [float(expit(scale * distance)) for distance in range(LEVELS)]
    said: dict[tuple[str, frozenset[str]], list[tuple[str, int, str]]] = defaultdict(list)
    for each in judged:
        better, _ = each.pairs()
        if each.points is not None and better and len(each.candidates) == 2:
            pair = frozenset(one.text for one in each.candidates)
            said[each.item, pair].append((each.labeler, each.points, each.candidates[better[0][0]].text))
    beside = [
        (points, choice == other)
        for some in said.values()
        for labeler, points, choice in some
        for another, _, other in some
        if another != labeler
    ]
    if len(beside) < LEAST_REPEATS:
        raise UserError(
            f"--confidence is empirical, but {len(beside)} judgements stand beside another labeler's of the same pair, "
            f"and {LEAST_REPEATS} are needed to know how right each confidence is.",
            "Use --confidence logistic.",
        )
    level_R, agree_R = np.array([level for level, _ in beside]), np.array([float(same) for _, same in beside])
    overall = float(agree_R.mean())
    if overall <= 0.5:
        raise UserError(
            f"Labelers agree on {overall:.0%} of the pairs that several judged: no more than by chance.",
            "Use --confidence ignore, and read `rein label agreement`.",
        )
    q = (1 + math.sqrt(2 * overall - 1)) / 2
    n_L = np.bincount(level_R, minlength=LEVELS).astype(float)
    # A level that nobody used is as all are, and weighs next to nothing.
    rate_L = np.where(n_L > 0, np.bincount(level_R, weights=agree_R, minlength=LEVELS) / np.maximum(n_L, 1), overall)
    p_L = np.clip((rate_L - (1 - q)) / (2 * q - 1), 0.5, 1.0)
    return [float(p) for p in isotonic_regression(p_L, weights=np.maximum(n_L, 1e-6)).x]


def with_certainty(judged: Iterable[Judged], p_of: Sequence[float]) -> list[Judged]:
    """Comparisons with the probability of their points; what has none stays as it is."""
    return [each if each.points is None else replace(each, p=p_of[each.points]) for each in judged]


def agreement(judged: Sequence[Judged]) -> tuple[list[float], list[str]]:
    """Of each two labelers and each pair of candidates that both judged, ties left out: 1 where they agree, else 0.

    With the topic of each, for intervals: labelers of one pair are not independent.
    """
    said: dict[tuple[str, frozenset[str]], dict[str, str]] = defaultdict(dict)
    topic: dict[tuple[str, frozenset[str]], str] = {}
    for each in judged:
        for i, j in each.pairs()[0]:
            key = each.item, frozenset((each.candidates[i].text, each.candidates[j].text))
            said[key].setdefault(each.labeler, each.candidates[i].text)
            topic[key] = each.topic
    same, topics = list[float](), list[str]()
    for key, of_labeler in said.items():
        choices = list(of_labeler.values())
        for n, choice in enumerate(choices):
            same += [float(choice == other) for other in choices[n + 1 :]]
            topics += [topic[key]] * (len(choices) - n - 1)
    return same, topics
