"""Queues with known answers, served by the simulator; and intervals to hold them against."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from controllers.presets import get_preset
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator import Arrival, ClusterConfig, Workload

MODES = ("online", "steps", "macro")
MS = 1_000_000
EVEN = StepLaw(  # every step takes a millisecond
    base_s=1e-3,
    per_decode_s=0.0,
    per_kv_token_s=0.0,
    per_prompt_token_s=0.0,
    per_prompt_square_s=0.0,
)
PER_TOKEN = dataclasses.replace(EVEN, base_s=0.0, per_prompt_token_s=1e-6)  # of the prompt
T_19 = 2.093  # Student's t, 19 degrees, 97.5 %


def one_by_one(mode: str, law: StepLaw, **changes: int) -> ClusterConfig:
    """A server that serves one request at a time, whatever its length."""
    roomy = {"max_seqs": 1, "token_budget": 40_000, "n_pages": 3000, "max_context": 40_000}
    return ClusterConfig(
        preset=get_preset("baseline"),
        limits=EngineLimits(**(roomy | changes)),
        step_law=law,
        bytes_per_page_unit=4096,
        record_tokens=False,
        mode=mode,
    )


def workload(
    times_s: np.ndarray, prompts: np.ndarray, outputs: np.ndarray, recordings: int = 12
) -> Workload:
    """Requests at these times with these lengths; recordings answer in turn."""
    ns = np.rint(times_s * 1e9).astype(np.int64).tolist()
    lengths = zip(ns, prompts.tolist(), outputs.tolist(), strict=True)
    return Workload(
        arrivals=tuple(
            Arrival(
                request=Request(request_id=i, prompt_tokens=prompt, max_tokens=output),
                arrival_ns=at,
                trace_index=i % recordings,
                output_tokens=output,
            )
            for i, (at, prompt, output) in enumerate(lengths)
        )
    )


def waits_s(ledger: Ledger) -> np.ndarray:
    """Seconds from arrival to the first service, in order of arrival."""
    requests = ledger.requests
    order = np.argsort(requests["arrival_ns"], kind="stable")
    return ((requests["first_scheduled_ns"] - requests["arrival_ns"]) * 1e-9)[order]


def batch_interval(values: np.ndarray, batches: int = 20) -> tuple[float, float]:
    """Return the mean of a correlated series and the 95 % half-width of its batch means."""
    assert batches == 20, "the quantile is for 20 batches"
    kept = values[: len(values) // batches * batches]
    means = kept.reshape(batches, -1).mean(axis=1)
    return float(means.mean()), T_19 * float(means.std(ddof=1)) / batches**0.5


def erlang_c(slots: int, load: float) -> float:
    """Return the probability of waiting in an M/M/k queue; ``load`` is lambda/mu < slots."""
    blocked = 1.0
    for k in range(1, slots + 1):  # Erlang B by its recursion
        blocked = load * blocked / (k + load * blocked)
    share = load / slots
    return blocked / (1.0 - share * (1.0 - blocked))


def gaps(ledger: Ledger) -> Iterator[tuple[int, int]]:
    """Yield the idle stretches of one server between its steps, ns."""
    begins = ledger.steps["now_ns"]
    ends = begins + ledger.steps["duration_ns"]
    for end, begin in zip(ends[:-1].tolist(), begins[1:].tolist(), strict=True):
        if begin > end:
            yield end, begin
