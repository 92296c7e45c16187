"""Laws that each break one rule of the contract on purpose."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from controllers import ops
from controllers.core import LoadSignal, TokenSignal
from controllers.ops import Array
from tests.verify.planted.sound import Aged, Integrator, XState, finite_or_zero

CALLS = itertools.count()


class TakesNoState(Integrator):
    def update(self, signal: TokenSignal) -> Any:  # type: ignore[override]
        return signal.x_user


class MisspellsASignal(Integrator):
    def move(self, state: XState, signal: TokenSignal) -> Array:
        return self.gain * (signal.target_nats - signal.entropy)  # type: ignore[attr-defined]


class ForgetsTheState(Integrator):
    def update(self, state: XState, signal: TokenSignal) -> Any:
        return self.step(state, signal)


class WritesInPlace(Integrator):
    def update(self, state: XState, signal: TokenSignal) -> tuple[XState, Array]:
        new = self.step(state, signal)
        x = state.x
        x *= 0.0
        x += new
        return XState(x * 1.0), x * 1.0


@dataclass(frozen=True)
class CountsInAnAttribute(Integrator):
    calls: list[int] = field(default_factory=list)

    def move(self, state: XState, signal: TokenSignal) -> Array:
        self.calls.append(1)
        return super().move(state, signal) + 1e-3 * (len(self.calls) % 7)


class CountsInTheModule(Integrator):
    def move(self, state: XState, signal: TokenSignal) -> Array:
        return super().move(state, signal) + 1e-3 * (next(CALLS) % 7)


@dataclass(frozen=True)
class RemembersByPosition(Integrator):
    """The same inputs do give the same outputs, but the last entropies are not in the state."""

    seen: dict[int, Array] = field(default_factory=dict)

    def move(self, state: XState, signal: TokenSignal) -> Array:
        position = int(finite_or_zero(signal.position).min())
        self.seen[position] = signal.h_in * 1.0
        return self.gain * (signal.target_nats - self.seen.get(position - 1, signal.h_in))


class FollowsTheMean(Integrator):
    def move(self, state: XState, signal: TokenSignal) -> Array:
        return self.gain * (signal.h_in.mean() - signal.h_in)


class FollowsTheMost(Integrator):
    """Couples lanes by a maximum, which numpy and torch round alike."""

    def move(self, state: XState, signal: TokenSignal) -> Array:
        return super().move(state, signal) + 1e-3 * (signal.h_in.max() - signal.h_in)


class LeaksFloat64(Integrator):
    def step(self, state: XState, signal: TokenSignal) -> Array:
        return super().step(state, signal) * np.float64(1.0)


class Growing(NamedTuple):
    x: Array
    history: Array  # [B, steps so far]


class KeepsHistory(Integrator):
    """A state that grows by one column a step: no server can reserve a place for it."""

    def init(self, signal: TokenSignal) -> Growing:  # type: ignore[override]
        x = super().init(signal).x
        return Growing(x, ops.stack([x]).T * 1.0)

    def update(self, state: Growing, signal: TokenSignal) -> Any:  # type: ignore[override]
        x = self.step(XState(state.x), signal)
        columns = [state.history[:, i] for i in range(state.history.shape[1])]
        return Growing(x, ops.stack([*columns, x]).T), x * 1.0


class ReadsAValue(Integrator):
    def step(self, state: XState, signal: TokenSignal) -> Array:
        x = super().step(state, signal)
        return x if bool((signal.h_in > 1.0).any()) else x * 1.0


class Logs(Integrator):
    """Runs anywhere, but a graph cannot hold a call to the logger."""

    def step(self, state: XState, signal: TokenSignal) -> Array:
        logging.getLogger("law").debug("step of %s", type(self).__name__)
        return super().step(state, signal)


class NeverClips(Integrator):
    def clip(self, x: Array, signal: TokenSignal) -> Array:
        return x * 1.0


class PassesNaN(Integrator):
    """Clips, but a clip lets NaN through."""

    def step(self, state: XState, signal: TokenSignal) -> Array:
        return self.clip(state.x + self.move(state, signal), signal)


class TimeLeads(Integrator):
    """A delay line with time on the leading axis: gathering lanes gathers steps instead."""

    def init(self, signal: TokenSignal) -> XState:
        return XState(ops.stack([super().init(signal).x] * 16))

    def update(self, state: XState, signal: TokenSignal) -> tuple[XState, Array]:
        x = self.step(XState(state.x[-1]), signal)
        return XState(ops.stack([*state.x[1:], x])), state.x[0] * 1.0

    def x_in(self, state: XState) -> Array:
        return state.x[-1]


class Pair(NamedTuple):
    x: Array
    before: Array


class DelaysByTuple(Integrator):
    """The natural delay line: each buffer moves up one place, so copying in order corrupts it."""

    def init(self, signal: TokenSignal) -> Pair:  # type: ignore[override]
        x = super().init(signal).x
        return Pair(x, x * 1.0)

    def update(self, state: Pair, signal: TokenSignal) -> Any:  # type: ignore[override]
        return Pair(self.step(XState(state.x), signal), state.x), state.before * 1.0


class KeepsTheSignal(Integrator):
    """Starts from the user's own buffer, which the server reuses for the next batch."""

    def init(self, signal: TokenSignal) -> XState:
        return XState(signal.x_user)

    def step(self, state: XState, signal: TokenSignal) -> Array:
        return super().step(XState(finite_or_zero(state.x)), signal)


class RoundsApart(Integrator):
    """Divides a scalar by lanes without broadcasting: numpy and torch round differently."""

    def move(self, state: XState, signal: TokenSignal) -> Array:
        stiffness = ops.maximum(signal.v_in, 0.0) + 0.05
        return (0.3 / stiffness) * 0.1 * (signal.target_nats - signal.h_in)


class PeeksAtTheLength(Aged):
    """Shortest remaining first, without saying that it knows the true length."""

    def value(self, signal: LoadSignal) -> Array:
        left = ops.maximum(finite_or_zero(signal.oracle_tokens), 0.0)
        return super().value(signal) + ops.divide(1.0, left + 1.0)
