"""The command that measures a profile: ``entropic profile run``."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from backend.commands import HERE, LIBRARIES, DeviceName, DtypeName, Model, Seed
from traces.console import (
    check_target,
    commit,
    emit_json,
    guarded,
    note,
    package_versions,
    progress,
)

app = typer.Typer()


@app.command()
@guarded
def run(
    out: Annotated[Path, typer.Option(help="Profile to write (JSON); residuals go beside it.")],
    repeats: Annotated[int, typer.Option(min=1, help="Passes over the grid.")] = 7,
    max_seqs: Annotated[int, typer.Option(min=1, help="Decode rows in a step.")] = 16,
    max_context: Annotated[int, typer.Option(min=128, help="Tokens of a sequence.")] = 2048,
    token_budget: Annotated[int, typer.Option(min=16, help="Tokens in a step.")] = 512,
    coverages: Annotated[
        str, typer.Option(help="Of pruned rows, comma-separated; empty: none is timed.")
    ] = "0.8,0.95,0.99",
    model: Model = None,
    device: DeviceName = "cpu",
    dtype: DtypeName = None,
    seed: Seed = 0,
) -> None:
    """Measure this machine's step law on the live model, in its serving loop.

    Passes are kept in OUT.passes.jsonl until the profile is written: a run that was cut off goes
    on from them.
    """
    from backend.models import load
    from backend.place import dtype_name, place_of
    from backend.profile import ProfileOptions, run_profile
    from backend.profile_store import PassStore, store_path

    check_target("--out", out)
    options = ProfileOptions(
        repeats=repeats,
        max_seqs=max_seqs,
        max_context=max_context,
        token_budget=token_budget,
        coverages=_coverages(coverages),
        seed=seed,
    )
    where, kind = place_of(device, dtype)
    opened: list[PassStore] = []

    def store(header: dict[str, object]) -> PassStore:
        opened.append(PassStore(store_path(out), header))
        if opened[0].passes:
            note(f"profiling: goes on after {len(opened[0].passes)} of {repeats} passes")
        return opened[0]

    with progress("profiling") as update:
        measured = run_profile(
            options,
            store,
            model=load(model, device=where, dtype=kind),
            commit=commit(HERE),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions=package_versions(*LIBRARIES),
            progress=update,
        )
    measured.write(out)
    opened[0].remove()
    config = {name: value for name, value in asdict(options).items() if name != "seed"}
    config |= {"device": device, "dtype": dtype_name(kind)}
    emit_json("profile run", seed=seed, config=config, profile=asdict(measured.profile))


def _coverages(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"--coverages must be numbers and commas; got {text!r}") from None
