"""Small statistics of metrics: what nothing was measured for is None, never NaN."""

from __future__ import annotations

import numpy as np

from controllers.serving.totals import GapHistogram

Summary = dict[str, float] | None
Metric = float | int | Summary
NS_PER_S = 1_000_000_000


def summary(values: np.ndarray) -> Summary:
    """Return mean, p50, p95 and p99 of ``values``; None for none."""
    if len(values) == 0:
        return None
    p50, p95, p99 = np.percentile(values, (50, 95, 99)).tolist()
    return {"mean": float(values.mean()), "p50": p50, "p95": p95, "p99": p99}


def gap_summary(gaps: GapHistogram) -> Summary:
    """Return the same of a histogram, in seconds; percentiles to half a bin, the mean exact."""
    if gaps.n == 0:
        return None
    p50, p95, p99 = (gaps.quantile_ns(share) / NS_PER_S for share in (0.5, 0.95, 0.99))
    return {"mean": gaps.sum_ns / gaps.n / NS_PER_S, "p50": p50, "p95": p95, "p99": p99}


def weighted_summary(times_ns: np.ndarray) -> Summary:
    """Return mean, p50, p95 and max of a level, from the time spent at levels 0, 1, 2, ..."""
    whole = int(times_ns.sum())
    if whole == 0:
        return None
    levels = np.arange(len(times_ns))
    reached = np.cumsum(times_ns)
    p50, p95 = (int(np.searchsorted(reached, share * whole)) for share in (0.5, 0.95))
    mean = float((levels * (times_ns / whole)).sum())
    return {"mean": mean, "p50": float(p50), "p95": float(p95), "max": float(levels[-1])}


def scaled(found: Summary, factor: float | None) -> Summary:
    """Return every figure of a summary times ``factor``; None without one."""
    if found is None or factor is None:
        return None
    return {name: value * factor for name, value in found.items()}


def ratio(part: float | None, whole: float | None) -> float | None:
    """Return part / whole; None where either is missing or the whole is 0."""
    return None if part is None or not whole else part / whole


def jain(rates: np.ndarray) -> float | None:
    """Return Jain's index of rates, (sum)^2 / (n * sum of squares), in (0, 1]."""
    squares = float((rates * rates).sum())
    return float(rates.sum()) ** 2 / (len(rates) * squares) if squares > 0.0 else None
