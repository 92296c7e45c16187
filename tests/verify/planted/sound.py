"""Sound laws, one per role; each planted law is one of them with one thing changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from controllers import ops
from controllers.compose import Gated
from controllers.core import LoadSignal, TokenSignal
from controllers.ops import Array


class XState(NamedTuple):
    x: Array


def finite_or_zero(x: Array) -> Array:
    return ops.finite_or(x, ops.full_like(x, 0.0))


@dataclass(frozen=True)
class Integrator:
    """x+ = clip(x - gain (H - H*)): a corrected feedback law in its shortest form."""

    gain: float = 0.03
    x_min: float = -1.2
    x_max: float = 0.6

    def init(self, signal: TokenSignal) -> XState:
        return XState(self.clip(finite_or_zero(signal.x_user), signal))

    def move(self, state: XState, signal: TokenSignal) -> Array:
        return self.gain * (signal.target_nats - signal.h_in)

    def clip(self, x: Array, signal: TokenSignal) -> Array:
        top = ops.full_like(x, self.x_max)
        cap = ops.where(signal.x_cap <= top, signal.x_cap, top)
        return ops.clip(x, self.x_min, ops.maximum(cap, -20.0))

    def step(self, state: XState, signal: TokenSignal) -> Array:
        return self.clip(state.x + finite_or_zero(self.move(state, signal)), signal)

    def update(self, state: XState, signal: TokenSignal) -> tuple[XState, Array]:
        x = self.step(state, signal)
        return XState(x), x

    def x_in(self, state: XState) -> Array:
        return state.x


@dataclass(frozen=True)
class Ramp:
    """p = .9 + .09 share, share rising from 0 at .2 nat to 1 at 3 nats; masked lanes read all."""

    margin: float = 0.1

    def init(self, signal: TokenSignal) -> tuple[()]:
        return ()

    def upper(self, signal: TokenSignal) -> Array:
        return finite_or_zero(signal.h_cal) + self.margin

    def share(self, signal: TokenSignal) -> Array:
        return ops.clip((self.upper(signal) - 0.2) * (1.0 / 2.8), 0.0, 1.0)

    def mask(self, coverage: Array, signal: TokenSignal) -> Array:
        return ops.where(signal.enabled > 0.0, coverage, ops.full_like(coverage, 1.0))

    def update(self, state: tuple[()], signal: TokenSignal) -> tuple[tuple[()], Array]:
        return state, self.mask(ops.minimum(0.9 + 0.09 * self.share(signal), 0.99), signal)


@dataclass(frozen=True)
class Aged:
    """pi = clip(collapse + urgency + completion, 0, pi_max) + kappa wait."""

    reserves: ClassVar[bool] = True
    oracle: ClassVar[bool] = False

    kappa: float = 0.1
    pi_max: float = 10.0

    @property
    def max_wait_s(self) -> float:
        return self.pi_max / self.kappa

    def init(self, signal: LoadSignal) -> tuple[()]:
        return ()

    def urgency(self, signal: LoadSignal) -> Array:
        return finite_or_zero(ops.clip(1.0 - signal.slack_s * 0.1, 0.0, 1.0))

    def value(self, signal: LoadSignal) -> Array:
        collapse = ops.maximum(finite_or_zero(signal.collapse_nats), 0.0)
        return collapse + self.urgency(signal) + finite_or_zero(signal.completion)

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        value = ops.clip(self.value(signal), 0.0, self.pi_max)
        return state, value + self.kappa * finite_or_zero(signal.wait_s)


GATED = Gated(law=Integrator())
