"""Straight lines through timings, and where two of them cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.bench.rows import BenchError


@dataclass(frozen=True, slots=True)
class Line:
    """y = intercept + slope x by least squares; ``r2`` is the share of variance it explains."""

    slope: float
    intercept: float
    r2: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit a line through at least two different ``x``."""
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(across) != len(up) or len(np.unique(across)) < 2:
        raise BenchError(f"a line needs pairs at two different x; got {len(across)} x")
    centred = across - across.mean()
    slope = float(centred @ (up - up.mean()) / (centred @ centred))
    intercept = float(up.mean() - slope * across.mean())
    left = up - intercept - slope * across
    spread = float(((up - up.mean()) ** 2).sum())
    return Line(slope, intercept, 1.0 - float(left @ left) / spread if spread > 0.0 else 1.0)


def crossover(lengths: Sequence[float], ratios: Sequence[float]) -> float | None:
    """Return the length from which ``ratios`` stay below 1, between the points around it.

    ``lengths`` ascend. None where the last ratio is not below 1; the first length where all are.
    """
    if not lengths or ratios[-1] >= 1.0:
        return None
    above = [index for index, ratio in enumerate(ratios) if ratio >= 1.0]
    if not above:
        return float(lengths[0])
    last = above[-1]
    share = (ratios[last] - 1.0) / (ratios[last] - ratios[last + 1])
    return float(lengths[last] + share * (lengths[last + 1] - lengths[last]))
