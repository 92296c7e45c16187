from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import Arrival, ClusterConfig, Residual, TraceModel
from simulator.description import Admission, Autoscale, ClusterPlan, Failures, Group
from tests.simulator.clusters import LIMITS, MS, Serve, arrival, check_every_fate, columns, outage

TIGHT = dataclasses.replace(LIMITS, n_pages=6)  # three residents of up to three pages: preemptions


@pytest.fixture(scope="module")
def serve(model: TraceModel, residual: Residual, configure: Callable[..., ClusterConfig]) -> Serve:
    return Serve(model, residual, configure)


@st.composite
def _plans(draw: st.DrawFn) -> ClusterPlan:
    count = draw(st.integers(1, 3))
    scale = None
    if draw(st.booleans()):
        scale = Autoscale(
            target=draw(st.sampled_from([0.3, 1.0])),
            min_servers=draw(st.integers(1, count)),
            max_servers=count + draw(st.integers(0, 2)),
            metric=draw(st.sampled_from(["requests", "pages"])),
            period_s=draw(st.sampled_from([1e-3, 7e-3])),
            startup_s=draw(st.sampled_from([0.0, 4e-3])),
            cooldown_s=draw(st.sampled_from([0.0, 9e-3])),
        )
    moments = st.builds(
        outage,
        st.integers(0, count - 1),
        st.integers(0, 60).map(lambda half: half / 2),  # on step boundaries too
        st.sampled_from([1.0, 6.5, None]),
    )
    failures = Failures(
        mtbf_s=draw(st.sampled_from([None, 0.01, 0.05])),
        mttr_s=0.005,
        seed=draw(st.integers(0, 9)),
        outages=tuple(draw(st.lists(moments, max_size=4))),
        max_retries=draw(st.integers(0, 4)),
        retry_after_s=draw(st.sampled_from([0.0, 2e-3])),
    )
    admission = Admission(
        max_waiting_per_server=draw(st.sampled_from([None, 1, 3])),
        max_waiting=draw(st.sampled_from([None, 2, 8])),
    )
    group = Group(count=count, autoscale=scale)
    return ClusterPlan(groups=(group,), failures=failures, admission=admission)


@st.composite
def _arrivals(draw: st.DrawFn) -> list[Arrival]:
    asked: list[Arrival] = []
    for i, at_ms in enumerate(sorted(draw(st.lists(st.integers(0, 30), min_size=1, max_size=14)))):
        tokens = draw(st.integers(1, 25))
        if i > 0 and draw(st.integers(0, 4)) == 0:
            think = draw(st.sampled_from([0, MS, 5 * MS]))
            parent = draw(st.integers(0, i - 1))
            asked.append(arrival(i, 0, tokens, after=parent, think_ns=think))
        else:
            patience = draw(st.sampled_from([None, None, 0, 2, 9]))
            gone = None if patience is None else (at_ms + patience) * MS
            asked.append(arrival(i, at_ms, tokens, cancel_ns=gone))
    return asked


@given(
    plan=_plans(),
    arrivals=_arrivals(),
    router=st.sampled_from(["round_robin", "least_loaded", "power_of_two", "expected_work"]),
)
@settings(max_examples=60)
def test_every_request_completes_exactly_once_or_is_reported(serve, plan, arrivals, router) -> None:
    result = serve(arrivals, plan, router=router, limits=TIGHT)
    assert result.mode == "macro"
    check_every_fate(result, arrivals, plan)


@given(
    plan=_plans(),
    arrivals=_arrivals(),
    router=st.sampled_from(["least_loaded", "fastest", "entropy_aware", "prefix_aware"]),
    preset=st.sampled_from(["baseline", "full", "best"]),
)
@settings(max_examples=25)
def test_all_modes_leave_the_same_ledger_whatever_the_cluster_does(
    serve, plan, arrivals, router, preset
) -> None:
    runs = {
        mode: serve(arrivals, plan, preset, router=router, mode=mode, limits=TIGHT)
        for mode in ("online", "steps", "macro")
    }
    online = runs["online"]
    for mode, run in runs.items():
        assert run.mode == mode
        assert run.ledger.reasons == online.ledger.reasons
        assert columns(run.ledger) == columns(online.ledger), mode
        assert len(run.ledgers) == len(online.ledgers)
        assert run.to_json() == online.to_json()


def test_modes_agree_where_everything_that_can_happen_does(serve) -> None:
    draw = random.Random(3)
    asked = []
    for i in range(80):
        tokens, at_ms = draw.randint(1, 30), i // 2  # arrivals tie with each other and with steps
        gone = draw.choice([None, None, None, at_ms + 12])
        cancel_ns = None if gone is None else gone * MS
        asked.append(arrival(i, at_ms, tokens, cancel_ns=cancel_ns))
    asked += [arrival(80 + i, 0, 9, after=i, think_ns=i % 3 * MS) for i in range(10)]
    scale = Autoscale(target=1.5, max_servers=5, period_s=4e-3, startup_s=3e-3, cooldown_s=8e-3)
    plan = ClusterPlan(
        groups=(Group(count=2, autoscale=scale),),
        failures=Failures(mtbf_s=0.04, mttr_s=0.01, seed=1, max_retries=2),
        admission=Admission(max_waiting_per_server=6),
    )
    runs = [
        serve(asked, plan, "full", router="power_of_two", mode=mode, limits=TIGHT)
        for mode in ("online", "steps", "macro")
    ]
    check_every_fate(runs[0], asked, plan)
    metrics = runs[0].metrics
    for name in ("crashes", "retries", "rejected", "preemptions", "cancelled", "lost_tokens"):
        assert metrics[name] > 0, name
    assert runs[0].usage[0].servers_started > 4
    assert columns(runs[0].ledger) == columns(runs[1].ledger) == columns(runs[2].ledger)
    assert runs[0].to_json() == runs[1].to_json() == runs[2].to_json()
