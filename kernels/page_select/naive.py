"""Choose KV pages before attention reads them: estimate page mass, rank, keep to a coverage.

Shapes: B rows, Hkv KV heads, G queries per KV head, D head size, n pages of the longest row, C
coverages. Row b has ``n_pages[b]`` pages; what lies beyond them is padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from controllers.selection import Pins
from kernels.page_stats import Bounds, PageStats

__all__ = ["Pins", "estimate_mass", "pages_to_keep", "rank_pages", "select_pages"]


def estimate_mass(
    q: Tensor,
    stats: PageStats,
    table: Tensor,
    n_pages: Tensor,
    tails: Tensor,
    scaling: float,
    *,
    page_tokens: int,
) -> Tensor:
    """Estimate each page's attention mass from statistics of its keys.

    The score of a page is, with moments, ``q.mean + sqrt(q^2.var)`` (mean + std; arXiv
    2605.27740), and with bounds ``sum_d max(q_d low_d, q_d high_d)`` (Quest; arXiv 2406.10774); to
    either is added ln of its tokens. A softmax over a row's pages, then the mean over the query
    group, give mass.

    Args:
        q: ``[B, Hkv, G, D]``; stats: two tensors ``[Hkv, pool, D]``, the whole layer.
        table: int32 ``[B, n]``, physical pages in sequence order; n_pages, tails: int32 ``[B]``.
        scaling: the attention scale, usually ``1/sqrt(D)``; page_tokens: P.

    Returns:
        float32 ``[B, Hkv, n]``, summing to 1 over a row's pages, 0 in padding.
    """
    index = torch.arange(table.shape[1], device=q.device)
    listed = index < n_pages[:, None]  # [B, n]
    safe = torch.where(listed, table, 0).long()
    first, second = (part[:, safe].float().transpose(0, 1) for part in stats)  # [B, Hkv, n, D]
    scores = _scores(q.float(), first, second, isinstance(stats, Bounds)) * scaling
    partial = index == n_pages[:, None] - 1
    counts = torch.where(partial, tails[:, None], page_tokens).float()
    scores = scores + counts.log()[:, None, None]
    hidden = ~listed[:, None, None]
    mass = scores.masked_fill_(hidden, float("-inf")).softmax(-1).masked_fill_(hidden, 0.0)
    return mass.mean(2)


def _scores(q: Tensor, first: Tensor, second: Tensor, bounds: bool) -> Tensor:  # noqa: FBT001
    if bounds:  # max(q l, q h) = q+ h + q- l
        return torch.matmul(q.clamp_min(0.0), second.mT) + torch.matmul(q.clamp_max(0.0), first.mT)
    spread = torch.matmul(q.square(), second.mT).clamp_min_(0.0).sqrt_()
    return torch.matmul(q, first.mT) + spread


def rank_pages(mass: Tensor, n_pages: Tensor, pins: Pins) -> Tensor:
    """Return page indices ``[B, Hkv, n]``: pinned pages, then by falling mass, then padding.

    NaN mass counts as 0; ties are broken by position.
    """
    index = torch.arange(mass.shape[-1], device=mass.device)
    last = n_pages[:, None]
    pinned = (index < pins.first) | (index >= last - pins.recent)
    key = mass.nan_to_num(nan=0.0) + 2.0 * pinned[:, None]  # any mass is at most 1
    key = key.masked_fill((index >= last)[:, None], -1.0)
    return key.argsort(dim=-1, descending=True, stable=True)


def pages_to_keep(ordered_mass: Tensor, n_pages: Tensor, coverages: Tensor, pins: Pins) -> Tensor:
    """Count the pages each head must keep for each coverage, floors included.

    Args:
        ordered_mass: ``[B, Hkv, n]`` in ``rank_pages`` order; n_pages: ``[B]``.
        coverages: ``[B, C]``; 1 keeps everything.

    Returns:
        int64 ``[B, Hkv, C]``.
    """
    heads = ordered_mass.shape[1]
    reached = ordered_mass.nan_to_num(nan=0.0).double().cumsum(-1).contiguous()
    wanted = coverages.double()[:, None].expand(-1, heads, -1).contiguous()
    kept = torch.searchsorted(reached, wanted) + 1
    kept = torch.where(wanted >= 1.0, ordered_mass.shape[-1], kept)
    floor = max(pins.min_pages, pins.first + pins.recent)
    return kept.clamp_min(floor).minimum(n_pages.long()[:, None, None])


def select_pages(
    mass: Tensor, table: Tensor, n_pages: Tensor, coverage: Tensor, pins: Pins
) -> tuple[Tensor, Tensor]:
    """Select per KV head the smallest page set whose estimated mass reaches the row's coverage.

    Args:
        mass: float32 ``[B, Hkv, n]``; table: int32 ``[B, n]``; n_pages: int32 ``[B]``.
        coverage: float32 ``[B]`` in (0, 1]; rows at 1 keep every page.

    Returns:
        pages: int32 ``[B, Hkv, n]``, the physical pages kept, in sequence order, then padding (the
        row's last page); kept: int32 ``[B, Hkv]``.
    """
    order = rank_pages(mass, n_pages, pins)
    ordered = mass.gather(-1, order)
    kept = pages_to_keep(ordered, n_pages, coverage[:, None], pins)[..., 0]
    n = mass.shape[-1]
    slot = torch.arange(n, device=mass.device)
    chosen = torch.where(slot < kept[..., None], order, n)  # n sorts after every page
    chosen = chosen.sort(dim=-1).values
    chosen = chosen.minimum((n_pages.long() - 1).clamp_min(0)[:, None, None])
    pages = table[:, None].expand(-1, mass.shape[1], -1).gather(-1, chosen)
    return pages, kept.int()
