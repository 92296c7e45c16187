"""The soak command: does the engine leak?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from traces.console import FAILED, emit_json, guarded, progress

app = typer.Typer(no_args_is_help=True)


@app.command()
@guarded
def soak(
    minutes: Annotated[float | None, typer.Option(help="Length of the soak.")] = None,
    requests: Annotated[
        int | None, typer.Option(help="Requests to serve; at least 100, and 4 x history.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Control preset.")] = "full",
    model: Annotated[
        str | None, typer.Option(help="Folder, hub id, or 'default'; a tiny random one without.")
    ] = None,
    max_seqs: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 8,
    pages: Annotated[int, typer.Option(min=1, help="KV pages in the pool.")] = 40,
    history: Annotated[
        int, typer.Option(min=0, help="Finished requests remembered; 0: all, and memory grows.")
    ] = 200,
    rss_bound: Annotated[float, typer.Option(help="Bytes per request that are a leak.")] = 256.0,
    block_bound: Annotated[
        float, typer.Option(help="Python memory blocks per request that are a leak.")
    ] = 0.5,
    plain: Annotated[
        bool, typer.Option("--plain", help="No prefix cache, no eviction, no early pruning.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all randomness.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Serve a random mix for long; exit 1 if memory grows or anything is left over.

    Exit 2 if too few requests were served to tell: what the engine remembers of finished requests
    grows to twice the history first, and only what comes after is judged.
    """
    from reports.soak.build import build
    from reports.soak.run import TOO_SHORT, Plan, least_requests
    from reports.soak.run import soak as run_soak
    from reports.soak.summary import describe, summary

    if minutes is None and requests is None:
        minutes = 30.0
    plan = Plan(minutes=minutes, requests=requests, rss_bound=rss_bound, block_bound=block_bound)
    engine, traffic = build(
        model=model,
        preset=preset,
        max_seqs=max_seqs,
        n_pages=pages,
        history=history or None,
        seed=seed,
        everything=not plain,
    )
    with progress("soaking") as update:
        found = run_soak(engine, traffic, plan, progress=update)
    metrics = summary(found, plan)
    if json:
        config: dict[str, Any] = {"minutes": minutes, "requests": requests, "preset": preset}
        config |= {"model": engine.loaded.name, "history": history or None}
        config |= {"plain": plain}
        config |= {"limits": engine.limits.to_json()}
        config |= {"rss_bound": rss_bound, "block_bound": block_bound}
        emit_json("soak", seed=seed, config=config, metrics=metrics)
    else:
        describe(metrics)
    verdict = found.verdict(plan)
    if verdict == TOO_SHORT:
        least = least_requests(history)
        raise ValueError(f"the soak was {TOO_SHORT}: give --requests {least} or more minutes")
    if verdict != "passed":
        raise typer.Exit(FAILED)
