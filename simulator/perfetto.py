"""A run as a Chrome trace-event file, for ui.perfetto.dev and chrome://tracing.

One process per replica. Its thread "steps" has a slice per step; every request is an async slice
with its phases inside; counters show queue, residents, KV, entropy, temperature and coverage.
Timestamps are microseconds, exact to the nanosecond. The format: "Trace Event Format" by Google's
trace viewer authors; complete (X), nestable async (b, e), counter (C) and metadata (M) events.

Files stay bounded. Beyond ``max_steps`` steps, runs of successive ones share a slice, whose
numbers are their sums; beyond ``max_requests``, an even sample of requests is drawn; a counter
with more than ``max_points`` points keeps the lowest and the highest of each of equal groups, at
their own times. What was left out stands in ``otherData``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core import require
from controllers.serving.decisions import DecisionRow
from controllers.serving.ledger import NEVER, Ledger
from simulator.perfetto_phases import occupancy, phases_of, turns_of
from traces.atomic import atomic_path
from traces.console import check_target as check_place

Event = dict[str, Any]

SUFFIX = ".json"
STEPS_LANE, REQUESTS_LANE = 1, 2  # thread ids
NAMED_REQUESTS = 300  # beyond, all share one name, and the viewer packs them into few rows
_SUMS = ("n_decode", "prompt_tokens", "page_units_read", "page_units_dense", "preempted")


def check_perfetto_target(path: Path) -> None:
    """Raise where a trace cannot be written, before the run that would fill it."""
    require(path.suffix == SUFFIX, f"perfetto must end in {SUFFIX}", path=str(path))
    check_place("perfetto", path)


def write_perfetto(
    path: Path,
    ledgers: Ledger | Sequence[Ledger],
    *,
    decisions: Iterable[DecisionRow] | None = None,
    names: Sequence[str] | None = None,
    about: dict[str, Any] | None = None,
    max_steps: int = 20_000,
    max_requests: int = 5_000,
    max_points: int = 4_000,
) -> Path:
    """Write the trace of ``ledgers``, one per replica, to ``path``, whole or not at all.

    With ``decisions`` (rows of a decision log, replicas numbered as the ledgers are) the time that
    preemption took has slices of its own; without, it lies inside the others. ``names`` are those
    of the replicas; ``about`` is put beside the events. Bounds are per replica. Ledgers need step
    rows; without token rows there are no counters of entropy, temperature and coverage.
    """
    check_perfetto_target(path)
    for name, bound in (("max_steps", max_steps), ("max_requests", max_requests)):
        require(bound >= 1, f"{name} must be >= 1", **{name: bound})
    require(max_points >= 2, "max_points must be >= 2", max_points=max_points)
    parts = [ledgers] if isinstance(ledgers, Ledger) else list(ledgers)
    for part in parts:
        require(part.record_steps, "a trace needs ledgers with step rows", record_steps=False)
    titles = [f"replica {i}" for i in range(len(parts))] if names is None else list(names)
    require(len(titles) == len(parts), "names must be one per ledger", names=len(titles))
    turns = None if decisions is None else turns_of(decisions)
    left_out: dict[str, int] = {"steps_merged": 0, "requests_omitted": 0, "points_omitted": 0}
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[')
        separator = "\n"
        for index, (ledger, title) in enumerate(zip(parts, titles, strict=True)):
            lanes = _Lanes(ledger, index, None if turns is None else turns.get(index, {}), left_out)
            for event in lanes.events(title, max_steps, max_requests, max_points):
                file.write(separator + json.dumps(event, separators=(",", ":"), allow_nan=False))
                separator = ",\n"
        told = "decision log" if turns is not None else "ledger: preemption is not dated"
        other = {**(about or {}), "request_phases_from": told, **left_out}
        file.write('\n],"otherData":' + json.dumps(other, allow_nan=False) + "}\n")
    return path


class _Lanes:
    """The events of one replica."""

    def __init__(
        self,
        ledger: Ledger,
        index: int,
        turns: dict[int, list[tuple[str, int]]] | None,
        left_out: dict[str, int],
    ) -> None:
        self._ledger, self._pid = ledger, index + 1  # viewers take process 0 for the idle one
        self._left_out = left_out
        self._phases = phases_of(ledger, turns)

    def events(
        self, title: str, max_steps: int, max_requests: int, max_points: int
    ) -> Iterator[Event]:
        """Yield names, steps, counters, requests."""
        yield self._meta("process_name", name=title)
        yield self._meta("process_sort_index", sort_index=self._pid)
        for lane, name in ((STEPS_LANE, "steps"), (REQUESTS_LANE, "requests")):
            yield {**self._meta("thread_name", name=name), "tid": lane}
        yield from self._steps(max_steps)
        for name, unit, times, values in self._counters():
            yield from self._counter(name, unit, times, values, max_points)
        yield from self._requests(max_requests)

    def _meta(self, kind: str, **args: object) -> Event:
        return {"ph": "M", "name": kind, "pid": self._pid, "tid": 0, "ts": 0, "args": args}

    def _steps(self, most: int) -> Iterator[Event]:
        steps = self._ledger.steps
        n = len(steps)
        if n == 0:
            return
        together = -(-n // most)
        starts = np.arange(0, n, together)
        last = np.append(starts[1:], n) - 1
        self._left_out["steps_merged"] += n - len(starts)
        begin, duration = steps["now_ns"], steps["duration_ns"]
        end = (begin + duration)[last].tolist()
        busy = np.add.reduceat(duration, starts).tolist()
        sums = {name: np.add.reduceat(steps[name], starts).tolist() for name in _SUMS}
        first, pages = steps["step"][starts].tolist(), steps["pages_held"][last].tolist()
        counts = (last - starts + 1).tolist()
        for i, begin_ns in enumerate(begin[starts].tolist()):
            counted = {name: values[i] for name, values in sums.items()}
            kind = "decode" if counted["prompt_tokens"] == 0 else "prefill"
            kind = "mixed" if kind == "prefill" and counted["n_decode"] else kind
            more = {} if counts[i] == 1 else {"steps": counts[i], "busy_us": _us(busy[i])}
            yield {
                "ph": "X",
                "name": kind,
                "cat": "step",
                "pid": self._pid,
                "tid": STEPS_LANE,
                "ts": _us(begin_ns),
                "dur": _us(end[i] - begin_ns),
                "args": {"step": first[i], **counted, "pages_held": pages[i], **more},
            }

    def _counters(self) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
        """Yield name, unit, times in ns and values of each counter."""
        moments, waiting, inside = occupancy(self._phases)
        yield "queue", "requests waiting", moments, waiting
        yield "running", "requests in", moments, inside
        steps = self._ledger.steps
        begin, end = steps["now_ns"], steps["now_ns"] + steps["duration_ns"]
        gone = None not in self._ledger.reasons
        idle = np.append(end[:-1] < begin[1:], gone)[: len(end)]  # nobody is there: nothing held
        times = np.concatenate([begin, end[idle]])
        held = np.concatenate([steps["pages_held"], np.zeros(int(idle.sum()), np.int64)])
        order = np.argsort(times, kind="stable")
        yield "KV held", "pages", times[order], held[order]
        dense = steps["page_units_dense"]
        kept = steps["page_units_read"][dense > 0] / dense[dense > 0]
        yield "KV read by decode", "share of pages", begin[dense > 0], kept
        yield from self._of_tokens()

    def _of_tokens(self) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
        """Yield means over the tokens of each step, at its end; greedy tokens count as T = 1."""
        tokens = self._ledger.tokens
        if len(tokens) == 0:
            return
        moments, step = np.unique(tokens["now_ns"], return_inverse=True)
        count = np.bincount(step)
        for name, unit, values in (
            ("mean entropy", "nats at T", tokens["h_applied"]),
            ("mean temperature", "T", np.exp(tokens["command"].astype(np.float64))),
            ("mean coverage", "attention mass", tokens["coverage"]),
        ):
            yield name, unit, moments, np.bincount(step, weights=values) / count

    def _counter(
        self, name: str, unit: str, times: np.ndarray, values: np.ndarray, most: int
    ) -> Iterator[Event]:
        kept = _extremes(values, most)
        self._left_out["points_omitted"] += len(values) - len(kept)
        for when_ns, value in zip(times[kept].tolist(), values[kept].tolist(), strict=True):
            if math.isfinite(value):
                shown = value if isinstance(value, int) else float(f"{value:.6g}")
                yield {
                    "ph": "C",
                    "name": name,
                    "pid": self._pid,
                    "tid": 0,
                    "ts": _us(when_ns),
                    "args": {unit: shown},
                }

    def _requests(self, most: int) -> Iterator[Event]:
        ledger, n = self._ledger, len(self._phases)
        shown = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)).tolist()
        self._left_out["requests_omitted"] += n - len(shown)
        names = ("request_id", "prompt_tokens", "max_tokens", "tokens", "preemptions")
        columns = {name: ledger.requests[name].tolist() for name in names}
        for row in shown:
            args = {name: values[row] for name, values in columns.items()}
            request_id, reason = args["request_id"], ledger.reasons[row] or "unfinished"
            first_ns = ledger.requests.columns["first_token_ns"][row]
            if first_ns != NEVER:
                args["ttft_us"] = _us(first_ns - ledger.requests.columns["arrival_ns"][row])
            title = f"request {request_id}" if n <= NAMED_REQUESTS else "request"
            phases = self._phases[row]
            mark = {"cat": "request", "id": f"{self._pid}:{request_id}"}
            yield self._async("b", title, phases[0].begin_ns, mark, {**args, "reason": reason})
            for phase in phases:
                yield self._async("b", phase.name, phase.begin_ns, mark, {"request_id": request_id})
                yield self._async("e", phase.name, phase.end_ns, mark)
            yield self._async("e", title, phases[-1].end_ns, mark)

    def _async(
        self, ph: str, name: str, when_ns: int, mark: dict[str, str], args: Event | None = None
    ) -> Event:
        event = {"ph": ph, "name": name, **mark, "pid": self._pid, "tid": REQUESTS_LANE}
        return {**event, "ts": _us(when_ns), **({} if args is None else {"args": args})}


def _us(ns: int) -> float:
    """Microseconds as the nearest float64: exact to the nanosecond for more than a day."""
    return ns // 1000 if ns % 1000 == 0 else ns / 1000


def _extremes(values: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most ``most`` values: of each group the first lowest and the first highest."""
    n = len(values)
    if n <= most:
        return np.arange(n)
    groups = np.array_split(np.arange(n), most // 2)
    return np.unique([g[pick(values[g])] for g in groups for pick in (np.argmin, np.argmax)])
