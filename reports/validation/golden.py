"""A measured run, simulated from its profile and resolved limits, and the difference.

Nothing is tuned on the run: what goes in is its arrivals, its lengths, the limits its engine
resolved and kernel times measured apart from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from controllers.preset import Preset
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from reports.validation.engine import engine_of, stand_in, vllm_preset, workload_of
from simulator.run import ClusterConfig, run_workload
from simulator.workload import NS_PER_S
from traces.golden import GoldenError, GoldenRun, read_run
from traces.golden_profile import GoldenProfile, read_profile_tables
from traces.profiles_shapes import find_shape

STATS: Mapping[str, Callable[[np.ndarray], float]] = {
    "mean": lambda x: float(x.mean()),
    "p50": lambda x: float(np.percentile(x, 50)),
    "p95": lambda x: float(np.percentile(x, 95)),
    "p99": lambda x: float(np.percentile(x, 99)),
}
PERCENTILES_FROM = 1000  # requests from which a p99 rests on ten of them
SPARE_POOL = 0.9  # of an estimated pool; a run that fills more needs the real one
Row = dict[str, str | float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What one simulation of a golden run goes by; :meth:`with_` changes one thing."""

    run: GoldenRun
    profile: GoldenProfile
    limits: EngineLimits
    pages_estimated: bool
    law: StepLaw
    preset: Preset

    def with_(self, **changed: object) -> Setup:
        """Return the same with other fields; ``n_pages`` and such are fields of the limits."""
        own = {name: value for name, value in changed.items() if name in self.__slots__}
        rest = {name: value for name, value in changed.items() if name not in own}
        limits = replace(self.limits, **rest)  # type: ignore[arg-type]
        return replace(self, **{"limits": limits, **own})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Times of a simulated run, seconds from the first arrival, ``[R]`` in order of arrival."""

    ttft_s: np.ndarray
    tpot_s: np.ndarray
    e2e_s: np.ndarray
    makespan_s: float
    preemptions: int
    recomputed_tokens: int  # after preemptions
    kept_tokens: int  # found again after preemptions
    peak_pages: int
    steps: int
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One golden folder: the setup, what came out, and the table."""

    setup: Setup
    simulated: Simulated
    rows: list[Row]
    request_mape_pct: dict[str, float]
    series_mae: dict[str, float]  # requests, and percentage points of the pool
    notes: tuple[str, ...]


def prepare(folder: Path, *, model: str | None = None, pages: int | None = None) -> Setup:
    """Read a golden folder; ``model`` is a shape's name or ``config.json`` where unknown."""
    run = read_run(folder)
    shape = find_shape(run.model if model is None else model)
    shape.check_split(run.tensor_parallel)
    profile = read_profile_tables(folder, run, shape)
    engine = engine_of(run, shape, profile.device, pages)
    return Setup(
        run=run,
        profile=profile,
        limits=engine.limits,
        pages_estimated=engine.pages_estimated,
        law=profile.law,
        preset=vllm_preset(),
    )


def simulate_run(setup: Setup) -> Simulated:
    """Serve the run's requests under ``setup``."""
    model, residual = stand_in(setup.limits.page_tokens)
    config = ClusterConfig(
        preset=setup.preset,
        limits=setup.limits,
        step_law=setup.law,
        bytes_per_page_unit=model.page_unit_bytes,
        record_tokens=False,
    )
    ledger = run_workload(model, residual, workload_of(setup.run), config).ledger
    requests = ledger.requests
    order = np.argsort(requests["request_id"])
    arrival, first, last = (
        requests[name][order] / NS_PER_S for name in ("arrival_ns", "first_token_ns", "finish_ns")
    )
    tokens = setup.run.output_tokens
    prompts = int(setup.run.prompt_tokens.sum())
    return Simulated(
        ttft_s=first - arrival,
        tpot_s=_tpot(first, last, tokens),
        e2e_s=last - arrival,
        makespan_s=float(last.max() - arrival.min()),
        preemptions=int(requests["preemptions"].sum()),
        recomputed_tokens=int(ledger.steps["prompt_tokens"].sum()) - prompts,
        kept_tokens=int(requests["rehit_tokens"].sum()),
        peak_pages=int(ledger.steps["pages_held"].max()),
        steps=ledger.step_count,
        ledger=ledger,
    )


