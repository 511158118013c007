"""Judgements as candidates and pairs: what a policy learns from without a reward model between.

Flow     Judged ─ reward_rows.Encoder → `Group`: the candidates as completions, who beats whom, how surely
         Groups ─ the reference → `Compared`: with log π_ref of every candidate, numbers from then on
         those that go through the policy together (`pieces`) → `log_ratios`: log (π / π_ref), and `Pairs` of them
         → `pair_losses`

A ranking of K is all of its pairs, each with weight 1 / pairs that count: a judgement weighs 1 however many candidates
it has, and each candidate goes through the model once.
Shapes   N candidates of several groups, P pairs of them.
Source   Rafailov 2023, equation 7; Ouyang 2022, section 3.5, for all pairs of a prompt as one element.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rein.feedback.judged import Judged
from rein.losses import dpo, ipo
from rein.models import rows
from rein.models.gpt import GPT
from rein.models.machine import autocast
from rein.models.rows import Completion
from rein.train import reward_rows
from rein.train.reward_rows import Encoder

LOSSES = {"dpo": dpo, "ipo": ipo}
EQUAL = "equal texts, once they are tokens"
EVEN = "nothing but ties"


@dataclass(frozen=True)
class Group:
    """A judgement's candidates, and its pairs: places of the better and the worse one, and how surely it is so."""

    completions: tuple[Completion, ...]
    better: tuple[int, ...]
    worse: tuple[int, ...]
    p: tuple[float, ...]  # ½ for a tie
    topic: str  # what is held out together
    query: Mapping[str, Any]  # the row that the query was made of

    @property
    def size(self) -> tuple[int, int]:
        """Candidates, and tokens of the longest with its query."""
        return len(self.completions), max(map(len, self.completions))


@dataclass(frozen=True)
class Pairs:
    """The pairs of several groups: numbers of candidates, which are counted through all groups."""

    better_P: Tensor
    worse_P: Tensor
    p_P: Tensor
    weight_P: Tensor  # 1 / pairs of the group

    def to(self, device: torch.device) -> Pairs:
        """The same on a device."""
        return Pairs(*(x.to(device) for x in (self.better_P, self.worse_P, self.p_P, self.weight_P)))


def groups_of(judged: Iterable[Judged], encoder: Encoder, *, ties: Literal["drop", "half"]) -> list[Group]:
    """Judgements as groups; those that say nothing or do not fit are left out, and counted in `encoder.left_out`."""
    found = []
    for each in judged:
        completions = encoder.completions(each.query, [one.text for one in each.candidates])
        if completions is None:
            continue
        better, even = each.pairs()
        pairs = [(i, j, each.p) for i, j in better] + [(i, j, 0.5) for i, j in even if ties == "half"]
        told = [pair for pair in pairs if completions[pair[0]].response != completions[pair[1]].response]
        if told:
            i_P, j_P, p_P = zip(*told, strict=True)
            found.append(Group(tuple(completions), i_P, j_P, p_P, each.topic, each.query))
        else:
            encoder.left_out[EQUAL if pairs else EVEN] += 1
    return found


def pairs_of(groups: Sequence[Group]) -> Pairs:
    """The pairs of these groups, one after the other.

    Example  >>> one = Completion((1,), (2,))
             >>> three = Group((one,) * 3, (0, 0, 1), (1, 2, 2), (1.0,) * 3, "", {})
             >>> two = Group((one,) * 2, (1,), (0,), (0.8,), "", {})
             >>> pairs = pairs_of([three, two])
             >>> pairs.better_P.tolist(), pairs.worse_P.tolist(), pairs.weight_P
             ([0, 0, 1, 4], [1, 2, 2, 3], tensor([0.3333, 0.3333, 0.3333, 1.0000]))
    """
    better, worse = list[int](), list[int]()
    p, weight, first = list[float](), list[float](), 0
    for group in groups:
        better += [first + place for place in group.better]
        worse += [first + place for place in group.worse]
        p += group.p
        weight += [1 / len(group.p)] * len(group.p)
        first += len(group.completions)
    return Pairs(torch.tensor(better), torch.tensor(worse), torch.tensor(p), torch.tensor(weight))


def pieces(groups: Sequence[Group], tokens_at_once: int) -> list[list[int]]:
    """Places of groups that go through a model together: by like lengths, `tokens_at_once` at most, groups whole."""
    return reward_rows.pieces([group.size for group in groups], tokens_at_once)


def sha256(groups: Iterable[Group]) -> str:
    """Of all tokens and pairs: other judgements are another run."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(repr((group.completions, group.better, group.worse, group.p)).encode())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------- through a model


class Compared(NamedTuple):
    """Groups with log π_ref of each candidate."""

    groups: list[Group]
    ref_logprobs: list[Tensor]  # of each group, one number a candidate

    def at(self, places: Sequence[int]) -> Compared:
        """Some of them."""
        return Compared([self.groups[n] for n in places], [self.ref_logprobs[n] for n in places])


def logprobs(model: GPT, groups: Sequence[Group], precision: str) -> Tensor:
    """log π of each candidate of these groups: (N,), in float32, with its graph."""
    laid = rows.lay_out([each for group in groups for each in group.completions]).to(model.wte.device)
    with autocast(model.wte.device, precision):
        return rows.sums(rows.logprobs(model, laid), laid)


def with_reference(reference: GPT, groups: list[Group], *, precision: str, tokens_at_once: int) -> Compared:
    """These groups with what a model says of their candidates, which is kept in numbers."""
    found: list[Tensor] = [torch.empty(0)] * len(groups)
    for piece in pieces(groups, tokens_at_once):
        # With a graph, as in an update: on a CPU, bfloat16 is rounded elsewhere without one.
        sums_N = logprobs(reference, [groups[place] for place in piece], precision).detach().cpu()
        for place, part in zip(piece, torch.split(sums_N, [groups[n].size[0] for n in piece]), strict=True):
            found[place] = part
    return Compared(groups, found)


def log_ratios(policy: GPT, some: Compared, precision: str) -> tuple[Tensor, Pairs]:
    """log (π / π_ref) of each candidate of these groups, (N,), with its graph; and the pairs of them."""
    device = policy.wte.device
    ref_N = torch.cat(some.ref_logprobs).to(device)
    return logprobs(policy, some.groups, precision) - ref_N, pairs_of(some.groups).to(device)


def pair_losses(
    ratio_N: Tensor, pairs: Pairs, *, loss: Literal["dpo", "ipo"], kl_coef: float, label_smoothing: float
) -> Tensor:
    """The loss of each pair (losses.py): (P,)."""
    better_P, worse_P = ratio_N[pairs.better_P], ratio_N[pairs.worse_P]
    return LOSSES[loss](better_P, worse_P, kl_coef=kl_coef, p=pairs.p_P, label_smoothing=label_smoothing)
