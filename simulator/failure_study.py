"""Replicas that die at random under load: what becomes of every request, and what it costs.

Runs come in pairs, with and without failures, of the same requests at the same times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controllers.core import require
from controllers.presets import Preset
from controllers.serving.ledger import CANCELLED, COMPLETED
from simulator.analysis import Flat, Interval, across, flatten, paired
from simulator.description import ClusterPlan, Failures, Group
from simulator.run import SimulationResult
from simulator.scenario import Scenario, run
from simulator.server import FAILED, LOST, PASSING, REJECTED
from simulator.workload import Workload

SHOWN = {  # what the table compares, by the dotted name of the metric
    "completed": "requests completed, share",
    "failed": "requests failed, share",
    "lost_tokens": "tokens lost, share of delivered",
    "recomputed_prompts": "prompts computed again, share of requests",
    "ttft_s.p50": "time to first token, p50, s",
    "ttft_s.p99": "time to first token, p99, s",
    "e2e_s.mean": "end to end, mean, s",
    "e2e_s.p99": "end to end, p99, s",
    "throughput_tokens_per_s": "throughput, tokens/s",
    "goodput_requests_per_s": "goodput, requests/s",
    "max_service_gap_s": "longest service gap, s",
    "gpu_seconds": "GPU-seconds paid",
    "tokens_per_gpu_s": "tokens per GPU-second",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Where every request of a run ended, read from the servers' own ledgers."""

    requests: int
    completed_once: int
    completed_again: int  # in more than one server: must be 0
    miscounted: int  # completed with another number of tokens than it has: must be 0
    unaccounted: int  # neither completed nor reported: must be 0
    failed: int
    rejected: int
    cancelled: int

    @property
    def sound(self) -> bool:
        """Whether every request completed exactly once or is reported."""
        return self.completed_again == self.miscounted == self.unaccounted == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One seed, with and without failures."""

    seed: int
    audit: Audit
    crashes: int
    retries: int
    undisturbed: Flat
    disturbed: Flat


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureStudy:
    """Pairs of runs and what they say together; intervals are Student's, over seeds."""

    pairs: tuple[Pair, ...]

    @property
    def sound(self) -> bool:
        """Whether every request of every run completed exactly once or is reported."""
        return all(pair.audit.sound for pair in self.pairs)

    def rows(self) -> list[tuple[str, Interval | None, Interval | None, Interval | None]]:
        """Return (name, without failures, with failures, difference) for each shown metric."""
        without = [pair.undisturbed for pair in self.pairs]
        with_ = [pair.disturbed for pair in self.pairs]
        calm, hit, change = across(without), across(with_), paired(with_, without)
        return [(name, calm.get(name), hit.get(name), change.get(name)) for name in SHOWN]


def failure_study(
    scenario: Scenario,
    preset: Preset,
    failures: Failures,
    *,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> FailureStudy:
    """Run each seed with and without ``failures``; its own seed is added to each pair's.

    A scenario without a cluster plan gets one group of its ``replicas``. Results hang together
    by common random numbers: requests, lengths and times of a seed are those of both runs.
    """
    require(len(seeds) >= 1, "a study needs a seed", seeds=len(seeds))
    plan = scenario.cluster
    if plan is None:
        plan = ClusterPlan(groups=(Group(count=scenario.replicas, gpus=scenario.profile.gpus),))
    pairs = []
    for done, seed in enumerate(seeds):
        rules = dataclasses.replace(failures, seed=failures.seed + seed)
        calm = _served(scenario, preset, dataclasses.replace(plan, failures=Failures()), seed)
        hit = _served(scenario, preset, dataclasses.replace(plan, failures=rules), seed)
        workload = scenario.workload(seed)
        true_tokens = dict(
            zip(calm.ledger.row_of, calm.ledger.requests["tokens"].tolist(), strict=True)
        )
        pairs.append(
            Pair(
                seed=seed,
                audit=audit(hit, workload, true_tokens),
                crashes=int(_number(hit.metrics["crashes"])),
                retries=int(_number(hit.metrics["retries"])),
                undisturbed=_figures(calm),
                disturbed=_figures(hit),
            )
        )
        if progress is not None:
            progress(done + 1, len(seeds))
    return FailureStudy(pairs=tuple(pairs))


def audit(result: SimulationResult, workload: Workload, true_tokens: dict[int, int]) -> Audit:
    """Say where every request ended, from the parts of it that servers wrote.

    ``true_tokens`` are the lengths that completed requests must have.
    """
    ends: dict[int, list[str]] = {}
    tokens: dict[int, int] = {}
    for ledger in result.ledgers:
        counts = ledger.requests.columns["tokens"]
        for request_id, row in ledger.row_of.items():
            reason = ledger.reasons[row]
            if reason is not None and reason not in PASSING:
                ends.setdefault(request_id, []).append(reason)
            if reason != LOST:
                tokens[request_id] = tokens.get(request_id, 0) + counts[row]
    found = dict.fromkeys(("once", "again", "miscounted", "unaccounted"), 0)
    told = {FAILED: 0, REJECTED: 0, CANCELLED: 0}
    for request_id in workload.column("request_id").tolist():
        row = result.ledger.row_of.get(request_id)
        reported = None if row is None else result.ledger.reasons[row]
        completions = sum(reason in COMPLETED for reason in ends.get(request_id, ()))
        if completions > 1:
            found["again"] += 1
        elif completions == 1:
            found["once"] += 1
            found["miscounted"] += tokens[request_id] != true_tokens.get(request_id)
            found["unaccounted"] += reported not in COMPLETED
        elif reported in told:
            told[reported] += 1
        else:
            found["unaccounted"] += 1
    return Audit(
        requests=len(workload.arrivals),
        completed_once=found["once"],
        completed_again=found["again"],
        miscounted=found["miscounted"],
        unaccounted=found["unaccounted"],
        failed=told[FAILED],
        rejected=told[REJECTED],
        cancelled=told[CANCELLED],
    )


def _served(scenario: Scenario, preset: Preset, plan: ClusterPlan, seed: int) -> SimulationResult:
    clustered = dataclasses.replace(scenario, replicas=1, cluster=plan)
    return run(clustered, preset, seed).result


def _figures(result: SimulationResult) -> Flat:
    """Return the shown metrics of a run by dotted name, counts as shares."""
    flat = flatten(result.metrics)
    submitted, tokens = _number(flat["submitted"]), int(result.ledger.requests["tokens"].sum())
    started = sum(
        int((ledger.requests["first_scheduled_ns"] >= 0).sum()) for ledger in result.ledgers
    )
    once = int((result.ledger.requests["first_scheduled_ns"] >= 0).sum())
    shares = {
        "completed": _number(flat["completed"]) / submitted,
        "failed": result.ledger.reasons.count(FAILED) / submitted,
        "lost_tokens": _number(flat["lost_tokens"]) / max(tokens, 1),
        "recomputed_prompts": (started - once) / submitted,
    }
    known = flat | shares
    return {name: known.get(name) for name in SHOWN}


def _number(value: object) -> float:
    assert isinstance(value, int | float), "a count is a number"
    return float(value)
