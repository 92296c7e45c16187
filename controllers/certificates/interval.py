"""Intervals with outward rounding: every operation returns bounds that hold in real numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controllers.core import require

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """[low, high], float64 arrays of one shape ``[...]`` (0-d for one number).

    IEEE rounds each basic operation to the nearest number, so one ulp outward encloses the truth.
    """

    low: Float64
    high: Float64

    def __post_init__(self) -> None:
        require(bool(np.all(self.low <= self.high)), "low <= high", low=self.low, high=self.high)

    def __add__(self, other: Interval) -> Interval:
        """Return the sums, ``[...]``."""
        return _outward(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        """Return the differences, ``[...]``."""
        return _outward(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        """Return the products, ``[...]``."""
        with np.errstate(over="ignore"):
            corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return _outward(np.minimum.reduce(corners), np.maximum.reduce(corners))

    def __truediv__(self, other: Interval) -> Interval:
        """Return the quotients, ``[...]``; the divisor must not contain zero."""
        clear = bool(np.all((other.low > 0.0) | (other.high < 0.0)))
        require(clear, "the divisor must not contain zero", low=other.low, high=other.high)
        with np.errstate(over="ignore"):  # an infinite end is wide, not wrong
            corners = [a / b for a in (self.low, self.high) for b in (other.low, other.high)]
        return _outward(np.minimum.reduce(corners), np.maximum.reduce(corners))

    def abs(self) -> Interval:
        """Return the absolute values, ``[...]``; exact."""
        high = np.maximum(np.abs(self.low), np.abs(self.high))
        crosses = (self.low <= 0.0) & (self.high >= 0.0)
        low = np.where(crosses, 0.0, np.minimum(np.abs(self.low), np.abs(self.high)))
        return Interval(low, high)

    def __contains__(self, value: ArrayLike) -> bool:
        """Tell whether all of ``value``, ``[...]``, lies inside."""
        inside = (self.low <= np.asarray(value)) & (np.asarray(value) <= self.high)
        return bool(np.all(inside))


def box(low: ArrayLike, high: ArrayLike | None = None) -> Interval:
    """Return [low, high], or the numbers ``low`` alone."""
    bottom = np.asarray(low, np.float64)
    top = bottom if high is None else np.asarray(high, np.float64)
    return Interval(*np.broadcast_arrays(bottom, top))


def _outward(low: ArrayLike, high: ArrayLike) -> Interval:
    return Interval(np.nextafter(low, -np.inf), np.nextafter(high, np.inf))
