"""Published schedulers in the simulator: who predicts lengths, who knows them, and replay."""

from __future__ import annotations

import pytest

from controllers.peers import PEERS
from controllers.serving.rows import LogRow
from controllers.serving.runlog import replay_plans
from simulator import run_workload
from simulator.workload import poisson_workload
from traces.store import Trace


def test_a_predicted_length_is_the_mean_of_the_others_of_its_class(trace: Trace) -> None:
    workload = poisson_workload(trace, rate_per_s=5.0, n_requests=30, seed=1)
    for arrival in workload.arrivals:
        own = trace.requests[arrival.trace_index]
        others = [
            r.output_tokens
            for r in trace.requests
            if r.task_class == own.task_class and r.request != own.request
        ]
        assert arrival.request.predicted_tokens == max(1, round(sum(others) / len(others)))
        assert arrival.request.client == own.task_class


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_serves_everybody_and_replays(
    trace: Trace, model, residual, configure, name: str
) -> None:
    workload = poisson_workload(trace, rate_per_s=50.0, n_requests=30, seed=1)
    rows: list[LogRow] = []
    config = configure(name)
    found = run_workload(
        model, residual, workload, config, sinks=lambda _: rows.append, verify=True
    )
    assert found.metrics["completed"] == 30
    assert replay_plans(rows, config.preset).identical
    tokens = found.ledger.requests["tokens"].tolist()
    told = [row.get("oracle_tokens") for row in rows if row["kind"] == "submit"]
    assert told == (tokens if config.preset.priority.oracle else [None] * 30)
