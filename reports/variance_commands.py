"""The command that asks whether a law steadies the entropy: recorded logits, and live."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from reports.measured import header, model_header, write_document
from traces.console import FAILED, emit_json, guarded, note, progress
from traces.text import table

app = typer.Typer()
OUT = Path("reports") / "out" / "variance.json"


@app.command()
@guarded
def variance(
    out: Annotated[Path, typer.Option(help="JSON to write; the figure goes beside it.")] = OUT,
    live: Annotated[bool, typer.Option(help="Run the live model too (minutes).")] = True,
    seeds: Annotated[int, typer.Option(min=2, help="Live seeds, from --seed upwards.")] = 5,
    max_tokens: Annotated[int, typer.Option(min=48, help="Live tokens per request.")] = 256,
    temperature: Annotated[float, typer.Option(help="Live: user's T, where laws start.")] = 0.8,
    target_nats: Annotated[float, typer.Option(help="Live: entropy set-point H*.")] = 1.0,
    model: Annotated[str | None, typer.Option(help="Folder or hub id.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare Var(H) under each law with the fixed temperature of equal mean H."""
    from reports.figures.variance import variance as draw
    from reports.studies.variance import recorded as on_recording
    from reports.style import save
    from simulator.defaults import TRACE
    from simulator.model import TraceModel
    from traces.store import read_trace

    trace = read_trace(TRACE)
    document: dict[str, Any] = header() | {
        "trace_sha256": trace.sha256,
        "recorded": [row.to_json() for row in on_recording(trace, TraceModel.of(trace), seed=seed)],
        "live": [],
    }
    if live:
        seed_list = tuple(range(seed, seed + seeds))
        document |= _live(seed_list, max_tokens, temperature, target_nats, model)
    write_document(out, document)
    figure = draw(document["recorded"], document["live"], footer=footer(document))
    save(figure, out.with_suffix(".png"))
    note(f"wrote {out} and {out.with_suffix('.png')}")
    if json:
        rows = {"recorded": document["recorded"], "live": document["live"]}
        emit_json("variance", seed=seed, config={"live": live, "seeds": seeds}, rows=rows)
    else:
        sys.stdout.write(variance_text(document))


def _live(
    seeds: tuple[int, ...],
    max_tokens: int,
    temperature: float,
    target_nats: float,
    model: str | None,
) -> dict[str, Any]:
    from backend.models import load
    from reports.studies.stability import Setting, StudyFailed
    from reports.studies.variance_live import live

    setting = Setting(
        seeds=seeds, max_tokens=max_tokens, temperature=temperature, target_nats=target_nats
    )
    loaded = load(model)
    try:
        with progress("serving live") as update:
            rows = live(loaded, setting, update)
    except StudyFailed as failure:
        note(f"error: {failure}")
        raise typer.Exit(FAILED) from None
    return model_header(loaded) | {
        "live": rows,
        "seeds": list(seeds),
        "max_tokens": max_tokens,
        "user_temperature": temperature,
    }


def footer(document: dict[str, Any]) -> str:
    """Return what the figure rests on, in one line."""
    tokens = document["recorded"][0]["tokens"]
    text = f"recorded: {tokens:,} SmolLM2 tokens, 95 % intervals by bootstrap over prompts"
    if document["live"]:
        text += (
            f"; live: {document['model']}, {len(document['seeds'])} seeds, "
            f"{document['max_tokens']} tokens a request, t intervals over seeds"
        )
    return text


def variance_text(document: dict[str, Any]) -> str:
    """Return two tables: recorded logits, then live runs."""
    head = ("law", "H*", "mean H", "matched T", "Var(H)", "fixed T's", "ratio", "lag-1 corr.")
    rows = [
        (
            row["law"],
            f"{row['target_nats']:g}",
            f"{row['mean_entropy_nats']:.3f}",
            f"{row['fixed_temperature']:.3f}",
            f"{row['variance_nats2']:.3f}",
            f"{row['fixed_variance_nats2']:.3f}",
            _interval(row["ratio"]),
            f"{row['lag1_correlation']:.2f}",
        )
        for row in document["recorded"]
    ]
    text = "Recorded logits (mean ± 95 % over prompts)\n" + table(head, rows)
    if document["live"]:
        head = ("live", "mean H", "Var(H)", "lag-1 corr.", "NLL", "matched T", "ratio")
        names = ("mean_entropy_nats", "variance_nats2", "lag1_correlation", "nll_nats")
        rows = [
            (
                row["law"],
                *(_interval(row[name]) for name in names),
                *(_interval(row.get(name)) for name in ("fixed_temperature", "ratio")),
            )
            for row in document["live"]
        ]
        text += "\nLive (mean ± 95 % over seeds)\n" + table(head, rows)
    return text


def _interval(found: dict[str, float | None] | None) -> str:
    if found is None:
        return "-"
    half = found["ci95"]
    return f"{found['mean']:.3f}" + ("" if half is None else f" ±{half:.3f}")
