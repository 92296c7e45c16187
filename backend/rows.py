"""The rows of a step as the device sees them: prompt chunks, and one-token rows as one batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row of several tokens: part of a prompt."""

    first: int  # its first token on the flattened axis
    n: int  # tokens computed now
    length: int  # tokens attended to, these included
    pages: Tensor  # integer [ceil(length / page_tokens)]
    extent: int | None  # first page when the pages are consecutive


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """The one-token rows of a step; B rows, n pages of the longest."""

    request_ids: tuple[int, ...]
    at: Tensor  # int64 [B]: its token on the flattened axis; among ``pruned``, its row
    table: Tensor  # int32 [B, n]: pages held, in sequence order, then the last one again
    n_pages: Tensor  # int32 [B]
    tails: Tensor  # int32 [B]: tokens in the last page
    coverage: Tensor  # float32 [B]
    counted: Tensor  # bool [B]: whether it is a decode row; a prompt chunk of one token is not
    units: int  # pages of the counted rows
    ran_dense: int = 0  # counted rows asked to prune that are too short for it
    pruned: DecodeRows | None = None  # the rows below coverage 1, if any

    def with_pruned(self) -> DecodeRows:
        """Return the same rows, with those below coverage 1 listed apart."""
        below = (self.coverage < 1.0).nonzero()[:, 0]
        if not len(below):
            return self
        counted, n_pages = self.counted[below], self.n_pages[below]
        pruned = DecodeRows(
            request_ids=tuple(self.request_ids[i] for i in below.tolist()),
            at=below,
            table=self.table[below],
            n_pages=n_pages,
            tails=self.tails[below],
            coverage=self.coverage[below],
            counted=counted,
            units=int(n_pages[counted].sum()),
        )
        return replace(self, pruned=pruned)

    def to(self, device: torch.device) -> DecodeRows:
        """Return the same rows with their tensors on ``device``."""
        if device.type == "cpu":
            return self
        names = ("at", "table", "n_pages", "tails", "coverage", "counted")
        moved = {name: getattr(self, name).to(device) for name in names}
        pruned = None if self.pruned is None else self.pruned.to(device)
        return replace(self, pruned=pruned, **moved)

    @property
    def all_pruned(self) -> bool:
        """Whether no row is dense."""
        return self.pruned is not None and len(self.pruned.at) == len(self.at)

    def merge(
        self, pages: Tensor, kept: Tensor, chosen: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the page lists with those of the pruned rows put in."""
        assert self.pruned is not None
        pages, kept = pages.clone(), kept.clone()
        pages[self.pruned.at, :, : chosen.shape[2]] = chosen
        kept[self.pruned.at] = count
        return pages, kept
