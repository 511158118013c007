"""The last hidden states at some places only: the last block is spared what nobody reads.

Flow     Rows, places in (B · T) → all blocks but the last at every place; of the last, keys and values at every place,
         the rest at those asked for → their states

A response's log-probabilities and values are read at its own tokens, a score at one. Of the last block's 12 n_embd²
products a token, 9 are for the output projection and the MLP; nothing that comes later sees what they would be at the
query's tokens. For six layers and a query twice as long as its response that is a twelfth of all products.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor

from rein.models.attention import causal_attention
from rein.models.gpt import GPT, Block, Context
from rein.models.rows import Rows, states


def states_at(model: GPT, rows: Rows, at_N: Tensor) -> tuple[Tensor, Tensor]:
    """`rows.states(model, rows)[0][at_N]`, and the token embedding, with their graph.

    Shapes   at_N (N,) places in (B · T); returns (N, D) and (V, D).
    """
    if model.dropout_seed() is not None:  # a mask is drawn for every place of a row
        x_ND, wte_VD = states(model, rows)
        return x_ND[at_N], wte_VD
    context = Context(documents_BT=rows.documents_BT, positions_BT=rows.positions_BT)
    wte_VD = model.embedding(None)
    x_BTD = model.embed(rows.tokens_BT, wte_VD, context)
    *before, last = (cast(Block, block) for block in model.h.values())
    for block in before:
        x_BTD = block(x_BTD, context)
    return model.ln_f(_at(last, x_BTD, at_N, context)), wte_VD


def _at(block: Block, x_BTD: Tensor, at_N: Tensor, context: Context) -> Tensor:
    """A block's output at some places: (N, D)."""
    attn, pre = block.attn, block.norm == "pre"
    qkv_BT3I = attn.c_attn(block.ln_1(x_BTD) if pre else x_BTD)
    out_BTI = causal_attention(qkv_BT3I, attn.n_head, band=attn.band, documents_BT=context.documents_BT)
    x_ND = x_BTD.flatten(0, 1)[at_N]
    mixed_ND = attn.c_proj(out_BTI.flatten(0, 1)[at_N][None])[0]
    if pre:
        x_ND = x_ND + mixed_ND
        return x_ND + block.mlp(block.ln_2(x_ND)[None])[0]  # type: ignore[no-any-return]
    x_ND = block.ln_1(x_ND + mixed_ND)
    return block.ln_2(x_ND + block.mlp(x_ND[None])[0])  # type: ignore[no-any-return]
