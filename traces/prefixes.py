"""Which prompts begin alike: content blocks of prompts, and the page names that follow from them.

A block id stands for the tokens of its block and of every block before it, as Mooncake's
``hash_ids`` do (FAST 2025; blocks of 512 tokens). Equal ids are KV that can be used again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

import numpy as np

from controllers.core import require

MOST_OWNERS = 2**30  # ids of blocks; those above belong to the unnamed rest of one prompt each
PAGE_BITS = 32


class PageNames(Sequence[int]):
    """Names of a prompt's full pages, made when they are read.

    Page p belongs to the first block whose end, in pages, lies above p; its name is (block, p).
    """

    __slots__ = ("_ends", "_owners")

    def __init__(self, owners: np.ndarray, ends: np.ndarray) -> None:
        """Take block ids and the pages that lie within each block and all before it, ``[m]``."""
        self._owners, self._ends = owners, ends

    def array(self) -> np.ndarray:
        """Return the names, int64 ``[pages]``."""
        counts = np.diff(self._ends, prepend=0)
        pages = np.arange(len(self), dtype=np.int64)
        return (np.repeat(self._owners.astype(np.int64), counts) << PAGE_BITS) | pages

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...

    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        if isinstance(index, slice):
            return tuple(self.array()[index].tolist())
        page = range(len(self))[index]
        owner = self._owners[int(np.searchsorted(self._ends, page, "right"))]
        return (int(owner) << PAGE_BITS) | page

    def __iter__(self) -> Iterator[int]:
        return iter(self.array().tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PageNames | tuple):
            return tuple(self) == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """Block ids of prompts, ragged: prompt i has ``ids[starts[i]:starts[i + 1]]``."""

    ids: np.ndarray  # int64 [m], in [0, MOST_OWNERS); an id fixes every id before it
    starts: np.ndarray  # int64 [prompts + 1]
    block_tokens: int

    def __post_init__(self) -> None:
        require(self.block_tokens >= 1, "block_tokens must be >= 1", block_tokens=self.block_tokens)
        starts = self.starts
        whole = len(starts) >= 1 and starts[0] == 0 and starts[-1] == len(self.ids)
        require(bool(whole and (np.diff(starts) >= 0).all()), "starts must span ids", starts=starts)
        inside = not len(self.ids) or 0 <= self.ids.min() <= self.ids.max() < MOST_OWNERS
        require(bool(inside), f"block ids must lie in [0, {MOST_OWNERS})", ids=self.ids)

    @classmethod
    def of(cls, prompts: Iterable[Sequence[object]], block_tokens: int) -> Prefixes:
        """Number blocks by their own id and all before it: safe where ids name a block alone."""
        numbers: dict[tuple[int, object], int] = {}
        ids: list[int] = []
        counts: list[int] = []
        for blocks in prompts:
            before = -1
            for block in blocks:
                before = numbers.setdefault((before, block), len(numbers))
                ids.append(before)
            counts.append(len(blocks))
        starts = np.array([0, *accumulate(counts)], np.int64)
        return cls(ids=np.array(ids, np.int64), starts=starts, block_tokens=block_tokens)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of_row(self, row: int) -> np.ndarray:
        """Return the block ids of a prompt, int64 ``[blocks]``."""
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def picked(self, rows: np.ndarray) -> Prefixes:
        """Return the prompts ``rows``, integer ``[k]``; a row may come more than once."""
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        ids = self.ids[np.repeat(self.starts[:-1][rows], counts) + within]
        return Prefixes(ids=ids, starts=starts, block_tokens=self.block_tokens)

    def page_names(self, row: int, prompt_tokens: int, page_tokens: int) -> PageNames:
        """Return one name per full prompt page; equal names, equal tokens up to the page's end.

        A page is named by the block in which its last token lies. A block of 512 tokens is 512 /
        ``page_tokens`` pages; a page that straddles blocks is shared only where its last block is.
        Pages past the named blocks have names of their own.
        """
        pages = prompt_tokens // page_tokens
        owners = self.of_row(row)
        ends = np.arange(1, len(owners) + 1) * self.block_tokens // page_tokens
        owners = np.append(owners, MOST_OWNERS + row)
        return PageNames(owners, np.append(np.minimum(ends, pages), pages))

    def reuse(self, prompt_tokens: np.ndarray) -> dict[str, float | int]:
        """Return how much of the prompts came before, with a cache that forgets nothing.

        ``prefix_block_reuse`` is the share of blocks seen before, ``prefix_token_reuse`` that of
        prompt tokens, the last and partly filled block of a prompt included.
        """
        seen = np.ones(len(self.ids), bool)
        seen[np.unique(self.ids, return_index=True)[1]] = False
        counts = np.diff(self.starts)
        row = np.repeat(np.arange(len(self)), counts)
        first = (np.arange(len(self.ids)) - self.starts[:-1][row]) * self.block_tokens
        tokens = np.clip(prompt_tokens[row] - first, 0, self.block_tokens)
        total = int(prompt_tokens.sum())
        return {
            "prefix_blocks": len(self.ids),
            "prefix_blocks_distinct": int(len(self.ids) - seen.sum()),
            "prefix_block_reuse": float(seen.mean()) if len(seen) else 0.0,
            "prefix_token_reuse": float(tokens[seen].sum() / total) if total else 0.0,
        }
