"""Intervals, the comparison matrix of the two loops, and the finite-step certificate."""

from __future__ import annotations

import dataclasses
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.certificates import finite_step, small_gain
from controllers.certificates.coupling import comparison, radius_bound
from controllers.certificates.interval import box
from controllers.compose import delayed
from controllers.coverage import EntropyCoverage, FixedCoverage
from controllers.presets import get_preset
from controllers.temperature import EntropyFeedback
from tests.strategies import Float64

numbers = st.floats(-1e6, 1e6).filter(lambda x: x == 0.0 or abs(x) > 1e-250)
seeds = st.integers(0, 2**32 - 1)
OPERATORS = ("__add__", "__sub__", "__mul__", "__truediv__")


@pytest.mark.parametrize("operator", OPERATORS)
@given(numbers, numbers, numbers, numbers)
def test_intervals_enclose_what_mpmath_encloses(
    operator: str, a: float, b: float, c: float, d: float
) -> None:
    ours = (box(min(a, b), max(a, b)), box(min(c, d), max(c, d)))
    if operator == "__truediv__" and min(c, d) <= 0.0 <= max(c, d):
        with pytest.raises(ValueError, match="divisor"):
            getattr(ours[0], operator)(ours[1])
        return
    iv: Any = mpmath.iv  # its stubs know points only
    theirs = [iv.mpf([float(x.low), float(x.high)]) for x in ours]
    got, want = getattr(ours[0], operator)(ours[1]), getattr(theirs[0], operator)(theirs[1])
    for x, y in ((a, c), (a, d), (b, c), (b, d)):
        assert mpmath.mpf(float(got.low)) <= exact(operator, x, y) <= mpmath.mpf(float(got.high))
    # and no wider than need be
    assert float(got.low) == pytest.approx(float(want.a), rel=1e-14, abs=1e-300)
    assert float(got.high) == pytest.approx(float(want.b), rel=1e-14, abs=1e-300)


def exact(operator: str, a: float, b: float) -> Any:
    with mpmath.workprec(500):
        return getattr(mpmath.mpf(a), operator)(mpmath.mpf(b))


def test_a_quotient_too_large_for_a_float_has_an_infinite_end_and_no_warning() -> None:
    found = box(1.0, 4.0) / box(1e-308, 1.0)
    assert float(found.high) == np.inf
    assert float(found.low) <= 1.0


def test_one_tenth_added_ten_times_encloses_one() -> None:
    total = box(0.0)
    for _ in range(10):
        total = total + box(0.1)
    assert 1.0 in total
    assert float(total.high - total.low) < 1e-14


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
@given(seeds)
def test_the_radius_bound_encloses_the_eigenvalues_closely(scale: float, seed: int) -> None:
    m = np.random.default_rng(seed).uniform(0.0, scale, (2, 2))
    truth = np.abs(np.linalg.eigvals(m)).max()
    assert truth * (1 - 1e-12) <= radius_bound(m) <= truth * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    "m",
    [[[0.5, 2.0], [0.0, 0.7]], [[0.9, 3.0], [0.0, 0.1]], [[0.4, 0.0], [5.0, 0.4]], [[0, 0]] * 2],
)
def test_the_radius_of_a_triangular_matrix_is_its_larger_diagonal_entry(m: list) -> None:
    matrix = np.array(m, np.float64)
    assert radius_bound(matrix) == pytest.approx(np.diag(matrix).max(), abs=1e-9)


@given(seeds)
def test_the_schur_criterion_agrees_with_the_eigenvalues(seed: int) -> None:
    gain, v, h, s, b = np.random.default_rng(seed).uniform(0.0, 1.2, 5)
    numbers = [gain, v, h, s, b, 1.0 - min(b, 1.0)]
    matrix = comparison(*(box(x) for x in numbers))
    truth = np.abs(np.linalg.eigvals(matrix.upper())).max()
    verdict = small_gain(matrix)
    if abs(truth - 1.0) > 1e-6:
        assert verdict.schur == (truth < 1.0)
        assert (verdict.radius < 1.0) == (truth < 1.0)


@given(seeds)
def test_a_box_is_judged_by_its_worst_corner(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0.0, 0.5, 6)
    high = low + rng.uniform(0.0, 0.3, 6)
    verdict = small_gain(comparison(*(box(a, b) for a, b in zip(low, high, strict=True))))
    for _ in range(20):
        inside = rng.uniform(low, high)
        m = comparison(*(box(x) for x in inside)).upper()
        radius = np.abs(np.linalg.eigvals(m)).max()
        assert radius <= verdict.radius + 1e-12
        assert radius < 1.0 or not verdict.schur


