"""The paged KV cache of a fixed batch on a device: every row owns its pages from the start."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from controllers.core import require
from kernels.page_stats import Moments

STATISTICS = torch.float32  # of page keys, whatever the keys are stored in


class RowPages(NamedTuple):
    """What a decode step must know of its rows' pages; B rows."""

    n_pages: Tensor  # int32 [B]: pages in use, the one being written included
    tails: Tensor  # int32 [B]: tokens in the last of them
    slots: Tensor  # int64 [B]: where the step's keys and values go


class DeviceCache:
    """K, V and key statistics of B rows of up to ``capacity`` tokens, ``[layers, Hkv, ...]``."""

    def __init__(
        self,
        *,
        layers: int,
        kv_heads: int,
        head_dim: int,
        rows: int,
        capacity: int,
        page_tokens: int = 16,
        dtype: torch.dtype,
        device: torch.device | str,
        seed: int = 0,
    ) -> None:
        """Allocate; the rows' pages are dealt at random, as a server's pool is after a while."""
        require(rows >= 1, "rows must be >= 1", rows=rows)
        require(capacity >= 1, "capacity must be >= 1 token", capacity=capacity)
        require(page_tokens >= 1, "page_tokens must be >= 1", page_tokens=page_tokens)
        self.page_tokens, self.capacity = page_tokens, capacity
        self.width = -(-capacity // page_tokens)
        pool = rows * self.width
        shape = (layers, kv_heads, pool, page_tokens, head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        parts = torch.zeros(2, layers, kv_heads, pool, head_dim, dtype=STATISTICS, device=device)
        self.stats = [Moments(parts[0, i], parts[1, i]) for i in range(layers)]
        order = torch.randperm(pool, generator=torch.Generator().manual_seed(seed))
        self.table = order.view(rows, self.width).to(device=device, dtype=torch.int32)

    @staticmethod
    def bytes_of(
        *, layers: int, kv_heads: int, head_dim: int, rows: int, capacity: int, element: int
    ) -> int:
        """Return what such a cache takes: K and V, and two float32 statistics per 16 tokens."""
        tokens = rows * (-(-capacity // 16)) * 16
        return layers * kv_heads * head_dim * (tokens * 2 * element + tokens // 16 * 8)

    def at(self, lengths: Tensor) -> RowPages:
        """Return the rows' pages when row b holds ``lengths[b]`` tokens, the newest included."""
        last = lengths - 1
        page = torch.div(last, self.page_tokens, rounding_mode="floor")
        offset = last - page * self.page_tokens
        physical = self.table.gather(1, page[:, None])[:, 0].long()
        return RowPages((page + 1).int(), (offset + 1).int(), physical * self.page_tokens + offset)

    def slots_of(self, row: int, first: int, count: int) -> Tensor:
        """Return the slots of ``count`` tokens of a row from position ``first`` on, int64."""
        position = torch.arange(first, first + count, device=self.table.device)
        page = torch.div(position, self.page_tokens, rounding_mode="floor")
        physical = self.table[row].long()[page]
        return physical * self.page_tokens + position % self.page_tokens

    def fill(self, seed: int = 0) -> None:
        """Write random keys and values and the statistics they have: a context nobody computed.

        What a decode step costs does not depend on the numbers, but how peaked attention is does:
        with such keys it is close to flat, so coverage keeps about its own share of the pages.
        """
        generator = torch.Generator(self.k.device).manual_seed(seed)
        for index, stats in enumerate(self.stats):
            self.k[index].normal_(generator=generator)
            self.v[index].normal_(generator=generator)
            for head in range(self.k.shape[1]):  # by head: a float32 copy of a layer is large
                keys = self.k[index, head].float()
                stats.mean[head] = keys.mean(1)
                stats.var[head] = keys.var(1, correction=0)
