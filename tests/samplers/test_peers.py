"""The open-loop peers and adaptive-p: formulas, direction, set-point, start."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.entropy import entropy_varentropy
from controllers.samplers import AdaptiveP, DynaTemp, Edt, Sampler
from controllers.samplers.adaptive import AdaptiveState
from controllers.temperature import X_GREEDY
from tests.samplers.plants import on_fixed_row, zipf
from tests.strategies import Float64, log_temperatures, logits, token_signal


def _x(sampler: Sampler, row: Float64, **signal: float) -> float:
    lane = token_signal(1, **signal)
    return float(sampler.shape(sampler.init(lane), row[None, :].copy(), lane).x[0])


@given(logits(), st.floats(0.1, 1.5), st.floats(0.3, 3.0), log_temperatures)
def test_dynatemp_follows_its_formula(
    row: Float64, reach: float, exponent: float, x_user: float
) -> None:
    m, user = int((row > -np.inf).sum()), math.exp(x_user)
    h = max(0.0, float(entropy_varentropy(row, 0.0)[0]))
    if m > 1 and h > 1e-6:
        low = max(0.0, user - reach)
        t = low + (user + reach - low) * min(1.0, h / math.log(m)) ** exponent
        got = _x(DynaTemp(reach=reach, exponent=exponent), row, x_user=x_user)
        assert got == pytest.approx(math.log(max(t, math.exp(X_GREEDY))), rel=1e-6, abs=1e-9)


@given(logits(), log_temperatures)
def test_dynatemp_off_is_the_user_s_temperature(row: Float64, x_user: float) -> None:
    assert _x(DynaTemp(), row, x_user=x_user) == x_user


@given(logits(), st.floats(0.1, 3.0), log_temperatures)
def test_edt_follows_its_formula(row: Float64, theta: float, x_user: float) -> None:
    h = float(entropy_varentropy(row, 0.0)[0])
    if h > 1e-6:
        t = math.exp(x_user) * 0.8 ** (theta / h)
        want = max(math.log(t) if t > 0 else -math.inf, X_GREEDY)
        assert _x(Edt(theta=theta), row, x_user=x_user) == pytest.approx(want, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("sampler", [DynaTemp(reach=0.5), DynaTemp(reach=2.0), Edt()])
def test_the_open_loop_peers_heat_as_entropy_rises(sampler: Sampler) -> None:
    base = np.random.default_rng(0).normal(0.0, 1.0, 200)
    path = [_x(sampler, base * sharpness) for sharpness in (30.0, 8.0, 4.0, 2.0, 1.0, 0.0)]
    assert (np.diff(path) > 0.0).all()


@pytest.mark.parametrize("sampler", [DynaTemp(reach=0.5), Edt()])
def test_they_keep_the_user_s_cap_and_stay_finite_on_sure_rows(sampler: Sampler) -> None:
    assert _x(sampler, np.zeros(50), x_user=0.1, x_cap=0.05) <= 0.05
    needle = np.full(50, -np.inf)
    needle[7] = 2.0
    with np.errstate(all="raise", under="ignore"):
        assert math.isfinite(_x(sampler, needle))


@given(logits(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_adaptive_p_reshapes_by_its_formula(row: Float64, target: float, mean: float) -> None:
    law = AdaptiveP(target=target)
    state = AdaptiveState(np.array([mean * 10.0]), np.array([10.0]))
    p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    d = np.abs(p - min(max(2 * target - mean, 0.0), 1.0)) / 0.3
    want = np.where(row > -np.inf, 5.0 - 10.0 * d * d / (1.0 + d), -np.inf)
    got = law.shape(state, row[None, :].copy(), token_signal()).logits[0]
    np.testing.assert_allclose(got, want, atol=1e-9)


def _at(weighted: float, weight: float) -> AdaptiveState:
    return AdaptiveState(np.full(16, weighted), np.full(16, weight))


def _railed(law: AdaptiveP, states: list[AdaptiveState]) -> float:
    aims = np.array([law.aim(state) for state in states])
    return float(((aims == 0.0) | (aims == 1.0)).mean())


def test_adaptive_p_started_at_its_set_point_does_not_rail() -> None:
    law = AdaptiveP(target=0.3, decay=0.99)
    p = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    run = on_fixed_row(law, np.log(p), 100)
    assert _railed(law, run.states) == 0.0
    picked = 2.0**-run.pre
    assert picked.mean() == pytest.approx(0.3, abs=0.03)


def test_adaptive_p_started_at_zero_aims_off_its_set_point_for_many_tokens() -> None:
    law = AdaptiveP(target=0.6, decay=0.99)
    row = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05]))
    zero = on_fixed_row(law, row, 60, state=_at(0.0, 100.0))
    assert _railed(law, zero.states[:10]) == 1.0
    assert _railed(law, on_fixed_row(law, row, 60).states[:10]) == 0.0


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.99), st.integers(0, 9))
def test_its_mean_is_the_decayed_mean_of_accepted_probabilities(
    target: float, decay: float, token: int
) -> None:
    law, lane, row = AdaptiveP(target=target, decay=decay), token_signal(), zipf(10)[None, :]
    state = law.init(lane)
    after = law.accept(state, law.shape(state, row, lane), np.array([token]))
    p = np.exp(row[0]) / np.exp(row[0]).sum()
    mean = after.weighted[0] / after.weight[0]
    assert mean == pytest.approx((1 - decay) * p[token] + decay * target)


@pytest.mark.parametrize(
    ("sampler", "gains", "rule"),
    [
        (DynaTemp, {"reach": -0.1}, "reach"),
        (DynaTemp, {"exponent": 0.0}, "exponent"),
        (Edt, {"base": 1.0}, "base"),
        (Edt, {"theta": 0.0}, "theta"),
        (AdaptiveP, {"target": -1.0}, "target"),
        (AdaptiveP, {"decay": 1.0}, "decay"),
    ],
)
def test_bad_parameters_are_refused_by_name(sampler: type, gains: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        sampler(**gains)
