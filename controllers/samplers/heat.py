"""Temperatures as samplers: a wrapped law, and the open-loop peers that heat with entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from controllers import ops
from controllers.compose import USER
from controllers.core import State, TemperatureLaw, TokenSignal, require
from controllers.ops import Array
from controllers.samplers import rows
from controllers.samplers.core import NoState, Shaped, heated, select
from controllers.temperature import X_GREEDY, clipped, finite_user

_HOTTEST = 20.0  # ln T; the peers set no upper clip, the user's cap still binds


@dataclass(frozen=True, slots=True, kw_only=True)
class Tempered:
    """A temperature law as a sampler: it measures the row at the law's own x_in, then applies it.

    The measurement is of the row as masked, so constrained decoding needs nothing more.
    """

    law: TemperatureLaw = USER

    def init(self, signal: TokenSignal) -> State:
        """Start the law."""
        return self.law.init(signal)

    def shape(self, state: State, logits: Array, signal: TokenSignal) -> Shaped:
        """Measure, run the law, heat; the memo is the law's next state."""
        h, v = rows.entropy_varentropy(logits, self.law.x_in(state))
        after, x = self.law.update(state, signal._replace(h_in=h, v_in=v))
        return heated(logits, x, after)

    def accept(self, state: State, shaped: Shaped, token: Array) -> State:
        """Take the law's next state."""
        return select(token >= 0, shaped.memo, state)


@dataclass(frozen=True, slots=True, kw_only=True)
class DynaTemp:
    """T = T_min + (T_max - T_min) (H/ln m)^exponent; llama.cpp's "temp-ext".

    H at T = 1 over the m tokens left; T_min = max(0, T_user - reach), T_max = T_user + reach.
    Published defaults: reach 0, which is the user's T, exponent 1, and T_user .8. Open loop, and
    rising in H: it trusts confidence instead of regulating it. llama.cpp truncates first.
    """

    reach: float = 0.0  # half the width of the range of T
    exponent: float = 1.0

    def __post_init__(self) -> None:
        good = math.isfinite(self.reach) and self.reach >= 0.0
        require(good, "reach must be >= 0", reach=self.reach)
        good = math.isfinite(self.exponent) and self.exponent > 0.0
        require(good, "exponent must be positive", exponent=self.exponent)

    def init(self, signal: TokenSignal) -> NoState:
        """Return no state."""
        return NoState()

    def shape(self, state: NoState, logits: Array, signal: TokenSignal) -> Shaped:
        """Heat by the normalised entropy of the row."""
        x_user = finite_user(signal)
        if self.reach == 0.0:
            return heated(logits, clipped(x_user, signal, X_GREEDY, _HOTTEST))
        h, _ = rows.entropy_varentropy(logits)
        one = ops.full_like(h, 1.0)
        left = rows.total(ops.where(rows.finite(logits), one[:, None], 0.0 * one[:, None]))
        share = ops.clip(h / rows.log(ops.maximum(left, 2.0)), 1e-30, 1.0)
        user = rows.exp(x_user)
        low = ops.maximum(user - self.reach, 0.0)
        t = low + (user + self.reach - low) * rows.exp(self.exponent * rows.log(share))
        x = rows.log(ops.maximum(t, math.exp(X_GREEDY)))
        return heated(logits, clipped(x, signal, X_GREEDY, _HOTTEST))

    def accept(self, state: NoState, shaped: Shaped, token: Array) -> NoState:
        """Return no state."""
        return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Edt:
    """T = T_user N^(theta/H), H at T = 1 in nats: entropy-based dynamic temperature.

    Zhang, Bao and Huang, arXiv:2403.14541, with N = .8; they tune T_0 (here the user's) and theta
    per task, and 1.5 is the value of a public demonstration. T goes to 0 with H, and to T_user as H
    grows. Open loop. A row without entropy is greedy: any T gives the same token.
    """

    base: float = 0.8  # N, in (0, 1)
    theta: float = 1.5  # nats

    def __post_init__(self) -> None:
        require(0.0 < self.base < 1.0, "base must lie in (0, 1)", base=self.base)
        good = math.isfinite(self.theta) and self.theta > 0.0
        require(good, "theta must be positive", theta=self.theta)

    def init(self, signal: TokenSignal) -> NoState:
        """Return no state."""
        return NoState()

    def shape(self, state: NoState, logits: Array, signal: TokenSignal) -> Shaped:
        """Cool by the reciprocal of the row's entropy."""
        h, _ = rows.entropy_varentropy(logits)
        cooling = ops.divide(self.theta * math.log(self.base), ops.maximum(h, 1e-9))
        return heated(logits, clipped(finite_user(signal) + cooling, signal, X_GREEDY, _HOTTEST))

    def accept(self, state: NoState, shaped: Shaped, token: Array) -> NoState:
        """Return no state."""
        return state
