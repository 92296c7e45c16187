"""One layer of random K and V behind shuffled page tables; poison where nothing was written."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """B rows, Hkv heads, G queries each, D head size, P tokens a page, n pages of the longest."""

    B: int = 3
    H: int = 2
    G: int = 3
    D: int = 20
    P: int = 4
    n: int = 9


class Layer:
    """Rows of uneven length; the first has ``n`` pages."""

    def __init__(self, shape: Shape, seed: int = 0, *, empty_row: bool = False) -> None:
        s, self.shape = shape, shape
        self.generator = torch.Generator().manual_seed(seed)
        self.pool = s.B * s.n + 3
        self.n_pages = self.integers(1, s.n + 1, s.B)
        self.n_pages[0] = s.n
        if empty_row:
            self.n_pages[-1] = 0
        self.tails = self.integers(1, s.P + 1, s.B)
        order = torch.randperm(self.pool, generator=self.generator)
        self.table = order[: s.B * s.n].view(s.B, s.n).int()
        self.k, self.v = (
            self.normal(s.H, self.pool, s.P, s.D),
            self.normal(s.H, self.pool, s.P, s.D),
        )
        self.q = self.normal(s.B, s.H, s.G, s.D) * 2.0
        self.scaling = s.D**-0.5
        self.surprisal = self.normal(self.pool, s.P).square()

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator).int()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    @property
    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """Lists of every page: pages, kept, tails."""
        heads = self.shape.H
        pages = self.table[:, None].expand(-1, heads, -1)
        return pages, self.n_pages[:, None].expand(-1, heads), self.tails

    def some(self) -> tuple[Tensor, Tensor, Tensor]:
        """Lists of a random subset per head, in sequence order, the last page among them."""
        s = self.shape
        pages = torch.zeros(s.B, s.H, s.n, dtype=torch.int32)
        kept = torch.zeros(s.B, s.H, dtype=torch.int32)
        for b in range(s.B):
            for h in range(s.H):
                n = int(self.n_pages[b])
                wanted = torch.rand(n, generator=self.generator) < 0.5
                wanted[n - 1 :] = True
                chosen = self.table[b, :n][wanted]
                pages[b, h, : len(chosen)], kept[b, h] = chosen, len(chosen)
        return pages, kept, self.tails

    def poison(self, value: float = math.nan) -> None:
        """Spoil every slot that no row has written."""
        s = self.shape
        used = torch.zeros(self.pool, s.P, dtype=torch.bool)
        for b in range(s.B):
            n = int(self.n_pages[b])
            used[self.table[b, :n].long()] = True
            if n:
                used[int(self.table[b, n - 1]), int(self.tails[b]) :] = False
        for store in (self.k, self.v):
            store.masked_fill_(~used[None, :, :, None], value)
        self.surprisal.masked_fill_(~used, value)


def attend(layer: Layer, b: int, h: int, pages: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Attend by brute force in float64; return output ``[G, D]`` and weights ``[G, L]``."""
    listed = pages[b, h, : int(kept[b, h])].long()
    size, length = layer.shape.P, (len(listed) - 1) * layer.shape.P + int(layer.tails[b])
    k, v = (
        store[h, listed].reshape(len(listed) * size, -1)[:length] for store in (layer.k, layer.v)
    )
    weights = (layer.q[b, h].double() @ k.double().T * layer.scaling).softmax(-1)
    return weights @ v.double(), weights
