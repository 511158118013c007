"""What fine-tuning adds to a GPT: three tokens, one linear layer, and the auxiliary language-model loss.

    Batch (models/inputs.py) → GPT.states → state at extract → Head → classes, a score, or choices
                                        └→ language-model loss of each sequence

    P(y | x) = softmax(h W_y + b)          classification and entailment: h is the state at extract
    P(y | x) = softmax((h₁ + h₂) W_y + b)  similarity: the states of both orders, added
    P(k | x) = softmax_k(h_k w + b)        choice: one scalar for each, shared weights

A score (STS-B) is one linear output; the paper does not print how it learns one.
Source   Radford 2018 §3.2, §3.3, §4.1; openai/finetune-transformer-lm, `clf` and `model` of train.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rein.models import ops
from rein.models.gpt import GPT, normal
from rein.models.inputs import N_SPECIAL, Batch
from rein.models.machine import autocast
from rein.text.tasks import Task

# Where GPT.embed drops positions in a post-norm model: the same mask has to fall on them in the output softmax.
_POSITIONS_SITE = 1


@torch.no_grad()
def with_special_tokens(model: GPT, seed: int) -> GPT:
    """A copy of `model` whose vocabulary has start, delimiter and extract behind it, from N(0, 0.02)."""
    grown = type(model)(replace(model.config, n_vocab=model.config.n_vocab + N_SPECIAL))
    theirs = model.state_dict()
    for name, parameter in grown.state_dict().items():
        if name == "wte":
            parameter.copy_(torch.cat([theirs[name], _initial((N_SPECIAL, parameter.shape[1]), seed, name)]))
        else:
            parameter.copy_(theirs[name])
    return grown


def _initial(shape: Sequence[int], seed: int, name: str) -> Tensor:
    """The first value of what fine-tuning adds: not that of pre-training's parameter of the same name and seed."""
    return normal(shape, 0.02, key=f"{seed}/finetune/{name}")


class Head(nn.Module):
    """W_y and its bias: one linear layer on the state at extract.

    `choice` gives one scalar for each sequence and lines up those of an example; otherwise the states of an
    example's sequences are added, and one linear layer gives its outputs.
    """

    def __init__(self, n_embd: int, n_outputs: int, *, choice: bool) -> None:
        super().__init__()
        self.choice = choice
        self.weight = nn.Parameter(torch.empty(n_embd, 1 if choice else n_outputs))
        self.bias = nn.Parameter(torch.empty(1 if choice else n_outputs))

    @torch.no_grad()
    def initialise(self, seed: int) -> Head:
        """W_y from N(0, 0.02), the bias 0."""
        self.weight.copy_(_initial(self.weight.shape, seed, "head"))
        self.bias.zero_()
        return self

    def forward(self, states_SD: Tensor, example_S: Tensor, kept_BD: Tensor | None = None) -> Tensor:
        """The outputs of each example.

        Shapes   states_SD (S, D) at extract; example_S (S,), whose each is, rising from 0 to B − 1; kept_BD (B, D) is
                 the dropout mask: one for all sequences of an example. Returns (B, K) in float32; where examples
                 differ in their choices, −∞ for those that are not there.
        """
        states_SD = states_SD.float()
        if kept_BD is not None:
            states_SD = states_SD * kept_BD[example_S]
        counts_B = torch.bincount(example_S)
        if not self.choice:
            sums_BD = states_SD.new_zeros(len(counts_B), states_SD.shape[1]).index_add(0, example_S, states_SD)
            return sums_BD @ self.weight + self.bias
        scalars_S = (states_SD @ self.weight + self.bias).squeeze(1)
        first_B = counts_B.cumsum(0) - counts_B
        place_S = torch.arange(len(example_S), device=example_S.device) - first_B[example_S]
        outputs_BK = scalars_S.new_full((len(counts_B), int(counts_B.max())), -torch.inf)
        return outputs_BK.index_put((example_S, place_S), scalars_S)


