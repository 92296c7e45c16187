"""Ratios of sums with 95 % intervals by a bootstrap over documents.

Tokens of one document, and seeds of one prompt, are not independent: documents are drawn again, not
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from controllers.core import require
from reports.statistics import Interval, t_half

RESAMPLES = 1000
BOOTSTRAP_SEED = 0


def ratio(
    documents: Sequence[str], above: Sequence[float], below: Sequence[float] | None = None
) -> Interval | None:
    """Return sum(above) / sum(below) and its half-width; ``below`` defaults to ones.

    One number per row; rows of one document are drawn together. None without rows or where
    ``below`` sums to 0; no half-width from one document, or where a resample is undefined.
    """
    require(len(documents) == len(above), "one document per value", documents=len(documents))
    if not documents:
        return None
    names, cluster = np.unique(np.asarray(documents), return_inverse=True)
    n = len(names)
    ones = np.ones(len(above)) if below is None else np.asarray(below, np.float64)
    top = np.bincount(cluster, weights=np.asarray(above, np.float64), minlength=n)
    bottom = np.bincount(cluster, weights=ones, minlength=n)
    if not bottom.sum() > 0.0:
        return None
    value = float(top.sum() / bottom.sum())
    if n < 2:
        return Interval(value, None)
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (draws @ top) / (draws @ bottom)
    if not np.all(np.isfinite(drawn)):
        return Interval(value, None)
    return Interval(value, t_half(float(drawn.std(ddof=1)), n))


def as_json(found: Interval | None) -> dict[str, Any]:
    """Return an interval as results keep it: ``mean`` and ``ci95``, null where unknown."""
    if found is None:
        return {"mean": None, "ci95": None}
    return {"mean": found.mean, "ci95": found.half}
