"""Commands that run studies and write reports: ablate, report, demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.commands import (
    Json,
    MaxSeqs,
    Pages,
    ProfileFile,
    Rate,
    Replicas,
    Requests,
    RouterOption,
    SloTpot,
    SloTtft,
    TargetNats,
    TokenBudget,
    TraceFile,
    assemble,
)
from traces.console import FAILED, emit_json, guarded, note, progress

if TYPE_CHECKING:
    from reports.studies.ablation import Ablation

app = typer.Typer(no_args_is_help=True)

Seeds = Annotated[int, typer.Option(help="Seeds, from --seed upwards.")]
Seed = Annotated[int, typer.Option(help="First seed.")]
Jobs = Annotated[int, typer.Option(help="Processes; 0: one per processor.")]
Out = Annotated[Path, typer.Option(help="Folder for the page and its figures.")]
OUT = Path("reports") / "out"


@app.command()
@guarded
def ablate(
    *,
    trace: TraceFile = None,
    profile: ProfileFile = None,
    seeds: Seeds = 5,
    seed: Seed = 0,
    rate: Rate = None,
    requests: Requests = None,
    replicas: Replicas = 1,
    router: RouterOption = "round_robin",
    max_seqs: MaxSeqs = None,
    token_budget: TokenBudget = None,
    pages: Pages = None,
    target_nats: TargetNats = 1.0,
    slo_ttft: SloTtft = None,
    slo_tpot: SloTpot = None,
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Compare every preset on the same arrivals and requests, with intervals over seeds."""
    from reports.notes import INTERVALS
    from reports.studies.ablation import ablate as run_ablation
    from simulator.caveats import caveat_json

    numbers = seed_range(seed, seeds)
    check_jobs(jobs)
    scenario = assemble(
        trace,
        profile,
        None,
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
    with progress("ablation") as update:
        found = run_ablation(scenario, seeds=numbers, jobs=jobs, progress=update)
    if json:
        config = {"seeds": list(numbers), **scenario.to_json()}
        notes = {**caveat_json(scenario, found.caveats), "intervals": INTERVALS}
        emit_json("ablate", seed=seed, config=config, rows=found.to_json(), caveats=notes)
    else:
        print_ablation(found)


@app.command()
@guarded
def report(
    *,
    trace: TraceFile = None,
    profile: ProfileFile = None,
    out: Out = OUT,
    seeds: Seeds = 5,
    seed: Seed = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and loads.")] = False,
    jobs: Jobs = 0,
) -> None:
    """Simulate the studies and write the page with its figures; nothing runs live."""
    from reports.build import build_page, simulate_evidence

    numbers = seed_range(seed, min(seeds, 2) if quick else seeds)
    check_jobs(jobs)
    check_folder(out)
    scenario = assemble(trace, profile, None, rate=None, requests=None)
    evidence = simulate_evidence(scenario, seeds=numbers, jobs=jobs, quick=quick)
    note(f"wrote {build_page(evidence, out)}")


@app.command()
@guarded
def demo(
    *,
    trace: TraceFile = None,
    profile: ProfileFile = None,
    out: Out = OUT,
    seeds: Seeds = 5,
    seed: Seed = 0,
    max_tokens: Annotated[int, typer.Option(help="Tokens per live reply.")] = 64,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer prompts, seeds and loads.")] = False,
    jobs: Jobs = 0,
) -> None:
    """Generate live text under control, replay the trace under every preset, write the page."""
    from dataclasses import replace

    from reports.build import build_page, simulate_evidence
    from reports.live import generate_replies, reply_text

    numbers = seed_range(seed, min(seeds, 2) if quick else seeds)
    check_jobs(jobs)
    check_folder(out)
    scenario = assemble(trace, profile, None, rate=None, requests=None)
    with progress("generating") as update:
        replies = generate_replies(
            n_prompts=3 if quick else None,
            max_tokens=min(max_tokens, 24) if quick else max_tokens,
            target_nats=scenario.asking.target_nats,
            seed=seed,
            progress=update,
        )
    for reply in replies:
        sys.stdout.write(reply_text(reply) + "\n")
    evidence = simulate_evidence(scenario, seeds=numbers, jobs=jobs, quick=quick)
    print_ablation(evidence.ablation)
    page = build_page(replace(evidence, replies=tuple(replies)), out)
    sys.stdout.write(f"page: {page}\n")
    failed = [reply for reply in replies if reply.failed]
    for reply in failed:
        note(f"error: the live request {reply.prompt[:60]!r} ended with {reply.finish_reason}")
    if failed:
        raise typer.Exit(FAILED)


def seed_range(first: int, count: int) -> range:
    """Return ``count`` seeds from ``first``."""
    from controllers.core import require

    require(first >= 0, "seed must be >= 0", seed=first)
    require(count >= 1, "seeds must be >= 1", seeds=count)
    return range(first, first + count)


def check_jobs(jobs: int) -> None:
    """Raise on a number of processes that nothing can run on."""
    from controllers.core import require

    require(jobs >= 0, "jobs must be >= 0", jobs=jobs)


def check_folder(out: Path) -> None:
    """Raise where ``out`` cannot become a folder to write in; leave the disk as it is."""
    known = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not known.is_dir() or not os.access(known, os.W_OK | os.X_OK):
        raise ValueError(f"--out must be a folder that can be written in; got {out}")


def print_ablation(found: Ablation) -> None:
    """Print the ablation's tables and their footer on stdout."""
    from rich.console import Console

    from reports.notes import footer, matched_verdict
    from reports.tables import WIDTH, ablation_grid, matched_grid, rich_table

    console = Console(file=sys.stdout)
    if console.width < WIDTH:  # a wrapped number is worse than a wide line
        console = Console(file=sys.stdout, width=WIDTH)
    console.print(rich_table(ablation_grid(found), "Presets under common random numbers"))
    title = "Against one fixed T of equal mean entropy on the same tokens, nats"
    console.print(rich_table(matched_grid(found), title))
    sys.stdout.write("\n".join((matched_verdict(found), *footer(found))) + "\n")
