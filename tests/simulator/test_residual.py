from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from simulator import Residual
from simulator.residual import cosine, counter_normal, response
from traces.schema import COVERAGES, PRUNED_NODES
from traces.store import Trace
from traces.synth import SyntheticShape, synthetic_trace


def factors(
    fitted: Residual,
    request: np.ndarray,
    position: np.ndarray,
    coverage: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    return fitted.factor(coverage, share, counter_normal(fitted.seed, request, position))


def test_draws_do_not_depend_on_order_or_company(residual: Residual) -> None:
    rng = np.random.default_rng(0)
    request, position = rng.integers(0, 50, 300), rng.integers(0, 500, 300)
    columns = (request, position, rng.uniform(0.8, 0.99, 300), np.full(300, 0.5))
    together = factors(residual, *columns)
    order = rng.permutation(300)
    shuffled = factors(residual, *(column[order] for column in columns))
    alone = [factors(residual, *(c[i : i + 1] for c in columns))[0] for i in range(300)]
    assert np.array_equal(shuffled, together[order])
    assert np.array_equal(alone, together)


def test_normals_are_standard_and_uncorrelated() -> None:
    request, position = np.divmod(np.arange(200_000), 500)
    z = counter_normal(4, request, position)
    n = len(z)
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1.0) < 4 * np.sqrt(2 / n)
    assert abs((z**4).mean() - 3.0) < 4 * np.sqrt(96 / n)
    for lag in (1, 2, 500):  # next position, the one after, the next request
        assert abs((z[lag:] * z[:-lag]).mean()) < 4 / np.sqrt(n)
    other = counter_normal(5, request, position)
    assert abs((z * other).mean()) < 4 / np.sqrt(n)


def test_dense_rows_have_no_residual(residual: Residual) -> None:
    lanes = np.arange(20)
    assert not factors(residual, lanes, lanes, np.ones(20), np.ones(20)).any()
    assert not factors(residual, lanes, lanes, np.full(20, 0.9), np.ones(20)).any()
    assert factors(residual, lanes, lanes, np.full(20, 0.9), np.full(20, 0.9)).all()


def test_fitted_spread_reproduces_the_recorded_one_about_its_mean(trace: Trace) -> None:
    pruned = trace.columns["h_pruned"].astype(float)
    rows = np.flatnonzero(np.isfinite(pruned).all(axis=(1, 2)))
    nodes = list(PRUNED_NODES)
    h, v = (trace.columns[name][rows][:, nodes].astype(float) for name in "hv")
    error = pruned[rows] - h[:, None]
    fitted = Residual.fit(trace)
    drawn = fitted.sigma * np.sqrt(np.square(response(h, v)).mean())
    np.testing.assert_allclose(drawn, error.std(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(fitted.bias_nats, error.mean(axis=(0, 2)), rtol=1e-12)
    assert fitted.samples == len(rows) > 0
    assert np.all(np.diff(fitted.std_nats) < 0.0)  # this recording: less coverage, more error


def test_a_shift_of_every_pruned_entropy_is_reported_and_moves_no_draw(trace: Trace) -> None:
    columns = dict(trace.columns)
    columns["h_pruned"] = columns["h_pruned"] + np.float32(0.5)
    shifted = Residual.fit(dataclasses.replace(trace, columns=columns))
    plain = Residual.fit(trace)
    np.testing.assert_allclose(shifted.bias_nats, plain.bias_nats + 0.5, atol=1e-6)
    np.testing.assert_allclose(shifted.sigma, plain.sigma, rtol=1e-4)


def test_drawn_entropy_keeps_its_mean(trace: Trace) -> None:
    fitted = Residual.fit(trace)
    h, v = trace.columns["h_cal"].astype(float), trace.columns["v_cal"].astype(float)
    lanes = np.tile(np.arange(len(h)), 40)
    n = len(lanes)
    factor = factors(fitted, lanes, np.arange(n), np.full(n, 0.9), np.full(n, 0.5))
    change = factor * response(h, v)[lanes]
    assert abs(change.mean()) < 4 * change.std() / np.sqrt(n)


def test_however_wide_the_spread_entropy_stays_positive_and_its_mean_unmoved() -> None:
    zero, n = np.zeros(len(COVERAGES)), 100_000
    wide = Residual(coverages=COVERAGES, sigma=zero + 2.0, std_nats=zero, bias_nats=zero, samples=1)
    lanes = np.arange(n)
    factor = factors(wide, lanes, lanes, np.full(n, 0.9), np.full(n, 0.5))
    h = np.random.default_rng(1).uniform(0.0, 3.0, n)
    assert np.all(h + factor * response(h, h) >= 0.0)
    assert np.mean(np.abs(factor) == 1.0) > 0.5  # the clip binds
    assert abs(factor.mean()) < 4 * factor.std() / np.sqrt(n)


def test_a_trace_without_the_subsample_gives_no_residual() -> None:
    bare = synthetic_trace(SyntheticShape(n_requests=2, output_tokens=8, pruned_every=0), seed=1)
    fitted = Residual.fit(bare)
    assert fitted.samples == 0
    assert not fitted.sigma.any()


def test_bad_spreads_are_rejected() -> None:
    zero = np.zeros(len(COVERAGES))
    with pytest.raises(ValueError, match="sigma"):
        Residual(coverages=COVERAGES, sigma=zero - 1.0, std_nats=zero, bias_nats=zero, samples=1)
    with pytest.raises(ValueError, match="coverages"):
        Residual.none(COVERAGES[::-1])


def test_the_cosine_of_a_turn_is_the_cosine() -> None:
    turn = np.concatenate([np.linspace(0.0, 1.0, 4001), np.random.default_rng(0).random(20_000)])
    assert np.abs(cosine(turn) - np.cos(2.0 * np.pi * turn)).max() < 7e-16
    assert cosine(np.array([0.25, 0.75])).tolist() == [0.0, 0.0]
    assert cosine(np.array([0.0, 0.5, 1.0])) == pytest.approx([1.0, -1.0, 1.0], abs=4e-16)
