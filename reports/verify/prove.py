"""The long search: every sound temperature law against every disturbance, a million lanes or more.

A lane is one law in closed loop with one plant under one disturbance, 64 tokens or more. Laws and
properties are split into jobs, so that processors share them; the count is of distinct lanes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from controllers.compose import Gated, rate_limited
from controllers.core import require
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import EntropyFeedback
from reports.verify import micro
from reports.verify.finding import Finding
from reports.verify.run import check
from reports.verify.setting import get_budget
from reports.verify.target import Part, Target, resolve
from traces.spread import spread

LOOPS = (
    "micro.stability",
    "micro.settles",
    "micro.delay",
    "micro.tube",
    "micro.windup",
)  # 64 tokens or more
BATCH_LANES = 16_384

Progress = Callable[[int, int], None]


RATE_LIMITED = rate_limited(EntropyFeedback(rate=math.inf), 0.1)
GATED_SMOOTHED = Gated(law=SmoothedFeedback())

SOUND = (  # what must survive: our laws, wrapped ones, and presets; no law twice
    "FixedTemperature",
    "EntropyFeedback",
    "SmoothedFeedback",
    "FeedforwardNewton",
    "reports.verify.prove:RATE_LIMITED",
    "reports.verify.prove:GATED_SMOOTHED",
    "baseline",
    "full",
    "best",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One property of one law, and how many random lanes it gets."""

    spec: str
    property: str
    lanes: int
    seed: int


def jobs(lanes: int, seed: int) -> list[Job]:
    """Divide ``lanes`` evenly among the laws and the properties that fit them."""
    require(lanes >= 1, "lanes must be at least 1", lanes=lanes)
    pairs = [
        (spec, prop.name)
        for spec in SOUND
        for prop in micro.PROPERTIES
        if prop.name in LOOPS and not prop.unfit(_temperature(resolve(spec)).law)
    ]
    each = math.ceil(lanes / len(pairs))
    return [Job(spec, name, each, seed) for spec, name in pairs]


def run(job: Job) -> Finding:
    """Check one job's property; deterministic from its lanes and seed."""
    prop = next(p for p in micro.PROPERTIES if p.name == job.property)
    quick = get_budget("quick", lanes=job.lanes, seed=job.seed)
    target = resolve(job.spec)
    budget = dataclasses.replace(quick, batch=BATCH_LANES)
    found = check(prop, _temperature(target), target, budget, cost=1)
    return dataclasses.replace(found, subject=job.spec.rpartition(":")[2])


def _temperature(target: Target) -> Part:
    return next(part for part in target.parts if part.role == "temperature")


def prove(
    lanes: int, *, seed: int, processes: int, progress: Progress | None = None
) -> list[Finding]:
    """Run every job on ``processes`` processors; return a finding per law and property."""
    planned = jobs(lanes, seed)
    findings = []
    for done, finding in enumerate(spread(run, planned, processes), start=1):
        findings.append(finding)
        if progress is not None:
            progress(done, len(planned))
    return findings
