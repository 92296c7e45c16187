"""Another hour of the same traffic: a circular block bootstrap of recorded arrivals.

A recording is one draw of its traffic. What another draw would have given is estimated by
resampling blocks of consecutive requests, gap, lengths and all, so that bursts and runs of long
prompts stay whole. The block length is the automatic one of Politis and White (2004), corrected by
Patton, Politis and White (2009), for the series that load a server, and at least ``FLOOR_S`` of
traffic, for a queue remembers that long. Trends longer than a block are shuffled: the resample is
an hour of the recording's mixture, not of its time of day, so a plan must hold for the recording
as it is as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from controllers.core import require
from traces.arrivals import Arrivals, picked

FLOOR_S = 60.0  # shortest block: longer than most requests stay, so a backlog forms inside one
LEAST_BLOCKS = 8  # a resample of fewer would hardly differ from the recording


@dataclass(frozen=True, slots=True)
class Blocks:
    """How arrivals are cut up for resampling."""

    length: int  # requests in a block
    reason: str  # what fixed the length

    def __post_init__(self) -> None:
        require(self.length >= 1, "a block needs a request", length=self.length)


def choose_blocks(arrivals: Arrivals, *, block_s: float | None = None) -> Blocks:
    """Return the block length for ``arrivals``; ``block_s`` seconds of traffic if given."""
    n, rate = len(arrivals), arrivals.rate_per_s
    require(n >= 2 and math.isfinite(rate), "resampling needs two arrivals apart", arrivals=n)
    if block_s is not None:
        require(math.isfinite(block_s) and block_s > 0.0, "block_s must be > 0", block_s=block_s)
        length = min(n, max(1, round(block_s * rate)))
        return Blocks(length, f"{block_s:g} s as asked")
    lengths = (arrivals.prompt_tokens, arrivals.output_tokens)
    series = [gaps_s(arrivals), *(np.log(rows) for rows in lengths if rows is not None)]
    automatic = max(politis_white(values) for values in series)
    floor, most = round(FLOOR_S * rate), max(1, n // LEAST_BLOCKS)
    length = max(1, automatic, floor)
    reason = "Politis-White" if automatic >= floor else f"at least {FLOOR_S:g} s of traffic"
    if length > most:
        return Blocks(most, f"an eighth of {n} arrivals, though {reason} asks for {length}")
    return Blocks(length, reason)


def resampled(arrivals: Arrivals, blocks: Blocks, rng: np.random.Generator) -> Arrivals:
    """Return as many arrivals as there were, in blocks drawn uniformly on the circle.

    The gap before the first recorded request is not recorded: it counts as the mean gap.
    """
    n = len(arrivals)
    starts = rng.integers(0, n, -(-n // blocks.length))
    index = ((starts[:, None] + np.arange(blocks.length)) % n).ravel()[:n]
    times_s = np.cumsum(gaps_s(arrivals)[index])
    source = f"{arrivals.source}, blocks of {blocks.length} resampled"
    return replace(picked(arrivals, index, times_s - times_s[0]), source=source)


def gaps_s(arrivals: Arrivals) -> np.ndarray:
    """Return the time since the arrival before, float64 ``[n]``; the first is the mean gap."""
    gaps = np.diff(arrivals.times_s)
    return np.concatenate([[float(gaps.mean())], gaps])


def politis_white(values: np.ndarray) -> int:
    """Return the automatic block length of a circular bootstrap of the mean of ``values``.

    Lag-window estimates with the flat-top window; M is twice the lag after which
    autocorrelations stay within 2 sqrt(log10(n)/n) for max(5, sqrt(log10 n)) lags (Politis and
    White 2004, section 3; the constant 4/3 of the correction of 2009).
    """
    n = len(values)
    centred = values - values.mean()
    variance = float(centred @ centred) / n
    if n < 16 or variance <= 0.0:
        return 1
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    most = min(math.ceil(math.sqrt(n)) + run, n - 1)
    cov = np.array([float(centred[: n - k] @ centred[k:]) / n for k in range(most + 1)])
    small = np.abs(cov[1:] / variance) < 2.0 * math.sqrt(math.log10(n) / n)
    quiet = [k for k in range(len(small) - run + 1) if small[k : k + run].all()]
    last = quiet[0] if quiet else int(np.flatnonzero(~small)[-1]) + 1
    m = min(max(2 * last, 1), most)
    ratio = np.arange(m + 1) / m
    window = np.clip(2.0 * (1.0 - ratio), 0.0, 1.0)  # flat to m/2, then linear to 0
    long_run = cov[0] + 2.0 * float(window[1:] @ cov[1 : m + 1])
    slope = 2.0 * float((window[1:] * np.arange(1, m + 1)) @ cov[1 : m + 1])
    if long_run <= 0.0:
        return 1
    best = (2.0 * slope**2 / (4.0 / 3.0 * long_run**2)) ** (1.0 / 3.0) * n ** (1.0 / 3.0)
    return min(max(1, math.ceil(best)), math.ceil(min(3.0 * math.sqrt(n), n / 3.0)))
