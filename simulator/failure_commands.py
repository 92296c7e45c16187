"""The command of the failure study: ``entropic failures``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.commands import (
    ArrivalsFile,
    CutPrompts,
    GpuName,
    Json,
    ModelName,
    ProfileFile,
    Rate,
    Requests,
    RouterOption,
    Topology,
    Tp,
    TraceFile,
)
from traces.console import FAILED, emit_json, guarded, progress
from traces.text import number, table

if TYPE_CHECKING:
    from simulator.analysis import Interval
    from simulator.description import Failures
    from simulator.failure_study import FailureStudy
    from simulator.scenario import Scenario

app = typer.Typer(no_args_is_help=True)

EXPECTED_CRASHES = 8.0  # by default, of all replicas over the arrivals' span
DOWN_SHARE = 0.05  # of that span, by default, that a crashed replica is away


@app.command()
@guarded
def failures(
    *,
    trace: TraceFile = None,
    preset: Annotated[str, typer.Option(help="Control preset.")] = "full",
    rate: Rate = None,
    requests: Requests = None,
    replicas: Annotated[int, typer.Option(help="Servers behind the router.")] = 4,
    router: RouterOption = "least_loaded",
    arrivals: ArrivalsFile = None,
    profile: ProfileFile = None,
    model: ModelName = None,
    gpu: GpuName = None,
    tp: Tp = 1,
    cut_prompts: CutPrompts = False,
    topology: Topology = None,  # failures that it states go before the options
    mtbf: Annotated[
        float | None, typer.Option(help="Mean s up of a replica; default: 8 crashes in all.")
    ] = None,
    mttr: Annotated[
        float | None, typer.Option(help="Mean s down; default 5 % of the arrivals' span.")
    ] = None,
    retries: Annotated[int, typer.Option(help="Retries before a request is failed.")] = 3,
    seeds: Annotated[int, typer.Option(help="Pairs of runs.")] = 5,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    json: Json = False,
) -> None:
    """Let replicas die at random under load; check that no request is lost or served twice."""
    from controllers.core import require
    from controllers.presets import get_preset
    from simulator.commands import assemble, device
    from simulator.description_file import read_plan
    from simulator.failure_study import failure_study

    chosen = get_preset(preset)
    require(seed >= 0, "seed must be >= 0", seed=seed)
    require(seeds >= 1, "seeds must be >= 1", seeds=seeds)
    if topology is not None:
        replicas = sum(group.count for group in read_plan(topology).groups)
    scenario = assemble(
        trace,
        device(profile, model, gpu, tp),
        arrivals,
        rate=rate,
        requests=requests,
        replicas=replicas,
        router=router,
        topology=topology,
        cut_prompts=cut_prompts,
    )
    plan = scenario.cluster
    stated = plan is not None and (plan.failures.mtbf_s is not None or plan.failures.outages)
    rules = plan.failures if plan is not None and stated else _rules(scenario, mtbf, mttr, retries)
    with progress("pairs of runs") as update:
        study = failure_study(
            scenario, chosen, rules, seeds=range(seed, seed + seeds), progress=update
        )
    if json:
        config = {"preset": preset, "seeds": seeds, "failures": asdict(rules), **scenario.to_json()}
        emit_json("failures", seed=seed, config=config, rows=_rows(study), pairs=_pairs(study))
    else:
        sys.stdout.write(report(scenario, preset, rules, study))
    if not study.sound:
        raise SystemExit(FAILED)


def _rules(scenario: Scenario, mtbf: float | None, mttr: float | None, retries: int) -> Failures:
    from simulator.description import Failures

    span_s = scenario.n_requests / scenario.rate_per_s
    return Failures(
        mtbf_s=scenario.replicas * span_s / EXPECTED_CRASHES if mtbf is None else mtbf,
        mttr_s=DOWN_SHARE * span_s if mttr is None else mttr,
        max_retries=retries,
    )


def report(scenario: Scenario, preset: str, rules: Failures, study: FailureStudy) -> str:
    """Return a study as text: where requests ended, then what failures cost."""
    from simulator.failure_study import SHOWN

    head = (
        f"preset {preset}: {scenario.n_requests} requests at {number(scenario.rate_per_s)}/s on "
        f"{scenario.replicas} replicas; mean {number(rules.mtbf_s)} s up, {number(rules.mttr_s)} s "
        f"down; at most {rules.max_retries} retries\n"
    )
    fates = [
        [
            str(pair.seed),
            *(str(n) for n in (pair.crashes, pair.retries)),
            *(str(n) for n in asdict(pair.audit).values()),
        ]
        for pair in study.pairs
    ]
    columns = ("seed", "crashes", "retries", "requests", "once", "again", "miscounted", "lost")
    rows = [
        [SHOWN[name], *(_cell(found) for found in found_three)]
        for name, *found_three in study.rows()
    ]
    verdict = (
        "every request completed exactly once or is reported"
        if study.sound
        else "FAILED: some request was lost, served twice or miscounted"
    )
    return "\n".join(
        (
            head,
            table((*columns, "failed", "rejected", "cancelled"), fates),
            table(("mean ± 95 % half-width", "no failures", "failures", "difference"), rows),
            f"{verdict}.",
            "note: a lost request starts again from its prompt; tokens it had given count as lost, "
            "and its TTFT is that of the attempt that ended well",
            "",
        )
    )


def _cell(found: Interval | None) -> str:
    if found is None:
        return "-"
    mean = number(found.mean)
    return mean if found.half is None else f"{mean} ± {number(found.half, 2)}"


def _rows(study: FailureStudy) -> list[dict[str, object]]:
    names = ("undisturbed", "disturbed", "difference")
    rows: list[dict[str, object]] = []
    for metric, *three in study.rows():
        row: dict[str, object] = {"metric": metric}
        for name, found in zip(names, three, strict=True):
            row[name] = None if found is None else {"mean": found.mean, "ci95": found.half}
        rows.append(row)
    return rows


def _pairs(study: FailureStudy) -> list[dict[str, object]]:
    return [
        {"seed": pair.seed, "crashes": pair.crashes, "retries": pair.retries, **asdict(pair.audit)}
        for pair in study.pairs
    ]
