"""A GPT whose only dropout is on the residual branches, as supervised fine-tuning has it in InstructGPT.

GPT's own dropout is one probability for embeddings, branches and attention weights alike, as GPT-1 and GPT-2 have it.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rein.models.gpt import GPT, Block, Context


class ResidualDropout(GPT):
    """A GPT that drops, while it trains, elements of its residual branches alone: of attention's and the MLP's output.

    Source   Ouyang 2022, App. C.1: residual dropout 0.2.
    """

    residual_dropout = 0.0

    def set_dropout(self, p: float) -> None:
        """Sets the probability; 0: nothing is dropped."""
        self.residual_dropout = p
        for block in self.h.values():
            assert isinstance(block, Block), "a GPT is made of blocks"
            block.dropout, block.attn.dropout = p, 0.0

    def dropout_seed(self) -> int | None:
        """See GPT.dropout_seed."""
        return self._seed if self.training and self.residual_dropout else None

    def embedding(self, seed: int | None) -> Tensor:
        """The token embedding, whole."""
        return super().embedding(None)

    def embed(self, tokens_BT: Tensor, wte_VD: Tensor, context: Context) -> Tensor:
        """The sum of the embeddings, whole."""
        return super().embed(tokens_BT, wte_VD, replace(context, seed=None))
