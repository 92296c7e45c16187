"""The tube under noise and drift, the variance ratio, and laws at their clips."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.certificates import (
    bypass,
    cap,
    iss,
    least_correlation,
    reachable,
    require_target,
    same_step_variance_ratio,
    saturates,
    variance,
    variance_ratio,
    windup,
)
from controllers.compose import Gated, delayed, rate_limited
from controllers.core import TemperatureLaw
from controllers.entropy import entropy_varentropy
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import (
    X_MAX,
    X_MIN,
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)
from tests.laws.plants import WIDE, ar1, on_fixed_logits, on_linear_plant
from tests.strategies import Float64, log_temperatures, logits, token_signal

gains = st.floats(0.02, 0.5)


def in_a_tube(
    law: TemperatureLaw, v: Float64, noise: Float64, drift: Float64, start: float
) -> Float64:
    """Run a law from ``start`` off x* on H - H* = v_t (x - x*_t) + noise_t; return u - x*, [t, B].

    ``noise`` ``[t]`` pushes away from x*, ``drift`` ``[t]`` moves x* away from the command.
    """
    lanes = v.shape[1]
    state, goal = law.init(token_signal(lanes, x_user=start)), np.zeros(lanes)
    errors = []
    for slope, push, move in zip(v, noise, drift, strict=True):
        side = np.where(law.x_in(state) >= goal, 1.0, -1.0)
        goal = goal - side * move
        error = law.x_in(state) - goal
        h = slope * error - side * push
        signal = token_signal(lanes, h_in=h, v_in=slope, target_nats=0.0)
        state, command = law.update(state, signal)
        errors.append(command - goal)
    return np.array(errors)


@given(
    gains, st.floats(0.1, 1.0), st.floats(1.0, 3.5), st.floats(0.0, 0.5), st.integers(0, 2**32 - 1)
)
def test_errors_stay_in_the_certified_tube(
    gain: float, mu: float, top: float, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    law = EntropyFeedback(gain=gain, c=rng.uniform(0.1, 1.0), v0=0.05, rate=0.1, **WIDE)
    drift = rng.uniform(0.0, 0.1)
    proof = iss(law, mu, noise, drift, v_max=top)
    assert proof is not None
    if not proof.holds or proof.bound > 15.0:
        return  # the clips are at 19
    v = rng.choice([mu, top, 0.5 * (mu + top)], (40, 24))
    errors = in_a_tube(law, v, np.full(40, noise), np.full(40, drift), proof.bound)
    assert np.abs(errors).max() <= proof.bound + 1e-9


def test_the_tube_is_reached_by_steady_noise_and_drift() -> None:
    law, mu, noise, drift = EntropyFeedback(gain=0.1, c=0.3, rate=0.1, **WIDE), 2.0, 0.2, 0.01
    proof = iss(law, mu, noise, drift, v_max=mu)
    assert proof is not None
    assert proof.bound == pytest.approx(noise / mu + drift * (1 - 0.2) / 0.2)
    errors = in_a_tube(law, np.full((400, 1), mu), np.full(400, noise), np.full(400, drift), 0.0)
    assert 0.999 * proof.bound < errors[-1, 0] <= proof.bound


def test_without_slope_or_against_a_fast_drift_there_is_no_tube() -> None:
    law = EntropyFeedback()
    for mu, noise, drift in ((0.0, 0.1, 0.0), (1.0, 0.0, 0.11)):
        proof = iss(law, mu, noise, drift)
        assert proof is not None
        assert not proof.holds
        assert proof.bound == math.inf
    lost = in_a_tube(law, np.full((100, 1), 5.0), np.zeros(100), np.full(100, 0.11), 0.0)
    assert np.all(np.diff(np.abs(lost[20:, 0])) > 0.0)


def test_a_late_actuator_widens_the_tube_by_its_drift() -> None:
    law = EntropyFeedback()
    near, far = iss(law, 1.0, 0.1, 0.02), iss(delayed(law, 3), 1.0, 0.1, 0.02)
    assert near is not None
    assert far is not None
    assert far.bound == pytest.approx(near.bound + 3 * 0.02)
    assert iss(rate_limited(law, 0.01), 1.0, 0.1, 0.02) is None
    assert iss(SmoothedFeedback(), 1.0, 0.1, 0.02) is None


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_p11_the_variance_ratios_are_those_of_simulated_ar1_entropy(rho: float) -> None:
    k = 0.4
    lagged, same = on_linear_plant(k, 1.0, ar1(rho, 4000, 120))
    assert lagged[60:].var() == pytest.approx(variance_ratio(k, rho), rel=0.03)
    assert same[60:].var() == pytest.approx(same_step_variance_ratio(k, rho), rel=0.03)


@given(st.floats(0.01, 1.99), st.floats(-0.99, 0.99))
def test_late_feedback_helps_exactly_above_the_least_correlation(k: float, rho: float) -> None:
    if abs(rho - least_correlation(k)) < 1e-9:
        return
    assert (variance_ratio(k, rho) < 1.0) == (rho > least_correlation(k))


def test_the_variance_certificate_counts_the_adapted_gain() -> None:
    proof = variance(EntropyFeedback(), 20.0, 0.2)
    assert proof is not None
    assert proof.constants["k"] == pytest.approx(20.0 * 0.3 / 20.05)
    late = variance(EntropyFeedback(), 20.0, 0.2, same_step=False)
    assert late is not None
    assert (proof.holds, late.holds) == (True, False)
    assert variance(FixedTemperature(), 20.0, 0.2) is None


def behind(law: TemperatureLaw, steps: int) -> TemperatureLaw:
    return delayed(law, steps) if steps else law


@pytest.mark.parametrize(("steps", "ratio"), [(0, 0.45), (1, 1.25), (2, None)])
def test_a_delayed_command_has_the_variance_of_late_feedback(
    steps: int, ratio: float | None
) -> None:
    plain = EntropyFeedback(gain=0.04, c=math.inf, rate=math.inf, **WIDE)
    law = behind(plain, steps)
    proof = variance(law, 10.0, 0.0)
    assert (None if proof is None else proof.bound) == (ratio and pytest.approx(ratio))
    disturbance = ar1(0.0, 4000, 120)
    state, entropies = law.init(token_signal(4000)), []
    for a in disturbance:
        h = a + 10.0 * law.x_in(state)
        state, x = law.update(state, token_signal(4000, h_in=h, v_in=10.0, target_nats=0.0))
        entropies.append(a + 10.0 * x)
    if proof is not None:
        assert np.array(entropies)[60:].var() == pytest.approx(proof.bound, rel=0.03)
        assert variance(law, 10.0, 0.0, same_step=False) is None or steps == 0


@pytest.mark.parametrize("law", [EntropyFeedback(), SmoothedFeedback(), FeedforwardNewton()])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_certified_law_leaves_its_clip_at_once(law: TemperatureLaw, side: float) -> None:
    proof = windup(law)
    assert proof is not None
    assert proof.holds
    state = law.init(token_signal())
    for _ in range(100):  # H* far out of reach
        state, _ = law.update(state, token_signal(h_in=5.0, v_in=1.0, target_nats=5.0 + 4.0 * side))
    rail = law.update(state, token_signal(h_in=5.0, v_in=1.0, target_nats=5.0 + 4.0 * side))[1]
    for _ in range(int(proof.bound)):
        signal = token_signal(h_in=5.0, v_in=1.0, target_nats=5.0 - 0.5 * side)
        state, command = law.update(state, signal)
    assert side * (float(rail[0]) - float(command[0])) > 1e-3


def test_the_printed_law_never_leaves_its_clip() -> None:
    law = SeedLiteral()
    proof = windup(Gated(law=law))
    assert proof is not None
    assert (proof.holds, proof.kind) == (False, "exact")
    state = law.init(token_signal(x_user=X_MAX))
    for _ in range(50):  # too hot at the hot clip, and it heats
        state, command = law.update(state, token_signal(h_in=3.0, v_in=1.0, target_nats=1.0))
    assert float(command[0]) == X_MAX


@given(logits(), log_temperatures, st.floats(0.3, 3.0), st.sampled_from([-1.0, 1.0]))
def test_an_unreachable_target_ends_at_the_nearer_clip_in_the_certified_steps(
    row: Float64, x: float, gap: float, side: float
) -> None:
    law, end = EntropyFeedback(), X_MAX if side > 0 else X_MIN
    at_end = float(entropy(row, end))
    proof = saturates(law, gap)
    assert proof is not None
    if proof.bound > 120:
        return
    path = on_fixed_logits(law, row, x, at_end + side * gap, int(proof.bound))
    assert path[-1] == pytest.approx(end, abs=1e-9)
    assert np.all(side * np.diff(path) >= 0.0)


@pytest.mark.parametrize("strides", [3, 5, 6, 11, 40])
def test_strides_summed_in_float32_still_end_in_the_certified_steps(strides: int) -> None:
    law = EntropyFeedback(gain=10.0, c=math.inf, rate=(X_MAX - X_MIN) / strides)
    proof = saturates(law, 4.0)
    assert proof is not None
    signal = token_signal(dtype=np.float32, h_in=5.0, v_in=1.0, target_nats=9.0, x_user=X_MIN)
    state = law.init(signal)
    for _ in range(int(proof.bound)):
        state, command = law.update(state, signal)
    assert command[0] == np.float32(X_MAX)


def entropy(row: Float64, x: float) -> float:
    return float(entropy_varentropy(row, x)[0])


def test_a_target_is_reachable_between_the_entropies_at_the_clips() -> None:
    assert reachable(0.5, 2.0, 1.0)
    assert not reachable(0.5, 2.0, 0.4)
    assert not reachable(0.5, 2.0, 2.1)


@pytest.mark.parametrize("target", [-0.1, 10.9, math.nan, math.inf])
def test_a_target_that_no_distribution_has_is_refused_by_name(target: float) -> None:
    with pytest.raises(ValueError, match="target_nats must lie in"):
        require_target(target)
    require_target(math.log(50_257))
    require_target(0.0)


def test_the_cap_and_the_bypass_are_certified_for_our_laws() -> None:
    for law in (EntropyFeedback(), Gated(law=delayed(SeedLiteral())), FixedTemperature()):
        proof = cap(law)
        assert proof is not None
        assert proof.holds
    assert bypass(EntropyFeedback()) is None
    proof = bypass(Gated(law=EntropyFeedback()))
    assert proof is not None
    assert proof.bound == 0.0
