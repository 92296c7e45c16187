"""How fast the simulator replays the committed trace; prints requests per second, asserts none."""

from __future__ import annotations

import pytest

from controllers.presets import get_preset
from simulator import defaults
from simulator.scenario import build, run
from traces.profile import read_profile
from traces.store import read_trace


@pytest.mark.bench
@pytest.mark.parametrize("preset", ["baseline", "full"])
def test_replay_of_the_committed_trace(benchmark, preset: str) -> None:
    scenario = build(read_trace(defaults.TRACE), read_profile(defaults.PROFILE))
    found = benchmark(lambda: run(scenario, get_preset(preset), 0))
    benchmark.extra_info["requests"] = scenario.n_requests
    assert found.metrics["completed"] == scenario.n_requests
