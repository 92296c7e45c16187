"""Verdicts: how often they err on queues whose truth is known, and what they need to be given."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from controllers.certificates.starvation import service_gap
from controllers.presets import get_preset
from controllers.priority import Fcfs
from controllers.serving.ledger import Ledger
from simulator import ClusterConfig, Residual, TraceModel, run_workload
from simulator.verdict import Run, stability
from simulator.verdict_starvation import starvation
from tests.simulator.queues import EVEN, one_by_one, workload


def queue(load: float, n: int, seed: int, *, exponential: bool = False) -> Run:
    """An M/D/1 or M/M/1 queue by Lindley's recursion; services of mean 1."""
    rng = np.random.default_rng([seed, round(1000 * load)])
    arrival = np.cumsum(rng.exponential(1.0 / load, n))
    service = rng.exponential(1.0, n) if exponential else np.ones(n)
    done = np.cumsum(service)
    finish = done + np.maximum.accumulate(arrival - (done - service))
    return Run(
        arrival_s=arrival, first_s=finish - service, finish_s=finish, end_s=float(finish[-1])
    )


def shares(load: float, n: int, runs: int, *, trials: int = 100, exponential: bool = False):
    """Return how often each verdict was given, over trials of ``runs`` seeds each."""
    found: Counter[str] = Counter()
    for trial in range(trials):
        seeds = range(trial * runs, (trial + 1) * runs)
        found[stability([queue(load, n, s, exponential=exponential) for s in seeds]).verdict] += 1
    return {name: count / trials for name, count in found.items()}


@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("load", [0.7, 0.95, 1.05, 1.2])
@pytest.mark.parametrize(("n", "runs"), [(2000, 1), (2000, 5), (10_000, 5)])
def test_a_verdict_is_seldom_wrong_however_short_the_run(
    load: float, n: int, runs: int, *, exponential: bool
) -> None:
    wrong = "unstable" if load < 1.0 else "stable"
    trials = 100 if n * runs <= 10_000 else 20
    found = shares(load, n, runs, trials=trials, exponential=exponential)
    assert found.get(wrong, 0.0) <= 0.02


@pytest.mark.parametrize(
    ("load", "n", "runs", "right"),
    [
        (0.7, 2000, 5, "stable"),
        (0.95, 10_000, 5, "stable"),
        (1.05, 10_000, 5, "unstable"),
        (1.2, 2000, 1, "unstable"),
        (1.05, 2000, 5, "unstable"),
    ],
)
def test_a_long_enough_run_is_decided(load: float, n: int, runs: int, right: str) -> None:
    assert shares(load, n, runs, trials=20).get(right, 0.0) >= 0.9


def test_a_run_too_short_for_its_load_is_undecided_and_says_how_much_is_missing() -> None:
    found = stability([queue(0.95, 1000, seed=3)])
    assert found.verdict == "undecided"
    assert "times as long" in found.why
    tiny = stability([queue(0.5, 100, seed=3)])
    assert tiny.verdict == "undecided"
    assert tiny.why == "75 requests arrived after the warm-up, 200 are needed"
    assert tiny.drift_share is None


def test_a_system_that_is_still_filling_is_undecided() -> None:
    """Everyone is served at once and for longer than the run lasts: the number there only grows."""
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.exponential(0.01, 1000))
    run = Run(arrival_s=arrival, first_s=arrival, finish_s=arrival + 6.0, end_s=16.0)
    found = stability([run])
    assert found.verdict == "undecided"
    assert "in service for 0.78" in found.why