def test_p10_the_coupling_is_schur_on_the_configured_gain_box() -> None:
    law = EntropyFeedback()
    assert get_preset("full").temperature.law == law  # pyright: ignore[reportAttributeAccessIssue]
    v = box(0.5, 30.284)
    gain = box(law.c / (30.284 + law.v0), law.gain)
    slope = 0.04 / 2.8  # of the coverage ramp, per nat
    verdict = small_gain(
        comparison(gain, v, box(0.0, 5.0), box(0.0), box(0.0), box(1.0), box(slope))
    )
    assert verdict.schur
    assert verdict.radius < 1.0


def test_where_the_slope_may_vanish_no_one_step_matrix_is_schur() -> None:
    v = box(0.0, 30.0)
    verdict = small_gain(comparison(box(0.03), v, box(2.0), box(0.0), box(0.0), box(1.0)))
    assert not verdict.schur
    assert verdict.radius >= 1.0


def bursts(steps: int, share: float, seed: int = 0) -> Float64:
    """Return windows of varentropy, most of it near 0, as in text; ``[16, steps]``."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((16, steps)) < share, rng.uniform(1.0, 12.0, (16, steps)), 0.0)


@pytest.mark.parametrize("name", ["full", "sampling"])
def test_windows_certify_what_single_steps_cannot(name: str) -> None:
    proof = finite_step(get_preset(name), bursts(64, 0.4), h=1.5)
    assert proof is not None
    assert proof.holds
    assert proof.bound < 1.0 <= proof.constants["one_step"]
    assert proof.constants["mean_radius"] <= proof.constants["worst_radius"] <= proof.bound


def test_the_certified_rate_bounds_the_window_products_themselves() -> None:
    v, law = bursts(64, 0.4), EntropyFeedback()
    proof = finite_step(get_preset("full"), v, h=1.5)
    assert proof is not None
    for window in v:
        product = np.eye(2)
        for t, value in enumerate(window):
            gain = min(law.gain, law.c / (value + law.v0))
            held = 1.0 if t % 8 else 0.04 / 2.8 * 1.5  # a change every 8 steps
            step = np.array([[abs(1 - gain * value), gain * 1.5], [0.0, held]])
            product = step @ product
        assert np.abs(np.linalg.eigvals(product)).max() <= proof.bound**64 * (1 + 1e-9)


def test_a_window_shorter_than_the_dwell_certifies_nothing() -> None:
    always = np.full((4, 16), 5.0)
    long, short = (finite_step(get_preset("full"), always[:, :n], h=1.5) for n in (16, 7))
    assert long is not None
    assert short is not None
    assert (long.holds, short.holds) == (True, False)


def test_a_silent_window_or_a_steep_loop_is_not_certified() -> None:
    quiet = bursts(64, 0.4)
    quiet[3] = 0.0
    steep = finite_step(get_preset("full"), bursts(64, 0.4), h=1.5, s=50.0)
    for proof in (finite_step(get_preset("full"), quiet, h=1.5), steep):
        assert proof is not None
        assert not proof.holds


def test_an_open_loop_preset_has_the_coverage_loop_alone() -> None:
    proof = finite_step(get_preset("best"), bursts(8, 0.5), h=1.5)
    assert proof is not None
    assert proof.bound == pytest.approx(1.5 * 0.04 / 2.8)
    assert finite_step(get_preset("seed"), bursts(8, 0.5), h=1.5) is None


def test_a_coverage_that_never_answers_forgets_errors_at_once() -> None:
    proof = finite_step(get_preset("baseline"), bursts(8, 0.5), h=1.5)
    assert proof is not None
    assert "at once" in proof.statement
    assert proof.bound < 1e-300


def test_coverage_that_reads_the_applied_t_is_not_certified_under_a_dwell() -> None:
    """Held coverage shrinks no error, however small its slope; nor is a filter's memory in M."""
    always, preset = np.full((4, 16), 5.0), get_preset("full")
    for dwell, holds in ((1, True), (8, False)):
        given = dataclasses.replace(preset, coverage=EntropyCoverage(dwell=dwell))
        proof = finite_step(given, always, h=1.5, s=0.01)
        assert proof is not None
        assert proof.holds is holds
    late = dataclasses.replace(preset, coverage=delayed(EntropyCoverage(), 3, FixedCoverage()))
    assert finite_step(late, always, h=1.5) is None


def test_windows_of_the_wrong_shape_or_sign_are_refused() -> None:
    with pytest.raises(ValueError, match="v_windows"):
        finite_step(get_preset("full"), np.ones(4), h=1.0)
    with pytest.raises(ValueError, match="varentropy"):
        finite_step(get_preset("full"), -np.ones((2, 4)), h=1.0)
