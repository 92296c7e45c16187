"""The command that audits the paper: ``entropic claims``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from traces.console import FAILED, emit_json, guarded, note

app = typer.Typer(no_args_is_help=True)

OUT = Path("reports") / "claims.md"


@app.command()
@guarded
def claims(
    *,
    out: Annotated[
        Path | None, typer.Option(help=f"Page to write; default {OUT}, with --only none.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Judge this claim only; repeat it.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of simulations, from 0.")] = 5,
    trace: Annotated[Path | None, typer.Option(help="Recorded trace; default: ours.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Device profile; default: ours.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes; 0: one per processor.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Hold every claim of the paper against evidence: holds, when corrected, refuted, untestable.

    Exits with 1 where a judge fails; then nothing is written.
    """
    from reports.build import RESULTS, read_results
    from reports.claims.audit import JudgeFailed, judge_all
    from reports.claims.context import Context
    from reports.claims.page import provenance, render
    from reports.claims.registry import SECTIONS, all_claims, get_claim
    from reports.commands import check_folder, check_jobs, seed_range
    from simulator.commands import assemble
    from traces.atomic import atomic_path

    chosen = tuple(get_claim(key) for key in dict.fromkeys(only)) if only else all_claims()
    numbers = tuple(seed_range(0, seeds))
    check_jobs(jobs)
    target = out or (None if only else OUT)
    if target is not None:
        check_folder(target.parent)
    scenario = assemble(trace, profile, None, rate=None, requests=None)
    context = Context(scenario, numbers, jobs=jobs, results=read_results(RESULTS), say=note)
    try:
        rows = judge_all(chosen, context, say=note)
    except JudgeFailed as failed:
        note(f"error: {failed}")
        raise typer.Exit(FAILED) from failed
    command = shlex.join(["entropic", *sys.argv[1:]])
    page = render(SECTIONS, rows, provenance(context, command))
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as part:
            part.write_text(page, encoding="utf-8")
        note(f"wrote {target}")
    if json:
        config = {"seeds": list(context.seeds), "trace_sha256": scenario.trace.sha256}
        emit_json("claims", seed=0, config=config, rows=[row.to_json() for row in rows])
    elif target is None:
        sys.stdout.write(page)
