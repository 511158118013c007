"""Queries with responses as rows of tokens for one forward pass, and what is read off it at the responses alone.

Flow     Completion (query, response) → `batches`: which go together → `lay_out` → Rows → GPT.states → `logprobs`
         completions, two models → `log_ratios`: one number each, whose mean over samples is the KL

    row        q0 q1 q2 r0 r1 · ·        · is padding on the right, which a causal model never sees
    at_M             ↑  ↑                the place before a response's token: the state that foretells it
    targets_M        r0 r1               the tokens there
    last_N              ↑ + 1            the place of the response's last token: where a reward is read

Whatever is said of tokens is one number for each token of a response, completion after completion: (M,), with
`lengths_N` of each. There is no padding in it, so nothing that is computed from it can depend on padding.

With a `width`, several completions share a row; each has positions of its own and sees itself alone. Packed or not, in
whatever order, with whatever beside it, a completion has the same numbers but for rounding.

Shapes   B rows, T tokens of a row, N completions, M tokens of all responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from rein.models import ops
from rein.models.gpt import GPT
from rein.models.machine import autocast


@dataclass(frozen=True)
class Completion:
    """Token ids of what was asked and of what was answered; the answer's end-of-text token is part of it."""

    query: tuple[int, ...]
    response: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.query, "without a token before it, a response's first token has no probability"

    def __len__(self) -> int:
        return len(self.query) + len(self.response)


@dataclass(frozen=True)
class Rows:
    """Completions in rows. Without `positions_BT` and `documents_BT`, every completion has a row of its own."""

    tokens_BT: Tensor
    at_M: Tensor  # places in (B · T) before each token of each response
    targets_M: Tensor
    last_N: Tensor  # places in (B · T) of each completion's last token
    lengths_N: Tensor  # tokens of each response
    positions_BT: Tensor | None = None
    documents_BT: Tensor | None = None

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: x.to(device) for name, x in moved.items() if x is not None})

    @property
    def completion_M(self) -> Tensor:
        """Which completion each token is of."""
        numbers_N = torch.arange(len(self.lengths_N), device=self.lengths_N.device)
        return numbers_N.repeat_interleave(self.lengths_N)


def lay_out(completions: Sequence[Completion], *, width: int | None = None) -> Rows:
    """Rows of these completions, in their order; with `width`, as many to a row of that many tokens as fit in turn.

    Example  >>> rows = lay_out([Completion((5, 6), (7,)), Completion((8,), (9, 9, 9))])
             >>> rows.tokens_BT.tolist(), rows.at_M.tolist(), rows.last_N.tolist()
             ([[5, 6, 7, 0], [8, 9, 9, 9]], [1, 4, 5, 6], [2, 7])
             >>> rows = lay_out([Completion((5, 6), (7,)), Completion((8,), (9, 9))], width=6)
             >>> rows.tokens_BT.tolist(), rows.positions_BT.tolist(), rows.documents_BT.tolist()
             ([[5, 6, 7, 8, 9, 9]], [[0, 1, 2, 0, 1, 2]], [[0, 0, 0, 1, 1, 1]])
    """
    assert completions, "no completions to lay out"
    lengths = [len(each) for each in completions]
    row_of, start_of = _places(lengths, width)
    T = max(start + length for start, length in zip(start_of, lengths, strict=True))
    tokens_BT = np.zeros((row_of[-1] + 1, T), dtype=np.int64)
    at: list[int] = []
    for each, length, row, start in zip(completions, lengths, row_of, start_of, strict=True):
        tokens_BT[row, start : start + length] = (*each.query, *each.response)
        first = row * T + start + len(each.query) - 1
        at.extend(range(first, first + len(each.response)))
    positions_BT = documents_BT = None
    if len(tokens_BT) < len(completions):
        positions_BT, documents_BT = _apart(lengths, row_of, start_of, tokens_BT.shape)
    at_M = torch.tensor(at, dtype=torch.int64)
    tokens = torch.from_numpy(tokens_BT)
    return Rows(
        tokens_BT=tokens,
        at_M=at_M,
        targets_M=tokens.flatten()[at_M + 1],
        last_N=torch.tensor([r * T + s + n - 1 for r, s, n in zip(row_of, start_of, lengths, strict=True)]),
        lengths_N=torch.tensor([len(each.response) for each in completions]),
        positions_BT=positions_BT,
        documents_BT=documents_BT,
    )


