"""A struct of arrays that grows at the end: the columns of a ledger."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from controllers.core import require


class Table:
    """Typed columns of equal length."""

    __slots__ = ("columns",)

    def __init__(self, columns: dict[str, str]) -> None:
        self.columns = {name: array(code) for name, code in columns.items()}

    def append(self, *values: float) -> None:
        """Append one row, values in column order."""
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def extend(self, values: Mapping[str, np.ndarray | float]) -> None:
        """Append rows: every column by name, ``[k]``; a number stands for all k rows."""
        k = max((len(v) for v in values.values() if isinstance(v, np.ndarray)), default=1)
        require(values.keys() == self.columns.keys(), "rows need every column", got=sorted(values))
        for name, column in self.columns.items():
            dtype = np.dtype(column.typecode)
            column.frombytes(np.broadcast_to(values[name], (k,)).astype(dtype).tobytes())

    def keep(self, kept: np.ndarray) -> None:
        """Drop the rows where ``kept``, bool ``[rows]``, is false; the order stays."""
        for column in self.columns.values():
            left = np.array(column)[kept]
            del column[:]
            column.frombytes(left.tobytes())

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a copy of a column as a numpy array; integers as int64, so that sums fit."""
        column = self.columns[name]
        return np.array(column, dtype=np.int64 if column.typecode == "i" else None)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))
