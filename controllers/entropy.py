"""Entropy and varentropy of softmax rows: exact, in one mergeable pass.

For p proportional to exp(z/T) and x = ln T, dH/dx = V >= 0: raising the temperature never lowers
the entropy. Everything the micro laws rest on follows from that line (README, "Entropy response").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controllers.core import require

Float64 = NDArray[np.float64]

_DEEP = -800.0  # exp of this is exactly 0 in float64; keeps -inf logits out of 0 * inf


class RowStats(NamedTuple):
    """The four running sums of an online softmax pass over shifted logits z/T, float64 ``[...]``.

    ``m`` is the largest z/T seen, and with d = z/T - m: ``s`` = sum e^d, ``w`` = sum d e^d,
    ``q`` = sum d^2 e^d. Chunks of a row, vocabulary shards and ranks merge exactly.
    """

    m: Float64
    s: Float64
    w: Float64
    q: Float64

    @classmethod
    def of(cls, scaled: ArrayLike) -> RowStats:
        """Reduce one chunk of z/T, ``[..., k]`` with k >= 1; ``-inf`` entries have no mass."""
        z = np.asarray(scaled, dtype=np.float64)
        require(z.ndim >= 1 and z.shape[-1] >= 1, "a chunk needs one logit or more", shape=z.shape)
        m = z.max(axis=-1)
        # An all-masked chunk has m = -inf; shifting by 0 instead gives it the empty sums.
        d = np.maximum(z - np.where(m == -np.inf, 0.0, m)[..., None], _DEEP)
        e = np.exp(d)
        de = d * e
        return cls(m, e.sum(axis=-1), de.sum(axis=-1), (d * de).sum(axis=-1))

    @staticmethod
    def merge(a: RowStats, b: RowStats) -> RowStats:
        """Merge two disjoint chunks of the same rows, in any order up to rounding."""
        m = np.maximum(a.m, b.m)
        left, right = a._shifted_to(m), b._shifted_to(m)
        return RowStats(m, left.s + right.s, left.w + right.w, left.q + right.q)

    def _shifted_to(self, m: Float64) -> RowStats:
        empty = (self.m == -np.inf) & (m == -np.inf)
        shift = np.maximum(np.where(empty, 0.0, self.m) - np.where(empty, 0.0, m), _DEEP)
        scale = np.exp(shift)
        w = scale * (self.w + shift * self.s)
        q = scale * (self.q + 2.0 * shift * self.w + shift * shift * self.s)
        return RowStats(m, scale * self.s, w, q)

    @property
    def entropy_nats(self) -> Float64:
        """H = ln s - w/s, in [0, ln n]; NaN for a row without a finite largest logit."""
        return self._finish()[0]

    @property
    def varentropy_nats2(self) -> Float64:
        """V = q/s - (w/s)^2 = Var_p(ln p), in [0, ``max_varentropy(n)``]."""
        return self._finish()[1]

    def _finish(self) -> tuple[Float64, Float64]:
        s = np.where((self.s > 0.0) & np.isfinite(self.m), self.s, np.nan)
        mean = self.w / s
        # No clamp at zero: s >= 1 and w <= 0, and the largest logit holds 1/n of the mass or more,
        # so mean^2 is at most n V and the difference keeps its sign.
        return np.log(s) - mean, self.q / s - mean * mean


def entropy_varentropy(logits: ArrayLike, x: ArrayLike) -> tuple[Float64, Float64]:
    """Return H (nats) and V (nats^2) of softmax(logits / T) at ln T = ``x``, exactly, float64.

    ``logits`` ``[..., n]``, ``x`` broadcasts against ``[...]``. ``-inf`` logits are masked tokens.
    A row with NaN, with +inf or with every token masked gives NaN, which every law holds on.
    """
    z = np.asarray(logits, dtype=np.float64)
    beta = np.exp(-np.asarray(x, dtype=np.float64))
    # inf - inf in rows that are reported as NaN; differences past -1e308 of logits without mass
    with np.errstate(invalid="ignore", over="ignore"):
        stats = RowStats.of(z * beta[..., None])
        return stats.entropy_nats, stats.varentropy_nats2


def max_varentropy(n: int) -> float:
    """Return N_n, the largest varentropy of ``n`` outcomes, in nats^2: 30.284 at n = 50,257.

    N_n = max_r r(1-r) ln^2((1-r)(n-1)/r) (Reeb and Wolf, arXiv:1304.0036). In the log-odds
    u = ln((1-r)/r) the maximum solves tanh(u/2) (u + ln(n-1)) = 2, where N_n = 1/sinh^2(u/2).
    """
    require(n >= 1, "an alphabet has one outcome or more", n=n)
    if n == 1:
        return 0.0
    low, high = 0.0, 4.0  # tanh(u/2) u already exceeds 2 at u = 4
    for _ in range(80):
        u = 0.5 * (low + high)
        below = math.tanh(0.5 * u) * (u + math.log(n - 1)) < 2.0
        low, high = (u, high) if below else (low, u)
    return 1.0 / math.sinh(0.5 * high) ** 2
