"""Learning to rank, with its starvation guard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from controllers import ops
from controllers.core import LoadSignal, require
from controllers.ops import Array
from controllers.priority import Stateless

GUARD_STEPS = 200.0  # idle iterations before the guard fires ("starv200")
GUARD_PERIOD = 10  # iterations of service it grants ("period10"): the preset's quantum_tokens
_CLASS = 2.0**23  # between promoted and others; with ranks below it every key is exact in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedRank:
    """pi = guard - rank: by (promoted, shortest predicted), the promoted before all others.

    Fu et al., "Efficient LLM Scheduling by Learning to Rank" (arXiv:2408.15792), as released in
    hao-ai-lab/vllm-ltr under "starv200-period10": a request idle for 200 iterations is put first
    until it has run for 10. ``wait_steps`` restarts after a full quantum of service, so under a
    quantum of 10 tokens (preset ``ltr``) the guard lasts exactly these 10, without any state.

    Differs: the published rank is the score of a trained model for the whole output; ours is
    ``predicted_tokens`` less what has come. Residents are re-ranked at the end of a quantum rather
    than at every iteration. Idle there counts iterations not run; here all plans since the last
    full quantum. The guard does not outrank a promoted one with a shorter prediction, here as
    there. NaN policy: a non-finite prediction goes last, a non-finite wait promotes nobody.
    """

    reserves: ClassVar[bool] = False
    oracle: ClassVar[bool] = False

    guard_steps: float = GUARD_STEPS  # plans

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.guard_steps) and self.guard_steps > 0,
            "guard_steps must be positive",
            guard_steps=self.guard_steps,
        )

    def init(self, signal: LoadSignal) -> Stateless:
        """Return the empty state."""
        return ()

    def update(self, state: Stateless, signal: LoadSignal) -> tuple[Stateless, Array]:
        """Return the key: in [0, 2^23) if promoted, in [-2^23, 0) if not."""
        last = ops.full_like(signal.predicted_tokens, _CLASS)
        rank = ops.clip(ops.finite_or(signal.predicted_tokens, last), 1.0, _CLASS)
        none = ops.full_like(signal.wait_steps, 0.0)
        promoted = ops.finite_or(signal.wait_steps, none) >= self.guard_steps
        return state, ops.where(promoted, last, none) - rank
