"""Temperature laws: entropy of the current logits in, ln T out, float32 ``[B]``.

Raising T raises H (dH/dx = V >= 0), so a stabilising law lowers T when H is above its set-point.
Entropy is measured at ``x_in(state)`` on the logits about to be sampled, and the command applies to
those same logits. NaN policy: a non-finite measurement or set-point makes no move; a non-finite
``x_user`` starts at T = 1; a NaN cap is no cap. The cap is a promise to the user: it beats
``x_min``, and every law keeps it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from controllers import ops
from controllers.core import TokenSignal, require
from controllers.ops import Array

X_MIN = math.log(0.3)  # default clips, ln T; the paper names T_min and T_max but gives no values
X_MAX = math.log(1.8)
X_GREEDY = -20.0  # T = 2e-9, which no sampler tells from greedy: the floor of any cap


class TemperatureState(NamedTuple):
    """One ln T per lane, ``[B]``: where the entropy of the next logits is measured."""

    x: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedTemperature:
    """x = x_user: the user's own temperature, no feedback; the baseline."""

    def init(self, signal: TokenSignal) -> TemperatureState:
        """Start at the user's ln T."""
        return TemperatureState(finite_user(signal))

    def update(
        self, state: TemperatureState, signal: TokenSignal
    ) -> tuple[TemperatureState, Array]:
        """Return the user's ln T, bit for bit; the last finite one where it is not finite."""
        x = ops.finite_or(signal.x_user, state.x)
        return TemperatureState(x), x

    def x_in(self, state: TemperatureState) -> Array:
        """Return the user's ln T."""
        return state.x


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyFeedback:
    """x+ = clip(x - clip(g (H - H*), +-rate), x_min, min(x_max, x_cap)); g = min(gain, c/(V + v0)).

    Negative feedback; H and V are measured at x. On fixed logits over n outcomes, off the clips,
    with H* reachable between them: never expanding for gain <= 2/N_n, monotone for gain <= 1/N_n
    (.0330 at n = 50,257; ``entropy.max_varentropy``). The first is exact while g = gain; where c
    binds (g V <= c) it is sufficient. The paper's section 3.3 with its sign corrected. With
    c = inf and rate = inf it is the plain law, g = gain on every step.
    """

    gain: float = 0.03  # ln T per nat
    c: float = 0.3  # largest g V, dimensionless; inf: the gain does not adapt
    v0: float = 0.05  # nats^2
    rate: float = 0.1  # largest move per token, ln T; inf: no limit
    x_min: float = X_MIN
    x_max: float = X_MAX

    def __post_init__(self) -> None:
        require_positive(gain=self.gain, v0=self.v0)
        require_above_zero(c=self.c, rate=self.rate)
        require_range(self.x_min, self.x_max)

    def init(self, signal: TokenSignal) -> TemperatureState:
        """Start at the user's ln T, clipped."""
        return TemperatureState(clipped(finite_user(signal), signal, self.x_min, self.x_max))

    def update(
        self, state: TemperatureState, signal: TokenSignal
    ) -> tuple[TemperatureState, Array]:
        """Move ln T against the entropy error; the new ln T is state and command."""
        gain = adaptive_gain(signal, self.gain, self.c, self.v0)
        move = finite_or_zero(gain * (signal.h_in - signal.target_nats))
        x = state.x - ops.clip(move, -self.rate, self.rate)
        x = clipped(x, signal, self.x_min, self.x_max)
        return TemperatureState(x), x

    def x_in(self, state: TemperatureState) -> Array:
        """Return its own last command."""
        return state.x


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedLiteral:
    """x+ = clip(x + eta (H - H*), x_min, min(x_max, x_cap)): the paper's section 3.3 as printed.

    POSITIVE feedback: it heats when the entropy is too high, multiplies the error by 1 + eta V, and
    ends on a clip for every eta > 0. No gain range is stable. Kept as the negative control; its
    stability property must fail. The paper applies T_{t+1} one token later: wrap in ``delayed``.
    """

    eta: float = 0.1  # ln T per nat; the paper gives no value
    x_min: float = X_MIN
    x_max: float = X_MAX

    def __post_init__(self) -> None:
        require_positive(eta=self.eta)
        require_range(self.x_min, self.x_max)

    def init(self, signal: TokenSignal) -> TemperatureState:
        """Start at the user's ln T, clipped."""
        return TemperatureState(clipped(finite_user(signal), signal, self.x_min, self.x_max))

    def update(
        self, state: TemperatureState, signal: TokenSignal
    ) -> tuple[TemperatureState, Array]:
        """Move ln T along the entropy error; the new ln T is state and command."""
        move = finite_or_zero(self.eta * (signal.h_in - signal.target_nats))
        x = clipped(state.x + move, signal, self.x_min, self.x_max)
        return TemperatureState(x), x

    def x_in(self, state: TemperatureState) -> Array:
        """Return its own last command."""
        return state.x


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedforwardNewton:
    """x = clip(x0 + kappa clip((H* - H)/max(V, v_floor), +-reach), x_min, min(x_max, x_cap)).

    One damped Newton step for H(x) = H* from the nominal x0 = x_user (clipped), with H and V
    measured at x0 on the current logits. Open loop: no memory beyond x0, hence no lag, and stable
    for every kappa; 1 is the full step. Where V is tiny, ``reach`` is what limits the step: T stays
    within a factor exp(+-kappa reach) of the user's. A non-finite measurement gives x0.
    """

    kappa: float = 0.5  # share of the Newton step taken
    v_floor: float = 0.05  # nats^2
    reach: float = 1.0  # largest Newton step before damping, ln T
    x_min: float = X_MIN
    x_max: float = X_MAX

    def __post_init__(self) -> None:
        require(0.0 < self.kappa <= 1.0, "kappa must lie in (0, 1]", kappa=self.kappa)
        require_positive(v_floor=self.v_floor, reach=self.reach)
        require_range(self.x_min, self.x_max)

    def init(self, signal: TokenSignal) -> TemperatureState:
        """Take the user's ln T, clipped, as nominal."""
        return TemperatureState(clipped(finite_user(signal), signal, self.x_min, self.x_max))

    def update(
        self, state: TemperatureState, signal: TokenSignal
    ) -> tuple[TemperatureState, Array]:
        """Return the nominal ln T plus the damped Newton step; the state does not move."""
        error = signal.target_nats - signal.h_in
        step = finite_or_zero(ops.divide(error, ops.maximum(signal.v_in, self.v_floor)))
        x = state.x + self.kappa * ops.clip(step, -self.reach, self.reach)
        return state, clipped(x, signal, self.x_min, self.x_max)

    def x_in(self, state: TemperatureState) -> Array:
        """Return the nominal ln T."""
        return state.x


