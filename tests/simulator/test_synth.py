from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from traces.schema import COVERAGES
from traces.store import read_trace
from traces.synth import SyntheticShape, synthetic_trace, write_synthetic


def test_synthetic_trace_survives_the_file(tmp_path: Path) -> None:
    shape = SyntheticShape(n_requests=4, output_tokens=10)
    write_synthetic(tmp_path / "a.parquet", shape, seed=3)
    read, made = read_trace(tmp_path / "a.parquet"), synthetic_trace(shape, seed=3)
    assert read.requests == made.requests
    assert read.metadata == made.metadata
    assert np.array_equal(read.slices, made.slices)
    for name, values in made.columns.items():
        assert values.dtype == read.columns[name].dtype
        assert np.array_equal(values, read.columns[name], equal_nan=values.dtype.kind == "f")


def test_synthetic_rows_are_consistent() -> None:
    columns = synthetic_trace(SyntheticShape(), seed=5).columns
    assert np.all(np.diff(columns["h"], axis=1) > 0.0)  # H rises with T
    assert np.all(columns["v"] >= 0.0)
    assert np.all(columns["surprisal"] >= 0.0)
    assert np.all(np.diff(columns["kept_mean"], axis=2) >= 0.0)
    kl = columns["kl_pruned"][np.isfinite(columns["kl_pruned"]).all(axis=1)]
    assert len(kl) > 0
    assert np.all(kl > -1e-6)
    assert np.all(np.diff(kl.mean(axis=0)) < 0.0)
    assert kl.shape[1] == len(COVERAGES)


def test_entropy_is_serially_correlated() -> None:
    trace = synthetic_trace(
        SyntheticShape(n_requests=2, output_tokens=400, vocabulary=64, correlation=0.9), seed=0
    )
    for request in range(2):
        h = trace.of(request)["h_cal"]
        assert np.corrcoef(h[1:], h[:-1])[0, 1] > 0.3


@pytest.mark.parametrize(
    "bad", [{"n_requests": 0}, {"temperatures": (0.1,)}, {"correlation": 1.0}, {"vocabulary": 1}]
)
def test_impossible_shapes_are_rejected(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        SyntheticShape(**bad)
