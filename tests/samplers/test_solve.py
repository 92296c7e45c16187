"""The same-step solvers: they meet the set-point where it can be met, and say where it cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.entropy import entropy_varentropy
from controllers.samplers import DeadBeat, EntropixTempTune
from controllers.samplers.solve import curvature
from controllers.temperature import X_MAX, X_MIN
from tests.strategies import Float64, log_temperatures, logits, token_signal

RANDOM = np.random.default_rng(0).normal(0.0, 2.0, (200, 300))


def _solve(row: Float64, target: float, law: DeadBeat | None = None, **signal: float) -> tuple:
    law = law or DeadBeat()
    lane = token_signal(1, target_nats=target, **signal)
    shaped = law.shape(law.init(lane), row[None, :].copy(), lane)
    x = float(shaped.x[0])
    return x, float(shaped.memo.rail[0]), float(entropy_varentropy(row, x)[0]), shaped


@given(logits(), log_temperatures, log_temperatures)
def test_dead_beat_meets_the_set_point_wherever_it_can_be_met(
    row: Float64, goal: float, x_user: float
) -> None:
    target = float(entropy_varentropy(row, goal)[0])
    x, rail, h, _ = _solve(row, target, x_user=x_user)
    assert X_MIN <= x <= X_MAX
    if X_MIN <= goal <= X_MAX:
        assert abs(h - target) <= 2e-6
        assert rail == 0.0


@pytest.mark.parametrize("gap", [1e-3, 0.5, 5.0, 60.0, 1e4])
@pytest.mark.parametrize("goal", [-15.0, -4.0, 0.0, 3.0, 8.0])
def test_it_meets_it_on_needles_across_a_range_of_seventeen_orders(gap: float, goal: float) -> None:
    row = np.zeros(1000)
    row[0] = gap
    target = float(entropy_varentropy(row, goal)[0])
    _, _, h, _ = _solve(row, target, DeadBeat(steps=64, x_min=-19.0, x_max=19.0))
    assert abs(h - target) <= 2e-6


@pytest.mark.parametrize("n", [300, 1000])
def test_a_set_point_out_of_reach_ends_on_the_nearest_rail_and_is_reported(n: int) -> None:
    row = np.random.default_rng(1).normal(0.0, 2.0, n)
    assert _solve(row, 0.0)[:2] == (pytest.approx(X_MIN), -1.0)
    assert _solve(row, math.log(n))[:2] == (pytest.approx(X_MAX), 1.0)


def test_a_uniform_row_meets_only_the_entropy_it_has() -> None:
    row = np.zeros(8)
    assert _solve(row, math.log(8))[1] == 0.0
    assert _solve(row, 1.0)[1] == -1.0
    assert _solve(row, 2.5)[1] == 1.0


def test_the_rail_enters_the_state_only_when_the_token_is_accepted() -> None:
    law, row = DeadBeat(), RANDOM[:2]
    lane = token_signal(2, target_nats=9.0)
    state = law.init(lane)
    shaped = law.shape(state, row, lane)
    assert (state.rail == 0.0).all()
    after = law.accept(state, shaped, np.array([4, -1]))
    assert after.rail.tolist() == [1.0, 0.0]


def test_the_cap_holds_against_a_set_point_above_it() -> None:
    x, rail, *_ = _solve(RANDOM[0], 5.0, x_user=-0.5, x_cap=-0.5)
    assert (x, rail) == (-0.5, 1.0)
    assert _solve(RANDOM[0], 0.1, x_user=-2.0, x_cap=-2.0)[0] == -2.0  # below x_min: the cap wins


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_set_point_that_is_not_finite_leaves_the_user_s_temperature(bad: float) -> None:
    with np.errstate(invalid="ignore"):
        x, rail, *_ = _solve(RANDOM[0], bad, x_user=0.2)
    assert (x, rail) == (0.2, 0.0)


def test_it_meets_the_set_point_in_float32_within_its_rounding() -> None:
    lane = token_signal(200, np.float32, target_nats=2.0)
    law, rows32 = DeadBeat(), RANDOM.astype(np.float32)
    shaped = law.shape(law.init(lane), rows32, lane)
    assert shaped.x.dtype == np.float32
    inside = shaped.memo.rail == 0.0
    h, _ = entropy_varentropy(rows32, shaped.x)
    assert inside.mean() > 0.9
    assert np.abs(h[inside] - 2.0).max() < 1e-5


@given(logits(), st.floats(0.3, 3.0))
def test_the_curvature_is_the_second_derivative_and_the_published_one_is_not(
    row: Float64, t: float
) -> None:
    step = 1e-4 * t
    h = [float(entropy_varentropy(row, math.log(t + k * step))[0]) for k in (-1, 0, 1)]
    here, mu2, mu3 = (float(a[0]) for a in curvature(row[None, :], np.array([t])))
    assert here == pytest.approx(h[1], abs=1e-9)
    assert mu2 / t == pytest.approx((h[2] - h[0]) / (2 * step), abs=1e-4)
    second = (h[2] - 2 * h[1] + h[0]) / step**2
    scale = max(1.0, abs(mu3), mu2) / t**2
    assert -(mu3 + 3 * mu2) / t**2 == pytest.approx(second, abs=1e-3 * scale)
    if abs(mu3) > 0.1 * max(1.0, mu2):
        assert -(2 * mu3 + 3 * mu2) / t**2 != pytest.approx(second, abs=0.05 * scale)


def _tune(target: float, **gains: float) -> tuple[Float64, Float64, Float64]:
    law = EntropixTempTune(**gains)
    lane = token_signal(200, target_nats=target)
    shaped = law.shape(law.init(lane), RANDOM, lane)
    return shaped.x, entropy_varentropy(RANDOM, shaped.x)[0], shaped.memo.rail


@pytest.mark.parametrize("moment", [1.0, 2.0])
def test_temp_tune_meets_ordinary_set_points_within_its_ten_steps(moment: float) -> None:
    _, h, rail = _tune(2.5, moment=moment)
    assert np.abs(h - 2.5).max() < 1e-5
    assert (rail == 0.0).all()


def test_the_true_second_derivative_is_closer_after_three_steps() -> None:
    missed = {m: np.abs(_tune(2.5, moment=m, steps=3)[1] - 2.5).mean() for m in (1.0, 2.0)}
    assert missed[1.0] < missed[2.0]


def test_temp_tune_follows_its_published_iteration() -> None:
    row, target, t = RANDOM[3], 2.0, 1.0
    for _ in range(10):
        log_p = row / t - np.log(np.exp(row / t).sum())
        p = np.exp(log_p)
        mean = (p * log_p).sum()
        mu2, mu3 = ((p * (log_p - mean) ** k).sum() for k in (2, 3))
        error, slope, bend = -mean - target, mu2 / t, -(2 * mu3 + 3 * mu2) / t**2
        if abs(error) >= 1e-6:
            step = 2 * error * slope / (2 * slope * slope - error * bend)
            t -= np.clip(step, -t / 2, t / 2)
    assert _tune(2.0)[0][3] == pytest.approx(math.log(t), abs=1e-9)


def test_temp_tune_reports_what_ten_steps_cannot_reach() -> None:
    assert (_tune(math.log(300) + 0.5)[2] == 1.0).all()
    assert (_tune(-0.5)[2] == -1.0).all()


@pytest.mark.parametrize(
    ("sampler", "gains", "rule"),
    [
        (DeadBeat, {"steps": 0}, "steps"),
        (DeadBeat, {"tol": 0.0}, "tol"),
        (DeadBeat, {"x_min": 1.0, "x_max": 0.0}, "x_min < x_max"),
        (EntropixTempTune, {"steps": 0}, "steps"),
        (EntropixTempTune, {"moment": 3.0}, "moment"),
        (EntropixTempTune, {"t_min": 2.0, "t_max": 1.0}, "t_min < t_max"),
    ],
)
def test_bad_parameters_are_refused_by_name(
    sampler: type, gains: dict[str, float], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        sampler(**gains)
