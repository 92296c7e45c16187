"""Causal attention of a prompt chunk over its keys and all before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def prefill(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
    """Attend a chunk of queries causally; the chunk is the last ``n`` of ``L`` tokens.

    Args:
        q: ``[Hq, n, D]``; k, v: ``[Hkv, L, D]``.

    Returns:
        ``[Hq, n, D]``.
    """
    n, length = q.shape[1], k.shape[1]
    if n == length:
        mask, causal = None, True
    else:
        order = torch.arange(length, device=q.device)
        mask, causal = order[None, :] <= order[length - n :, None], False
    return F.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=mask, is_causal=causal, scale=scaling, enable_gqa=True
    )[0]
