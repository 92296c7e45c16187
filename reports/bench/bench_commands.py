"""``entropic bench``: how fast the engine is, beside others, in one process."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from traces.console import emit_json, guarded, note

app = typer.Typer(no_args_is_help=True, help="Measure speed beside others, in one process.")
NO_MODEL = "none"
OUT = Path("reports") / "out" / "bench.csv"

Model = Annotated[str | None, typer.Option(help="Folder or hub id; default SmolLM2-135M-Instruct.")]
Out = Annotated[Path, typer.Option(help="CSV to append to.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Repeats = Annotated[int, typer.Option(help="Timed turns of every case, >= 3.")]
Peers = Annotated[str, typer.Option(help="Comma-separated; empty for none.")]


@app.command()
@guarded
def copy(repeats: Repeats = 7, out: Out = OUT, json: Json = False) -> None:
    """Measure the machine's copy and read bandwidth."""
    from reports.bench import suite

    _finish("copy", suite.copy(repeats), NO_MODEL, out, {"repeats": repeats}, as_json=json)


@app.command()
@guarded
def decode(
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,4,16",
    context: Annotated[
        str, typer.Option(help="Tokens in the cache; multiples of 16.")
    ] = "512,2048",
    coverage: Annotated[str, typer.Option(help="Attention mass to keep; 1 is dense.")] = "1,0.95",
    peers: Peers = "transformers,sdpa",
    layout: Annotated[str, typer.Option(help="Order of pages: extents or scattered.")] = "extents",
    repeats: Repeats = 7,
    model: Model = None,
    out: Out = OUT,
    json: Json = False,
) -> None:
    """Time decode steps over a grid of batch and context."""
    from reports.bench import suite
    from reports.bench.decode import Grid

    grid = Grid(
        batches=_sizes("batch", batch),
        contexts=_sizes("context", context),
        coverages=_shares(coverage),
        peers=_names(peers),
        repeats=repeats,
        layout=layout,
    )
    _finish("decode", suite.decode(model, grid, note), model, out, asdict(grid), as_json=json)


@app.command()
@guarded
def prefill(
    tokens: Annotated[str, typer.Option(help="Prompt lengths.")] = "512,2048",
    chunk: Annotated[str, typer.Option(help="Chunk sizes, beside whole prompts.")] = "512",
    peers: Peers = "transformers",
    repeats: Repeats = 5,
    model: Model = None,
    out: Out = OUT,
    json: Json = False,
) -> None:
    """Time the prefill of one prompt, whole and in chunks."""
    from reports.bench import suite

    config: dict[str, Any] = {"tokens": _sizes("tokens", tokens)}
    config |= {"chunks": _sizes("chunk", chunk)}
    config |= {"peers": _names(peers), "repeats": repeats}
    _finish("prefill", suite.prefill(model, note=note, **config), model, out, config, as_json=json)


@app.command()
@guarded
def sparse(
    batch: Annotated[int, typer.Option(min=1)] = 4,
    context: Annotated[str, typer.Option(help="Tokens in the cache; multiples of 16.")] = (
        "128,256,512,1024,2048,4096,8176"
    ),
    coverage: Annotated[str, typer.Option(help="Attention mass to keep, below 1.")] = (
        "0.99,0.98,0.95,0.9,0.8"
    ),
    repeats: Repeats = 7,
    model: Model = None,
    out: Out = OUT,
    json: Json = False,
) -> None:
    """Fit decode time against pages kept; find where pruning starts to pay."""
    from reports.bench import suite
    from reports.bench.sparse import Sweep

    sweep = Sweep(
        batch=batch,
        contexts=_sizes("context", context),
        coverages=_shares(coverage),
        repeats=repeats,
    )
    _finish("sparse", suite.sparse(model, sweep, note), model, out, asdict(sweep), as_json=json)


@app.command()
@guarded
def serve(
    requests: Annotated[int, typer.Option(min=1, help="Requests, all there at the start.")] = 12,
    context: Annotated[int, typer.Option(min=2, help="Longest prompt; the shortest is half.")] = (
        1024
    ),
    max_tokens: Annotated[int, typer.Option(min=2, help="Tokens per request.")] = 64,
    max_seqs: Annotated[int, typer.Option(min=1, help="Sequences in one step.")] = 8,
    presets: Annotated[str, typer.Option(help="Ours, comma-separated.")] = "baseline,full",
    peers: Peers = "transformers,continuous",
    repeats: Repeats = 3,
    model: Model = None,
    out: Out = OUT,
    json: Json = False,
) -> None:
    """Serve a closed batch: tokens/s, TTFT, TPOT, ITL, with dense probes on."""
    from reports.bench import suite

    config: dict[str, Any] = {"requests": requests, "context": context, "max_tokens": max_tokens}
    config |= {"max_seqs": max_seqs, "presets": _names(presets), "peers": _names(peers)}
    config |= {"repeats": repeats}
    _finish("serve", suite.serve(model, note=note, **config), model, out, config, as_json=json)


