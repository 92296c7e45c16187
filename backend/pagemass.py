"""How much attention each page of the pool got in one step: what eviction scores are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class PageMass:
    """The largest share of attention each physical page got, over layers, KV heads and rows.

    A head's share is the mean over its query group. The largest, not the mean: a page that one head
    needs must stay. Pages nobody read are 0.
    """

    def __init__(self, n_pages: int, *, informed: bool, device: torch.device | str = "cpu") -> None:
        """Start a step over a pool of ``n_pages``; ``informed`` keeps sum of a_i s_i too."""
        self._mass = torch.zeros(n_pages, device=device)
        self._information = torch.zeros(n_pages, device=device) if informed else None

    def add(self, pages: Tensor, mass: Tensor, information: Tensor | None) -> None:
        """Take in one layer: pages, mass and information ``[B, Hkv, m]``, 0 in padding."""
        flat = pages.reshape(-1).long()
        for total, part in ((self._mass, mass), (self._information, information)):
            if total is not None and part is not None:
                total.scatter_reduce_(0, flat, part.reshape(-1).nan_to_num(nan=0.0), "amax")

    def of(self, pages: Sequence[int]) -> Tensor:
        """Return the mass of a request's page table, float32 ``[n]``; 0 where there is a hole."""
        return _gather(self._mass, pages)

    def information_of(self, pages: Sequence[int]) -> Tensor:
        """Return the largest sum of a_i s_i, nats, likewise; 0 if it was not asked for."""
        if self._information is None:
            return torch.zeros(len(pages))
        return _gather(self._information, pages)


def _gather(values: Tensor, pages: Sequence[int]) -> Tensor:
    listed = torch.tensor(pages, dtype=torch.long)
    return torch.where(listed >= 0, values.cpu()[listed.clamp_min(0)], 0.0)
