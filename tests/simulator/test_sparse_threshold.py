"""A device that reads short contexts densely is simulated so, in every mode and with scans kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controllers.presets import get_preset
from controllers.serving.ledger import Ledger
from controllers.steplaw import StepLaw
from simulator.scenario import Scenario, build, run, trajectories_of
from traces.profile import Profile

EARLY = replace(get_preset("attention"), sparse_min_context=20, probe_every=0)
FROM = 90  # tokens: some of the recorded contexts reach it, some do not


@pytest.fixture(scope="module")
def scenario(trace, step_law: StepLaw) -> Scenario:
    limits = {
        "max_seqs": 8,
        "token_budget": 256,
        "n_pages": 400,
        "max_context": 512,
        "page_tokens": trace.metadata["page_tokens"],
    }
    profile = Profile(
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
        limits=limits,
        sparse_from_tokens=FROM,
    )
    return build(trace, profile, n_requests=20)


def without(scenario: Scenario) -> Scenario:
    return replace(scenario, profile=replace(scenario.profile, sparse_from_tokens=None))


def assert_same(one: Ledger, other: Ledger) -> None:
    for name in ("now_ns", "duration_ns", "n_decode", "page_units_read"):
        np.testing.assert_array_equal(one.steps[name], other.steps[name])
    for name in ("h_cal", "command"):
        np.testing.assert_array_equal(one.tokens[name], other.tokens[name])


@pytest.mark.parametrize("mode", ["online", "calls", "steps", "macro"])
def test_a_devices_threshold_is_that_of_a_preset_that_says_it(scenario, mode):
    scenario = replace(scenario, mode=mode)
    ours = run(scenario, EARLY, 0).result.ledger
    said = run(without(scenario), replace(EARLY, sparse_min_context=FROM), 0).result.ledger
    early = run(without(scenario), EARLY, 0).result.ledger
    assert_same(ours, said)
    read = [int(one.steps["page_units_read"].sum()) for one in (early, ours)]
    assert read[0] < read[1]


def test_scans_kept_for_later_runs_are_under_the_devices_threshold(scenario):
    kept = trajectories_of(scenario, EARLY, 0)
    assert kept is not None
    again, alone = (run(scenario, EARLY, 0, trajectories=t).result.ledger for t in (kept, None))
    assert_same(again, alone)
