"""Samplers that each break one rule of the samplers' contract on purpose."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from controllers import ops
from controllers.core import TokenSignal
from controllers.ops import Array
from controllers.samplers import Pipeline, Shaped, rows
from controllers.samplers.core import NoState, select, unheated
from controllers.samplers.pipeline import PipelineMemo

FLOOR = math.log(0.05)


class Count(NamedTuple):
    """Tokens kept, ``[B]``."""

    tokens: Array


class Counted:
    """Sound: cuts below a floor that sinks a little with every token kept, for twenty tokens."""

    def init(self, signal: TokenSignal) -> Count:
        return Count(ops.full_like(signal.x_user, 0.0))

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        sunk = 0.05 * ops.minimum(state.tokens, 20.0)
        return rows.largest(logits) + FLOOR - sunk

    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        edge = self.edge(state, logits, signal)
        return unheated(rows.keep_where(logits >= edge[:, None], logits))

    def accept(self, state: Count, shaped: Shaped, token: Array) -> Count:
        return select(token >= 0, Count(state.tokens + 1.0), state)


class TakesNoSignal(Counted):
    def shape(self, state: Count, logits: Array) -> Any:  # type: ignore[override]
        return unheated(logits)


class ReturnsTheRow(Counted):
    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Any:
        return logits


class NeverAccepts:
    """Lacks a method."""

    def init(self, signal: TokenSignal) -> NoState:
        return NoState()

    def shape(self, state: NoState, logits: Array, signal: TokenSignal) -> Shaped:
        return unheated(logits)


class LeaksFloat64(Counted):
    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        shaped = super().shape(state, logits, signal)
        if ops.is_torch(logits):
            return shaped._replace(logits=shaped.logits.double())
        return shaped._replace(logits=shaped.logits.astype(np.float64))


class MovesInShape(Counted):
    """Counts the rows it shapes, in place, and not the tokens that were kept."""

    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        shaped = super().shape(state, logits, signal)
        tokens = state.tokens
        tokens += 1.0
        return shaped

    def accept(self, state: Count, shaped: Shaped, token: Array) -> Count:
        return Count(state.tokens * 1.0)


class MasksInPlace(Counted):
    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        edge = self.edge(state, logits, signal)
        logits[logits < edge[:, None]] = -math.inf
        return unheated(logits)


@dataclass(frozen=True)
class CountsInAnAttribute(Counted):
    calls: list[int] = field(default_factory=list)

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        self.calls.append(1)
        return super().edge(state, logits, signal) - 0.3 * (len(self.calls) % 7)


@dataclass(frozen=True)
class RemembersThePosition(Counted):
    """Rows shaped twice running look pure, but which positions it saw is not in the state."""

    seen: dict[int, float] = field(default_factory=dict)

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        position = int(signal.position.max())
        last = self.seen.get(position + 1, 0.0)
        self.seen[position] = 1.0
        return super().edge(state, logits, signal) - last


class SharesTheMaximum(Counted):
    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        most = rows.largest(logits)
        return super().edge(state, logits, signal) - 1e-4 * (most.max() - most)


class FollowsItsSlot(Counted):
    """Cuts deeper in later lanes of the batch."""

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        slot = rows.ranks(logits[:, 0])
        return super().edge(state, logits, signal) - 0.5 * slot


class ForgetsToHold(Counted):
    """Counts a rejected token like any other."""

    def accept(self, state: Count, shaped: Shaped, token: Array) -> Count:
        return Count(state.tokens + 1.0)


class HoldsTheBatch(Counted):
    """Moves no lane where any lane kept nothing."""

    def accept(self, state: Count, shaped: Shaped, token: Array) -> Count:
        return select((token >= 0).all() & (token >= -1), Count(state.tokens + 1.0), state)


class TimeLeads(Counted):
    """Keeps one count for the batch, and so cannot give a lane away."""

    def init(self, signal: TokenSignal) -> Count:
        return Count(ops.full_like(signal.x_user[:1], 0.0))

    def accept(self, state: Count, shaped: Shaped, token: Array) -> Count:
        return state


class DropsTheMask(Counted):
    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        return unheated(ops.maximum(logits, rows.largest(logits)[:, None] - 30.0))


class CutsEverything(Counted):
    """Strictly above the floor's own maximum: rows that are flat lose every token."""

    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        left = rows.finite(logits)
        mean = rows.total(ops.where(left, logits, 0.0 * logits[:, :1] + 0.0)) / rows.total(
            ops.where(left, ops.full_like(logits, 1.0), ops.full_like(logits, 0.0))
        )
        return unheated(rows.keep_where(logits > mean[:, None], logits))


