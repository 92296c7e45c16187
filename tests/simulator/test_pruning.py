from __future__ import annotations

import numpy as np
import pytest

from simulator import TraceModel
from simulator.pruning import ShareTable
from traces.schema import COVERAGES
from traces.store import Trace


def test_more_coverage_never_reads_fewer_pages(model: TraceModel) -> None:
    rows = np.arange(len(model.tokens))
    levels = np.append(np.linspace(0.8, 0.99, 60), 1.0)
    shares = np.array([model.shares.share(rows, np.full(len(rows), p)) for p in levels])
    assert np.all(np.diff(shares, axis=0) >= 0.0)
    assert np.all(shares[-1] == 1.0)


def test_recorded_coverages_give_the_recorded_shares(model: TraceModel, trace: Trace) -> None:
    rows = np.arange(len(model.tokens))
    for c, coverage in enumerate(COVERAGES):
        found = model.shares.share(rows, np.full(len(rows), np.float32(coverage), float))
        np.testing.assert_allclose(found, trace.columns["kept_mean"][:, 0, c], atol=1e-6)


def test_shares_that_dip_are_raised_to_monotone() -> None:
    table = ShareTable.of(COVERAGES, np.array([[0.3, 0.2, 0.5, 0.5, 1.0 + 5e-6]]))
    assert table.shares.tolist() == [[0.3, 0.3, 0.5, 0.5, 1.0]]


def test_low_coverage_reads_the_lowest_recorded_and_is_counted(model: TraceModel) -> None:
    rows, low = np.array([0, 1, 2]), np.array([0.5, 0.8, 0.9])
    found = model.shares.share(rows, low)
    assert found[0] == model.shares.shares[0, 0]
    assert model.shares.count_below(low) == 1


def test_coverage_between_the_last_recorded_and_dense_is_an_error(model: TraceModel) -> None:
    with pytest.raises(ValueError, match=r"exactly 1; got 0\.995"):
        model.shares.share(np.array([0, 1]), np.array([0.9, 0.995]))


def test_shares_outside_the_unit_interval_are_rejected() -> None:
    with pytest.raises(ValueError, match="kept shares"):
        ShareTable.of(COVERAGES, np.array([[0.1, 0.2, 0.3, 0.4, 1.2]]))
