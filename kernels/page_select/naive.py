"""Choose KV pages before attention reads them: estimate page mass, rank, keep to a coverage.

Shapes: Hkv KV heads, G query heads per KV head, D head size, n pages, C coverages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from controllers.selection import Pins


def estimate_mass(q: Tensor, mean: Tensor, var: Tensor, counts: Tensor, scaling: float) -> Tensor:
    """Estimate each page's attention mass from the mean and variance of its keys.

    The score of a page is ``q.mean + sqrt(q^2.var) + ln count`` (mean + std; arXiv 2605.27740); a
    softmax over pages and the mean over the query group give mass.

    Args:
        q: ``[Hkv, G, D]``; mean, var: ``[Hkv, n, D]``; counts: ``[n]`` tokens per page.
        scaling: the attention scale, usually ``1/sqrt(D)``.

    Returns:
        ``[Hkv, n]``, summing to 1 over pages.
    """
    centre = torch.matmul(q, mean.transpose(1, 2))
    spread = torch.matmul(q.square(), var.transpose(1, 2)).clamp_min_(0.0).sqrt_()
    scores = (centre + spread) * scaling + counts.log()
    return scores.softmax(-1).mean(1)


def rank_pages(mass: Tensor, pins: Pins) -> Tensor:
    """Return page indices ``[Hkv, n]``: pinned pages first, then by mass, descending."""
    n = mass.shape[1]
    key = mass.clone()
    key[:, : pins.first] += 2.0  # any mass is at most 1
    key[:, max(0, n - pins.recent) :] += 2.0
    return key.argsort(dim=1, descending=True, stable=True)


def pages_to_keep(ordered_mass: Tensor, coverages: Tensor, pins: Pins) -> Tensor:
    """Count the pages each head must keep for each coverage, floors included.

    Args:
        ordered_mass: ``[Hkv, n]`` in ``rank_pages`` order; coverages: ``[C]`` below 1.

    Returns:
        integer ``[Hkv, C]``.
    """
    heads, n = ordered_mass.shape
    reached = ordered_mass.cumsum(1).contiguous()
    kept = torch.searchsorted(reached, coverages.expand(heads, -1).contiguous()) + 1
    floor = min(n, max(pins.min_pages, pins.first + pins.recent))
    return kept.clamp(min=floor, max=n)


def select_pages(mass: Tensor, coverage: float, pins: Pins) -> tuple[Tensor, Tensor]:
    """Select the smallest page set per KV head whose estimated mass reaches ``coverage``.

    Returns:
        pages: integer ``[Hkv, m]``, ascending within the ``kept`` leading entries of each head,
        padded with the head's last page; kept: integer ``[Hkv]``.
    """
    order = rank_pages(mass, pins)
    ordered = mass.gather(1, order)
    kept = pages_to_keep(ordered, torch.tensor([coverage], dtype=mass.dtype), pins)[:, 0]
    widest = int(kept.max())
    n = mass.shape[1]
    slot = torch.arange(widest)
    padded = torch.where(slot < kept[:, None], order[:, :widest], n)  # n sorts after every page
    return padded.sort(dim=1).values.clamp_max(n - 1), kept