def dropout_mask(rows: int, width: int, dropout: float, seed: int) -> Tensor | None:
    """(rows, width) of 0 and 1 / (1 − dropout): one mask an example, for all of its choices or orders.

    For similarity that is dropout of the sum. Made on the CPU, so that every device drops the same.

    Source   openai/finetune-transformer-lm, train.py: noise_shape[1] = 1 over the choices.
    """
    if not dropout:
        return None
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(rows, width, generator=generator) >= dropout).float() / (1 - dropout)


@dataclass(frozen=True)
class Answer:
    """What the head's outputs mean: classes or choices, or a score brought to mean 0 and variance 1."""

    task: Task
    mean: float = 0.0
    scale: float = 1.0

    @property
    def n_outputs(self) -> int:
        """Width of W_y: a choice's is one for each, whatever their number."""
        return 1 if self.task.numeric or self.task.form == "choice" else len(self.task.labels)

    def losses(self, outputs_BK: Tensor, labels_B: Tensor) -> Tensor:
        """−log P(y | x), or the squared error of a score: (B,)."""
        if self.task.numeric:
            return (outputs_BK.squeeze(1) - (labels_B - self.mean) / self.scale) ** 2
        return F.cross_entropy(outputs_BK, labels_B.long(), reduction="none")

    def predicted(self, outputs_BK: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Numbers of classes or choices, or scores, in the labels' own unit."""
        if self.task.numeric:
            return (outputs_BK.squeeze(1).double() * self.scale + self.mean).numpy()
        return outputs_BK.argmax(dim=1).double().numpy()


class FineTuned(nn.Module):
    """A language model with its three tokens, and the head that reads it.

    `positions_in_softmax`: the released code holds tokens and positions in one matrix, in this order, and its
    language-model softmax runs over all of it: n_vocab + 3 + n_ctx outputs, of which the last n_ctx are never right.
    """

    def __init__(self, model: GPT, answer: Answer, *, positions_in_softmax: bool) -> None:
        super().__init__()
        self.model, self.answer = model, answer
        self.head = Head(model.config.n_embd, answer.n_outputs, choice=answer.task.form == "choice")
        self.positions_in_softmax = positions_in_softmax

    @staticmethod
    def at_extract(x_STD: Tensor, batch: Batch) -> Tensor:
        """The last state at each sequence's first extract: (S, D)."""
        return x_STD[torch.arange(len(x_STD), device=x_STD.device), batch.extract_S]

    def softmax_matrix(self, wte_VD: Tensor) -> Tensor:
        """What the language-model softmax multiplies with: the embedding that `states` gave, and the positions.

        In training the positions are dropped as they were when they were added to the tokens.
        """
        if not self.positions_in_softmax:
            return wte_VD
        config, seed = self.model.config, self.model.dropout_seed()
        dropped = config.dropout if config.norm == "post" else 0.0
        return torch.cat([wte_VD, ops.dropout(self.model.wpe, dropped, seed, site=_POSITIONS_SITE)])

    def losses(
        self, batch: Batch, labels_B: Tensor, precision: str, kept_BD: Tensor | None = None, *, lm: bool
    ) -> tuple[Tensor, Tensor]:
        """The task's loss of each example (B,), and the language-model loss of each sequence (S,), 0 without `lm`.

        Of a whole batch, L3 = mean of the first + λ · mean of the second.
        """
        with autocast(labels_B.device, precision):
            x_STD, wte_VD = self.model.states(batch.tokens_ST)
            lm_S = self.lm_losses(x_STD, self.softmax_matrix(wte_VD), batch) if lm else x_STD.new_zeros(len(x_STD))
        outputs_BK = self.head(self.at_extract(x_STD, batch), batch.example_S, kept_BD)
        return self.answer.losses(outputs_BK, labels_B), lm_S

    def lm_losses(self, x_STD: Tensor, outputs_VD: Tensor, batch: Batch) -> Tensor:
        """Σ over targets of −log p(target) / number of targets, for each sequence: (S,) in float32."""
        rows, columns = (batch.targets_ST != ops.IGNORED).nonzero(as_tuple=True)  # padding costs no softmax
        losses_1N = ops.token_losses(x_STD[rows, columns][None], outputs_VD, batch.targets_ST[rows, columns][None])
        sums_S = losses_1N.new_zeros(len(x_STD)).index_add(0, rows, losses_1N[0])
        return sums_S / batch.lengths_S
