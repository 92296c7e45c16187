"""The paged KV cache of a live model: one slot per token, key statistics per page.

Pages are numbered by the request-level pool in ``controllers.serving``; a page is the same block of
token positions in every layer and head. K and V are ``[layers, Hkv, slots, D]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backend.memory import zeros
from backend.sparse import Scorer
from kernels import dispatch
from kernels.low_bit_keys.naive import KeyCodes, encode
from kernels.page_stats import Bounds, Moments, PageStats


class PagedCache:
    """KV storage and what is kept per page: statistics of its keys, surprisal of its tokens.

    ``surprisal`` is float32 ``[n_pages, P]``, nats, NaN where none is known; it lives with the page
    and so survives its reuse by another request. ``lag``, for the lagged scorer alone, is the
    smoothed mass each page was measured to get, ``[layers, Hkv, n_pages]``, NaN if never.
    """

    def __init__(
        self,
        *,
        layers: int,
        kv_heads: int,
        head_dim: int,
        n_pages: int,
        page_tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        scorer: Scorer = "mean_std",
    ) -> None:
        """Allocate an empty cache of ``n_pages`` pages of ``page_tokens`` tokens.

        Statistics are float32 whatever the keys are stored in. 4-bit keys are kept in main memory
        alone.
        """
        self.device = torch.device(device)
        if scorer == "low_bit" and self.device.type != "cpu":
            raise ValueError(f"scorer 'low_bit' runs on cpu; got device {self.device}")
        self.page_tokens = page_tokens
        self.n_pages = n_pages
        slots = n_pages * page_tokens
        kv, sums = (layers, kv_heads, slots, head_dim), (layers, kv_heads, n_pages, head_dim)
        self.k, self.v = (zeros(*kv, dtype=dtype, device=self.device) for _ in range(2))
        parts = [zeros(*sums, device=self.device) for _ in range(2)]
        kind = Bounds if scorer == "quest" else Moments
        self.stats: list[PageStats] = [
            kind(*pair) for pair in zip(*(part.unbind() for part in parts), strict=True)
        ]
        self.codes: list[KeyCodes] = []  # of the low-bit scorer, one per layer
        if scorer == "low_bit":
            keys = torch.zeros(kv_heads, n_pages, page_tokens, head_dim)
            self.codes = [encode(keys) for _ in range(layers)]
        self.surprisal = torch.full((n_pages, page_tokens), math.nan, device=self.device)
        self.lag: Tensor | None = None
        if scorer == "lagged":
            self.lag = torch.full((layers, kv_heads, n_pages), math.nan, device=self.device)
        by_page = (store.unflatten(2, (-1, page_tokens)).unbind() for store in (self.k, self.v))
        self._pages = list(zip(*by_page, strict=True))

    def open_pages(self, pages: list[int]) -> None:
        """Forget what is known of pages about to receive their first token.

        K, V and statistics stay: nothing reads a slot before it is written, and statistics are
        taken anew from the slots that were.
        """
        if not pages:
            return
        self.surprisal[pages] = math.nan
        if self.lag is not None:
            self.lag[:, :, pages] = math.nan

    def write(self, layer: int, k: Tensor, v: Tensor, slots: Tensor) -> None:
        """Store keys and values ``[Hkv, N, D]`` at ``slots [N]`` and update page statistics."""
        k_pages, v_pages = self._pages[layer]
        dispatch.store(k, v, slots, k_pages, v_pages, self.stats[layer])
        if self.codes:
            for kept, now in zip(self.codes[layer], encode(k), strict=True):
                kept.flatten(1, 2)[:, slots] = now

    def store_surprisal(self, slots: Tensor, values: Tensor) -> None:
        """Keep the surprisal, nats ``[N]``, of the tokens at ``slots [N]``; NaN for unknown."""
        self.surprisal.view(-1)[slots] = values.to(self.surprisal)

    def read(
        self, layer: int, pages: Tensor, extent: int | None, length: int
    ) -> tuple[Tensor, Tensor]:
        """Return a sequence's K and V ``[Hkv, length, D]``; views when its pages are one extent."""
        if extent is not None:
            first = extent * self.page_tokens
            return self.k[layer, :, first : first + length], self.v[
                layer, :, first : first + length
            ]
        k, v = (store.index_select(1, pages).flatten(1, 2) for store in self._pages[layer])
        return k[:, :length], v[:, :length]

    def layer_pages(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return views of a layer's K and V by page, ``[Hkv, n_pages, page_tokens, D]``."""
        return self._pages[layer]

    def note_mass(self, layer: int, pages: Tensor, kept: Tensor, mass: Tensor, rate: float) -> None:
        """Move the lagged mass of the pages that were read, ``[B, Hkv, m]``, towards ``mass``."""
        assert self.lag is not None
        lane, head, entry = torch.nonzero(
            torch.arange(pages.shape[2], device=kept.device) < kept[..., None], as_tuple=True
        )
        page, lag = pages[lane, head, entry].long(), self.lag[layer]
        old, new = lag[head, page], mass[lane, head, entry]
        lag[head, page] = torch.where(old.isnan(), new, old + rate * (new - old))
