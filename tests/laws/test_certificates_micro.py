"""Certificates of the micro loop: each exact range breaks just outside, each bound holds inside."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.certificates import (
    cap,
    delay,
    delay_limit,
    linear_delay_limit,
    settles,
    stability,
)
from controllers.certificates.feedback import smooth_linear_limit, smooth_monotone_limit
from controllers.certificates.lateness import swing
from controllers.compose import Chain, Delay, Gated, Shadow, delayed, rate_limited
from controllers.coverage import FixedCoverage
from controllers.entropy import entropy_varentropy, max_varentropy
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)
from tests.laws.plants import WIDE, on_fixed_logits
from tests.strategies import Float64, log_temperatures, logits, token_signal

N = 40  # outcomes of the test rows
NEVER = {"c": math.inf, "rate": math.inf, **WIDE}


def steepest_row(n: int) -> Float64:
    """Return logits whose varentropy at T = 1 is N_n (README, "Largest varentropy")."""
    u = np.linspace(0.0, 4.0, 400_001)
    best = u[np.argmin(np.abs(np.tanh(u / 2) * (u + math.log(n - 1)) - 2.0))]
    row = np.zeros(n)
    row[0] = best + math.log(n - 1)
    assert float(entropy_varentropy(row, 0.0)[1]) == pytest.approx(max_varentropy(n), rel=1e-9)
    return row


def plain(share: float, n: int = N) -> EntropyFeedback:
    """Return the plain law with gain N_n = ``share``."""
    return EntropyFeedback(gain=share / max_varentropy(n), **NEVER)


def entropy(row: Float64, x: float) -> float:
    return float(entropy_varentropy(row, x)[0])


@given(logits(N), log_temperatures, log_temperatures, st.floats(0.01, 2.0))
def test_a_certified_loop_never_expands_an_error(
    row: Float64, x: float, goal: float, share: float
) -> None:
    law = plain(share)
    proof = stability(law, N)
    assert proof is not None
    assert proof.holds
    assert proof.kind == "exact"
    errors = np.abs(on_fixed_logits(law, row, x, entropy(row, goal), 12) - goal)
    assert np.all(errors <= proof.bound * errors[0] + 1e-9)


def test_just_past_the_exact_range_an_error_grows() -> None:
    law = plain(2.001)
    proof = stability(law, N)
    assert proof is not None
    assert not proof.holds
    assert proof.kind == "exact"
    errors = np.abs(on_fixed_logits(law, steepest_row(N), 1e-4, entropy(steepest_row(N), 0.0), 50))
    assert errors.max() > 1.02 * errors[0]


@given(logits(N), log_temperatures, log_temperatures, st.floats(0.1, 2.0), st.floats(0.05, 2.0))
def test_an_adaptive_gain_and_a_rate_limit_keep_the_range(
    row: Float64, x: float, goal: float, share: float, c: float
) -> None:
    gain = share / max_varentropy(N)
    law = EntropyFeedback(gain=gain, c=c, v0=0.05, rate=0.07, **WIDE)
    proof = stability(law, N)
    assert proof is not None
    assert proof.holds
    errors = np.abs(on_fixed_logits(law, row, x, entropy(row, goal), 12) - goal)
    assert np.all(errors <= errors[0] + 1e-9)


@given(logits(N), log_temperatures, log_temperatures, st.floats(0.01, 1.0))
def test_a_loop_certified_to_settle_never_turns_back(
    row: Float64, x: float, goal: float, share: float
) -> None:
    law = plain(share)
    proof = settles(law, N)
    assert proof is not None
    assert proof.holds
    path = on_fixed_logits(law, row, x, entropy(row, goal), 12)
    turned = np.abs(np.diff(path)).sum() - abs(path[-1] - path[0])
    assert turned <= proof.bound + 1e-9


def test_past_twice_the_reciprocal_of_n_the_loop_cycles_for_ever() -> None:
    law, row = plain(2.1), steepest_row(N)
    proof = settles(law, N)
    assert proof is not None
    assert (proof.kind, proof.holds) == ("exact", False)
    tail = on_fixed_logits(law, row, 0.01, entropy(row, 0.0), 2000)[-64:]
    assert np.abs(np.diff(tail)).sum() - abs(tail[-1] - tail[0]) > 1.0


@pytest.mark.parametrize("eta", [1e-4, 0.1, 3.0])
def test_no_gain_of_the_printed_law_is_stable(eta: float) -> None:
    law = SeedLiteral(eta=eta)
    proof = stability(delayed(law), N)
    assert proof is not None
    assert (proof.kind, proof.holds) == ("exact", False)
    row = steepest_row(N)
    errors = np.abs(on_fixed_logits(law, row, 1e-3, entropy(row, 0.0), 20))
    assert np.all(np.diff(errors) > 0.0) or errors[-1] > 0.5  # growing, or already at a clip


def test_laws_without_feedback_are_stable_whatever_the_logits() -> None:
    for law in (FixedTemperature(), FeedforwardNewton(), Gated(law=FeedforwardNewton(kappa=1.0))):
        for proof in (stability(law), settles(law), delay(law)):
            assert proof is not None
            assert proof.holds


@pytest.mark.parametrize("wrap", [delayed, lambda law: rate_limited(law, 0.01)])
def test_an_open_loop_law_behind_a_filter_may_leave_x_and_has_no_certificate(wrap: Any) -> None:
    law = wrap(FeedforwardNewton(kappa=1.0))
    row = np.concatenate([[7.0], np.zeros(N - 1)])
    path = on_fixed_logits(law, row, -0.5, entropy(row, -0.3), 200)
    assert abs(path[-1] + 0.3) > 1.5 * abs(path[0] + 0.3)
    assert stability(law, N) is None
    assert delay(law, N) is None
    for proof in (settles(law, N), stability(wrap(FixedTemperature()), N)):
        assert proof is not None
        assert proof.holds


def test_a_filter_that_begins_elsewhere_is_not_judged() -> None:
    hot = FixedCoverage(coverage=1.0)  # as ln T: e
    law = Chain(law=EntropyFeedback(), filters=(Delay(steps=2, start=hot),))
    signal = token_signal(x_user=-0.5, x_cap=-0.5)
    assert float(law.update(law.init(signal), signal)[1][0]) > -0.5
    assert cap(law) is None
    assert stability(law) is None


def test_a_late_sensor_is_certified_from_rest_only() -> None:
    proof = delay(plain(1.0), N, delay_steps=1)
    assert proof is not None
    assert proof.holds
    assert any("stood still" in words for words in proof.assumptions)


def test_wrappers_that_leave_the_recursion_alone_keep_its_range() -> None:
    good, bad = plain(1.9), plain(2.1)
    for wrap in (lambda law: Gated(law=law), delayed, lambda law: rate_limited(law, 0.01)):
        inside, outside = stability(wrap(good), N), stability(wrap(bad), N)
        assert inside is not None
        assert outside is not None
        assert (inside.holds, outside.holds) == (True, False)
    assert stability(Shadow(applied=good, observed=bad), N) is None
    assert stability(Shadow(applied=FixedTemperature(), observed=bad), N) is not None


@pytest.mark.parametrize("rate", [0.02, math.inf])
@pytest.mark.parametrize("beta", [0.1, 0.3, 0.7, 1.0])
def test_smoothing_never_overshoots_up_to_its_limit(beta: float, rate: float) -> None:
    law = SmoothedFeedback(beta=beta, gain=1.0, c=2.0, v0=1.0, rate=rate, **WIDE)
    patterns = np.random.default_rng(0).choice([0.0, 0.3, 1.0], (64, 2000))
    x = smoothed_path(law, smooth_monotone_limit(beta) * patterns)
    assert np.all(x >= -1e-12)
    assert np.all(np.diff(x, axis=0) <= 1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.3, 0.7])
def test_smoothing_overshoots_and_then_diverges_just_past_its_limits(beta: float) -> None:
    law = SmoothedFeedback(beta=beta, gain=1.0, **NEVER)
    past = smoothed_path(law, np.full((400, 1), 1.05 * smooth_monotone_limit(beta)))
    assert past.min() < -1e-12
    edge = smooth_linear_limit(beta)
    within = np.abs(smoothed_path(law, np.full((1500, 1), 0.99 * edge)))
    beyond = np.abs(smoothed_path(law, np.full((300, 1), 1.01 * edge)))
    assert within[-2:].max() < 1e-3
    assert beyond[-2:].max() > 2.0


def smoothed_path(law: SmoothedFeedback, v: Float64) -> Float64:
    """Run a law from ln T = 1 on H - H* = v_t x, v ``[t, B]``; return x, ``[t, B]``."""
    lanes = v.shape[1]
    state = law.init(token_signal(lanes, x_user=1.0))
    path = []
    for slope in v:
        h = slope * law.x_in(state)
        state, x = law.update(state, token_signal(lanes, h_in=h, v_in=slope, target_nats=0.0))
        path.append(x)
    return np.array(path)


def test_smoothed_feedback_is_certified_in_its_monotone_range_only() -> None:
    limit = smooth_monotone_limit(0.5) / max_varentropy(N)
    inside = stability(SmoothedFeedback(beta=0.5, gain=0.99 * limit), N)
    outside = stability(SmoothedFeedback(beta=0.5, gain=1.01 * limit), N)
    assert inside is not None
    assert outside is not None
    assert (inside.holds, outside.holds, outside.kind) == (True, False, "sufficient")
    wild = SmoothedFeedback(beta=0.5, gain=1.01 * smooth_linear_limit(0.5) / max_varentropy(N))
    proof = stability(wild, N)
    assert proof is not None
    assert not proof.holds


def late_path(law: EntropyFeedback, v: Float64, delay_steps: int, x0: float = 1.0) -> Float64:
    """Run a law on H - H* = v_t x seen ``delay_steps`` late, from ln T = x0; ``[m + t + 1, B]``."""
    lanes = v.shape[1]
    state = law.init(token_signal(lanes, x_user=x0))
    path = [law.x_in(state)] * (delay_steps + 1)
    for slope in v:
        signal = token_signal(lanes, h_in=slope * path[-1 - delay_steps], target_nats=0.0)
        state, x = law.update(state, signal)
        path.append(x)
    return np.array(path)


@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_a_late_loop_within_its_limit_never_swings_past_the_first_error(late: int) -> None:
    law, rng = EntropyFeedback(gain=1.0, **NEVER), np.random.default_rng(0)
    v = delay_limit(late) * rng.choice([0.0, 1.0], (96, 4000), p=[0.2, 0.8])
    assert np.abs(late_path(law, v, late)).max() <= 1.0 + 1e-9


@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_just_past_the_linear_limit_a_late_loop_diverges(late: int) -> None:
    law, edge = EntropyFeedback(gain=1.0, **NEVER), linear_delay_limit(late)
    slopes = np.broadcast_to(edge * np.array([0.98, 1.02]), (600, 2))
    within, beyond = np.abs(late_path(law, slopes, late))[-64:].max(axis=0)
    assert within < 0.2
    assert beyond > 2.0


def test_the_two_delay_limits_meet_at_delays_of_none_and_one() -> None:
    for late in (0, 1):
        assert delay_limit(late) == pytest.approx(linear_delay_limit(late))
    assert delay_limit(2) == pytest.approx(2.0 - math.sqrt(2.0))
    assert delay_limit(3) < linear_delay_limit(3)
    assert swing(1.0, 1) == pytest.approx(1.0)


def test_the_default_gain_is_certified_one_step_late_and_left_open_two_late() -> None:
    for late, holds in ((0, True), (1, True), (2, False)):
        proof = delay(Gated(law=EntropyFeedback()), delay_steps=late)
        assert proof is not None
        assert proof.holds is holds
        assert proof.constants["local_k"] < proof.constants["linear_limit"]
        assert proof.constants["swing_x"] == pytest.approx(0.1 * (late + 1))


@pytest.mark.parametrize("late", [1, 2, 4])
def test_under_a_rate_limit_no_late_error_outgrows_m_plus_one_strides(late: int) -> None:
    v = np.random.default_rng(0).uniform(0.0, 50.0, (96, 2000))
    law = EntropyFeedback(gain=1.0, c=math.inf, rate=0.1, **WIDE)
    worst = np.abs(late_path(law, v, late, x0=0.01)).max()
    assert 0.05 < worst <= (late + 1) * law.rate + 1e-9
