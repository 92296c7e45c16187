from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from controllers.serving.ledger import NEVER
from controllers.serving.request import Request
from simulator import Arrival, ClusterConfig, Residual, TraceModel
from simulator.description import Admission, Autoscale, ClusterPlan, Failures, Group
from simulator.server import FAILED, LOST, REJECTED
from tests.simulator.clusters import LIMITS, MS, Serve, arrival, cluster, outage


@pytest.fixture(scope="module")
def serve(model: TraceModel, residual: Residual, configure: Callable[..., ClusterConfig]) -> Serve:
    return Serve(model, residual, configure)


def test_a_crashed_servers_requests_complete_elsewhere_from_their_start(serve) -> None:
    plan = cluster(failures=Failures(outages=(outage(0, 3.5, 100.0),)))
    result = serve([arrival(0, 0, 9), arrival(1, 0, 9)], plan)
    first, second = result.ledgers
    assert first.reasons == [LOST]
    assert first.requests["tokens"].tolist() == [3]
    assert second.reasons == ["stop", "stop"]
    ledger = result.ledger
    assert ledger.requests["request_id"].tolist() == [0, 1]
    assert ledger.requests["arrival_ns"].tolist() == [0, 0]
    assert ledger.requests["tokens"].tolist() == [9, 9]
    # Request 0 finds server 1 in the middle of the step from 3 to 4 ms.
    assert ledger.requests["first_scheduled_ns"].tolist() == [4 * MS, 0]
    assert ledger.requests["first_token_ns"].tolist() == [5 * MS, MS]
    assert result.metrics["retries"] == 1
    assert result.metrics["lost_tokens"] == 3
    assert result.metrics["crashes"] == 1
    ledger.check()


def test_a_gap_over_a_crash_is_counted_from_the_last_service_before_it(serve) -> None:
    plan = cluster(1, failures=Failures(outages=(outage(0, 3.5, 20.0),)))
    result = serve([arrival(0, 0, 9)], plan)
    assert result.ledger.requests["arrival_ns"].tolist() == [0]
    again_ns = int(result.ledger.requests["first_scheduled_ns"][0])
    assert again_ns == 23_500_000 + 1  # a nanosecond after its server came up
    assert result.ledger.requests["max_service_gap_ns"].tolist() == [again_ns - 3 * MS]


def test_a_recovered_machine_brings_a_new_server_with_a_new_ledger(serve) -> None:
    plan = cluster(1, failures=Failures(outages=(outage(0, 2.5, 10.0),)))
    result = serve([arrival(0, 0, 4), arrival(1, 5, 4)], plan)
    assert len(result.ledgers) == 2
    assert result.ledgers[0].reasons == [LOST]
    assert sorted(result.ledgers[1].row_of) == [0, 1]
    assert set(result.ledger.reasons) == {"stop"}
    # Request 1 arrived while nothing was up: its wait at the router is part of its TTFT.
    row = result.ledger.row_of[1]
    assert result.ledger.requests["arrival_ns"][row] == 5 * MS
    assert result.ledger.requests["first_scheduled_ns"][row] >= 12.5 * MS


def test_gpu_seconds_count_while_a_machine_is_up_and_not_while_it_is_down(serve) -> None:
    plan = cluster(1, failures=Failures(outages=(outage(0, 2.5, 10.0),)))
    result = serve([arrival(0, 0, 4)], plan)
    end_s = int(result.ledger.requests["finish_ns"][0]) / 1e9
    assert result.metrics["gpu_seconds"] == pytest.approx(end_s - 10e-3, abs=1e-8)
    assert result.usage[0].servers_started == 2
    assert result.usage[0].busy_s == pytest.approx(2e-3 + 4e-3)  # the cut step left no row


def test_a_request_lost_too_often_is_reported_as_failed(serve) -> None:
    moments = tuple(outage(0, 2.5 + 10 * i, 5.0) for i in range(3))
    plan = cluster(1, failures=Failures(outages=moments, max_retries=1))
    result = serve([arrival(0, 0, 39)], plan)
    assert result.ledger.reasons == [FAILED]
    assert [ledger.reasons for ledger in result.ledgers] == [[LOST], [LOST]]
    assert result.ledger.requests["tokens"].tolist() == [0]
    assert len(result.ledger.tokens) == 0
    assert result.metrics["failed"] == 1
    assert result.metrics["retries"] == 1


