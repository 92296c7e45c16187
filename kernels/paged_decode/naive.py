"""Attention over a paged KV cache, for one sequence: the definition every faster twin must match.

Shapes: Hq query heads, Hkv KV heads, G = Hq / Hkv, D head size, L tokens, m selected pages. K and
V of one layer are ``[Hkv, slots, D]``; page p holds slots ``p * page_tokens`` onward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def decode_dense(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Attend one query to all its keys.

    Args:
        q: ``[Hkv, G, D]``; k, v: ``[Hkv, L, D]``.

    Returns:
        output ``[Hkv, G, D]`` and attention weights ``[Hkv, G, L]``.
    """
    weights = (torch.matmul(q, k.transpose(1, 2)) * scaling).softmax(-1)
    return torch.matmul(weights, v), weights


def decode_pages(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    pages: Tensor,
    kept: Tensor,
    tail: int,
    scaling: float,
) -> Tensor:
    """Attend one query to selected pages only.

    Args:
        q: ``[Hkv, G, D]``; k_pages, v_pages: ``[Hkv, n_pages, page_tokens, D]``, the whole layer.
        pages: ``[Hkv, m]`` physical pages in sequence order, of which ``kept[h]`` lead.
        tail: tokens in the last page, which every selection keeps (it is pinned).

    Returns:
        ``[Hkv, G, D]``.
    """
    heads, m = pages.shape
    page_tokens, dim = k_pages.shape[2:]
    head = torch.arange(heads)[:, None]
    k = k_pages[head, pages].view(heads, m * page_tokens, dim)
    v = v_pages[head, pages].view(heads, m * page_tokens, dim)
    limit = (kept - 1) * page_tokens + tail  # the last kept page is the partial one
    hidden = torch.arange(m * page_tokens) >= limit[:, None]
    scores = (torch.matmul(q, k.transpose(1, 2)) * scaling).masked_fill_(
        hidden[:, None], float("-inf")
    )
    return torch.matmul(scores.softmax(-1), v)


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
        position = torch.arange(length - n, length)[:, None]
        mask, causal = torch.arange(length)[None, :] <= position, False
    return F.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=mask, is_causal=causal, scale=scaling, enable_gqa=True
    )[0]
