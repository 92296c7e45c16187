"""The ablation: every preset on the same arrivals and requests, seed by seed.

Two kinds of interval, told apart by metric: what depends on arrivals (times, rates, counts) has
Student's over seeds; per-token metrics, which every seed repeats, have a bootstrap over prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core import require
from controllers.presets import PRESETS
from controllers.serving.ledger import NEVER, Ledger
from reports.statistics import Flat, Interval, across, flatten, nested, paired, paired_pct
from reports.studies.grid import Progress, Task, run_all
from reports.studies.matched import Matched, match
from reports.studies.per_token import Sums, intervals, prompt_sums, resampled
from simulator.scenario import Run, Scenario, generated_tokens

REFERENCE = "baseline"
TOTALS = (  # of the same requests in every seed: an interval over seeds would say nothing
    "entropy_net_nats",
    "generated_tokens",
    "kv_bytes_read",
    "nll_nats",
    "tau_nats",
    "tau_cal_nats",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One preset over all seeds; differences are to the reference, pair by pair."""

    preset: str
    metrics: Mapping[str, Interval | None]
    difference: Mapping[str, Interval | None]
    difference_pct: Mapping[str, Interval | None]
    matched: Matched | None  # beside the fixed T of equal mean entropy


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
                "matched_fixed_temperature": None if row.matched is None else row.matched.to_json(),
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
    weights = resampled(scenario)
    reference = _Measured.of(scenario, by_preset[REFERENCE])
    return Ablation(
        scenario=scenario,
        seeds=tuple(seeds),
        rows=tuple(
            _row(scenario, name, found, reference, weights) for name, found in by_preset.items()
        ),
        first={name: found[0].result.ledger for name, found in by_preset.items()},
        caveats=by_preset[REFERENCE][0].caveats,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """One preset's runs: metrics seed by seed, and per-token sums by prompt."""

    flat: list[Flat]
    sums: Sums

    @classmethod
    def of(cls, scenario: Scenario, runs: Sequence[Run]) -> _Measured:
        return cls([measures(run) for run in runs], prompt_sums(scenario, runs))


def _row(
    scenario: Scenario,
    name: str,
    runs: Sequence[Run],
    reference: _Measured,
    weights: np.ndarray,
) -> Row:
    own = reference if name == REFERENCE else _Measured.of(scenario, runs)
    metrics = _with_totals(across(own.flat)) | intervals(own.sums, weights)
    if name == REFERENCE:
        difference, pct = {}, {}
    else:
        difference = _with_totals(paired(own.flat, reference.flat))
        difference |= intervals(own.sums, weights, reference.sums)
        pct = _with_totals(paired_pct(own.flat, reference.flat))
        pct |= intervals(own.sums, weights, reference.sums, in_pct=True)
    return Row(
        preset=name,
        metrics=metrics,
        difference=difference,
        difference_pct=pct,
        matched=match(scenario, runs, weights),
    )


def _with_totals(over_seeds: Mapping[str, Interval | None]) -> dict[str, Interval | None]:
    """Take the interval away from totals that every seed repeats."""
    return {
        name: Interval(one.mean, None) if one is not None and name in TOTALS else one
        for name, one in over_seeds.items()
    }


def measures(run: Run) -> Flat:
    """Return a run's metrics by dotted name, with its token count and overtakes."""
    flat = flatten(run.metrics)
    flat["generated_tokens"] = float(generated_tokens(run))
    flat["overtakes"] = float(sum(overtakes(one) for one in run.result.ledgers))
    return flat


def overtakes(ledger: Ledger) -> int:
    """Count the requests that one server first scheduled before some earlier arrival."""
    arrival, first = ledger.requests["arrival_ns"], ledger.requests["first_scheduled_ns"]
    order = np.lexsort((ledger.requests["request_id"], arrival))
    start = np.where(first == NEVER, np.iinfo(np.int64).max, first)[order]
    latest_before = np.maximum.accumulate(start)[:-1]
    return int((start[1:] < latest_before).sum())