def test_requests_that_no_server_will_ever_take_fail_at_once(serve) -> None:
    plan = cluster(1, failures=Failures(outages=(outage(0, 2.5),)))
    result = serve([arrival(0, 0, 9), arrival(1, 50, 4)], plan)
    assert result.ledger.reasons == [FAILED, FAILED]
    row = result.ledger.row_of[1]
    assert result.ledger.requests["finish_ns"][row] == 50 * MS


def test_a_user_may_cancel_while_the_request_is_between_servers(serve) -> None:
    plan = cluster(1, failures=Failures(outages=(outage(0, 2.5, 50.0),)))
    gone = [arrival(0, 0, 9, cancel_ns=20 * MS), arrival(1, 10, 9, cancel_ns=30 * MS)]
    result = serve([*gone, arrival(2, 15, 4)], plan)
    reasons = dict(zip(result.ledger.row_of, result.ledger.reasons, strict=True))
    assert reasons == {0: "cancelled", 1: "cancelled", 2: "stop"}
    row = result.ledger.row_of[0]
    assert result.ledger.requests["finish_ns"][row] == 20 * MS
    assert len(result.ledgers[1].reasons) == 1  # the cancelled ones never got there


def test_a_retry_waits_as_long_as_it_is_told(serve) -> None:
    rules = Failures(outages=(outage(0, 3.5, 100.0),), retry_after_s=7e-3)
    result = serve([arrival(0, 0, 9), arrival(1, 0, 9)], cluster(failures=rules))
    assert result.ledger.requests["first_scheduled_ns"][0] == 10.5 * MS


def test_a_full_queue_rejects_and_says_so(serve) -> None:
    plan = cluster(1, admission=Admission(max_waiting_per_server=2))
    result = serve([arrival(i, 0.1 * i, 9) for i in range(7)], plan)
    # Nobody is resident before 0 ms ends: one is scheduled at 0, the next boundary is at 1 ms.
    counts = Counter(result.ledger.reasons)
    assert counts == {"stop": 3, REJECTED: 4}
    assert result.metrics["rejected"] == 4
    row = result.ledger.row_of[5]
    assert result.ledger.requests["finish_ns"][row] == result.ledger.requests["arrival_ns"][row]
    assert result.ledger.requests["first_scheduled_ns"][row] == NEVER


def test_a_bound_on_the_cluster_counts_those_at_the_router(serve) -> None:
    rules = Failures(outages=(outage(0, 0.5, 20.0),))
    plan = cluster(1, failures=rules, admission=Admission(max_waiting=2))
    result = serve([arrival(i, 1.0 + i, 4) for i in range(4)], plan)
    assert Counter(result.ledger.reasons) == {"stop": 2, REJECTED: 2}


def test_an_autoscaler_starts_servers_under_load_and_drains_them_after_it(serve) -> None:
    scale = Autoscale(target=0.5, max_servers=3, period_s=5e-3, startup_s=4e-3, cooldown_s=10e-3)
    plan = ClusterPlan(groups=(Group(count=1, autoscale=scale, gpus=2, usd_per_hour=3.6),))
    burst = [arrival(i, 1.0 * i, 30) for i in range(24)]
    late = arrival(24, 600, 5)
    result = serve([*burst, late], plan, router="least_loaded")
    assert set(result.ledger.reasons) == {"stop"}
    assert len(result.ledgers) == 3
    started = [int(ledger.steps["now_ns"].min()) for ledger in result.ledgers]
    assert started[0] == 0
    assert min(started[1:]) >= 9 * MS  # the first decision at 5 ms, then the start-up
    one_up_s = int(result.ledger.requests["finish_ns"].max()) / 1e9
    paid_s = result.usage[0].paid_s
    assert one_up_s < paid_s < 2 * one_up_s  # the others were given back
    assert result.metrics["gpu_seconds"] == pytest.approx(2 * paid_s)
    assert result.metrics["usd"] == pytest.approx(2 * paid_s / 1000)


