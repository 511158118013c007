"""What a reward model learns from as tensors: elements of a batch, their scores, the loss of each.

Flow     Judged ─ `elements` → Element: the candidates of a prompt once each, as tokens, and what was said of them
         Elements ─ `collate` → Batch ─ `element_losses` → one loss for each element

All that was said of a prompt is one element: K candidates are K rows of one forward pass, however many pairs they make
and however many people judged them. An element's loss is the mean over its judgements, a judgement's the mean over the
pairs that count; so no prompt weighs more for having more candidates.

Shapes   N candidates of a batch, J judgements, K candidates of a judgement, E elements.
Source   Ouyang 2022, section 3.5: pairs shuffled into one data set overfit; Stiennon 2020, section 3.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rein import losses
from rein.bpe.tokenizer import Tokenizer
from rein.feedback.judged import Judged
from rein.feedback.trust import People
from rein.models.gpt import GPT
from rein.models.machine import autocast
from rein.models.passes import passed
from rein.models.rows import Completion, Rows, lay_out, states
from rein.models.scalar import Scalar
from rein.text.prompts import PromptFormat, Unfit, encode_query, encode_response

Json = Any


@dataclass(frozen=True)
class Choice:
    """A judgement of an element's candidates, by their places."""

    places: tuple[int, ...]
    said: Judged
    labeler: int  # place in People


