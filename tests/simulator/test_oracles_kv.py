"""A page pool under pressure against a second model of it, written from the rules alone.

The rules, under first come first served: a request starts when a slot and pages for all its tokens
and one more are free, and nobody passes the first in the queue. A decode row that fills its pages
takes another; when none is free, the last to arrive loses all of its own and starts again with what
it has generated as its prompt. Nobody starts in a step that took pages from somebody.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from simulator import ClusterConfig, Residual, TraceModel, run_workload
from tests.simulator.queues import EVEN, MS, workload

PAGE = 16


@dataclass
class Job:
    """A request of the second model."""

    arrival: int  # ns
    prompt: int
    left: int  # tokens still to come
    known: int = 0  # tokens whose keys and values a full recomputation needs
    done: int = 0  # tokens computed
    pages: int = 0
    losses: int = 0
    times: list[int] = field(default_factory=list)  # first step's begin, then each token's end


def reference(jobs: list[Job], slots: int, budget: int, pool: int) -> list[tuple[int, int, int]]:
    """Serve ``jobs``, in order of arrival, a millisecond a step; return (rows, prompt, pages)."""
    queue, running, steps, now, turn = list(jobs), [], [], 0, None
    while queue or running:
        if not running:
            now = max(now, min(job.arrival for job in queue))
        took = False
        free = pool - sum(job.pages for job in running)
        for job in sorted(running, key=jobs.index):  # the oldest gets its page first
            if job not in running or job.done < job.known - 1 or job.done < job.pages * PAGE:
                continue
            while job in running and free == 0:
                victim = max(running, key=jobs.index)
                free += victim.pages
                victim.pages = victim.done = 0
                victim.losses += 1
                running.remove(victim)
                queue.append(victim)
                took = True
            if job in running:
                job.pages, free = job.pages + 1, free - 1
        decoding = [job for job in running if job.times[1:] and job.done == job.known - 1]
        work = [(job, 1) for job in decoding]
        tokens = budget - len(work)
        for job in [job for job in running if job not in decoding]:
            work.append((job, min(job.known - job.done, tokens)))
            tokens -= work[-1][1]
        turns = sorted(queue, key=lambda job: (job is not turn, jobs.index(job)))
        for job in [] if took or tokens <= 0 else turns:
            need = -(-(job.known + 1) // PAGE)
            if job.arrival > now or len(running) == slots:
                break
            turn = job if need > free else None
            if turn or tokens <= 0:
                break
            queue.remove(job)
            running.append(job)
            job.pages, free = need, free - need
            work.append((job, min(job.known, tokens)))
            tokens -= work[-1][1]
        prompt = rows = 0
        for job, n in [(job, n) for job, n in work if n]:
            job.times = job.times or [now]
            job.done += n
            single = n == 1 and job.done == job.known  # the last of a prompt, if alone, too
            rows, prompt = rows + single, prompt + (0 if single else n)
            if job.done == job.known:
                job.known, job.left = job.known + 1, job.left - 1
                job.times.append(now + MS)
        ended = [job for job in running if job.left == 0]
        steps.append((rows, prompt, pool - free))  # pages at the end of the step
        for job in ended:
            running.remove(job)
            job.pages = 0
        now += MS
    return steps


@pytest.mark.parametrize(("mode", "worlds"), [("online", 10), ("steps", 30), ("macro", 30)])
@pytest.mark.parametrize("preset", ["baseline", "attention"])
def test_a_tight_pool_is_served_as_the_second_model_says(
    mode: str, worlds: int, preset: str, model: TraceModel, residual: Residual
) -> None:
    """Pruning reads less and holds as much, and every step takes a millisecond: all the same."""
    losses = waits = chunks = 0
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        n, slots, pool = rng.integers((1, 1, 7), (13, 6, 17)).tolist()
        budget = int(rng.integers(slots, 60))
        prompts, outputs = rng.integers(1, 61, n), rng.integers(1, 41, n)
        times = np.sort(rng.integers(0, 40, n)) * 5e-4  # half of them on boundaries
        config = ClusterConfig(
            preset=get_preset(preset),
            limits=EngineLimits(max_seqs=slots, token_budget=budget, n_pages=pool, max_context=101),
            step_law=EVEN,
            bytes_per_page_unit=1,
            mode=mode,
        )
        asked = workload(times, prompts, outputs)
        ledger = run_workload(model, residual, asked, config).ledger
        jobs = [
            Job(arrival=a.arrival_ns, prompt=p, left=o, known=p)
            for a, p, o in zip(asked.arrivals, prompts.tolist(), outputs.tolist(), strict=True)
        ]
        steps = reference(jobs, slots, budget, pool)
        columns = ("n_decode", "prompt_tokens", "pages_held")
        found = list(zip(*(ledger.steps[name].tolist() for name in columns), strict=True))
        assert found == steps
        requests = ledger.requests
        assert requests["first_scheduled_ns"].tolist() == [job.times[0] for job in jobs]
        assert requests["first_token_ns"].tolist() == [job.times[1] for job in jobs]
        assert requests["finish_ns"].tolist() == [job.times[-1] for job in jobs]
        assert requests["preemptions"].tolist() == [job.losses for job in jobs]
        losses += sum(job.losses for job in jobs)
        waits += sum(job.times[0] > job.arrival + MS for job in jobs)
        chunks += sum(row[1] == budget for row in steps)
    assert min(losses, waits, chunks) > worlds / 2  # the pool, the slots and the budget all bind