def _apart(
    lengths: Sequence[int], row_of: Sequence[int], start_of: Sequence[int], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Positions and numbers of the texts that share rows: what is left of a row is a text that nobody reads."""
    positions_BT, documents_BT = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    end_of = [0] * shape[0]
    for length, row, start in zip(lengths, row_of, start_of, strict=True):
        end_of[row] = start + length
        positions_BT[row, start : start + length] = np.arange(length)
        documents_BT[row, start:] = documents_BT[row, start - 1] + 1 if start else 0
    for row, end in enumerate(end_of):
        documents_BT[row, end:] += 1
        positions_BT[row, end:] = np.arange(shape[1] - end)
    return torch.from_numpy(positions_BT), torch.from_numpy(documents_BT)


def _places(lengths: Sequence[int], width: int | None) -> tuple[list[int], list[int]]:
    """Row and first column of each."""
    if width is None:
        return list(range(len(lengths))), [0] * len(lengths)
    rows, starts, row, used = [], [], 0, 0
    for length in lengths:
        assert length <= width, f"a completion of {length} tokens does not fit into {width}"
        if used + length > width:
            row, used = row + 1, 0
        rows.append(row)
        starts.append(used)
        used += length
    return rows, starts


def batches(lengths: Sequence[int], tokens_at_once: int) -> list[list[int]]:
    """Places in `lengths`, grouped by like lengths: little padding, and at most `tokens_at_once` in a group's rows.

    Example  >>> batches([30, 4, 30, 4, 4], 64)
             [[1, 3, 4], [0, 2]]
    """
    groups: list[list[int]] = []
    real = 0
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        padded = (len(groups[-1]) + 1) * lengths[place] if groups else 0
        if groups and padded <= tokens_at_once and padded - real - lengths[place] <= _WORTH_A_PASS_TOKENS:
            groups[-1].append(place)
            real += lengths[place]
        else:
            groups.append([place])
            real = lengths[place]
    return groups


# Padding that costs about as much as one pass more.
_WORTH_A_PASS_TOKENS = 512


def states(model: GPT, rows: Rows) -> tuple[Tensor, Tensor]:
    """The last hidden state of every place, (B · T, D), and the token embedding."""
    x_BTD, wte_VD = model.states(rows.tokens_BT, positions_BT=rows.positions_BT, documents_BT=rows.documents_BT)
    return x_BTD.flatten(0, 1), wte_VD


def logprobs(model: GPT, rows: Rows, *, temperature: float = 1.0) -> Tensor:
    """log π(token | what is before it) of every token of every response: (M,) in float32.

        log softmax(logits / temperature)[token]

    Logits are made for responses only, and never held as a whole (ops.token_logprobs).

    Source   the division by the temperature in policy, reference and update alike: Huang 2024, detail 10.
    """
    x_ND, wte_VD = states(model, rows)
    return ops.token_logprobs(x_ND[rows.at_M], wte_VD, rows.targets_M, temperature=temperature)


def sums(values_M: Tensor, rows: Rows) -> Tensor:
    """The sum over each completion's tokens: (N,)."""
    return values_M.new_zeros(len(rows.lengths_N)).index_add(0, rows.completion_M, values_M)


def split(values_M: Tensor, lengths: Iterable[int]) -> Iterator[Tensor]:
    """The tokens of each completion."""
    return iter(torch.split(values_M, list(lengths)))


def sums_of(completions: Sequence[Completion], of_rows: Callable[[Rows], Tensor], *, tokens_at_once: int) -> Tensor:
    """The sum of what `of_rows` says of each token of each completion: (N,) in float64 on the CPU, in their order.

    Gradients are left as they are, and their graph is dropped: on a CPU, products in bfloat16 are rounded elsewhere
    where none is asked for, and two models that are the same would differ.

    Shapes   of_rows: Rows, on the CPU, to (M,).
    """
    found_N = torch.empty(len(completions), dtype=torch.float64)
    for places in batches([len(each) for each in completions], tokens_at_once):
        rows = lay_out([completions[place] for place in places])
        found_N[places] = sums(of_rows(rows).detach().cpu().double(), rows)
    return found_N


def log_ratios(
    model: GPT,
    reference: GPT,
    completions: Sequence[Completion],
    *,
    temperature: float = 1.0,
    precision: str = "fp32",
    tokens_at_once: int = 8192,
) -> Tensor:
    """How much likelier each response is under one model than under another: (N,) in float64 on the CPU.

        Σ_tokens log π(token) − log π_ref(token)

    Over samples of the model their mean is the KL. A single one may be below 0; of the same weights it is 0 exactly.

    Units    nats a response, both models at `temperature`.
    """
    device = model.wte.device

    def ratio_M(rows: Rows) -> Tensor:
        rows = rows.to(device)
        with autocast(device, precision):
            return logprobs(model, rows, temperature=temperature) - logprobs(reference, rows, temperature=temperature)

    return sums_of(completions, ratio_M, tokens_at_once=tokens_at_once)
