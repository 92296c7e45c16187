from __future__ import annotations

import dataclasses

import pytest

from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from simulator import defaults
from simulator.scenario import build, run
from traces.profile import Profile
from traces.synth import SyntheticShape, synthetic_trace


@pytest.fixture(scope="module")
def profile(step_law: StepLaw) -> Profile:
    limits = EngineLimits(max_seqs=8, token_budget=256, n_pages=400, max_context=512)
    return Profile(
        device="made up",
        model="made up",
        backend="none",
        dtype="float16",
        commit="none",
        created="2000-01-01T00:00:00Z",
        versions={},
        ranges={},
        fit_error={},
        step_law=step_law.to_json(),
        limits=limits.to_json(),
    )


def test_the_default_rate_is_what_one_replica_can_bear(trace, profile):
    """Throughput follows the arrivals at the default rate and stops near capacity beyond it."""
    scenario = build(trace, profile, n_requests=120)
    capacity = scenario.rate_per_s / defaults.UTILISATION
    flooded = run(scenario.at(50 * capacity), get_preset("baseline"), 0)
    throughput = flooded.metrics["throughput_requests_per_s"]
    assert throughput == pytest.approx(capacity, rel=0.15)
    calm = run(scenario, get_preset("baseline"), 0)
    assert calm.metrics["throughput_requests_per_s"] < throughput


def test_by_default_every_recorded_request_is_served_once(trace, profile):
    done = run(build(trace, profile), get_preset("baseline"), 0)
    assert done.metrics["completed"] == len(trace.requests)
    assert done.result.caveats["recordings_reused"] == 0


def test_replicas_raise_the_default_rate_in_proportion(trace, profile):
    one, three = (build(trace, profile, replicas=n).rate_per_s for n in (1, 3))
    assert three == pytest.approx(3 * one)


def test_a_profile_with_other_pages_keeps_its_pool_in_tokens(trace, profile):
    limits = defaults.limits_for(profile, page_tokens=32)
    assert limits.page_tokens == 32
    assert limits.n_pages * 32 == profile.limits["n_pages"] * profile.limits["page_tokens"]


def test_a_pool_smaller_than_the_longest_request_is_refused(trace, profile):
    with pytest.raises(ValueError, match=r"pages must hold .*pages=2"):
        build(trace, profile, pages=2)


def test_an_empty_deck_is_refused(profile):
    empty = dataclasses.replace(synthetic_trace(SyntheticShape(n_requests=1), seed=0), requests=())
    with pytest.raises(ValueError, match="requests=0"):
        build(empty, profile)


def test_steps_beyond_the_fit_are_counted(trace, profile):
    narrow = dataclasses.replace(profile, ranges={"n_decode": (0.0, 2.0)})
    wide = dataclasses.replace(profile, ranges={"n_decode": (0.0, 8.0)})
    counts = []
    for measured in (narrow, wide):
        done = run(build(trace, measured, rate_per_s=1e3), get_preset("baseline"), 0)
        counts.append(done.caveats["steps_outside_profile"])
        busy = done.result.ledger.steps["n_decode"] > measured.ranges["n_decode"][1]
        assert counts[-1] == busy.sum()
    assert counts[0] > counts[1] == 0
