"""One pass over positions gives every request the trajectory that serving it gives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from controllers.presets import PRESETS
from controllers.serving.limits import EngineLimits
from simulator import ClusterConfig, Residual, TraceModel, poisson_workload, run_workload
from simulator.pruning import ShareTable
from simulator.residual import counter_normal, response
from simulator.scan import Trajectory, scan
from simulator.scripts import Scripts, write_scripts
from simulator.workload import Workload
from traces.store import Trace

ROOMY = EngineLimits(max_seqs=8, token_budget=256, n_pages=400, max_context=512)
SCARCE = EngineLimits(max_seqs=6, token_budget=64, n_pages=24, max_context=512)


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("limits", [ROOMY, SCARCE], ids=["roomy", "scarce"])
def test_a_scan_gives_every_token_of_a_served_ledger(
    name: str, limits: EngineLimits, trace: Trace, model: TraceModel, residual: Residual, step_law
):
    preset = dataclasses.replace(PRESETS[name], sparse_min_context=50, quantum_tokens=None)
    config = ClusterConfig(
        preset=preset,
        limits=limits,
        step_law=step_law,
        bytes_per_page_unit=4096,
        mode="online",
    )
    workload = poisson_workload(trace, rate_per_s=40.0, n_requests=12, seed=3)
    ledger = run_workload(model, residual, workload, config).ledger
    if limits is SCARCE:
        assert ledger.requests["preemptions"].sum() > 0
    tokens = {column: ledger.tokens[column] for column in ledger.tokens.columns}
    found = scan(_scripts(model, workload), model, residual, preset)
    for arrival, made in zip(workload.arrivals, found, strict=True):
        mine = tokens["request_id"] == arrival.request.request_id
        preemptions = ledger.requests["preemptions"][ledger.row_of[arrival.request.request_id]]
        _assert_equal(made, tokens, mine, preemptions)


def raised(model: TraceModel, above: float) -> TraceModel:
    """Return a model some of whose rows keep every page at some of the coverages only."""
    shares = model.shares.shares.copy()
    shares[:, 2:][shares[:, 2:] > above] = 1.0
    return dataclasses.replace(model, shares=ShareTable.of(model.shares.coverages, shares))


@pytest.mark.parametrize("minimum", [0.0, 0.97])
def test_rows_that_keep_every_page_move_no_entropy(
    minimum: float, trace: Trace, model: TraceModel, residual: Residual
):
    preset = dataclasses.replace(PRESETS["full"], sparse_min_context=1, probe_every=0)
    model = raised(model, float(np.median(model.shares.shares[:, 3])))
    workload = poisson_workload(trace, rate_per_s=40.0, n_requests=12, seed=3)
    plain = _scripts(model, workload)
    arrivals = workload.arrivals
    asked = [dataclasses.replace(a.request, min_coverage=minimum) for a in arrivals]
    answers = [a.trace_index for a in arrivals], [a.output_tokens for a in arrivals]
    scripts = write_scripts(model, asked, *answers, seed=0)
    every = scan(scripts, model, residual, preset)
    moved = full = 0
    for request, made, start in zip(asked, every, plain.starts.tolist(), strict=True):
        rows = plain.rows[start : start + made.n_tokens].astype(np.intp)
        coverage = made.coverage.astype(np.float64)
        assert made.share == pytest.approx(model.shares.share(rows, coverage), abs=1e-6)
        ids = np.full(len(rows), request.request_id)
        normals = counter_normal(residual.seed, ids, np.arange(len(rows)))
        factor = residual.factor(coverage, made.share, normals)
        scale = response(model.h_cal[rows], model.v_cal[rows])
        expected = model.h_cal[rows] + factor * scale
        assert made.h_cal == pytest.approx(expected, abs=1e-5)
        full += int(((made.share == 1.0) & (made.coverage < 1.0)).sum())
        moved += int((factor != 0.0).sum())
    assert full > 20
    assert moved > 20


def _scripts(model: TraceModel, workload: Workload) -> Scripts:
    arrivals = workload.arrivals
    return write_scripts(
        model,
        [arrival.request for arrival in arrivals],
        [arrival.trace_index for arrival in arrivals],
        [arrival.output_tokens for arrival in arrivals],
        seed=0,
    )


def _assert_equal(
    made: Trajectory, tokens: dict[str, np.ndarray], mine: np.ndarray, preemptions: int
) -> None:
    for name in ("command", "h_applied", "h_cal", "surprisal"):
        assert np.array_equal(getattr(made, name), tokens[name][mine]), name
    served = tokens["coverage"][mine]
    differs = made.coverage.astype(np.float32) != served
    assert np.all(served[differs] == 1.0)  # rows that recompute a preempted request are dense
    assert differs.sum() <= preemptions
