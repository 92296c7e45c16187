"""The calibration temperature: found where planted, stationary, and refused where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.calibration import Source, fit_temperature, moments
from controllers.entropy import entropy_varentropy


def _sampled(true_temperature: float, rows: int, n: int, seed: int) -> Source:
    """Return logits and tokens drawn from them at ``true_temperature``."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0.0, 3.0, (rows, n))
    tokens = (z / true_temperature + rng.gumbel(size=z.shape)).argmax(axis=1)
    return lambda: [(z[: rows // 2], tokens[: rows // 2]), (z[rows // 2 :], tokens[rows // 2 :])]


@pytest.mark.parametrize("planted", [0.5, 1.0, 1.7])
def test_a_planted_temperature_is_found(planted: float) -> None:
    found = fit_temperature(_sampled(planted, 20_000, 30, seed=1))
    assert found.t_cal == pytest.approx(planted, rel=0.03)
    assert found.after.nll_nats <= found.before.nll_nats + 1e-12
    # Tokens sampled colder than T = 1 are likelier than the entropy at 1 says, and the reverse.
    if planted != 1.0:
        assert np.sign(found.before.entropy_calibration_error) == np.sign(planted - 1.0)


@given(st.integers(0, 10_000), st.floats(0.4, 2.5))
def test_the_entropy_calibration_error_is_zero_at_the_optimum(seed: int, planted: float) -> None:
    source = _sampled(planted, 60, 8, seed)
    found = fit_temperature(source)
    assert abs(found.after.entropy_calibration_error) < 1e-7
    for nearby in (0.97, 1.03):
        assert moments(source, found.t_cal * nearby).nll_nats >= found.after.nll_nats


def test_moments_agree_with_the_exact_entropy_and_a_plain_likelihood() -> None:
    source = _sampled(1.0, 50, 12, seed=3)
    z = np.concatenate([batch[0] for batch in source()])
    tokens = np.concatenate([batch[1] for batch in source()])
    z[:, 4] = -np.inf
    tokens[tokens == 4] = 5
    found = moments(lambda: [(z, tokens)], 0.7)
    scaled = z / 0.7
    logp = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    assert found.nll_nats == pytest.approx(-logp[np.arange(50), tokens].mean())
    assert found.entropy_nats == pytest.approx(float(entropy_varentropy(z, np.log(0.7))[0].mean()))


def test_a_sample_without_an_optimum_is_refused() -> None:
    z = np.random.default_rng(0).normal(size=(20, 6))
    with pytest.raises(ValueError, match=r"must lie inside \[0.05, 20.0\]"):
        fit_temperature(lambda: [(z, z.argmax(axis=1))])
    with pytest.raises(ValueError, match="one held-out token or more"):
        fit_temperature(list)
    masked = z.copy()
    masked[0, 2] = -np.inf
    with pytest.raises(ValueError, match="must have mass"):
        fit_temperature(lambda: [(masked, np.full(20, 2))])
    with pytest.raises(ValueError, match="logits"):
        fit_temperature(lambda: [(z, np.zeros(3, int))])
