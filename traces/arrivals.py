"""Arrivals: when requests came, how long they were, whose they were, and which began alike.

Files are read by :func:`read_arrivals`; the formats are in ``traces.import_rows``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from traces.prefixes import Prefixes


class ArrivalsError(ValueError):
    """An arrival trace that cannot be used. One line: the file, the line, the field, the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """One name per request, kept once each."""

    names: tuple[str, ...]
    codes: np.ndarray  # int64 [n], into ``names``

    @classmethod
    def of(cls, labels: Sequence[str]) -> Labels:
        """Number ``labels`` in the order in which they first come."""
        numbers: dict[str, int] = {}
        codes = [numbers.setdefault(label, len(numbers)) for label in labels]
        return cls(names=tuple(numbers), codes=np.array(codes, np.int64))

    @classmethod
    def one(cls, label: str, n: int) -> Labels:
        """Return ``label`` for all of ``n`` requests."""
        return cls(names=(label,), codes=np.zeros(n, np.int64))

    def picked(self, rows: np.ndarray) -> Labels:
        """Return the labels of ``rows``, integer ``[k]``."""
        return Labels(names=self.names, codes=self.codes[rows])

    def counts(self) -> dict[str, int]:
        """Return how many requests have each name."""
        found = np.bincount(self.codes, minlength=len(self.names)).tolist()
        return dict(sorted(zip(self.names, found, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Arrivals in time order; the first is at 0. What the source does not tell is None."""

    times_s: np.ndarray  # float64 [n], seconds from the first arrival, non-decreasing
    prompt_tokens: np.ndarray | None  # int64 [n], >= 1
    output_tokens: np.ndarray | None  # int64 [n], >= 1
    source: str  # format name and file name, or the process that drew them
    dropped: int = 0  # rows the source marks as failed (BurstGPT: a length of 0)
    prefixes: Prefixes | None = None  # which prompts begin alike
    tenants: Labels | None = None  # whose requests they are
    classes: Labels | None = None  # what they are for
    licence: str = ""  # of the source; "" where it is not known
    notes: tuple[str, ...] = ()  # what a reader should know, a line each

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def rate_per_s(self) -> float:
        """Mean arrival rate: intervals over span; NaN for fewer than two distinct times."""
        span_s = float(self.times_s[-1]) if len(self) else 0.0
        return (len(self) - 1) / span_s if span_s > 0 else math.nan


def read_arrivals(path: Path | str, limit: int | None = None, *, sort: bool = False) -> Arrivals:
    """Read the first ``limit`` usable arrivals of a trace (all of them by default).

    Times out of order are an error where the format promises order, unless ``sort``; elsewhere
    they are sorted. Raises ``ArrivalsError``, one line naming file, line, field and value.
    """
    from traces.import_files import read

    return read(Path(path), limit, sort=sort)


def picked(arrivals: Arrivals, rows: np.ndarray, times_s: np.ndarray) -> Arrivals:
    """Return the requests ``rows``, integer ``[k]``, at ``times_s``, ascending from 0.

    Everything that belongs to a request goes with it; a row may come more than once.
    """
    prompts, outputs = arrivals.prompt_tokens, arrivals.output_tokens
    return replace(
        arrivals,
        times_s=times_s,
        prompt_tokens=None if prompts is None else prompts[rows],
        output_tokens=None if outputs is None else outputs[rows],
        prefixes=None if arrivals.prefixes is None else arrivals.prefixes.picked(rows),
        tenants=None if arrivals.tenants is None else arrivals.tenants.picked(rows),
        classes=None if arrivals.classes is None else arrivals.classes.picked(rows),
    )


def first(arrivals: Arrivals, n: int) -> Arrivals:
    """Return the first ``n`` arrivals."""
    return picked(arrivals, np.arange(min(n, len(arrivals))), arrivals.times_s[:n])


def spread(arrivals: Arrivals, rng: np.random.Generator) -> Arrivals:
    """Draw the times of arrivals that share one evenly over the time to the next one.

    For clocks that tick coarsely (Mooncake's tick every 3 s), where the bursts are the clock's. The
    last tick is as long as the median one. Order within a tick stays.
    """
    times, tick = np.unique(arrivals.times_s, return_inverse=True)
    if len(times) < 2:
        raise ArrivalsError(f"{arrivals.source}: spreading needs two arrivals at different times")
    lengths = np.append(np.diff(times), np.median(np.diff(times)))
    drawn = times[tick] + rng.random(len(tick)) * lengths[tick]
    times_s = np.sort(drawn)  # ticks do not overlap: sorting stays within them
    return replace(
        arrivals,
        times_s=times_s - times_s[0],
        source=f"{arrivals.source}, spread over {len(times)} ticks",
    )


def mixed(tenants: dict[str, Arrivals], seed: int | None = None) -> Arrivals:
    """Return the arrivals of several tenants on one clock, each under its name.

    Every tenant's clock starts at the same moment, that of its first arrival; with a ``seed`` each
    begins somewhere inside its own mean gap, so that they do not all arrive at once. Lengths and
    classes survive where every tenant has them, block ids where their blocks are of one size;
    block ids of different tenants never mean the same block.
    """
    if not tenants:
        raise ArrivalsError("a mixture needs a tenant; got none")
    names, parts = tuple(tenants), list(tenants.values())
    rng = None if seed is None else np.random.default_rng(seed)
    shifted = []
    for part in parts:
        gap_s = 0.0 if math.isnan(part.rate_per_s) else 1.0 / part.rate_per_s
        shifted.append(part.times_s + (0.0 if rng is None else rng.random() * gap_s))
    times_s = np.concatenate(shifted)
    order = np.argsort(times_s, kind="stable")
    codes = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    whole = Arrivals(
        times_s=times_s,
        prompt_tokens=_joined([part.prompt_tokens for part in parts]),
        output_tokens=_joined([part.output_tokens for part in parts]),
        source="mixture of " + "; ".join(f"{k}: {v.source}" for k, v in tenants.items()),
        dropped=sum(part.dropped for part in parts),
        prefixes=_joined_prefixes(parts),
        tenants=Labels(names=names, codes=codes),
        classes=_joined_labels([part.classes for part in parts]),
        licence="; ".join(dict.fromkeys(p.licence for p in parts if p.licence)),
        notes=tuple(dict.fromkeys([n for part in parts for n in part.notes] + _sizes(parts))),
    )
    return picked(whole, order, times_s[order] - times_s[order[0]])


def poisson(rate_per_s: float, n: int, rng: np.random.Generator) -> Arrivals:
    """Draw ``n`` Poisson arrivals; the first is at 0 and the gaps are exponential."""
    _check_rate(rate_per_s)
    if n < 1:
        raise ArrivalsError(f"n must be >= 1; got {n}")
    gaps_s = rng.exponential(1.0 / rate_per_s, n - 1)
    times_s = np.concatenate([[0.0], np.cumsum(gaps_s)])
    source = f"poisson({rate_per_s:g}/s)"
    return Arrivals(times_s=times_s, prompt_tokens=None, output_tokens=None, source=source)


def rescaled(arrivals: Arrivals, rate_per_s: float) -> Arrivals:
    """Stretch time so that the mean rate is ``rate_per_s``; burstiness keeps its shape."""
    _check_rate(rate_per_s)
    if math.isnan(arrivals.rate_per_s):
        raise ArrivalsError(f"{arrivals.source}: rescaling needs two arrivals at different times")
    times_s = arrivals.times_s * (arrivals.rate_per_s / rate_per_s)
    return replace(
        arrivals, times_s=times_s, source=f"{arrivals.source} rescaled to {rate_per_s:g}/s"
    )


def _check_rate(rate_per_s: float) -> None:
    if not 0.0 < rate_per_s < math.inf:
        raise ArrivalsError(f"rate_per_s must be finite and > 0; got {rate_per_s!r}")


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _joined_labels(parts: list[Labels | None]) -> Labels | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return Labels.of([part.names[code] for part in known for code in part.codes.tolist()])


def _joined_prefixes(parts: list[Arrivals]) -> Prefixes | None:
    sizes = {part.prefixes.block_tokens for part in parts if part.prefixes is not None}
    if len(sizes) != 1:
        return None
    ids, counts, above = [], [], 0
    for part in parts:
        if part.prefixes is None:  # its prompts share nothing
            counts.append(np.zeros(len(part), np.int64))
            continue
        ids.append(part.prefixes.ids + above)
        counts.append(np.diff(part.prefixes.starts))
        above += int(part.prefixes.ids.max(initial=-1)) + 1
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return Prefixes(ids=np.concatenate(ids), starts=starts, block_tokens=sizes.pop())


def _sizes(parts: list[Arrivals]) -> list[str]:
    """Return a note where block ids were left out."""
    sizes = sorted({part.prefixes.block_tokens for part in parts if part.prefixes is not None})
    return [f"block ids were left out: blocks of {sizes} tokens do not mix"] if sizes[1:] else []
