"""Renewal processes have the moments they are asked for, and follow the rate they are given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.processes import (
    Rate,
    Renewal,
    arrivals,
    constant,
    diurnal,
    spike,
    weibull_cv,
    weibull_shape,
)


@pytest.mark.parametrize(
    ("family", "cv"),
    [("exponential", 1.0), ("gamma", 0.5), ("gamma", 3.0), ("weibull", 0.5), ("weibull", 2.5)],
)
def test_gaps_have_mean_one_and_the_coefficient_of_variation_asked_for(family: str, cv: float):
    gaps = Renewal(family=family, cv=cv).gaps(400_000, np.random.default_rng(1))
    assert gaps.mean() == pytest.approx(1.0, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


@given(cv=st.floats(0.05, 50.0))
def test_the_weibull_shape_inverts_its_coefficient_of_variation(cv: float):
    assert weibull_cv(weibull_shape(cv)) == pytest.approx(cv, rel=1e-9)


@given(
    widths=st.lists(st.floats(0.1, 10.0), min_size=0, max_size=6),
    rates=st.lists(st.floats(0.0, 5.0), min_size=7, max_size=7),
    at=st.floats(0.0, 100.0),
)
def test_the_inverse_of_a_rate_undoes_its_integral(
    widths: list[float], rates: list[float], at: float
):
    knots = np.cumsum([0.0, *widths])
    per_s = np.array(rates[: len(knots)])
    per_s[-1] += 0.5  # arrivals must not die out
    seconds = Rate(knots, per_s).inverse(np.array([at]))[0]
    grid = np.union1d(np.linspace(0.0, seconds, 20_001), knots[knots < seconds])
    expected = np.trapezoid(np.interp(grid, knots, per_s), grid)
    assert expected == pytest.approx(at, rel=1e-6, abs=1e-6)


def test_a_constant_rate_gives_its_rate():
    made = arrivals(Renewal(), constant(4.0), 50_000, np.random.default_rng(2))
    assert made.rate_per_s == pytest.approx(4.0, rel=0.02)
    assert made.times_s[0] == 0.0
    assert np.all(np.diff(made.times_s) >= 0.0)


def test_a_day_has_its_trough_at_the_start_and_its_peak_half_a_period_later():
    rate = diurnal(10.0, swing=0.8, days=1.0, period_s=1000.0)
    times = rate.inverse(np.cumsum(Renewal().gaps(9_000, np.random.default_rng(3))))
    counts, _ = np.histogram(times, bins=10, range=(0.0, 1000.0))
    assert counts[0] < 0.3 * counts[5]
    assert counts[5] == pytest.approx(10.0 * 100.0 * 1.79, rel=0.1)


def test_a_spike_multiplies_the_rate_where_it_is_and_nowhere_else():
    rate = spike(5.0, peak=6.0, at_s=100.0, width_s=20.0)
    times = rate.inverse(np.cumsum(Renewal().gaps(4_000, np.random.default_rng(4))))
    inside = ((times > 90.0) & (times < 110.0)).sum()
    assert inside == pytest.approx(20.0 * 5.0 * 3.5, rel=0.15)
    assert (times < 90.0).sum() == pytest.approx(90.0 * 5.0, rel=0.15)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Renewal(family="pareto"), "family"),
        (lambda: Renewal(family="gamma", cv=0.0), "cv"),
        (lambda: Renewal(cv=2.0), "cv"),
        (lambda: Rate(np.array([1.0]), np.array([1.0])), "t_s"),
        (lambda: Rate(np.array([0.0]), np.array([0.0])), "per_s"),
        (lambda: diurnal(1.0, swing=1.0, days=1.0), "swing"),
        (lambda: spike(1.0, peak=0.5, at_s=10.0, width_s=1.0), "peak"),
        (lambda: weibull_shape(1e9), "cv"),
    ],
)
def test_an_impossible_process_is_refused_by_name(make, named: str):
    with pytest.raises(ValueError, match=named):
        make()
