"""Token columns of a trace: numpy arrays here, Arrow tables in the file, one set of checks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from traces.schema import TOKENS, C, N, P, S

Columns = dict[str, np.ndarray]

SHAPES = {  # of one row, as read; columns not named here are scalars
    "h": (N,),
    "v": (N,),
    "kept_mean": (S, C),
    "kept_max": (S, C),
    "dropped": (S, C),
    "evictable": (S, C),
    "h_pruned": (C, P),
    "kl_pruned": (C,),
}
SHARES = ("kept_mean", "kept_max", "dropped", "evictable")
SHARE_SLACK = 1e-5  # a float32 mean over a few hundred heads may round past 1


class TraceError(ValueError):
    """A trace that cannot be trusted. One line: the file, the field, the rule, the value."""

    def __init__(self, path: object, field: str, rule: str) -> None:
        super().__init__(f"{path}: {field}: {rule}")


def to_table(columns: Mapping[str, np.ndarray], path: object) -> pa.Table:
    """Return a ``TOKENS`` table; lists are ``[rows, ...]``, an all-NaN list becomes null."""
    check_names(list(columns), path)
    rows = len(columns["request"])
    arrays = []
    for field in TOKENS:
        values = np.asarray(columns[field.name])
        want = (rows, *SHAPES.get(field.name, ()))
        flat = (rows, int(np.prod(want[1:]))) if len(want) > 1 else want
        if values.shape not in (want, flat):
            raise TraceError(path, field.name, f"must have shape {want}; got {values.shape}")
        try:
            arrays.append(_to_array(values, field))
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise TraceError(path, field.name, f"must fit {field.type}; {error}") from error
    return pa.Table.from_arrays(arrays, schema=TOKENS)


def _to_array(values: np.ndarray, field: pa.Field) -> pa.Array:
    if field.name not in SHAPES:
        return pa.array(values, type=field.type)
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(len(values), field.type.list_size)
    absent = np.isnan(flat).all(axis=1) if field.nullable else np.zeros(len(flat), dtype=bool)
    mask = pa.array(absent) if absent.any() else None
    items = pa.array(flat.reshape(-1), type=pa.float32())
    return pa.FixedSizeListArray.from_arrays(items, type=field.type, mask=mask)


def table_columns(table: pa.Table, path: object) -> Columns:
    """Return the columns of any Arrow table that can be cast to ``TOKENS``."""
    check_names(table.column_names, path)
    try:
        return to_columns(table.select(TOKENS.names).cast(TOKENS))
    except (pa.ArrowException, ValueError) as error:
        raise TraceError(path, "tokens", f"must have the schema TOKENS; {error}") from error


def to_columns(table: pa.Table | pa.RecordBatch) -> Columns:
    """Return owned numpy columns of a ``TOKENS`` table; null lists become NaN."""
    columns = {}
    for field in TOKENS:
        column = table.column(field.name)
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        parts = [_to_numpy(chunk, field) for chunk in chunks]
        empty = np.empty((0, *SHAPES.get(field.name, ())), field_dtype(field))
        columns[field.name] = np.concatenate([empty, *parts])
    return columns


def field_dtype(field: pa.Field) -> np.dtype:
    """Return the numpy dtype of a column's numbers."""
    value = field.type.value_type if pa.types.is_fixed_size_list(field.type) else field.type
    return np.dtype(value.to_pandas_dtype())


def _to_numpy(array: pa.Array, field: pa.Field) -> np.ndarray:
    if field.name not in SHAPES:
        return array.to_numpy(zero_copy_only=False)
    size = field.type.list_size
    items = array.values.slice(array.offset * size, len(array) * size)
    values = np.array(items.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, size)
    values[~array.is_valid().to_numpy(zero_copy_only=False)] = np.nan
    return values.reshape(len(values), *SHAPES[field.name])


def check_names(names: list[str], path: object) -> None:
    """Raise unless ``names`` are exactly the token columns, in any order."""
    for name in TOKENS.names:
        if name not in names:
            raise TraceError(path, name, "token column is missing")
    for name in names:
        if name not in TOKENS.names:
            raise TraceError(path, name, "is not a token column")


def check_values(columns: Columns, start: int, path: object) -> None:
    """Raise on the first value no recording can hold; ``start`` numbers the first row."""
    for name, values in columns.items():
        if values.dtype.kind != "f":
            continue
        flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
        bad = ~np.isfinite(flat)
        if name in ("h_pruned", "kl_pruned"):
            bad &= ~np.isnan(flat).all(axis=1, keepdims=True)
        _raise_at(bad, flat, start, path, name, "must be finite")
        if name in SHARES:
            outside = (flat < -SHARE_SLACK) | (flat > 1 + SHARE_SLACK)
            _raise_at(outside, flat, start, path, name, "must be a share in [0, 1]")


def _raise_at(
    bad: np.ndarray, flat: np.ndarray, start: int, path: object, name: str, rule: str
) -> None:
    if not bad.any():
        return
    row, item = (int(i) for i in np.argwhere(bad)[0])
    raise TraceError(path, name, f"{rule}; got {flat[row, item]} in row {start + row}")


class RowOrder:
    """Hold token rows to their order: requests ascending, positions 0, 1, 2, … within each."""

    def __init__(self, path: object) -> None:
        self.path = path
        self.counts: dict[int, int] = {}
        self.rows = 0
        self._request = -1

    def check(self, columns: Columns) -> None:
        """Take the next rows, or raise naming the first one out of order."""
        request, position = (
            columns["request"].astype(np.int64),
            columns["position"].astype(np.int64),
        )
        if len(request) == 0:
            return
        before = np.concatenate([[self._request], request[:-1]])
        wanted = np.concatenate([[self.counts.get(self._request, 0)], position[:-1] + 1])
        wanted[request != before] = 0
        self._reject(request < before, request, "requests must ascend")
        self._reject(request < 0, request, "must be >= 0")
        self._reject(
            position != wanted, position, "must count 0, 1, 2, … within a request", "position"
        )
        last = np.flatnonzero(np.diff(request, append=-1))
        self.counts |= {int(request[i]): int(position[i]) + 1 for i in last}
        self._request = int(request[-1])
        self.rows += len(request)

    def _reject(
        self, bad: np.ndarray, values: np.ndarray, rule: str, name: str = "request"
    ) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise TraceError(self.path, name, f"{rule}; got {values[row]} in row {self.rows + row}")
