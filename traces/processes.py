"""Arrival processes: renewal gaps of a given burstiness, run through a rate that changes in time.

A unit-mean renewal process lives in operational time; the inverse of the cumulative rate maps it to
seconds. With exponential gaps that is the exact inhomogeneous Poisson process, with other gaps a
process whose burstiness follows the rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from controllers.core import require
from traces.arrivals import Arrivals

Family = Literal["exponential", "gamma", "weibull"]
DAY_S = 86_400.0
GRID = 4096  # knots of a tabulated rate
_SHAPES = (0.05, 50.0)  # Weibull shapes searched: cv from 5e4 down to .025


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Independent gaps of mean 1 and coefficient of variation ``cv`` (standard deviation/mean)."""

    family: Family = "exponential"
    cv: float = 1.0

    def __post_init__(self) -> None:
        require(
            self.family in get_args(Family),
            f"family must be one of {get_args(Family)}",
            family=self.family,
        )
        require(math.isfinite(self.cv) and self.cv > 0.0, "cv must be finite and > 0", cv=self.cv)
        require(
            self.family != "exponential" or self.cv == 1.0,
            "exponential gaps have cv = 1",
            cv=self.cv,
        )

    def gaps(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw ``n`` gaps, float64 ``[n]``."""
        if self.family == "exponential":
            return rng.exponential(1.0, n)
        if self.family == "gamma":
            return rng.gamma(1.0 / self.cv**2, self.cv**2, n)
        shape = weibull_shape(self.cv)
        return rng.weibull(shape, n) / math.gamma(1.0 + 1.0 / shape)


def weibull_shape(cv: float) -> float:
    """Return the Weibull shape whose coefficient of variation is ``cv``, by bisection."""
    low, high = _SHAPES
    require(
        weibull_cv(high) <= cv <= weibull_cv(low),
        f"a Weibull cv must lie in [{weibull_cv(high):.3g}, {weibull_cv(low):.3g}]",
        cv=cv,
    )
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if weibull_cv(middle) > cv else (low, middle)
    return math.sqrt(low * high)


def weibull_cv(shape: float) -> float:
    """Return the coefficient of variation of a Weibull of ``shape``; it falls as shape grows."""
    # cv^2 = Gamma(1 + 2/k) / Gamma(1 + 1/k)^2 - 1, in logarithms: Gamma overflows early.
    ratio = math.lgamma(1.0 + 2.0 / shape) - 2.0 * math.lgamma(1.0 + 1.0 / shape)
    return math.sqrt(math.expm1(ratio))


@dataclass(frozen=True, slots=True)
class Rate:
    """Arrivals per second over time: linear between knots, the last value beyond them."""

    t_s: np.ndarray  # float64 [k], increasing from 0
    per_s: np.ndarray  # float64 [k], >= 0

    def __post_init__(self) -> None:
        times, rates = self.t_s, self.per_s
        require(len(times) == len(rates) >= 1, "a rate needs a value at each knot", n=len(times))
        increasing = bool(np.all(np.diff(times) > 0.0))
        require(times[0] == 0.0 and increasing, "knots must increase from 0", t_s=times)
        require(
            bool(np.all(np.isfinite(rates) & (rates >= 0.0))), "rates must be >= 0", per_s=rates
        )
        require(rates[-1] > 0.0, "the last rate must be > 0, or arrivals never end", per_s=rates)

    def inverse(self, operational: np.ndarray) -> np.ndarray:
        """Return the seconds at which the expected number of arrivals reaches ``operational``."""
        widths = np.diff(self.t_s)
        areas = widths * (self.per_s[1:] + self.per_s[:-1]) / 2.0
        reached = np.concatenate([[0.0], np.cumsum(areas)])
        left = np.maximum(np.searchsorted(reached, operational, "right") - 1, 0)
        rest = operational - reached[left]
        slope = np.append(np.diff(self.per_s) / widths, 0.0)[left]
        # rest = r d + slope d^2 / 2, solved so that a slope of 0 and a rate of 0 are both safe.
        root = np.sqrt(np.maximum(self.per_s[left] ** 2 + 2.0 * slope * rest, 0.0))
        below = self.per_s[left] + root
        step = np.divide(2.0 * rest, below, out=np.zeros_like(rest), where=below > 0.0)
        return self.t_s[left] + step


def constant(per_s: float) -> Rate:
    """Return a rate that never changes."""
    return Rate(np.zeros(1), np.array([float(per_s)]))


def diurnal(mean_per_s: float, *, swing: float, days: float, period_s: float = DAY_S) -> Rate:
    """Return mean (1 - swing cos(2 pi t / period)): lowest at t = 0, ``swing`` in [0, 1)."""
    require(0.0 <= swing < 1.0, "swing must lie in [0, 1)", swing=swing)
    require(days > 0.0 and period_s > 0.0, "days and period_s must be > 0", days=days)
    times = np.linspace(0.0, days * period_s, GRID)
    return Rate(times, mean_per_s * (1.0 - swing * np.cos(2.0 * np.pi * times / period_s)))


def spike(base_per_s: float, *, peak: float, at_s: float, width_s: float) -> Rate:
    """Return a base rate with one triangle of ``peak`` times the base, centred on ``at_s``."""
    require(peak >= 1.0, "peak must be >= 1, times the base rate", peak=peak)
    require(width_s > 0.0 and at_s >= width_s / 2, "the spike must start after 0", at_s=at_s)
    start, end = at_s - width_s / 2, at_s + width_s / 2
    times = [0.0, start, at_s, end] if start > 0.0 else [0.0, at_s, end]
    rates = [base_per_s] * len(times)
    rates[-2] *= peak
    return Rate(np.array(times), np.array(rates, np.float64))


def arrivals(renewal: Renewal, rate: Rate, n: int, rng: np.random.Generator) -> Arrivals:
    """Draw ``n`` arrivals; the clock starts at the first one."""
    require(n >= 1, "n must be >= 1", n=n)
    times_s = rate.inverse(np.cumsum(renewal.gaps(n, rng)))
    burst = "" if renewal.family == "exponential" else f", cv {renewal.cv:g}"
    return Arrivals(
        times_s=times_s - times_s[0],
        prompt_tokens=None,
        output_tokens=None,
        source=f"{renewal.family}{burst}, first rate {rate.per_s[0]:g}/s, {len(rate.t_s)} knots",
    )
