"""A finished live campaign as a JSON document and as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from reports.validation.live_campaign import Campaign
from reports.validation.live_curves import causes, drawn_distribution, trajectory_rows
from reports.validation.live_disturbed import Tries
from reports.validation.live_growth import growth_of, queue_series
from reports.validation.live_observed import Observed
from reports.validation.live_profile import rescaled_law
from reports.validation.live_rows import rows_of
from reports.validation.live_store import Measured
from simulator.verdict import stability

Cell = dict[str, Any]
DIGITS = 6


def document_of(campaign: Campaign, *, rescale: bool) -> dict[str, Any]:
    """Simulate every run that was measured and return the comparison.

    With ``rescale`` the profile is multiplied by the median drift of the reference steps, which
    are steps of none of the runs.
    """
    tries = Tries(campaign.folder, campaign.options)
    runs, aside = tries.counted(), tries.aside()
    drift = drift_of(runs)
    factor = float(drift["total"]["median"]) if rescale else None
    if factor is not None:
        campaign = rescaled(campaign, factor)
    groups = _groups(runs)
    cells = [
        _cell(campaign, group, _like(group[0], aside))
        for group in groups
        if not group[0].spec.overloaded
    ]
    over = [group for group in groups if group[0].spec.overloaded]
    judged = [row["verdict"] for cell in cells for row in cell["rows"]]
    facts = campaign.facts
    return {
        **{name: facts[name] for name in ("device", "model", "weights_sha256", "arrivals", "text")},
        "options": facts["options"],
        "limits": facts["limits"],
        "capacity_per_s": facts["capacity_per_s"],
        "profile": {
            "commit": campaign.profile.commit,
            "created": campaign.profile.created,
            "source": campaign.profile.source,
            "fit_error": dict(campaign.profile.fit_error),
            "step_law": campaign.profile.law.to_json(),
        },
        "rescaled_by": factor,
        "drift": drift,
        "verdicts": {name: judged.count(name) for name in ("inside", "outside", "undecided")},
        "parity": parity_of(tries.made),
        "set_aside": len(aside),
        "cells": cells,
        "growth": [_growth(campaign, group) for group in over],
        "runs": [
            {**asdict(run.spec), "disturbed": tries.disturbed(run), **run.facts}
            | {"counts": run.spec not in {each.spec for each in aside}}
            for run in tries.made
        ],
    }


def rescaled(campaign: Campaign, factor: float) -> Campaign:
    """Return the campaign with a simulator whose steps take ``factor`` times as long."""
    law = rescaled_law(campaign.twin.step_law, factor)
    return replace(campaign, twin=replace(campaign.twin, step_law=law))


def drift_of(runs: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """Return smallest, median and largest drift of the reference steps, by kind of step."""
    found = {}
    for kind in ("prefill", "decode", "total"):
        both = [run.facts[when][kind] for run in runs for when in ("drift", "drift_after")]
        values = np.array(both)
        found[kind] = {
            "min": float(values.min()),
            "median": float(np.median(values)),
            "max": float(values.max()),
        }
    return found


def parity_of(runs: Sequence[Measured]) -> dict[str, int]:
    """Return how many plans and commands were recomputed from the logs, and how many differ."""
    each = [run.facts["parity"] for run in runs]
    return {name: sum(one[name] for one in each) for name in each[0]}


def _groups(runs: Sequence[Measured]) -> list[list[Measured]]:
    """Return the repeats of each preset at each load, loads ascending."""
    keys = list(dict.fromkeys((run.spec.load, run.spec.preset) for run in runs))
    names = list(dict.fromkeys(run.spec.preset for run in runs))
    keys.sort(key=lambda key: (key[0], names.index(key[1])))
    return [[r for r in runs if (r.spec.load, r.spec.preset) == key] for key in keys]


def _like(run: Measured, others: Sequence[Measured]) -> list[Measured]:
    alike = (run.spec.preset, run.spec.load)
    return [each for each in others if (each.spec.preset, each.spec.load) == alike]


def _cell(campaign: Campaign, runs: Sequence[Measured], aside: Sequence[Measured]) -> Cell:
    """Return the comparison of one preset at one load; a closed batch is shown, not judged.

    ``aside`` are the runs set aside: their means stand beside, with the others and judged by none.
    """
    spec = runs[0].spec
    seen = [run.seen for run in runs]
    simulated = campaign.simulated(spec)
    rows = [row.to_json() for row in rows_of(runs, simulated)]
    if aside:
        everything = rows_of([*runs, *aside], simulated)
        rows = [
            row | {"measured_with_set_aside": each.measured}
            for row, each in zip(rows, everything, strict=True)
        ]
    if spec.closed:
        rows = [row | {"verdict": "not judged"} for row in rows]
    curves = trajectory_rows(seen, simulated)
    whole = all(run.facts["parity"]["commands_differing"] == 0 for run in runs)
    return {
        "preset": spec.preset,
        "load": spec.load,
        "repeats": len(runs),
        "set_aside": len(aside),
        "requests": len(simulated.requests["request_id"]),
        "rows": rows,
        "trajectories": curves,
        "causes": causes(curves, parity=whole),
        "stability": {
            "measured": stability([one.watched() for one in seen]).verdict,
            "simulated": stability([simulated.watched()]).verdict,
        },
        "drawn": {} if spec.closed else _drawn(runs, simulated),
    }


def _drawn(runs: Sequence[Measured], simulated: Observed) -> dict[str, Any]:
    """Return what figures show: latencies of each repeat sorted, quantiles of trajectories."""
    ours, curves = simulated.latencies(), simulated.trajectories()
    found: dict[str, Any] = {}
    for name in ("ttft_s", "tpot_s"):
        each = [_sorted(run.seen.latencies()[name]) for run in runs]
        found[name] = {"measured": each, "simulated": _sorted(ours[name])}
    for name in ("temperature", "coverage", "h_applied_nats"):
        pooled = np.concatenate([run.seen.trajectories()[name] for run in runs])
        found[name] = {
            "measured": drawn_distribution(pooled),
            "simulated": drawn_distribution(curves[name]),
        }
    return found


def _growth(campaign: Campaign, runs: Sequence[Measured]) -> dict[str, Any]:
    """Return verdicts and growth above capacity, where latencies say how long a run was."""
    ours = [campaign.simulated(run.spec) for run in runs]
    found = growth_of([run.seen for run in runs], ours)
    return {
        "preset": runs[0].spec.preset,
        "load": runs[0].spec.load,
        **found,
        "drawn": [
            {"measured": queue_series(run.seen.watched()), "simulated": queue_series(sim.watched())}
            for run, sim in zip(runs, ours, strict=True)
        ],
    }


def _sorted(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in np.sort(values)]
