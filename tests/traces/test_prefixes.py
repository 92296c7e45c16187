"""Block ids become page names: equal exactly where the tokens up to a page's end are equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.prefixes import Prefixes

tokens = st.lists(st.integers(0, 1), max_size=40)


def blocks_of(prompt: list[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(prompt[start : start + size]) for start in range(0, len(prompt), size)]


@given(a=tokens, b=tokens, block=st.integers(1, 12), page=st.integers(1, 12))
def test_pages_with_one_name_hold_the_same_tokens_from_the_start(a, b, block, page):
    prefixes = Prefixes.of([blocks_of(a, block), blocks_of(b, block)], block)
    names = [prefixes.page_names(row, len(p), page) for row, p in enumerate((a, b))]
    assert [len(name) for name in names] == [len(a) // page, len(b) // page]
    for index, (one, other) in enumerate(zip(*names, strict=False)):
        end = (index + 1) * page
        whole = min(-(-end // block) * block, max(len(a), len(b)))
        assert (one == other) == (a[:whole] == b[:whole])
        if one == other:
            assert a[:end] == b[:end]


@given(a=tokens, block=st.integers(1, 12), page=st.integers(1, 12))
def test_page_names_are_a_sequence_of_distinct_integers(a, block, page):
    names = Prefixes.of([blocks_of(a, block)], block).page_names(0, len(a), page)
    assert tuple(names) == tuple(names[i] for i in range(len(names))) == names[:]
    assert names == tuple(names)
    assert len(set(names)) == len(names)
    assert all(type(name) is int and 0 <= name < 2**63 for name in names)


def test_a_block_of_512_tokens_is_512_over_page_tokens_pages():
    prefixes = Prefixes.of([[0, 1], [0, 2]], 512)
    one, other = (list(prefixes.page_names(row, 1024, 16)) for row in (0, 1))
    assert sum(a == b for a, b in zip(one, other, strict=True)) == 32


def test_pages_that_nobody_named_are_never_shared():
    prefixes = Prefixes.of([[0], [0]], 16)
    one, other = (list(prefixes.page_names(row, 64, 16)) for row in (0, 1))
    assert one[0] == other[0]
    assert not set(one[1:]) & set(other)


def test_the_same_block_id_after_another_one_is_another_block():
    prefixes = Prefixes.of([[1, 7], [2, 7]], 16)
    assert prefixes.of_row(0)[1] != prefixes.of_row(1)[1]


def test_reuse_counts_blocks_and_tokens_seen_before():
    prefixes = Prefixes.of([[1, 2], [1, 3], [1, 2]], 10)
    found = prefixes.reuse(np.array([20, 15, 12]))
    assert found["prefix_blocks_distinct"] == 3
    assert found["prefix_block_reuse"] == pytest.approx(3 / 6)
    assert found["prefix_token_reuse"] == pytest.approx((10 + 10 + 2) / 47)


def test_ids_and_starts_must_agree():
    with pytest.raises(ValueError, match="starts must span ids"):
        Prefixes(ids=np.arange(3), starts=np.array([0, 2]), block_tokens=4)
    with pytest.raises(ValueError, match="block_tokens must be >= 1"):
        Prefixes.of([[1]], 0)
