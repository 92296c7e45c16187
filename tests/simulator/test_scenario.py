from __future__ import annotations

import dataclasses

import pytest

from controllers.presets import get_preset
from controllers.samplers import TopP
from controllers.serving.limits import EngineLimits
from controllers.serving.metrics import summarise
from controllers.steplaw import StepLaw
from controllers.temperature import X_MAX, X_MIN
from simulator import defaults
from simulator.caveats import caveat_lines, unapplied_shift_nats
from simulator.merge import merged
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


def test_a_step_below_the_fitted_range_lies_outside_too(trace, profile):
    above_one = dataclasses.replace(profile, ranges={"prompt_tokens": (1e6, 2e6)})
    done = run(build(trace, above_one), get_preset("baseline"), 0)
    prefills = done.result.ledger.steps["prompt_tokens"] > 0
    assert done.caveats["steps_outside_profile"] == prefills.sum() > 0


def test_the_longest_prompts_last_chunk_is_held_against_the_fit(trace, profile):
    longest = max(request.prompt_tokens for request in trace.requests)
    for largest, found in ((longest**2, 0), (longest**2 - 1, longest**2)):
        fitted = dataclasses.replace(profile, ranges={"prompt_squares": (0.0, float(largest))})
        scenario = build(trace, fitted, token_budget=longest)
        done = run(scenario, get_preset("baseline"), 0)
        assert done.caveats["prompt_squares_beyond_profile"] == found
        assert any("prompt_squares" in line for line in caveat_lines(scenario, done)) == (found > 0)


def test_the_shift_that_no_run_applies_is_told(trace, profile):
    scenario = build(trace, profile)
    shifts = unapplied_shift_nats(scenario)
    assert list(shifts) == ["0.8", "0.9", "0.95", "0.98", "0.99"]
    text = " ".join(caveat_lines(scenario, run(scenario, get_preset("full"), 0)))
    assert f"{shifts['0.8']:+.3f} at 0.8" in text
    bare = synthetic_trace(SyntheticShape(n_requests=2, output_tokens=8, pruned_every=0), seed=1)
    assert unapplied_shift_nats(build(bare, profile)) == {}


def test_a_runs_metrics_are_those_of_its_ledger_and_thresholds(trace, profile):
    scenario = build(trace, profile, replicas=2)
    done = run(scenario, get_preset("full"), 1)
    expected = summarise(
        merged(done.result.ledgers),
        step_law=profile.law,
        bytes_per_page_unit=scenario.bytes_per_page_unit,
        page_tokens=scenario.limits.page_tokens,
        ttft_slo_s=scenario.ttft_slo_s,
        tpot_slo_s=scenario.tpot_slo_s,
        x_min=X_MIN,
        x_max=X_MAX,
    )
    known = {name: value for name, value in expected.items() if value is not None}
    del known["utilisation"]  # of two servers here, of one where no bill says how many were up
    assert {name: done.metrics[name] for name in known} == known


def test_a_preset_that_cuts_rows_is_refused_because_a_recording_has_none(trace, profile):
    cut = dataclasses.replace(get_preset("full"), stages=(TopP(p=0.9),))
    with pytest.raises(ValueError, match=r"a recording does not hold; got stages=\['TopP'\]"):
        run(build(trace, profile, n_requests=2), cut, 0)


@pytest.mark.parametrize("target_nats", [-0.1, 6.0, float("nan")])
def test_a_set_point_no_vocabulary_can_reach_is_refused(trace, profile, target_nats):
    with pytest.raises(ValueError, match=r"target_nats must lie in \[0, ln n = "):
        build(trace, profile, target_nats=target_nats)
