"""Time calls on a device: medians over graph replays, warm, on inputs larger than the cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from reports.gpu.place import Place

Call = Callable[[], object]
WARMUP = 3
LEAST, MOST = 5, 200  # timed repeats
BEATS_CACHE = 256 << 20  # bytes: five times an H100's L2, four times an H200's
SETTLED_S = 5e-4  # of device time in one replay: launches are then lost in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of one call: median and the middle 80 per cent of the repeats."""

    median_s: float
    low_s: float
    high_s: float
    repeats: int
    graph: bool  # a captured graph was replayed

    def fields(self) -> dict[str, Any]:
        """Return the fields of a row."""
        return {
            "median_s": self.median_s,
            "low_s": self.low_s,
            "high_s": self.high_s,
            "repeats": self.repeats,
            "graph": self.graph,
        }


def time_calls(
    calls: Sequence[Call], place: Place, *, seconds: float = 0.25, graph: bool = True
) -> Timing:
    """Time one call, taken over ``calls``, which do the same on different inputs.

    On CUDA all calls go into one graph, as often as it takes for its launch not to count, and
    events time its replays; a call that cannot be captured is timed launch by launch.
    """
    if not place.cuda:
        return _on_host(calls, seconds)
    for _ in range(WARMUP):
        for call in calls:
            call()
    torch.cuda.synchronize()
    once = _between_events(lambda: _all(calls, 1))
    rounds = max(1, round(SETTLED_S / max(once, 1e-7)))
    launch, captured = _captured(calls, rounds) if graph else (None, False)
    replay = launch or (lambda: _all(calls, rounds))
    replay()
    torch.cuda.synchronize()
    per_replay = max(_between_events(replay), 1e-7)
    repeats = int(min(MOST, max(LEAST, seconds / per_replay)))
    spent = [_between_events(replay) / (rounds * len(calls)) for _ in range(repeats)]
    return _summary(spent, graph=captured)


def time_steps(step: Call, count: int, place: Place, *, graph: bool) -> Timing:
    """Time ``count`` calls that each change the device's state; ``graph`` says what they are."""
    if not place.cuda:
        spent = []
        for _ in range(count):
            started = perf_counter()
            step()
            spent.append(perf_counter() - started)
        return _summary(spent, graph=False)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    marks[0].record()
    for mark in marks[1:]:  # nothing waits: the device is never idle between two steps
        step()
        mark.record()
    torch.cuda.synchronize()
    spent = [a.elapsed_time(b) * 1e-3 for a, b in itertools.pairwise(marks)]
    return _summary(spent, graph=graph)


def copies_for(bytes_per_call: int, most: int = 16) -> int:
    """Return how many input sets defeat the cache between two uses of one."""
    return max(1, min(most, -(-BEATS_CACHE // max(1, bytes_per_call))))


def _all(calls: Sequence[Call], rounds: int) -> None:
    for _ in range(rounds):
        for call in calls:
            call()


def _captured(calls: Sequence[Call], rounds: int) -> tuple[Call | None, bool]:
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            _all(calls, rounds)
    except RuntimeError:  # it syncs or allocates outside torch
        torch.cuda.synchronize()
        return None, False
    return graph.replay, True


def _between_events(call: Call) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) * 1e-3


def _on_host(calls: Sequence[Call], seconds: float) -> Timing:
    for call in calls:
        call()
    spent, started = [], perf_counter()
    while len(spent) < 2 or (len(spent) < MOST and perf_counter() - started < seconds):
        before = perf_counter()
        _all(calls, 1)
        spent.append((perf_counter() - before) / len(calls))
    return _summary(spent, graph=False)


def _summary(spent: Sequence[float], *, graph: bool) -> Timing:
    low, median, high = np.percentile(spent, (10, 50, 90))
    return Timing(
        median_s=float(median),
        low_s=float(low),
        high_s=float(high),
        repeats=len(spent),
        graph=graph,
    )
