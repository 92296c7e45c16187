"""Coverage laws: the share of attention mass to keep, float32 ``[B]`` in (0, 1]; 1 is dense.

They read H at T_cal, one step late, never H at the applied T, so the micro law cannot disturb them.
Recorded traces hold coverages up to .99, and dense: a command is at most .99 or exactly 1. NaN
policy: a non-finite entropy holds the coverage. Masked lanes (``enabled`` = 0) read everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from controllers import ops
from controllers.core import TokenSignal, require
from controllers.ops import Array

DENSE = 1.0
HIGHEST_SPARSE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedCoverage:
    """p = coverage: no feedback; 1 is the dense baseline."""

    coverage: float = DENSE

    def __post_init__(self) -> None:
        _require_coverage(coverage=self.coverage)

    def init(self, signal: TokenSignal) -> tuple[()]:
        """Return the empty state."""
        return ()

    def update(self, state: tuple[()], signal: TokenSignal) -> tuple[tuple[()], Array]:
        """Return the constant; 1 on masked lanes."""
        return state, _masked(ops.full_like(signal.h_cal, self.coverage), signal)


class EntropyCoverageState(NamedTuple):
    """What a lane keeps, and how long it has kept it."""

    coverage: Array  # [B]
    age: Array  # [B], steps since the last change, saturating at dwell


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyCoverage:
    """p = p_min + (p_max - p_min) ramp(H_up),  H_up = max(H + margin, h_min); rate limit, dwell.

    Non-decreasing in H: an unsure model reads more pages. The margin errs upward, where the paper's
    floor H - eps prunes more the less it knows. Open loop to first order (pruning moves H at T_cal
    by its residual only), so any gain is stable with dense coverage; dwell and rate bound chatter.
    """

    p_min: float = 0.95
    p_max: float = 0.99
    margin: float = 0.1  # nats, error bound of the entropy estimate
    h_min: float = 0.1  # nats, never assume less uncertainty than this
    h_low: float = 0.2  # nats, H_up at or below which p = p_min
    h_high: float = 3.0  # nats, H_up at or above which p = p_max
    dwell: int = 8  # steps between changes
    rate: float = 0.02  # largest change

    def __post_init__(self) -> None:
        _require_coverage(p_min=self.p_min, p_max=self.p_max)
        _require_ramp(self.p_min, self.p_max, self.h_low, self.h_high)
        for name in ("margin", "h_min"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"{name} must be >= 0", **{name: value})
        require(self.dwell >= 1, "dwell must be one step or more", dwell=self.dwell)
        require(0.0 < self.rate <= 1.0, "rate must lie in (0, 1]", rate=self.rate)

    def init(self, signal: TokenSignal) -> EntropyCoverageState:
        """Start at p_max, the careful end, free to change at once."""
        full = ops.full_like(signal.h_cal, self.p_max)
        return EntropyCoverageState(full, ops.full_like(signal.h_cal, float(self.dwell)))

    def update(
        self, state: EntropyCoverageState, signal: TokenSignal
    ) -> tuple[EntropyCoverageState, Array]:
        """Move toward the ramp, once per dwell at most; masked lanes hold and get 1."""
        upper = ops.maximum(signal.h_cal + self.margin, self.h_min)
        target = _ramp(upper, self.p_min, self.p_max, self.h_low, self.h_high)
        target = _where_finite(signal.h_cal, target, state.coverage)
        target = ops.clip(target, state.coverage - self.rate, state.coverage + self.rate)
        age = ops.minimum(state.age + 1.0, float(self.dwell))
        coverage = ops.where(age >= self.dwell, target, state.coverage)
        age = ops.where(coverage == state.coverage, age, ops.full_like(age, 0.0))
        on = signal.enabled > 0.0
        coverage = ops.where(on, coverage, state.coverage)
        age = ops.where(on, age, state.age)
        return EntropyCoverageState(coverage, age), _recorded(coverage, on)


class SeedCoverageState(NamedTuple):
    """The coverage held while the entropy is not finite, ``[B]``."""

    coverage: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedCoverage:
    """p = p_min + (p_max - p_min) ramp(H - margin): the paper's floor of section 3.3 as printed.

    The less sure the estimate (the larger the margin), the more it prunes: the defect this law
    keeps on purpose. The paper thresholds I_b at an absolute theta <= theta_max(H_floor) and
    publishes no values for it; here the same floor drives coverage, without dwell or rate limit.
    """

    p_min: float = 0.8
    p_max: float = 0.99
    margin: float = 0.1  # nats, the paper's eps_H; no value published
    h_low: float = 0.2  # nats
    h_high: float = 3.0  # nats

    def __post_init__(self) -> None:
        _require_coverage(p_min=self.p_min, p_max=self.p_max)
        _require_ramp(self.p_min, self.p_max, self.h_low, self.h_high)
        require(
            math.isfinite(self.margin) and self.margin >= 0.0,
            "margin must be >= 0",
            margin=self.margin,
        )

    def init(self, signal: TokenSignal) -> SeedCoverageState:
        """Start at p_max."""
        return SeedCoverageState(ops.full_like(signal.h_cal, self.p_max))

    def update(
        self, state: SeedCoverageState, signal: TokenSignal
    ) -> tuple[SeedCoverageState, Array]:
        """Jump to the ramp of the floored entropy; masked lanes hold and get 1."""
        floor = signal.h_cal - self.margin
        target = _ramp(floor, self.p_min, self.p_max, self.h_low, self.h_high)
        target = _where_finite(signal.h_cal, target, state.coverage)
        on = signal.enabled > 0.0
        coverage = ops.where(on, target, state.coverage)
        return SeedCoverageState(coverage), _recorded(coverage, on)


def _ramp(h: Array, p_min: float, p_max: float, h_low: float, h_high: float) -> Array:
    share = ops.clip((h - h_low) * (1.0 / (h_high - h_low)), 0.0, 1.0)
    # Rounding of the sum may pass p_max by an ulp, which would pass .99 too.
    return ops.minimum(p_min + (p_max - p_min) * share, p_max)


def _where_finite(h: Array, target: Array, held: Array) -> Array:
    # On h, not on the target: an infinite entropy has a finite place on the ramp.
    return ops.where(ops.is_finite(h), target, held)


def _recorded(coverage: Array, on: Array) -> Array:
    """Return a coverage that traces hold; 1 on masked lanes."""
    dense = ops.full_like(coverage, DENSE)
    sparse = on & ~(coverage >= dense)
    return ops.where(sparse, ops.minimum(coverage, HIGHEST_SPARSE), dense)


def _masked(coverage: Array, signal: TokenSignal) -> Array:
    return ops.where(signal.enabled > 0.0, coverage, ops.full_like(coverage, DENSE))


def _require_coverage(**shares: float) -> None:
    for name, value in shares.items():
        require(
            0.0 < value <= HIGHEST_SPARSE or value == DENSE,
            f"{name} must lie in (0, {HIGHEST_SPARSE}] or be exactly 1",
            **{name: value},
        )


def _require_ramp(p_min: float, p_max: float, h_low: float, h_high: float) -> None:
    require(p_min <= p_max, "p_min must not exceed p_max", p_min=p_min, p_max=p_max)
    require(
        math.isfinite(h_low) and math.isfinite(h_high) and h_low < h_high,
        "the ramp needs finite h_low < h_high",
        h_low=h_low,
        h_high=h_high,
    )
