"""The command that sets the simulator beside measured runs: ``entropic validate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.commands import DeviceName, DtypeName
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
        Path | None, typer.Option(help="Folder for what is measured, the JSON and the figures.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Validate the live backend by this machine's profile.")
    ] = None,
    device: DeviceName = "cpu",
    dtype: DtypeName = None,
    arrivals: Annotated[
        Path | None, typer.Option(help="Arrival trace [default: Azure conversation].")
    ] = None,
    loads: Annotated[str, typer.Option(help="Shares of capacity.")] = ".5,.8,1.1",
    presets: Annotated[str, typer.Option(help="Presets.")] = "baseline,attention,full",
    requests: Annotated[int, typer.Option(help="Requests of a run.")] = 48,
    overload_requests: Annotated[int, typer.Option(help="The same above capacity.")] = 400,
    repeats: Annotated[int, typer.Option(help="Runs of each preset at each load.")] = 5,
    overload_repeats: Annotated[int, typer.Option(help="Runs above capacity.")] = 3,
    prompt_tokens: Annotated[str, typer.Option(help="Prompt lengths, LO-HI.")] = "64-1024",
    overload_prompt_tokens: Annotated[str, typer.Option(help="Above capacity.")] = "64-256",
    max_tokens: Annotated[int, typer.Option(help="Length of every reply.")] = 32,
    temperature: Annotated[float, typer.Option(help="Of every request.")] = 0.8,
    target_nats: Annotated[float, typer.Option(help="Entropy set-point of every request.")] = 1.0,
    sparse_from: Annotated[
        int, typer.Option(help="Context from which pages may be left out, tokens.")
    ] = 512,
    pages: Annotated[int | None, typer.Option(min=1, help="KV pages of the live pool.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of windows and noise.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what --out holds.")] = False,
    profile_passes: Annotated[
        int, typer.Option(help="Passes over the profile's grid between the runs; 0: by --profile.")
    ] = 0,
    redo_beyond: Annotated[
        float, typer.Option(help="Reference steps off their median by which a run is made again.")
    ] = 0.25,
    stop_after: Annotated[
        float | None, typer.Option(help="Seconds after which no run begins; go on with --resume.")
    ] = None,
    rescale: Annotated[
        bool, typer.Option("--rescale", help="Multiply the profile by the reference steps' drift.")
    ] = False,
    require_stable: Annotated[
        bool, typer.Option("--require-stable", help="Exit 1 if a queue grows without end.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Set the simulator beside measured runs: others' (--golden) or our live engine's (--profile).

    With --profile a window of a real arrival trace is played in wall time, presets and loads in
    turn, and the same requests are simulated; every finished run is kept in --out.
    """
    from controllers.core import require

    if profile is not None:
        require(golden is None, "golden and profile exclude each other", golden=golden)
        require(out is not None, "a live validation needs --out", out=out)
        assert out is not None, "just required"
        code = _live(
            profile,
            out,
            options={
                "loads": loads,
                "presets": presets,
                "requests": requests,
                "overload_requests": overload_requests,
                "repeats": repeats,
                "overload_repeats": overload_repeats,
                "prompt_tokens": prompt_tokens,
                "overload_prompt_tokens": overload_prompt_tokens,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "target_nats": target_nats,
                "sparse_from": sparse_from,
                "profile_passes": profile_passes,
                "redo_beyond": redo_beyond,
                "seed": seed,
            },
            arrivals=arrivals,
            model=model,
            device=device,
            dtype=dtype,
            pages=pages,
            resume=resume,
            rescale=rescale,
            stop_after_s=float("inf") if stop_after is None else stop_after,
            require_stable=require_stable,
            json=json,
        )
        raise typer.Exit(code)
    from reports.validation.document import drawn, run_document, text, worst_mean_pct
    from reports.validation.golden import compare, prepare
    from reports.validation.sensitivity import sensitivity as moved
    from traces.golden import golden_folders

    if golden is None:
        raise ValueError("golden: must name a folder of runs, or --profile a profile; got neither")
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


def _live(profile: Path, out: Path, *, options: dict[str, Any], **asked: Any) -> int:
    """Read the options of a live validation and run it; return the exit code."""
    from reports.validation.live_commands import LiveRequest, limits, numbers, validate_live
    from reports.validation.live_load import LiveOptions

    read = {
        **options,
        "loads": numbers("loads", options["loads"]),
        "presets": tuple(options["presets"].split(",")),
    }
    for name in ("prompt_tokens", "overload_prompt_tokens"):
        read[name] = limits(name, options[name])
    return validate_live(
        LiveRequest(profile=profile, out=out, options=LiveOptions(**read), **asked)
    )


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
