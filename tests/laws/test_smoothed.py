"""Smoothed feedback and the plain limit of the feedback law: equations, gain ranges, clips, NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core import replay
from controllers.entropy import entropy_varentropy
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import EntropyFeedback
from tests.laws.plants import WIDE, on_fixed_logits
from tests.strategies import Float64, token_signal

INF = float("inf")
gains = st.floats(1e-3, 2.0)
errors = st.lists(st.floats(-5.0, 5.0), min_size=1, max_size=12)


def _plain(beta: float, gain: float) -> SmoothedFeedback:
    return SmoothedFeedback(beta=beta, gain=gain, c=INF, rate=INF, **WIDE)


def _path(
    law: SmoothedFeedback | EntropyFeedback, measured: list[float], v: float = 1.0
) -> Float64:
    return replay(law, [token_signal(h_in=h, v_in=v, target_nats=0.0) for h in measured])[:, 0]


def _on_a_line(law: SmoothedFeedback, v: float, steps: int) -> Float64:
    """Run on H = v x with set-point 0, from x = 1e-6."""
    state, path = law.init(token_signal(x_user=1e-6)), []
    for _ in range(steps):
        signal = token_signal(h_in=v * law.x_in(state), v_in=v, target_nats=0.0)
        state, command = law.update(state, signal)
        path.append(float(command[0]))
    return np.array(path)


@given(st.floats(0.05, 1.0), st.floats(1e-3, 0.3), errors)
def test_smoothed_feedback_moves_by_its_equations(
    beta: float, gain: float, measured: list[float]
) -> None:
    law = SmoothedFeedback(beta=beta, gain=gain, c=0.3, v0=0.1, rate=0.08, **WIDE)
    x = e = 0.0
    for h, command in zip(measured, _path(law, measured, v=2.0), strict=True):
        e = (1.0 - beta) * e + beta * h
        x -= min(max(min(gain, 0.3 / 2.1) * e, -0.08), 0.08)
        assert command == pytest.approx(x, abs=1e-12)


@given(gains, errors)
def test_with_beta_one_it_is_the_feedback_law(gain: float, measured: list[float]) -> None:
    smoothed = _path(SmoothedFeedback(beta=1.0, gain=gain), measured)
    np.testing.assert_allclose(smoothed, _path(EntropyFeedback(gain=gain), measured), atol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("v", [0.5, 4.0])
def test_its_gain_range_on_a_constant_slope_is_exact(beta: float, v: float) -> None:
    limit = 2.0 * (2.0 - beta) / beta / v
    inside = np.abs(_on_a_line(_plain(beta, 0.99 * limit), v, 1000))
    assert inside[-50:].max() < 1e-8
    outside = np.abs(_on_a_line(_plain(beta, 1.01 * limit), v, 400))
    assert outside.max() > 1e-3


def _on_changing_slopes(law: SmoothedFeedback | EntropyFeedback, slopes: Float64) -> Float64:
    """Run lanes on H = V_t x with set-point 0; ``slopes [steps, B]``. Return the last x."""
    state = law.init(token_signal(slopes.shape[1], x_user=1e-3))
    for v in slopes:
        signal = token_signal(len(v), h_in=v * law.x_in(state), v_in=v, target_nats=0.0)
        state, _ = law.update(state, signal)
    return law.x_in(state)


def test_slopes_that_come_and_go_break_it_where_the_plain_law_holds() -> None:
    gain = 1.1  # with V up to 1: below the plain law's 2, far below 2 (2 - .3)/.3 = 11.3
    slopes = np.tile(np.repeat([1.0, 0.0], [3, 38]), 40)[:, None]
    assert abs(_on_changing_slopes(_plain(0.3, gain), slopes)[0]) > 10 * 1e-3
    plain = EntropyFeedback(gain=gain, c=INF, rate=INF, **WIDE)
    assert abs(_on_changing_slopes(plain, slopes)[0]) <= 1e-3
    assert abs(_on_a_line(_plain(0.3, gain), 1.0, 400)[-1]) < 1e-9


@pytest.mark.parametrize("beta", [0.1, 0.3, 0.7])
def test_no_changing_slope_breaks_it_below_the_circle_bound(beta: float) -> None:
    rng, lanes = np.random.default_rng(0), 400
    runs = rng.integers(1, 60, lanes)
    steps = np.arange(800)[:, None]
    slopes = np.where((steps // runs) % 2 == 0, 1.0, rng.choice([0.0, 0.3], lanes))
    end = _on_changing_slopes(_plain(beta, 0.99 * 2.0 * beta / (2.0 - beta)), slopes)
    assert np.abs(end).max() <= 1e-3


def test_it_settles_on_fixed_logits() -> None:
    row = np.random.default_rng(0).normal(0.0, 2.0, 100)
    path = on_fixed_logits(SmoothedFeedback(), row, 0.4, 3.0, 400)
    assert entropy_varentropy(row, path[-1])[0] == pytest.approx(3.0, abs=1e-4)


def test_it_moves_less_than_the_feedback_law_on_noise() -> None:
    noise = np.random.default_rng(1).normal(0.0, 1.0, 1000).tolist()
    smoothed = np.diff(_path(_plain(0.2, 0.02), noise))
    plain = np.diff(_path(EntropyFeedback(gain=0.02, c=INF, rate=INF, **WIDE), noise))
    # The EMA of white noise has variance beta/(2 - beta) of the noise's.
    assert smoothed.std() / plain.std() == pytest.approx((0.2 / 1.8) ** 0.5, rel=0.1)


def test_a_clip_empties_the_memory_so_that_it_leaves_on_the_first_turned_error() -> None:
    law = SmoothedFeedback(beta=0.1, gain=0.05, x_min=-0.2, x_max=0.2)
    path = _path(law, [-6.0] * 60 + [1.0])
    assert path[-2] == 0.2
    assert path[-1] < 0.2


def test_without_that_the_memory_would_hold_it_on_the_clip() -> None:
    wound, beta = 6.0, 0.1  # the smoothed error after a long stay, had it been kept
    turned = 0
    while wound > 0.0:
        wound, turned = (1.0 - beta) * wound - beta * 1.0, turned + 1
    assert turned > 15


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["h_in", "v_in", "target_nats"])
def test_a_measurement_that_is_not_finite_holds_both_states(field: str, bad: float) -> None:
    law = SmoothedFeedback(c=INF)
    state, _ = law.update(law.init(token_signal()), token_signal(h_in=3.0, v_in=1.0))
    with np.errstate(invalid="ignore"):
        after, command = law.update(state, token_signal(**{"h_in": 2.0, field: bad}))
    assert (after.x, after.error, command) == (state.x, state.error, state.x)


@given(gains, st.floats(0.0, 9.0), st.floats(0.0, 30.0))
def test_with_infinite_c_and_rate_the_feedback_law_is_the_plain_one(
    gain: float, h: float, v: float
) -> None:
    law = EntropyFeedback(gain=gain, c=INF, rate=INF, **WIDE)
    command = replay(law, [token_signal(h_in=h, v_in=v, target_nats=2.0)])[0, 0]
    assert command == pytest.approx(np.clip(-gain * (h - 2.0), -19.0, 19.0), abs=1e-12)


@pytest.mark.parametrize("v", [np.nan, np.inf])
def test_the_plain_law_makes_no_move_where_the_varentropy_is_not_finite(v: float) -> None:
    law = EntropyFeedback(c=INF, rate=INF)
    with np.errstate(invalid="ignore"):
        assert replay(law, [token_signal(h_in=5.0, v_in=v, x_user=0.1)])[0, 0] == 0.1


@pytest.mark.parametrize("law", [EntropyFeedback, SmoothedFeedback])
@pytest.mark.parametrize("x_user", [-0.7, 0.0, 0.4])
def test_the_one_sided_cap_binds_however_low_the_entropy(law: type, x_user: float) -> None:
    signals = [token_signal(x_user=x_user, x_cap=x_user, v_in=0.5, target_nats=4.0)] * 50
    assert (replay(law(), signals) <= x_user).all()


@pytest.mark.parametrize(
    ("gains", "rule"),
    [
        ({"beta": 0.0}, "beta"),
        ({"beta": 1.1}, "beta"),
        ({"gain": INF}, "gain"),
        ({"gain": -0.1}, "gain"),
        ({"c": 0.0}, "c must"),
        ({"c": float("nan")}, "c must"),
        ({"rate": -1.0}, "rate"),
        ({"v0": INF}, "v0"),
        ({"x_min": 0.5, "x_max": 0.1}, "x_min < x_max"),
    ],
)
def test_bad_gains_are_refused_by_name(gains: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        SmoothedFeedback(**gains)
    if "beta" not in gains:
        with pytest.raises(ValueError, match=rule):
            EntropyFeedback(**gains)
