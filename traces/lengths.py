"""Prompt and output lengths: drawn from a file's own pairs, or lognormal of a mean and spread."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from controllers.core import require
from traces.arrivals import Arrivals, ArrivalsError
from traces.prefixes import Prefixes


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


def with_prefixes(
    arrivals: Arrivals, texts: int, tokens: int, rng: np.random.Generator
) -> Arrivals:
    """Let every prompt begin with one of ``texts`` texts of ``tokens`` tokens; it grows by them.

    Text i of 1, 2, .. is chosen with a chance proportional to 1/i (Zipf's law).
    """
    require(texts >= 1 and tokens >= 1, "texts and tokens must be >= 1", texts=texts, tokens=tokens)
    if arrivals.prompt_tokens is None:
        raise ArrivalsError(f"{arrivals.source}: holds no lengths")
    weight = 1.0 / np.arange(1, texts + 1)
    n = len(arrivals)
    return replace(
        arrivals,
        prompt_tokens=arrivals.prompt_tokens + tokens,
        prefixes=Prefixes(
            ids=rng.choice(texts, n, p=weight / weight.sum()),
            starts=np.arange(n + 1),
            block_tokens=tokens,
        ),
        source=f"{arrivals.source}, after one of {texts} texts of {tokens} tokens",
    )
