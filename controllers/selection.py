"""Which pages attention reads: coverage, fixed budget, and the paper's absolute threshold.

A selection turns page scores into a mask, per layer and KV head. *Skip* applies the mask to one
step: pages stay, and are judged afresh next time. *Evict* frees pages for good, by a request-level
score, because what a layer's head does not want another may (``pages_to_evict``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controllers.core import require

Mask = NDArray[np.bool_]
LEAST_BUDGET = 3  # pages; Quest reads three even when its budget is smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """Pages every selection keeps, whatever their score."""

    first: int = 1  # attention sinks live in the first page
    recent: int = 2  # the last pages, the partial one included
    min_pages: int = 4  # floor on pages kept, the paper's B_min

    def __post_init__(self) -> None:
        for name in ("first", "recent", "min_pages"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be >= 1", **{name: value})

    def mask(self, pages: int) -> Mask:
        """Return which of ``pages`` are pinned, ``[pages]``."""
        kept = np.zeros(pages, bool)
        kept[: self.first] = True
        kept[max(0, pages - self.recent) :] = True
        return kept


class Selection(Protocol):
    """A rule from page scores to pages read."""

    def keep(self, scores: ArrayLike, pins: Pins) -> Mask:
        """Return the mask of pages to read; scores and mask are ``[..., pages]``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageSelection:
    """The smallest set whose share of the total score reaches ``coverage``; pins come first.

    With attention mass as score this is top-p over pages (Twilight, arXiv:2502.02770), and the
    mass dropped is at most 1 - coverage. At coverage 1 everything is read.
    """

    coverage: float

    def __post_init__(self) -> None:
        require(0.0 < self.coverage <= 1.0, "coverage must lie in (0, 1]", coverage=self.coverage)

    def keep(self, scores: ArrayLike, pins: Pins) -> Mask:
        """Take pages in order until their share reaches the coverage; the floor holds."""
        s = _checked(scores)
        pages = s.shape[-1]
        if self.coverage == 1.0:
            return np.ones(s.shape, bool)
        order = _ranked(s, pins)
        total = s.sum(axis=-1, keepdims=True)
        share = np.take_along_axis(s, order, -1).cumsum(-1) / np.where(total > 0.0, total, 1.0)
        before = np.concatenate([np.zeros((*s.shape[:-1], 1)), share[..., :-1]], axis=-1)
        wanted = (before < self.coverage) & (total > 0.0)
        return _scattered(wanted | (np.arange(pages) < _floor(pages, pins)), order)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSelection:
    """The ``pages`` best by score, pins among them, never fewer than three (Quest)."""

    pages: int

    def __post_init__(self) -> None:
        require(self.pages >= 1, "pages must be >= 1", pages=self.pages)

    def keep(self, scores: ArrayLike, pins: Pins) -> Mask:
        """Take the first pages in order; the same count whatever the scores."""
        s = _checked(scores)
        count = max(self.pages, LEAST_BUDGET, _floor(s.shape[-1], pins))
        kept = np.broadcast_to(np.arange(s.shape[-1]) < count, s.shape)
        return _scattered(kept, _ranked(s, pins))


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSelection:
    """{b : I_b >= theta}, the paper's section 3.2 as printed; ``min_pages`` is its B_min.

    Kept as the literal variant with its defects: I_b shrinks as pages multiply, so one theta prunes
    everything at long context; nothing is pinned, so a sink with low surprisal is dropped.
    """

    theta: float
    min_pages: int = 1

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.theta) and self.theta >= 0.0, "theta must be >= 0", theta=self.theta
        )
        require(self.min_pages >= 0, "min_pages must be >= 0", min_pages=self.min_pages)

    def keep(self, scores: ArrayLike, pins: Pins) -> Mask:
        """Keep what reaches the threshold, and the best ``min_pages``; ``pins`` are ignored."""
        s = _checked(scores)
        rank = np.argsort(np.argsort(-s, axis=-1, kind="stable"), axis=-1)
        return (s >= self.theta) | (rank < self.min_pages)


def pages_to_evict(
    scores: ArrayLike, references: ArrayLike, wanted: int, pins: Pins, *, owned: int = 1
) -> list[int]:
    """Return up to ``wanted`` pages to free for good, lowest request-level score first.

    ``scores`` and ``references`` are ``[pages]`` of one request. A page with more than ``owned``
    references is shared with another request and stays; so do pinned pages, and the floor.
    """
    require(wanted >= 0, "wanted must be >= 0", wanted=wanted)
    s = _checked(scores)
    free = (np.asarray(references) <= owned) & ~pins.mask(len(s))
    spare = max(0, len(s) - _floor(len(s), pins))
    order = np.argsort(s, kind="stable")
    return [int(page) for page in order if free[page]][: min(wanted, spare)]


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    s = np.asarray(scores, np.float64)
    require(s.ndim >= 1 and s.shape[-1] >= 1, "there must be a page to select", shape=s.shape)
    require(bool(np.all(s >= 0.0)), "page scores must be >= 0 and not NaN")
    return s


def _floor(pages: int, pins: Pins) -> int:
    return min(pages, max(pins.min_pages, pins.first + pins.recent))


def _ranked(scores: NDArray[np.float64], pins: Pins) -> NDArray[np.intp]:
    """Return page indices, pinned pages first, then by falling score; ties by position."""
    key = np.where(pins.mask(scores.shape[-1]), np.inf, scores)
    return np.argsort(-key, axis=-1, kind="stable")


def _scattered(kept: Mask, order: NDArray[np.intp]) -> Mask:
    mask = np.zeros(order.shape, bool)
    np.put_along_axis(mask, order, kept, axis=-1)
    return mask
