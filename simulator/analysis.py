"""Means with 95 % intervals over seeds, of metrics as ``controllers.serving.metrics`` names them.

A metric inside a summary is addressed as ``"ttft_s.p95"``. Intervals are Student's, two-sided: they
speak for other arrivals and orders of the same recorded requests. Differences are paired run by
run: two policies under one seed see the same arrivals, lengths and joins (common random numbers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.serving.metrics import Metric

CONFIDENCE = 0.95
Flat = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the half-width of its interval; None where one value cannot tell."""

    mean: float
    half: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside; False where there is no interval."""
        return self.half is not None and abs(self.mean) > self.half


def flatten(metrics: Mapping[str, Metric]) -> Flat:
    """Return metrics by dotted name; a missing summary is missing in every stat."""
    flat: Flat = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{stat}": float(number) for stat, number in value.items()}
        else:
            flat[name] = None if value is None else float(value)
    return flat


def interval(values: Sequence[float | None]) -> Interval | None:
    """Return the mean of ``values`` and its half-width; None if any value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    if len(known) == 1:
        return Interval(known[0], None)
    sample = np.array(known, np.float64)
    error = float(sample.std(ddof=1)) / len(sample) ** 0.5
    return Interval(float(sample.mean()), t_half(error, len(sample)))


def t_half(standard_error: float, n: int) -> float:
    """Return the half-width of Student's two-sided interval of a mean of ``n`` values."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1.0 + CONFIDENCE) / 2.0)) * standard_error


def across(runs: Sequence[Flat]) -> dict[str, Interval | None]:
    """Return the interval of each metric over ``runs``, one per seed."""
    return {name: interval([run.get(name) for run in runs]) for name in _names(runs)}


def paired(runs: Sequence[Flat], reference: Sequence[Flat]) -> dict[str, Interval | None]:
    """Return the interval of each metric's difference, run by run in the same order."""
    return {
        name: interval([_minus(a.get(name), b.get(name)) for a, b in _zip(runs, reference)])
        for name in _names(runs)
    }


def paired_pct(runs: Sequence[Flat], reference: Sequence[Flat]) -> dict[str, Interval | None]:
    """Return the interval of each metric's difference in per cent of the reference's own run."""
    return {
        name: interval([_pct(a.get(name), b.get(name)) for a, b in _zip(runs, reference)])
        for name in _names(runs)
    }


def nested(flat: Mapping[str, Interval | None]) -> dict[str, object]:
    """Return intervals as the command line prints them: means, and half-widths under ``ci95``."""
    tree: dict[str, object] = {}
    for dotted, found in flat.items():
        name, _, stat = dotted.partition(".")
        mean, half = (None, None) if found is None else (found.mean, found.half)
        if not stat:
            tree[name] = {"mean": mean, "ci95": half}
            continue
        summary = tree.setdefault(name, {"ci95": {}})
        assert isinstance(summary, dict)
        summary[stat] = mean
        summary["ci95"][stat] = half
    return tree


def _names(runs: Sequence[Flat]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run))


def _zip(runs: Sequence[Flat], reference: Sequence[Flat]) -> list[tuple[Flat, Flat]]:
    return list(zip(runs, reference, strict=True))


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _pct(a: float | None, b: float | None) -> float | None:
    difference = _minus(a, b)
    return None if difference is None or not b else 100.0 * difference / abs(b)
