"""Kept shares and residuals of a stretch: as ``ShareTable`` and ``Residual`` say, read leanly.

The recorded shares of the steps to come are gathered at once, so that a step reads few numbers
that lie together. Every operation on a number is the one those two do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.pruning import ShareTable
from simulator.residual import Residual


class Pruning:
    """The share and residual laws of a recording, with what never changes made ready."""

    def __init__(self, shares: ShareTable, residual: Residual) -> None:
        self.shares = shares
        self.low, self.high = float(shares.coverages[0]), float(shares.coverages[-1])
        self.inner = shares.depths[1:-1]
        self.spans = shares.depths[1:] - shares.depths[:-1]
        self.line = residual.line()
        self.full = bool((shares.shares >= 1.0).any())  # a sparse row may keep every page


class Kept:
    """What the rows of a stretch keep at the coverages asked for, step by step."""

    def __init__(self, pruning: Pruning, rows: np.ndarray) -> None:
        """Gather the shares of recorded ``rows`` ``[n, S]``."""
        self._law = pruning
        found = pruning.shares.shares[rows].reshape(len(rows), -1)
        self._shares = found  # [n, S * C]; one lies at its lane times C plus its level
        self._rises = np.zeros_like(found)  # to the next level
        np.subtract(found[:, 1:], found[:, :-1], out=self._rises[:, :-1])
        self._first = np.arange(rows.shape[1]) * pruning.shares.shares.shape[1]
        self._coverage: Sequence[float] = ()  # whose places follow
        self._index = self._first
        self._part = self._sigma = np.zeros(0)
        self._dense: np.ndarray | None = None  # lanes at coverage 1; None: there is none
        self._below = 0

    def read(
        self, coverage: Sequence[float], normals: np.ndarray, step: int
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Return share and residual factor ``[S]`` of a step, and how many lanes lie too low.

        One of ``coverage`` at least is below 1.
        """
        if coverage != self._coverage:
            self._move(coverage)
        index = self._index
        share = self._rises[step].take(index)
        share *= self._part
        share += self._shares[step].take(index)
        if self._dense is not None:
            share[self._dense] = 1.0
        factor = self._sigma * normals
        np.maximum(factor, -1.0, out=factor)
        np.minimum(factor, 1.0, out=factor)
        if self._law.full or self._dense is not None:
            np.putmask(factor, share >= 1.0, 0.0)
        return share, factor, self._below

    def _move(self, coverage: Sequence[float]) -> None:
        law, lanes = self._law, np.array(coverage)
        lowest, sparse = min(coverage), lanes
        self._dense = None
        if max(coverage) >= 1.0:
            self._dense = (lanes >= 1.0).nonzero()[0]
            sparse = lanes[lanes < 1.0]
        if sparse.max() > law.high + 1e-6:
            law.shares.require_recorded(sparse)
        inside = np.minimum(lanes, law.high)
        if lowest < law.low:
            inside = np.maximum(inside, law.low)
        wanted = np.negative(inside, out=inside)
        np.log1p(wanted, out=wanted)
        np.negative(wanted, out=wanted)
        left = law.inner.searchsorted(wanted, "right")
        wanted -= law.shares.depths.take(left)
        wanted /= law.spans.take(left)
        left += self._first
        self._coverage, self._index, self._part = coverage, left, wanted
        self._sigma = np.interp(lanes, *law.line)
        self._below = law.shares.count_below(lanes) if lowest < law.low else 0
