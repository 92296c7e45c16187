"""Future steps of a replica as columns of integers, to which residents add what they will read.

Integers can be taken back exactly, so a preempted resident leaves no trace, and what a step reads
is a look-up however many residents there are.
"""

from __future__ import annotations

import numpy as np

# What residents add: KV tokens read, page units read, dense and scored, pages held.
KV, READ, DENSE, SCORED, PAGES = range(5)
SUMS = 5
# What a step was, written when it is planned.
END, DURATION, DECODE, PROMPT, PREEMPTED, GIVEN = range(5, 11)
_ROWS = 11
_FIRST = 4096 + 72  # columns to begin with: rows a power of two apart fall into one cache set


class Timeline:
    """int64 ``[11, steps]``; column 0 is step ``base``, steps are numbered as they run."""

    __slots__ = ("base", "cells", "limit", "rows")

    def __init__(self) -> None:
        self.base = 0
        self._use(np.zeros((_ROWS, _FIRST), np.int64))

    def add(self, step: int, block: np.ndarray) -> None:
        """Add ``block`` ``[5, n]`` to the sums of the ``n`` steps from ``step`` on."""
        at = step - self.base
        there = self.cells[:SUMS, at : at + block.shape[1]]
        np.add(there, block, out=there)

    def subtract(self, step: int, block: np.ndarray) -> None:
        """Take back what :meth:`add` added."""
        at = step - self.base
        there = self.cells[:SUMS, at : at + block.shape[1]]
        np.subtract(there, block, out=there)

    def make_room(self, upto: int, keep_from: int) -> None:
        """Forget the steps before ``keep_from`` and have columns for all before ``upto``."""
        old = self.cells[:, keep_from - self.base :]
        columns = self.cells.shape[1]
        while columns < 2 * (upto - keep_from):
            columns *= 2
        cells = np.zeros((_ROWS, columns), np.int64)
        kept = min(old.shape[1], columns)
        cells[:, :kept] = old[:, :kept]
        self.base = keep_from
        self._use(cells)

    def _use(self, cells: np.ndarray) -> None:
        self.cells = cells
        self.rows = list(cells)  # views: indexing a row is cheaper than indexing the table
        self.limit = self.base + cells.shape[1]  # one past the last step there is a column for
