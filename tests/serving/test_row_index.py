"""Rows of requests by id, read off a column of ids."""

from __future__ import annotations

from array import array

import pytest

from controllers.serving.row_index import RowIndex


def test_ids_are_found_in_whatever_order_they_came() -> None:
    ids = array("q", [5, 9, 2])
    index = RowIndex(ids)
    assert 2 in index
    assert 9 in index
    assert 7 not in index
    assert 11 not in index
    assert dict(index) == {5: 0, 9: 1, 2: 2}


def test_an_id_below_the_highest_is_new_until_it_is_appended() -> None:
    ids = array("q", [5, 9])
    index = RowIndex(ids)
    assert 7 not in index
    assert 10 not in index
    ids.append(7)
    ids.append(10)
    assert 7 in index
    assert 10 in index
    assert len(index) == 4
    assert (index[7], index[10]) == (2, 3)


def test_of_repeated_ids_the_last_row_counts() -> None:
    ids = array("q", [3, 4])
    index = RowIndex(ids)
    assert index[3] == 0
    ids.append(3)
    assert index[3] == 2
    assert len(index) == 2


def test_rows_that_moved_are_read_again_after_renewal() -> None:
    ids = array("q", [8, 1, 6])
    index = RowIndex(ids)
    assert 8 in index
    assert index[6] == 2
    del ids[0]
    index.renew()
    assert 8 not in index
    assert dict(index) == {1: 0, 6: 1}
    with pytest.raises(KeyError):
        index[8]
