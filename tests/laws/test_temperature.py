"""The micro laws on fixed logits: contraction, its edge, the sign error, clips and NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.compose import delayed
from controllers.core import replay
from controllers.entropy import entropy_varentropy, max_varentropy
from controllers.temperature import (
    X_MAX,
    X_MIN,
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)
from tests.laws.plants import WIDE, on_fixed_logits, plain_feedback
from tests.strategies import Float64, log_temperatures, logits, token_signal

shares = st.floats(0.01, 1.0)


def _entropy(row: Float64, x: float) -> float:
    return float(entropy_varentropy(row, x)[0])


@given(logits(), log_temperatures, log_temperatures, shares)
def test_feedback_never_expands_the_error_up_to_twice_the_reciprocal_of_n(
    row: Float64, x: float, goal: float, share: float
) -> None:
    gain = share * 2.0 / max_varentropy(len(row))
    path = on_fixed_logits(plain_feedback(gain), row, x, _entropy(row, goal), 1)
    assert abs(path[1] - goal) <= abs(x - goal) + 1e-9


@given(logits(), log_temperatures, log_temperatures, shares)
def test_feedback_never_overshoots_up_to_the_reciprocal_of_n(
    row: Float64, x: float, goal: float, share: float
) -> None:
    gain = share / max_varentropy(len(row))
    path = on_fixed_logits(plain_feedback(gain), row, x, _entropy(row, goal), 1)
    assert (path[1] - goal) * (x - goal) >= -1e-9


@given(logits(), log_temperatures, log_temperatures, shares)
def test_the_error_shrinks_by_one_minus_gain_times_the_secant_slope(
    row: Float64, x: float, goal: float, share: float
) -> None:
    if abs(x - goal) < 1e-3:
        return
    gain = share * 2.0 / max_varentropy(len(row))
    slope = (_entropy(row, x) - _entropy(row, goal)) / (x - goal)
    assert -1e-9 <= slope <= max_varentropy(len(row)) + 1e-9
    path = on_fixed_logits(plain_feedback(gain), row, x, _entropy(row, goal), 1)
    assert path[1] - goal == pytest.approx((1 - gain * slope) * (x - goal), abs=1e-9)


@given(logits(), log_temperatures, log_temperatures, shares, st.floats(0.01, 10.0))
def test_the_adaptive_gain_and_the_rate_limit_keep_the_bound(
    row: Float64, x: float, goal: float, share: float, c: float
) -> None:
    law = EntropyFeedback(gain=share * 2.0 / max_varentropy(len(row)), c=c, rate=0.1, **WIDE)
    path = on_fixed_logits(law, row, x, _entropy(row, goal), 5)
    errors = np.abs(path - goal)
    assert (np.diff(errors) <= 1e-9).all()


@given(log_temperatures, st.floats(0.0, 9.0), st.floats(0.0, 4.0), st.floats(0.0, 30.0))
def test_feedback_moves_by_its_equation(x: float, h: float, target: float, v: float) -> None:
    law = EntropyFeedback(gain=0.05, c=0.3, v0=0.1, rate=0.08, x_min=-1.0, x_max=0.5)
    signal = token_signal(x_user=x, h_in=h, v_in=v, target_nats=target)
    _, command = law.update(law.init(signal), signal)
    move = np.clip(min(0.05, 0.3 / (v + 0.1)) * (h - target), -0.08, 0.08)
    np.testing.assert_allclose(command, np.clip(np.clip(x, -1.0, 0.5) - move, -1.0, 0.5))


def test_a_varentropy_rounded_below_zero_counts_as_zero() -> None:
    law = EntropyFeedback(gain=10.0)  # so that c/(V + v0) is the gain
    commands = [
        replay(law, [token_signal(h_in=1.01, v_in=v, target_nats=1.0)]) for v in (0.0, -0.04)
    ]
    np.testing.assert_array_equal(*commands)


def test_the_gain_bound_is_exact_an_error_grows_just_outside_it() -> None:
    n = 50
    r = np.linspace(1e-3, 0.5, 20_000)
    r = r[(r * (1 - r) * np.log((1 - r) * (n - 1) / r) ** 2).argmax()]
    row = np.log(np.array([1 - r] + [r / (n - 1)] * (n - 1)))
    goal, limit = 0.0, 2.0 / max_varentropy(n)
    for share, grows in ((0.98, False), (1.02, True)):
        path = on_fixed_logits(plain_feedback(share * limit), row, 1e-4, _entropy(row, goal), 3)
        assert (abs(path[3]) > abs(path[0])) == grows


def test_the_seed_law_expands_the_error_wherever_entropy_responds() -> None:
    row = np.random.default_rng(0).normal(0.0, 2.0, 100)
    for eta in (0.001, 0.02, 0.1, 0.4):
        for x in (-0.2, -0.01, 0.01, 0.2):
            path = on_fixed_logits(SeedLiteral(eta=eta, **WIDE), row, x, _entropy(row, 0.0), 1)
            slope = (_entropy(row, x) - _entropy(row, 0.0)) / x
            assert path[1] == pytest.approx((1 + eta * slope) * x)
            assert abs(path[1]) > abs(x)


@pytest.mark.parametrize("start", [-0.01, 0.01])
def test_the_stability_property_that_feedback_has_fails_for_the_seed_law(start: float) -> None:
    row = np.random.default_rng(0).normal(0.0, 2.0, 100)
    target = _entropy(row, 0.0)
    corrected = on_fixed_logits(EntropyFeedback(gain=0.1), row, start, target, 400)
    printed = on_fixed_logits(delayed(SeedLiteral(eta=0.1)), row, start, target, 400)
    assert abs(corrected[-1]) < 1e-6
    rail = X_MIN if start < 0 else X_MAX
    assert (printed[-100:] == np.full(100, rail)).all()


def test_the_delayed_seed_law_is_the_printed_recursion() -> None:
    rng = np.random.default_rng(2)
    rows, target, eta, x = rng.normal(0.0, 2.0, (30, 50)), 2.0, 0.02, -0.1
    law = delayed(SeedLiteral(eta=eta))
    state = law.init(token_signal(x_user=x, target_nats=target))
    for row in rows:
        h, v = entropy_varentropy(row, x)
        np.testing.assert_allclose(law.x_in(state), x)
        signal = token_signal(h_in=h, v_in=v, x_user=-0.1, target_nats=target)
        state, command = law.update(state, signal)
        np.testing.assert_allclose(command, x)
        x = float(np.clip(x + eta * (h - target), X_MIN, X_MAX))


@given(log_temperatures, st.floats(0.0, 4.0), st.floats(0.0, 4.0), st.floats(0.0, 8.0))
def test_newton_takes_one_damped_step_from_the_users_temperature(
    x: float, h: float, target: float, v: float
) -> None:
    law = FeedforwardNewton(kappa=0.5, v_floor=0.05, reach=1.0, **WIDE)
    signal = token_signal(x_user=x, h_in=h, v_in=v, target_nats=target)
    state = law.init(signal)
    after, command = law.update(state, signal)
    want = x + 0.5 * np.clip((target - h) / max(v, 0.05), -1.0, 1.0)
    np.testing.assert_allclose(command, want)
    assert after == state


@pytest.mark.parametrize("law", [EntropyFeedback(), SeedLiteral(), FeedforwardNewton()])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["h_in", "target_nats"])
def test_a_non_finite_measurement_or_set_point_moves_nothing(
    law: EntropyFeedback, bad: float, name: str
) -> None:
    fine = token_signal(x_user=-0.2, h_in=3.0, v_in=2.0)
    state, _ = law.update(law.init(fine), fine)
    with np.errstate(invalid="ignore"):
        after, command = law.update(state, fine._replace(**{name: np.array([bad])}))
    np.testing.assert_array_equal(command, law.x_in(state))
    np.testing.assert_array_equal(law.x_in(after), law.x_in(state))


@pytest.mark.parametrize("law", [EntropyFeedback(), SeedLiteral(), FeedforwardNewton()])
def test_no_law_heats_past_the_cap_even_below_its_own_range(law: EntropyFeedback) -> None:
    for x_user in (-0.3, np.log(0.1)):
        for h in (0.0, 9.0):
            signal = token_signal(x_user=x_user, x_cap=x_user, h_in=h, v_in=1.0, target_nats=2.0)
            state = law.init(signal)
            for _ in range(20):
                state, command = law.update(state, signal)
                assert command[0] <= x_user


def test_the_fixed_law_returns_the_users_temperature_bit_for_bit() -> None:
    law = FixedTemperature()
    x = np.float32(np.log(0.7))
    signal = token_signal(dtype=np.float32, x_user=x, h_in=9.0)
    _, command = law.update(law.init(signal), signal)
    assert command.tobytes() == x.tobytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EntropyFeedback(gain=0.0), "gain must be positive; got gain=0.0"),
        (lambda: EntropyFeedback(v0=float("nan")), "v0 must be positive"),
        (lambda: EntropyFeedback(x_min=1.0, x_max=0.0), "x_min < x_max"),
        (lambda: SeedLiteral(eta=-1.0), "eta must be positive; got eta=-1.0"),
        (lambda: FeedforwardNewton(kappa=1.5), r"kappa must lie in \(0, 1\]; got kappa=1.5"),
    ],
)
def test_bad_gains_are_refused_by_name(make: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
