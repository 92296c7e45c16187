"""Run a workload through a simulated cluster: a pure function of its arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import simpy

from controllers.core import require
from controllers.presets import Preset
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop, Sink
from controllers.serving.metrics import Metric, summarise
from controllers.steplaw import StepLaw
from controllers.temperature import X_MAX, X_MIN
from simulator.cluster import Cluster, Progress, RouterName, make_router
from simulator.executor import TraceExecutor
from simulator.merge import merged
from simulator.model import TraceModel
from simulator.replica import Replica
from simulator.residual import Residual
from simulator.workload import NS_PER_S, Asking, Workload, poisson_workload

if TYPE_CHECKING:
    from traces.store import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Replicas of one kind behind one router, and the law objects that run them."""

    preset: Preset
    limits: EngineLimits  # of each replica
    step_law: StepLaw
    bytes_per_page_unit: int  # one page of one layer and KV head, keys and values
    replicas: int = 1
    router: RouterName = "round_robin"
    seed: int = 0  # of the bootstrap beyond the recording; the residual has its own
    record_tokens: bool = True  # one ledger row per token; off saves memory, and ITL and entropies
    horizon_s: float | None = None  # stop here, leaving requests unfinished; None: run dry
    ttft_slo_s: float | None = None  # of goodput; None does not bind
    tpot_slo_s: float | None = None

    def __post_init__(self) -> None:
        require(self.replicas >= 1, "replicas must be >= 1", replicas=self.replicas)
        require(
            self.horizon_s is None or self.horizon_s > 0.0,
            "horizon_s must be > 0",
            horizon_s=self.horizon_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What a run left behind."""

    ledgers: tuple[Ledger, ...]  # one per replica
    ledger: Ledger  # the cluster's, in one piece
    metrics: Mapping[str, Metric]  # of the whole cluster
    caveats: Mapping[str, int]  # how often the recording had to be stretched, by name

    def to_json(self) -> str:
        """Return metrics and caveats as one line; equal runs give equal bytes."""
        found = {"metrics": dict(self.metrics), "caveats": dict(self.caveats)}
        return json.dumps(found, sort_keys=True, allow_nan=False)


def run_workload(
    model: TraceModel,
    residual: Residual,
    workload: Workload,
    config: ClusterConfig,
    *,
    progress: Progress | None = None,
    sinks: Callable[[int], Sink | None] = lambda _: None,
    verify: bool = False,
) -> SimulationResult:
    """Serve ``workload`` and return its ledgers and metrics.

    ``sinks`` gives each replica its run-log sink; ``verify`` asserts every invariant after each
    step. Page sizes must agree: shares were recorded for pages of the trace's size.
    """
    require(
        config.limits.page_tokens == model.page_tokens,
        f"limits.page_tokens must be the trace's {model.page_tokens}",
        page_tokens=config.limits.page_tokens,
    )
    stages = [type(stage).__name__ for stage in config.preset.stages]
    require(not stages, "stages cut rows of logits, which a recording does not hold", stages=stages)
    oracle = _true_tokens(model, workload) if config.preset.priority.oracle else None
    env = simpy.Environment()
    cluster = Cluster(env, make_router(config.router), workload, progress=progress)
    for index in range(config.replicas):
        loop = ServingLoop(
            config.limits,
            config.preset,
            config.step_law,
            sink=sinks(index),
            t_cal=model.t_cal,
            ledger=Ledger(record_tokens=config.record_tokens),
            oracle=oracle,
        )
        executor = TraceExecutor(
            model,
            config.preset,
            config.step_law,
            residual=residual,
            seed=config.seed,
            twin_coverage=loop.twin_coverage,
        )
        replica = Replica(env, loop, executor, on_finish=cluster.finished, verify=verify)
        cluster.replicas.append(replica)
    horizon_s = config.horizon_s
    cluster.run(None if horizon_s is None else round(horizon_s * NS_PER_S))
    ledgers = tuple(replica.loop.ledger for replica in cluster.replicas)
    whole = ledgers[0] if len(ledgers) == 1 else merged(ledgers)
    return SimulationResult(
        ledgers=ledgers,
        ledger=whole,
        metrics=summarise(
            whole,
            step_law=config.step_law,
            bytes_per_page_unit=config.bytes_per_page_unit,
            page_tokens=config.limits.page_tokens,
            ttft_slo_s=config.ttft_slo_s,
            tpot_slo_s=config.tpot_slo_s,
            x_min=X_MIN,
            x_max=X_MAX,
        ),
        caveats=_caveats(model, residual, workload, cluster),
    )


def simulate(
    trace: Trace,
    config: ClusterConfig,
    *,
    rate_per_s: float,
    n_requests: int,
    seed: int,
    asking: Asking | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Serve ``n_requests`` of ``trace`` at Poisson times; equal arguments give equal bytes."""
    workload = poisson_workload(
        trace, rate_per_s=rate_per_s, n_requests=n_requests, seed=seed, asking=asking
    )
    model, residual = TraceModel.of(trace), Residual.fit(trace, seed=seed)
    return run_workload(model, residual, workload, config, progress=progress)


def _true_tokens(model: TraceModel, workload: Workload) -> dict[int, int]:
    """Output length of each request, tokens, by id: what an oracle law may read."""
    lengths = {}
    for arrival in workload.arrivals:
        recorded = model.recorded_tokens(arrival.trace_index)
        wanted = recorded if arrival.output_tokens is None else arrival.output_tokens
        lengths[arrival.request.request_id] = min(wanted, arrival.request.max_tokens)
    return lengths


def _caveats(
    model: TraceModel, residual: Residual, workload: Workload, cluster: Cluster
) -> dict[str, int]:
    stretched = cut = 0
    for arrival in workload.arrivals:
        recorded = model.recorded_tokens(arrival.trace_index)
        wanted = recorded if arrival.output_tokens is None else arrival.output_tokens
        allowed = arrival.request.max_tokens
        stretched += max(0, min(wanted, allowed) - recorded)
        cut += wanted == recorded and not model.ends_itself[arrival.trace_index]
    distinct = {arrival.trace_index for arrival in workload.arrivals}
    return {
        "bootstrapped_tokens": stretched,
        "recordings_cut_short": cut,  # by the recorder's limit: the model would have gone on
        "recordings_reused": len(workload.arrivals) - len(distinct),
        "recordings_empty": workload.empty_recordings,
        "rows_below_lowest_coverage": sum(r.executor.clamped_rows for r in cluster.replicas),
        "residual_samples": residual.samples,
    }
