"""Requests of unequal length side by side, token by token, without padding.

Lanes are in order of falling length, so that at every position those still running are the first
ones, and the tokens of one position lie next to each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SLACK = 16  # lanes, of which one may have ended and is still computed
FEW = 24  # lanes that may in any case: so few cost nothing beside the calls


class Run(NamedTuple):
    """Consecutive positions that are worked on with the same number of lanes.

    ``slice(edges[k], edges[k] + lanes)`` are the tokens of its k-th position and, where lanes have
    ended since, the first of the next one: results there are void until that position is worked on.
    """

    lanes: int
    positions: range
    edges: list[int]  # where the tokens of each position begin, and those after the run


class Ragged:
    """The tokens of lanes of falling ``lengths``, position by position, int32 ``[total]``."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.counts = np.searchsorted(-lengths, -np.arange(int(lengths[0])), "left")
        self._edges = np.concatenate([[0], np.cumsum(self.counts)])  # of positions
        self.total = int(self._edges[-1])
        starts = self._edges[:-1].astype(np.int32)
        self.lanes = np.arange(self.total, dtype=np.int32) - np.repeat(starts, self.counts)
        self.positions = np.repeat(np.arange(len(starts), dtype=np.int32), self.counts)

    def spread(self, starts: np.ndarray) -> np.ndarray:
        """Return ``starts[lane] + position`` of every token: where it is, request by request."""
        return starts.astype(np.int32).take(self.lanes) + self.positions

    def by_request(self, starts: np.ndarray) -> np.ndarray:
        """Return where the tokens are, int32 ``[total]``, those of a lane from ``starts`` on."""
        edges = self._edges.astype(np.int32)
        found = np.empty(self.total, np.int32)
        lengths = np.searchsorted(-self.counts, -np.arange(int(self.counts[0])), "left")
        ends = (starts + lengths).tolist()
        for lane, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
            np.add(edges[: end - start], lane, out=found[start:end])  # a third of a scatter's time
        return found

    def runs(self) -> Iterator[Run]:
        """Cut the positions into runs, so that setting up for a number of lanes is shared.

        A run is as wide as its first position, and hence too wide later on: by 1/16, or ``FEW``.
        """
        counts, edges = self.counts.tolist(), self._edges.tolist()
        first = 0
        while first < len(counts):
            lanes, end = counts[first], first + 1
            least = lanes - max(lanes // SLACK, FEW)
            while end < len(counts) and counts[end] >= least and edges[end] + lanes <= self.total:
                end += 1
            yield Run(lanes, range(first, end), edges[first : end + 1])
            first = end


def pieces(total: int, size: int) -> Iterator[slice]:
    """Cut ``total`` tokens into slices of at most ``size``."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
