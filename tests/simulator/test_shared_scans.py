"""Runs of the same requests at other loads share one law scan, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from simulator.plan_point import Point, simulate_alike, simulate_point
from simulator.plan_setup import prepare
from simulator.scan_temperature import temperature_pass
from simulator.scenario import Scenario, build, run, trajectories_of
from simulator.trajectories import Trajectories
from traces.arrivals import Arrivals
from traces.profile import Profile

FULL = get_preset("full")


@pytest.fixture(scope="module")
def scenario(trace, step_law) -> Scenario:
    limits = EngineLimits(max_seqs=4, token_budget=128, n_pages=120, max_context=512)
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
        limits=limits.to_json(),
    )
    return build(trace, profile, n_requests=30)


@pytest.fixture
def scans(monkeypatch) -> list[int]:
    """Count the blocks that are scanned."""
    found: list[int] = []

    def counted(lanes, *args):
        found.append(len(lanes.ids))
        return temperature_pass(lanes, *args)

    monkeypatch.setattr("simulator.scan.temperature_pass", counted)
    return found


def rows(done) -> list[bytes]:
    return [
        column.tobytes()
        for ledger in done.result.ledgers
        for table in (ledger.requests, ledger.steps, ledger.tokens)
        for column in table.columns.values()
    ]


def test_runs_that_share_a_scan_give_the_bytes_of_runs_that_do_not(scenario, scans) -> None:
    busy = scenario.rate_per_s
    cases = [
        scenario.at(busy),
        scenario.at(4 * busy),
        replace(scenario, replicas=2),
        replace(scenario, mode="steps"),
    ]
    shared = trajectories_of(scenario, FULL, 3)
    found = [rows(run(case, FULL, 3, trajectories=shared)) for case in cases]
    assert scans == [30]
    assert found == [rows(run(case, FULL, 3)) for case in cases]
    assert len(scans) == 1 + len(cases)
    assert found[0] != found[1]  # the loads are not alike


def test_a_request_switched_off_in_one_run_is_on_in_the_next(scenario) -> None:
    workload = scenario.workload(3)
    shared = trajectories_of(scenario, FULL, 3)
    assert shared is not None
    asked = (scenario.model, replace(scenario.residual, seed=3), FULL, workload.arrivals)
    first, second = (shared.shared(*asked, seed=3) for _ in range(2))
    before = first.of(0)
    off = first.disable(0, 2)
    assert not np.array_equal(off.command, before.command)
    assert first.of(0) is off
    first.forget(0)
    assert np.array_equal(first.of(0).command, off.command)
    assert second.of(0) is shared.of(0) is before


def test_trajectories_of_other_requests_or_laws_are_refused(scenario) -> None:
    shared = trajectories_of(scenario, FULL, 3)
    with pytest.raises(ValueError, match=r"another run; got differ=\['preset'\]"):
        run(scenario, get_preset("best"), 3, trajectories=shared)
    with pytest.raises(ValueError, match=r"\['residual', 'requests', 'seed'\]"):
        run(scenario, FULL, 4, trajectories=shared)
    other = replace(scenario, asking=replace(scenario.asking, target_nats=2.0))
    with pytest.raises(ValueError, match=r"\['requests'\]"):
        run(other, FULL, 3, trajectories=shared)
    assert trajectories_of(replace(scenario, mode="online"), FULL, 3) is None
    online = replace(scenario, mode="online")
    assert rows(run(online, FULL, 3, trajectories=shared)) == rows(run(online, FULL, 3))


def test_points_of_a_plan_share_scans_and_answer_the_same(scenario, scans) -> None:
    rng = np.random.default_rng(0)
    arrivals = Arrivals(
        times_s=np.cumsum(rng.exponential(0.5, 40)),
        source="made up",
        prompt_tokens=rng.integers(20, 60, 40),
        output_tokens=rng.integers(5, 40, 40),
    )
    setup = prepare(scenario, arrivals, seed=1)
    points = [Point("full", n, rate, 1) for n in (1, 2) for rate in (2.0, 8.0)]
    alike = list(simulate_alike(setup, points))
    assert scans == [40]
    assert alike == [simulate_point(setup, point) for point in points]
    with pytest.raises(ValueError, match="one preset and draw"):
        list(simulate_alike(setup, [points[0], replace(points[0], draw=2)]))


def test_kept_trajectories_outlive_their_run(scenario) -> None:
    shared = trajectories_of(scenario, FULL, 3)
    assert isinstance(shared, Trajectories)
    run(scenario, FULL, 3, trajectories=shared)
    held = shared.of(0)
    run(scenario, FULL, 3, trajectories=shared)
    assert shared.of(0) is held
