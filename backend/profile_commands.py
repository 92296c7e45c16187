"""The command that measures a profile: ``entropic profile run``."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from backend.commands import HERE, LIBRARIES, Model, Seed
from traces.console import commit, emit_json, guarded, package_versions, progress

app = typer.Typer()


@app.command()
@guarded
def run(
    out: Annotated[Path, typer.Option(help="Profile to write (JSON).")],
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    max_seqs: Annotated[int, typer.Option(min=1)] = 16,
    max_context: Annotated[int, typer.Option(min=512)] = 6144,
    token_budget: Annotated[int, typer.Option(min=16)] = 512,
    model: Model = None,
    seed: Seed = 0,
) -> None:
    """Measure this machine's step law on the live model."""
    from backend.live import run_profile
    from traces.profile import write_profile

    with progress("profiling") as update:
        measured = run_profile(
            model=model,
            repeats=repeats,
            max_seqs=max_seqs,
            max_context=max_context,
            token_budget=token_budget,
            seed=seed,
            commit=commit(HERE),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions=package_versions(*LIBRARIES),
            progress=update,
        )
    write_profile(out, measured)
    emit_json("profile run", seed=seed, config={"repeats": repeats}, profile=asdict(measured))
