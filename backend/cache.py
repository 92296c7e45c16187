"""The paged KV cache of a live model: one slot per token, key statistics per page.

Pages are numbered by the request-level pool in ``controllers.serving``; a page is the same block of
token positions in every layer and head. K and V are ``[layers, Hkv, slots, D]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Touched:
    """The pages a step writes into, once each, and how many tokens they then hold."""

    pages: Tensor  # integer [n]
    counts: Tensor  # float [n]


class PagedCache:
    """KV storage and, per page, mean and variance of its keys, kept up to date token by token."""

    def __init__(
        self,
        *,
        layers: int,
        kv_heads: int,
        head_dim: int,
        n_pages: int,
        page_tokens: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Allocate an empty cache of ``n_pages`` pages of ``page_tokens`` tokens."""
        self.page_tokens = page_tokens
        slots = n_pages * page_tokens
        self.k = torch.zeros(layers, kv_heads, slots, head_dim, dtype=dtype)
        self.v = torch.zeros_like(self.k)
        self.k_sum = torch.zeros(layers, kv_heads, n_pages, head_dim, dtype=dtype)
        self.k_square = torch.zeros_like(self.k_sum)
        self.k_mean = torch.zeros_like(self.k_sum)
        self.k_var = torch.zeros_like(self.k_sum)

    def open_pages(self, pages: Tensor) -> None:
        """Clear pages that are about to receive their first token (integer ``[n]``).

        Freed pages keep their last content; a poisoned one must not leak into a masked lane.
        """
        if not len(pages):
            return
        offsets = torch.arange(self.page_tokens)
        slots = (pages[:, None] * self.page_tokens + offsets).reshape(-1)
        self.k[:, :, slots] = 0.0
        self.v[:, :, slots] = 0.0
        self.k_sum[:, :, pages] = 0.0
        self.k_square[:, :, pages] = 0.0

    def write(self, layer: int, k: Tensor, v: Tensor, slots: Tensor, touched: Touched) -> None:
        """Store keys and values ``[Hkv, N, D]`` at ``slots [N]``; update their pages' moments."""
        self.k[layer].index_copy_(1, slots, k)
        self.v[layer].index_copy_(1, slots, v)
        owner = torch.div(slots, self.page_tokens, rounding_mode="floor")
        self.k_sum[layer].index_add_(1, owner, k)
        self.k_square[layer].index_add_(1, owner, k.square())
        weight = touched.counts.reciprocal()[:, None]
        mean = self.k_sum[layer].index_select(1, touched.pages) * weight
        square = self.k_square[layer].index_select(1, touched.pages) * weight
        self.k_mean[layer].index_copy_(1, touched.pages, mean)
        self.k_var[layer].index_copy_(1, touched.pages, square - mean.square())

    def read(
        self, layer: int, pages: Tensor, extent: int | None, length: int
    ) -> tuple[Tensor, Tensor]:
        """Return a sequence's K and V ``[Hkv, length, D]``; views when its pages are one extent."""
        if extent is not None:
            first = extent * self.page_tokens
            return self.k[layer, :, first : first + length], self.v[
                layer, :, first : first + length
            ]
        k, v = (store.index_select(1, pages).flatten(1, 2) for store in self.layer_pages(layer))
        return k[:, :length], v[:, :length]

    def layer_pages(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return views of a layer's K and V by page, ``[Hkv, n_pages, page_tokens, D]``."""
        k, v = (store[layer].unflatten(1, (-1, self.page_tokens)) for store in (self.k, self.v))
        return k, v

    def page_moments(self, layer: int, pages: Tensor, extent: int | None) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the keys of ``pages``, ``[Hkv, n, D]`` each."""
        if extent is not None:
            last = extent + len(pages)
            return self.k_mean[layer, :, extent:last], self.k_var[layer, :, extent:last]
        return self.k_mean[layer].index_select(1, pages), self.k_var[layer].index_select(1, pages)
