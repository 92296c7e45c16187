"""Run many simulations of one scenario, on several processes where that is wanted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from controllers.core import require
from controllers.presets import get_preset
from simulator.scenario import Run, Scenario, run
from traces.spread import spread

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Task:
    """One run of a scenario."""

    preset: str
    seed: int
    rate_per_s: float


def run_all(
    scenario: Scenario,
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[Run]:
    """Return the runs of ``tasks``, in order; ``jobs`` processes, 0 for one per processor.

    Runs are pure functions of their task, so the answer does not depend on ``jobs``.
    """
    require(jobs >= 0, "jobs must be >= 0", jobs=jobs)
    jobs = max(1, min(jobs or os.cpu_count() or 1, len(tasks)))
    done = []
    for one in spread(partial(_one, scenario), tasks, jobs):
        done.append(one)
        if progress is not None:
            progress(len(done), len(tasks))
    return done


def _one(scenario: Scenario, task: Task) -> Run:
    return run(scenario.at(task.rate_per_s), get_preset(task.preset), task.seed)
