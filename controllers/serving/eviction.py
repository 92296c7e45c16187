"""Eviction: how many KV pages a request gives up for good, and which ones it may.

The loop decides how many, in bursts, so that the cost of choosing is paid rarely; the executor,
who sees attention, decides which; the loop checks the choice and frees the pages. A page given up
leaves a ``HOLE`` in the table: token positions stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import ArrayLike

from controllers.preset import Preset
from controllers.selection import Pins, pages_to_evict
from controllers.serving.messages import Row
from controllers.serving.pages import HOLE, PageError, PagePool
from controllers.serving.request import Request, Sequence

PINS = Pins()  # what is never given up: the attention sinks' page, the last pages, the floor
WARMUP_TOKENS = 8  # tokens after (re)admission before a score of pages is worth acting on


def order(sequence: Sequence, preset: Preset, pool: PagePool) -> tuple[int, int]:
    """Return how many pages the next row gives up, and how many leading pages are out of bounds.

    Zero unless the row is a decode row of an enabled request that did not ask to stay dense, that
    holds more than budget + burst pages, and more than a burst of them can go. Pages up to the
    last shared one stay: whoever shares them counts on them.
    """
    budget = preset.kv_budget_pages
    if budget is None or sequence.held - budget <= preset.kv_burst_pages:
        return 0, 0
    ready = sequence.decoding and sequence.quantum_used >= WARMUP_TOKENS
    if not ready or not _may_prune(sequence.request):
        return 0, 0
    keep_first = max(PINS.first, _shared(sequence, pool))
    evictable = int(_free_to_go(sequence.pages, keep_first).sum())
    count = min(sequence.held - budget, evictable)
    return (count, keep_first) if count > preset.kv_burst_pages else (0, 0)


def choose(scores: ArrayLike, table: Seq[int], row: Row) -> tuple[int, ...]:
    """Return the ``row.evict`` entries of ``table`` with the lowest scores (``[pages]``, >= 0)."""
    bound = np.where(_free_to_go(table, row.keep_first), 1, 2)  # 2: not its own to give up
    return tuple(sorted(pages_to_evict(scores, bound, row.evict, PINS)))


def apply(sequence: Sequence, chosen: Seq[int], row: Row, pool: PagePool) -> int:
    """Free the pages an executor chose and leave holes; return how many.

    Raises ``PageError``, and frees nothing, if it chose a page that must stay.
    """
    last = len(sequence.pages) - PINS.recent
    bad = [
        i
        for i in chosen
        if not row.keep_first <= i < last
        or sequence.pages[i] == HOLE
        or pool.references(sequence.pages[i]) > 1
    ]
    if bad or len(set(chosen)) != len(chosen) or len(chosen) > row.evict:
        raise PageError(
            f"request {row.request_id} may give up {row.evict} pages of its own, pinned ones and "
            f"holes left out; got {list(chosen)}"
        )
    pool.free([sequence.pages[i] for i in chosen])
    for i in chosen:
        sequence.pages[i] = HOLE
    sequence.holes += len(chosen)
    return len(chosen)


def _may_prune(request: Request) -> bool:
    return request.enabled and request.min_coverage < 1.0


def _free_to_go(table: Seq[int], keep_first: int) -> np.ndarray:
    index = np.arange(len(table))
    own = (index >= keep_first) & (index < len(table) - PINS.recent)
    return own & (np.asarray(table) != HOLE)


def _shared(sequence: Sequence, pool: PagePool) -> int:
    """Return one more than the index of the last page that others hold too; 0 if none is."""
    for index in range(min(len(sequence.page_hashes), len(sequence.pages)) - 1, -1, -1):
        page = sequence.pages[index]
        if page != HOLE and pool.references(page) > 1:
            return index + 1
    return 0
