"""Skip-join multi-level feedback queue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from controllers import ops
from controllers.core import LoadSignal, require
from controllers.ops import Array

MAX_LEVELS = 30  # 2^29 quanta of 10 ms are 62 days


class MlfqState(NamedTuple):
    """Where a request queues, float32 ``[B]``."""

    level: Array  # 0 is served first
    start_s: Array  # attained service when it entered this level, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipJoinMlfq:
    """pi = -level: level i has a quantum of quantum_s * 2^i; a request sinks as it is served.

    It joins at the first level whose quantum covers its prefill, sinks a level each time the
    quantum there is used up, and goes back to the top after waiting ``promote_after_s``. Service
    is modelled seconds as if alone, so that the level does not depend on the batch. Feedback:
    attained service lowers the rank. The wait bounds starvation only as far as the top level is
    not flooded by newcomers.

    FastServe (Wu et al., arXiv:2305.05920; LLMServe/FastServe): 10 ms, doubling, 3 s. Differs:
    there the wait is looked at every 1000 iterations and demotion after every iteration, by at
    most one level, with the overrun forgiven; here both at each decision, over as many levels as
    the service covers, and the overrun counts. Levels there are unbounded. There a displaced
    request moves its KV to host memory ahead of time; here it computes it again. Its wait there is
    since it last ran, here since its last full quantum. Within a level, arrival decides; there a
    displaced or promoted request goes to the front. NaN policy: non-finite service or prefill
    counts as none, a non-finite wait promotes nobody.
    """

    reserves: ClassVar[bool] = False
    oracle: ClassVar[bool] = False

    quantum_s: float = 0.010  # of level 0
    levels: int = 16  # the last quantum is 328 s, and nobody sinks below
    promote_after_s: float = 3.0

    def __post_init__(self) -> None:
        for name in ("quantum_s", "promote_after_s"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"{name} must be positive", **{name: value})
        require(
            2 <= self.levels <= MAX_LEVELS, f"levels must lie in [2, {MAX_LEVELS}]", got=self.levels
        )

    def init(self, signal: LoadSignal) -> MlfqState:
        """Join at the first level whose quantum covers the prefill."""
        level = ops.full_like(signal.prefill_s, 0.0)
        prefill_s = ops.finite_or(signal.prefill_s, level)
        for quantum_s in self._quanta():
            level = level + ops.where(
                prefill_s > quantum_s, ops.full_like(level, 1.0), ops.full_like(level, 0.0)
            )
        served_s = ops.finite_or(signal.served_s, ops.full_like(level, 0.0))
        return MlfqState(level=level, start_s=served_s)

    def update(self, state: MlfqState, signal: LoadSignal) -> tuple[MlfqState, Array]:
        """Return minus the level, in [-(levels - 1), 0]."""
        level, start_s = state
        top = ops.full_like(level, 0.0)
        served_s = ops.finite_or(signal.served_s, start_s)
        for i, quantum_s in enumerate(self._quanta()):  # upwards, so that one may sink far
            used_s = ops.where(level == i, served_s - start_s, top)
            sinks = used_s > quantum_s
            level = ops.where(sinks, level + 1.0, level)
            start_s = ops.where(sinks, start_s + quantum_s, start_s)
        waited = ops.finite_or(signal.wait_s, top) >= self.promote_after_s
        level = ops.where(waited, top, level)
        return MlfqState(level, ops.where(waited, served_s, start_s)), -level

    def _quanta(self) -> list[float]:
        return [self.quantum_s * 2.0**i for i in range(self.levels - 1)]
