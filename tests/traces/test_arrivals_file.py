"""Our own form of arrivals there and back, mixtures, and rows that take along what is theirs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.arrivals import Arrivals, ArrivalsError, Labels, mixed, picked, read_arrivals, rescaled
from traces.arrivals_file import write_arrivals
from traces.import_files import read_lengths
from traces.prefixes import Prefixes

names = st.sampled_from(["a", "b,c", 'd"e', "é", " ", "", "two\nlines", "\r", "#"])


@given(
    rows=st.lists(
        st.tuples(
            st.floats(0, 1e6), st.integers(1, 99), st.integers(1, 99), names, names,
            st.lists(st.integers(0, 5), max_size=3),
        ),
        min_size=1,
        max_size=8,
    ),
    labelled=st.booleans(),
    suffix=st.sampled_from([".csv", ".jsonl", ".csv.gz", ".jsonl.gz"]),
)  # fmt: skip
def test_what_is_written_reads_back_equal(tmp_path_factory, rows, *, labelled, suffix):
    times = np.sort([row[0] for row in rows])
    made = Arrivals(
        times_s=times - times[0],
        prompt_tokens=np.array([33 * row[1] for row in rows]),
        output_tokens=np.array([row[2] for row in rows]),
        source='made "here", ümlaut',
        dropped=3,
        tenants=Labels.of([row[3] for row in rows]) if labelled else None,
        classes=Labels.of([row[4] for row in rows]) if labelled else None,
        prefixes=Prefixes.of([row[5] for row in rows], 11) if labelled else None,
        licence="none",
        notes=("one", "two"),
    )
    path = tmp_path_factory.mktemp("x") / f"a{suffix}"
    write_arrivals(path, made)
    found = read_arrivals(path)
    assert found.times_s.tolist() == made.times_s.tolist()
    assert found.prompt_tokens.tolist() == made.prompt_tokens.tolist()
    assert found.output_tokens.tolist() == made.output_tokens.tolist()
    assert (found.source, found.dropped, found.licence) == (made.source, 3, "none")
    assert found.notes == made.notes
    if not labelled:
        assert found.tenants is found.classes is found.prefixes is None
        return
    for ours, theirs in ((made.tenants, found.tenants), (made.classes, found.classes)):
        assert ours.names == theirs.names
        assert ours.codes.tolist() == theirs.codes.tolist()
    assert found.prefixes.block_tokens == 11
    assert found.prefixes.ids.tolist() == made.prefixes.ids.tolist()
    assert found.prefixes.starts.tolist() == made.prefixes.starts.tolist()


def test_arrivals_without_lengths_make_no_file(tmp_path):
    made = Arrivals(times_s=np.zeros(2), prompt_tokens=None, output_tokens=None, source="x")
    with pytest.raises(ArrivalsError, match="holds no lengths"):
        write_arrivals(tmp_path / "x.csv", made)
    with pytest.raises(ArrivalsError, match="must end in one of"):
        write_arrivals(tmp_path / "x.txt", made)
    assert not list(tmp_path.iterdir())


def some(times: list[float], blocks: list[list[int]]) -> Arrivals:
    n = len(times)
    return Arrivals(
        times_s=np.array(times),
        prompt_tokens=np.arange(100, 100 + n),
        output_tokens=np.arange(1, 1 + n),
        source="some",
        prefixes=Prefixes.of(blocks, 16),
    )


def test_a_mixture_keeps_every_request_with_its_tenant_and_its_prefixes():
    a, b = some([0.0, 1.0, 2.0], [[1], [1, 2], []]), some([0.0, 1.5], [[1], [9]])
    whole = mixed({"a": a, "b": b})
    assert whole.times_s.tolist() == [0.0, 0.0, 1.0, 1.5, 2.0]
    assert [whole.tenants.names[code] for code in whole.tenants.codes] == ["a", "b", "a", "b", "a"]
    assert whole.prompt_tokens.tolist() == [100, 100, 101, 101, 102]
    blocks = [whole.prefixes.of_row(row).tolist() for row in range(5)]
    assert blocks[0] == blocks[2][:1]
    assert len({blocks[0][0], blocks[1][0], blocks[3][0]}) == 3
    assert mixed({"a": a, "b": b}, seed=1).times_s.tolist() != whole.times_s.tolist()


def test_picking_rows_takes_all_that_belongs_to_them():
    a = some([0.0, 1.0, 2.0], [[1], [1, 2], [5]])
    twice = picked(a, np.array([1, 1, 0]), np.array([0.0, 1.0, 4.0]))
    assert twice.prompt_tokens.tolist() == [101, 101, 100]
    assert [twice.prefixes.of_row(row).tolist() for row in range(3)] == [[0, 1], [0, 1], [0]]
    assert rescaled(twice, 1.0).prefixes is twice.prefixes


def test_a_mixture_of_different_blocks_says_that_it_left_them_out():
    a, b = some([0.0, 1.0], [[1], [2]]), some([0.0, 2.0], [[1], [1]])
    coarse = Prefixes.of([[1], [1]], 512)
    whole = mixed({"a": a, "b": dataclasses.replace(b, prefixes=coarse)})
    assert whole.prefixes is None
    assert whole.notes == ("block ids were left out: blocks of [16, 512] tokens do not mix",)
    bare = mixed({"a": a, "b": dataclasses.replace(b, prefixes=None)})
    assert [len(bare.prefixes.of_row(row)) for row in range(4)] == [1, 0, 1, 0]


def test_a_column_named_twice_is_refused(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens,arrived_at\n0,1,2,3\n")
    for reader in (read_arrivals, read_lengths):
        with pytest.raises(ArrivalsError, match=r"twice.csv:1: columns .*got \['arrived_at'\]"):
            reader(path)
