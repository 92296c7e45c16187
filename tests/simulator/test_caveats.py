"""What a reader is told about the profile before quoting a simulated number."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from controllers.presets import get_preset
from simulator import defaults
from simulator.caveats import (
    IDEAL_KERNEL,
    PRICED_KERNEL,
    beyond_profile,
    caveat_lines,
    range_lines,
)
from simulator.scenario import build, run
from traces.profile import ProfileError, read_profile


@pytest.fixture(scope="module")
def profile():
    return read_profile(defaults.PROFILE)


def said(trace, profile):
    scenario = build(trace, profile, n_requests=4, rate_per_s=1.0)
    return caveat_lines(scenario, run(scenario, get_preset("baseline"), 0))


def test_estimated_limits_are_told_and_resolved_ones_are_not(trace, profile):
    line = "limits are estimated, not resolved from an engine"
    assert line not in said(trace, profile)
    assert line in said(trace, dataclasses.replace(profile, limits_estimated=True))


def test_a_roofline_and_a_composed_law_are_told(trace, profile):
    roofline = said(trace, dataclasses.replace(profile, kind="roofline"))
    assert any(line.startswith("the step law is a roofline") for line in roofline)
    fitted = said(trace, dataclasses.replace(profile, kind="fitted", source="who knows"))
    assert "step times are composed, not measured whole: who knows" in fitted
    measured = " ".join(said(trace, profile))
    assert "roofline" not in measured
    assert "composed" not in measured


def test_a_law_without_a_price_of_scoring_is_that_of_an_ideal_kernel(trace, profile):
    priced, free = (
        dataclasses.replace(
            profile, step_law={**profile.step_law, "per_scored_unit_s": price, "pruned_step_s": 0.0}
        )
        for price in (1e-8, 0.0)
    )
    assert IDEAL_KERNEL in said(trace, free)
    assert PRICED_KERNEL in said(trace, priced)
    assert IDEAL_KERNEL not in said(trace, priced)


def test_another_traced_model_is_told(trace, profile):
    traced = str(trace.metadata["model"])
    assert f"the traced model ({traced}) is not the planned model ({profile.model})" in said(
        trace, profile
    )
    same = dataclasses.replace(profile, model=traced)
    assert not any("planned model" in line for line in said(trace, same))


def test_a_range_exceeded_is_told_with_the_range_how_far_and_how_often(trace, profile):
    narrow = dataclasses.replace(profile, ranges={"n_decode": (1.0, 2.0)})
    scenario = build(trace, narrow, rate_per_s=1e3)
    done = run(scenario, get_preset("baseline"), 0)
    busy = done.result.ledger.steps["n_decode"]
    (line,) = range_lines(scenario, done.result.ledger)
    assert line == (
        f"n_decode was fitted from 1 to 2 and reached {busy.max()}: "
        f"{100.0 * (busy > 2).mean():.2g} % of steps lie outside"
    )
    assert line in caveat_lines(scenario, done)
    wide = dataclasses.replace(scenario, profile=dataclasses.replace(profile, ranges={}))
    assert range_lines(wide, done.result.ledger) == []


def test_steps_not_recorded_are_unchecked_only_where_limits_could_leave_the_range(trace, profile):
    roomy = {
        "n_decode": (1.0, 1e9),
        "kv_tokens_read": (0.0, 1e9),
        "prompt_tokens": (1.0, 1e9),
    }
    for ranges, unchecked in ((roomy, False), (roomy | {"n_decode": (1.0, 2.0)}, True)):
        ranged = dataclasses.replace(profile, ranges=ranges)
        scenario = dataclasses.replace(build(trace, ranged, rate_per_s=1e3), record=False)
        done = run(scenario, get_preset("baseline"), 0)
        assert len(done.result.ledger.steps) == 0
        assert ("steps_unchecked" in done.caveats) == unchecked
        if unchecked:
            n_steps = done.result.ledger.totals.n_steps
            assert beyond_profile(scenario, done.result.ledger)["steps_unchecked"] == n_steps > 0
            assert any("were not recorded" in line for line in caveat_lines(scenario, done))


def test_a_roofline_is_found_only_when_asked_for():
    with pytest.raises(ProfileError, match="no such profile"):
        defaults.find_profile("Qwen3-8B", "L4")
    assert defaults.find_profile("Qwen3-8B", "L4", roofline=True).kind == "roofline"
    assert defaults.find_profile("Llama-3.1-8B", "H100", 2).kind == "fitted"


def test_finding_a_profile_loads_no_heavy_library():
    code = (
        "import sys, json; from simulator import defaults; "
        "defaults.find_profile('Llama-3.1-8B', 'H100'); print(json.dumps(sorted(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"scipy", "pyarrow", "matplotlib", "pandas", "typer"}
