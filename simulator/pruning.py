"""How many pages a coverage keeps: the recorded shares, read between the recorded coverages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core import require

ROUNDING = 1e-5  # a float32 mean over many heads may round past 1


@dataclass(frozen=True, slots=True)
class ShareTable:
    """Kept share of pages by coverage, one recorded row each.

    Between recorded coverages the share is linear in -ln(1 - coverage), in which recorded shares
    are nearly straight and which keeps it monotone; coverage 1 keeps every page. A coverage below
    the lowest recorded one reads the lowest; ``count_below`` counts them. Coverages strictly
    between the highest recorded one and 1 are not allowed: laws stop at .99 or go to exactly 1.
    """

    shares: np.ndarray  # float64 [rows, C], non-decreasing along C, in [0, 1]
    coverages: np.ndarray  # increasing, below 1, [C]

    @classmethod
    def of(cls, coverages: np.ndarray, shares: np.ndarray) -> ShareTable:
        """Build the table; shares that dip with coverage (scorer noise) are raised to monotone."""
        shares = np.asarray(shares, np.float64)
        require(
            bool(np.all((shares >= 0.0) & (shares <= 1.0 + ROUNDING))),
            "kept shares must lie in [0, 1]",
            lowest=shares.min(initial=1.0),
            highest=shares.max(initial=0.0),
        )
        shares = np.minimum(np.maximum.accumulate(shares, axis=1), 1.0)
        return cls(shares, np.asarray(coverages, np.float64))

    def share(self, rows: np.ndarray, coverage: np.ndarray) -> np.ndarray:
        """Return the share of pages that ``rows`` keep at ``coverage``, in [0, 1]; all ``[B]``."""
        dense = coverage >= 1.0
        if dense.all():
            return np.ones(len(coverage))
        levels = self.coverages
        between = ~dense & (coverage > levels[-1] + 1e-6)  # float32 .99 lies above float64 .99
        if between.any():
            raise ValueError(
                f"coverage must be <= {levels[-1]} or exactly 1; got {coverage[between][0]}"
            )
        depth = -np.log1p(-levels)
        wanted = -np.log1p(-np.minimum(np.maximum(coverage, levels[0]), levels[-1]))
        left = np.minimum(np.searchsorted(depth, wanted, "right") - 1, len(levels) - 2)
        part = (wanted - depth[left]) / (depth[left + 1] - depth[left])
        low, high = self.shares[rows, left], self.shares[rows, left + 1]
        return np.where(dense, 1.0, low + (high - low) * part)

    def count_below(self, coverage: np.ndarray) -> int:
        """Count the coverages ``[B]`` that are read at the lowest recorded one instead."""
        return int((coverage < self.coverages[0] - 1e-6).sum())
