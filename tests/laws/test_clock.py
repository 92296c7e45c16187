"""Entropic time: what the four clocks measure, and what games the paper's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controllers.clock import drawdown_nats, net_nats, tau_nats, total_variation_nats
from controllers.entropy import entropy_varentropy

paths = st.lists(st.floats(0.0, 11.0), min_size=1, max_size=50).map(np.array)


@given(paths)
def test_the_clocks_satisfy_their_identities(h: np.ndarray) -> None:
    tau, net, variation = tau_nats(h), net_nats(h), total_variation_nats(h)
    np.testing.assert_allclose(variation, 2 * tau - net, atol=1e-9)
    np.testing.assert_allclose(net, h[0] - h[-1], atol=1e-9)
    assert tau >= 0.0
    assert max(net, 0.0) - 1e-9 <= drawdown_nats(h) <= min(tau, h[0]) + 1e-9


@given(paths, st.floats(0.0, 11.0))
def test_tau_never_runs_backwards(h: np.ndarray, following: float) -> None:
    # Up to rounding: a longer sum is added up in another order.
    assert tau_nats(np.append(h, following)) >= tau_nats(h) - 1e-12 * (1.0 + tau_nats(h))


def test_clocks_stand_still_on_short_and_constant_sequences() -> None:
    for clock in (tau_nats, net_nats, total_variation_nats, drawdown_nats):
        assert clock([]) == 0.0
        assert clock([2.0]) == 0.0
        np.testing.assert_array_equal(clock(np.full((3, 9), 1.5)), np.zeros(3))


def test_noise_alone_runs_tau_at_half_the_mean_step() -> None:
    h = 4.0 + np.random.default_rng(0).normal(size=(64, 2000))
    rate = tau_nats(h) / (h.shape[1] - 1)
    # E|difference of two unit normals| = 2/sqrt(pi)
    np.testing.assert_allclose(rate.mean(), 1.0 / np.sqrt(np.pi), rtol=0.01)
    assert abs(net_nats(h).mean()) < 1.0


def test_alternating_temperature_inflates_the_papers_tau_and_leaves_tau_at_t_cal_unmoved() -> None:
    rows = np.random.default_rng(1).normal(0.0, 2.0, (200, 300))
    alternating = np.where(np.arange(200) % 2 == 0, np.log(0.6), np.log(1.4))
    steady = entropy_varentropy(rows, 0.0)[0]
    applied = entropy_varentropy(rows, alternating)[0]
    assert tau_nats(applied) > 3 * tau_nats(steady)
    # From the heated logits a sampler sees, T_cal is recovered by undoing the applied temperature.
    heated = rows / np.exp(alternating)[:, None]
    at_cal = entropy_varentropy(heated, -alternating)[0]
    for clock in (tau_nats, net_nats, total_variation_nats, drawdown_nats):
        np.testing.assert_allclose(clock(at_cal), clock(steady), rtol=1e-9)
