"""The command that runs one simulation: ``entropic simulate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from simulator.caveats import caveat_json, caveat_lines
from traces.console import emit_json, guarded, note, progress
from traces.text import number, table

if TYPE_CHECKING:
    from controllers.serving.metrics import Metric
    from simulator.scenario import Run, Scenario

app = typer.Typer(no_args_is_help=True)

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
        help="Recorded arrival times (Azure, Mooncake, BurstGPT, Vidur); lengths stay the trace's.",
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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

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


@app.command()
@guarded
def simulate(
    *,
    trace: TraceFile = None,
    preset: Annotated[str, typer.Option(help="Control preset.")] = "full",
    rate: Rate = None,
    requests: Requests = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    replicas: Replicas = 1,
    router: RouterOption = "round_robin",
    arrivals: ArrivalsFile = None,
    profile: ProfileFile = None,
    max_seqs: MaxSeqs = None,
    token_budget: TokenBudget = None,
    pages: Pages = None,
    target_nats: TargetNats = 1.0,
    slo_ttft: SloTtft = None,
    slo_tpot: SloTpot = None,
    ledger_out: Annotated[
        Path | None, typer.Option(help="Write every row here (.parquet or .jsonl).")
    ] = None,
    json: Json = False,
) -> None:
    """Replay the recorded trace through simulated servers under a preset."""
    from controllers.core import require
    from controllers.presets import get_preset
    from simulator.ledger_file import check_target, write_ledger
    from simulator.scenario import run

    chosen = get_preset(preset)
    require(seed >= 0, "seed must be >= 0", seed=seed)
    if ledger_out is not None:
        check_target(ledger_out)
    scenario = assemble(
        trace,
        profile,
        arrivals,
        rate=rate,
        requests=requests,
        replicas=replicas,
        router=router,
        max_seqs=max_seqs,
        token_budget=token_budget,
        pages=pages,
        target_nats=target_nats,
        slo_ttft=slo_ttft,
        slo_tpot=slo_tpot,
    )
    if json:
        done = run(scenario, chosen, seed)
    else:
        with progress("simulating") as update:
            done = run(scenario, chosen, seed, progress=update)
    if ledger_out is not None:
        write_ledger(ledger_out, done.result.ledger)
        note(f"wrote {ledger_out}")
    if json:
        config = {"preset": preset, "laws": chosen.fingerprints(), **scenario.to_json()}
        found, notes = dict(done.metrics), caveat_json(scenario, done.caveats)
        emit_json("simulate", seed=seed, config=config, metrics=found, caveats=notes)
    else:
        sys.stdout.write(report(scenario, done))


def assemble(
    trace: Path | None,
    profile: Path | None,
    arrivals: Path | None,
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
) -> Scenario:
    """Read the files that options name and return the scenario."""
    from controllers.core import require
    from simulator import defaults
    from simulator.cluster import RouterName
    from simulator.scenario import build
    from traces.arrivals import read_arrivals
    from traces.profile import read_profile
    from traces.store import read_trace

    routers: tuple[RouterName, ...] = get_args(RouterName)
    require(router in routers, f"router must be one of {routers}", router=router)
    measured = read_profile(defaults.PROFILE if profile is None else profile)
    recorded = read_trace(defaults.TRACE if trace is None else trace)
    times = None if arrivals is None else read_arrivals(arrivals)
    return build(
        recorded,
        measured,
        rate_per_s=rate,
        n_requests=requests,
        replicas=replicas,
        router=routers[routers.index(router)],
        arrivals=times,
        max_seqs=max_seqs,
        token_budget=token_budget,
        pages=pages,
        target_nats=target_nats,
        ttft_slo_s=slo_ttft,
        tpot_slo_s=slo_tpot,
    )


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
