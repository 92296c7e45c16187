"""Plants: what the logits of one lane answer to a temperature, H(x) and V(x) at x = ln T, float64.

Every plant is a softmax response, so dH/dx = V lies in [0, N_n]; that is all the theory uses. Lanes
lie on the last axis and never meet. A larger logit scale e^d moves a plant along x by d: a caller
that lets the equilibrium drift asks for ``response(x - d)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from controllers.core import require
from reports.verify.hashing import uniforms
from simulator.curves import CurveTable
from simulator.defaults import TRACE

RANDOM_OUTCOMES = 64
ANGLE = 2.0 * math.pi
FLAT = 1e-6  # nats^2; an interpolated curve this flat may also fall, which no softmax does
QUINTIC_SAMPLES = 33


class Plant(Protocol):
    """The entropy response of a batch of lanes to temperature."""

    @property
    def lanes(self) -> int:
        """Return the number of lanes."""
        ...

    def response(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return H (nats) and V (nats^2) at ln T ``x`` ``[B]``, both ``[B]``."""
        ...

    def most_nats(self) -> np.ndarray:
        """Return ln n, the largest legal set-point, ``[B]``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Outcomes in a few levels: level i holds ``count[i]`` outcomes of logit ``z[i]``, ``[L, B]``.

    p of one outcome is proportional to exp(z_i e^{-x}). A level without outcomes has count 0.
    """

    z: np.ndarray
    count: np.ndarray

    def __post_init__(self) -> None:
        require(self.z.shape == self.count.shape, "one count per level", z=self.z.shape)
        require(bool(np.all(self.count >= 0)), "counts must be >= 0", count=self.count.min())

    @property
    def lanes(self) -> int:
        """Return the number of lanes."""
        return self.z.shape[1]

    def response(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return H and V at ln T ``x`` ``[B]``: the closed form over levels."""
        top = np.where(self.count > 0, self.z, -np.inf).max(axis=0)
        gap = np.minimum(self.z - top, 0.0) * np.exp(-x)  # an empty level may lie above the top
        mass = self.count * np.exp(gap)
        total = mass.sum(axis=0)
        mean = (mass * gap).sum(axis=0) / total
        spread = gap - mean
        return np.log(total) - mean, (mass * spread * spread).sum(axis=0) / total

    def most_nats(self) -> np.ndarray:
        """Return ln n, ``[B]``."""
        return np.log(self.count.sum(axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Explicit logits ``z`` ``[B, n]``, one outcome each."""

    z: np.ndarray

    @property
    def lanes(self) -> int:
        """Return the number of lanes."""
        return self.z.shape[0]

    def response(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return H and V at ln T ``x`` ``[B]``."""
        gap = (self.z - self.z.max(axis=1, keepdims=True)) * np.exp(-x)[:, None]
        mass = np.exp(gap)
        total = mass.sum(axis=1)
        mean = np.einsum("bn,bn->b", mass, gap) / total
        spread = gap - mean[:, None]
        v = np.einsum("bn,bn,bn->b", mass, spread, spread) / total
        return np.log(total) - mean, v

    def most_nats(self) -> np.ndarray:
        """Return ln n, ``[B]``."""
        return np.full(self.lanes, math.log(self.z.shape[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Rows of a recorded trace, read through its interpolated curves.

    Nothing is extrapolated: outside the recorded temperatures H stays at the end value and V is 0,
    which keeps every secant slope of H in [0, N_n].
    """

    curves: CurveTable
    rows: np.ndarray  # int [B]
    outcomes: int

    @property
    def lanes(self) -> int:
        """Return the number of lanes."""
        return len(self.rows)

    def response(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return H and V at ln T ``x`` ``[B]``."""
        low, high = self.curves.x_nodes[0], self.curves.x_nodes[-1]
        lost = np.isnan(x)  # a law's own failure, which the curves would refuse
        inside = np.where(lost, low, np.clip(x, low, high))
        h, v = self.curves.entropy(self.rows, inside)
        return np.where(lost, x, h), np.where(lost, x, np.where(inside == x, v, 0.0))

    def most_nats(self) -> np.ndarray:
        """Return ln n, ``[B]``."""
        return np.full(self.lanes, math.log(self.outcomes))


def peak_levels(n: np.ndarray, x_peak: np.ndarray) -> Levels:
    """Return the distributions over ``n`` outcomes whose varentropy is N_n at ln T ``x_peak``.

    One outcome of mass 1 - r against n - 1 of mass r in all (README, "Largest varentropy"): its
    logit is ahead by u + ln(n - 1) at T = 1, where tanh(u/2)(u + ln(n - 1)) = 2. ``[B]``, n >= 2.
    """
    a = np.log(np.asarray(n, np.float64) - 1.0)
    low, high = np.zeros_like(a), np.full_like(a, 4.0)
    for _ in range(60):
        u = 0.5 * (low + high)
        below = np.tanh(0.5 * u) * (u + a) < 2.0
        low, high = np.where(below, u, low), np.where(below, high, u)
    ahead = (high + a) * np.exp(x_peak)
    count = np.stack([np.ones_like(a), np.asarray(n, np.float64) - 1.0])
    return Levels(z=np.stack([ahead, np.zeros_like(a)]), count=count)


def share_out(n: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Split ``n`` ``[B]`` outcomes into whole levels ``[k + 2, B]``: one, powers of the rest, rest.

    Each exponent in [0, 1], ``[k, B]``, takes floor(rest^exponent) of what is left.
    """
    rest = np.asarray(n, np.float64) - 1.0
    counts = [np.ones_like(rest)]
    for exponent in exponents:
        # 1e-9: a power meant to be whole must not fall below itself by rounding
        taken = np.where(rest > 0, np.floor(np.maximum(rest, 1.0) ** exponent + 1e-9), 0.0)
        counts.append(np.minimum(taken, rest))
        rest = rest - counts[-1]
    return np.stack([*counts, rest])


def random_rows(seed: np.ndarray, spread: np.ndarray) -> Rows:
    """Return Gaussian logits ``[B, 64]`` of standard deviation ``spread``; a seed fixes its row."""
    u = uniforms(seed, 2 * RANDOM_OUTCOMES)
    radius = np.sqrt(-2.0 * np.log1p(-u[:, :RANDOM_OUTCOMES]))
    z = radius * np.cos(ANGLE * u[:, RANDOM_OUTCOMES:])
    return Rows(z=z * np.asarray(spread, np.float64)[:, None])


def recorded_rows(seed: np.ndarray) -> Recorded:
    """Return rows of the committed trace, one per seed: the seed counts through its usable rows."""
    curves, usable, outcomes = _recording()
    return Recorded(curves=curves, rows=usable[np.asarray(seed) % len(usable)], outcomes=outcomes)


@cache  # reading the trace takes half a second, and it never changes
def _recording() -> tuple[CurveTable, np.ndarray, int]:
    from simulator.model import TraceModel
    from traces.store import read_trace

    model = TraceModel.of(read_trace(TRACE))
    outcomes = max(model.tokens) + 1  # the trace names no vocabulary; its largest id bounds it
    return model.curves, _rising(model.curves), outcomes


def _rising(curves: CurveTable) -> np.ndarray:
    """Return the recorded rows whose curves rise everywhere, int; about a fifth do not."""
    x, h, v = curves.x_nodes, curves.nodes[..., 0], curves.nodes[..., 1]
    secant = np.diff(h, axis=1) / np.diff(x)
    # The slope of a cubic segment at s in [0, 1] is a s^2 + b s + v_left.
    a = 3.0 * (v[:, :-1] + v[:, 1:] - 2.0 * secant)
    b = 2.0 * (3.0 * secant - 2.0 * v[:, :-1] - v[:, 1:])
    bend = np.clip(np.divide(-b, 2.0 * a, out=np.zeros_like(a), where=a > 0), 0.0, 1.0)
    lowest = np.minimum(np.minimum(v[:, :-1], v[:, 1:]), (a * bend + b) * bend + v[:, :-1])
    left = np.flatnonzero(np.all(lowest[:, 1:] > FLAT, axis=1))
    for at in np.linspace(x[0], x[1], QUINTIC_SAMPLES):  # a quintic: sampled, not solved
        left = left[curves.entropy(left, np.full(len(left), at))[1] > FLAT]
    return left
