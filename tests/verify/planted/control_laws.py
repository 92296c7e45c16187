"""Laws that keep the contract and control badly: unstable, unfair, or the wrong way round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from controllers import ops
from controllers.compose import Gated, GatedState
from controllers.core import LoadSignal, TokenSignal
from controllers.entropy import max_varentropy
from controllers.ops import Array
from controllers.temperature import EntropyFeedback
from tests.verify.planted.sound import Aged, Integrator, Ramp, XState, finite_or_zero

VOCABULARY = 50_257
EXACT = 2.0 / max_varentropy(VOCABULARY)  # largest gain that never expands the error
GAIN_ABOVE_RANGE = EntropyFeedback(gain=1.02 * EXACT, c=math.inf, rate=math.inf)
GAIN_ABOVE_DELAYED_RANGE = EntropyFeedback(gain=0.75 * EXACT, c=math.inf, rate=math.inf)


class WrongSign(Integrator):
    """Heats when the entropy is too high."""

    def move(self, state: XState, signal: TokenSignal) -> Array:
        return -super().move(state, signal)


class MeasuresAtOne(Integrator):
    """Reads H at T = 1, which its own command does not move: an integrator without a plant."""

    def x_in(self, state: XState) -> Array:
        return ops.full_like(state.x, 0.0)


class Relay(Integrator):
    """Moves by a fixed amount toward the set-point, however near it is: never comes to rest."""

    def move(self, state: XState, signal: TokenSignal) -> Array:
        up = ops.full_like(signal.h_in, 0.1)
        return ops.where(signal.h_in < signal.target_nats, up, -up)


class Windup(NamedTuple):
    x: Array  # command
    total: Array  # integral of the error, not clipped at the rails of the command


class WindsUp(Integrator):
    """Integrates on behind the rail, and must integrate all the way back."""

    def init(self, signal: TokenSignal) -> Windup:  # type: ignore[override]
        x = super().init(signal).x
        return Windup(x, x * 1.0)

    def update(self, state: Windup, signal: TokenSignal) -> tuple[Windup, Array]:  # type: ignore[override]
        total = state.total + finite_or_zero(self.move(XState(state.x), signal))
        total = ops.clip(total, -1e3, 1e3)
        x = self.clip(total, signal)
        return Windup(x, total), x


class IgnoresTheCap(Integrator):
    def clip(self, x: Array, signal: TokenSignal) -> Array:
        return ops.clip(x, self.x_min, self.x_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftsWhileOff(Gated):
    """A gate that lets the law go on integrating while it is switched off."""

    def update(self, state: GatedState, signal: TokenSignal) -> tuple[GatedState, Array]:
        law, command = self.law.update(state.law, signal)
        fallback, resting = self.fallback.update(state.fallback, signal)
        return GatedState(law, fallback), ops.where(signal.enabled > 0.0, command, resting)


DRIFTS_WHILE_OFF = DriftsWhileOff(law=Integrator())


class FallsWithEntropy(Ramp):
    def share(self, signal: TokenSignal) -> Array:
        return 1.0 - super().share(signal)


class MarginReversed(Ramp):
    """The less sure the estimate, the more it prunes."""

    def upper(self, signal: TokenSignal) -> Array:
        return finite_or_zero(signal.h_cal) - self.margin


@dataclass(frozen=True)
class Chatters(Ramp):
    """Promises a dwell and a rate, and keeps neither."""

    dwell: int = 8  # steps
    rate: float = 0.02


class IgnoresTheMask(Ramp):
    def mask(self, coverage: Array, signal: TokenSignal) -> Array:
        return coverage


class NeverAges(Aged):
    """Ranks by what a request is worth alone: what waits, waits for ever."""

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        return state, ops.clip(self.value(signal), 0.0, self.pi_max)


class AgesTooLittle(Aged):
    """Claims a bound on the wait ten times shorter than its aging gives."""

    @property
    def max_wait_s(self) -> float:
        return 0.1 * self.pi_max / self.kappa


class DemotesTheLate(Aged):
    def urgency(self, signal: LoadSignal) -> Array:
        return 1.0 - super().urgency(signal)


class HoldsBackTheFinished(Aged):
    """Favours requests at their beginning, as a score by entropy still to come does."""

    def value(self, signal: LoadSignal) -> Array:
        return super().value(signal) + 2.0 * (1.0 - finite_or_zero(signal.completion))


class PassesItsCeiling(Aged):
    """Divides by a cost without a floor, after the clip."""

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        cost = ops.maximum(finite_or_zero(signal.cost_s), 1e-6)
        value = ops.clip(self.value(signal), 0.0, self.pi_max)
        return state, ops.divide(value, cost) + self.kappa * finite_or_zero(signal.wait_s)


class SmallestFirst(Aged):
    """Ranks by the pages still needed, without aging: what is large waits for ever."""

    reserves = False

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        pages = ops.maximum(finite_or_zero(signal.pages_needed), 0.0)
        return state, ops.divide(self.pi_max, pages + 1.0)
