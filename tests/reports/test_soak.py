"""The soak finds a leak that is planted, and calls a flat line flat."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from reports.soak.build import build
from reports.soak.commands import app
from reports.soak.gauges import Samples, resident_bytes
from reports.soak.remnants import FIRST_ID, remnants
from reports.soak.run import Plan, _slopes, soak
from reports.soak.slope import robust_slope
from reports.soak.traffic import Mix, arrivals


def small(history: int | None = 20) -> Any:
    return build(model=None, preset="full", max_seqs=4, n_pages=24, history=history, seed=3)


def noisy(
    per_request: float, *, n: int = 160, jumps: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A gauge of 500 MB with 1 MB of noise, a leak and, if asked, one lasting jump in warm-up."""
    rng = np.random.default_rng(0)
    requests = np.linspace(0, 10_000, n)
    level = 5e8 + per_request * requests + rng.normal(0.0, 2e5, n)
    level[rng.integers(0, n, 8)] += 3e7  # a garbage collection that came late
    if jumps:
        level[: n // 5] -= 4e7
    return requests, level


@pytest.mark.parametrize(
    ("per_request", "verdict"), [(0.0, "flat"), (20.0, "flat"), (2000.0, "leak")]
)
@pytest.mark.parametrize("jumps", [False, True])
def test_a_slope_stands_out_of_noise_and_outliers(per_request, verdict, jumps):
    slope = robust_slope(*noisy(per_request, jumps=jumps))
    assert slope.low <= per_request <= slope.high
    assert slope.verdict(256.0) == verdict


def test_a_slope_that_may_lie_on_either_side_is_undecided():
    slope = robust_slope(*noisy(256.0))
    assert slope.low < 256.0 < slope.high
    assert slope.verdict(256.0) == "undecided"


def test_a_slope_of_few_samples_is_refused():
    with pytest.raises(ValueError, match="a slope needs 20 samples after warm-up; got samples=18"):
        robust_slope(np.arange(24.0), np.arange(24.0))


def test_full_samples_thin_out_and_keep_their_span():
    engine, _ = small()
    samples = Samples(8)
    for n in range(21):
        samples.take(engine, requests=n, wall_s=float(n))
    seen = samples.column("requests")
    assert len(samples) <= 8
    assert (seen[0], seen[-1]) == (0.0, 20.0)
    assert np.all(np.diff(seen) > 0)
    assert np.all(samples.column("rss_bytes") > 1e7)
    assert resident_bytes() > 1e7


def test_traffic_is_the_same_for_a_seed_and_holds_every_kind_of_request():
    def first(seed: int) -> list:
        traffic = arrivals(Mix(), vocabulary=257, max_context=256, seed=seed)
        return [next(traffic) for _ in range(400)]

    assert first(1) == first(1) != first(2)
    found = first(1)
    assert {a.request.request_id for a in found} == set(range(FIRST_ID, FIRST_ID + 400))
    assert 0 < sum(not a.well_formed for a in found) < 40
    assert 0 < sum(a.cancel_after is not None for a in found) < 60
    assert any(a.request.greedy for a in found)
    assert len({a.prompt[:16] for a in found if len(a.prompt) > 60}) < 10  # beginnings are shared


def test_an_engine_that_ran_dry_holds_nothing_and_a_planted_remnant_is_found():
    engine, traffic = small()
    ids = []
    for _ in range(6):
        arrival = next(traffic)
        engine.submit(arrival.request, arrival.prompt)
        ids.append(arrival.request.request_id)
    assert len(remnants(engine, ids)) > 0  # they are being served
    while engine.loop.has_work:
        engine.step()
    assert remnants(engine, ids) == []
    engine.loop.scheduler.waiting[ids[2]] = None  # type: ignore[assignment]
    (found,) = remnants(engine, ids)
    assert f"request {ids[2]}" in found


def test_a_soak_serves_what_it_should_and_leaves_nothing():
    engine, traffic = small()
    plan = Plan(requests=100, waiting=4)
    found = soak(engine, traffic, plan)
    assert found.leftovers == []
    assert found.verdict(Plan(requests=100, rss_bound=1e9, block_bound=1e9)) == "passed"
    assert found.verdict(Plan(requests=100, rss_bound=1e9, block_bound=-1e9)) == "failed"
    assert found.finished >= 100
    assert found.reasons["length"] > 0
    assert found.reasons["cancelled"] > 0
    assert found.refused > 0
    assert found.preemptions > 0
    assert min(found.sparse_rows, found.pages_evicted, found.tokens_found) > 0
    assert len(engine.ledger.requests) < 40  # the engine forgot the others
    assert len(engine.done) <= 40
    assert set(found.slopes) == {"rss_bytes", "python_blocks"}


def test_growth_while_the_history_fills_is_no_leak():
    class Made:  # 100 kB per request up to the 40th, then nothing
        def column(self, name: str) -> np.ndarray:
            x = np.arange(160.0)
            return x if name == "requests" else 1e5 * np.minimum(x, 40)

    for full_after, verdict in ((40, "flat"), (150, None)):
        slopes = _slopes(Made(), full_after)  # type: ignore[arg-type]
        found = slopes["rss_bytes"].verdict(256.0) if slopes else None
        assert found == verdict


def test_the_command_exits_1_when_a_bound_is_passed():
    bounds = ["--rss-bound", "1e9", "--block-bound", "-1e9"]
    done = CliRunner().invoke(app, ["--requests", "100", "--history", "20", "--json", *bounds])
    assert done.exit_code == 1, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["verdict"] == "failed"
    assert metrics["verdicts"]["rss_bytes"] == "flat"
    assert metrics["leftovers"] == []


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--minutes", "-1"], "minutes=-1.0"),
        (["--minutes", "nan"], "minutes=nan"),
        (["--requests", "100", "--preset", "nope"], "unknown preset 'nope'"),
        (["--requests", "100", "--pages", "3"], "got pages=3"),
        (["--requests", "20"], "requests must be >= 100"),
        (["--requests", "0"], "requests must be >= 100"),
        (["--requests", "799"], "requests must be >= 800"),
        (["--minutes", "0.01"], "too short to judge: give --requests 800"),
    ],
)
def test_bad_input_is_one_line(arguments, names):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("soaking")]
    assert line.startswith("error: ")
    assert names in line
