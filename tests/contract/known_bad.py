"""Laws that each break one rule on purpose, and the check that must reject them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from controllers import ops
from controllers.core import TokenSignal
from controllers.ops import Array
from tests.contract import checks
from tests.contract.signals import token_signals
from tests.contract.subjects import Subject


class XState(NamedTuple):
    x: Array


@dataclass(frozen=True)
class _Integrator:
    gain: float = 0.03

    def init(self, signal: TokenSignal) -> XState:
        return XState(signal.x_user * 1.0)

    def step(self, state: XState, signal: TokenSignal) -> Array:
        return ops.clip(state.x - self.gain * (signal.h_in - signal.target_nats), -2.0, 1.0)

    def update(self, state: XState, signal: TokenSignal) -> tuple[XState, Array]:
        x = self.step(state, signal)
        return XState(x), x


class WritesInPlace(_Integrator):
    def update(self, state: XState, signal: TokenSignal) -> tuple[XState, Array]:
        x = state.x
        x += -self.gain * (signal.h_in - signal.target_nats)
        return XState(x * 1.0), x * 1.0


class CouplesLanes(_Integrator):
    def step(self, state: XState, signal: TokenSignal) -> Array:
        return ops.clip(state.x - self.gain * (signal.h_in - signal.h_in.mean()), -2.0, 1.0)


class LeaksFloat64(_Integrator):
    def step(self, state: XState, signal: TokenSignal) -> Array:
        return state.x - np.float64(self.gain) * (signal.h_in - signal.target_nats)


class ReadsAValue(_Integrator):
    def step(self, state: XState, signal: TokenSignal) -> Array:
        x = super().step(state, signal)
        return x if bool((signal.h_in > 1.0).any()) else x * 1.0


class NeverClips(_Integrator):
    def step(self, state: XState, signal: TokenSignal) -> Array:
        return state.x - self.gain * (signal.h_in - signal.target_nats)


class PassesNaN(_Integrator):
    """Clips, but a clip lets NaN through."""


class PairState(NamedTuple):
    last: Array
    before: Array


class DelaysByTuple(_Integrator):
    """The natural delay line: each buffer moves up one place, so copying in order corrupts it."""

    def init(self, signal: TokenSignal) -> PairState:
        return PairState(signal.x_user * 1.0, signal.x_user * 1.0)

    def update(self, state: PairState, signal: TokenSignal) -> tuple[PairState, Array]:
        return PairState(self.step(XState(state.last), signal), state.last), state.before * 1.0


class KeepsTheSignal(_Integrator):
    def init(self, signal: TokenSignal) -> XState:
        return XState(signal.x_user)


@dataclass(frozen=True)
class HidesMemory(_Integrator):
    """Keeps a count outside its state, so a snapshot cannot carry it."""

    calls: list[int] = field(default_factory=list)

    def update(self, state: XState, signal: TokenSignal) -> tuple[XState, Array]:
        self.calls.append(1)
        x = self.step(state, signal) + 1e-3 * (len(self.calls) % 7)
        return XState(x), x


class TimeLeads(_Integrator):
    """A delay line with time on the leading axis: gathering lanes gathers steps instead."""

    def init(self, signal: TokenSignal) -> XState:
        return XState(ops.stack([signal.x_user] * checks.LANES))

    def update(self, state: XState, signal: TokenSignal) -> tuple[XState, Array]:
        x = self.step(XState(state.x[-1]), signal)
        return XState(ops.stack([*state.x[1:], x])), state.x[0] * 1.0


class RoundsApart(_Integrator):
    """Divides a scalar by lanes without broadcasting: numpy and torch round differently."""

    def step(self, state: XState, signal: TokenSignal) -> Array:
        return ops.clip(state.x - (0.3 / (signal.v_in + 0.05)) * 0.1 * signal.h_in, -2.0, 1.0)


Check = Callable[[Subject], None]


def _bounds(signal: TokenSignal) -> tuple[Array, Array]:
    return ops.full_like(signal.h_in, -2.0), ops.full_like(signal.h_in, 1.0)


def _bad(law: _Integrator) -> Subject:
    return Subject(law, token_signals, _bounds)


SOUND = _bad(_Integrator())
KNOWN_BAD: list[tuple[Check, Subject]] = [
    (checks.is_pure, _bad(WritesInPlace())),
    (checks.is_pure, _bad(HidesMemory())),
    (checks.is_lane_wise, _bad(CouplesLanes())),
    (checks.has_stable_types, _bad(LeaksFloat64())),
    (checks.is_branch_free, _bad(ReadsAValue())),
    (checks.is_bounded, _bad(NeverClips())),
    (checks.survives_nonfinite, _bad(PassesNaN())),
    (checks.has_no_aliases, _bad(DelaysByTuple())),
    (checks.has_no_aliases, _bad(KeepsTheSignal())),
    (checks.is_resumable, _bad(HidesMemory())),
    (checks.is_resumable, _bad(TimeLeads())),
    (checks.agrees_bitwise, _bad(RoundsApart())),
]