def test_the_drift_is_that_of_the_load() -> None:
    found = stability([queue(1.25, 20_000, seed=s) for s in range(3)])
    assert found.drift_share is not None
    assert found.drift_share.half is not None
    assert abs(found.drift_share.mean - 0.2) < found.drift_share.half < 0.02
    assert found.drift_per_s == pytest.approx(found.drift_share.mean * found.arrivals_per_s)
    assert found.line().startswith("unstable: the queue drifts by +2")
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(("load", "verdict"), [(0.7, "stable"), (1.2, "unstable")])
def test_the_simulator_is_judged_by_its_ledger(
    model: TraceModel, residual: Residual, load: float, verdict: str
) -> None:
    ledgers = []
    for seed in range(3):
        times = np.cumsum(np.random.default_rng(seed).exponential(1e-3 / load, 1500))
        ones = np.ones(1500, np.int64)
        asked, config = workload(times, 9 * ones, ones), one_by_one("macro", EVEN)
        config = dataclasses.replace(config, horizon_s=float(times[-1]))
        ledgers.append(run_workload(model, residual, asked, config).ledger)
    found = stability([Run.of(ledger) for ledger in ledgers])
    assert found.verdict == verdict
    assert any(ledger.counts()["unfinished"] for ledger in ledgers) or load < 1.0


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"warmup_share": 1.0}, "warmup_share"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"batches": 4}, "batches=4"),
    ],
)
def test_bad_questions_name_their_field(bad: dict[str, float], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        stability([queue(0.5, 500, seed=0)], **bad)
    with pytest.raises(ValueError, match="a verdict needs a run"):
        stability([])


def besieged(
    preset: str, model: TraceModel, residual: Residual, **changes: object
) -> tuple[ClusterConfig, tuple[Ledger, ...]]:
    config = dataclasses.replace(
        one_by_one("online", EVEN, max_seqs=3, n_pages=12, token_budget=64, max_context=128),
        preset=dataclasses.replace(get_preset(preset), sparse_min_context=1),
        replicas=2,
        **changes,
    )
    n = 40
    asked = workload(np.arange(n) * 1e-3, np.full(n, 30), np.full(n, 25))
    return config, run_workload(model, residual, asked, config).ledgers


@pytest.mark.parametrize("preset", ["baseline", "scheduling", "full"])
def test_a_gap_is_held_against_the_bound_of_the_law(
    model: TraceModel, residual: Residual, preset: str
) -> None:
    config, ledgers = besieged(preset, model, residual)
    found = starvation(ledgers, config.preset, config.limits, config.step_law)
    assert found.verdict == "within bound"
    assert found.bound_steps is not None
    assert 10 < found.gap_steps <= found.bound_steps
    assert found.certificate is not None
    assert f"request {found.request_id} went {found.gap_steps} steps unserved" in found.line()


def test_the_verdict_names_the_request_that_starved(model: TraceModel, residual: Residual) -> None:
    config, ledgers = besieged("baseline", model, residual)
    columns = ledgers[1].requests.columns
    columns["max_service_gap_steps"][3] = 10**6
    found = starvation(ledgers, config.preset, config.limits, config.step_law)
    assert found.verdict == "starved"
    assert found.request_id == columns["request_id"][3]


@pytest.mark.parametrize("preset", ["seed", "sjf"])
def test_a_law_without_a_bound_is_not_acquitted(
    model: TraceModel, residual: Residual, preset: str
) -> None:
    config, ledgers = besieged(preset, model, residual)
    found = starvation(ledgers, config.preset, config.limits, config.step_law)
    assert found.verdict == "no bound"
    assert found.line().startswith("no bound: request")


def test_the_bound_counts_who_was_there_at_once(model: TraceModel, residual: Residual) -> None:
    config, ledgers = besieged("baseline", model, residual)
    found = starvation(ledgers[:1], config.preset, config.limits, config.step_law)
    assert found.certificate is not None
    requests = ledgers[0].requests
    moments = requests["arrival_ns"]
    there = [
        int(((moments <= now) & (requests["finish_ns"] >= now)).sum()) for now in moments.tolist()
    ]
    assert found.certificate.constants["n_active"] == max(there)
    alone = service_gap(
        Fcfs(), n_active=1, slots=1, residence_steps=25, quantum_steps=None, step_s=1e-3
    )
    assert alone is not None
    assert found.bound_steps is not None
    assert found.bound_steps > alone.bound
