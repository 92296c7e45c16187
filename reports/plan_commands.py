"""The command that plans capacity: ``entropic plan``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from simulator.commands import (
    CutPrompts,
    GpuName,
    Json,
    MaxSeqs,
    ModelName,
    ModeOption,
    Pages,
    Roofline,
    RouterOption,
    TokenBudget,
    Tp,
    TraceFile,
    assemble,
    device,
)
from traces.console import BAD_INPUT, check_target, emit_json, guarded, made_by, note

app = typer.Typer(no_args_is_help=True)

RUNS = ".runs.jsonl"


@app.command()
@guarded
def plan(
    *,
    arrivals: Annotated[Path, typer.Option(help="Recorded arrivals, with lengths.")],
    slo: Annotated[str, typer.Option(help="Service level: ttft_p99<1.5s,tpot_p95<40ms,...")],
    model: ModelName = None,
    gpu: GpuName = None,
    tp: Tp = 1,
    roofline: Roofline = False,
    profile: Annotated[Path | None, typer.Option(help="Device profile (JSON) instead.")] = None,
    trace: TraceFile = None,
    presets: Annotated[
        str, typer.Option(help="Presets, by comma; the first is the reference.")
    ] = "baseline",
    rate: Annotated[
        float | None, typer.Option(help="Requests per second to serve; default: as recorded.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Plan on the first so many arrivals only.")
    ] = None,
    replicas_max: Annotated[int, typer.Option(help="Most replicas to try.")] = 64,
    seeds: Annotated[int, typer.Option(help="Resamples of the recording beside it.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    block_s: Annotated[
        float | None, typer.Option(help="Traffic in a resampled block, s; default: chosen.")
    ] = None,
    usd_per_hour: Annotated[
        float | None, typer.Option(help="Price of one GPU hour; default: the profile's, if any.")
    ] = None,
    router: RouterOption = "least_loaded",
    cut_prompts: CutPrompts = False,
    mode: ModeOption = "auto",
    max_seqs: MaxSeqs = None,
    token_budget: TokenBudget = None,
    pages: Pages = None,
    jobs: Annotated[int, typer.Option(help="Processes; 0: one per processor.")] = 0,
    cluster: Annotated[bool, typer.Option("--cluster", help="Run on a Ray cluster.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the plan here (JSON); runs are kept beside it.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget the runs kept beside --out.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with figures here.")] = None,
    json: Json = False,
) -> None:
    """Find the fewest replicas that meet a service level, their cost, and the knee of load.

    All replicas are alike, so that their number is the answer. Groups of unequal servers, and
    prefill apart from decode, have no single number to search: compare such clusters by
    simulate --topology.
    """
    from controllers.core import require
    from controllers.presets import get_preset
    from reports.plan_document import plan_document
    from reports.plan_text import plan_text, refusal
    from simulator.plan import make_plan
    from simulator.plan_cost import Price
    from simulator.plan_pool import Pool
    from simulator.plan_setup import prepare, require_span
    from simulator.plan_store import Store
    from simulator.slo import parse_slo
    from traces.arrivals import read_arrivals

    level = parse_slo(slo)
    names = [name.strip() for name in presets.split(",") if name.strip()]
    for name in names:
        get_preset(name)
    require(seed >= 0, "seed must be >= 0", seed=seed)
    check_target("--out", out)
    check_target("--html", html)
    traffic = read_arrivals(arrivals)
    require_span(traffic)
    if html is not None:
        from reports.simulation_page import check_page_target

        check_page_target(html)
    scenario = assemble(
        trace,
        device(profile, model, gpu, tp, roofline=roofline, required=True),
        traffic,
        rate=rate,
        requests=requests,
        router=router,
        cut_prompts=cut_prompts,
        mode=mode,
        max_seqs=max_seqs,
        token_budget=token_budget,
        pages=pages,
        slo_ttft=level.threshold_s("ttft"),
        slo_tpot=level.threshold_s("tpot"),
        whole_trace=False,
    )
    setup = prepare(
        scenario,
        traffic,
        requests=requests,
        rate=rate,
        block_s=block_s,
        seed=seed,
        percentiles=level.percentiles,
    )
    store = Store(None if out is None else out.with_name(out.name + RUNS), fresh=fresh)
    if store.read:
        note(f"{store.read} simulations were found beside {out}")
    known = setup.scenario.profile
    price = Price(
        gpus=known.gpus,
        usd_per_gpu_hour=known.usd_per_hour if usd_per_hour is None else usd_per_hour,
    )
    pool = Pool(setup, store, jobs=jobs, cluster=cluster, progress=Ticker("simulations"))
    with store.kept():
        found = make_plan(
            setup, level, pool, presets=names, price=price, draws=seeds, replicas_max=replicas_max
        )
    document = plan_document(found)
    if out is not None:
        write_document(out, seed, document)
        note(f"wrote {out}")
    if html is not None:
        from reports.plan_page import write_plan_page

        write_plan_page(html, whole_document(seed, document))
        note(f"wrote {html}")
    if json:
        config = document.pop("config")
        assert isinstance(config, dict)
        emit_json("plan", seed=seed, config=config, **document)
    else:
        sys.stdout.write(plan_text(found))
    why = refusal(found)
    if why is not None:
        note(f"error: {why}")
        raise typer.Exit(BAD_INPUT)


class Ticker:
    """Writes progress to stderr, a line every few seconds: how many there will be is not known."""

    def __init__(self, title: str, every_s: float = 5.0) -> None:
        self._title, self._every_s = title, every_s
        self._began_s = self._last_s = time.monotonic()

    def __call__(self, done: int, asked: int) -> None:
        """Say how many are done of those asked for so far."""
        now_s = time.monotonic()
        if now_s - self._last_s >= self._every_s:
            self._last_s = now_s
            spent = f"{now_s - self._began_s:.0f} s"
            note(f"{self._title}: {done} done of {asked} asked for so far, {spent}")


def whole_document(seed: int, document: dict[str, object]) -> dict[str, object]:
    """Return a plan with what made it."""
    config = document["config"]
    assert isinstance(config, dict)
    return {**made_by("plan", seed=seed, config=config), **document}


def write_document(path: Path, seed: int, document: dict[str, object]) -> None:
    """Write a plan as JSON, completely or not at all; equal plans give equal bytes."""
    import json

    from traces.atomic import atomic_path

    whole = whole_document(seed, document)
    with atomic_path(path) as part:
        part.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
