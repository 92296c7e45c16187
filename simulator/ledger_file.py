"""A ledger on disk: one row per step, request and token, told apart by ``table``; atomic.

``.jsonl`` holds one object per row with the columns of its table; ``.parquet`` the union of the
columns, null where a table has none. Times are integer nanoseconds, entropies nats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from controllers.core import require
from controllers.serving.ledger import Ledger
from traces.atomic import atomic_path

SUFFIXES = (".parquet", ".jsonl")
Columns = dict[str, list[object]]


def check_target(path: Path) -> None:
    """Raise where a ledger cannot be written, before the run that would fill it."""
    require(path.suffix in SUFFIXES, f"ledger-out must end in one of {SUFFIXES}", path=str(path))
    require(path.parent.is_dir(), "ledger-out must lie in an existing folder", path=str(path))


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Write every row of ``ledger`` to ``path``, or nothing."""
    check_target(path)
    with atomic_path(path) as part:
        if path.suffix == ".jsonl":
            with part.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in _rows(ledger))
        else:
            _write_parquet(part, ledger)


def _tables(ledger: Ledger) -> dict[str, Columns]:
    parts = {"step": ledger.steps, "request": ledger.requests, "token": ledger.tokens}
    tables: dict[str, Columns] = {
        table: {name: [_finite(v) for v in part.columns[name]] for name in part.columns}
        for table, part in parts.items()
    }
    tables["request"]["finish_reason"] = list(ledger.reasons)
    return tables


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rows(ledger: Ledger) -> Iterator[dict[str, object]]:
    for table, columns in _tables(ledger).items():
        for values in zip(*columns.values(), strict=True):
            yield {"table": table, **dict(zip(columns, values, strict=True))}


def _write_parquet(path: Path, ledger: Ledger) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pieces = []
    for table, columns in _tables(ledger).items():
        n_rows = len(next(iter(columns.values())))
        arrays = {name: pa.array(values) for name, values in columns.items()}
        arrays = {
            name: array.cast(pa.float64() if pa.types.is_floating(array.type) else array.type)
            for name, array in arrays.items()
            if not pa.types.is_null(array.type)
        }
        pieces.append(pa.table({"table": pa.array([table] * n_rows, pa.string()), **arrays}))
    pq.write_table(pa.concat_tables(pieces, promote_options="default"), path, compression="zstd")
