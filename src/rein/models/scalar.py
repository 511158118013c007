"""A GPT with one number on top: a reward model's score of a response, a value network's guess at each token.

Flow     Rows (rows.py) → GPT.states → `scores` at each response's last token, or `values` before each of its tokens

    score = gain · (w · x + b) + bias       x the last hidden state

w is drawn from N(0, 1 / (n_embd + 1)), b begins at 0 (Stiennon 2020, App. B.1). `gain` and `bias` are what Ziegler's
code calls by these names: a reward model's scale is brought to where it should be by them, without touching a weight.

On disk it is a folder that transformers loads as GPT2ForSequenceClassification with one label: the trunk,
`score.weight`, and in `rein.json` what that class has no place for: b, gain and bias.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rein.models.gpt import GPT, normal
from rein.models.rows import Rows, states


class Scalar(nn.Module):
    """A GPT and its head."""

    gain: Tensor
    bias: Tensor

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model
        self.weight = nn.Parameter(torch.zeros(model.config.n_embd))
        self.b = nn.Parameter(torch.zeros(()))
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))

    @torch.no_grad()
    def initialise(self, seed: int) -> Scalar:
        """The head of a new reward model; the trunk stays as it is.

        Source   Stiennon 2020, App. B.1: standard deviation 1 / √(n_embd + 1).
        """
        n_embd = self.model.config.n_embd
        self.weight.copy_(normal((n_embd,), 1 / math.sqrt(n_embd + 1), key=f"{seed}/scalar head"))
        self.b.zero_()
        self.gain.fill_(1.0)
        self.bias.fill_(0.0)
        return self

    def forward(self, x_ND: Tensor) -> Tensor:
        """The number at each state: (N,), in the head's precision whatever the trunk's."""
        return self.gain * (x_ND.to(self.weight.dtype) @ self.weight + self.b) + self.bias

    def scores(self, rows: Rows) -> Tensor:
        """One number for each response, read at its last token: (N,).

        Nothing behind that token, and no padding, can change it.
        """
        x_ND, _ = states(self.model, rows)
        return self(x_ND[rows.last_N])  # type: ignore[no-any-return]

    def values(self, rows: Rows) -> Tensor:
        """What is expected before each token of each response: (M,)."""
        x_ND, _ = states(self.model, rows)
        return self(x_ND[rows.at_M])  # type: ignore[no-any-return]
