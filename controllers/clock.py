"""Entropic time and its honest neighbours: pure functions of an entropy sequence.

The paper's tau (section 2) counts every fall of H and no rise, so noise alone makes it run, and so
does a temperature that alternates. Report it beside the others, and take all of them at T_cal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def tau_nats(entropy: ArrayLike) -> Float64:
    """Return sum_t max(0, H_{t-1} - H_t) over ``[..., t]``, nats, >= 0; the paper's clock.

    A stationary sequence runs it at E|H_t - H_{t-1}|/2 nats a token, whatever it says.
    """
    return np.maximum(-_steps(entropy), 0.0).sum(axis=-1)


def net_nats(entropy: ArrayLike) -> Float64:
    """Return H_0 - H_last over ``[..., t]``, nats, any sign; zero for an empty sequence."""
    return -_steps(entropy).sum(axis=-1)


def total_variation_nats(entropy: ArrayLike) -> Float64:
    """Return sum_t |H_t - H_{t-1}| over ``[..., t]``, nats; equals 2 tau - net."""
    return np.abs(_steps(entropy)).sum(axis=-1)


def drawdown_nats(entropy: ArrayLike) -> Float64:
    """Return H_0 - min_t H_t over ``[..., t]``, nats, in [0, H_0]; saturates within a dozen."""
    h = np.asarray(entropy, dtype=np.float64)
    if h.shape[-1] == 0:
        return np.zeros(h.shape[:-1])
    return h[..., 0] - h.min(axis=-1)


def _steps(entropy: ArrayLike) -> Float64:
    return np.diff(np.asarray(entropy, dtype=np.float64), axis=-1)