def test_energy_is_that_of_busy_and_of_idle_time(serve) -> None:
    group = Group(watts=700.0, idle_watts=100.0, gpus=2)
    result = serve([arrival(0, 0, 4), arrival(1, 96, 4)], ClusterPlan(groups=(group,)))
    assert result.metrics["energy_j"] == pytest.approx(2 * (700 * 8e-3 + 100 * 92e-3))
    assert serve([arrival(0, 0)], cluster()).metrics["energy_j"] is None


def test_follow_ups_arrive_their_think_time_after_the_end_of_what_they_follow(serve) -> None:
    plan = cluster(1, failures=Failures(outages=(outage(0, 30.0),)))
    turns = [
        arrival(0, 0, 4),
        arrival(1, 0, 3, after=0, think_ns=7 * MS),
        arrival(2, 0, 3, after=1, think_ns=0),
        arrival(3, 0, 39, after=2, think_ns=MS),
        arrival(4, 0, 3, after=3, think_ns=MS),  # follows one that failed
    ]
    result = serve(turns, plan)
    rows = [result.ledger.row_of[i] for i in range(5)]
    arrived = result.ledger.requests["arrival_ns"][rows]
    finish = result.ledger.requests["finish_ns"][rows]
    think = np.array([7 * MS, 0, MS, MS])
    assert np.array_equal(np.maximum(arrived[1:] - finish[:-1], 2) // 2, np.maximum(think, 2) // 2)
    assert [result.ledger.reasons[row] for row in rows] == ["stop"] * 3 + [FAILED] * 2


def test_a_request_that_fits_one_kind_of_server_only_goes_there(serve) -> None:
    large = dataclasses.replace(LIMITS, n_pages=30, max_context=400)
    plan = ClusterPlan(groups=(Group(name="small", count=2), Group(name="large", limits=large)))
    long = Request(request_id=3, prompt_tokens=200, max_tokens=20, temperature=0.8)
    long_arrival = Arrival(request=long, arrival_ns=0, trace_index=3, output_tokens=5)
    result = serve([*(arrival(i, 0) for i in range(3)), long_arrival], plan)
    assert 3 in result.ledgers[2].row_of
    assert set(result.ledger.reasons) == {"stop"}


def test_what_fits_no_server_is_an_error_that_says_so(serve) -> None:
    other = dataclasses.replace(LIMITS, n_pages=11)
    plan = ClusterPlan(groups=(Group(), Group(name="other", limits=other)))
    long = Request(request_id=0, prompt_tokens=200, max_tokens=20, temperature=0.8)
    with pytest.raises(ValueError, match=r"max_context = 150; got prompt_tokens=200"):
        serve([Arrival(request=long, arrival_ns=0, trace_index=0)], plan)


def test_random_crashes_are_the_same_moments_whatever_is_served(serve) -> None:
    rules = Failures(mtbf_s=0.02, mttr_s=0.01, seed=3, max_retries=50)
    ends = []
    for tokens in (5, 15):
        result = serve([arrival(i, i, tokens) for i in range(20)], cluster(1, failures=rules))
        assert result.metrics["crashes"] >= 1
        ends.append([ledger.requests["finish_ns"].max() for ledger in result.ledgers])
    lost = [row for row in range(2) if ends[row][0] > 0]
    assert lost == [0, 1]
    assert ends[0][0] == ends[1][0]  # the first crash closed what was there


def test_an_idle_cluster_with_failures_and_an_autoscaler_comes_to_an_end(serve) -> None:
    scale = Autoscale(target=0.5, max_servers=2, period_s=1e-3)
    plan = ClusterPlan(
        groups=(Group(autoscale=scale),), failures=Failures(mtbf_s=0.01, mttr_s=0.01)
    )
    assert serve([], plan).ledger.counts()["submitted"] == 0


def test_the_horizon_reports_who_still_waits_at_the_router(serve) -> None:
    plan = cluster(1, failures=Failures(outages=(outage(0, 2.5, 90.0),)))
    result = serve([arrival(0, 0, 9), arrival(1, 5, 9)], plan, horizon_s=0.05)
    assert result.ledger.reasons == [None, None]
    assert result.ledger.counts()["unfinished"] == 2
    assert result.metrics["gpu_seconds"] == pytest.approx(2.5e-3)
