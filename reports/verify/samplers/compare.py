"""Comparing what samplers return: trees of arrays with lanes leading, to a tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.ops import Array
from reports.verify.contract.signals import leaves
from reports.verify.contract.trial import ensure, ensure_lanes

SAME = 1e-6  # relative, and absolute below one: sums may be ordered in other ways


def outputs(shaped: Any) -> tuple[Array, Array]:
    """Return what is sampled from, ``[B, n]``, and ln T, ``[B]``; the memo is private."""
    return (shaped.logits, shaped.x)


def ensure_close(
    got: Any, want: Any, message: str, step: int | None = None, tolerance: float = SAME
) -> None:
    """Raise ``Broken`` unless two trees agree lane by lane; infinities must be the same."""
    ours, theirs = leaves(want), leaves(got)
    ensure(len(ours) == len(theirs), f"{message}: another number of arrays")
    for a, b in zip(theirs, ours, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        ensure(a.shape == b.shape, f"{message}: shape {a.shape} for {b.shape}")
        if a.ndim == 0:
            ensure(_alike(a, b, tolerance).all(), message)
        else:
            ensure_lanes(by_lane(_alike(a, b, tolerance)), message, step)


def ensure_equal(got: Any, want: Any, message: str, step: int | None = None) -> None:
    """Raise ``Broken`` unless two trees hold the same values; two NaN are the same."""
    ensure_close(got, want, message, step, 0.0)


def by_lane(good: Array) -> Array:
    """Reduce bool ``[B, ...]`` to ``[B]``: true where all of a lane is."""
    return good.all(axis=tuple(range(1, good.ndim)))


def _alike(a: Array, b: Array, tolerance: float) -> Array:
    same = (a == b) | ((a != a) & (b != b))
    with np.errstate(all="ignore"):
        near = abs(a - b) <= tolerance * np.maximum(1.0, abs(b))
    return same | (near & np.isfinite(a) & np.isfinite(b))
