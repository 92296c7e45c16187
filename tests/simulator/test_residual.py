from __future__ import annotations

import numpy as np
import pytest

from simulator import Residual
from simulator.residual import counter_normal, response
from traces.schema import COVERAGES, PRUNED_NODES
from traces.store import Trace
from traces.synth import SyntheticShape, synthetic_trace


def test_draws_do_not_depend_on_order_or_company(residual: Residual) -> None:
    rng = np.random.default_rng(0)
    request, position = rng.integers(0, 50, 300), rng.integers(0, 500, 300)
    coverage, share = rng.uniform(0.8, 0.99, 300), np.full(300, 0.5)
    together = residual.draw(request, position, coverage, share)
    order = rng.permutation(300)
    shuffled = residual.draw(request[order], position[order], coverage[order], share[order])
    alone = [
        residual.draw(*(column[i : i + 1] for column in (request, position, coverage, share)))[0]
        for i in range(300)
    ]
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
    assert not residual.draw(lanes, lanes, np.ones(20), np.ones(20)).any()
    assert not residual.draw(lanes, lanes, np.full(20, 0.9), np.ones(20)).any()
    assert residual.draw(lanes, lanes, np.full(20, 0.9), np.full(20, 0.9)).all()


def test_fitted_spread_reproduces_the_recorded_rms(trace: Trace) -> None:
    fitted = Residual.fit(trace)
    pruned = trace.columns["h_pruned"].astype(float)
    rows = np.flatnonzero(np.isfinite(pruned).all(axis=(1, 2)))
    nodes = list(PRUNED_NODES)
    h, v = (trace.columns[name][rows][:, nodes].astype(float) for name in "hv")
    recorded = np.sqrt(np.square(pruned[rows] - h[:, None]).mean(axis=(0, 2)))
    drawn = fitted.sigma * np.sqrt(np.square(response(h, v)).mean())
    np.testing.assert_allclose(drawn, recorded, rtol=1e-12)
    assert fitted.samples == len(rows) > 0
    assert np.all(np.diff(fitted.rms_nats) < 0.0)  # this recording: less coverage, more error


def test_drawn_entropy_keeps_its_mean(trace: Trace) -> None:
    fitted = Residual.fit(trace)
    h, v = trace.columns["h_cal"].astype(float), trace.columns["v_cal"].astype(float)
    lanes = np.tile(np.arange(len(h)), 40)
    position = np.arange(len(lanes))
    factor = fitted.draw(lanes, position, np.full(len(lanes), 0.9), np.full(len(lanes), 0.5))
    change = factor * response(h, v)[lanes]
    assert abs(change.mean()) < 4 * change.std() / np.sqrt(len(change))
    assert np.all(h[lanes] + change >= 0.0)


def test_a_trace_without_the_subsample_gives_no_residual() -> None:
    bare = synthetic_trace(SyntheticShape(n_requests=2, output_tokens=8, pruned_every=0), seed=1)
    fitted = Residual.fit(bare)
    assert fitted.samples == 0
    assert not fitted.sigma.any()


def test_bad_spreads_are_rejected() -> None:
    zero = np.zeros(len(COVERAGES))
    with pytest.raises(ValueError, match="sigma"):
        Residual(coverages=COVERAGES, sigma=zero - 1.0, rms_nats=zero, bias_nats=zero, samples=1)
    with pytest.raises(ValueError, match="coverages"):
        Residual.none(COVERAGES[::-1])
