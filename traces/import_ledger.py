"""Our own ledgers (``simulate --ledger-out``) as arrivals: when requests came, what they received.

Output lengths are the tokens delivered: of a request that was cancelled or lost, fewer than it
would have had. Requests without a token are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from traces.arrivals import Arrivals, ArrivalsError
from traces.import_formats import Format, in_seconds
from traces.import_rows import read_rows
from traces.import_text import NumberedRow

TABLE = "table"
REASON = "finish_reason"
COMPLETED = ("stop", "length")
LEDGER = Format(
    name="entropic-ledger",
    time=("arrival_ns",),
    prompt=("prompt_tokens",),
    output=("tokens",),
    seconds=in_seconds(1e-9),
    ordered=False,  # a cluster's requests come replica by replica
    zero_is_failure=True,
)
NAMES = (*LEDGER.time, *LEDGER.prompt, *LEDGER.output)


def is_ledger(path: Path) -> bool:
    """Return whether the Parquet file ``path`` is a ledger of ours; False if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return TABLE in pq.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError):
        return False


def read_ledger_lines(rows: Iterable[NumberedRow], path: Path) -> Arrivals:
    """Return the arrivals of a ledger in JSON lines."""
    return _read([(line, row) for line, row in rows if row.get(TABLE) == "request"], path)


def read_ledger_parquet(path: Path) -> Arrivals:
    """Return the arrivals of a ledger in Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        missing = [name for name in (TABLE, *NAMES) if name not in names]
        if missing:
            rule = "is missing: a Parquet file of arrivals is a ledger of ours"
            raise ArrivalsError(f"{path}: {missing[0]}: {rule}")
        found = pq.read_table(path, columns=[TABLE, *NAMES, REASON])
    except (pa.ArrowException, OSError) as error:
        raise ArrivalsError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    rows = enumerate(found.to_pylist())
    return _read([(f"row {i}", row) for i, row in rows if row[TABLE] == "request"], path)


def _read(rows: list[NumberedRow], path: Path) -> Arrivals:
    found = read_rows(LEDGER, rows, path, None, names=NAMES, sort=True)
    short = sum(row.get(REASON) not in COMPLETED for _, row in rows) - found.dropped
    if not short:
        return found
    note = f"{short} requests did not complete: their output lengths are what they had received"
    return replace(found, notes=(*found.notes, note))
