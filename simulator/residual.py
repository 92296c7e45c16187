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

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require

if TYPE_CHECKING:
    from traces.store import Trace

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: the SplitMix64 counter increment
TO_UNIT = 2.0**-53


def _mixed(x: np.ndarray) -> np.ndarray:
    """Scramble 64-bit counters (the SplitMix64 finaliser, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def counter_normal(seed: int, request: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return standard normals ``[B]`` keyed by (seed, request, position), in any order.

    Box-Muller on two hashed uniforms; ``request`` and ``position`` are integer ``[B]``.
    """
    start = np.full(np.shape(request), seed, np.int64).astype(np.uint64)
    key = _mixed(_mixed(start + GOLDEN) ^ (np.asarray(request).astype(np.uint64) + GOLDEN))
    first = _mixed(key + GOLDEN * (np.uint64(2) * np.asarray(position).astype(np.uint64)))
    second = _mixed(first + GOLDEN)
    radius = ((first >> np.uint64(11)).astype(np.float64) + 1.0) * TO_UNIT  # (0, 1]
    angle = (second >> np.uint64(11)).astype(np.float64) * TO_UNIT
    return np.sqrt(-2.0 * np.log(radius)) * np.cos(2.0 * np.pi * angle)


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

    def spread(self, coverage: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Return sigma ``[B]``: linear in coverage, 0 at 1 and where every page is kept."""
        levels, sigma = np.append(self.coverages, 1.0), np.append(self.sigma, 0.0)
        return np.where(share < 1.0, np.interp(coverage, levels, sigma), 0.0)

    def factor(self, coverage: np.ndarray, share: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return what multiplies ``response``, in [-1, 1]; all ``[B]``, lane by lane."""
        drawn = self.spread(coverage, share) * normals
        return np.minimum(np.maximum(drawn, -1.0), 1.0)
