"""Selection in blocks of k pages: one decision for k physical pages that follow each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from controllers.selection import Pins

Select = Callable[[Tensor, Tensor, Tensor, Tensor, Pins], tuple[Tensor, Tensor]]


def select_blocks(
    mass: Tensor,
    table: Tensor,
    n_pages: Tensor,
    coverage: Tensor,
    pins: Pins,
    block_pages: int,
    select: Select,
) -> tuple[Tensor, Tensor]:
    """Select whole blocks whose summed mass reaches each row's coverage.

    The pins and the floor of ``pins`` are pages; a block that holds part of one is kept whole.

    Args:
        mass, table, n_pages, coverage: as in ``select_pages``.
        block_pages: k; the last block of a row may be shorter.
        select: a twin of ``select_pages``, run over blocks.

    Returns:
        pages int32 ``[B, Hkv, n]`` and kept int32 ``[B, Hkv]``, as ``select_pages`` does.
    """
    n, k = mass.shape[-1], block_pages
    blocks = -(-n // k)
    summed = F.pad(mass, (0, blocks * k - n)).unflatten(-1, (blocks, k)).sum(-1)
    count = torch.div(n_pages + (k - 1), k, rounding_mode="floor").to(torch.int32)
    order = torch.arange(blocks, dtype=torch.int32, device=mass.device).expand(len(mass), -1)
    wider = Pins(
        first=-(-pins.first // k),
        recent=1 + -(-(pins.recent - 1) // k),  # the last block may hold a single page
        min_pages=1 + -(-(pins.min_pages - 1) // k),
    )
    chosen, kept = select(summed, order, count, coverage, wider)
    inside = torch.arange(k, device=mass.device)
    position = (chosen.long()[..., None] * k + inside).flatten(-2)  # [B, Hkv, blocks * k]
    last = (n_pages.long() - 1).clamp_min(0)[:, None, None]
    position = position.minimum(last)[..., :n]
    pages = table[:, None].expand(-1, mass.shape[1], -1).gather(-1, position)
    short = n_pages - (count - 1) * k  # pages of the last block, which is always kept
    total = torch.where(kept > 0, (kept - 1) * k + short[:, None], 0)
    return pages, total.to(torch.int32)
