"""The plain form of attention: PyTorch's operator, and the mask of the keys that each query sees.

Fused queries, keys and values go in, the mixed values come out. Every other form gives the same numbers, faster.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def plain(qkv_BT3I: Tensor, n_head: int, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """PyTorch's operator: causal, or with the mask."""
    B, T, width = qkv_BT3I.shape
    q, k, v = qkv_BT3I.view(B, T, 3, n_head, width // (3 * n_head)).permute(2, 0, 3, 1, 4)
    out_BHTE = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None)
    return out_BHTE.transpose(1, 2).reshape(B, T, width // 3)


def seen_keys(T: int, band: int | None, documents_BT: Tensor | None, device: torch.device) -> Tensor:
    """Which keys each query sees, as a mask: (T, T), or (B, 1, T, T) with documents.

    Example  >>> seen_keys(3, 2, None, torch.device("cpu")).int().tolist()
             [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    query, key = torch.arange(T, device=device)[:, None], torch.arange(T, device=device)[None, :]
    seen = key <= query
    if band is not None:
        seen = seen & (key > query - band)
    if documents_BT is not None:
        seen = seen & (documents_BT[:, None, :, None] == documents_BT[:, None, None, :])
    return seen
