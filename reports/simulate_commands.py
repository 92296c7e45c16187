"""The command that simulates serving: ``entropic simulate``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reports.simulate_text import over_seeds, seeds_table, tenants_table
from simulator.caveats import caveat_json
from simulator.commands import (
    ArrivalsFile,
    CutPrompts,
    GpuName,
    Json,
    Lengths,
    MaxSeqs,
    ModelName,
    ModeOption,
    Pages,
    ProfileFile,
    Rate,
    Replicas,
    Requests,
    Roofline,
    RouterOption,
    SloTpot,
    SloTtft,
    TargetNats,
    Think,
    TokenBudget,
    Topology,
    Tp,
    TraceFile,
    Turns,
    Users,
    Warmup,
    assemble,
    device,
)
from simulator.run_text import report
from traces.console import emit_json, guarded, note, progress

if TYPE_CHECKING:
    from controllers.preset import Preset
    from controllers.serving.decisions import DecisionRow
    from simulator.cluster_modes import Witnesses
    from simulator.decisions import Kept
    from simulator.scenario import Run, Scenario

app = typer.Typer(no_args_is_help=True)
Headers = Callable[[str], dict[str, object]]  # schema of an output -> its header


@app.command()
@guarded
def simulate(
    *,
    trace: TraceFile = None,
    preset: Annotated[str, typer.Option(help="Control preset.")] = "full",
    rate: Rate = None,
    requests: Requests = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    seeds: Annotated[int, typer.Option(help="Seeds, from --seed upwards; 2 or more: ci95.")] = 1,
    replicas: Replicas = 1,
    router: RouterOption = "round_robin",
    topology: Topology = None,
    arrivals: ArrivalsFile = None,
    lengths: Lengths = None,
    profile: ProfileFile = None,
    model: ModelName = None,
    gpu: GpuName = None,
    tp: Tp = 1,
    roofline: Roofline = False,
    users: Users = None,
    turns: Turns = None,
    think: Think = None,
    cut_prompts: CutPrompts = False,
    warmup: Warmup = 0.0,
    mode: ModeOption = "auto",
    max_seqs: MaxSeqs = None,
    token_budget: TokenBudget = None,
    pages: Pages = None,
    target_nats: TargetNats = 1.0,
    slo_ttft: SloTtft = None,
    slo_tpot: SloTpot = None,
    ledger_out: Annotated[
        Path | None, typer.Option(help="Write every row here (.parquet or .jsonl).")
    ] = None,
    perfetto: Annotated[
        Path | None, typer.Option(help="Write a trace for the Perfetto viewer here (.json).")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="Write why each request ran or waited here (.jsonl[.gz]).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with figures here.")] = None,
    json: Json = False,
) -> None:
    """Replay the recorded trace through simulated servers under a preset."""
    from controllers.core import require
    from controllers.presets import get_preset
    from simulator.decisions import kept_by
    from simulator.run_groups import groups_of

    chosen = get_preset(preset)
    require(seed >= 0, "seed must be >= 0", seed=seed)
    require(seeds >= 1, "seeds must be >= 1", seeds=seeds)
    _check_targets(ledger_out, perfetto, decisions, html)
    scenario = assemble(
        trace,
        device(profile, model, gpu, tp, roofline=roofline),
        arrivals,
        rate=rate,
        requests=requests,
        replicas=replicas,
        router=router,
        max_seqs=max_seqs,
        token_budget=token_budget,
        pages=pages,
        target_nats=target_nats,
        slo_ttft=slo_ttft,
        slo_tpot=slo_tpot,
        lengths=lengths,
        mode=mode,
        topology=topology,
        users=users,
        turns=turns,
        think=think,
        cut_prompts=cut_prompts,
        warmup=warmup,
        whole_trace=False,
    )
    asked = decisions is not None or (html is not None and mode == "online")
    kept = kept_by(scenario, chosen, seed) if asked else None
    if ledger_out is not None:
        from simulator.ledger_file import size_line

        size = size_line(ledger_out, scenario)
        if size is not None:
            note(size)
    made = _header_of(scenario, seed)
    with _decided(decisions, kept, made) as (told, rows):
        done = _run(scenario, chosen, seed, told, quiet=json)
    _write(scenario, done, made, ledger_out, perfetto, html, rows)
    if decisions is not None:
        note(f"wrote {decisions}")
    others = [_run(scenario, chosen, seed + i, None, quiet=True) for i in range(1, seeds)]
    if json:
        config = {"preset": preset, "laws": chosen.fingerprints(), **scenario.to_json()}
        notes = caveat_json(scenario, done.caveats)
        metrics: dict[str, Any] = dict(done.metrics)
        if others:
            config["seeds"], metrics = seeds, over_seeds([done, *others])
        said: dict[str, Any] = {"metrics": metrics, "caveats": notes}
        said |= {} if others else {"groups": groups_of(scenario, done)}  # of one seed alone
        emit_json("simulate", seed=seed, config=config, **said)
        return
    sys.stdout.write(report(scenario, done))
    sys.stdout.write(tenants_table(groups_of(scenario, done).get("tenant", {})))
    if others:
        sys.stdout.write("\n" + seeds_table([done, *others]))


def _run(
    scenario: Scenario, preset: Preset, seed: int, told: Witnesses | None, *, quiet: bool
) -> Run:
    from simulator.scenario import run

    if quiet:
        return run(scenario, preset, seed, witnesses=told)
    with progress("simulating") as update:
        return run(scenario, preset, seed, progress=update, witnesses=told)


def _check_targets(
    ledger_out: Path | None, perfetto: Path | None, decisions: Path | None, html: Path | None
) -> None:
    """Raise where something cannot be written, before the run that would fill it."""
    if ledger_out is not None:
        from simulator.ledger_file import check_target

        check_target(ledger_out)
    if perfetto is not None:
        from simulator.perfetto import check_perfetto_target

        check_perfetto_target(perfetto)
    if decisions is not None:
        from simulator.decisions import check_decisions_target

        check_decisions_target(decisions)
    if html is not None:
        from reports.simulation_page import check_page_target

        check_page_target(html)


def _header_of(scenario: Scenario, seed: int) -> Headers:
    """Return what gives an output, by its schema, the header that says what made it."""
    from traces.provenance import provenance

    return partial(provenance, seed=seed, config=scenario.to_json())


@contextmanager
def _decided(
    path: Path | None, kept: Kept | None, made: Headers
) -> Iterator[tuple[Witnesses | None, Sequence[DecisionRow]]]:
    """Yield who is told the decisions, and where their rows will be; nobody without ``kept``.

    A file is read back once it is written, so that a page shows what the file holds.
    """
    from simulator.decisions import collected, decision_file, read_decisions

    rows: list[DecisionRow] = []
    if path is not None:
        with decision_file(path, kept=kept, made=made("entropic-decisions")) as told:
            yield told, rows
        rows.extend(read_decisions(path))
    elif kept is not None:
        yield collected(rows, kept=kept), rows
    else:
        yield None, rows


def _write(
    scenario: Scenario,
    done: Run,
    made: Headers,
    ledger_out: Path | None,
    perfetto: Path | None,
    html: Path | None,
    rows: Sequence[DecisionRow],
) -> None:
    if ledger_out is not None:
        from simulator.ledger_file import write_ledger

        write_ledger(ledger_out, done.result.ledger, made=made("entropic-ledger"))
        note(f"wrote {ledger_out}")
    if perfetto is not None:
        from simulator.perfetto import write_perfetto
        from traces.provenance import KEY

        about = {KEY: made("entropic-perfetto")}
        write_perfetto(perfetto, done.result.ledgers, decisions=rows or None, about=about)
        note(f"wrote {perfetto}")
    if html is not None:
        from reports.simulation_build import simulation_evidence
        from reports.simulation_page import write_simulation_page

        logs = {done.preset: rows} if rows else None
        write_simulation_page(html, simulation_evidence(scenario, [done], decisions=logs))
        note(f"wrote {html}")
