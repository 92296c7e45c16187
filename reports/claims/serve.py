"""Simulated runs that judges share: a few presets, seed by seed, on the same requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from controllers.preset import Preset
from controllers.presets import SEED_QUANTUM, get_preset
from controllers.priority import SeedPriority
from controllers.serving.ledger import Ledger
from reports.statistics import Flat, Interval, interval
from reports.studies.ablation import measures
from reports.studies.per_token import RATIOS, Sums, intervals, prompt_sums, resampled
from simulator.scenario import Scenario, run
from traces.spread import spread

BASELINE, SAMPLING, SCHEDULING = "Baseline", "Sampling only", "Scheduling only"
ATTENTION, FULL, PRINTED = "Attention only", "Full system", "Printed"
SRPT = "Shortest remaining first"
CHANGE_PCT = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One preset over all seeds."""

    metrics: tuple[Flat, ...]  # one per seed
    first: Ledger  # of the first seed
    # Per-token metrics of the first seed against the baseline's, per cent: other seeds repeat them,
    # so the interval is over prompts.
    per_token_pct: Mapping[str, Interval | None]

    def values(self, name: str) -> np.ndarray:
        """Return a metric seed by seed, ``[seeds]``; NaN where it is missing."""
        found = [one.get(name) for one in self.metrics]
        return np.array([np.nan if value is None else value for value in found], np.float64)


def table_rows() -> Mapping[str, Preset]:
    """Return the presets of the paper's Table 1 by its row names, and the paper as printed."""
    names = {
        BASELINE: "baseline",
        SAMPLING: "sampling",
        SCHEDULING: "scheduling",
        ATTENTION: "attention",
        FULL: "full",
        PRINTED: "seed",
    }
    return MappingProxyType({row: get_preset(name) for row, name in names.items()})


def orders() -> Mapping[str, Preset]:
    """Return orders of service; temperature and coverage are the baseline's."""
    printed = dataclasses.replace(
        get_preset("baseline"),
        name="printed_order",
        priority=SeedPriority(),
        quantum_tokens=SEED_QUANTUM,
    )
    return MappingProxyType(
        {
            BASELINE: get_preset("baseline"),
            SCHEDULING: get_preset("scheduling"),
            PRINTED: printed,
            SRPT: get_preset("srpt_oracle"),
        }
    )


def serve(
    scenario: Scenario, presets: Mapping[str, Preset], seeds: Sequence[int], jobs: int
) -> Mapping[str, Served]:
    """Run every preset at every seed; a seed deals the same arrivals and requests to all."""
    tasks = [_Task(preset, seed, seed == seeds[0]) for preset in presets.values() for seed in seeds]
    runs = list(spread(partial(_one, scenario), tasks, jobs or -1))
    groups = [runs[i : i + len(seeds)] for i in range(0, len(runs), len(seeds))]
    base = groups[list(presets).index(BASELINE)][0].sums
    weights = resampled(scenario)
    return MappingProxyType(
        {
            name: Served(
                metrics=tuple(one.flat for one in group),
                first=group[0].ledger,
                per_token_pct=intervals(group[0].sums, weights, base, in_pct=True),
            )
            for name, group in zip(presets, groups, strict=True)
        }
    )


def change_pct(served: Mapping[str, Served], row: str, name: str) -> Interval | None:
    """Return a metric's change against the baseline on the same requests, per cent.

    Over seeds, or over prompts for what every seed repeats (``RATIOS`` of the per-token study).
    """
    if name in RATIOS:
        return served[row].per_token_pct[name]
    base = served[BASELINE].values(name)
    change = CHANGE_PCT * (served[row].values(name) / base - 1.0)
    return interval(change.tolist()) if np.isfinite(change).all() else None


class _Task(NamedTuple):
    preset: Preset
    seed: int
    first: bool


class _Done(NamedTuple):
    """What one run sends back from its process; ledger and sums of the first seed only."""

    flat: Flat
    ledger: Ledger
    sums: Sums


def _one(scenario: Scenario, task: _Task) -> _Done:
    done = run(scenario, task.preset, task.seed)
    flat = measures(done)
    flat["tau_per_cost"] = _ratio(flat["tau_nats"], flat["cost_s"])
    flat["tokens_per_busy_s"] = _ratio(flat["generated_tokens"], flat["cost_s"])
    if not task.first:
        return _Done(flat, Ledger(record_tokens=False), {})
    return _Done(flat, done.result.ledger, prompt_sums(scenario, [done]))


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
