"""A scenario: everything about a simulated run but its preset and its seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np

from controllers.certificates import require_target
from controllers.core import require
from controllers.presets import Preset
from controllers.serving.limits import EngineLimits
from controllers.serving.metrics import Metric
from simulator import caveats, defaults
from simulator.cluster import Progress, RouterName
from simulator.cluster_modes import ModeName, Witnesses, choose_mode
from simulator.description import ClusterPlan
from simulator.library import Library
from simulator.model import TraceModel
from simulator.residual import Residual
from simulator.run import ClusterConfig, SimulationResult, run_workload
from simulator.scenario_load import drawn, of_users, replayed, require_fit, workload_of
from simulator.sessions import Sessions
from simulator.trajectories import Trajectories
from simulator.workload import Asking, Workload
from traces.arrivals import Arrivals
from traces.profile import Profile

if TYPE_CHECKING:
    from traces.store import Trace


Lengths = Literal["trace", "arrivals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Trace, machine, load and service levels; equal scenarios, presets and seeds run alike."""

    trace: Trace  # or a ``Library``, which has every name of it that is read here
    profile: Profile
    limits: EngineLimits
    bytes_per_page_unit: int
    rate_per_s: float
    n_requests: int
    ttft_slo_s: float
    tpot_slo_s: float
    asking: Asking
    replicas: int = 1
    router: RouterName = "round_robin"
    arrivals: Arrivals | None = None  # recorded times; None: Poisson
    lengths: Lengths = "trace"  # whose prompts and outputs have the lengths
    sessions: Sessions | None = None  # users in a closed loop, in the place of arrivals
    cut_prompts: bool = False  # those of arrivals beyond max_context, instead of an error
    mode: ModeName = "auto"  # how the simulation steps; all modes give the same ledger
    cluster: ClusterPlan | None = None  # in the place of ``replicas`` alike
    record: bool = True  # a ledger row per token and step; off saves memory, ITL is then binned
    warmup_s: float = 0.0  # what arrived or began before counts in no metric
    share_prefixes: bool = True  # prompts that begin alike share pages, where arrivals say so
    model: TraceModel = field(repr=False)
    residual: Residual = field(repr=False)  # fitted; each run seeds its own

    def __post_init__(self) -> None:
        for name in ("rate_per_s", "ttft_slo_s", "tpot_slo_s"):
            value = getattr(self, name)
            require(
                math.isfinite(value) and value > 0.0,
                f"{name} must be finite and > 0",
                **{name: value},
            )
        require(
            math.isfinite(self.warmup_s) and self.warmup_s >= 0.0,
            "warmup must be finite and >= 0",
            warmup=self.warmup_s,
        )
        for name in ("n_requests", "replicas", "bytes_per_page_unit"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be >= 1", **{name: value})
        require_fit(self)

    def at(self, rate_per_s: float) -> Scenario:
        """Return the scenario at another arrival rate."""
        return replace(self, rate_per_s=rate_per_s)

    def workload(self, seed: int) -> Workload:
        """Return who asks for what, and when; the same for every preset."""
        return workload_of(self, seed)

    def to_json(self) -> dict[str, object]:
        """Return what a reader needs to run it again."""
        return {
            "trace": self.trace.path.name,
            "trace_sha256": self.trace.sha256,
            "traced_model": self.trace.metadata["model"],
            "planned_model": self.profile.model,
            "profile_device": self.profile.device,
            "profile_created": self.profile.created,
            "step_law": dict(self.profile.step_law),
            "sparse_from_tokens": self.profile.sparse_from_tokens,
            "limits": self.limits.to_json(),
            "bytes_per_page_unit": self.bytes_per_page_unit,
            **self._load_json(),
            "requests": self.n_requests,
            "warmup_s": self.warmup_s,
            "replicas": self.replicas,
            "router": self.router,
            "target_nats": self.asking.target_nats,
            "ttft_slo_s": self.ttft_slo_s,
            "tpot_slo_s": self.tpot_slo_s,
        }

    def _load_json(self) -> dict[str, object]:
        if self.sessions is not None:
            return {"arrivals": "closed loop", "sessions": asdict(self.sessions)}
        source = "poisson" if self.arrivals is None else self.arrivals.source
        return {
            "arrivals": source,
            "lengths": self.lengths,
            "cut_prompts": self.cut_prompts,
            "rate_per_s": self.rate_per_s,
        }

    def cap(self, task_class: str) -> int:
        """Return the class's ``max_tokens``, as the workload sets it."""
        if self.asking.max_tokens is not None:
            return self.asking.max_tokens
        return max(r.output_tokens for r in self.trace.requests if r.task_class == task_class)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One preset and seed of a scenario."""

    preset: str
    seed: int
    caveats: Mapping[str, int]  # how often recording or profile had to be stretched, by name
    result: SimulationResult

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Metrics of the whole cluster."""
        return self.result.metrics


def build(
    trace: Trace,
    profile: Profile,
    *,
    rate_per_s: float | None = None,
    n_requests: int | None = None,
    replicas: int = 1,
    router: RouterName = "round_robin",
    arrivals: Arrivals | None = None,
    max_seqs: int | None = None,
    token_budget: int | None = None,
    pages: int | None = None,
    target_nats: float = 1.0,
    ttft_slo_s: float | None = None,
    tpot_slo_s: float | None = None,
    lengths: Lengths | None = None,
    mode: ModeName = "auto",
    cluster: ClusterPlan | None = None,
    sessions: Sessions | None = None,
    cut_prompts: bool = False,
    record: bool = True,
    warmup_s: float = 0.0,
) -> Scenario:
    """Return a scenario; what is None is derived from the trace and the profile.

    A trace that is a ``Library``, prepared before, opens without the Parquet reader.
    By default every recorded request is served once per run, at ``UTILISATION`` of the capacity of
    the replicas; recorded arrivals keep their own rate and lengths (where they have any), and are
    rescaled to a rate that is given.
    """
    require(len(trace.requests) >= 1, "the trace needs a request", requests=len(trace.requests))
    law = profile.law
    limits = defaults.limits_for(
        profile,
        trace.metadata["page_tokens"],
        max_seqs=max_seqs,
        token_budget=token_budget,
        pages=pages,
    )
    if rate_per_s is not None:
        require(math.isfinite(rate_per_s) and rate_per_s > 0.0, "rate must be > 0", rate=rate_per_s)
    if n_requests is not None:
        require(n_requests >= 1, "requests must be >= 1", requests=n_requests)
    require(replicas >= 1, "replicas must be >= 1", replicas=replicas)
    if sessions is not None:
        sessions, rate, wanted = of_users(sessions, limits, cluster)
    elif arrivals is not None:
        arrivals, rate, wanted = replayed(arrivals, rate_per_s, n_requests)
    else:
        asked = {"rate_per_s": rate_per_s, "n_requests": n_requests, "replicas": replicas}
        rate, wanted = drawn(trace, law, limits, **asked)
    known = cast("object", trace)
    library = known if isinstance(known, Library) else Library.of(trace)
    require_target(target_nats, library.vocabulary)
    if lengths is None:
        has_lengths = arrivals is not None and arrivals.output_tokens is not None
        lengths = "arrivals" if has_lengths else "trace"
    require(
        lengths in get_args(Lengths), f"lengths must be one of {get_args(Lengths)}", got=lengths
    )
    deadline = defaults.ttft_slo_s(trace, law) if ttft_slo_s is None else ttft_slo_s
    return Scenario(
        trace=trace,
        profile=profile,
        limits=limits,
        bytes_per_page_unit=int(trace.metadata["page_unit_bytes"]),
        rate_per_s=rate,
        n_requests=wanted,
        ttft_slo_s=deadline,
        tpot_slo_s=defaults.tpot_slo_s(trace, law, limits) if tpot_slo_s is None else tpot_slo_s,
        asking=Asking(target_nats=target_nats, first_token_slo_s=deadline),
        replicas=replicas,
        router=router,
        arrivals=arrivals,
        lengths=lengths,
        mode=mode,
        cluster=cluster,
        sessions=sessions,
        cut_prompts=cut_prompts,
        record=record,
        warmup_s=warmup_s,
        model=library.model,
        residual=library.residual,
    )


def run(
    scenario: Scenario,
    preset: Preset,
    seed: int,
    *,
    progress: Progress | None = None,
    witnesses: Witnesses | None = None,
    trajectories: Trajectories | None = None,
) -> Run:
    """Serve the scenario's workload under ``preset``; equal arguments give equal results.

    ``trajectories`` (of ``trajectories_of``) save time only: they are the same for every rate and
    every number of servers.
    """
    preset = scenario.profile.served(preset)
    config = ClusterConfig(
        preset=preset,
        limits=scenario.limits,
        step_law=scenario.profile.law,
        bytes_per_page_unit=scenario.bytes_per_page_unit,
        replicas=scenario.replicas,
        cluster=scenario.cluster,
        router=scenario.router,
        mode=scenario.mode,
        seed=seed,
        record_tokens=scenario.record,
        record_steps=scenario.record,
        ttft_slo_s=scenario.ttft_slo_s,
        tpot_slo_s=scenario.tpot_slo_s,
        warmup_s=scenario.warmup_s,
    )
    residual = replace(scenario.residual, seed=seed)
    workload = scenario.workload(seed)
    result = run_workload(
        scenario.model,
        residual,
        workload,
        config,
        progress=progress,
        witnesses=witnesses,
        trajectories=trajectories,
    )
    stretched = caveats.beyond_profile(scenario, result.ledger)
    found = {
        **result.caveats,
        **workload.caveats,
        **stretched,
        **caveats.evictions(result.ledger),
        **caveats.warmed_up(scenario, result.ledger),
    }
    return Run(preset=preset.name, seed=seed, caveats=found, result=result)


def trajectories_of(scenario: Scenario, preset: Preset, seed: int) -> Trajectories | None:
    """Return what several runs under one preset and seed share; None where laws must run online."""
    preset, workload = scenario.profile.served(preset), scenario.workload(seed)
    if choose_mode(scenario.mode, preset, workload, logged=False, windows=False)[0] == "online":
        return None
    residual = replace(scenario.residual, seed=seed)
    return Trajectories(scenario.model, residual, preset, workload.arrivals, seed=seed, keep=True)


def generated_tokens(run: Run) -> int:
    """Return the tokens a run generated."""
    return int(np.sum(run.result.ledger.requests["tokens"]))
