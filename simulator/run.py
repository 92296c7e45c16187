"""Run a workload through a simulated cluster: a pure function of its arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import simpy

from controllers.core import require
from controllers.presets import Preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from simulator.cluster import Cluster, Progress, RouterName, make_router
from simulator.cluster_fleet import Fleet, Machine, Member
from simulator.cluster_modes import (
    AHEAD,
    ModeName,
    ServerFactory,
    Sinks,
    Witnesses,
    choose_mode,
)
from simulator.description import ClusterPlan, Group
from simulator.model import TraceModel
from simulator.recordings import Recordings
from simulator.residual import Residual
from simulator.run_result import SimulationResult, result_of, true_tokens
from simulator.trajectories import Trajectories
from simulator.workload import NS_PER_S, Asking, Workload, poisson_workload

if TYPE_CHECKING:
    from traces.store import Trace

__all__ = ["ClusterConfig", "SimulationResult", "run_workload", "simulate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Servers behind one router, and the law objects that run them."""

    preset: Preset
    limits: EngineLimits  # of each replica
    step_law: StepLaw  # also prices what a request would take alone, whatever its server
    bytes_per_page_unit: int  # one page of one layer and KV head, keys and values
    replicas: int = 1
    cluster: ClusterPlan | None = None  # in the place of ``replicas`` alike
    router: RouterName = "round_robin"
    mode: ModeName = "auto"
    seed: int = 0  # of the bootstrap beyond the recording; the residual has its own
    record_tokens: bool = True  # one ledger row per token; off saves memory, ITL is then binned
    record_steps: bool = True  # one ledger row per step
    horizon_s: float | None = None  # stop here, leaving requests unfinished; None: run dry
    warmup_s: float = 0.0  # requests that arrived and steps that began before count in no metric
    ttft_slo_s: float | None = None  # of goodput; None does not bind
    tpot_slo_s: float | None = None

    def __post_init__(self) -> None:
        require(self.replicas >= 1, "replicas must be >= 1", replicas=self.replicas)
        require(
            self.horizon_s is None or self.horizon_s > 0.0,
            "horizon_s must be > 0",
            horizon_s=self.horizon_s,
        )
        require(
            math.isfinite(self.warmup_s) and self.warmup_s >= 0.0,
            "warmup_s must be finite and >= 0",
            warmup_s=self.warmup_s,
        )
        require(
            self.cluster is None or self.replicas == 1,
            "replicas must be 1 with a cluster plan, whose groups have counts",
            replicas=self.replicas,
        )

    def plan(self) -> ClusterPlan:
        """Return the groups with every limit and law filled in."""
        own = ClusterPlan(groups=(Group(count=self.replicas),))
        asked = own if self.cluster is None else self.cluster
        groups = tuple(
            replace(
                group,
                limits=self.limits if group.limits is None else group.limits,
                step_law=self.step_law if group.step_law is None else group.step_law,
            )
            for group in asked.groups
        )
        return replace(asked, groups=groups)


def run_workload(
    model: TraceModel,
    residual: Residual,
    workload: Workload,
    config: ClusterConfig,
    *,
    progress: Progress | None = None,
    sinks: Sinks | None = None,
    witnesses: Witnesses | None = None,
    verify: bool = False,
    trajectories: Trajectories | None = None,
) -> SimulationResult:
    """Serve ``workload`` and return its ledgers and metrics.

    ``sinks`` give each server its run log, ``witnesses`` its decision log (both: mode online);
    ``verify`` asserts every invariant after each step. Page sizes must be the trace's.
    ``trajectories`` that keep what they scan serve several runs of the same requests, at other
    times or on other machines; modes online and calls have no use for them.
    """
    plan = config.plan()
    _check(model, config.preset, plan)
    mode, reason = choose_mode(
        config.mode,
        config.preset,
        workload,
        logged=sinks is not None or witnesses is not None,
        windows=plan.disaggregated,
    )
    asked = (model, residual, config.preset, workload.arrivals)
    recordings = None
    if mode == "calls":
        recordings = Recordings(model, residual, workload.arrivals, seed=config.seed)
    if mode not in AHEAD:
        trajectories = None
    elif trajectories is None:
        trajectories = Trajectories(*asked, seed=config.seed)
    else:
        trajectories = trajectories.shared(*asked, seed=config.seed)
    env = simpy.Environment()
    router = make_router(config.router, seed=config.seed, kept=partial(_kept, model))
    kept = recordings if trajectories is None else trajectories
    closed = (lambda _id: None) if kept is None else kept.forget
    cluster = Cluster(env, router, workload, plan, progress=progress, on_close=closed)
    factory = ServerFactory(
        env=env,
        mode=mode,
        model=model,
        residual=residual,
        trajectories=trajectories,
        recordings=recordings,
        preset=config.preset,
        seed=config.seed,
        oracle=true_tokens(model, workload) if config.preset.priority.oracle else None,
        record_tokens=config.record_tokens,
        record_steps=config.record_steps,
        totals_from_ns=round(config.warmup_s * NS_PER_S),
        verify=verify,
        sinks=sinks,
        witnesses=witnesses,
        on_finish=cluster.left,
    )
    fleet = Fleet(plan.groups, partial(_member, factory, plan))
    horizon_s = config.horizon_s
    cluster.run(fleet, None if horizon_s is None else round(horizon_s * NS_PER_S))
    return result_of(model, residual, workload, config, cluster, fleet, (mode, reason))


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


def _check(model: TraceModel, preset: Preset, plan: ClusterPlan) -> None:
    for group in plan.groups:
        assert group.limits is not None, "a plan to run has limits"
        require(
            group.limits.page_tokens == model.page_tokens,
            f"limits.page_tokens must be the trace's {model.page_tokens}",
            page_tokens=group.limits.page_tokens,
        )
    stages = [type(stage).__name__ for stage in preset.stages]
    require(not stages, "stages cut rows of logits, which a recording does not hold", stages=stages)


def _member(factory: ServerFactory, plan: ClusterPlan, number: int, machine: Machine) -> Member:
    group = plan.groups[machine.group]
    assert group.limits is not None, "a plan to run has limits"
    assert group.step_law is not None, "a plan to run has step laws"
    return Member(
        number=number,
        machine=machine.number,
        server=factory.make(number, group.limits, group.step_law),
        step_law=group.step_law,
        limits=group.limits,
        role=group.role,
    )


def _kept(model: TraceModel, coverage: float) -> float:
    """Return the share of KV that the recording's rows keep at a coverage, on average."""
    rows = np.arange(len(model.shares.shares))
    highest = float(model.shares.coverages[-1])
    inside = coverage if coverage >= 1.0 else min(coverage, highest)
    return float(model.shares.share(rows, np.full(len(rows), inside)).mean())
