"""Who was served before whom: overtakes, priority inversions, service gaps."""

from __future__ import annotations

import numpy as np

from controllers.serving.ledger import NEVER, Ledger
from controllers.serving.summary import NS_PER_S

_LATEST = np.iinfo(np.int64).max


def overtakes(ledger: Ledger) -> np.ndarray:
    """Return how many later arrivals were first scheduled before each request, int ``[R]``.

    Arrivals of one instant are ordered by id. One never scheduled counts as scheduled last.
    """
    requests = ledger.requests
    order = np.lexsort((requests["request_id"], requests["arrival_ns"]))
    counts = np.zeros(len(order), np.int64)
    counts[order] = _smaller_later(_started(ledger)[order])
    return counts


def inversions(ledger: Ledger, ranks: np.ndarray) -> np.ndarray:
    """Return how many requests of worse rank were first scheduled while each one waited.

    Rank is int ``[R]``, smaller goes first; a wait is from arrival to the first service. Worse
    means strictly larger, so equal ranks never invert.
    """
    arrival, started = ledger.requests["arrival_ns"], _started(ledger)
    counts = np.zeros(len(ranks), np.int64)
    for rank in np.unique(ranks)[:-1]:  # nobody is worse than the last
        worse = np.sort(started[(ranks > rank) & (started != _LATEST)])
        mine = ranks == rank
        counts[mine] = np.searchsorted(worse, started[mine]) - np.searchsorted(worse, arrival[mine])
    return counts


def service_gaps_steps(ledger: Ledger) -> np.ndarray:
    """Return the most steps each request went without service, waiting ones up to now."""
    columns = ledger.requests["max_service_gap_steps"], ledger.requests["last_service_step"]
    return _with_open(ledger, *columns, ledger.step_count)


def service_gaps_s(ledger: Ledger, end_ns: int) -> np.ndarray:
    """Return the same in seconds, from the end of one service to the begin of the next."""
    columns = ledger.requests["max_service_gap_ns"], ledger.requests["last_service_ns"]
    return _with_open(ledger, *columns, end_ns) / NS_PER_S


def _with_open(ledger: Ledger, gaps: np.ndarray, last: np.ndarray, now: int) -> np.ndarray:
    waiting = np.array([reason is None for reason in ledger.reasons], dtype=bool)
    return np.maximum(gaps, np.where(waiting, now - last, 0))


def _started(ledger: Ledger) -> np.ndarray:
    started = ledger.requests["first_scheduled_ns"]
    return np.where(started == NEVER, _LATEST, started)


def _smaller_later(values: np.ndarray) -> np.ndarray:
    """Return for each entry how many later ones are strictly smaller: merge sort, all blocks at
    once, so that it takes log2(n) sorts.
    """
    n = len(values)
    index = np.arange(n)
    counts = np.zeros(n, np.int64)
    width = 1
    while width < n:
        right = (index // width) % 2 == 1
        order = np.lexsort((right, values, index // (2 * width)))  # ties: left halves first
        passed = np.cumsum(right[order])
        block = index[order] // (2 * width)
        before = np.searchsorted(block, block)  # where each block begins
        counts[order] += np.where(right[order], 0, passed - np.r_[0, passed][before])
        width *= 2
    return counts
