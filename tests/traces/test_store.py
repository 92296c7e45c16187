"""Entropy traces: what is written is read back, and nothing else is ever read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from traces import columns as cols
from traces import store
from traces.columns import TraceError
from traces.header import RECORDER_KEYS, digest
from traces.schema import METADATA_KEYS, REQUESTS, TOKENS
from traces.store import RecordedRequest, TraceWriter, iter_tokens, read_header, read_trace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "small.parquet"


def rewrite(path: Path, *, table: pa.Table | None = None, drop: str = "", **texts: str) -> None:
    """Save the file again with other rows or metadata texts and a digest that fits them."""
    old = pq.read_table(path)
    table = old if table is None else table
    pairs = {k.decode(): v.decode() for k, v in pq.read_metadata(path).metadata.items()} | texts
    pairs.pop("ARROW:schema", None)
    pairs["metadata_sha256"] = digest({k: pairs[k] for k in METADATA_KEYS})
    pairs.pop(drop, None)
    pq.write_table(table.replace_schema_metadata(pairs), path)


def test_a_trace_reads_back_bit_for_bit(path, write_small, metadata):
    written = write_small(path)
    trace = read_trace(path)
    for name in TOKENS.names:
        expected = np.concatenate([columns[name] for columns in written])
        assert trace.columns[name].shape == expected.shape
        np.testing.assert_array_equal(trace.columns[name], expected, err_msg=name)
    assert trace.slices.tolist() == [[0, 7], [7, 7], [7, 19]]
    assert {key: trace.metadata[key] for key in RECORDER_KEYS} == metadata
    assert trace.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert trace.requests[2].prompt_id == "made/2"
    np.testing.assert_array_equal(trace.of(2)["token"], written[2]["token"])


def test_the_record_has_exactly_the_fields_of_the_schema():
    assert list(RecordedRequest.__slots__) == REQUESTS.names


def test_rows_not_sampled_are_nan_and_sampled_rows_are_not(path, write_small):
    write_small(path)
    sampled = read_trace(path).of(2)
    assert np.isnan(sampled["h_pruned"][1::3]).all()
    assert np.isfinite(sampled["h_pruned"][::3]).all()


def test_arrays_of_a_trace_cannot_be_written(path, write_small):
    write_small(path)
    with pytest.raises(ValueError, match="read-only"):
        read_trace(path).columns["h"][0] = 0


def test_streaming_gives_the_same_rows_in_bounded_batches(path, write_small):
    write_small(path)
    batches = list(iter_tokens(path, batch_rows=5))
    assert max(len(batch["request"]) for batch in batches) <= 5
    whole = read_trace(path).columns
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([b[name] for b in batches]), values)


def test_a_table_and_its_columns_write_the_same_file(
    tmp_path, metadata, make_columns, make_request
):
    columns = make_columns(0, 6)
    for name, tokens in (("a", columns), ("b", cols.to_table(columns, "b"))):
        with TraceWriter(tmp_path / name, metadata) as writer:
            writer.add_tokens(tokens)
            writer.add_request(make_request(0, 6))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pieces_of_any_size_make_the_same_rows(path, metadata, make_columns, make_request):
    columns = make_columns(0, 9)
    with TraceWriter(path, metadata) as writer:
        writer.add_request(make_request(0, 9))
        for row in range(9):
            writer.add_tokens({name: values[row : row + 1] for name, values in columns.items()})
    np.testing.assert_array_equal(read_trace(path).columns["h_pruned"], columns["h_pruned"])


def test_an_exception_inside_the_writer_leaves_the_folder_as_it_was(
    tmp_path, path, write_small, metadata, make_columns
):
    write_small(path)
    before = path.read_bytes()
    with pytest.raises(KeyError), TraceWriter(path, metadata) as writer:
        writer.add_tokens(make_columns(0, 5))
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_rows_that_do_not_match_the_requests_leave_nothing(
    tmp_path, path, metadata, make_columns, make_request
):
    with (
        pytest.raises(
            TraceError, match=r"requests\[0\].output_tokens: must equal its 5 token rows"
        ),
        TraceWriter(path, metadata) as writer,
    ):
        writer.add_request(make_request(0, 6))
        writer.add_tokens(make_columns(0, 5))
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_an_error(path, write_small):
    write_small(path)
    whole = path.read_bytes()
    for size in sorted({*range(0, len(whole), 97), 1, 3, 4, 11, len(whole) - 1, len(whole) - 8}):
        path.write_bytes(whole[:size])
        with pytest.raises(TraceError):
            read_trace(path)


def test_a_flipped_byte_is_an_error_or_changes_nothing(path, write_small):
    write_small(path)
    whole = path.read_bytes()
    good = read_trace(path)
    rejected = 0
    for at in range(0, len(whole), 41):
        mask = (0x80, 0x01, 0xFF)[at % 3]  # 0x80 makes names invalid UTF-8
        path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
        try:
            trace = read_trace(path)
        except TraceError:
            rejected += 1
            continue
        assert trace.requests == good.requests
        assert trace.metadata == good.metadata
        for name, values in good.columns.items():
            np.testing.assert_array_equal(trace.columns[name], values, err_msg=f"{name} byte {at}")
    assert rejected > 0


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"version": "2"}, "version: must be 1; got 2"),
        ({"schema": '"other"'}, "schema: must be 'entropic-trace'; got 'other'"),
        ({"rows": "18"}, "rows: must equal the table's 19; got 18"),
        ({"t_cal": "0"}, "t_cal: must be finite and > 0; got 0"),
        ({"layers": "true"}, "layers: must be an integer >= 1; got True"),
        ({"requests": "["}, "requests: must be JSON"),
        ({"requests": "5"}, "requests: must be a list of objects"),
        ({"requests": "[5]"}, "requests: must be a list of objects"),
        ({"requests": "[]"}, "request: row 0 is not in the request table"),
    ],
)
def test_wrong_metadata_is_named(path, write_small, texts, message):
    write_small(path)
    rewrite(path, **texts)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("key", METADATA_KEYS)
def test_missing_metadata_is_named(path, write_small, key):
    write_small(path)
    rewrite(path, drop=key)
    with pytest.raises(TraceError, match=f"{key}: metadata key is missing"):
        read_trace(path)


def test_edited_metadata_without_its_digest_is_refused(path, write_small):
    write_small(path)
    table = pq.read_table(path)
    pairs = dict(pq.read_metadata(path).metadata) | {b"model": b'"another"'}
    pq.write_table(table.replace_schema_metadata(pairs), path)
    with pytest.raises(TraceError, match="metadata_sha256: does not match the metadata"):
        read_trace(path)


def replaced(path: Path, name: str, change) -> pa.Table:
    columns = read_trace(path).columns
    values = columns[name].copy()
    change(values)
    return cols.to_table(columns | {name: values}, path)


def test_values_no_recording_can_hold_are_named(path, write_small):
    cases = {
        "h": (lambda v: v.__setitem__((4, 2), np.inf), "h: must be finite; got inf in row 4"),
        "h_cal": (lambda v: v.__setitem__(9, np.nan), "h_cal: must be finite; got nan in row 9"),
        "kl_pruned": (lambda v: v.__setitem__((0, 1), np.nan), "kl_pruned: must be finite"),
        "kept_mean": (
            lambda v: v.__setitem__((3, 0, 0), 1.5),
            "kept_mean: must be a share in [0, 1]; got 1.5 in row 3",
        ),
        "request": (lambda v: v.__setitem__(8, 0), "request: requests must ascend; got 0 in row 8"),
        "position": (
            lambda v: v.__setitem__(5, 6),
            "position: must count 0, 1, 2, … within a request; got 6 in row 5",
        ),
    }
    for name, (change, message) in cases.items():
        write_small(path)
        rewrite(path, table=replaced(path, name, change))
        with pytest.raises(TraceError) as caught:
            read_trace(path)
        assert message in str(caught.value)


def test_a_missing_column_is_named_on_both_sides(path, write_small, metadata, make_columns):
    write_small(path)
    rewrite(path, table=pq.read_table(path).drop_columns(["v"]))
    with pytest.raises(TraceError, match="v: token column is missing"):
        read_trace(path)
    columns = make_columns(0, 4)
    del columns["dropped"]
    with (
        pytest.raises(TraceError, match="dropped: token column is missing"),
        TraceWriter(path, metadata) as writer,
    ):
        writer.add_tokens(columns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finish_reason": "tired"}, "finish_reason: must be in"),
        ({"temperature": float("nan")}, "temperature: must be finite and >= 0; got nan"),
        ({"prompt_tokens": 0}, "prompt_tokens: must be >= 1; got 0"),
        ({"request": 1}, "request: must be 0, its place in the table; got 1"),
        ({"seed": "7"}, "seed: must be int; got '7'"),
        ({"colour": "red"}, "colour: is not a request field"),
    ],
)
def test_a_wrong_request_row_is_named(path, metadata, make_request, changes, message):
    with pytest.raises(TraceError) as caught, TraceWriter(path, metadata) as writer:
        writer.add_request(make_request(0, 5, **changes))
    assert f"requests[0].{message}" in str(caught.value)


def test_wrong_recorder_metadata_is_named_before_anything_is_written(tmp_path, path, metadata):
    for changes, message in (
        ({"page_tokens": 0}, "page_tokens: must be an integer >= 1; got 0"),
        ({"rows": 5}, "rows: is not one of"),
    ):
        with pytest.raises(TraceError, match=message):
            TraceWriter(path, metadata | changes)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TraceError, match="nowhere: file: does not exist"):
        read_trace(tmp_path / "nowhere")


def test_the_header_reads_without_the_rows(path, write_small):
    write_small(path)
    metadata, requests = read_header(path)
    trace = read_trace(path)
    assert (metadata, requests) == (trace.metadata, trace.requests)


def test_a_longer_trace_takes_no_more_memory_to_write(
    path, metadata, make_columns, make_request, monkeypatch
):
    monkeypatch.setattr(store, "GROUP_ROWS", 64)
    pool = pa.default_memory_pool()
    before, held = pool.bytes_allocated(), []
    with TraceWriter(path, metadata) as writer:
        for i in range(60):
            writer.add_request(make_request(i, 64))
            writer.add_tokens(make_columns(i, 64))
            held.append(pool.bytes_allocated() - before)
    assert pq.read_metadata(path).num_row_groups == 60
    assert max(held[30:]) <= 1.5 * max(held[:30])
