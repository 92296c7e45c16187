"""A simulated run's log replays through the parity tools: the executor obeys the same contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controllers.presets import PRESETS
from controllers.serving.limits import EngineLimits
from controllers.serving.runlog import replay_commands, replay_plans
from simulator import Asking, Residual, TraceModel, poisson_workload, run_workload
from traces.store import Trace

TIGHT = EngineLimits(max_seqs=6, token_budget=64, n_pages=14, max_context=200)


@pytest.mark.parametrize("name", PRESETS)
def test_log_of_a_simulated_run_replays_without_a_difference(
    name: str, trace: Trace, model: TraceModel, residual: Residual, configure
) -> None:
    rows: list[dict[str, Any]] = []
    asking = Asking(cancel_share=0.2, patience_s=0.2)
    workload = poisson_workload(trace, rate_per_s=50.0, n_requests=20, seed=9, asking=asking)
    config = configure(name, limits=TIGHT)
    result = run_workload(model, residual, workload, config, sinks=lambda _: rows.append)
    assert result.metrics["preemptions"] > 0
    logged = json.loads(json.dumps(rows))  # what a file would give back
    plans = replay_plans(logged, config.preset)
    assert plans.identical
    assert plans.compared >= result.ledger.step_count
    commands = replay_commands(logged, config.preset)
    assert commands.identical
    assert commands.commands >= result.ledger.requests["tokens"].sum()
