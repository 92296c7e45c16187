"""Prompt and output lengths: drawn from a file's own pairs, or lognormal of a mean and spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from controllers.core import require
from traces.arrivals import Arrivals, ArrivalsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Lognormal:
    """Token counts of a given mean and coefficient of variation, whole, in [1, longest]."""

    mean: float  # tokens, before the cut at ``longest``
    cv: float = 0.0  # 0: every length is the mean
    longest: int = 1_000_000

    def __post_init__(self) -> None:
        require(math.isfinite(self.mean) and self.mean >= 1.0, "mean must be >= 1", mean=self.mean)
        require(math.isfinite(self.cv) and self.cv >= 0.0, "cv must be >= 0", cv=self.cv)
        require(self.longest >= 1, "longest must be >= 1", longest=self.longest)

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return ``n`` lengths, int64 ``[n]``."""
        spread = math.sqrt(math.log1p(self.cv**2))
        drawn = rng.lognormal(math.log(self.mean) - spread**2 / 2.0, spread, n)
        whole = np.rint(drawn).astype(np.int64)
        return np.minimum(np.maximum(whole, 1), self.longest)


def resampled(source: Arrivals, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``n`` (prompt, output) pairs of ``source`` with replacement, int64 ``[n]`` each.

    Pairs stay together, since prompt and output lengths are correlated.
    """
    if source.prompt_tokens is None or source.output_tokens is None:
        raise ArrivalsError(f"{source.source}: holds no lengths")
    rows = rng.integers(0, len(source), n)
    return source.prompt_tokens[rows], source.output_tokens[rows]