def compare(setup: Setup) -> Comparison:
    """Simulate a golden run and set it beside the measurement; GoldenError if it cannot be."""
    run, simulated = setup.run, simulate_run(setup)
    share = simulated.peak_pages / setup.limits.n_pages
    if setup.pages_estimated and share > SPARE_POOL:
        raise GoldenError(
            f"{run.path}: kv_cache.num_gpu_blocks: is missing, and the run fills {share:.0%} of "
            f"the estimated {setup.limits.n_pages}: give --blocks"
        )
    tpot = _tpot(run.first_token_s, run.last_token_s, run.output_tokens)
    several = run.output_tokens > 1
    pairs = {
        "ttft_s": (run.ttft_s, simulated.ttft_s),
        "tpot_s": (tpot[several], simulated.tpot_s[several]),
        "e2e_s": (run.e2e_s, simulated.e2e_s),
    }
    rows = [
        _row(metric, stat, of(measured), of(ours))
        for metric, (measured, ours) in pairs.items()
        for stat, of in STATS.items()
    ]
    makespan = float(run.last_token_s.max() - run.arrival_s.min())
    tokens = float(run.output_tokens.sum())
    rows.append(_row("makespan_s", "total", makespan, simulated.makespan_s))
    rows.append(
        _row("throughput_tokens_per_s", "mean", tokens / makespan, tokens / simulated.makespan_s)
    )
    rows.append(_row("preemptions", "total", None, float(simulated.preemptions)))
    series = series_of(setup, simulated)
    rows.extend(
        _row(name, "mean", float(a.mean()), float(b.mean())) for name, (a, b) in series.items()
    )
    return Comparison(
        setup=setup,
        simulated=simulated,
        rows=rows,
        request_mape_pct={
            metric: float(100.0 * np.abs(ours / measured - 1.0).mean())
            for metric, (measured, ours) in pairs.items()
        },
        series_mae={name: float(np.abs(a - b).mean()) for name, (a, b) in series.items()},
        notes=(*setup.profile.notes, *_notes(setup, share)),
    )


def series_of(setup: Setup, simulated: Simulated) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return measured and simulated ``running``, ``waiting`` and ``kv_cache_pct`` at each sample.

    Running are the sequences of the step under way, at most one of them a new prompt. A cache that
    was zero all along was not recorded, and is left out.
    """
    series, steps = setup.run.series, simulated.ledger.steps
    at_ns = np.rint(series["t"] * NS_PER_S)
    requests = simulated.ledger.requests
    step = np.searchsorted(steps["now_ns"], at_ns, "right") - 1
    within = (step >= 0) & (at_ns < steps["now_ns"][step] + steps["duration_ns"][step])
    running = steps["n_decode"] + (steps["prompt_tokens"] > 0)
    running = np.where(within, running[step], 0)
    here = np.searchsorted(requests["arrival_ns"], at_ns, "right")
    here = here - np.searchsorted(np.sort(requests["finish_ns"]), at_ns, "right")
    held = np.where(within, steps["pages_held"][step], 0)
    found = {
        "running": (series["running"], running),
        "waiting": (series["waiting"], np.maximum(here - running, 0)),
    }
    if series["kv_cache_pct"].any():
        found["kv_cache_pct"] = (series["kv_cache_pct"], 100.0 * held / setup.limits.n_pages)
    return found


def _tpot(first: np.ndarray, last: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return (last - first) / np.maximum(tokens - 1, 1)


def _row(metric: str, stat: str, measured: float | None, simulated: float) -> Row:
    diff = None if not measured else 100.0 * (simulated / measured - 1.0)
    return {
        "metric": metric,
        "stat": stat,
        "measured": measured,
        "simulated": simulated,
        "diff_pct": diff,
    }


def _notes(setup: Setup, share: float) -> tuple[str, ...]:
    requests = len(setup.run.arrival_s)
    notes = []
    if requests < PERCENTILES_FROM:
        notes.append(f"p99 rests on {max(1, requests // 100)} of {requests} requests")
    if setup.pages_estimated:
        notes.append(
            f"num_gpu_blocks is not stated; {setup.limits.n_pages} estimated from the card's "
            f"memory, of which the run fills {share:.0%}, so it does not bind"
        )
    notes.append("the run does not record preemptions")
    return tuple(notes)
