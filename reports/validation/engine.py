"""vLLM V1 in the terms of our simulator: its order of requests, its limits, its prefix cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from controllers.preset import Preset
from controllers.presets import get_preset
from controllers.priority import Fcfs
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from simulator.arrival import Arrival
from simulator.curves import CurveTable
from simulator.model import TraceModel
from simulator.pruning import ShareTable
from simulator.residual import Residual
from simulator.workload import NS_PER_S, Workload
from traces.golden import GoldenError, GoldenRun
from traces.profiles_devices import estimated_limits, find_device
from traces.profiles_shapes import ModelShape

ROWS = 16  # of the stand-in recording


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontOfQueue(Fcfs):
    """First come, first served, and who was preempted goes before everybody who waits.

    Ours reserves the pool for a blocked head of line, which an older preempted request then has to
    let pass; vLLM puts the preempted at the front of the queue.
    """

    reserves: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Limits as resolved by the run, and whether the pool had to be estimated."""

    limits: EngineLimits
    pages_estimated: bool


def vllm_preset() -> Preset:
    """Return ``baseline`` in the order of vLLM's V1 scheduler."""
    return replace(get_preset("baseline"), name="vllm", priority=FrontOfQueue())


def engine_of(run: GoldenRun, shape: ModelShape, device: str, pages: int | None) -> Engine:
    """Return the engine of a run; ``pages`` stands in for a pool that the run does not state."""
    resolved = run.limits
    found = resolved.n_pages if resolved.n_pages is not None else pages
    estimated = found is None
    if found is None:
        try:
            card = find_device(device.removeprefix("NVIDIA "))
            known = estimated_limits(shape, card, run.tensor_parallel)
            found = known["n_pages"] * known["page_tokens"] // resolved.page_tokens
        except ValueError as error:
            raise GoldenError(
                f"{run.path}: kv_cache.num_gpu_blocks: is missing and cannot be estimated "
                f"(give --blocks): {error}"
            ) from error
    longest = int((run.prompt_tokens + run.output_tokens).max())
    limits = EngineLimits(
        max_seqs=resolved.max_seqs,
        token_budget=resolved.token_budget,
        n_pages=found,
        max_context=max(longest, min(resolved.max_context or shape.max_context, shape.max_context)),
        page_tokens=resolved.page_tokens,
        keeps_preempted=resolved.prefix_caching,
        plans_ahead=resolved.async_scheduling,
    )
    return Engine(limits=limits, pages_estimated=estimated)


def workload_of(run: GoldenRun) -> Workload:
    """Return the run's requests at their measured arrivals and lengths, ids in that order."""
    columns = (run.prompt_tokens.tolist(), run.output_tokens.tolist(), run.arrival_s.tolist())
    arrivals = tuple(
        Arrival(
            request=Request(request_id=i, prompt_tokens=prompt, max_tokens=output),
            arrival_ns=round(when * NS_PER_S),
            trace_index=0,
            output_tokens=output,
        )
        for i, (prompt, output, when) in enumerate(zip(*columns, strict=True))
    )
    return Workload(arrivals=arrivals)


def stand_in(page_tokens: int) -> tuple[TraceModel, Residual]:
    """Return a recording that says nothing: no law of ``vllm_preset`` reads it."""
    nodes = np.log(np.array([0.5, 1.0, 2.0]))
    flat = np.ones((ROWS, len(nodes)))
    levels = np.array([0.5, 0.9])
    model = TraceModel(
        curves=CurveTable.of(nodes, flat, 0.0 * flat),
        shares=ShareTable.of(levels, np.ones((ROWS, len(levels)))),
        h_cal=np.ones(ROWS),
        v_cal=np.zeros(ROWS),
        tokens=[0] * ROWS,
        slices=np.array([[0, ROWS]]),
        ends_itself=np.array([False]),
        t_cal=1.0,
        page_tokens=page_tokens,
        layers=1,
        kv_heads=1,
        page_unit_bytes=1,
    )
    none = np.zeros(len(levels))
    return model, Residual(coverages=levels, sigma=none, std_nats=none, bias_nats=none, samples=0)
