"""The user's own rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controllers import ops
from controllers.core import LoadSignal
from controllers.ops import Array
from controllers.priority import Stateless

LAST = 2.0**24  # whole numbers up to here are exact in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPriority:
    """pi = -user_priority: smaller ranks first, ties by arrival. No feedback; the low ranks starve.

    vLLM's ``--scheduling-policy priority``, which orders by (priority, arrival) and, when KV pages
    run out, preempts the last in that order. Same here. NaN policy: a non-finite rank goes last.
    """

    reserves: ClassVar[bool] = False
    oracle: ClassVar[bool] = False

    def init(self, signal: LoadSignal) -> Stateless:
        """Return the empty state."""
        return ()

    def update(self, state: Stateless, signal: LoadSignal) -> tuple[Stateless, Array]:
        """Return minus the rank, within +-2^24."""
        return state, -bounded(signal.user_priority, -LAST)


def bounded(x: Array, least: float) -> Array:
    """Clip whole numbers to ``[least, 2^24]``, where float32 is exact; non-finite ones go last."""
    return ops.clip(ops.finite_or(x, ops.full_like(x, LAST)), least, LAST)
