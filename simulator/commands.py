"""What commands that simulate share: their options, a scenario made of them, a run as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast, get_args

import typer

from simulator.caveats import caveat_lines
from traces.text import number, table

if TYPE_CHECKING:
    from controllers.serving.metrics import Metric
    from simulator.scenario import Run, Scenario
    from traces.arrivals import Arrivals
    from traces.profile import Profile
    from traces.store import Trace

TraceFile = Annotated[
    Path | None, typer.Option("--trace", help="Recorded entropy trace; default: the one we ship.")
]
ProfileFile = Annotated[
    Path | None,
    typer.Option("--profile", help="Device profile (JSON); default: the CPU we measured."),
]
Rate = Annotated[
    float | None,
    typer.Option(help="Requests per second; default 75 % of the replicas' full-batch capacity."),
]
Requests = Annotated[int | None, typer.Option(help="Requests; default: every recorded one, once.")]
Replicas = Annotated[int, typer.Option(help="Servers behind the router.")]
RouterOption = Annotated[str, typer.Option("--router", help="round_robin or least_loaded.")]
ArrivalsFile = Annotated[
    Path | None,
    typer.Option(
        "--arrivals",
        help="Recorded arrivals (Azure, Mooncake, BurstGPT, Vidur, ...), with their lengths.",
    ),
]
MaxSeqs = Annotated[int | None, typer.Option(help="Residents at once; default: the profile's.")]
TokenBudget = Annotated[int | None, typer.Option(help="Tokens per step; default: the profile's.")]
Pages = Annotated[int | None, typer.Option(help="KV pages in the pool; default: the profile's.")]
TargetNats = Annotated[float, typer.Option(help="Entropy set-point H*.")]
SloTtft = Annotated[
    float | None, typer.Option(help="First-token deadline, s; default 3 x the longest prefill.")
]
SloTpot = Annotated[
    float | None, typer.Option(help="Bound on s per output token; default 3 x a full dense step.")
]
Lengths = Annotated[
    str | None,
    typer.Option(
        help="Whose lengths: trace or arrivals; default: the arrivals', if they have any."
    ),
]
ModelName = Annotated[str | None, typer.Option("--model", help="Planned model; with --gpu.")]
GpuName = Annotated[str | None, typer.Option("--gpu", help="Device of a shipped profile.")]
Tp = Annotated[int, typer.Option("--tp", help="GPUs of one replica (tensor parallel).")]
Roofline = Annotated[
    bool, typer.Option("--roofline", help="Price steps from datasheet numbers instead.")
]
ModeOption = Annotated[
    str, typer.Option("--mode", help="auto, macro, steps or online; the ledger is the same.")
]
Topology = Annotated[
    Path | None, typer.Option("--topology", help="Cluster description (JSON) for --replicas.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Choice = TypeVar("Choice")

LATENCIES = {
    "time to first token, s": "ttft_s",
    "time per output token, s": "tpot_s",
    "inter-token latency, s": "itl_s",
    "end to end, s": "e2e_s",
}
TOTALS = {
    "throughput, tokens/s": "throughput_tokens_per_s",
    "throughput, requests/s": "throughput_requests_per_s",
    "goodput, requests/s": "goodput_requests_per_s",
    "KV pages kept, share": "kv_pages_kept_share",
    "decode KV read, bytes": "kv_bytes_read",
    "tau at the applied T, nats": "tau_nats",
    "tau at T_cal, nats": "tau_cal_nats",
    "net entropy change, nats": "entropy_net_nats",
    "negative log-likelihood at T = 1, nats": "nll_nats",
    "T on a clip, share of tokens": "clip_share",
    "modelled cost, s": "cost_s",
    "preemptions": "preemptions",
    "longest service gap, steps": "max_service_gap_steps",
    "Jain fairness index": "jain",
    "requests completed": "completed",
}


def device(
    profile: Path | None,
    model: str | None,
    gpu: str | None,
    tp: int,
    *,
    roofline: bool = False,
    required: bool = False,
) -> Profile:
    """Return the profile that options name: a file, or a shipped one by model, GPU and degree."""
    from simulator import defaults
    from traces.profile import read_profile

    if model is None and gpu is None:
        if roofline or tp != 1:
            raise ValueError("--tp and --roofline need --model and --gpu")
        if profile is None and required:
            raise ValueError("a device must be named: --model and --gpu, or --profile")
        return read_profile(defaults.PROFILE if profile is None else profile)
    if profile is not None:
        raise ValueError(f"--profile {profile} already names a device; leave --model and --gpu out")
    if model is None or gpu is None:
        missing = "--model" if model is None else "--gpu"
        raise ValueError(f"{missing} is missing: --model and --gpu go together")
    return defaults.find_profile(model, gpu, tp, roofline=roofline)


def assemble(
    trace: Path | None,
    profile: Path | Profile | None,
    arrivals: Path | Arrivals | None,
    *,
    rate: float | None,
    requests: int | None,
    replicas: int = 1,
    router: str = "round_robin",
    max_seqs: int | None = None,
    token_budget: int | None = None,
    pages: int | None = None,
    target_nats: float = 1.0,
    slo_ttft: float | None = None,
    slo_tpot: float | None = None,
    lengths: str | None = None,
    mode: str = "auto",
    topology: Path | None = None,
    whole_trace: bool = True,
) -> Scenario:
    """Read the files that options name and return the scenario.

    Without ``whole_trace`` only what a simulation reads of the trace is opened, from the cache.
    """
    from simulator import defaults
    from simulator.cluster import RouterName
    from simulator.cluster_modes import ModeName
    from simulator.scenario import Lengths as LengthsName
    from simulator.scenario import build
    from traces.arrivals import read_arrivals
    from traces.profile import read_profile

    routers: tuple[RouterName, ...] = get_args(RouterName)
    modes: tuple[ModeName, ...] = get_args(ModeName)
    kinds: tuple[LengthsName, ...] = get_args(LengthsName)
    whose: LengthsName | None = None
    if lengths is not None:
        whose = _one_of("lengths", lengths, kinds)
    if profile is None or isinstance(profile, Path):
        profile = read_profile(defaults.PROFILE if profile is None else profile)
    if isinstance(arrivals, Path):
        arrivals = read_arrivals(arrivals)
    recorded = _recorded(defaults.TRACE if trace is None else trace, whole=whole_trace)
    cluster = None
    if topology is not None:
        from simulator.description_file import read_plan

        cluster = read_plan(topology, page_tokens=int(recorded.metadata["page_tokens"]))
    return build(
        recorded,
        profile,
        rate_per_s=rate,
        n_requests=requests,
        replicas=replicas,
        router=_one_of("router", router, routers),
        arrivals=arrivals,
        max_seqs=max_seqs,
        token_budget=token_budget,
        pages=pages,
        target_nats=target_nats,
        ttft_slo_s=slo_ttft,
        tpot_slo_s=slo_tpot,
        lengths=whose,
        mode=_one_of("mode", mode, modes),
        cluster=cluster,
    )


def _recorded(path: Path, *, whole: bool) -> Trace:
    if whole:
        from traces.store import read_trace

        return read_trace(path)
    from simulator.library import load_library

    return cast("Trace", load_library(path))  # which has every name that a scenario reads


def _one_of(option: str, value: str, known: tuple[Choice, ...]) -> Choice:
    for one in known:
        if one == value:
            return one
    raise ValueError(f"{option} must be one of {', '.join(map(str, known))}; got {value!r}")


def report(scenario: Scenario, done: Run) -> str:
    """Return a run as text: latencies, totals, then what the numbers rest on."""
    return "\n".join(
        (
            f"preset {done.preset}, seed {done.seed}: {scenario.n_requests} requests at "
            f"{number(scenario.rate_per_s)}/s on {scenario.replicas} replica(s)\n",
            _latencies(done.metrics),
            _totals(done.metrics),
            *(f"note: {line}" for line in caveat_lines(scenario, done)),
            "",
        )
    )


def _latencies(metrics: Mapping[str, Metric]) -> str:
    stats = ("mean", "p50", "p95", "p99")
    rows = []
    for label, name in LATENCIES.items():
        found = metrics[name]
        values = [found[stat] if isinstance(found, dict) else None for stat in stats]
        rows.append([label, *(number(value) for value in values)])
    return table(("latency", *stats), rows)


def _totals(metrics: Mapping[str, Metric]) -> str:
    rows = []
    for label, name in TOTALS.items():
        value = metrics[name]
        assert not isinstance(value, dict)
        rows.append([label, number(value, 4)])
    return table(("total", "value"), rows)
