"""Entropy feedback on a smoothed error: slower than ``EntropyFeedback``, and deaf to noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from controllers import ops
from controllers.core import TokenSignal, require
from controllers.ops import Array
from controllers.temperature import (
    X_MAX,
    X_MIN,
    adaptive_gain,
    ceiling,
    clipped,
    finite_user,
    require_above_zero,
    require_positive,
    require_range,
)


class SmoothedState(NamedTuple):
    """Where the entropy of the next logits is measured, and the error remembered; both ``[B]``."""

    x: Array  # ln T
    error: Array  # smoothed H - H*, nats


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothedFeedback:
    """e+ = e + beta (H - H* - e), then x+ = clip(x - clip(g e+, +-rate), x_min, min(x_max, x_cap)).

    g = min(gain, c/(V + v0)) as in ``EntropyFeedback``, which is the case beta = 1. On a response
    of constant slope V, with k = gain V, the error and its memory follow the characteristic
    polynomial z^2 - (2 - beta - k beta) z + (1 - beta), stable exactly for k < 2 (2 - beta)/beta:
    wider than the plain law's 2, and slower. Not so where the slope changes from token to token
    anywhere in [0, N_n]: then gain N_n < 2 beta/(2 - beta) suffices (circle criterion), which is
    narrower than 2, and slopes that come and go break beta = .3 from gain N_n = 1.02 on, for the
    memory goes on moving x after the response has gone. Drops its memory where a clip binds
    (anti-windup), so that it leaves the clip on the first token whose error has turned.
    """

    beta: float = 0.3  # weight of the newest error, in (0, 1]
    gain: float = 0.03  # ln T per nat
    c: float = 0.3  # largest g V, dimensionless; inf: the gain does not adapt
    v0: float = 0.05  # nats^2
    rate: float = 0.1  # largest move per token, ln T; inf: no limit
    x_min: float = X_MIN
    x_max: float = X_MAX

    def __post_init__(self) -> None:
        require(0.0 < self.beta <= 1.0, "beta must lie in (0, 1]", beta=self.beta)
        require_positive(gain=self.gain, v0=self.v0)
        require_above_zero(c=self.c, rate=self.rate)
        require_range(self.x_min, self.x_max)

    def init(self, signal: TokenSignal) -> SmoothedState:
        """Start at the user's ln T, clipped, with no error remembered."""
        x = clipped(finite_user(signal), signal, self.x_min, self.x_max)
        return SmoothedState(x, ops.full_like(x, 0.0))

    def update(self, state: SmoothedState, signal: TokenSignal) -> tuple[SmoothedState, Array]:
        """Smooth the error, move ln T against it; a non-finite measurement holds both."""
        newest = signal.h_in - signal.target_nats
        probe = newest + 0.0 * signal.v_in  # NaN or infinite where any of the three is
        still = ops.full_like(probe, 0.0)
        measured = (probe - probe) == still
        error = state.error + self.beta * (newest - state.error)
        move = adaptive_gain(signal, self.gain, self.c, self.v0) * error
        move = ops.where(measured, ops.clip(move, -self.rate, self.rate), still)
        wanted = state.x - move
        x = clipped(wanted, signal, self.x_min, self.x_max)
        top = ceiling(signal, wanted, self.x_max)
        outside = (wanted > top) | ((wanted < self.x_min) & (x > wanted))
        error = ops.where(measured, ops.where(outside, still, error), state.error)
        return SmoothedState(x, error), x

    def x_in(self, state: SmoothedState) -> Array:
        """Return its own last command."""
        return state.x
