from __future__ import annotations

import numpy as np
import pytest

from controllers.presets import PRESETS
from reports.studies.ablation import ablate, measures
from reports.studies.grid import Task, run_all


def test_every_preset_sees_the_same_arrivals_and_requests(ablation):
    reference = ablation.first["baseline"].requests
    for ledger in ablation.first.values():
        for name in ("request_id", "arrival_ns", "prompt_tokens", "tokens"):
            assert np.array_equal(ledger.requests[name], reference[name])


def test_temperature_alone_changes_no_time(ablation):
    sampling = ablation.row("sampling")
    for name in ("ttft_s.mean", "e2e_s.p95", "cost_s", "kv_bytes_read"):
        assert sampling.difference[name].mean == 0.0
    assert sampling.difference["tau_nats_per_token"].mean != 0.0


def test_attention_reads_fewer_bytes_and_costs_less_time(ablation):
    attention = ablation.row("attention")
    assert attention.difference_pct["kv_bytes_read_per_token"].mean < -10.0
    assert attention.difference["tpot_s.mean"].mean < 0.0


def test_only_the_printed_sign_runs_onto_a_clip(ablation):
    share = {row.preset: row.metrics["clip_share"].mean for row in ablation.rows}
    assert share["seed"] > 0.2  # of 12 to 24 tokens, the first ten of which it needs to get there
    assert share["full"] < 0.05


def test_the_reference_comes_first_and_has_no_difference(ablation):
    assert [row.preset for row in ablation.rows] == list(PRESETS)
    assert ablation.rows[0].difference == {}


def test_an_ablation_needs_its_reference(scenario):
    with pytest.raises(ValueError, match="baseline"):
        ablate(scenario, seeds=(0,), presets=("full",))


def test_processes_do_not_change_the_answer(scenario):
    tasks = [Task("full", seed, scenario.rate_per_s) for seed in range(2)]
    alone = [measures(run) for run in run_all(scenario, tasks, jobs=1)]
    together = [measures(run) for run in run_all(scenario, tasks, jobs=2)]
    assert alone == together


def test_progress_counts_every_run(scenario):
    seen = []
    tasks = [Task("baseline", seed, scenario.rate_per_s) for seed in range(3)]
    run_all(scenario, tasks, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_waits_grow_with_load(load):
    rows = [row for row in load.rows if row.preset == "baseline"]
    assert rows[0].rate_per_s < rows[1].rate_per_s
    assert rows[0].metrics["ttft_s.mean"].mean < rows[1].metrics["ttft_s.mean"].mean
