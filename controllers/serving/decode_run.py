"""A run of decode steps that the same requests take together, booked once at its end.

In steady decode every step moves every request alike: one service, one token, one gap since the
step before. Only the coverage differs by request, and its sum is kept lane by lane, added in the
order of the steps, so that a ledger's floats do not depend on when a run was booked.
"""

from __future__ import annotations

from array import array

import numpy as np


class DecodeRun:
    """Steps that follow each other, in which exactly ``request_ids`` got a token each."""

    __slots__ = ("_coverage", "_end_ns", "_gap_ns", "_next_step", "_rows", "_steps", "request_ids")

    def __init__(self, request_ids: list[int], rows: list[int], step: int, end_ns: int) -> None:
        """Begin after ``step``, booked, which ended at ``end_ns``; ``rows`` are the ledger's."""
        self.request_ids = request_ids
        self._rows = rows
        self._steps = self._gap_ns = 0
        self._next_step = step + 1
        self._end_ns = end_ns
        self._coverage: np.ndarray | None = None  # float64 [B], sums; None until a step is taken

    def takes(self, request_ids: list[int], step: int) -> bool:
        """Tell whether ``step`` is the next one of this run."""
        return step == self._next_step and request_ids == self.request_ids

    def take(
        self, begin_ns: int, end_ns: int, coverage: list[float], columns: dict[str, array]
    ) -> None:
        """Take the next step in; ``coverage`` has one entry per request."""
        if self._coverage is None:
            sums = columns["coverage_sum"]
            self._coverage = np.array([sums[row] for row in self._rows])
        self._coverage += coverage
        self._gap_ns = max(self._gap_ns, begin_ns - self._end_ns)
        self._end_ns = end_ns
        self._steps += 1
        self._next_step += 1

    def book(self, columns: dict[str, array]) -> None:
        """Write the steps taken into the ``columns`` of requests, and forget them."""
        if self._coverage is None:
            return
        for row, total in zip(self._rows, self._coverage.tolist(), strict=True):
            columns["tokens"][row] += self._steps
            columns["coverage_rows"][row] += self._steps
            columns["coverage_sum"][row] = total
            columns["last_service_step"][row] = self._next_step
            columns["last_service_ns"][row] = self._end_ns
            if self._gap_ns > columns["max_service_gap_ns"][row]:
                columns["max_service_gap_ns"][row] = self._gap_ns
        self._steps = self._gap_ns = 0
        self._coverage = None
