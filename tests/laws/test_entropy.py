"""Entropy response: dH/dx = V, its bounds, and the mergeable pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.entropy import RowStats, entropy_varentropy, max_varentropy
from tests.strategies import Float64, log_temperatures, logits


def _by_definition(row: Float64, x: float) -> tuple[float, float]:
    p = np.exp((row - row.max()) / np.exp(x))
    p = p[p > 0] / p.sum()
    surprisal = -np.log(p)
    h = float((p * surprisal).sum())
    return h, float((p * (surprisal - h) ** 2).sum())


@given(logits(), log_temperatures)
def test_one_pass_equals_the_definition(row: Float64, x: float) -> None:
    h, v = entropy_varentropy(row, x)
    want_h, want_v = _by_definition(row, x)
    np.testing.assert_allclose(h, want_h, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(v, want_v, rtol=1e-9, atol=1e-11)


@given(logits(), log_temperatures)
def test_entropy_rises_with_log_temperature_at_the_rate_v(row: Float64, x: float) -> None:
    step = 1e-5
    rise = entropy_varentropy(row, x + step)[0] - entropy_varentropy(row, x - step)[0]
    np.testing.assert_allclose(
        rise / (2 * step), entropy_varentropy(row, x)[1], rtol=1e-5, atol=1e-7
    )


@given(logits(), log_temperatures)
def test_varentropy_lies_between_zero_and_its_largest_value(row: Float64, x: float) -> None:
    h, v = entropy_varentropy(row, x)
    outcomes = int(np.isfinite(row).sum())
    assert 0.0 <= v <= max_varentropy(outcomes) * (1 + 1e-12)
    assert 0.0 <= h <= np.log(outcomes) + 1e-12


@given(logits(), log_temperatures, st.data())
def test_chunks_merge_to_the_whole_row_in_any_order(
    row: Float64, x: float, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(row) - 1), max_size=4)))
    chunks = [RowStats.of(part) for part in np.split(row / np.exp(x), cuts)]
    merged = chunks[0]
    for chunk in data.draw(st.permutations(chunks[1:])):
        merged = RowStats.merge(chunk, merged)
    h, v = entropy_varentropy(row, x)
    np.testing.assert_allclose(merged.entropy_nats, h, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(merged.varentropy_nats2, v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "value"), [(1, 0.0), (2, 0.4392), (3, 0.7618), (50_257, 30.284)])
def test_largest_varentropy_has_the_known_values(n: int, value: float) -> None:
    assert max_varentropy(n) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("n", [2, 3, 20, 1000, 128_256])
def test_largest_varentropy_is_the_maximum_of_its_formula_and_is_attained(n: int) -> None:
    r = np.linspace(1e-6, 1 - 1e-6, 200_001)
    formula = r * (1 - r) * np.log((1 - r) * (n - 1) / r) ** 2
    assert max_varentropy(n) == pytest.approx(formula.max(), rel=1e-6)
    assert 0.25 * np.log(n - 1) ** 2 < max_varentropy(n) < 0.25 * np.log(n - 1) ** 2 + 1
    best = r[formula.argmax()]
    row = np.log(np.array([1 - best] + [best / (n - 1)] * (n - 1)))
    assert entropy_varentropy(row, 0.0)[1] == pytest.approx(max_varentropy(n), rel=1e-6)


def test_ties_single_outcomes_and_masks_are_exact() -> None:
    h, v = entropy_varentropy(np.zeros((2, 7)), np.array([-1.0, 0.5]))
    np.testing.assert_allclose(h, np.log(7))
    np.testing.assert_array_equal(v, 0.0)
    assert entropy_varentropy([3.0], 0.0) == (0.0, 0.0)
    masked = entropy_varentropy([1.0, -np.inf, 2.0], 0.3)
    np.testing.assert_array_equal(masked, entropy_varentropy([1.0, 2.0], 0.3))
    np.testing.assert_array_equal(entropy_varentropy([1e308, -1e308, 0.0], 0.0), 0.0)


def test_rounding_never_makes_varentropy_negative() -> None:
    ties = np.zeros((400, 9))
    ties[:, 8] = -np.linspace(20.0, 60.0, 400)  # all but one tied: V is a rounding error from 0
    h, v = entropy_varentropy(ties + np.random.default_rng(0).normal(size=(400, 9)) * 1e-12, 0.0)
    assert (h >= 0.0).all()
    assert (v >= 0.0).all()


def test_rows_without_a_distribution_give_nan_and_spoil_no_other_row() -> None:
    rows = np.array([[0.0, 1.0], [-np.inf, -np.inf], [np.inf, 0.0], [np.nan, 0.0]])
    h, v = entropy_varentropy(rows, 0.0)
    assert np.isnan(h[1:]).all()
    assert np.isnan(v[1:]).all()
    assert h[0] == entropy_varentropy(rows[0], 0.0)[0]


def test_an_empty_row_is_refused() -> None:
    with pytest.raises(ValueError, match="one logit or more"):
        entropy_varentropy(np.zeros((3, 0)), 0.0)
    with pytest.raises(ValueError, match="n=0"):
        max_varentropy(0)