def adaptive_gain(signal: TokenSignal, gain: float, c: float, v0: float) -> Array:
    """Return min(gain, c/(V + v0)), ln T per nat, ``[B]``; NaN where V is NaN.

    An infinite V gives 0, or with c = inf a NaN; either way the caller makes no move.
    """
    stiffness = ops.maximum(signal.v_in, 0.0) + v0
    return ops.minimum(ops.divide(c, stiffness), gain)


def finite_user(signal: TokenSignal) -> Array:
    """Return the user's ln T; 0, which is T = 1, where it is not finite."""
    return finite_or_zero(signal.x_user)


def finite_or_zero(x: Array) -> Array:
    """Return ``x`` with NaN and infinities replaced by zero."""
    return ops.finite_or(x, 0.0)


def clipped(x: Array, signal: TokenSignal, x_min: float, x_max: float) -> Array:
    """Clip ln T to ``[x_min, min(x_max, x_cap)]``; a cap below ``x_min`` wins."""
    return ops.clip(x, x_min, ceiling(signal, x, x_max))


def ceiling(signal: TokenSignal, like: Array, x_max: float) -> Array:
    """Return min(x_max, x_cap), never under ``X_GREEDY``; a NaN cap is no cap."""
    top = ops.full_like(like, x_max)
    # A comparison, so that a NaN cap falls through to x_max.
    return ops.maximum(ops.where(signal.x_cap <= top, signal.x_cap, top), X_GREEDY)


def require_positive(**gains: float) -> None:
    """Refuse gains that are not positive and finite, by name."""
    for name, value in gains.items():
        require(math.isfinite(value) and value > 0.0, f"{name} must be positive", **{name: value})


def require_above_zero(**limits: float) -> None:
    """Refuse limits that are not positive, by name; infinity means no limit."""
    for name, value in limits.items():
        require(value > 0.0, f"{name} must be positive, or inf for none", **{name: value})


def require_range(x_min: float, x_max: float) -> None:
    """Refuse clips that are not finite, not ordered, or colder than greedy."""
    require(
        math.isfinite(x_min) and math.isfinite(x_max) and X_GREEDY <= x_min < x_max,
        f"clips must satisfy {X_GREEDY} <= x_min < x_max (ln T)",
        x_min=x_min,
        x_max=x_max,
    )
