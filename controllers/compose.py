"""Laws made of laws, by wrapping: filters on a command, gates, shadows.

Every state leaf keeps lanes on its leading axis, so lanes can be taken and put through any nesting.
The wrappers serve temperature laws and coverage laws alike; what differs, the command of a lane
that no law moves yet, is itself a law (``FixedTemperature`` or ``FixedCoverage``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

from controllers import ops
from controllers.core import Law, State, TemperatureLaw, TokenSignal, require, tree_map
from controllers.ops import Array
from controllers.temperature import FixedTemperature

USER = FixedTemperature()  # what a temperature lane does when no law moves it


class Filter(Protocol):
    """A pure, lane-wise map from commands to commands."""

    def init(self, signal: TokenSignal) -> State:
        """Return the state of fresh lanes shaped like ``signal``."""
        ...

    def update(self, state: State, signal: TokenSignal, command: Array) -> tuple[State, Array]:
        """Return the next state and the filtered command, both with lanes ``[B]`` leading."""
        ...


class RateLimitState(NamedTuple):
    """The last command let through, ``[B]``."""

    command: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """y+ = clip(u, y - rate, y + rate), y_0 the ``start`` law's; a non-finite u holds y."""

    rate: float
    start: Law = USER

    def __post_init__(self) -> None:
        require(math.isfinite(self.rate) and self.rate > 0, "rate must be positive", rate=self.rate)

    def init(self, signal: TokenSignal) -> RateLimitState:
        """Begin from the start law's command."""
        return RateLimitState(_first_command(self.start, signal))

    def update(
        self, state: RateLimitState, signal: TokenSignal, command: Array
    ) -> tuple[RateLimitState, Array]:
        """Follow ``command`` no faster than the rate."""
        last = state.command
        limited = ops.clip(ops.finite_or(command, last), last - self.rate, last + self.rate)
        return RateLimitState(limited), limited


class DelayState(NamedTuple):
    """Commands under way, oldest first, ``[B, steps]``."""

    line: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """y_t = u_{t - steps}; until then ``start``'s command. Delays the actuator, not the sensor."""

    steps: int = 1
    start: Law = USER

    def __post_init__(self) -> None:
        require(self.steps >= 1, "a delay takes one step or more", steps=self.steps)

    def init(self, signal: TokenSignal) -> DelayState:
        """Fill the line with the start law's command."""
        return DelayState(ops.stack([_first_command(self.start, signal)] * self.steps).T)

    def update(
        self, state: DelayState, signal: TokenSignal, command: Array
    ) -> tuple[DelayState, Array]:
        """Push ``command``, emit the oldest."""
        columns = [state.line[:, i] for i in range(self.steps)]
        oldest = columns[0] * 1.0  # a copy: a view would change when the shell reuses the buffer
        return DelayState(ops.stack([*columns[1:], command]).T), oldest


class ChainState(NamedTuple):
    """The law's state and one state per filter."""

    law: State
    filters: tuple[State, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A law whose command passes through filters, first to last; ``x_in`` is the law's own."""

    law: Law
    filters: tuple[Filter, ...]

    def __post_init__(self) -> None:
        require(len(self.filters) >= 1, "a chain has one filter or more", filters=self.filters)

    def init(self, signal: TokenSignal) -> ChainState:
        """Start the law and every filter."""
        return ChainState(self.law.init(signal), tuple(f.init(signal) for f in self.filters))

    def update(self, state: ChainState, signal: TokenSignal) -> tuple[ChainState, Array]:
        """Run the law, then the filters in order."""
        law, command = self.law.update(state.law, signal)
        filters: list[State] = []
        for stage, before in zip(self.filters, state.filters, strict=True):
            after, command = stage.update(before, signal, command)
            filters.append(after)
        return ChainState(law, tuple(filters)), command

    def x_in(self, state: ChainState) -> Array:
        """Return the ln T at which the law wants its entropy, which a filter does not change."""
        return _x_in(self.law, state.law)


def delayed(law: Law, steps: int = 1, start: Law = USER) -> Chain:
    """Wrap ``law`` so that its command applies ``steps`` steps later."""
    return Chain(law=law, filters=(Delay(steps=steps, start=start),))


def rate_limited(law: Law, rate: float, start: Law = USER) -> Chain:
    """Wrap ``law`` so that its command moves by at most ``rate`` a step."""
    return Chain(law=law, filters=(RateLimit(rate=rate, start=start),))


class GatedState(NamedTuple):
    """The states of the law and of its fallback."""

    law: State
    fallback: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """The law's command where ``enabled`` > 0, the fallback's elsewhere; there the state holds.

    The fallback runs on every lane, so switching a lane off is immediate, and back on resumes where
    it stopped. For coverage, the fallback is ``FixedCoverage(coverage=1.0)``.
    """

    law: Law
    fallback: Law = USER

    def init(self, signal: TokenSignal) -> GatedState:
        """Start both."""
        return GatedState(self.law.init(signal), self.fallback.init(signal))

    def update(self, state: GatedState, signal: TokenSignal) -> tuple[GatedState, Array]:
        """Run both, choose lane by lane."""
        on = signal.enabled > 0.0
        law, command = self.law.update(state.law, signal)
        fallback, resting = self.fallback.update(state.fallback, signal)
        held = tree_map(lambda new, old: ops.where(_over(on, new), new, old), law, state.law)
        return GatedState(held, fallback), ops.where(on, command, resting)

    def x_in(self, state: GatedState) -> Array:
        """Return where the gated law wants its entropy, on every lane."""
        return _x_in(self.law, state.law)


class ShadowState(NamedTuple):
    """The states of both laws and the command that was not applied, ``[B]``."""

    applied: State
    observed: State
    command: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Apply one law's command, run another alongside and keep its command for the log.

    The one sensor reads at the *observed* law's ``x_in``, so ``applied`` must not use ``h_in`` or
    ``v_in``; ``FixedTemperature`` does not. What is observed is the law on logits it did not steer.
    """

    applied: Law
    observed: Law

    def init(self, signal: TokenSignal) -> ShadowState:
        """Start both; before the first step the command not applied is the applied law's."""
        applied = self.applied.init(signal)
        command = _first_command(self.applied, signal)
        return ShadowState(applied, self.observed.init(signal), command)

    def update(self, state: ShadowState, signal: TokenSignal) -> tuple[ShadowState, Array]:
        """Run both; return the applied law's command."""
        applied, command = self.applied.update(state.applied, signal)
        observed, shadow = self.observed.update(state.observed, signal)
        # A copy: the command may be a leaf of the law's own state, and leaves must not alias.
        return ShadowState(applied, observed, shadow * 1.0), command

    def x_in(self, state: ShadowState) -> Array:
        """Return the observed law's own, so that it sees what it would see in charge."""
        return _x_in(self.observed, state.observed)

    def shadow_command(self, state: ShadowState) -> Array:
        """Return the observed law's last command, ``[B]``, which was not applied."""
        return state.command


def _first_command(law: Law, signal: TokenSignal) -> Array:
    return law.update(law.init(signal), signal)[1]


def _x_in(law: Law, state: State) -> Array:
    # Only temperature laws are ever asked; a check here would cost every decode step.
    return cast("TemperatureLaw", law).x_in(state)


def _over(lanes: Array, leaf: Array) -> Array:
    return lanes if leaf.ndim == 1 else lanes.reshape(-1, *[1] * (leaf.ndim - 1))
