"""Causal self-attention over whole sequences: dense, in bands of recent keys, inside documents.

Fused queries, keys and values go in, the mixed values come out, in the form that is fastest where it runs:

                        dense                   a band or documents
    CPU, bfloat16       blocks up to 1,024      blocks of queries, each with the keys it may see
    CPU, otherwise      PyTorch's operator      the same; but long documents without a band each by itself
    GPU                 PyTorch's operator      flash attention over packed spans, else FlexAttention, else a mask

attention_cpu.py and attention_gpu.py are these rows, attention_plain.py is what they share, and cache.py attends one
token at a time.

Source   Child 2019 (`local` attention of openai/sparse_attention), which Brown 2020 §2.1 alternates with dense layers;
         Radford 2018 §3.1 for the dense form and its dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rein.models.attention_cpu import on_cpu
from rein.models.attention_gpu import on_gpu
from rein.models.attention_plain import plain


def causal_attention(
    qkv_BT3I: Tensor,
    n_head: int,
    *,
    band: int | None = None,
    dropout: float = 0.0,
    documents_BT: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Causal self-attention over fused queries, keys and values.

        out_t = Σ_s softmax_s(q_t · k_s / √E) v_s     over s ≤ t, s > t − band, documents_s = documents_t

    `dropout` zeroes attention weights and scales the others up. Which ones depends on this call's arguments alone, so
    that a recomputation under torch.utils.checkpoint drops the same; no other random number is touched.

    Shapes   qkv_BT3I (B, T, 3 · H · E), queries first, then keys, then values; documents_BT (B, T) whole numbers that
             never fall along a row; returns (B, T, H · E).
    Units    band: keys that a query sees, its own position included.
    Example  >>> qkv = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 3.0], [0.0, 0.0, 8.0]]])  # equal scores: a mean
             >>> causal_attention(qkv, 1).flatten().tolist()
             [1.0, 2.0, 4.0]
             >>> causal_attention(qkv, 1, band=2).flatten().tolist()
             [1.0, 2.0, 5.5]
             >>> causal_attention(qkv, 1, documents_BT=torch.tensor([[0, 1, 1]])).flatten().tolist()
             [1.0, 3.0, 5.5]
    Source   Radford 2018 §3.1; the band: Child 2019, key > query − local_attn_ctx.
    """
    T, width = qkv_BT3I.shape[1:]
    device = qkv_BT3I.device.type
    assert width % (3 * n_head) == 0, f"{width} numbers are not queries, keys and values of {n_head} heads"
    assert band is None or band >= 1, f"a band of {band} keys leaves out the query's own"
    if (
        qkv_BT3I.dtype == torch.float32
        and torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
    ):
        qkv_BT3I = qkv_BT3I.to(torch.get_autocast_dtype(device))
    if band is not None and band >= T:
        band = None
    if device == "cpu":
        return on_cpu(qkv_BT3I, n_head, band, dropout, documents_BT, seed)  # type: ignore[no-any-return]
    if band is None and documents_BT is None and dropout == 0.0:
        return plain(qkv_BT3I, n_head, None)
    return on_gpu(qkv_BT3I, n_head, band, dropout, documents_BT, seed)  # type: ignore[no-any-return]
