"""Float32 sensors of the live model against the float64 definition in the control plane."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.recorder import measure_nodes
from backend.sensors import entropy_varentropy, kl_divergence, row_stats
from controllers import entropy
from tests.strategies import Float64, log_temperatures, logits
from traces.schema import X_NODES

TOLERANCE = {"rtol": 1e-5, "atol": 1e-4}  # float32 sums; V subtracts squares of up to 100 nats^2


def measured(row: Float64, x: float) -> tuple[float, float]:
    h, v = entropy_varentropy(torch.tensor(row[None], dtype=torch.float32), torch.tensor([x]))
    return float(h), float(v)


def exact(row: Float64, x: float) -> tuple[float, float]:
    h, v = entropy.entropy_varentropy(row.astype(np.float32), np.float32(x))
    return float(h), float(v)


@given(logits(), log_temperatures)
def test_entropy_and_varentropy_match_float64(row, x):
    np.testing.assert_allclose(measured(row, x), exact(row, x), **TOLERANCE)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0, 10.0])
def test_entropy_and_varentropy_match_float64_on_a_whole_vocabulary(spread):
    rows = np.random.default_rng(3).normal(0.0, spread, (4, 49_152)).astype(np.float32)
    h, v = measure_nodes(torch.from_numpy(rows))
    expected = entropy.entropy_varentropy(rows[:, None], np.float32(X_NODES))
    np.testing.assert_allclose(h, expected[0], **TOLERANCE)
    np.testing.assert_allclose(v, expected[1], rtol=1e-4, atol=5e-4)


def test_a_one_hot_row_has_no_entropy_at_any_temperature():
    row = np.full(50, -np.inf)
    row[7] = 3.0
    for x in (-3.0, 0.0, 1.0):
        assert measured(row, x) == pytest.approx((0.0, 0.0), abs=1e-30)


def test_tied_logits_have_the_entropy_of_their_number():
    row = np.full(64, -np.inf)
    row[:16] = -2.0
    h, v = measured(row, -1.0)
    assert h == pytest.approx(math.log(16), abs=1e-6)
    assert v == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("x", [-120.0, -95.0, 95.0, 120.0])
def test_sensors_stay_finite_where_the_temperature_leaves_float32(x):
    row = np.random.default_rng(0).normal(0.0, 5.0, 100)
    row[::3] = -np.inf
    h, v = measured(row, x)
    assert h == pytest.approx(0.0 if x < 0 else math.log(66), abs=1e-4)
    assert v == pytest.approx(0.0, abs=1e-4)


def test_measuring_leaves_the_logits_alone():
    rows = torch.randn(3, 40)
    before = rows.clone()
    entropy_varentropy(rows, torch.zeros(3))
    assert torch.equal(rows, before)


@given(logits())
def test_surprisal_is_minus_the_log_probability_at_one(row):
    rows = torch.tensor(row[None], dtype=torch.float32)
    token = int(row.argmax())
    expected = -float(rows.double().log_softmax(-1)[0, token])
    found = row_stats(rows, torch.zeros(1, 1)).lse[0, 0] - rows[0, token]
    assert float(found) == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 1000), st.floats(0.0, 5.0), st.booleans())
def test_kl_matches_float64_and_is_zero_between_equal_rows(seed, spread, masked):
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(2, 60, generator=generator) * 3
    q = p + torch.randn(2, 60, generator=generator) * spread
    if masked:
        p[:, 5], q[:, 5] = float("-inf"), float("-inf")
    log_p, log_q = p.double().log_softmax(-1), q.double().log_softmax(-1)
    live = log_p.isfinite()
    expected = (log_p.exp() * (log_p - log_q))[live].reshape(2, -1).sum(-1)
    torch.testing.assert_close(kl_divergence(p, q).double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.all(kl_divergence(p, p) < 1e-6)


@pytest.mark.parametrize(
    ("value", "healthy"), [(math.nan, False), (math.inf, False), (-math.inf, True), (1e30, True)]
)
def test_a_row_is_healthy_without_nan_and_plus_infinity(value, healthy):
    rows = torch.zeros(2, 30)
    rows[1, 4] = value
    assert (row_stats(rows, torch.zeros(2, 1)).argmax >= 0).tolist() == [True, healthy]


def test_a_row_with_every_token_masked_is_not_healthy():
    assert row_stats(torch.full((1, 9), -math.inf), torch.zeros(1, 1)).argmax.tolist() == [-1]
