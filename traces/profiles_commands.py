"""Commands on device profiles: ``entropic profile show`` and ``entropic profile import``."""

from __future__ import annotations

import datetime
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from traces.console import emit_json, guarded, note

if TYPE_CHECKING:
    from traces.profile import Profile
    from traces.profiles_shapes import ModelShape

Origin = Literal["aiconfigurator", "servingsim", "distserve"]

app = typer.Typer(name="profile", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Tp = Annotated[int, typer.Option(min=1, help="GPUs of one replica (tensor parallelism).")]


@app.callback()
def profile() -> None:
    """Say what steps cost on a device: show, import or measure a profile."""


@app.command()
@guarded
def show(
    what: Annotated[
        str | None, typer.Argument(help="A profile (JSON), or a model; default: list all.")
    ] = None,
    gpu: Annotated[str | None, typer.Argument(help="GPU, with a model.")] = None,
    *,
    tp: Tp = 1,
    roofline: Annotated[
        bool, typer.Option("--roofline", help="From datasheet numbers instead of a profile.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a profile: law, errors, ranges, limits, provenance, step times, what pruning saves."""
    from traces.profile import read_profile
    from traces.profiles import FOLDER, find_profile
    from traces.profiles_show import listing, pruning, report, step_times

    if what is None:
        if gpu is not None or roofline:
            raise ValueError("show needs a model; got none")
        _show_list(listing(FOLDER), json=json)
        return
    if gpu is None and roofline:
        raise ValueError(f"--roofline needs a model and a GPU; got {what!r} alone")
    if gpu is None:
        found = read_profile(what)
    elif roofline:
        found = _roofline(what, gpu, tp)
    else:
        found = find_profile(what, gpu, tp)
    compared = _compared(found, gpu, tp) if roofline and gpu is not None else None
    if json:
        rows = {"steps": step_times(found), "pruning": pruning(found), "against": compared}
        config = {"what": what, "gpu": gpu, "tp": tp, "roofline": roofline}
        emit_json("profile show", seed=None, config=config, profile=asdict(found), metrics=rows)
        return
    sys.stdout.write(report(found))
    if compared is not None:
        sys.stdout.write(_against_text(compared))


@app.command("import")
@guarded
def import_(
    *,
    origin: Annotated[str, typer.Option("--from", help="aiconfigurator, servingsim or distserve.")],
    model: Annotated[str, typer.Option(help="Model name, or its config.json.")],
    out: Annotated[Path, typer.Option(help="Profile to write (JSON).")],
    tables: Annotated[
        Path | None,
        typer.Option(help="Folder or file to import; aiconfigurator: default the package."),
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="GPU (aiconfigurator, servingsim).")] = None,
    tp: Tp = 1,
    engine: Annotated[
        Path | None, typer.Option(help="meta.json of a vLLM run: the limits it resolved.")
    ] = None,
    pages: Annotated[int | None, typer.Option(min=1, help="KV pages, if you know them.")] = None,
    max_seqs: Annotated[int | None, typer.Option(min=1, help="Residents at once.")] = None,
    token_budget: Annotated[int | None, typer.Option(min=1, help="Tokens of one step.")] = None,
    usd_per_hour: Annotated[float | None, typer.Option(min=0, help="Price of a GPU-hour.")] = None,
    watts: Annotated[float | None, typer.Option(min=0, help="Power of a GPU under load.")] = None,
    json: Json = False,
) -> None:
    """Turn published kernel times or coefficients into a profile."""
    from traces.profile import write_profile
    from traces.profiles_import import Wanted, imported
    from traces.profiles_show import report

    origins: tuple[Origin, ...] = get_args(Origin)
    if origin not in origins:
        raise ValueError(f"--from must be one of {', '.join(origins)}; got {origin!r}")
    wanted = Wanted(
        origin=origins[origins.index(origin)],
        model=model,
        gpu=gpu,
        tp=tp,
        tables=tables,
        engine=engine,
        pages=pages,
        max_seqs=max_seqs,
        token_budget=token_budget,
        usd_per_hour=usd_per_hour,
        watts=watts,
    )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found = imported(wanted, created=now)
    write_profile(out, found)
    if json:
        config = {"from": origin, "model": model, "gpu": gpu, "tp": tp, "out": str(out)}
        emit_json("profile import", seed=0, config=config, profile=asdict(found))
    else:
        sys.stdout.write(report(found))
        note(f"wrote {out}")


def _show_list(text: str, *, json: bool) -> None:
    from traces.profiles import shipped

    if not json:
        sys.stdout.write(text)
        return
    rows = [{"profile": path.stem, **asdict(found)} for path, found in shipped()]
    emit_json("profile show", seed=None, config={"what": None}, rows=rows)


def _roofline(model: str, gpu: str, tp: int) -> Profile:
    from traces.profiles_devices import find_device
    from traces.roofline import roofline_profile

    return roofline_profile(_shape(model), find_device(gpu), tp)


def _shape(model: str) -> ModelShape:
    from traces.profiles_shapes import find_shape

    return find_shape(model)


def _compared(found: Profile, gpu: str, tp: int) -> dict[str, float] | None:
    """Return the roofline's distance to the fitted profile; None where we ship none."""
    from traces.profile import ProfileError
    from traces.profiles import find_profile
    from traces.roofline import against

    try:
        return against(found.law, find_profile(found.model, gpu, tp))
    except ProfileError:
        return None


def _against_text(compared: dict[str, float]) -> str:
    return "".join(
        f"against the shipped profile's law: {kind} {compared[f'{kind}_mean_pct']:+.0f} % on "
        f"average, {compared[f'{kind}_mean_abs_pct']:.0f} % in absolute terms\n"
        for kind in ("decode", "prefill")
    )
