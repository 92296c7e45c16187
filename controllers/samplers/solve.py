"""Same-step entropy control: the ln T at which the current row has the entropy asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from controllers import ops
from controllers.core import TokenSignal, require
from controllers.ops import Array
from controllers.samplers import rows
from controllers.samplers.core import Shaped, heated, lanes_like, select
from controllers.temperature import (
    X_MAX,
    X_MIN,
    ceiling,
    clipped,
    finite_user,
    require_positive,
    require_range,
)


class Solved(NamedTuple):
    """The solution of H(x) = H* per row, ``[B]`` each."""

    x: Array  # ln T
    rail: Array  # -1: H* is below what x_min gives; +1: above what the ceiling gives; 0: met


class RailState(NamedTuple):
    """The rail the last accepted token was sampled on, ``[B]``: -1, 0 or +1."""

    rail: Array


def solve(
    logits: Array, target: Array, low: Array, high: Array, start: Array, steps: int, tol: float
) -> Solved:
    """Find H(x) = ``target`` (nats) on ``[low, high]`` (ln T), from ``start``; all lanes ``[B]``.

    Newton on a function that never falls (dH/dx = V >= 0), inside a bracket: a step that leaves the
    bracket, or that would not halve the last one, becomes a bisection. The number of steps is
    fixed, so the same graph runs on every row; a row within ``tol`` nats stays where it is.
    """
    least = rows.entropy_varentropy(logits, low)[0] - target
    most = rows.entropy_varentropy(logits, high)[0] - target
    x, moved = ops.clip(start, low, high), high - low
    left, right = low, high
    for _ in range(steps):
        h, v = rows.entropy_varentropy(logits, x)
        error = h - target
        left, right = ops.where(error < 0.0, x, left), ops.where(error > 0.0, x, right)
        newton = x - error / ops.maximum(v, 1e-12)
        middle = 0.5 * (left + right)
        trusted = (newton >= left) & (newton <= right)
        trusted = trusted & (2.0 * abs(newton - x) <= abs(moved))
        close = abs(error) <= tol
        following = ops.where(close, x, ops.where(trusted, newton, middle))
        moved = ops.where(close, moved, following - x)
        x = following
    x = ops.where(least >= 0.0, low, ops.where(most <= 0.0, high, x))
    met = lanes_like(x, 0.0)
    rail = ops.where(least > tol, met - 1.0, ops.where(most < -tol, met + 1.0, met))
    return Solved(x, rail)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadBeat:
    """x solves H(softmax(z/T)) = H* on [x_min, min(x_max, x_cap)]; the zero-lag law of entropy.

    It removes every deviation in the step it appears, and with it every difference between a sure
    token and an open one (F16). Where H* is out of reach it sits on the rail that is nearest and
    says so in its state. At the defaults 32 steps end within 1e-6 nat in float64 (tested); in
    float32 the entropy itself carries about 1e-6 of rounding.
    """

    steps: int = 32  # fixed number of Newton or bisection steps
    tol: float = 1e-6  # nats; a row this close stops moving
    x_min: float = X_MIN
    x_max: float = X_MAX

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps must be >= 1", steps=self.steps)
        require_positive(tol=self.tol)
        require_range(self.x_min, self.x_max)

    def init(self, signal: TokenSignal) -> RailState:
        """Start off the rails."""
        return RailState(lanes_like(signal.x_user, 0.0))

    def shape(self, state: RailState, logits: Array, signal: TokenSignal) -> Shaped:
        """Solve from the user's ln T; the memo holds the rail."""
        start = clipped(finite_user(signal), signal, self.x_min, self.x_max)
        high = ceiling(signal, start, self.x_max)
        low = ops.minimum(lanes_like(start, self.x_min), high)
        # A set-point that is not finite moves nothing, like every law.
        known = (signal.target_nats - signal.target_nats) == lanes_like(start, 0.0)
        target = ops.finite_or(signal.target_nats, lanes_like(start, 0.0))
        solved = solve(logits, target, low, high, start, self.steps, self.tol)
        rail = ops.where(known, solved.rail, lanes_like(solved.rail, 0.0))
        return heated(logits, ops.where(known, solved.x, start), RailState(rail))

    def accept(self, state: RailState, shaped: Shaped, token: Array) -> RailState:
        """Keep the rail of the token that was kept."""
        return select(token >= 0, shaped.memo, state)


