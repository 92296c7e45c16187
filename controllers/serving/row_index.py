"""Where the row of a request is: read off the column of ids when somebody asks, and then kept.

A ledger of a long simulation is written by row number and never asked; a dictionary of its ids
would take as much memory as its columns.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping


class RowIndex(Mapping[int, int]):
    """Request id -> row, over a column of ids that only grows; of equal ids the last row counts."""

    __slots__ = ("_highest", "_ids", "_known", "_read", "_seen")

    def __init__(self, ids: array[int]) -> None:
        """Follow ``ids``, which stays the ledger's own."""
        self._ids = ids
        self.renew()

    def renew(self) -> None:
        """Forget what was read; call it when rows of the column were dropped or moved."""
        self._known: dict[int, int] = {}
        self._read = 0  # rows that are in ``_known``
        self._seen = 0  # rows that are in ``_highest``
        self._highest = -1

    def __getitem__(self, request_id: int) -> int:
        return self._rows()[request_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows())

    def __len__(self) -> int:
        return len(self._rows())

    def __contains__(self, request_id: object) -> bool:
        ids = self._ids
        for row in range(self._seen, len(ids)):
            self._highest = max(self._highest, ids[row])
        self._seen = len(ids)
        if isinstance(request_id, int) and request_id > self._highest:
            return False  # ids mostly rise: a new one is known to be new at no cost
        return request_id in self._rows()

    def _rows(self) -> dict[int, int]:
        known, ids = self._known, self._ids
        if self._read < len(ids):
            for row in range(self._read, len(ids)):
                known[ids[row]] = row
            self._read = len(ids)
        return known
