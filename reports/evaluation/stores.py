"""KV stores of forced scoring: one prompt, several rows that go on from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backend.cache import PagedCache
from backend.models import LoadedModel
from backend.sparse import SparseAttention


class Store:
    """A paged cache laid out as the full pages of one prompt, then tail pages for each lane."""

    def __init__(
        self,
        loaded: LoadedModel,
        sparse: SparseAttention,
        *,
        page_tokens: int,
        prompt_tokens: int,
        tail_tokens: int,
        lanes: int,
    ) -> None:
        self._shared = prompt_tokens // page_tokens
        self._tail = -(-tail_tokens // page_tokens) + 1  # the prompt's last, partial page too
        self.page_tokens = page_tokens
        self.cache = PagedCache(
            layers=loaded.layers,
            kv_heads=loaded.kv_heads,
            head_dim=loaded.head_dim,
            n_pages=self._shared + lanes * self._tail,
            page_tokens=page_tokens,
            scorer=sparse.scorer,
        )

    def full_pages(self, prompt_tokens: int) -> int:
        """Return the prompt's pages that lanes share: full ones, its last token in none."""
        return (prompt_tokens - 1) // self.page_tokens

    def table(self, lane: int, prompt_tokens: int) -> list[int]:
        """Return the page table of ``lane``: shared pages, then all of its own."""
        own = self._shared + lane * self._tail
        return [*range(self.full_pages(prompt_tokens)), *range(own, own + self._tail)]

    def copy_prompt(self, source: Store, prompt_tokens: int) -> None:
        """Take over the shared pages of ``source``; statistics are this store's own kind."""
        pages = self.full_pages(prompt_tokens)
        if not pages:
            return
        length = pages * self.page_tokens
        listed, slots = torch.arange(pages), torch.arange(length)
        self.cache.open_pages(listed.tolist())
        for layer in range(len(self.cache.stats)):
            k, v = source.cache.read(layer, listed, 0, length)
            self.cache.write(layer, k, v, slots)


def store_kind(sparse: SparseAttention, number: int) -> str:
    """Return what settings must share to share a store.

    The lagged scorer writes what it measured into the pages themselves, so each of its settings
    (the ``number``-th) has a store to itself.
    """
    if sparse.scorer == "lagged":
        return f"lagged {number}"
    return {"quest": "bounds", "low_bit": "codes"}.get(sparse.scorer, "moments")


def lanes_by_kind(options: Sequence[SparseAttention]) -> dict[str, list[int]]:
    """Return the numbers of the settings in each store; the dense row's store comes first."""
    found: dict[str, list[int]] = {"moments": []}
    for number, sparse in enumerate(options):
        found.setdefault(store_kind(sparse, number), []).append(number)
    return found
