from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from controllers.presets import get_preset
from simulator import ClusterConfig, Residual, TraceModel, Workload, poisson_workload, run_workload
from simulator.cluster_modes import choose_mode
from simulator.description import ClusterPlan, Group
from tests.simulator.clusters import arrival, columns
from traces.store import Trace

EVICTING = dataclasses.replace(get_preset("full"), kv_budget_pages=4)
PLAIN = Workload(arrivals=(arrival(0, 0),))
SHARING = Workload(arrivals=(arrival(0, 0, page_hashes=(3,)),))


@pytest.mark.parametrize(
    ("preset", "workload", "logged", "expected"),
    [
        (get_preset("full"), PLAIN, False, ("macro", "nothing needs a slower mode")),
        (get_preset("full"), PLAIN, True, ("online", "a run log or a decision log is kept")),
        (EVICTING, PLAIN, False, ("online", "the preset evicts pages")),
        (get_preset("full"), SHARING, False, ("online", "requests share prompt pages")),
    ],
)
def test_auto_takes_the_fastest_mode_that_can_and_says_why(
    preset, workload, logged, expected
) -> None:
    assert choose_mode("auto", preset, workload, logged=logged, windows=False) == expected


@pytest.mark.parametrize("mode", ["macro", "steps", "calls"])
def test_a_mode_that_cannot_is_refused_with_what_stands_against_it(mode) -> None:
    with pytest.raises(ValueError, match=f"evicts pages: only mode online .*mode='{mode}'"):
        choose_mode(mode, EVICTING, PLAIN, logged=False, windows=False)
    with pytest.raises(ValueError, match="share prompt pages: prefill and decode groups cannot"):
        choose_mode("auto", get_preset("full"), SHARING, logged=False, windows=True)
    with pytest.raises(ValueError, match="mode calls serves no prefill and decode groups"):
        choose_mode("calls", get_preset("full"), PLAIN, logged=False, windows=True)
    with pytest.raises(ValueError, match=r"mode must be one of .*'fast'"):
        choose_mode("fast", EVICTING, PLAIN, logged=False, windows=False)


@pytest.mark.parametrize("router", ["least_loaded", "entropy_aware"])
@pytest.mark.parametrize("preset", ["baseline", "full", "best"])
def test_modes_agree_on_recorded_requests_behind_a_router(
    trace: Trace,
    model: TraceModel,
    residual: Residual,
    configure: Callable[..., ClusterConfig],
    preset: str,
    router: str,
) -> None:
    workload = poisson_workload(trace, rate_per_s=80.0, n_requests=60, seed=2)
    tight = dataclasses.replace(configure(preset).limits, n_pages=14, max_context=200)
    runs = {}
    for mode in ("online", "steps", "calls", "macro"):
        config = configure(preset, limits=tight, replicas=3, router=router, mode=mode)
        runs[mode] = run_workload(model, residual, workload, config, verify=True)
        assert runs[mode].mode == mode
    assert runs["online"].metrics["preemptions"] > 0
    for mode in ("steps", "calls", "macro"):
        assert columns(runs[mode].ledger) == columns(runs["online"].ledger)
        assert runs[mode].to_json() == runs["online"].to_json()


def test_totals_without_rows_give_the_same_latencies(
    trace: Trace,
    model: TraceModel,
    residual: Residual,
    configure: Callable[..., ClusterConfig],
) -> None:
    workload = poisson_workload(trace, rate_per_s=40.0, n_requests=40, seed=2)
    whole, thin = (
        run_workload(
            model,
            residual,
            workload,
            configure("full", replicas=2, record_tokens=rows, record_steps=rows),
        )
        for rows in (True, False)
    )
    assert len(thin.ledger.steps) == len(thin.ledger.tokens) == 0
    for name in ("ttft_s", "tpot_s", "e2e_s", "cost_s", "gpu_seconds", "kv_bytes_read"):
        assert thin.metrics[name] == whole.metrics[name], name
    assert thin.metrics["itl_s"]["p99"] == pytest.approx(whole.metrics["itl_s"]["p99"], rel=0.01)
    assert thin.metrics["nll_nats"] == pytest.approx(whole.metrics["nll_nats"], rel=1e-6)
    assert thin.usage[0].busy_s == whole.usage[0].busy_s


def test_replicas_and_a_plan_are_not_both_taken(configure: Callable[..., ClusterConfig]) -> None:
    with pytest.raises(ValueError, match="replicas must be 1 with a cluster plan"):
        configure("full", replicas=2, cluster=ClusterPlan(groups=(Group(),)))
