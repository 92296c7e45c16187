"""One simulation in a process of its own, timed from inside: ``python -m ... '<case as JSON>'``.

Lengths are the first requests of a seeded shuffle of an arrival trace, again from the start where
more are asked for; times are Poisson; entropies are joined from the shipped recording.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from simulator.run import SimulationResult
    from traces.arrivals import Arrivals
    from traces.store import Trace

MAX_TOTAL = 4096  # tokens of prompt and output, as Vidur's trace lengths are clipped
SEED = 42  # Vidur's default, for the shuffle; each case adds the seed of its times


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one process simulates."""

    arrivals: str  # file whose lengths are used
    mode: str = "macro"
    requests: int = 2000
    rate_per_s: float = 4.0
    replicas: int = 1
    pages: int = 28_182  # of 16 tokens: what a vLLM server of this model has on an 80 GB A100
    preset: str = "full"
    record: bool = True  # a ledger row for every token and step
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one process found; seconds are of its own clock."""

    serve_s: float  # law scan and event loop, nothing else
    serve_cpu_s: float  # the same in processor time, which other processes do not lengthen
    scan_s: float  # of it, the law scan; 0 where laws are called step by step
    scan_cpu_s: float
    peak_rss_mb: float  # most memory ever resident; NaN where the system does not say
    steps: int
    output_tokens: int
    simulated_s: float
    completed: int
    preemptions: int
    asked_share: float  # calls of the priority law per step: a decision was open
    mode: str  # what ran


class Stopwatch:
    """Sums the wall and processor seconds spent in calls of one method, and counts the calls."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.calls = 0

    @contextmanager
    def on(self, owner: type, name: str) -> Iterator[None]:
        """Watch ``owner.name`` within the block."""
        watched = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return watched(*args, **kwargs)
            finally:
                self.wall_s += time.perf_counter() - wall
                self.cpu_s += time.process_time() - cpu
                self.calls += 1

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, watched)


def run(case: Case) -> Found:
    """Simulate ``case`` in this process."""
    from simulator import defaults
    from simulator.array_ranking import Ranking, Scoring
    from simulator.cluster import Cluster
    from simulator.join import joined_workload
    from simulator.library import load_library
    from simulator.run import run_workload
    from simulator.trajectories import Trajectories

    library = load_library(defaults.TRACE)
    workload = joined_workload(
        cast("Trace", library), lengths(case), seed=case.seed, max_total=MAX_TOTAL
    )
    config = _config(case, library.model.page_unit_bytes)
    serving, scanning, asking = Stopwatch(), Stopwatch(), Stopwatch()
    with ExitStack() as watched:
        watched.enter_context(serving.on(Cluster, "run"))
        watched.enter_context(scanning.on(Trajectories, "_scan"))
        watched.enter_context(asking.on(type(config.preset.priority), "update"))
        for program in (Ranking, Scoring):  # the same law, run as a program
            watched.enter_context(asking.on(program, "of"))
        result = run_workload(library.model, library.residual, workload, config)
    steps = sum(ledger.step_count for ledger in result.ledgers)
    return Found(
        serve_s=serving.wall_s,
        serve_cpu_s=serving.cpu_s,
        scan_s=scanning.wall_s,
        scan_cpu_s=scanning.cpu_s,
        peak_rss_mb=peak_mb(),
        steps=steps,
        output_tokens=int(result.ledger.requests["tokens"].sum()),
        simulated_s=_simulated_s(result),
        completed=int(cast("int", result.metrics["completed"])),
        preemptions=int(cast("int", result.metrics["preemptions"])),
        asked_share=asking.calls / steps,
        mode=result.mode,
    )


def lengths(case: Case) -> Arrivals:
    """Return the arrivals of ``case``: real lengths, shuffled, at Poisson times."""
    from dataclasses import replace

    from traces.arrivals import read_arrivals

    known = read_arrivals(case.arrivals)
    if known.prompt_tokens is None or known.output_tokens is None:
        raise ValueError(f"arrivals must hold lengths; got {case.arrivals}")
    order = np.random.default_rng(SEED).permutation(len(known))
    rows = np.resize(order, case.requests)
    gaps_s = np.random.default_rng([SEED, case.seed]).exponential(
        1.0 / case.rate_per_s, case.requests
    )
    return replace(
        known,
        times_s=np.cumsum(gaps_s) - gaps_s[0],
        prompt_tokens=known.prompt_tokens[rows],
        output_tokens=known.output_tokens[rows],
        prefixes=None,
        tenants=None,
        classes=None,
    )


def peak_mb() -> float:
    """Return the most memory this process ever had resident, MB (2^20 bytes).

    Not ``ru_maxrss``, in which Linux counts the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (line,) = [row for row in status.read_text().splitlines() if row.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024.0


def _config(case: Case, unit_bytes: int) -> Any:
    from controllers.presets import get_preset
    from controllers.serving.limits import EngineLimits
    from controllers.steplaw import StepLaw
    from simulator.run import ClusterConfig

    # Llama-3.1-8B on one A100 SXM, bf16, vLLM kernels as composed by NVIDIA's aiconfigurator:
    # decode 11.485 + .03387 B + 7.888e-5 KV ms, prefill 8.222 + .05386 T + 1.729e-6 S2 ms.
    law = StepLaw(
        base_s=11.485e-3,
        per_decode_s=33.87e-6,
        per_kv_token_s=78.88e-9,
        per_prompt_token_s=53.86e-6,
        per_prompt_square_s=1.729e-9,
        floor_s=11.485e-3,
        prompt_overlap_s=11.485e-3 - 8.222e-3,
    )
    limits = EngineLimits(max_seqs=128, token_budget=512, n_pages=case.pages, max_context=8192)
    return ClusterConfig(
        preset=get_preset(case.preset),
        limits=limits,
        step_law=law,
        bytes_per_page_unit=unit_bytes,
        replicas=case.replicas,
        mode=cast("Any", case.mode),
        seed=case.seed,
        record_tokens=case.record,
        record_steps=case.record,
    )


def _simulated_s(result: SimulationResult) -> float:
    rows = result.ledger.requests
    return float(rows["finish_ns"].max() - rows["arrival_ns"].min()) / 1e9


def main() -> None:
    """Run the case on the command line and print what it found."""
    case = Case(**json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps(asdict(run(case))) + "\n")


if __name__ == "__main__":
    main()
