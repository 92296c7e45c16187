"""From runs of a scenario to the evidence of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controllers.presets import get_preset
from controllers.serving.decisions import DecisionRow
from reports.provenance import scenario_provenance
from reports.simulation_parts import Shown, SimulationEvidence, colours
from simulator.caveats import caveat_lines
from simulator.run_groups import groups_of
from simulator.scenario import Run, Scenario
from simulator.verdict import Run as Watched
from simulator.verdict import stability
from simulator.verdict_starvation import starvation


def simulation_evidence(
    scenario: Scenario,
    runs: Sequence[Run],
    *,
    decisions: Mapping[str, Sequence[DecisionRow]] | None = None,
    title: str | None = None,
) -> SimulationEvidence:
    """Return what a page needs of ``runs``, one per preset and all of one seed.

    ``decisions`` are the rows of a decision log, by preset.
    """
    names = tuple(run.preset for run in runs)
    colour = colours(names)
    logs = {} if decisions is None else decisions
    laws = {name: dict(get_preset(name).fingerprints()) for name in names}
    seeds = sorted({run.seed for run in runs})
    return SimulationEvidence(
        title=f"Simulation of {', '.join(names)}" if title is None else title,
        shown=tuple(_shown(scenario, run, colour, logs) for run in runs),
        config={**scenario.to_json(), "seed": seeds, "laws": laws},
        provenance=scenario_provenance(scenario, seeds),
        target_nats=scenario.asking.target_nats,
        ttft_slo_s=scenario.ttft_slo_s,
        tpot_slo_s=scenario.tpot_slo_s,
    )


def _shown(
    scenario: Scenario,
    run: Run,
    colour: Mapping[str, str],
    logs: Mapping[str, Sequence[DecisionRow]],
) -> Shown:
    result, alike = run.result, scenario.cluster is None
    return Shown(
        name=run.preset,
        ledgers=result.ledgers,
        ledger=result.ledger,
        metrics=result.metrics,
        colour=colour[run.preset],
        groups=groups_of(scenario, run),
        verdicts=_verdicts(scenario, run),
        caveats=tuple(caveat_lines(scenario, run)),
        pages=scenario.replicas * scenario.limits.n_pages if alike else None,
        decisions=tuple(logs.get(run.preset, ())),
        mode=f"{result.mode} ({result.mode_reason})" if result.mode_reason else result.mode,
    )


def _verdicts(scenario: Scenario, run: Run) -> dict[str, str]:
    found = {"stability": stability([Watched.of(run.result.ledger)]).line()}
    if scenario.cluster is None:  # the bound is that of servers of one kind
        law, preset = scenario.profile.law, get_preset(run.preset)
        judged = starvation(run.result.ledgers, preset, scenario.limits, law)
        found["starvation"] = judged.line()
    return found
