"""The calibration temperature T_cal: the one that makes held-out tokens likeliest.

At that temperature the entropy-calibration error is zero: the model is, on average, exactly as
surprised as its entropy says. That is what makes H at T_cal a signal worth steering by (the paper's
section 5; Guo et al., arXiv:1706.04599, for the method).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from controllers.core import require

Batch = tuple[ArrayLike, ArrayLike]  # logits [B, n] and the tokens that came next, int [B]
Source = Callable[[], Iterable[Batch]]  # called once per iteration, so rows need not fit in memory

T_LOW, T_HIGH = 0.05, 20.0  # an optimum outside is no calibration but a degenerate sample
NEWTON_STEPS = 60
TOLERANCE = 1e-10  # of ln(1/T)


class Moments(NamedTuple):
    """Means over held-out tokens at one temperature."""

    tokens: int
    nll_nats: float  # -ln p(token)
    entropy_nats: float
    slope: float  # d nll / d(1/T) = E[E_p z - z_token]
    curvature: float  # d^2 nll / d(1/T)^2 = E[Var_p z] >= 0

    @property
    def entropy_calibration_error(self) -> float:
        """Return E[-ln p(token)] - E[H(p)], nats; positive where the model is overconfident."""
        return self.nll_nats - self.entropy_nats


class Calibration(NamedTuple):
    """A fitted T_cal, with the held-out moments at T = 1 and at T_cal."""

    t_cal: float
    before: Moments
    after: Moments


def fit_temperature(source: Source) -> Calibration:
    """Return the temperature of least NLL on the held-out tokens of ``source``.

    NLL is convex in 1/T, so its slope has one sign change: Newton's step where it stays in the
    bracket, bisection elsewhere. Raises ``ValueError`` for an empty source, a token without mass,
    and an optimum outside [.05, 20], as when every token is its row's argmax.
    """
    before = moments(source, 1.0)
    low, high = 1.0 / T_HIGH, 1.0 / T_LOW
    for end, sign in ((low, -1.0), (high, 1.0)):
        slope = moments(source, 1.0 / end).slope
        require(
            sign * slope > 0.0,
            f"the likeliest temperature must lie inside [{T_LOW}, {T_HIGH}]",
            beyond=1.0 / end,
        )
    beta, now = 1.0, before
    for _ in range(NEWTON_STEPS):
        low, high = (beta, high) if now.slope < 0.0 else (low, beta)
        step = beta - now.slope / now.curvature if now.curvature > 0.0 else math.inf
        following = step if low < step < high else 0.5 * (low + high)
        done = abs(math.log(following / beta)) < TOLERANCE
        beta = following
        now = moments(source, 1.0 / beta)
        if done:
            break
    return Calibration(1.0 / beta, before, now)


def moments(source: Source, temperature: float) -> Moments:
    """Return the held-out means at ``temperature``."""
    require(
        math.isfinite(temperature) and temperature > 0.0,
        "temperature must be finite and > 0",
        temperature=temperature,
    )
    sums = np.zeros(5)
    for logits, tokens in source():
        sums += _sums(np.asarray(logits, np.float64), np.asarray(tokens), 1.0 / temperature)
    require(sums[0] > 0, "calibration needs one held-out token or more", tokens=int(sums[0]))
    nll, entropy, slope, curvature = (sums[1:] / sums[0]).tolist()
    return Moments(int(sums[0]), nll, entropy, slope, curvature)


def _sums(z: np.ndarray, tokens: np.ndarray, beta: float) -> np.ndarray:
    """Return count, NLL, H, slope and curvature, summed over rows ``z [B, n]``."""
    require(
        z.ndim == 2 and tokens.shape == z.shape[:1],
        "a batch is logits [B, n] and tokens [B]",
        logits=z.shape,
        tokens=tokens.shape,
    )
    chosen = np.take_along_axis(z, tokens[:, None], axis=1)[:, 0]
    require(bool(np.all(np.isfinite(chosen))), "every held-out token must have mass")
    top = z.max(axis=1, keepdims=True)
    d = np.maximum(z - top, -1e4)  # a masked token: exp is 0, and its product with d is too
    e = np.exp(beta * d)
    s = e.sum(axis=1)
    mean = (d * e).sum(axis=1) / s
    variance = (d * d * e).sum(axis=1) / s - mean * mean
    gap = mean - (chosen - top[:, 0])
    entropy = np.log(s) - beta * mean
    nll = entropy + beta * gap
    rows = (np.ones(len(s)), nll, entropy, gap, np.maximum(variance, 0.0))
    return np.array([row.sum() for row in rows])