def curvature(logits: Array, t: Array) -> tuple[Array, Array, Array]:
    """Return H (nats), V (nats^2) and the third central moment of ln p (nats^3) at T = ``t``."""
    log_p = ops.maximum(rows.log_softmax(rows.tempered(logits, rows.log(t))), -100.0)
    p = rows.exp(log_p)
    mean = rows.total(p * log_p)
    d = log_p - mean[:, None]
    return -mean, rows.total(p * d * d), rows.total(p * d * d * d)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropixTempTune:
    """entropix's ``temp_tune`` (xjdr-alt/entropix, dslider_utils.py): Halley on H(T) = H*.

    T from 1, at most 10 steps, each clipped to half of T; a Newton step where Halley's denominator
    vanishes, a tenth of T where the slope does; rows within ``tol`` stop. The published second
    derivative is -(2 mu_3 + 3 mu_2)/T^2, mu_k the central moments of ln p; the true one is
    -(mu_3 + 3 mu_2)/T^2 (``moment`` = 1). So the published step is not Halley's, and loses its
    third order. Ten steps reach T in [2^-10, 1.5^10] only; [1e-4, 1e4] clamps whatever is set.
    The target is the signal's; entropix derives its own from a running state.
    """

    steps: int = 10
    tol: float = 1e-6  # nats
    start: float = 1.0  # T
    nudge: float = 0.1  # share of T moved where the slope is nil
    moment: float = 2.0  # weight of mu_3 in the second derivative: 2 as published, 1 exact
    t_min: float = 1e-4
    t_max: float = 1e4

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps must be >= 1", steps=self.steps)
        require_positive(tol=self.tol, start=self.start, nudge=self.nudge, t_min=self.t_min)
        require(self.moment in (1.0, 2.0), "moment must be 1 or 2", moment=self.moment)
        require(self.t_min < self.t_max, "t_min < t_max", t_min=self.t_min, t_max=self.t_max)

    def init(self, signal: TokenSignal) -> RailState:
        """Start with nothing to report."""
        return RailState(lanes_like(signal.x_user, 0.0))

    def shape(self, state: RailState, logits: Array, signal: TokenSignal) -> Shaped:
        """Iterate from ``start``; the memo tells the side on which the target was missed."""
        t = lanes_like(logits[:, 0], self.start)
        for _ in range(self.steps):
            h, mu2, mu3 = curvature(logits, t)
            error = h - signal.target_nats
            slope = mu2 / t
            bend = -(self.moment * mu3 + 3.0 * mu2) / (t * t)
            step = ops.finite_or(self._step(t, error, slope, bend), lanes_like(t, 0.0))
            new = ops.clip(t - ops.clip(step, -0.5 * t, 0.5 * t), self.t_min, self.t_max)
            t = ops.where(abs(error) < self.tol, t, new)
        x = ops.minimum(rows.log(t), ceiling(signal, rows.log(t), 20.0))
        missed = rows.entropy_varentropy(logits, x)[0] - signal.target_nats
        none = lanes_like(x, 0.0)
        # Missed by ten tolerances: short of it is the upper side, past it the lower one.
        far = 10.0 * self.tol
        rail = ops.where(missed < -far, none + 1.0, ops.where(missed > far, none - 1.0, none))
        return heated(logits, x, RailState(rail))

    def _step(self, t: Array, error: Array, slope: Array, bend: Array) -> Array:
        bottom = 2.0 * slope * slope - error * bend
        one = lanes_like(t, 1.0)
        safe = ops.where(abs(bottom) > 1e-8, bottom, one)
        steep = ops.where(abs(slope) > 1e-8, slope, one)
        halley, newton = 2.0 * error * slope / safe, error / steep
        nudge = ops.where(error > 0.0, self.nudge * t, -self.nudge * t)
        curved = ops.where(abs(bottom) < 1e-8, newton, halley)
        return ops.where(abs(slope) < 1e-8, nudge, curved)

    def accept(self, state: RailState, shaped: Shaped, token: Array) -> RailState:
        """Keep the report of the token that was kept."""
        return select(token >= 0, shaped.memo, state)