@dataclass(frozen=True)
class Element:
    """A prompt's candidates, each once, and what was said of them."""

    completions: tuple[Completion, ...]
    choices: tuple[Choice, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest candidate with its query."""
        return max(len(each) for each in self.completions)


# --------------------------------------------------------------------------------------------------------- encoding


@dataclass
class Encoder:
    """Texts to tokens, as a format and a context have it; what did not fit is counted by reason.

    too_long   drop: a text that is longer than the format or the context has room for does not fit. cut: a response
               loses its end at the format's length, and a query its beginning where the context ends
    """

    format: PromptFormat
    tokenizer: Tokenizer
    n_ctx: int
    too_long: Literal["drop", "cut"] = "drop"
    left_out: Counter[str] = field(default_factory=Counter)

    def completions(self, query: Mapping[str, Json], texts: Sequence[str]) -> list[Completion] | None:
        """Texts behind one query, which is cut for all alike; None where they do not fit."""
        cut = self.too_long == "cut"
        format = replace(self.format, cut_responses=True) if cut else self.format
        asked = replace(format, query_tokens=None) if cut and not format.cut else format
        try:
            responses = [encode_response(text, self.tokenizer, format) for text in texts]
            room = self.n_ctx - max(map(len, responses))
            ids = encode_query(asked, query, self.tokenizer)
            if room < 1 or (len(ids) > room and not cut):
                raise Unfit("query and response are too long for the context")
        except Unfit as problem:
            self.left_out[str(problem)] += 1
            return None
        return [Completion(ids[-room:], response) for response in responses]


def elements(
    judged: Sequence[Judged], encoder: Encoder, people: People, *, by: Literal["prompt", "judgement"]
) -> list[Element]:
    """Judgements as elements, in the order in which their prompts come.

    Where a query must be cut, it is cut for all candidates of an element alike.
    """
    together: dict[str, list[Judged]] = {}
    for number, each in enumerate(judged):
        together.setdefault(each.prompt if by == "prompt" else str(number), []).append(each)
    found = []
    for some in together.values():
        texts = list(dict.fromkeys(one.text for each in some for one in each.candidates))
        completions = encoder.completions(some[0].query, texts)
        if completions is None:
            continue
        place = {text: n for n, text in enumerate(texts)}
        choices = []
        for each in some:
            places = tuple(place[one.text] for one in each.candidates)
            if len({completions[n] for n in places}) < len(places):
                encoder.left_out["equal texts, once they are tokens"] += 1
            else:
                choices.append(Choice(places, each, people.place.get(each.labeler, 0)))
        if choices:
            found.append(Element(tuple(completions), tuple(choices)))
    return found


# ----------------------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class Batch:
    """Elements as tensors. Where a judgement has fewer candidates than another, `mask_JK` is False."""

    rows: Rows
    place_JK: Tensor  # of N
    mask_JK: Tensor
    marks_JK: Tensor
    p_J: Tensor
    best_J: Tensor  # whether it is a best_of
    rated_J: Tensor  # whether it is a rating
    labeler_J: Tensor
    element_J: Tensor
    weight_J: Tensor  # 1 / judgements of its element
    n_elements: int

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "n_elements"}
        return replace(self, **moved)


def collate(some: Sequence[Element]) -> Batch:
    """Elements as a batch, in their order."""
    starts = np.cumsum([0, *(len(each.completions) for each in some)])
    said = [(number, choice, len(each.choices)) for number, each in enumerate(some) for choice in each.choices]
    J, K = len(said), max(len(choice.places) for _, choice, _ in said)
    place_JK, mask_JK = np.zeros((J, K), dtype=np.int64), np.zeros((J, K), dtype=bool)
    marks_JK = np.zeros((J, K), dtype=np.float32)
    for j, (number, choice, _) in enumerate(said):
        k = len(choice.places)
        place_JK[j, :k] = starts[number] + np.array(choice.places)
        mask_JK[j, :k], marks_JK[j, :k] = True, choice.said.marks
    judged = [choice.said for _, choice, _ in said]
    return Batch(
        rows=lay_out([one for each in some for one in each.completions]),
        place_JK=torch.from_numpy(place_JK),
        mask_JK=torch.from_numpy(mask_JK),
        marks_JK=torch.from_numpy(marks_JK),
        p_J=torch.tensor([each.p for each in judged]),
        best_J=torch.tensor([each.kind == "best_of" for each in judged]),
        rated_J=torch.tensor([each.kind == "rating" for each in judged]),
        labeler_J=torch.tensor([choice.labeler for _, choice, _ in said]),
        element_J=torch.tensor([number for number, _, _ in said]),
        weight_J=torch.tensor([1 / n for _, _, n in said]),
        n_elements=len(some),
    )


def pieces(lengths: Sequence[tuple[int, int]], tokens_at_once: int) -> list[list[int]]:
    """Places of elements, grouped by like lengths, with at most `tokens_at_once` in a group's rows, or one element.

    Shapes   lengths: (candidates, tokens of the longest) of each.
    Example  >>> pieces([(2, 30), (4, 10), (2, 31), (2, 9)], 124)
             [[3, 1], [0, 2]]
    """
    groups: list[list[int]] = []
    rows = 0
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place][1], place)):
        n, longest = lengths[place]
        if groups and (rows + n) * longest <= tokens_at_once and longest <= 2 * lengths[groups[-1][0]][1]:
            groups[-1].append(place)
            rows += n
        else:
            groups.append([place])
            rows = n
    return groups


def grouped(some: Sequence[Element], tokens_at_once: int) -> Iterator[list[int]]:
    """`pieces` of these elements."""
    yield from pieces([(len(each.completions), each.longest) for each in some], tokens_at_once)


# ------------------------------------------------------------------------------------------------------------ losses


def scores_of(net: Scalar, batch: Batch, precision: str) -> Tensor:
    """The score of each candidate of a batch: (N,)."""
    with autocast(net.weight.device, precision):
        return net(passed(net.model, _last_states, batch.rows))  # type: ignore[no-any-return]


def _last_states(model: GPT, rows: Rows) -> Tensor:
    """What each candidate's score is read from: (N, D)."""
    x_ND, _ = states(model, rows)
    return x_ND[rows.last_N]


def element_losses(scores_N: Tensor, people: People, batch: Batch) -> Tensor:
    """The loss of each element: (E,). Its sum over the elements of an update, however split, is what is minimised."""
    loss_J = judgement_losses(scores_N[batch.place_JK], people, batch)
    return scores_N.new_zeros(batch.n_elements).index_add(0, batch.element_J, loss_J * batch.weight_J)


def pairs_right(scores_N: Tensor, batch: Batch) -> tuple[float, int]:
    """How many of the pairs that rankings imply have the better one ahead (equal scores: half), and how many there are.

    Of a best_of and of ratings nothing is counted.
    """
    scores_JK = scores_N.detach()[batch.place_JK]
    i_P, j_P = torch.triu_indices(scores_JK.shape[1], scores_JK.shape[1], 1, device=scores_N.device)
    lead_JP = torch.sign(scores_JK[:, i_P] - scores_JK[:, j_P])
    said_JP = torch.sign(batch.marks_JK[:, j_P] - batch.marks_JK[:, i_P])
    there_JP = batch.mask_JK[:, i_P] & batch.mask_JK[:, j_P] & (said_JP != 0) & ~(batch.best_J | batch.rated_J)[:, None]
    return float(((lead_JP * said_JP + 1) / 2)[there_JP].sum()), int(there_JP.sum())


def judgement_losses(scores_JK: Tensor, people: People, batch: Batch) -> Tensor:
    """The negative log-likelihood of each judgement by its kind: (J,).

        ranking    p · ranking(s / temperature, ranks) + (1 − p) · ranking(s / temperature, reversed ranks)
        best_of    best_of(s / temperature, best)
        rating     rating(s, ratings): a rating is on a scale of its own

    Shapes   scores_JK (J, K); what stands where `mask_JK` is False changes nothing.
    """
    scaled_JK = scores_JK * people.scales(batch.labeler_J)[:, None]
    terms: Mapping[str, Any] = {"mask_BK": batch.mask_JK, "ties": people.ties, **people.tie_terms()}
    forth_J = losses.ranking(scaled_JK, batch.marks_JK, **terms)
    loss_J = forth_J
    if (batch.p_J != 1).any():
        loss_J = batch.p_J * forth_J + (1 - batch.p_J) * losses.ranking(scaled_JK, -batch.marks_JK, **terms)
    if batch.best_J.any():
        best_J = batch.marks_JK.masked_fill(~batch.mask_JK, float("inf")).argmin(1)
        loss_J = torch.where(batch.best_J, losses.best_of(scaled_JK, best_J, mask_BK=batch.mask_JK), loss_J)
    if batch.rated_J.any():
        loss_J = torch.where(batch.rated_J, losses.rating(scores_JK, batch.marks_JK, mask_BK=batch.mask_JK), loss_J)
    return loss_J


# --------------------------------------------------------------------------------------------------- pairs, measured


@dataclass(frozen=True)
class Compared:
    """A pair that somebody judged: `better` over `worse`, with all that accuracy is told apart by."""

    better: int  # number of the completion
    worse: int
    said: Judged
    texts: tuple[str, str]
    policies: tuple[str, str]


def compared(some: Sequence[Element]) -> tuple[list[Completion], list[Compared]]:
    """The candidates of elements, and the pairs of them of which one was said to be better."""
    completions = list[Completion]()
    pairs = list[Compared]()
    for each in some:
        first = len(completions)
        completions += each.completions
        for choice in each.choices:
            one = choice.said.candidates
            pairs += [
                Compared(
                    first + choice.places[i], first + choice.places[j], choice.said, (one[i].text, one[j].text),
                    (one[i].policy, one[j].policy),
                )
                for i, j in choice.said.pairs()[0]
            ]  # fmt: skip
    return completions, pairs
