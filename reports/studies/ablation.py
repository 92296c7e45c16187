"""The ablation: every preset on the same arrivals and requests, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controllers.core import require
from controllers.presets import PRESETS
from controllers.serving.ledger import Ledger
from reports.statistics import Flat, Interval, across, flatten, nested, paired, paired_pct
from reports.studies.grid import Progress, Task, run_all
from simulator.scenario import Run, Scenario, generated_tokens

REFERENCE = "baseline"
PER_TOKEN = ("nll_nats", "tau_nats", "tau_cal_nats")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One preset over all seeds; differences are to the reference at the same seed."""

    preset: str
    metrics: Mapping[str, Interval | None]
    difference: Mapping[str, Interval | None]
    difference_pct: Mapping[str, Interval | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What the presets did under common random numbers."""

    scenario: Scenario
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]  # reference first
    first: Mapping[str, Ledger]  # preset -> ledger of the first seed
    caveats: Mapping[str, int]  # of the reference's first run

    def row(self, preset: str) -> Row:
        """Return the row of ``preset``."""
        return next(row for row in self.rows if row.preset == preset)

    def to_json(self) -> list[dict[str, object]]:
        """Return the rows as JSON values."""
        return [
            {
                "preset": row.preset,
                "metrics": nested(row.metrics),
                "difference": nested(row.difference),
                "difference_pct": nested(row.difference_pct),
            }
            for row in self.rows
        ]


def ablate(
    scenario: Scenario,
    *,
    seeds: Sequence[int],
    presets: Sequence[str] = tuple(PRESETS),
    jobs: int = 1,
    progress: Progress | None = None,
) -> Ablation:
    """Run every preset at every seed; a seed fixes arrivals, requests and their order."""
    require(len(seeds) >= 1, "seeds must be >= 1", seeds=len(seeds))
    require(REFERENCE in presets, f"presets must hold {REFERENCE!r}", presets=tuple(presets))
    order = (REFERENCE, *(name for name in presets if name != REFERENCE))
    tasks = [Task(name, seed, scenario.rate_per_s) for name in order for seed in seeds]
    runs = run_all(scenario, tasks, jobs=jobs, progress=progress)
    by_preset = {name: [r for r in runs if r.preset == name] for name in order}
    flat = {name: [measures(r) for r in found] for name, found in by_preset.items()}
    reference = flat[REFERENCE]
    return Ablation(
        scenario=scenario,
        seeds=tuple(seeds),
        rows=tuple(
            Row(
                preset=name,
                metrics=across(values),
                difference={} if name == REFERENCE else paired(values, reference),
                difference_pct={} if name == REFERENCE else paired_pct(values, reference),
            )
            for name, values in flat.items()
        ),
        first={name: found[0].result.ledger for name, found in by_preset.items()},
        caveats=by_preset[REFERENCE][0].caveats,
    )


def measures(run: Run) -> Flat:
    """Return a run's metrics by dotted name, with token counts and per-token entropies."""
    flat = flatten(run.metrics)
    tokens = generated_tokens(run)
    flat["generated_tokens"] = float(tokens)
    for name in PER_TOKEN:
        total = flat[name]
        flat[f"{name}_per_token"] = None if total is None or not tokens else total / tokens
    return flat
