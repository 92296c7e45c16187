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
    depths: np.ndarray  # -ln(1 - coverages), [C]

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
        coverages = np.asarray(coverages, np.float64)
        return cls(shares, coverages, -np.log1p(-coverages))

    def share(self, rows: np.ndarray, coverage: np.ndarray) -> np.ndarray:
        """Return the share of pages that ``rows`` keep at ``coverage``, in [0, 1]; all ``[B]``."""
        dense = coverage >= 1.0
        if dense.all():
            return np.ones(len(coverage))
        self.require_recorded(coverage[~dense])
        left, part = self.place(coverage)
        return np.where(dense, 1.0, self.read(rows * len(self.coverages) + left, part))

    def require_recorded(self, coverage: np.ndarray) -> None:
        """Raise where a ``coverage`` below 1 lies above the highest recorded one."""
        highest = self.coverages[-1]
        beyond = coverage > highest + 1e-6  # float32 .99 lies above float64 .99
        if beyond.any():
            raise ValueError(
                f"coverage must be <= {highest} or exactly 1; got {coverage[beyond][0]}"
            )

    def place(self, coverage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return between which recorded levels each ``coverage`` lies, and how far along.

        One outside the recorded range is placed at its nearer end.
        """
        inside = np.minimum(np.maximum(coverage, self.coverages[0]), self.coverages[-1])
        wanted = -np.log1p(-inside)
        left = self.depths[1:-1].searchsorted(wanted, "right")
        low = self.depths.take(left)
        return left, (wanted - low) / (self.depths[1:].take(left) - low)

    def read(
        self, index: np.ndarray, part: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the share ``part`` of the way from entry ``index`` of ``shares`` to the next."""
        flat = self.shares.reshape(-1)
        low = flat.take(index)
        rise = flat[1:].take(index)
        rise -= low
        rise *= part
        return np.add(low, rise, out=out)

    def count_below(self, coverage: np.ndarray) -> int:
        """Count the coverages ``[B]`` that are read at the lowest recorded one instead."""
        return int((coverage < self.coverages[0] - 1e-6).sum())
