"""Defects out of first sight: late, in large batches, behind the cap, by what is inherited."""

from __future__ import annotations

from typing import NamedTuple

from controllers import ops
from controllers.core import LoadSignal, TokenSignal
from controllers.ops import Array
from controllers.serving.request import Sequence
from controllers.serving.scheduler import Scheduler
from controllers.temperature import EntropyFeedback, TemperatureState
from tests.verify.planted.sound import Aged, Integrator, XState, finite_or_zero


class StrongFromToken400(Integrator):
    """Its gain is scheduled on the position, and wrong where no short run gets."""

    def move(self, state: XState, signal: TokenSignal) -> Array:
        late = ops.where(signal.position > 400.0, 8.0 * signal.enabled, signal.enabled)
        return late * super().move(state, signal)


class Counted(NamedTuple):
    x: Array
    steps: Array


class LostAfter100(Integrator):
    """Weighs by a count that saturates: 0/0 from the hundredth step on."""

    def init(self, signal: TokenSignal) -> Counted:  # type: ignore[override]
        x = super().init(signal).x
        return Counted(x, ops.full_like(x, 0.0))

    def update(self, state: Counted, signal: TokenSignal) -> tuple[Counted, Array]:  # type: ignore[override]
        steps = ops.minimum(state.steps + 1.0, 100.0)
        weight = ops.divide(100.0 - steps, 100.0 - steps)
        x = self.step(XState(state.x), signal) * weight
        return Counted(x, steps), x


class MovesSixteenLanes(Integrator):
    """Lanes after the sixteenth stay where they are."""

    def move(self, state: XState, signal: TokenSignal) -> Array:
        gain = ops.full_like(signal.h_in, 1.0)
        gain[16:] = 0.0
        return gain * super().move(state, signal)


class CapsTheCommandOnly(Integrator):
    """Its state runs on above the user's cap, and must come all the way back."""

    def step(self, state: XState, signal: TokenSignal) -> Array:
        moved = state.x + finite_or_zero(self.move(state, signal))
        return ops.clip(moved, self.x_min, self.x_max)

    def update(self, state: XState, signal: TokenSignal) -> tuple[XState, Array]:
        x = self.step(state, signal)
        return XState(x), self.clip(x, signal) * 1.0


class InheritsItsClaim(Aged):
    """Claims ``max_wait_s`` through its parent and does not age."""

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        return state, ops.clip(self.value(signal), 0.0, self.pi_max)


class ChangesOurs(EntropyFeedback):
    """Ours by its gains, and moves eight times as far."""

    def update(
        self, state: TemperatureState, signal: TokenSignal
    ) -> tuple[TemperatureState, Array]:
        _, x = super().update(state, signal)
        moved = ops.clip(state.x + 8.0 * (x - state.x), self.x_min, self.x_max)
        cap = ops.where(signal.x_cap <= self.x_max, signal.x_cap, ops.full_like(x, self.x_max))
        x = ops.minimum(moved, ops.maximum(cap, -20.0))
        return TemperatureState(x), x


class KeepsTwoPages(Scheduler):
    """Keeps pages free for growth; the longest requests never fit beside them."""

    def _fits(self, sequence: Sequence) -> bool:
        spare = self._pages_to_start(sequence) + 2 <= self.pool.n_free
        return spare and super()._fits(sequence)


class LeaksOnTheThird(Scheduler):
    """Loses a page when a request is taken out for the third time."""

    def _free_pages(self, sequence: Sequence) -> None:
        if sequence.preemptions >= 2 and len(sequence.pages) > 1:
            sequence.pages = sequence.pages[:-1]
        super()._free_pages(sequence)
