"""The parity command: replay a live run's log, or make one and replay it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from traces.console import FAILED, emit_json, guarded, note, package_versions, progress

if TYPE_CHECKING:
    from reports.studies.parity import Parity

DATA = Path(__file__).parent.parent / "traces" / "data"
LOG, TRACE = DATA / "parity_log.jsonl.gz", DATA / "parity_trace.parquet"
app = typer.Typer()


@app.command()
@guarded
def parity(
    log: Annotated[Path | None, typer.Option(help="Log of a live run; default: committed.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Trace of the same run, for L2.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Serve live first, then replay.")] = False,
    out: Annotated[Path, typer.Option(help="With --live: folder for log and trace.")] = Path(
        "reports/out/parity"
    ),
    preset: Annotated[str, typer.Option(help="With --live: preset whose laws run.")] = "full",
    requests: Annotated[int, typer.Option(min=1, help="With --live: requests.")] = 48,
    max_tokens: Annotated[int, typer.Option(min=2, help="With --live: longest output.")] = 280,
    min_steps: Annotated[int, typer.Option(min=0, help="With --live: fewest steps.")] = 0,
    model: Annotated[str | None, typer.Option(help="With --live: folder or hub id.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check that simulator-side replay reproduces a live run, decision by decision."""
    from controllers.serving.runlog import read_log
    from reports.studies.parity import check
    from traces.store import read_trace

    if live:
        log, trace = _serve(out, preset, requests, max_tokens, min_steps, model, seed)
    elif log is None:
        log, trace = LOG, TRACE if trace is None else trace
    recorded = None if trace is None else read_trace(trace)
    found = check(read_log(log), recorded)
    if json:
        config: dict[str, object] = {
            "log": log.name,
            "trace": None if trace is None else trace.name,
        }
        if recorded is not None:
            names = ("model", "command", "commit", "versions")
            config["run"] = {name: recorded.metadata[name] for name in names}
        emit_json("parity", seed=seed if live else None, config=config, metrics=_metrics(found))
    else:
        sys.stdout.write(_text(found, log))
    if not found.holds:
        raise typer.Exit(FAILED)


def _serve(
    out: Path,
    preset: str,
    requests: int,
    max_tokens: int,
    min_steps: int,
    model: str | None,
    seed: int,
) -> tuple[Path, Path]:
    from backend.models import load
    from reports.studies.parity_run import run, stress

    chosen = stress(preset)
    loaded = load(model)
    out.mkdir(parents=True, exist_ok=True)
    log, trace = out / "parity_log.jsonl.gz", out / "parity_trace.parquet"
    provenance = {
        "command": " ".join(["entropic", *map(shlex.quote, sys.argv[1:])]),
        "versions": package_versions("torch", "transformers", "numpy"),
    }
    with progress("serving live") as update:
        run(
            loaded,
            chosen,
            log,
            trace,
            n_requests=requests,
            max_tokens=max_tokens,
            seed=seed,
            provenance=provenance,
            min_steps=min_steps,
            progress=update,
        )
    note(f"wrote {log} and {trace}")
    return log, trace


def _metrics(found: Parity) -> dict[str, object]:
    curves = None if found.curves is None else asdict(found.curves)
    return {
        "holds": found.holds,
        "plans_compared": found.plans.compared,
        "plans_differing": found.plans.n_differing,
        "commands_compared": found.commands.commands,
        "commands_differing": found.commands.n_differing,
        "curves": curves,
        "events": found.events,
    }


def _text(found: Parity, log: Path) -> str:
    events = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.events.items())
    plans, commands, curves = found.plans, found.commands, found.curves
    lines = [
        f"log          {log.name}",
        f"exercised    {events}",
        f"L1 plans     {plans.compared} compared, {plans.n_differing} differ",
        f"L1 commands  {commands.commands} compared bitwise, {commands.n_differing} differ",
    ]
    lines += [
        f"  step {difference.step} {difference.field}: "
        f"live {difference.logged!r}, replay {difference.recomputed!r}"
        for difference in (*plans.differing, *commands.differing)
    ]
    if curves is not None:
        lines += [
            f"L2 entropy   {curves.tokens} tokens, |H curve - H live| mean "
            f"{curves.mean_abs_nats:.5f}, p99 {curves.p99_abs_nats:.4f}, "
            f"max {curves.max_abs_nats:.4f} nat (bound .02)",
            f"closed loop  ln T of the law fed by curves alone: rms {curves.loop_rms_x:.1e}, "
            f"max {curves.loop_max_abs_x:.1e} from live",
        ]
    lines.append("parity holds" if found.holds else "PARITY FAILS")
    return "\n".join(lines) + "\n"