@app.command()
@guarded
def overhead(
    preset: Annotated[str, typer.Option(help="Control preset, beside baseline.")] = "full",
    batch: Annotated[int, typer.Option(min=1)] = 16,
    context: Annotated[int, typer.Option(min=1, help="Tokens in the cache.")] = 2048,
    steps: Annotated[int, typer.Option(min=1, help="Steps a turn takes the least of.")] = 30,
    repeats: Repeats = 3,
    model: Model = None,
    out: Out = OUT,
    json: Json = False,
) -> None:
    """Break a decode step down: what control costs, page selection apart."""
    from reports.bench import suite

    config: dict[str, Any] = {"preset": preset, "batch": batch, "context": context}
    config |= {"steps": steps, "repeats": repeats}
    _finish(
        "overhead", suite.overhead(model, note=note, **config), model, out, config, as_json=json
    )


@app.command()
@guarded
def simulator(
    rows: Annotated[str | None, typer.Option(help="Cases, comma-separated; default all.")] = None,
    arrivals: Annotated[
        Path | None, typer.Option(help="Lengths; default Azure's conversations in ENTROPIC_DATA.")
    ] = None,
    vidur: Annotated[Path | None, typer.Option(help="Checkout of Vidur, to run beside.")] = None,
    vidur_python: Annotated[
        Path | None, typer.Option(help="Its interpreter; default .venv in the checkout.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few requests: a minute.")] = False,
    repeats: Repeats = 5,
    out: Out = OUT,
    json: Json = False,
) -> None:
    """Time the simulator on its reference load: every row of the speed bar, a process each."""
    from reports.bench import simulator as bench
    from reports.bench.simulator_vidur import Vidur

    peer = None if vidur is None else Vidur.at(vidur, vidur_python)
    names = tuple(bench.ROWS) if rows is None else _names(rows)
    lengths = bench.conversations() if arrivals is None else arrivals
    measures = bench.run(lengths, names=names, repeats=repeats, quick=quick, vidur=peer, note=note)
    kept = _append(measures, NO_MODEL, out, device=bench.device())
    if json:
        config = {"rows": names, "arrivals": str(lengths), "quick": quick, "repeats": repeats}
        emit_json("bench simulator", seed=0, config=config, rows=[asdict(row) for row in kept])
    else:
        sys.stdout.write(bench.text(kept))


@app.command(name="all")
@guarded
def everything(
    quick: Annotated[bool, typer.Option("--quick", help="Small shapes: a minute or two.")] = False,
    model: Model = None,
    out: Out = OUT,
    json: Json = False,
) -> None:
    """Run every benchmark in turn; each appends its rows when it ends."""
    from reports.bench import suite
    from reports.bench.tables import tables

    rows = []
    for name, measures in suite.everything(model, note, quick=quick):
        rows += _append(measures, NO_MODEL if name == "copy" else model, out)
        if not json:
            sys.stdout.write(tables([row for row in rows if row.name == name]) + "\n")
            sys.stdout.flush()
    if json:
        emit_json("bench all", seed=None, config={"quick": quick}, rows=[asdict(r) for r in rows])


@app.command()
@guarded
def figure(
    rows: Annotated[Path, typer.Option("--from", help="CSV that benchmarks wrote.")] = OUT,
    out: Annotated[Path | None, typer.Option(help="PNG to write; default beside the CSV.")] = None,
) -> None:
    """Draw decode time against pages kept, and bandwidth against the copy line."""
    from reports.bench.figures import bench
    from reports.bench.rows import read
    from reports.style import save

    target = rows.with_suffix(".png") if out is None else out
    target.parent.mkdir(parents=True, exist_ok=True)
    save(bench(read(rows)), target)
    note(f"wrote {target}")


def _finish(
    name: str,
    measures: Iterable[Any],
    model: str | None,
    out: Path,
    config: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    from reports.bench.tables import tables

    rows = _append(measures, model, out)
    if as_json:
        emit_json(f"bench {name}", seed=None, config=config, rows=[asdict(r) for r in rows])
    else:
        sys.stdout.write(tables(rows))


def _append(
    measures: Iterable[Any], model: str | None, out: Path, *, device: str | None = None
) -> list[Any]:
    """Check the file first: minutes of timing must not end in a refusal."""
    from reports.bench.rows import Stamp, append, read, stamped

    if out.exists():
        read(out)
    if device is None:
        from backend.place import processor

        device = processor()
    if model is None:
        from backend.models import DEFAULT_NAME

        model = DEFAULT_NAME
    stamp = Stamp.now(device=device, model=Path(model).name)
    rows = stamped(list(measures), stamp)
    append(out, rows)
    note(f"appended {len(rows)} rows to {out}")
    return rows


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _sizes(name: str, text: str) -> tuple[int, ...]:
    """Parse integers >= 1 separated by commas."""
    parts = _names(text)
    if not parts or not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise ValueError(f"{name} must be integers >= 1 separated by commas; got {text!r}")
    return tuple(int(part) for part in parts)


def _shares(text: str) -> tuple[float, ...]:
    """Parse coverages in (0, 1] separated by commas."""
    try:
        found = tuple(float(part) for part in _names(text))
    except ValueError:
        found = ()
    if not found or not all(0.0 < share <= 1.0 for share in found):
        raise ValueError(f"coverage must be numbers in (0, 1] separated by commas; got {text!r}")
    return found
