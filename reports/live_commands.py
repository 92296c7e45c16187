"""Studies on the live model: stability."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from reports.measured import header, write_document
from traces.console import FAILED, emit_json, guarded, note, progress

app = typer.Typer()
OUT = Path("reports") / "out" / "stability.json"


@app.command()
@guarded
def stability(
    out: Annotated[Path, typer.Option(help="JSON to write; the figure goes beside it.")] = OUT,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from --seed upwards.")] = 5,
    max_tokens: Annotated[int, typer.Option(min=48, help="Tokens per request.")] = 256,
    temperature: Annotated[float, typer.Option(help="User's T, where the laws start.")] = 0.8,
    target_nats: Annotated[float, typer.Option(help="Entropy set-point H*.")] = 1.0,
    model: Annotated[str | None, typer.Option(help="Folder or hub id.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run the temperature laws live for a fixed length: does T settle or sit on a clip?"""
    from backend.models import load
    from reports.figures.stability import stability as draw
    from reports.studies.stability import Setting, StudyFailed, run
    from reports.style import save

    setting = Setting(
        seeds=tuple(range(seed, seed + seeds)),
        max_tokens=max_tokens,
        temperature=temperature,
        target_nats=target_nats,
    )
    loaded = load(model)
    try:
        with progress("serving live") as update:
            rows = run(loaded, setting, update)
    except StudyFailed as failure:
        note(f"error: {failure}")
        raise typer.Exit(FAILED) from None
    document: dict[str, Any] = header(loaded) | {
        "seeds": list(setting.seeds),
        "max_tokens": max_tokens,
        "user_temperature": temperature,
        "rows": rows,
    }
    write_document(out, document)
    save(draw(rows, footer=figure_footer(document)), out.with_suffix(".png"))
    note(f"wrote {out} and {out.with_suffix('.png')}")
    if json:
        config = {"max_tokens": max_tokens, "temperature": temperature, "target_nats": target_nats}
        emit_json("stability", seed=seed, config=config, rows=rows)
    else:
        sys.stdout.write(stability_text(rows))


def figure_footer(document: dict[str, Any]) -> str:
    """Return what the stability figure rests on, in one line."""
    rows = document["rows"]
    return (
        f"{document['model']} live, {rows[0]['requests']} requests per preset "
        f"({len(document['seeds'])} seeds), {document['max_tokens']} tokens each, stop tokens "
        f"ignored, user's T = {document['user_temperature']:g}; bands: 5-95 % and quartiles"
    )


def stability_text(rows: list[dict[str, Any]]) -> str:
    """Return a table: per preset, means over seeds with the range between them."""
    heads = ("preset", "T on a clip", "mean H", "mean H where H* is reachable", "reachable", "NLL")
    lines = ["  ".join(f"{head:>16}" for head in heads)]
    for row in rows:
        cells = (
            row["preset"],
            _spread(row, "clip_share", 100.0, "%"),
            _spread(row, "mean_entropy_nats"),
            _spread(row, "reachable_mean_entropy_nats"),
            _spread(row, "reachable_share", 100.0, "%"),
            _spread(row, "nll_nats"),
        )
        lines.append("  ".join(f"{cell:>16}" for cell in cells))
    lines.append(f"set-point H* = {rows[0]['target_nats']:g} nat; mean (lowest-highest seed)")
    return "\n".join(lines) + "\n"


def _spread(row: dict[str, Any], name: str, scale: float = 1.0, unit: str = "") -> str:
    values = [scale * s[name] for s in row["seeds"] if s[name] is not None]
    if not values:
        return "-"
    mean = sum(values) / len(values)
    return f"{mean:.3g}{unit} ({min(values):.3g}-{max(values):.3g})"
