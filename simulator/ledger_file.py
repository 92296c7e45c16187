"""A ledger on disk: one row per step, request and token, told apart by ``table``; atomic.

``.jsonl`` holds one object per row with the columns of its table; ``.parquet`` the union of the
columns, null where a table has none. Token rows are in order of time, then request. Times are
integer nanoseconds, entropies nats. What made the ledger (``traces.provenance``) is the first line
of the one, of table ``header``, and metadata of the other's schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require
from controllers.serving.ledger import Ledger
from controllers.serving.table import Table
from traces.atomic import atomic_path
from traces.console import check_target as check_place
from traces.provenance import KEY

if TYPE_CHECKING:
    import pyarrow as pa

    from simulator.scenario import Scenario

SUFFIXES = (".parquet", ".jsonl")
TABLE, REASON = "table", "finish_reason"
BLOCK_ROWS = 65_536  # rows turned into objects at once: memory stays bounded
TOKEN_ROW_BYTES = {".parquet": 25, ".jsonl": 280}  # of runs of the shipped trace; the most rows
HUGE_BYTES = 10**9
Columns = dict[str, list[object]]


def check_target(path: Path) -> None:
    """Raise where a ledger cannot be written, before the run that would fill it."""
    require(path.suffix in SUFFIXES, f"ledger-out must end in one of {SUFFIXES}", path=str(path))
    check_place("ledger-out", path)


def size_line(path: Path, scenario: Scenario) -> str | None:
    """Return a line on the size of the ledger to be written, None where it will be under 1 GB.

    Counted are token rows, from the mean output length; steps and requests come on top.
    """
    rows = scenario.n_requests * _mean_output(scenario)
    size = rows * TOKEN_ROW_BYTES[path.suffix]
    if size < HUGE_BYTES:
        return None
    return f"{path} will hold about {rows / 1e6:.0f} million rows: {size / 1e9:.1f} GB"


def _mean_output(scenario: Scenario) -> float:
    if scenario.sessions is not None:
        return scenario.sessions.answer.mean
    if scenario.lengths == "arrivals" and scenario.arrivals is not None:
        outputs = scenario.arrivals.output_tokens
        if outputs is not None:
            return float(outputs.mean())
    return float(np.mean([request.output_tokens for request in scenario.trace.requests]))


def write_ledger(path: Path, ledger: Ledger, *, made: Mapping[str, object] | None = None) -> None:
    """Write every row of ``ledger`` to ``path``, and what ``made`` it, or nothing."""
    check_target(path)
    with atomic_path(path) as part:
        if path.suffix == ".jsonl":
            with part.open("w", encoding="utf-8") as file:
                if made is not None:
                    file.write(json.dumps({TABLE: "header", KEY: made}) + "\n")
                for table, columns in _blocks(ledger):
                    for values in zip(*columns.values(), strict=True):
                        row = {TABLE: table, **dict(zip(columns, values, strict=True))}
                        file.write(json.dumps(row, allow_nan=False) + "\n")
        else:
            _write_parquet(part, ledger, made)


def _tables(ledger: Ledger) -> dict[str, Table]:
    return {"step": ledger.steps, "request": ledger.requests, "token": ledger.tokens}


def _blocks(ledger: Ledger) -> Iterator[tuple[str, Columns]]:
    """Yield the rows of each table as columns of plain values, a bounded number at a time."""
    for name, table in _tables(ledger).items():
        # Modes agree on the tokens, not on whose is noted first where steps end together.
        order = np.lexsort((table["request_id"], table["now_ns"])) if name == "token" else None
        for start in range(0, len(table), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            picked = rows if order is None else order[rows]
            columns = {column: _plain(table[column][picked]) for column in table.columns}
            if name == "request":
                columns[REASON] = list(ledger.reasons[rows])
            yield name, columns


def _plain(values: np.ndarray) -> list[object]:
    found = values.tolist()
    if values.dtype.kind != "f":
        return found
    return [value if math.isfinite(value) else None for value in found]


def _write_parquet(path: Path, ledger: Ledger, made: Mapping[str, object] | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(ledger)
    if made is not None:
        schema = schema.with_metadata({KEY: json.dumps(made)})
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for table, columns in _blocks(ledger):
            n_rows = len(next(iter(columns.values())))
            given: Columns = {TABLE: [table] * n_rows, **columns}
            absent: list[object] = [None] * n_rows
            arrays = [pa.array(given.get(field.name, absent), field.type) for field in schema]
            file.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _schema(ledger: Ledger) -> pa.Schema:
    import pyarrow as pa

    kinds: dict[str, pa.DataType] = {TABLE: pa.string()}
    for table in _tables(ledger).values():
        for name in table.columns:
            wide = pa.float64() if table[name].dtype.kind == "f" else pa.int64()
            kinds[name] = wide if name not in kinds or wide == pa.float64() else kinds[name]
    return pa.schema([*kinds.items(), (REASON, pa.string())])