class NaNOnOneToken(Counted):
    """Divides by a spread that is nil where one token is left."""

    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        z = logits - rows.largest(logits)[:, None]
        left = rows.finite(z)
        nil = ops.full_like(z, 0.0)
        spread = rows.largest(ops.where(left, -z, nil))
        scaled = z / spread[:, None]
        x = rows.log(spread)
        return Shaped(scaled, x, ())


class CutsTheBest(Counted):
    """Excludes the top choice, as some do for variety, wherever there is another."""

    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        top = rows.largest(logits)[:, None]
        count = rows.total(ops.where(rows.finite(logits), logits * 0.0 + 1.0, logits * 0.0 + 0.0))
        best = (logits == top) & (count > 1.0)[:, None]
        flat = rows.smallest(ops.where(rows.finite(logits), logits, top)) == top[:, 0]
        return unheated(rows.keep_where(~best | flat[:, None], logits))


class HidesItsHeat(Counted):
    """Heats by a half and reports ln T = 0."""

    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        return unheated(rows.tempered(logits, ops.full_like(logits[:, 0], 0.4)))


class HeatsPastTheCap(Counted):
    def shape(self, state: Count, logits: Array, signal: TokenSignal) -> Shaped:
        x = ops.finite_or(signal.x_user, ops.full_like(signal.x_user, 0.0)) + 0.2
        return Shaped(rows.tempered(logits, x), x, ())


class TrustsTheSetPoint(Counted):
    """A set-point that is no number ends in the edge, and every token is cut."""

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        return super().edge(state, logits, signal) - 0.0 * signal.target_nats


class FollowsTheSetPoint(Counted):
    """Raises the floor by the set-point without a limit: past the best token where it is large."""

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        target = ops.finite_or(signal.target_nats, ops.full_like(signal.target_nats, 0.0))
        return super().edge(state, logits, signal) + 0.1 * target


class LearnsFromAnyToken(Counted):
    """Adds the logit of a token kept: -inf where the caller forced a masked one."""

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        return rows.largest(logits) + FLOOR - 0.0 * state.tokens

    def accept(self, state: Count, shaped: Shaped, token: Array) -> Count:
        return select(token >= 0, Count(rows.take_along(shaped.logits, token)), state)


class RoundsApart(Counted):
    """Cuts a little deeper in torch."""

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        return super().edge(state, logits, signal) - (0.5 if ops.is_torch(logits) else 0.0)


class ReadsAValue(Counted):
    """Branches on the hottest row of the batch, to the same result."""

    def edge(self, state: Count, logits: Array, signal: TokenSignal) -> Array:
        if float(rows.largest(logits).max()) > 0.0:
            return super().edge(state, logits, signal)
        return super().edge(state, logits, signal) * 1.0


class ControlsEveryLane(Pipeline):
    """Forgets which lanes are switched off."""

    def shape(self, state: Any, logits: Array, signal: TokenSignal) -> Shaped:
        every = ops.full_like(signal.enabled, 1.0)
        shaped = super().shape(state, logits, signal._replace(enabled=every))
        return shaped._replace(memo=shaped.memo._replace(enabled=signal.enabled))


ALWAYS_ON = ControlsEveryLane(stages=(Counted(),))


class LearnsWhileOff(Pipeline):
    """Samples switched-off lanes at the user's ln T, and lets their states move."""

    def accept(self, state: Any, shaped: Shaped, token: Array) -> Any:
        memo: PipelineMemo = shaped.memo
        every = memo._replace(enabled=ops.full_like(memo.enabled, 1.0))
        return super().accept(state, shaped._replace(memo=every), token)


LEARNS_WHILE_OFF = LearnsWhileOff(stages=(Counted(),))
