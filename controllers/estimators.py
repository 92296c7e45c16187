"""Entropy from the k largest probabilities of a row: the paper's estimators, the tight interval.

All read log-probabilities normalised over the whole vocabulary, so all of them need the row's full
log-sum-exp: the mass of the top k is not known from the top k alone. The paper's "O(k)" (section
2.1) is therefore a pass over the vocabulary plus O(k); the exact H and V cost two more sums in that
same pass (``entropy.RowStats``). Use these where an interface returns top-k log-probabilities only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controllers.core import require

Float64 = NDArray[np.float64]

MASS_TOLERANCE = 1e-6  # by which rounded log-probabilities may sum past 1


class Interval(NamedTuple):
    """Least and greatest entropy a row can have, nats, float64 ``[...]``; both are attained."""

    low: Float64
    high: Float64

    @property
    def middle(self) -> Float64:
        """Return the midpoint, off by at most half the width."""
        return 0.5 * (self.low + self.high)


class TopK(NamedTuple):
    """The k largest log-probabilities of each row, float64 ``[..., k]``, falling; of ``n``."""

    logp: Float64
    n: int

    @classmethod
    def of(cls, logp: ArrayLike, n: int) -> TopK:
        """Check and take ``logp``; it must be the true top k, normalised over all ``n``."""
        rows = np.asarray(logp, dtype=np.float64)
        require(
            rows.ndim >= 1 and rows.shape[-1] >= 1, "top-k needs one entry or more", k=rows.shape
        )
        k = rows.shape[-1]
        require(n >= k, "the vocabulary must hold the top k", n=n, k=k)
        require(bool(np.all(rows[..., :1] > -np.inf)), "the largest probability must be positive")
        with np.errstate(invalid="ignore"):
            falling = bool(np.all(~(np.diff(rows, axis=-1) > 0.0)))
        require(falling, "log-probabilities must not rise along a row")
        most = float(np.exp(rows).sum(axis=-1).max())
        require(most <= 1.0 + MASS_TOLERANCE, "probabilities must not sum past 1", mass=most)
        return cls(rows, n)

    @property
    def mass(self) -> Float64:
        """Return the probability of the top k, in (0, 1]."""
        return np.minimum(np.exp(self.logp).sum(axis=-1), 1.0)

    @property
    def tail(self) -> Float64:
        """Return the probability outside the top k; 0 where there is no outside."""
        inside = np.ones(self.logp.shape[:-1])
        return 1.0 - (self.mass if self.logp.shape[-1] < self.n else inside)


def truncated(top: TopK) -> Float64:
    """Return the entropy of the renormalised top k (section 2.1), nats: never above H."""
    mass = top.mass
    return _surprisal_sum(top) / mass + np.log(mass)


def tail_corrected(top: TopK) -> Float64:
    """Return the paper's default estimate (section 2.1), nats: never below H.

    ``truncated`` + h(tail) + tail ln(n - k). Loose by tail * ``truncated``: the renormalised
    entropy belongs to the share ``mass`` of the row only.
    """
    mass, tail = top.mass, top.tail
    binary = -_x_ln_x(mass) - _x_ln_x(tail)
    return truncated(top) + binary + tail * _ln_outside(top)


def interval(top: TopK) -> Interval:
    """Return the tight two-sided interval of H given the true top k, nats.

    High: the tail is spread evenly. Low: the tail is packed into outcomes as large as the k-th, and
    one remainder. No tail outcome may exceed the k-th: that is what "true top k" buys.
    """
    inside, tail = _surprisal_sum(top), top.tail
    smallest = np.exp(top.logp[..., -1])
    safe = np.where(smallest > 0.0, smallest, 1.0)
    full = np.floor(tail / safe)
    rest = np.clip(tail - full * safe, 0.0, None)
    low = inside - full * _x_ln_x(safe) - _x_ln_x(rest)
    high = inside - _x_ln_x(tail) + tail * _ln_outside(top)
    return Interval(low, np.maximum(high, low))


def _surprisal_sum(top: TopK) -> Float64:
    """Return -sum p ln p over the top k; entries without mass add nothing."""
    return -_x_ln_x(np.exp(top.logp)).sum(axis=-1)


def _ln_outside(top: TopK) -> float:
    return math.log(max(top.n - top.logp.shape[-1], 1))


def _x_ln_x(x: ArrayLike) -> Float64:
    value = np.asarray(x, dtype=np.float64)
    return value * np.log(np.where(value > 0.0, value, 1.0))
