"""Means with 95 % intervals over seeds: those of the simulator, for every report.

What does not depend on arrivals and order (entropies, likelihood, pages) has its intervals from
``reports.studies.per_token``.
"""

from __future__ import annotations

from simulator.analysis import (
    CONFIDENCE,
    Flat,
    Interval,
    across,
    flatten,
    interval,
    nested,
    paired,
    paired_pct,
    t_half,
)

__all__ = [
    "CONFIDENCE",
    "Flat",
    "Interval",
    "across",
    "flatten",
    "interval",
    "nested",
    "paired",
    "paired_pct",
    "t_half",
]
