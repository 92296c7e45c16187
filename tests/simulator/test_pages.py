"""Shared prefixes and given-up pages in simulation: what they cost, and what stays as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from controllers.serving.limits import EngineLimits
from controllers.serving.prefix import page_hashes
from controllers.serving.request import Request
from controllers.serving.rows import LogRow
from controllers.serving.runlog import replay_commands, replay_plans
from controllers.steplaw import StepLaw
from simulator import (
    Arrival,
    ClusterConfig,
    Residual,
    SimulationResult,
    TraceModel,
    Workload,
    caveats,
    run_workload,
)

Configure = Callable[..., ClusterConfig]
PROMPT, LENGTH = 100, 90
READ_ONLY = StepLaw(  # a step costs a nanosecond per KV token read, and so counts them
    base_s=0.0,
    per_decode_s=0.0,
    per_kv_token_s=1e-9,
    per_prompt_token_s=0.0,
    per_prompt_square_s=0.0,
)


def burst(n: int, *, hashed: bool) -> Workload:
    """Requests of one prompt, one every second."""
    names = page_hashes(range(PROMPT), 16, "recording") if hashed else ()
    request = Request(request_id=0, prompt_tokens=PROMPT, max_tokens=LENGTH, temperature=0.8)
    return Workload(
        arrivals=tuple(
            Arrival(
                request=dataclasses.replace(request, request_id=i),
                arrival_ns=i * 1_000_000_000,
                trace_index=0,
                output_tokens=LENGTH,
                page_hashes=names,
            )
            for i in range(n)
        )
    )


@pytest.fixture
def serve(model: TraceModel, residual: Residual) -> Callable[..., SimulationResult]:
    def run(workload: Workload, config: ClusterConfig, **options: object) -> SimulationResult:
        return run_workload(model, residual, workload, config, verify=True, **options)

    return run


def evicting(config: ClusterConfig, budget: int | None) -> ClusterConfig:
    preset = dataclasses.replace(config.preset, kv_budget_pages=budget, kv_burst_pages=1)
    return dataclasses.replace(config, preset=preset)


def test_a_found_prefix_is_not_computed_again_and_changes_no_token(
    serve: Callable[..., SimulationResult], configure: Configure
) -> None:
    plain, shared = (
        serve(burst(3, hashed=hashed), configure("sampling")) for hashed in (False, True)
    )
    assert shared.metrics["prefix_hit_tokens"] == 2 * 96
    computed = [int(run.ledger.steps["prompt_tokens"].sum()) for run in (plain, shared)]
    assert computed[0] - computed[1] == 2 * 96
    assert shared.metrics["cost_s"] < plain.metrics["cost_s"]
    for name in ("h_cal", "command", "surprisal"):
        assert np.array_equal(plain.ledger.tokens[name], shared.ledger.tokens[name])


def test_pages_given_up_are_neither_read_nor_paid_for(
    serve: Callable[..., SimulationResult], configure: Configure, model: TraceModel
) -> None:
    config = configure("baseline", step_law=READ_ONLY)
    whole, kept = (serve(burst(1, hashed=False), evicting(config, n)) for n in (None, 5))
    units = model.layers * model.kv_heads
    assert kept.metrics["pages_evicted"] == caveats.evictions(kept.ledger)["pages_evicted"] > 0
    assert caveats.evictions(whole.ledger) == {}
    read, dense = (kept.ledger.steps[f"page_units_{name}"] // units for name in ("read", "dense"))
    assert np.array_equal(read, dense)
    assert read.max() == -(-(PROMPT + 8) // 16)  # until a score is worth acting on
    assert set(read[-20:].tolist()) <= {5, 6}
    # Pages in full, but for the last, which holds what has been written of it.
    lost = (whole.ledger.steps["page_units_read"] // units - read) * 16
    saved = whole.ledger.steps["duration_ns"] - kept.ledger.steps["duration_ns"]
    assert np.array_equal(saved[lost > 0], lost[lost > 0])
    assert np.array_equal(whole.ledger.tokens["h_cal"], kept.ledger.tokens["h_cal"])


def test_a_crowd_with_both_replays_exactly(
    serve: Callable[..., SimulationResult], configure: Configure
) -> None:
    rows: list[LogRow] = []
    limits = EngineLimits(max_seqs=6, token_budget=64, n_pages=20, max_context=200)
    config = evicting(configure("full", limits=limits), 4)
    crowd = burst(9, hashed=True)
    crowd = dataclasses.replace(
        crowd,
        arrivals=tuple(
            dataclasses.replace(a, arrival_ns=a.arrival_ns // 20) for a in crowd.arrivals
        ),
    )
    done = serve(crowd, config, sinks=lambda _: rows.append)
    for name in ("prefix_hit_tokens", "pages_evicted", "preemptions"):
        assert done.metrics[name] > 0, name
    rows.append({"kind": "end", "now_ns": 0, "rows": len(rows)})
    assert replay_plans(rows, config.preset).identical
    assert replay_commands(rows, config.preset).identical
