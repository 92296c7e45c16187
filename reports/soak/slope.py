"""A robust slope with an interval: does a gauge grow?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import theilslopes

from controllers.core import require

BLOCKS = 20  # neighbouring samples are alike; medians of blocks are less so
WARMUP = 0.25  # share of the samples that is left out
FEWEST = 20  # samples from which a slope is taken


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per unit of x, with its 95 % interval."""

    value: float
    low: float
    high: float

    def verdict(self, bound: float) -> str:
        """Return "flat" (all of the interval below ``bound``), "leak" (above) or "undecided"."""
        if self.high <= bound:
            return "flat"
        return "leak" if self.low > bound else "undecided"

    def to_json(self) -> dict[str, float]:
        """Return the numbers by name."""
        return {"slope": self.value, "low": self.low, "high": self.high}


def robust_slope(x: np.ndarray, y: np.ndarray, *, warmup: float = WARMUP) -> Slope:
    """Fit y against x by Theil-Sen on block medians, the first ``warmup`` share left out.

    Source: Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 1968.
    """
    require(0.0 <= warmup < 1.0, "warmup must lie in [0, 1)", warmup=warmup)
    x, y = (column[int(warmup * len(column)) :] for column in (x, y))
    require(len(x) >= FEWEST, f"a slope needs {FEWEST} samples after warm-up", samples=len(x))
    blocks = min(BLOCKS, len(x) // 2)
    centre, level = (
        np.array([np.median(block) for block in np.array_split(column, blocks)])
        for column in (x, y)
    )
    value, _, low, high = np.array(theilslopes(level, centre, alpha=0.95), float).tolist()
    return Slope(value, low, high)
