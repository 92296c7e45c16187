"""The micro loop in time: delay, noise, and what a same-step law gains."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.core import TemperatureLaw
from controllers.entropy import entropy_varentropy
from controllers.temperature import FeedforwardNewton, FixedTemperature
from tests.laws.plants import ar1, on_linear_plant
from tests.strategies import Float64, token_signal


def _limit(delay: int) -> float:
    return 2.0 * np.sin(np.pi / (4 * delay + 2))


def _spectral_radius(k: float, delay: int) -> float:
    # x+ = x - k x_{t-m}: z^{m+1} - z^m + k = 0
    polynomial = np.zeros(delay + 2)
    polynomial[:2] = 1.0, -1.0
    polynomial[-1] += k
    return float(np.abs(np.roots(polynomial)).max())


@pytest.mark.parametrize("delay", range(7))
def test_the_delay_formula_is_the_edge_of_stability_to_one_per_cent(delay: int) -> None:
    assert _spectral_radius(0.99 * _limit(delay), delay) < 1.0
    assert _spectral_radius(1.01 * _limit(delay), delay) > 1.0


def test_one_step_of_delay_halves_the_range() -> None:
    assert _limit(0) == pytest.approx(2.0)
    assert _limit(1) == pytest.approx(1.0)


@pytest.mark.parametrize("delay", [0, 1, 2])
@pytest.mark.parametrize(("share", "stable"), [(0.95, True), (1.05, False)])
def test_the_feedback_law_fed_late_obeys_the_delay_formula(
    delay: int,
    share: float,
    stable: bool,  # noqa: FBT001 - a parametrised case
) -> None:
    v = 2.0
    noise = np.zeros((400, 1))
    noise[5:] = 0.01  # a step in the open-loop entropy
    measured, _ = on_linear_plant(share * _limit(delay) / v, v, noise, delay)
    assert (np.abs(measured[-20:]).max() < 0.01) == stable


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("k", [0.1, 0.5, 1.2])
def test_the_variance_ratio_under_ar1_noise_follows_its_formula(rho: float, k: float) -> None:
    c = 1.0 - k
    ratio = 2 * (1 - rho) / ((1 + c) * (1 - c * rho))
    measured, applied = on_linear_plant(k / 2.0, 2.0, ar1(rho, 400, 800))
    assert measured[300:].var() == pytest.approx(ratio, rel=0.04)
    # Same-step application shrinks the measured error once more, by c.
    assert applied[300:].var() == pytest.approx(c * c * ratio, rel=0.04, abs=1e-3)


def test_lagged_feedback_lowers_variance_only_above_the_correlation_threshold() -> None:
    k = 0.1
    threshold = 1 / (3 - k)
    for rho, lowers in ((threshold - 0.15, False), (threshold + 0.15, True)):
        noise = ar1(rho, 400, 800)
        lagged, same_step = on_linear_plant(k / 2.0, 2.0, noise)
        assert (lagged[300:].var() < noise[300:].var()) == lowers
        assert same_step[300:].var() < noise[300:].var()


def _applied_entropies(law: TemperatureLaw, rows: Float64, x_user: float) -> Float64:
    lanes = len(rows)
    state = law.init(token_signal(lanes, x_user=x_user, target_nats=2.0))
    h, v = entropy_varentropy(rows, law.x_in(state))
    signal = token_signal(lanes, x_user=x_user, target_nats=2.0, h_in=h, v_in=v)
    return entropy_varentropy(rows, law.update(state, signal)[1])[0]


def test_newton_lowers_the_spread_of_entropy_at_equal_mean_on_independent_logits() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(800, 200)) * rng.uniform(1.0, 6.0, (800, 1))
    steered = _applied_entropies(FeedforwardNewton(), rows, np.log(0.8))
    low, high = -2.0, 2.0  # bisect the fixed ln T whose mean entropy is the same
    for _ in range(40):
        x = 0.5 * (low + high)
        fixed = _applied_entropies(FixedTemperature(), rows, x)
        low, high = (x, high) if fixed.mean() < steered.mean() else (low, x)
    assert fixed.mean() == pytest.approx(steered.mean(), abs=1e-3)
    assert steered.std() < 0.9 * fixed.std()
