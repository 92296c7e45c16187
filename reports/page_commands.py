"""The commands that write pages to open: ``entropic page simulate``, ``plan`` and ``explain``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from simulator.commands import (
    ArrivalsFile,
    CutPrompts,
    GpuName,
    Lengths,
    MaxSeqs,
    ModelName,
    Pages,
    ProfileFile,
    Rate,
    Replicas,
    Requests,
    RouterOption,
    SloTpot,
    SloTtft,
    TargetNats,
    Think,
    TokenBudget,
    Topology,
    Tp,
    TraceFile,
    Turns,
    Users,
    assemble,
    device,
)
from traces.console import guarded, note, progress

app = typer.Typer(no_args_is_help=True, help="Write one-file HTML pages, and explain a request.")

STORY_REQUESTS = 2_000

Out = Annotated[Path, typer.Option(help="The page (.html), with everything inside.")]


@app.command()
@guarded
def simulate(
    *,
    presets: Annotated[
        str, typer.Option(help="Presets, by comma; others are compared with the first.")
    ] = "baseline,full",
    out: Out = Path("simulation.html"),
    story: Annotated[
        bool | None,
        typer.Option(help="Tell why the slowest request was slow; default: up to 2,000 requests."),
    ] = None,
    trace: TraceFile = None,
    rate: Rate = None,
    requests: Requests = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    replicas: Replicas = 1,
    router: RouterOption = "round_robin",
    topology: Topology = None,
    arrivals: ArrivalsFile = None,
    lengths: Lengths = None,
    profile: ProfileFile = None,
    model: ModelName = None,
    gpu: GpuName = None,
    tp: Tp = 1,
    max_seqs: MaxSeqs = None,
    token_budget: TokenBudget = None,
    pages: Pages = None,
    target_nats: TargetNats = 1.0,
    slo_ttft: SloTtft = None,
    slo_tpot: SloTpot = None,
    users: Users = None,
    turns: Turns = None,
    think: Think = None,
    cut_prompts: CutPrompts = False,
) -> None:
    """Simulate presets on the same requests and write a page that compares them."""
    from controllers.core import require
    from controllers.presets import get_preset
    from controllers.serving.decisions import DecisionRow
    from reports.simulation_build import simulation_evidence
    from reports.simulation_page import check_page_target, write_simulation_page
    from simulator.decisions import collected, kept_by
    from simulator.scenario import run

    names = [name.strip() for name in presets.split(",") if name.strip()]
    require(len(set(names)) == len(names) >= 1, "presets must be distinct names", presets=presets)
    chosen = [get_preset(name) for name in names]
    require(seed >= 0, "seed must be >= 0", seed=seed)
    check_page_target(out)
    scenario = assemble(
        trace,
        device(profile, model, gpu, tp),
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
        lengths=lengths,
        topology=topology,
        users=users,
        turns=turns,
        think=think,
        cut_prompts=cut_prompts,
    )
    # A log is kept in memory, and asks for mode online, which is the slow one.
    telling = scenario.n_requests <= STORY_REQUESTS if story is None else story
    runs, logs = [], {}
    for preset in chosen:
        rows: list[DecisionRow] = []
        told = collected(rows, kept=kept_by(scenario, preset, seed)) if telling else None
        with progress(f"simulating {preset.name}") as update:
            runs.append(run(scenario, preset, seed, progress=update, witnesses=told))
        logs[preset.name] = rows
    write_simulation_page(out, simulation_evidence(scenario, runs, decisions=logs))
    note(f"wrote {out}")


@app.command()
@guarded
def plan(
    document: Annotated[Path, typer.Argument(help="A plan, as `entropic plan --out` writes it.")],
    out: Out = Path("plan.html"),
) -> None:
    """Write the page of a capacity plan."""
    import json

    from reports.plan_page import write_plan_page

    try:
        found = json.loads(document.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{document} must be JSON; {error}") from error
    if not isinstance(found, dict) or found.get("command") != "plan":
        raise ValueError(f"{document} must be a plan, as `entropic plan --out` writes it")
    write_plan_page(out, found)
    note(f"wrote {out}")


@app.command()
@guarded
def explain(
    log: Annotated[Path, typer.Argument(help="A decision log (.jsonl or .jsonl.gz).")],
    request_id: Annotated[int, typer.Argument(help="The request to explain.")],
) -> None:
    """Tell why one request waited, ran and gave way when it did."""
    from simulator.decisions import read_decisions
    from simulator.decisions_story import explain as told

    sys.stdout.write(told(read_decisions(log), request_id))
