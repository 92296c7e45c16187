from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator import (
    Arrival,
    Asking,
    ClusterConfig,
    Residual,
    SimulationResult,
    TraceModel,
    Workload,
    poisson_workload,
    run_workload,
    simulate,
    workload_at,
)
from traces.store import Trace

Configure = Callable[..., ClusterConfig]
TIGHT = EngineLimits(max_seqs=6, token_budget=64, n_pages=14, max_context=200)
MS = 1_000_000
EVEN = StepLaw(  # every step takes a millisecond
    base_s=1e-3,
    per_decode_s=0.0,
    per_kv_token_s=0.0,
    per_prompt_token_s=0.0,
    per_prompt_square_s=0.0,
)


@pytest.fixture
def serve(model: TraceModel, residual: Residual):
    def run(workload: Workload, config: ClusterConfig, **options: object) -> SimulationResult:
        return run_workload(model, residual, workload, config, verify=True, **options)

    return run


def arrival(request_id: int, at_ns: int, **changes: object) -> Arrival:
    fields = {"max_tokens": 3, "prompt_tokens": 10, "temperature": 0.8}
    own = {key: changes.pop(key) for key in tuple(changes) if key in fields}
    request = Request(request_id=request_id, **(fields | own))
    return Arrival(request=request, arrival_ns=at_ns, trace_index=request_id % 12, **changes)


def token_columns(ledger: Ledger, name: str) -> dict[int, bytes]:
    """Return a token column of each request, in position order, as bytes."""
    ids, values = ledger.tokens["request_id"], ledger.tokens[name]
    return {int(i): values[ids == i].tobytes() for i in np.unique(ids)}


