"""The command that sets the simulator beside measured runs: ``entropic validate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from traces.console import FAILED, commit, emit_json, guarded, note, package_versions

app = typer.Typer()

LIBRARIES = ("entropic-time", "numpy", "scipy", "simpy")


@app.command()
@guarded
def validate(
    *,
    golden: Annotated[
        Path | None,
        typer.Option(help="Folder with run/ and profile/, or one that holds such folders."),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Change one input at a time.")
    ] = False,
    blocks: Annotated[
        int | None, typer.Option(min=1, help="KV blocks, where the run does not state them.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Shape: a name, or config.json of an unknown model.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Exit 1 if a mean is off by more, percent.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for golden.json and the figures.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Simulate runs of a real engine that others measured, and print the difference."""
    from controllers.core import require
    from reports.validation.document import drawn, run_document, text, worst_mean_pct
    from reports.validation.golden import compare, prepare
    from reports.validation.sensitivity import sensitivity as moved
    from traces.golden import golden_folders

    if golden is None:
        raise ValueError("golden: must name a folder: only golden runs are validated here")
    require(within is None or within >= 0.0, "within must be >= 0", within=within)
    require(out is None or out.is_dir(), "out must be a folder", out=out)
    runs: list[dict[str, Any]] = []
    figures: list[dict[str, Any]] = []
    worst = 0.0
    for folder in golden_folders(golden):
        found = compare(prepare(folder, model=model, pages=blocks))
        changes = moved(found.setup, found.simulated) if sensitivity or out is not None else []
        runs.append(run_document(found, changes))
        figures.append(drawn(found) if out is not None else {})
        worst = max(worst, worst_mean_pct(found))
        if not json:
            sys.stdout.write(text(found, changes) + "\n")
    if out is not None:
        _write(out, runs, figures)
    if json:
        rows = [{"run": run["run"], **row} for run in runs for row in run["rows"]]
        kept = [{name: run[name] for name in run if name != "rows"} for run in runs]
        emit_json("validate", seed=None, config={"golden": golden.name}, rows=rows, runs=kept)
    if within is not None and worst > within:
        note(f"error: a mean is off by {worst:.1f} %, more than {within:g} %")
        raise typer.Exit(FAILED)


def _write(out: Path, runs: list[dict[str, Any]], figures: list[dict[str, Any]]) -> None:
    """Write the document with what its figures draw, and the figures."""
    import json as encoder

    from reports.figures.golden import golden as draw_golden
    from reports.figures.golden import tornado
    from reports.style import save
    from reports.validation.section import golden_footer
    from traces.atomic import atomic_path

    document = {
        "command": "entropic validate --golden DIR --out DIR",
        "commit": commit(Path(__file__).parent),
        "versions": package_versions(*LIBRARIES),
        "runs": [{**run, "drawn": shown} for run, shown in zip(runs, figures, strict=True)],
    }
    with atomic_path(out / "golden.json") as part:
        part.write_text(encoder.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
    footer = golden_footer(document)
    save(draw_golden(document["runs"], footer=footer), out / "golden.png")
    save(tornado(document["runs"], footer=footer), out / "golden_sensitivity.png")
    note(f"wrote golden.json, golden.png and golden_sensitivity.png to {out}")
