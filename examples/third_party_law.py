"""A temperature law of your own: proportional control with a dead band.

Verify it with ``entropic verify examples/third_party_law.py:DeadBand``.
"""

from dataclasses import dataclass
from typing import NamedTuple

from controllers import ops
from controllers.core import TokenSignal
from controllers.ops import Array

X_MIN, X_MAX = -1.2, 0.6  # ln T


class DeadBandState(NamedTuple):
    """The ln T in force, float32 ``[B]``."""

    x: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadBand:
    """x+ = x - gain e where the entropy error e = H - H* leaves the band; else x stays."""

    gain: float = 0.015  # ln T per nat
    band: float = 0.05  # nats

    def init(self, signal: TokenSignal) -> DeadBandState:
        """Start at the user's own temperature."""
        return DeadBandState(
            self._bounded(ops.full_like(signal.x_user, 0.0), signal.x_user, signal)
        )

    def update(self, state: DeadBandState, signal: TokenSignal) -> tuple[DeadBandState, Array]:
        """Move against the part of the error outside the band."""
        error = signal.h_in - signal.target_nats
        outside = error - ops.clip(error, -self.band, self.band)
        x = self._bounded(state.x, state.x - self.gain * outside, signal)
        return DeadBandState(x), x

    def x_in(self, state: DeadBandState) -> Array:
        """Measure the entropy at the temperature in force."""
        return state.x

    def _bounded(self, x: Array, moved: Array, signal: TokenSignal) -> Array:
        top = ops.where(signal.x_cap <= X_MAX, signal.x_cap, ops.full_like(x, X_MAX))
        return ops.clip(ops.finite_or(moved, x), X_MIN, ops.maximum(top, -20.0))
