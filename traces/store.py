"""Entropy traces on disk: one Parquet file each, written atomically, streamed, checked on reading.

The token rows are the file's table; the request table and the provenance are JSON in its footer.
Every page carries a checksum and the footer's texts a digest, so damage is an error, never numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from traces import columns as cols
from traces import header
from traces.atomic import atomic_path
from traces.columns import Columns, TraceError
from traces.header import RecordedRequest
from traces.schema import TOKENS

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["RecordedRequest", "Trace", "TraceError", "TraceWriter", "iter_tokens", "read_trace"]

GROUP_ROWS = 4096  # about 1.5 MB of token rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A whole trace in memory; its arrays are read-only.

    ``columns``: ``h``, ``v`` ``[rows, N]``; ``kept_mean``, ``kept_max``, ``dropped``, ``evictable``
    ``[rows, S, C]``; ``h_pruned`` ``[rows, C, P]`` and ``kl_pruned`` ``[rows, C]``, NaN where not
    sampled; the others ``[rows]``. Units are those of ``traces.schema``.
    """

    path: Path
    metadata: dict[str, Any]  # METADATA_KEYS without "requests", decoded
    requests: tuple[RecordedRequest, ...]
    columns: Columns
    slices: np.ndarray  # int64 [requests, 2]: token rows [start, stop) of each request
    sha256: str  # of the file

    @property
    def rows(self) -> int:
        """Token rows."""
        return len(self.columns["request"])

    def of(self, request: int) -> Columns:
        """Return the token columns of one request, as views."""
        start, stop = self.slices[request]
        return {name: values[start:stop] for name, values in self.columns.items()}


class TraceWriter:
    """Write one trace: ``with TraceWriter(path, metadata) as writer: ...``.

    Requests are added in index order; their token rows in the same order, in pieces of any size,
    before or after the request row. Memory stays bounded by one row group. Leaving the block by an
    exception, or with token rows that do not match the requests, leaves nothing behind.
    """

    def __init__(self, path: Path | str, metadata: Mapping[str, Any]) -> None:
        self.path = Path(path)
        for key in metadata:
            if key not in header.RECORDER_KEYS:
                raise TraceError(path, key, f"is not one of {header.RECORDER_KEYS}")
        header.check_metadata(metadata, path)
        self._metadata = dict(metadata)
        self._requests: list[RecordedRequest] = []
        self._order = cols.RowOrder(path)
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._stack = ExitStack()
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            part = stack.enter_context(atomic_path(self.path))
            self._file = stack.enter_context(_parquet_writer(part))
            self._stack = stack.pop_all()
        return self

    def add_request(self, row: Mapping[str, Any] | RecordedRequest) -> None:
        """Add the next row of the request table (schema ``REQUESTS``)."""
        fields = (
            {name: getattr(row, name) for name in row.__slots__}
            if isinstance(row, RecordedRequest)
            else row
        )
        self._requests.append(header.request_from(fields, len(self._requests), self.path))

    def add_tokens(self, tokens: pa.Table | Mapping[str, np.ndarray]) -> None:
        """Add token rows: a ``TOKENS`` table, or its columns as arrays (lists ``[rows, ...]``)."""
        arrays = cols.table_columns(tokens, self.path) if isinstance(tokens, pa.Table) else tokens
        table = cols.to_table(arrays, self.path)
        checked = cols.to_columns(table)
        cols.check_values(checked, self._order.rows, self.path)
        self._order.check(checked)
        self._pending.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows >= GROUP_ROWS:
            self._flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stack = self._stack.pop_all()
        if error is not None:
            stack.__exit__(kind, error, trace)
            return
        with stack:
            self._finish()

    def _finish(self) -> None:
        assert self._file is not None
        _check_counts(self._requests, self._order, self.path)
        self._flush()
        pairs = header.encode(self._metadata, self._requests, self._order.rows)
        self._file.add_key_value_metadata(pairs)

    def _flush(self) -> None:
        if self._file is None:
            raise RuntimeError("TraceWriter is used outside its with block")
        if self._pending:
            table = pa.concat_tables(self._pending)
            self._file.write_table(table, row_group_size=GROUP_ROWS)
            self._pending, self._pending_rows = [], 0


