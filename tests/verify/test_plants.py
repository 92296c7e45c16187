"""The plants answer as softmax rows do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.entropy import entropy_varentropy, max_varentropy
from reports.verify.hashing import uniforms
from reports.verify.plants import (
    Levels,
    Plant,
    peak_levels,
    random_rows,
    recorded_rows,
    share_out,
)
from tests.strategies import log_temperatures

SEEDS = np.arange(300)
SPREADS = np.geomspace(0.1, 20.0, 300)
RECORDED = np.arange(0, 17_000, 57)


def _levels(lanes: int) -> Levels:
    rng = np.random.default_rng(5)
    count = share_out(rng.integers(2, 50_257, lanes), rng.random((2, lanes)))
    return Levels(z=rng.uniform(-20, 20, (4, lanes)), count=count)


PLANTS: dict[str, Plant] = {
    "levels": _levels(300),
    "peak": peak_levels(np.arange(2, 302), np.zeros(300)),
    "random": random_rows(SEEDS, SPREADS),
    "recorded": recorded_rows(RECORDED),
}


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(-30, 30)), min_size=1, max_size=4),
    log_temperatures,
)
def test_levels_agree_with_their_outcomes_written_out(
    parts: list[tuple[int, float]], x: float
) -> None:
    count, z = (np.array(column, np.float64)[:, None] for column in zip(*parts, strict=True))
    h, v = Levels(z=z, count=count).response(np.array([x]))
    row = np.repeat(z[:, 0], count[:, 0].astype(int))
    np.testing.assert_allclose([h[0], v[0]], entropy_varentropy(row, x), atol=1e-9)


def test_a_level_without_outcomes_changes_nothing_however_high() -> None:
    z, count = np.array([[0.0], [2.0], [700.0]]), np.array([[3.0], [5.0], [0.0]])
    x = np.array([0.1])
    whole, part = Levels(z=z, count=count), Levels(z=z[:2], count=count[:2])
    np.testing.assert_array_equal(whole.response(x), part.response(x))


def test_peak_levels_reach_the_largest_varentropy_and_only_at_their_peak() -> None:
    n, x = np.array([2, 3, 100, 50_257]), np.log([0.4, 0.7, 1.0, 1.5])
    plant = peak_levels(n, x)
    np.testing.assert_allclose(plant.response(x)[1], [max_varentropy(int(k)) for k in n], rtol=1e-9)
    for away in (-0.05, 0.05):
        assert (plant.response(x + away)[1] < plant.response(x)[1]).all()


@given(st.integers(2, 50_257), st.floats(0, 1), st.floats(0, 1))
def test_outcomes_are_shared_out_whole_and_without_loss(n: int, first: float, then: float) -> None:
    counts = share_out(np.array([n]), np.array([[first], [then]]))[:, 0]
    assert counts.sum() == n
    assert (counts >= 0).all()
    assert (counts == np.round(counts)).all()
    assert counts[0] == 1


@pytest.mark.parametrize("kind", PLANTS)
def test_varentropy_is_the_slope_of_entropy(kind: str) -> None:
    plant, step = PLANTS[kind], 1e-6
    # Off the recorded nodes, where a cubic's second derivative jumps.
    for x in np.array([-0.6, -0.21, 0.08, 0.33]):
        at = np.full(plant.lanes, x)
        slope = (plant.response(at + step)[0] - plant.response(at - step)[0]) / (2 * step)
        np.testing.assert_allclose(plant.response(at)[1], slope, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", PLANTS)
def test_entropy_rises_with_temperature_and_stays_below_ln_n(kind: str) -> None:
    plant = PLANTS[kind]
    grid = np.linspace(np.log(0.3), np.log(1.8), 200)
    h = np.stack([plant.response(np.full(plant.lanes, x))[0] for x in grid])
    assert np.diff(h, axis=0).min() >= -1e-12
    assert (h.max(axis=0) <= plant.most_nats() + 1e-9).all()


def test_recorded_rows_hold_their_end_values_outside_the_recorded_range() -> None:
    plant = recorded_rows(RECORDED)
    for edge, beyond in ((plant.curves.x_nodes[0], -2.0), (plant.curves.x_nodes[-1], 3.0)):
        h, v = plant.response(np.full(plant.lanes, beyond))
        np.testing.assert_array_equal(h, plant.response(np.full(plant.lanes, edge))[0])
        assert (v == 0.0).all()


def test_a_random_row_depends_on_its_seed_alone() -> None:
    alone = random_rows(SEEDS[17:18], SPREADS[17:18]).z[0]
    np.testing.assert_array_equal(alone, random_rows(SEEDS, SPREADS).z[17])
    unit = random_rows(np.arange(3_000), np.ones(3_000)).z
    assert unit.mean() == pytest.approx(0.0, abs=0.01)
    assert unit.std() == pytest.approx(1.0, abs=0.01)


def test_seeded_numbers_are_uniform_and_continue_their_row() -> None:
    whole = uniforms(np.arange(2_000), 12)
    np.testing.assert_array_equal(whole[:, 5:], uniforms(np.arange(2_000), 7, 5))
    assert whole.min() >= 0.0
    assert whole.max() < 1.0
    counts = np.histogram(whole, bins=10, range=(0.0, 1.0))[0]
    np.testing.assert_allclose(counts / whole.size, 0.1, atol=0.01)
