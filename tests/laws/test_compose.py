"""Wrappers: what each does to a command, and where each wants the entropy measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.compose import Chain, Delay, Gated, RateLimit, Shadow, delayed, rate_limited
from controllers.core import TokenSignal, replay
from controllers.coverage import EntropyCoverage, FixedCoverage
from controllers.temperature import EntropyFeedback, FeedforwardNewton, FixedTemperature
from tests.strategies import token_signal


def _signals(steps: int, seed: int = 0, **fields: float) -> list[TokenSignal]:
    rng = np.random.default_rng(seed)
    return [
        token_signal(3, np.float32, h_in=rng.uniform(0, 5, 3), v_in=1.0, x_user=-0.1, **fields)
        for _ in range(steps)
    ]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_delay_shifts_commands_and_begins_with_the_users(steps: int) -> None:
    signals = _signals(20)
    plain = replay(FeedforwardNewton(), signals)
    late = replay(delayed(FeedforwardNewton(), steps), signals)
    np.testing.assert_array_equal(late[steps:], plain[:-steps])
    np.testing.assert_array_equal(late[:steps], np.float32(-0.1))


def test_two_delays_add() -> None:
    signals = _signals(20)
    twice = Chain(law=FeedforwardNewton(), filters=(Delay(steps=1), Delay(steps=2)))
    np.testing.assert_array_equal(
        replay(twice, signals), replay(delayed(FeedforwardNewton(), 3), signals)
    )


@given(st.floats(0.001, 0.5))
def test_a_rate_limit_bounds_every_move_and_passes_slow_commands(rate: float) -> None:
    signals = _signals(20)
    limited = replay(rate_limited(FeedforwardNewton(), rate), signals)
    from_user = np.concatenate([np.full((1, 3), np.float32(-0.1)), limited])
    assert np.abs(np.diff(from_user, axis=0)).max() <= rate + 1e-6
    plain = replay(FeedforwardNewton(), signals)
    np.testing.assert_allclose(
        replay(rate_limited(FeedforwardNewton(), 10.0), signals), plain, rtol=1e-6
    )


def test_filters_apply_first_to_last() -> None:
    signals = _signals(10)
    chain = Chain(law=FeedforwardNewton(), filters=(RateLimit(rate=0.05), Delay(steps=1)))
    limited = replay(rate_limited(FeedforwardNewton(), 0.05), signals)
    np.testing.assert_array_equal(replay(chain, signals)[1:], limited[:-1])


def test_a_gate_gives_the_users_temperature_at_once_and_resumes_where_it_stopped() -> None:
    law, signals = Gated(law=EntropyFeedback()), _signals(30)
    off = [s._replace(enabled=np.zeros(3, np.float32)) for s in _signals(10, seed=5)]
    commands = replay(law, signals[:15] + off + signals[15:])
    np.testing.assert_array_equal(commands[15:25], np.float32(-0.1))
    never_off = replay(EntropyFeedback(), signals)
    np.testing.assert_array_equal(np.delete(commands, np.s_[15:25], axis=0), never_off)


def test_a_gate_switches_each_lane_alone() -> None:
    signals = [s._replace(enabled=np.float32([1, 0, 1])) for s in _signals(10)]
    commands = replay(Gated(law=EntropyFeedback()), signals)
    np.testing.assert_array_equal(commands[:, 1], np.float32(-0.1))
    plain = replay(EntropyFeedback(), signals)
    np.testing.assert_array_equal(commands[:, [0, 2]], plain[:, [0, 2]])


def test_a_shadow_applies_one_law_and_reports_the_other() -> None:
    signals = _signals(20)
    law = Shadow(applied=FixedTemperature(), observed=FeedforwardNewton())
    state, seen = law.init(signals[0]), []
    np.testing.assert_array_equal(law.shadow_command(state), np.float32(-0.1))
    for signal in signals:
        state, command = law.update(state, signal)
        np.testing.assert_array_equal(command, np.float32(-0.1))
        seen.append(law.shadow_command(state))
    np.testing.assert_array_equal(seen, replay(FeedforwardNewton(), signals))


def test_wrappers_measure_where_the_steering_law_wants_it() -> None:
    signals = _signals(6)
    plain = EntropyFeedback()
    wrapped = [
        delayed(plain, 2),
        Gated(law=delayed(plain)),
        Shadow(applied=FixedTemperature(), observed=Gated(law=plain)),
    ]
    state, states = plain.init(signals[0]), [law.init(signals[0]) for law in wrapped]
    for signal in signals:
        for law, inner in zip(wrapped, states, strict=True):
            np.testing.assert_array_equal(law.x_in(inner), plain.x_in(state))
        state, _ = plain.update(state, signal)
        states = [law.update(inner, signal)[0] for law, inner in zip(wrapped, states, strict=True)]


def test_coverage_wraps_with_dense_as_its_rest() -> None:
    dense = FixedCoverage()
    signals = [token_signal(dtype=np.float32, h_cal=0.0) for _ in range(30)]
    late = replay(delayed(EntropyCoverage(), 3, dense), signals)[:, 0]
    np.testing.assert_array_equal(late[:3], 1.0)
    np.testing.assert_array_equal(late[3:], replay(EntropyCoverage(), signals)[:-3, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Delay(steps=0), "one step or more; got steps=0"),
        (lambda: RateLimit(rate=0.0), "rate must be positive; got rate=0.0"),
        (lambda: Chain(law=FixedTemperature(), filters=()), "one filter or more"),
    ],
)
def test_bad_wrappers_are_refused_by_name(make: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