def read_trace(path: Path | str) -> Trace:
    """Read and check a whole trace; anything wrong is a ``TraceError``, never a partial answer."""
    path = Path(path)
    with _opened(path) as (file, metadata, requests):
        columns = {
            field.name: np.empty(
                (metadata["rows"], *cols.SHAPES.get(field.name, ())), cols.field_dtype(field)
            )
            for field in TOKENS
        }
        start = 0
        for batch in _checked_batches(file, metadata, requests, path, GROUP_ROWS):
            stop = start + len(batch["request"])
            for name, values in batch.items():
                columns[name][start:stop] = values
            start = stop
    for values in columns.values():
        values.setflags(write=False)
    lengths = [request.output_tokens for request in requests]
    stops = np.cumsum(lengths, dtype=np.int64)
    with path.open("rb") as raw:
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    return Trace(
        path=path,
        metadata=metadata,
        requests=requests,
        columns=columns,
        slices=np.stack([stops - np.array(lengths, dtype=np.int64), stops], axis=1),
        sha256=sha256,
    )


def iter_tokens(path: Path | str, batch_rows: int = GROUP_ROWS) -> Iterator[Columns]:
    """Yield checked token columns, at most ``batch_rows`` at a time, in bounded memory."""
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be >= 1; got {batch_rows}")
    path = Path(path)
    with _opened(path) as (file, metadata, requests):
        yield from _checked_batches(file, metadata, requests, path, batch_rows)


def read_header(path: Path | str) -> tuple[dict[str, Any], tuple[RecordedRequest, ...]]:
    """Return a trace's metadata and request table without reading its token rows."""
    with _opened(Path(path)) as (_, metadata, requests):
        return metadata, requests


@contextmanager
def _opened(
    path: Path,
) -> Iterator[tuple[pq.ParquetFile, dict[str, Any], tuple[RecordedRequest, ...]]]:
    import pyarrow.parquet as pq

    for is_so, rule in (
        (path.is_dir(), "must be a file; it is a folder"),
        (not path.exists(), "does not exist"),
        (path.is_file() and path.stat().st_size == 0, "is empty"),
    ):
        if is_so:
            raise TraceError(path, "file", rule)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(pq.ParquetFile(path, page_checksum_verification=True))
            schema, pairs = file.schema_arrow, file.metadata.metadata or {}
            names = schema.names
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names not UTF-8
            raise TraceError(
                path, "file", f"is not a readable Parquet file; {_line(error)}"
            ) from error
        metadata, requests = header.decode(pairs, path)
        cols.check_names(names, path)
        for field in TOKENS:
            if not schema.field(field.name).equals(field):
                got = schema.field(field.name)
                raise TraceError(path, field.name, f"must be {field}; got {got}")
        if file.metadata.num_rows != metadata["rows"]:
            rule = f"must equal the table's {file.metadata.num_rows}; got {metadata['rows']}"
            raise TraceError(path, "rows", rule)
        yield file, metadata, requests


def _checked_batches(
    file: pq.ParquetFile,
    metadata: dict[str, Any],
    requests: tuple[RecordedRequest, ...],
    path: Path,
    batch_rows: int,
) -> Iterator[Columns]:
    order = cols.RowOrder(path)
    batches = file.iter_batches(batch_size=batch_rows)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError, ValueError) as error:
            rule = f"unreadable after row {order.rows}; {_line(error)}"
            raise TraceError(path, "tokens", rule) from error
        if batch is None:
            break
        columns = cols.to_columns(batch)
        cols.check_values(columns, order.rows, path)
        order.check(columns)
        if order.rows > metadata["rows"]:
            raise TraceError(path, "rows", f"more than the stated {metadata['rows']} token rows")
        yield columns
    if order.rows != metadata["rows"]:
        raise TraceError(path, "rows", f"must be {metadata['rows']}; got {order.rows}")
    _check_counts(requests, order, path)


def _check_counts(
    requests: tuple[RecordedRequest, ...] | list[RecordedRequest],
    order: cols.RowOrder,
    path: Path,
) -> None:
    for index in order.counts:
        if index >= len(requests):
            raise TraceError(path, "request", f"row {index} is not in the request table")
    for record in requests:
        rows = order.counts.get(record.request, 0)
        if rows != record.output_tokens:
            rule = f"must equal its {rows} token rows; got {record.output_tokens}"
            raise TraceError(path, f"requests[{record.request}].output_tokens", rule)


def _parquet_writer(path: Path) -> pq.ParquetWriter:
    import pyarrow.parquet as pq

    # Byte-stream split groups the exponents of neighbouring floats, which zstd then packs.
    floats = [f"{f.name}.list.element" if f.name in cols.SHAPES else f.name for f in TOKENS]
    split: Any = [  # the annotation says bool, the documentation bool or list
        name for name, f in zip(floats, TOKENS, strict=True) if cols.field_dtype(f).kind == "f"
    ]
    return pq.ParquetWriter(
        path,
        TOKENS,
        compression="zstd",
        use_dictionary=False,
        use_byte_stream_split=split,
        write_statistics=False,
        write_page_checksum=True,
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
