"""Kept shares and residuals of a stretch: as ``ShareTable`` and ``Residual`` say, read leanly.

The recorded shares of the steps to come are gathered at once, so that a step reads few numbers
that lie together. Every operation on a number is the one those two do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulator.pruning import ShareTable
from simulator.residual import Residual, clipped


class Gathered(NamedTuple):
    """Shares of n steps of S lanes at C levels; one lies at its lane times C plus its level."""

    shares: np.ndarray  # [n, S * C]
    rises: np.ndarray  # [n, S * C], to the next level
    first: np.ndarray  # int [S], where each lane begins


class Pruning:
    """The share and residual laws of a recording, with what never changes made ready."""

    def __init__(self, shares: ShareTable, residual: Residual) -> None:
        self._shares = shares
        self._low, self._high = float(shares.coverages[0]), float(shares.coverages[-1])
        self._inner = shares.depths[1:-1]
        self._spans = shares.depths[1:] - shares.depths[:-1]
        self._line = residual.line()

    def gather(self, rows: np.ndarray) -> Gathered:
        """Return the shares of recorded ``rows`` ``[n, S]``."""
        found = self._shares.shares[rows].reshape(len(rows), -1)
        rises = np.zeros_like(found)
        np.subtract(found[:, 1:], found[:, :-1], out=rises[:, :-1])
        return Gathered(found, rises, np.arange(rows.shape[1]) * self._shares.shares.shape[1])

    def share(
        self, coverage: list[float], lanes: np.ndarray, table: Gathered, step: int
    ) -> np.ndarray:
        """Return the kept shares ``[S]`` of a step of ``table``; ``lanes`` are ``coverage``.

        One of them at least is below 1.
        """
        sparse = [c for c in coverage if c < 1.0]
        if max(sparse) > self._high + 1e-6:
            self._shares.require_recorded(np.array(sparse))
        inside = np.minimum(lanes, self._high)
        if min(sparse) < self._low:
            inside = np.maximum(inside, self._low)
        wanted = np.negative(inside, out=inside)
        np.log1p(wanted, out=wanted)
        np.negative(wanted, out=wanted)
        left = self._inner.searchsorted(wanted, "right")
        wanted -= self._shares.depths.take(left)
        wanted /= self._spans.take(left)
        left += table.first
        share = table.rises[step].take(left)
        share *= wanted
        share += table.shares[step].take(left)
        if len(sparse) < len(coverage):
            share[lanes >= 1.0] = 1.0
        return share

    def factor(self, lanes: np.ndarray, share: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return ``Residual.factor``."""
        drawn = np.interp(lanes, *self._line)
        drawn *= normals
        return np.where(share < 1.0, clipped(drawn), 0.0)
