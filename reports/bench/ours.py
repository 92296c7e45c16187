"""Our side of a benchmark: one executor, its cache filled with real text, timed one step at a time.

Sequences are filled step by step to ever longer contexts, so one prefill serves a whole grid. A
step is timed where a page begins: the page is opened afresh each time, and repeats see equal state.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.executor import LiveExecutor
from backend.models import LoadedModel
from backend.setup import PAGE_TOKENS, page_unit_bytes
from backend.sparse import SparseAttention
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.request import Request
from reports.bench.rows import BenchError

CHUNK = 512  # prompt tokens per filling step
LAYOUTS = ("extents", "scattered")


def require_layout(name: str) -> None:
    """Raise ``BenchError`` unless ``name`` is an order of pages we know."""
    if name not in LAYOUTS:
        raise BenchError(f"layout must be one of {', '.join(LAYOUTS)}; got {name!r}")


@dataclass(frozen=True, slots=True)
class Step:
    """One timed step and what it read."""

    seconds: float
    tokens: tuple[int, ...]  # the next token of each row
    pages_kept: float  # per row, layer and KV head
    kept_share: float  # of the pages dense attention reads
    kv_bytes: float  # K and V read, and the page scores' own bytes


class OurSteps:
    """Decode and prefill steps of our executor over ``rows`` of real token ids."""

    def __init__(
        self,
        loaded: LoadedModel,
        rows: Sequence[Sequence[int]],
        *,
        layout: str = "extents",
        sparse: SparseAttention | None = None,
    ) -> None:
        """Allocate a pool that holds every row whole; ``layout`` orders its pages."""
        require_layout(layout)
        each = -(-len(rows[0]) // PAGE_TOKENS) + 1  # the last is for steps at shorter contexts
        limits = EngineLimits(
            max_seqs=len(rows),
            token_budget=max(CHUNK, len(rows)),
            n_pages=each * len(rows),
            page_tokens=PAGE_TOKENS,
            max_context=len(rows[0]),
        )
        self.filled = 0
        self._loaded, self._rows = loaded, rows
        self._executor = LiveExecutor(
            loaded, get_preset("baseline"), limits, sparse=sparse or SparseAttention()
        )
        pages = np.arange(limits.n_pages)
        if layout == "scattered":
            pages = np.random.default_rng(0).permutation(limits.n_pages)
        self._tables = pages.reshape(len(rows), each).tolist()

    def fill(self, context: int) -> None:
        """Compute the KV of every row's first ``context`` tokens, from where it was left."""
        if context % PAGE_TOKENS or context < self.filled:
            raise BenchError(
                f"context must be a multiple of {PAGE_TOKENS}, >= {self.filled} (filled so far); "
                f"got {context}"
            )
        for index in range(len(self._rows)):
            self.prefill(index, self.filled, context, CHUNK, samples=False)
        self.filled = context

    def prefill(
        self, index: int, start: int, end: int, chunk: int, *, samples: bool = True
    ) -> tuple[float, tuple[int, ...]]:
        """Compute tokens ``start`` to ``end`` of one row in chunks; return seconds, next token."""
        seconds, tokens = 0.0, ()
        while start < end:
            n = min(chunk, end - start)
            row = _row(index, start, n, samples=samples and start + n == end)
            elapsed, result = self._execute([row], end)
            seconds, tokens, start = seconds + elapsed, result.tokens, start + n
        return seconds, tokens

    def decode(self, batch: int, coverage: float = 1.0, context: int | None = None) -> Step:
        """Decode one token in each of the first ``batch`` rows, at ``context`` or all filled."""
        start = self.filled if context is None else context
        rows = [_row(index, start, 1, samples=True, coverage=coverage) for index in range(batch)]
        seconds, result = self._execute(rows, start + 1)
        # Every row's last page holds one token; its other slots are not read.
        heads = self._loaded.layers * self._loaded.kv_heads
        unread = batch * heads * (PAGE_TOKENS - 1) / PAGE_TOKENS
        scored = result.pages_scored / PAGE_TOKENS  # a page's two moments weigh as one token's K, V
        units = result.page_units_read - unread + scored
        return Step(
            seconds=seconds,
            tokens=result.tokens,
            pages_kept=result.page_units_read / (batch * heads),
            kept_share=result.page_units_read / result.page_units_dense,
            kv_bytes=units * page_unit_bytes(self._loaded, PAGE_TOKENS),
        )

    def _execute(self, rows: list[Row], length: int) -> tuple[float, Result]:
        for row in rows:
            prompt = self._rows[row.request_id][:length]
            request = Request(
                request_id=row.request_id,
                prompt_tokens=len(prompt),
                max_tokens=1,
                temperature=0.0,
            )
            self._executor.add(request, prompt)
        tables = {row.request_id: self._table(row, length) for row in rows}
        started = time.perf_counter()
        result = self._executor.execute(Plan(0, tuple(rows)), tables)
        elapsed = time.perf_counter() - started
        for row in rows:
            self._executor.release(row.request_id)
        return elapsed, result

    def _table(self, row: Row, length: int) -> list[int]:
        table, pages = self._tables[row.request_id], -(-length // PAGE_TOKENS)
        if row.start < self.filled and row.n_tokens == 1:  # leave the filled page there alone
            return [*table[: pages - 1], table[-1]]
        return table[:pages]


def _row(index: int, start: int, n: int, *, samples: bool, coverage: float = 1.0) -> Row:
    return Row(
        request_id=index,
        start=start,
        n_tokens=n,
        samples=samples,
        coverage=coverage,
        probe=False,
    )
