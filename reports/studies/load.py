"""Latency against load: the same requests at several arrival rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controllers.core import require
from reports.statistics import Interval, across
from reports.studies.ablation import measures
from reports.studies.grid import Progress, Task, run_all
from simulator.defaults import capacity_per_s
from simulator.scenario import Scenario

PRESETS = ("baseline", "attention", "full")
LOADS = (0.3, 0.6, 0.8, 1.0)  # of a full dense batch's capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRow:
    """One preset at one rate, over all seeds."""

    preset: str
    load: float  # share of capacity
    rate_per_s: float
    metrics: dict[str, Interval | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSweep:
    """Latency against load."""

    scenario: Scenario
    seeds: tuple[int, ...]
    capacity_per_s: float  # of all replicas
    rows: tuple[LoadRow, ...]


def sweep(
    scenario: Scenario,
    *,
    seeds: Sequence[int],
    loads: Sequence[float] = LOADS,
    presets: Sequence[str] = PRESETS,
    jobs: int = 1,
    progress: Progress | None = None,
) -> LoadSweep:
    """Run ``presets`` at ``loads`` of capacity; a seed deals the same requests at every rate."""
    require(len(seeds) >= 1, "seeds must be >= 1", seeds=len(seeds))
    require(scenario.arrivals is None, "a sweep needs Poisson arrivals", rate=scenario.rate_per_s)
    capacity = scenario.replicas * capacity_per_s(
        scenario.trace, scenario.profile.law, scenario.limits
    )
    points = [(name, load) for name in presets for load in loads]
    tasks = [Task(name, seed, load * capacity) for name, load in points for seed in seeds]
    runs = run_all(scenario, tasks, jobs=jobs, progress=progress)
    n = len(seeds)
    groups = [runs[i : i + n] for i in range(0, len(runs), n)]
    return LoadSweep(
        scenario=scenario,
        seeds=tuple(seeds),
        capacity_per_s=capacity,
        rows=tuple(
            LoadRow(
                preset=name,
                load=load,
                rate_per_s=load * capacity,
                metrics=across([measures(one) for one in group]),
            )
            for (name, load), group in zip(points, groups, strict=True)
        ),
    )
