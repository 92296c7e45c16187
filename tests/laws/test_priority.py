"""Priority laws: which way each term pulls, and the aging bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core import LoadSignal
from controllers.priority import EntropyPriority, Fcfs, PriorityLaw, SeedPriority
from tests.strategies import load_signal

unit = st.floats(0.0, 1.0, width=32)


@st.composite
def requests(draw: st.DrawFn) -> LoadSignal:
    """Draw one fresh request, light or heavy, late or early."""
    return load_signal(
        slack_s=draw(st.floats(-100, 100)),
        cost_s=draw(st.floats(0, 50)),
        pages_held=draw(st.integers(0, 5000)),
        pages_needed=draw(st.integers(0, 5000)),
        collapse_nats=draw(st.floats(0, 11)),
        completion=draw(unit),
    )


def _priority(law: PriorityLaw, signal: LoadSignal) -> np.ndarray:
    return law.update(law.init(signal), signal)[1]


@given(requests(), st.floats(-20, 20), st.floats(-20, 20))
def test_urgency_raises_our_priority_and_lowers_the_seeds(
    request: LoadSignal, a: float, b: float
) -> None:
    late, early = (request._replace(slack_s=np.float32([x])) for x in sorted((a, b)))
    assert _priority(EntropyPriority(), late) >= _priority(EntropyPriority(), early)
    assert _priority(SeedPriority(), late) <= _priority(SeedPriority(), early)


@given(requests(), unit)
def test_both_priorities_follow_their_equations(request: LoadSignal, wait_s: float) -> None:
    signal = request._replace(wait_s=np.float32([wait_s]))
    slack, cost, collapse, completion = (
        float(getattr(signal, name)[0])
        for name in ("slack_s", "cost_s", "collapse_nats", "completion")
    )
    pages = float(signal.pages_held[0] + signal.pages_needed[0])
    urgency = float(np.clip(1.0 - slack / 4.0, 0.0, 1.0))
    law = EntropyPriority(
        rho_u=2.0,
        rho_c=3.0,
        alpha=0.5,
        beta=0.01,
        c_min=0.2,
        pi_max=5.0,
        kappa=0.7,
        slack_scale_s=4.0,
    )
    value = (collapse + 2.0 * urgency + 3.0 * completion) / max(0.2, 0.5 * cost + 0.01 * pages)
    np.testing.assert_allclose(
        _priority(law, signal), np.clip(value, 0.0, 5.0) + 0.7 * wait_s, rtol=1e-5, atol=1e-6
    )
    seed = SeedPriority(alpha=0.5, beta=0.01, gamma=1.5, slack_scale_s=4.0)
    price = max(1e-6, 0.5 * cost + 0.01 * pages + 1.5 * urgency)
    np.testing.assert_allclose(_priority(seed, signal), collapse / price, rtol=1e-4, atol=1e-30)


def test_the_seed_demotes_a_late_request_strictly() -> None:
    signal = load_signal(2, slack_s=[-5.0, 15.0])
    ours, seeds = _priority(EntropyPriority(), signal), _priority(SeedPriority(), signal)
    assert ours[0] > ours[1]
    assert seeds[0] < 0.2 * seeds[1]


@given(requests(), st.sampled_from(["completion", "wait_s", "collapse_nats"]), unit, unit)
def test_completion_wait_and_collapse_raise_priority(
    request: LoadSignal, name: str, a: float, b: float
) -> None:
    less, more = (request._replace(**{name: np.float32([x])}) for x in sorted((a, b)))
    assert _priority(EntropyPriority(), less) <= _priority(EntropyPriority(), more)


@given(requests(), st.sampled_from(["cost_s", "pages_held", "pages_needed"]), unit, unit)
def test_cost_and_pages_lower_priority(request: LoadSignal, name: str, a: float, b: float) -> None:
    less, more = (request._replace(**{name: np.float32([1e3 * x])}) for x in sorted((a, b)))
    for law in (EntropyPriority(), SeedPriority()):
        assert _priority(law, less) >= _priority(law, more)


@given(requests(), requests(), st.floats(1.0, 100.0), st.floats(0.01, 5.0))
def test_after_the_longest_wait_nothing_fresh_outranks(
    aged: LoadSignal, fresh: LoadSignal, pi_max: float, kappa: float
) -> None:
    law = EntropyPriority(pi_max=pi_max, kappa=kappa)
    waited = aged._replace(wait_s=np.float32([law.max_wait_s * 1.000001]))
    assert _priority(law, waited) >= _priority(law, fresh)


def test_a_stream_of_fresh_arrivals_starves_the_seeds_waiter_for_ever_and_ours_not_at_all() -> None:
    # The waiter: resolved (its entropy is frozen while it waits), heavy, and long since late.
    waits = np.arange(0.0, 1000.0, 1.0)
    waiter = load_signal(
        1000, wait_s=waits, age_s=waits, slack_s=10.0 - waits, collapse_nats=0.05, cost_s=2.0
    )
    fresh = load_signal(1000, collapse_nats=0.7)
    assert (_priority(SeedPriority(), waiter) < _priority(SeedPriority(), fresh)).all()
    law = EntropyPriority()
    outranked = _priority(law, waiter) < _priority(law, fresh)
    assert outranked.any()
    assert not outranked[waits >= law.max_wait_s].any()


@given(requests())
def test_every_priority_is_clipped_below_pi_max_plus_aging(request: LoadSignal) -> None:
    law = EntropyPriority()
    assert 0.0 <= _priority(law, request)[0] <= law.pi_max


def test_a_value_too_large_for_float32_is_worth_the_most_and_not_nothing() -> None:
    law = EntropyPriority(rho_u=1e38)
    late = load_signal(slack_s=-1.0, cost_s=0.0, pages_needed=0.0)
    with np.errstate(over="ignore"):
        assert _priority(law, late)[0] == law.pi_max


def test_first_come_first_served_orders_by_age() -> None:
    signal = load_signal(3, age_s=[2.0, 9.0, 4.0], collapse_nats=[9.0, 0.0, 1.0])
    assert list(np.argsort(-_priority(Fcfs(), signal))) == [1, 2, 0]


def test_only_the_seed_lets_small_requests_past_a_head_that_does_not_fit() -> None:
    assert Fcfs.reserves
    assert EntropyPriority.reserves
    assert not SeedPriority.reserves


def test_the_longest_wait_is_a_minute_by_default() -> None:
    assert EntropyPriority().max_wait_s == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EntropyPriority(kappa=0.0), "kappa must be positive; got kappa=0.0"),
        (lambda: EntropyPriority(rho_u=-1.0), "rho_u must be >= 0; got rho_u=-1.0"),
        (lambda: SeedPriority(gamma=float("inf")), "gamma must be positive"),
    ],
)
def test_bad_gains_are_refused_by_name(make: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