def test_equal_seeds_give_equal_bytes(trace: Trace, configure: Configure) -> None:
    config = configure("full", limits=TIGHT, replicas=2, router="least_loaded")
    texts = [
        simulate(trace, config, rate_per_s=20.0, n_requests=30, seed=seed).to_json()
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_equal_seeds_give_equal_ledgers(trace: Trace, configure: Configure) -> None:
    config = configure("best", limits=TIGHT)
    one, two = (
        simulate(trace, config, rate_per_s=20.0, n_requests=20, seed=1).ledger for _ in range(2)
    )
    for ours, theirs in ((one.steps, two.steps), (one.requests, two.requests)):
        assert {k: a.tobytes() for k, a in ours.columns.items()} == {
            k: a.tobytes() for k, a in theirs.columns.items()
        }


@pytest.mark.parametrize("router", ["round_robin", "least_loaded"])
@pytest.mark.parametrize("preset", ["baseline", "full", "seed"])
def test_no_request_is_lost_under_preemption_and_cancellation(
    trace: Trace, configure: Configure, serve, preset: str, router: str
) -> None:
    asking = Asking(cancel_share=0.3, patience_s=0.2)
    workload = poisson_workload(trace, rate_per_s=60.0, n_requests=40, seed=5, asking=asking)
    result = serve(workload, configure(preset, limits=TIGHT, replicas=2, router=router))
    ledger = result.ledger
    ledger.check()
    counts = ledger.counts()
    assert sorted(ledger.row_of) == list(range(40))
    assert counts["completed"] + counts["cancelled"] == 40
    assert counts["cancelled"] > 0
    assert result.metrics["preemptions"] > 0
    for row, reason in enumerate(ledger.reasons):
        index = workload.arrivals[int(ledger.requests["request_id"][row])].trace_index
        if reason in ("stop", "length"):
            assert ledger.requests["tokens"][row] == trace.requests[index].output_tokens


@pytest.mark.parametrize("preset", ["full", "best", "seed"])
def test_temperatures_do_not_depend_on_load(
    trace: Trace, configure: Configure, serve, preset: str
) -> None:
    runs = [
        serve(poisson_workload(trace, rate_per_s=rate, n_requests=24, seed=2), configure(preset))
        for rate in (1.0, 60.0)
    ]
    batches = [run.ledger.steps["n_decode"].mean() for run in runs]
    assert batches[1] > 2 * batches[0]
    for column in ("command", "h_cal", "coverage"):
        quiet, busy = (token_columns(run.ledger, column) for run in runs)
        assert quiet == busy


def test_temperatures_do_not_depend_on_preemption(
    trace: Trace, configure: Configure, serve
) -> None:
    workload = poisson_workload(trace, rate_per_s=60.0, n_requests=24, seed=2)
    roomy, tight = (
        serve(workload, configure("sampling")),
        serve(workload, configure("sampling", limits=TIGHT)),
    )
    assert tight.metrics["preemptions"] > 0 == roomy.metrics["preemptions"]
    assert token_columns(roomy.ledger, "command") == token_columns(tight.ledger, "command")


def test_an_arrival_at_a_step_boundary_joins_the_step_that_begins_there(
    configure: Configure, serve
) -> None:
    config = configure("baseline", step_law=EVEN)
    workload = Workload(arrivals=tuple(arrival(i, i * MS) for i in range(4)))
    ledger = serve(workload, config).ledger
    assert ledger.requests["first_scheduled_ns"].tolist() == [0, MS, 2 * MS, 3 * MS]
    assert ledger.steps["now_ns"].tolist() == [i * MS for i in range(6)]


def test_arrivals_of_one_instant_start_together_on_an_idle_replica(
    configure: Configure, serve
) -> None:
    workload = Workload(arrivals=tuple(arrival(i, 7) for i in range(3)))
    ledger = serve(workload, configure("baseline", step_law=EVEN)).ledger
    assert ledger.requests["first_scheduled_ns"].tolist() == [7, 7, 7]
    assert len(ledger.steps) == 3


def test_a_cancellation_at_a_boundary_takes_effect_before_the_next_step(
    configure: Configure, serve
) -> None:
    workload = Workload(
        arrivals=(arrival(0, 0, cancel_ns=2 * MS, max_tokens=9), arrival(1, 0, max_tokens=9))
    )
    ledger = serve(workload, configure("baseline", step_law=EVEN)).ledger
    assert ledger.reasons == ["cancelled", "length"]
    assert ledger.requests["finish_ns"].tolist() == [2 * MS, 9 * MS]
    assert ledger.steps["n_decode"].tolist() == [0, 2, *[1] * 7]
    assert ledger.requests["tokens"].tolist() == [1, 9]  # its second came out as it left


def test_a_request_cancelled_on_arrival_is_counted(configure: Configure, serve) -> None:
    workload = Workload(arrivals=(arrival(0, 5, cancel_ns=5), arrival(1, 9)))
    result = serve(workload, configure("baseline", step_law=EVEN))
    assert result.ledger.reasons == ["cancelled", "length"]


def test_mean_wait_with_one_slot_is_that_of_an_m_d_1_queue(
    trace: Trace, configure: Configure, model: TraceModel, residual: Residual
) -> None:
    service_s, load, n, batches = 1e-3, 0.5, 3000, 20
    config = configure(
        "baseline",
        step_law=EVEN,
        limits=EngineLimits(max_seqs=1, token_budget=512, n_pages=100, max_context=512),
        record_tokens=False,
    )
    workload = poisson_workload(
        trace,
        rate_per_s=load / service_s,
        n_requests=n,
        seed=12,
        asking=Asking(max_tokens=1),  # one step serves a request
    )
    requests = run_workload(model, residual, workload, config).ledger.requests
    assert np.all(requests["finish_ns"] - requests["first_scheduled_ns"] == MS)
    wait_s = (requests["first_scheduled_ns"] - requests["arrival_ns"]) * 1e-9
    means = wait_s.reshape(batches, -1).mean(axis=1)
    expected_s = load * service_s / (2 * (1 - load))  # Pollaczek-Khinchine, no service variance
    half_width = 2.09 * means.std(ddof=1) / np.sqrt(batches)  # Student t, 19 degrees, 95 %
    assert half_width < 0.25 * expected_s
    assert abs(means.mean() - expected_s) < half_width


def test_littles_law_holds_for_the_decoding_population(
    trace: Trace, configure: Configure, serve
) -> None:
    workload = poisson_workload(trace, rate_per_s=30.0, n_requests=40, seed=8)
    ledger = serve(workload, configure("full")).ledger
    assert ledger.requests["preemptions"].sum() == 0
    resident_ns = (ledger.steps["n_decode"] * ledger.steps["duration_ns"]).sum()
    requests = ledger.requests
    assert resident_ns == (requests["finish_ns"] - requests["first_token_ns"]).sum()


def test_replicas_share_the_load(trace: Trace, configure: Configure, serve) -> None:
    workload = poisson_workload(trace, rate_per_s=50.0, n_requests=30, seed=4)
    one = serve(workload, configure("baseline", limits=TIGHT))
    for router in ("round_robin", "least_loaded"):
        three = serve(workload, configure("baseline", limits=TIGHT, replicas=3, router=router))
        sizes = [len(ledger.reasons) for ledger in three.ledgers]
        assert sum(sizes) == 30
        assert min(sizes) >= 6
        assert three.metrics["ttft_s"]["mean"] < one.metrics["ttft_s"]["mean"]
    rounds = serve(workload, configure("baseline", replicas=3))
    assert [len(ledger.reasons) for ledger in rounds.ledgers] == [10, 10, 10]


def test_least_loaded_avoids_the_busy_replica(configure: Configure, serve) -> None:
    later = [arrival(i, i) for i in range(1, 6)]  # 13 tokens each, all before a step has ended
    arrivals = (arrival(0, 0, max_tokens=30), *later)
    config = configure("baseline", step_law=EVEN, replicas=2, router="least_loaded")
    busy, light = serve(Workload(arrivals=arrivals), config).ledgers
    assert list(busy.row_of) == [0, 5]  # 40 tokens outstanding; the other has 0, 13, 26, 39, 52
    assert list(light.row_of) == [1, 2, 3, 4]


def test_the_horizon_leaves_the_rest_unfinished(trace: Trace, configure: Configure, serve) -> None:
    workload = poisson_workload(trace, rate_per_s=50.0, n_requests=40, seed=6)
    result = serve(workload, configure("baseline", limits=TIGHT, horizon_s=0.5))
    counts = result.ledger.counts()
    assert counts["unfinished"] > 0
    assert counts["completed"] + counts["unfinished"] == counts["submitted"] <= 40
    assert result.ledger.steps["now_ns"].max() < 500 * MS


def test_progress_reports_every_request_once(configure: Configure, serve) -> None:
    seen: list[tuple[int, int]] = []
    workload = Workload(arrivals=(arrival(0, 0), arrival(1, 0, cancel_ns=MS), arrival(2, 5 * MS)))
    config = configure("baseline", step_law=EVEN)
    serve(workload, config, progress=lambda out, total: seen.append((out, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_requests_and_gaps_are_common_to_every_rate(trace: Trace) -> None:
    slow, fast = (
        poisson_workload(trace, rate_per_s=rate, n_requests=50, seed=3) for rate in (1.0, 4.0)
    )
    assert [a.request for a in slow.arrivals] == [a.request for a in fast.arrivals]
    times = np.array([[a.arrival_ns for a in w.arrivals] for w in (slow, fast)])
    assert np.abs(times[0] - 4 * times[1]).max() <= 4


def test_recordings_are_dealt_evenly_and_lengths_stay_hidden(trace: Trace) -> None:
    workload = workload_at(trace, times_s=np.arange(30.0), seed=0)
    drawn = np.bincount([a.trace_index for a in workload.arrivals], minlength=12)
    assert set(drawn.tolist()) == {2, 3}
    for asked in workload.arrivals:
        same = [r for r in trace.requests if r.task_class == asked.request.task_class]
        assert asked.request.max_tokens == max(r.output_tokens for r in same)


def test_longer_outputs_than_recorded_are_served_and_reported(configure: Configure, serve) -> None:
    asked = dataclasses.replace(arrival(0, 0, max_tokens=100), output_tokens=90)
    result = serve(Workload(arrivals=(asked,)), configure("full"))
    assert result.ledger.requests["tokens"].tolist() == [90]
    assert result.ledger.reasons == ["stop"]
    assert result.caveats["bootstrapped_tokens"] > 40


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"rate_per_s": 0.0}, "rate_per_s"),
        ({"rate_per_s": float("inf")}, "rate_per_s"),
        ({"n_requests": 0}, "n_requests"),
    ],
)
def test_bad_loads_name_their_field(trace: Trace, bad: dict[str, float], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        poisson_workload(trace, **({"rate_per_s": 1.0, "n_requests": 3, "seed": 0} | bad))


def test_page_size_must_be_the_recorded_one(trace: Trace, configure: Configure) -> None:
    limits = EngineLimits(max_seqs=2, token_budget=64, n_pages=100, max_context=200, page_tokens=32)
    with pytest.raises(ValueError, match="page_tokens=32"):
        simulate(trace, configure("full", limits=limits), rate_per_s=1.0, n_requests=1, seed=0)
