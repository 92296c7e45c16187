from __future__ import annotations

import numpy as np
import pytest

from reports.statistics import Interval, across, flatten, interval, nested, paired, paired_pct


def test_the_interval_is_students():
    found = interval([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302652729911275 / 3**0.5)  # t of 2 degrees, 97.5 %


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        found = interval(rng.normal(3.0, 2.0, 5).tolist())
        assert found is not None
        assert found.half is not None
        hits += abs(found.mean - 3.0) <= found.half
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)  # three standard errors


def test_one_value_has_no_interval_and_excludes_nothing():
    assert interval([2.0]) == Interval(2.0, None)
    assert not Interval(2.0, None).excludes_zero


def test_a_missing_value_makes_the_mean_missing():
    assert interval([1.0, None]) is None
    assert interval([]) is None


def test_pairing_removes_what_seeds_share():
    noise = np.random.default_rng(1).normal(0.0, 10.0, 6)
    reference = [{"x": 100.0 + e} for e in noise]
    runs = [{"x": 101.0 + e} for e in noise]
    alone, pairs = across(runs)["x"], paired(runs, reference)["x"]
    assert alone is not None
    assert pairs is not None
    assert pairs.mean == pytest.approx(1.0)
    assert pairs.half == pytest.approx(0.0, abs=1e-9)
    assert alone.half is not None
    assert alone.half > 1.0


def test_percentages_are_of_each_pairs_own_reference():
    found = paired_pct([{"x": 2.0}, {"x": 30.0}], [{"x": 1.0}, {"x": 20.0}])["x"]
    assert found is not None
    assert found.mean == pytest.approx(75.0)
    assert paired_pct([{"x": 1.0}], [{"x": 0.0}])["x"] is None


def test_nesting_undoes_flattening():
    metrics = {"ttft_s": {"mean": 1.0, "p95": 4.0}, "cost_s": 2.0, "jain": None}
    tree = nested(across([flatten(metrics), flatten(metrics)]))
    assert tree["ttft_s"] == {"ci95": {"mean": 0.0, "p95": 0.0}, "mean": 1.0, "p95": 4.0}
    assert tree["cost_s"] == {"mean": 2.0, "ci95": 0.0}
    assert tree["jain"] == {"mean": None, "ci95": None}
