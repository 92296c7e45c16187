"""The command that simulates a grid: ``entropic sweep``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reports.plan_commands import RUNS, Ticker
from simulator.commands import (
    CutPrompts,
    GpuName,
    Json,
    ModelName,
    ModeOption,
    ProfileFile,
    Roofline,
    RouterOption,
    SloTpot,
    SloTtft,
    Tp,
    TraceFile,
    assemble,
    device,
)
from traces.console import check_target, emit_json, guarded, note
from traces.text import number, table

if TYPE_CHECKING:
    from simulator.sweep import Cell

app = typer.Typer(no_args_is_help=True)

SHOWN = {
    "ttft_s.p99": "TTFT p99, s",
    "tpot_s.p95": "TPOT p95, s",
    "throughput_tokens_per_s": "tokens/s",
    "gpu_hours_per_million_tokens": "GPU-h/M tokens",
    "kv_pages_kept_share": "KV kept",
    "nll_per_token_nats": "NLL, nat/token",
    "tau_per_token_nats": "tau, nat/token",
}


@app.command()
@guarded
def sweep(
    *,
    arrivals: Annotated[Path, typer.Option(help="Recorded arrivals, with lengths.")],
    rates: Annotated[str, typer.Option(help="Requests per second, by comma.")],
    presets: Annotated[str, typer.Option(help="Presets, by comma.")] = "baseline,full",
    replicas: Annotated[str, typer.Option(help="Numbers of replicas, by comma.")] = "1",
    trace: TraceFile = None,
    profile: ProfileFile = None,
    model: ModelName = None,
    gpu: GpuName = None,
    tp: Tp = 1,
    roofline: Roofline = False,
    mode: ModeOption = "auto",
    router: RouterOption = "least_loaded",
    cut_prompts: CutPrompts = False,
    requests: Annotated[int | None, typer.Option(help="The first so many arrivals only.")] = None,
    seeds: Annotated[int, typer.Option(help="Resamples of the recording beside it.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    slo_ttft: SloTtft = None,
    slo_tpot: SloTpot = None,
    jobs: Annotated[int, typer.Option(help="Processes; 0: one per processor.")] = 0,
    cluster: Annotated[bool, typer.Option("--cluster", help="Run on a Ray cluster.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the grid here (.csv or .json); runs are kept.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget runs kept beside --out.")] = False,
    json: Json = False,
) -> None:
    """Simulate every preset at every rate on every number of replicas."""
    from controllers.core import require
    from simulator.plan_cost import Price
    from simulator.plan_pool import Pool
    from simulator.plan_setup import prepare, require_span
    from simulator.plan_store import Store
    from simulator.sweep import sweep as run_grid
    from traces.arrivals import read_arrivals
    from traces.provenance import provenance

    if out is not None:
        require(out.suffix in (".csv", ".json"), "out must end in .csv or .json", out=str(out))
        check_target("--out", out)
    names = [part.strip() for part in presets.split(",") if part.strip()]
    loads, counts = numbers("rates", rates), [int(n) for n in numbers("replicas", replicas)]
    traffic = read_arrivals(arrivals)
    require_span(traffic)
    scenario = assemble(
        trace,
        device(profile, model, gpu, tp, roofline=roofline),
        traffic,
        rate=None,
        requests=requests,
        router=router,
        cut_prompts=cut_prompts,
        mode=mode,
        slo_ttft=slo_ttft,
        slo_tpot=slo_tpot,
        whole_trace=False,
    )
    setup = prepare(scenario, traffic, requests=requests, seed=seed)
    for load in loads:
        require(load > 0.0, "rates must be finite and > 0", rate=load)
        setup.scenario.at(load)  # refuses what the clock cannot tell apart, before any run
    store = Store(None if out is None else out.with_name(out.name + RUNS), fresh=fresh)
    pool = Pool(setup, store, jobs=jobs, cluster=cluster, progress=Ticker("simulations"))
    known = scenario.profile
    with store.kept():
        cells = run_grid(
            pool,
            presets=names,
            rates_per_s=loads,
            replicas=counts,
            draws=seeds,
            price=Price(gpus=known.gpus, usd_per_gpu_hour=known.usd_per_hour),
        )
    config = {**setup.scenario.to_json(), "block_requests": setup.blocks.length}
    if out is not None:
        write_grid(out, cells, provenance("entropic-sweep", seed=seed, config=config))
        note(f"wrote {out}")
    if json:
        emit_json("sweep", seed=seed, config=config, rows=[cell.to_json() for cell in cells])
    else:
        sys.stdout.write(grid_text(cells))


def numbers(option: str, text: str) -> list[float]:
    """Return the numbers of a list by commas; an error names the part that is none."""
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            raise ValueError(f"{option} must be numbers by comma; got {part.strip()!r}") from None
    if option == "replicas" and any(value != int(value) for value in found):
        raise ValueError(f"{option} must be whole numbers; got {text!r}")
    return found


def grid_text(cells: Sequence[Cell]) -> str:
    """Return the recording's figures of every cell as a table."""
    rows = [
        [
            cell.preset,
            str(cell.replicas),
            number(cell.rate_per_s),
            *(number(cell.recorded.get(name)) for name in SHOWN),
        ]
        for cell in cells
    ]
    return table(("preset", "replicas", "req/s", *SHOWN.values()), rows)


def write_grid(path: Path, cells: Sequence[Cell], made: Mapping[str, object]) -> None:
    """Write the grid as CSV (a row per cell) or JSON, completely or not at all.

    ``made`` says what made it: under ``provenance``, in a CSV file as a first line behind ``# ``.
    """
    import csv
    import json

    from traces.atomic import atomic_path
    from traces.provenance import KEY

    with atomic_path(path) as part:
        if path.suffix == ".json":
            found = {KEY: made, "rows": [cell.to_json() for cell in cells]}
            part.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            return
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(f"# {json.dumps(made)}\n")
            writer = csv.DictWriter(file, fieldnames=list(cells[0].flat()), lineterminator="\n")
            writer.writeheader()
            writer.writerows(cell.flat() for cell in cells)
