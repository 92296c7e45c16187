"""What pruned attention does to entropy, drawn from what it did on the recorded subsample.

A pruned row's H becomes H + clip(sigma(coverage) * z, -1, 1) * min(H, sqrt V), with z a standard
normal that depends on (seed, request, position) alone: serving order and load cannot move it, and
every temperature of one row sees the same z. min(H, sqrt V) is the size of the first-order response
of H to noise on the logits in both limits (a nearly certain row answers by about H, a flat one by
about sqrt V). The clip keeps H >= 0, and being symmetric it keeps the draw's mean at zero; it binds
where |z| > 1/sigma.
sigma is fitted so that the spread about the mean over the subsample equals the recorded one at each
coverage. The recorded mean itself (pruning shifts H a little) is reported, not applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require

if TYPE_CHECKING:
    from traces.store import Trace

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: the SplitMix64 counter increment
TO_UNIT = 2.0**-53
# Of s, s^3, .. s^21 in sin(2 pi s): beyond, less than 1e-18 for |s| <= 1/4.
SINE = tuple((-1.0) ** k * math.tau ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(11))


def _mixed(x: np.ndarray) -> np.ndarray:
    """Scramble 64-bit counters (the SplitMix64 finaliser, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def counter_key(seed: int, request: np.ndarray) -> np.ndarray:
    """Return one 64-bit key per request id, uint64 ``[B]``; equal (seed, request), equal key."""
    start = np.full(np.shape(request), seed, np.int64).astype(np.uint64)
    return _mixed(_mixed(start + GOLDEN) ^ (np.asarray(request).astype(np.uint64) + GOLDEN))


def counter_uniform(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Return uniforms in [0, 1), float64 ``[B]``, keyed by (key, counter), in any order."""
    bits = _mixed(key + GOLDEN * np.asarray(counter).astype(np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * TO_UNIT


def counter_normal(seed: int, request: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return standard normals ``[B]`` keyed by (seed, request, position), in any order."""
    return keyed_normal(counter_key(seed, request), position)


def keyed_normal(key: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return standard normals ``[B]`` from a ``counter_key`` and integer positions, ``[B]``.

    Box-Muller on two hashed uniforms.
    """
    first = _mixed(key + GOLDEN * (np.uint64(2) * np.asarray(position).astype(np.uint64)))
    second = _mixed(first + GOLDEN)
    radius = ((first >> np.uint64(11)).astype(np.float64) + 1.0) * TO_UNIT  # (0, 1]
    turn = (second >> np.uint64(11)).astype(np.float64) * TO_UNIT
    return np.sqrt(-2.0 * np.log(radius)) * cosine(turn)


def cosine(turn: np.ndarray) -> np.ndarray:
    """Return cos(2 pi ``turn``) for ``turn`` ``[B]`` in [0, 1], within 4e-16.

    A Taylor series about the nearest zero: a quarter of the time of ``np.cos``, which took most of
    a normal's.
    """
    s = np.abs(turn - 0.5) - 0.25  # exact; cos(2 pi turn) = sin(2 pi s)
    square = s * s
    value = SINE[-1] * square
    for term in SINE[-2:0:-1]:
        value += term
        value *= square
    value += SINE[0]
    value *= s
    return value


def response(h: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return min(H, sqrt V), the size of a row's entropy response, in nats."""
    return np.minimum(h, np.sqrt(v))


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """Spread of pruned H around dense H, by coverage; coverage 1 has none."""

    coverages: np.ndarray  # increasing, below 1, [C]
    sigma: np.ndarray  # relative to ``response``, [C]
    std_nats: np.ndarray  # recorded standard deviation about the mean, [C]
    bias_nats: np.ndarray  # recorded mean, pruned less dense, [C]; reported, not applied
    samples: int  # recorded rows behind the fit
    seed: int = 0

    def __post_init__(self) -> None:
        levels = self.coverages
        require(
            len(levels) > 0 and bool(np.all(np.diff(levels) > 0.0)) and levels[-1] < 1.0,
            "coverages must increase below 1",
            coverages=levels,
        )
        require(
            bool(np.all(np.isfinite(self.sigma)) and np.all(self.sigma >= 0.0)),
            "sigma must be finite and >= 0",
            sigma=self.sigma,
        )

    @classmethod
    def none(cls, coverages: np.ndarray, *, seed: int = 0) -> Residual:
        """Return the residual that is zero everywhere."""
        zero = np.zeros(len(coverages))
        return cls(
            coverages=coverages, sigma=zero, std_nats=zero, bias_nats=zero, samples=0, seed=seed
        )

    @classmethod
    def fit(cls, trace: Trace, *, seed: int = 0) -> Residual:
        """Fit the spread to the trace's pruned subsample; zero, with ``samples`` 0, without one."""
        from traces.schema import COVERAGES, PRUNED_NODES

        pruned = np.asarray(trace.columns["h_pruned"], np.float64)  # [rows, C, P], NaN where absent
        kept = np.flatnonzero(np.isfinite(pruned).all(axis=(1, 2)))
        if not len(kept):
            return cls.none(COVERAGES, seed=seed)
        nodes = list(PRUNED_NODES)
        h = np.asarray(trace.columns["h"], np.float64)[kept][:, nodes]
        v = np.asarray(trace.columns["v"], np.float64)[kept][:, nodes]
        error = pruned[kept] - h[:, None, :]  # [k, C, P]
        std = error.std(axis=(0, 2))
        scale = float((response(h, v) ** 2).mean())
        return cls(
            coverages=COVERAGES,
            sigma=std / max(scale, np.finfo(np.float64).tiny) ** 0.5,
            std_nats=std,
            bias_nats=error.mean(axis=(0, 2)),
            samples=len(kept),
            seed=seed,
        )

    @property
    def silent(self) -> bool:
        """Whether it is zero at every coverage."""
        return not self.sigma.any()

    def line(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the coverages and sigmas between which it is linear, 0 at coverage 1 included."""
        return np.append(self.coverages, 1.0), np.append(self.sigma, 0.0)

    def spread(self, coverage: np.ndarray) -> np.ndarray:
        """Return sigma ``[B]`` at ``coverage`` ``[B]``."""
        return np.interp(coverage, *self.line())

    def factor(self, coverage: np.ndarray, share: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return what multiplies ``response``, in [-1, 1]; all ``[B]``, lane by lane.

        It is 0 where every page is kept, whatever the coverage.
        """
        return np.where(share < 1.0, clipped(self.spread(coverage) * normals), 0.0)


def clipped(drawn: np.ndarray) -> np.ndarray:
    """Keep a draw within what leaves H >= 0."""
    return np.minimum(np.maximum(drawn, -1.0), 1.0)
