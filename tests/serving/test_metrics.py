"""Metrics by hand on ledgers small enough to add up on paper."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.serving.ledger import Ledger
from controllers.serving.metrics import Metric, Spending, summarise, summarise_groups
from tests.serving.worlds import MS, STEP_LAW, crowded, request, world


def metrics(ledger: Ledger, **options: float) -> dict[str, Metric]:
    return summarise(ledger, step_law=STEP_LAW, bytes_per_page_unit=100, **options)


def give(ledger: Ledger, request_id: int, position: int, now_ns: int, h: float, x: float) -> None:
    lanes = tuple(np.array([v], dtype=np.float32) for v in (2 * h, h, x, 0.5))
    ledger.served(request_id, now_ns - 10 * MS, 0.5 if position else None)
    ledger.sampled(request_id, now_ns)
    ledger.token_rows([request_id], [position], now_ns, lanes, [1.0])


def small_ledger() -> Ledger:
    """Request 0 gets tokens at 20, 30 and 50 ms, request 1 one token at 30 ms; 2 waits."""
    ledger = Ledger()
    ledger.submitted(0, 5, 3, 0)
    ledger.submitted(1, 5, 1, 10 * MS)
    ledger.submitted(2, 5, 1, 10 * MS)
    give(ledger, 0, 0, 20 * MS, 3.0, 0.0)
    ledger.ran(0, 10 * MS, 10 * MS, 0, 5, 2, 0, 0, 0, 0)
    give(ledger, 0, 1, 30 * MS, 1.0, 0.5)
    give(ledger, 1, 0, 30 * MS, 2.0, -1.0)
    ledger.ran(1, 20 * MS, 10 * MS, 1, 5, 4, 30, 40, 0, 0)
    ledger.finished(1, 30 * MS, "stop")
    ledger.ran(2, 30 * MS, 10 * MS, 1, 0, 2, 30, 40, 1, 0)
    give(ledger, 0, 2, 50 * MS, 1.5, 1.0)
    ledger.ran(3, 40 * MS, 10 * MS, 1, 0, 2, 20, 40, 0, 32)
    ledger.finished(0, 50 * MS, "length")
    ledger.check()
    return ledger


def test_latencies_are_those_of_the_token_times() -> None:
    found = metrics(small_ledger())
    means = {name: found[name]["mean"] for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s")}
    expected = {"ttft_s": 0.020, "tpot_s": 0.015, "itl_s": 0.015, "e2e_s": 0.035}
    assert means == pytest.approx(expected)
    assert found["itl_s"]["p50"] == pytest.approx(0.015)


def test_rates_are_over_first_arrival_to_last_step() -> None:
    found = metrics(small_ledger(), ttft_slo_s=0.03, tpot_slo_s=0.014)
    assert found["throughput_tokens_per_s"] == pytest.approx(4 / 0.050)
    assert found["throughput_requests_per_s"] == pytest.approx(2 / 0.050)
    assert found["goodput_requests_per_s"] == pytest.approx(1 / 0.050)
    assert metrics(small_ledger())["goodput_requests_per_s"] is None


def test_pages_and_cost_are_sums_over_steps() -> None:
    found = metrics(small_ledger())
    assert found["kv_bytes_read"] == 8000 + 32 * 100 // 16  # a page scored costs one token's share
    assert found["kv_pages_kept_share"] == pytest.approx(80 / 120)
    assert found["cost_s"] == pytest.approx(0.040)


def test_entropies_stay_within_requests() -> None:
    found = metrics(small_ledger())
    assert found["tau_cal_nats"] == pytest.approx(2.0)
    assert found["tau_nats"] == pytest.approx(4.0)
    assert found["entropy_net_nats"] == pytest.approx(1.5)
    assert found["nll_nats"] == pytest.approx(2.0)


def test_the_service_gap_counts_those_still_waiting() -> None:
    assert metrics(small_ledger())["max_service_gap_steps"] == 4


def test_a_gap_is_the_steps_between_two_services() -> None:
    assert small_ledger().requests["max_service_gap_steps"].tolist() == [1, 1, 0]


def test_the_clip_share_counts_commands_on_either_bound() -> None:
    assert metrics(small_ledger(), x_min=-1.0, x_max=1.0)["clip_share"] == 0.5
    assert metrics(small_ledger(), x_max=1.0)["clip_share"] == 0.25
    assert metrics(small_ledger())["clip_share"] is None


def test_equal_service_has_a_jain_index_of_one() -> None:
    w = world(max_seqs=1)
    w.submit(request(0, length=3))
    w.run()
    assert metrics(w.loop.ledger)["jain"] == pytest.approx(1.0)
    w.submit(request(1, length=3), request(2, length=3), request(3, length=3))
    w.run()
    assert metrics(w.loop.ledger)["jain"] < 0.9


def test_an_idle_server_serves_at_the_modelled_rate() -> None:
    """The fake executor reads no KV, so only that term may tell the two apart."""
    w = world()
    w.submit(request(0, length=8))
    w.run()
    ledger = w.loop.ledger
    e2e_s = metrics(ledger)["e2e_s"]["mean"]
    assert e2e_s == pytest.approx(6e-3 + 7 * 5.1e-3, rel=1e-6)


def test_an_empty_run_has_none_where_nothing_was_measured() -> None:
    found = metrics(Ledger(), ttft_slo_s=1.0, x_min=-1.0)
    zero = {"kv_bytes_read", "preemptions", "cost_s", "submitted", "completed", "cancelled"}
    zero |= {"failed", "unfinished", "prefix_hit_tokens", "pages_evicted"}
    for name, value in found.items():
        assert value == (0 if name in zero else None), name


def test_the_warm_up_cuts_requests_that_came_before_and_steps_that_began_before() -> None:
    found = metrics(small_ledger(), warmup_s=0.010)
    assert found["submitted"] == 2
    assert found["ttft_s"]["mean"] == pytest.approx(0.020)
    assert found["cost_s"] == pytest.approx(0.040)
    later = metrics(small_ledger(), warmup_s=0.025)
    assert later["submitted"] == 0
    assert later["ttft_s"] is later["tau_nats"] is later["itl_s"] is None
    assert later["cost_s"] == pytest.approx(0.020)
    assert later["throughput_tokens_per_s"] == 0.0


def test_queue_batch_and_occupancy_by_hand() -> None:
    found = metrics(small_ledger(), n_pages=8)
    assert found["queue_s"]["mean"] == pytest.approx(0.010)
    assert found["batch_mean"] == pytest.approx(0.75)
    held = {"mean": 2.5, "p50": 2.0, "p95": 4.0, "max": 4.0}
    assert found["kv_pages_held"] == pytest.approx(held)
    assert found["kv_occupancy"] == pytest.approx({k: v / 8 for k, v in held.items()})
    assert found["utilisation"] == pytest.approx(0.8)


def test_money_and_energy_are_per_delivered_token() -> None:
    spent = Spending(gpu_s=0.2, up_s=0.1, usd=3e-6, joules=80.0)
    found = metrics(small_ledger(), spent=spent)
    assert found["utilisation"] == pytest.approx(0.4)
    assert found["tokens_per_gpu_s"] == pytest.approx(20.0)
    assert found["usd_per_million_tokens"] == pytest.approx(0.75)
    assert found["joules_per_token"] == pytest.approx(20.0)
    with pytest.raises(ValueError, match="usd must be >= 0; got usd=-1"):
        Spending(gpu_s=0.0, up_s=0.0, usd=-1.0)


def test_groups_add_up_to_the_whole() -> None:
    ledger = crowded()
    tenant = {i: "abc"[i % 3] for i in ledger.row_of}
    groups = summarise_groups(ledger, tenant, step_law=STEP_LAW, ttft_slo_s=0.5)
    whole = metrics(ledger, ttft_slo_s=0.5, tenants=tenant)
    assert list(groups) == ["a", "b", "c"]
    sums = ("submitted", "completed", "unfinished", "preemptions", "tau_nats", "nll_nats")
    for name in (*sums, "goodput_requests_per_s", "throughput_tokens_per_s"):
        assert sum(group[name] for group in groups.values()) == pytest.approx(whole[name]), name
    assert 0.0 < whole["jain_tenants"] <= 1.0


def test_one_slow_tenant_lowers_the_index_over_tenants() -> None:
    ledger = Ledger()
    for i, seconds in enumerate((1, 1, 4)):
        ledger.submitted(i, 5, 1, 0)
        ledger.served(i, 0, None)
        ledger.sampled(i, 10**9)
        ledger.finished(i, seconds * 10**9, "stop")
    ledger.ran(0, 0, 10**9, 0, 5, 2, 0, 0, 0, 0)
    found = metrics(ledger, tenants={0: "x", 1: "x", 2: "y"})
    assert found["jain_tenants"] == pytest.approx(1.25**2 / (2 * (1 + 1 / 16)))
    assert metrics(ledger, tenants=dict.fromkeys(range(3), "x"))["jain_tenants"] == 1.0


def test_the_ledger_notices_effects_before_causes() -> None:
    ledger = small_ledger()
    ledger.requests.columns["first_token_ns"][0] = 5 * MS
    with pytest.raises(AssertionError, match="first_token_ns lies before first_scheduled_ns"):
        ledger.check()


def test_the_ledger_notices_a_lost_token() -> None:
    ledger = small_ledger()
    ledger.requests.columns["tokens"][1] = 0
    with pytest.raises(AssertionError, match="token rows disagree"):
        ledger.check()


def test_a_request_finishes_once() -> None:
    with pytest.raises(ValueError, match="already finished; got request_id=1"):
        small_ledger().finished(1, 60 * MS, "stop")


def test_a_warm_up_takes_its_share_of_the_time_a_server_is_up() -> None:
    """Up from 0 to 50 ms, cut at 25 ms: two steps of 10 ms in the 25 ms that are left."""
    spent = Spending(gpu_s=0.05, up_s=0.05)
    assert metrics(small_ledger(), spent=spent)["utilisation"] == pytest.approx(0.8)
    cut = metrics(small_ledger(), spent=spent, warmup_s=0.025)
    assert cut["utilisation"] == pytest.approx(0.8)
    assert cut["cost_s"] == pytest.approx(0.020)


def test_a_lean_ledger_that_forgot_every_request_still_has_metrics() -> None:
    ledger = crowded(record_tokens=False, record_steps=False)
    assert ledger.trim(0) > 0
    for name in ("unfinished", "submitted"):
        assert metrics(ledger)[name] == len(ledger.requests)
    empty = small_ledger()
    empty.record_steps = False
    empty.finished(2, 60 * MS, "stop")
    empty.trim(0)
    found = metrics(empty)
    assert found["throughput_tokens_per_s"] is None
    assert found["cost_s"] == pytest.approx(0.040)
