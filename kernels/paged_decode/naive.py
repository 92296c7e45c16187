"""Attention over a paged KV cache: the definition every faster twin must match.

Shapes: B rows (one query token each), Hkv KV heads, G queries per KV head, D head size, P tokens
per page, m listed pages. K and V of one layer are ``[Hkv, n_pages, P, D]``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Decoded(NamedTuple):
    """Attention of one step's rows over their listed pages."""

    out: Tensor  # [B, Hkv, G, D], the dtype of q
    lse: Tensor  # float32 [B, Hkv, G]: log-sum-exp of the scaled scores
    page_mass: Tensor | None  # float32 [B, Hkv, m]: attention on each listed page, mean over G
    page_surprisal: Tensor | None  # float32 [B, Hkv, m]: sum of a_i s_i on each listed page


def decode_pages(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    pages: Tensor,
    kept: Tensor,
    tails: Tensor,
    scaling: float,
    *,
    surprisal: Tensor | None = None,
    masses: bool = False,
) -> Decoded:
    """Attend each row to its listed pages; dense attention lists them all.

    A row without pages gives zeros and a log-sum-exp of -inf. Slots past ``tails`` and entries of
    ``pages`` past ``kept`` are never looked at: they may hold anything.

    Args:
        q: ``[B, Hkv, G, D]``; k_pages, v_pages: ``[Hkv, n_pages, P, D]``, the whole layer.
        pages: int32 ``[B, Hkv, m]``, physical, in sequence order, of which ``kept`` lead; it may
            be one list expanded over heads.
        kept: int32 ``[B, Hkv]``; tails: int32 ``[B]``, tokens in the last kept page.
        surprisal: float32 ``[n_pages, P]``, nats; NaN counts as 0. Asks for ``page_surprisal``.
        masses: ask for ``page_mass``.
    """
    _, heads, m = pages.shape
    page_tokens = k_pages.shape[2]
    listed = torch.arange(m, device=q.device) < kept[..., None]  # [B, Hkv, m]
    safe = torch.where(listed, pages, 0).long()
    seen = _visible(listed, kept, tails, page_tokens)  # [B, Hkv, m, P]
    head = torch.arange(heads, device=q.device)[:, None]
    # 0 * NaN is NaN: what lies in unused slots must not reach a sum.
    k = k_pages[head, safe].float().masked_fill_(~seen[..., None], 0.0).flatten(2, 3)
    v = v_pages[head, safe].float().masked_fill_(~seen[..., None], 0.0).flatten(2, 3)
    scores = torch.matmul(q.float(), k.transpose(2, 3)) * scaling
    scores = scores.masked_fill_(~seen.flatten(2, 3)[:, :, None], float("-inf"))
    lse = scores.logsumexp(-1)
    empty = kept[..., None] == 0
    weights = torch.where(empty[..., None], 0.0, scores.softmax(-1))
    out = torch.matmul(weights, v).to(q.dtype)
    if not masses and surprisal is None:
        return Decoded(out, lse, None, None)
    share = weights.mean(2).unflatten(2, (m, page_tokens))
    mass = share.sum(-1) if masses else None
    weighted = None
    if surprisal is not None:
        nats = surprisal[safe].nan_to_num(nan=0.0).masked_fill_(~seen, 0.0)
        weighted = (share * nats).sum(-1)
    return Decoded(out, lse, mass, weighted)


def _visible(listed: Tensor, kept: Tensor, tails: Tensor, page_tokens: int) -> Tensor:
    slot = torch.arange(page_tokens, device=kept.device)
    index = torch.arange(listed.shape[-1], device=kept.device)
    partial = index == kept[..., None] - 1  # [B, Hkv, m]
    limit = torch.where(partial, tails[:, None, None], page_tokens)
    return listed[..., None] & (slot < limit[..., None])
