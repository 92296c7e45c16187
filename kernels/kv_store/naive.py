"""Write keys and values into their pages and bring the pages' statistics up to date."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.page_stats import Bounds, Moments, PageStats


def store(
    k: Tensor,
    v: Tensor,
    slots: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    stats: PageStats | None,
) -> None:
    """Store N tokens of one layer; statistics are taken anew from the keys of each touched page.

    A page fills from its first slot on, and the slots of one page lie together and ascend in
    ``slots``. So its statistics cover the slots up to the last one written, whatever it held
    before, and writing a token twice changes nothing.

    Args:
        k, v: ``[Hkv, N, D]``, any strides; slots: int64 ``[N]``, slot = page * P + offset.
        k_pages, v_pages: ``[Hkv, n_pages, P, D]``, the whole layer, written in place.
        stats: two tensors ``[Hkv, n_pages, D]``, written in place; ``None`` keeps none.
    """
    size = k_pages.shape[2]
    k_pages.flatten(1, 2)[:, slots] = k.to(k_pages.dtype)
    v_pages.flatten(1, 2)[:, slots] = v.to(v_pages.dtype)
    if stats is None or not len(slots):
        return
    pages, owner = torch.unique(slots // size, return_inverse=True)
    filled = torch.zeros_like(pages).scatter_reduce_(0, owner, slots % size + 1, "amax")
    hidden = (torch.arange(size, device=slots.device) >= filled[:, None])[None, :, :, None]
    keys = k_pages[:, pages].float()  # [Hkv, touched, P, D]
    for kept, now in zip(stats, _statistics(stats, keys, hidden, filled), strict=True):
        kept[:, pages] = now.to(kept.dtype)


def _statistics(
    stats: PageStats, keys: Tensor, hidden: Tensor, filled: Tensor
) -> tuple[Tensor, Tensor]:
    if isinstance(stats, Bounds):
        low = keys.masked_fill(hidden, float("inf")).amin(2)
        return low, keys.masked_fill(hidden, float("-inf")).amax(2)
    assert isinstance(stats, Moments)
    weight = filled.to(keys.dtype).reciprocal()[:, None]
    mean = keys.masked_fill(hidden, 0.0).sum(2) * weight
    centred = (keys - mean[:, :, None]).masked_fill_(hidden, 0.0)
    return mean, centred.square_().sum(2) * weight
