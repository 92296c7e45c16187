"""How fast the simulator is: every row of its speed bar, each repeat a process of its own.

Requests per wall second divide by law scan and event loop; ``process_s`` is everything, from the
start of the interpreter to its exit. The first turn fills the cache of prepared traces and is
dropped.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reports.bench.rows import (
    FEWEST_REPEATS,
    BenchError,
    BenchRow,
    Measure,
    measure,
    shape_of,
    size_in,
)
from reports.bench.simulator_run import Case
from reports.bench.simulator_vidur import Vidur
from traces.text import number, table

NAME = "simulator"
MEMORY = "memory"  # variant of the line through peak memory against requests
VIDUR = "vidur"
CONV = Path("arrivals") / "azure_llm_2023_conv.csv.gz"  # below the public data
TIMEOUT_S = 1800.0
FULL, FEW = 2000, 500  # requests of the reference load, and of a quick run, which no bar judges


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a case must reach."""

    requests_per_wall_s: float = 0.0
    process_s: float = math.inf
    peak_rss_mb: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case, without the file its lengths come from."""

    case: Mapping[str, Any]
    bar: Bar = Bar()
    once: bool = False  # too long to repeat


REFERENCE = Bar(requests_per_wall_s=5000.0, process_s=1.0, peak_rss_mb=130.0)
LARGE = MappingProxyType({"replicas": 4, "rate_per_s": 16.0, "record": False})
ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "macro": Row(case={"mode": "macro"}, bar=REFERENCE),
        "steps": Row(case={"mode": "steps"}, bar=Bar(requests_per_wall_s=2000.0)),
        # Laws called at every step: on the array replica, and in the loop that also runs live.
        "online-array": Row(case={"mode": "calls"}, bar=Bar(requests_per_wall_s=500.0)),
        "online-loop": Row(case={"mode": "online"}),
        "busy": Row(case={"rate_per_s": 6.45}, bar=Bar(requests_per_wall_s=3500.0)),
        "overload": Row(
            case={"rate_per_s": 8.0, "pages": 2000}, bar=Bar(requests_per_wall_s=3500.0)
        ),
        "four": Row(case={"requests": 8000, "rate_per_s": 16.0, "replicas": 4}),
        "10k": Row(case={**LARGE, "requests": 10_000}, once=True),
        "100k": Row(case={**LARGE, "requests": 100_000}, once=True),
    }
)
LONGEST = ("10k", "100k")  # whose peaks give the memory of further requests
MEMORY_BAR_MB = 0.4  # per 1,000 further requests


def conversations() -> Path:
    """Return the public Azure conversation trace in the folder that ``ENTROPIC_DATA`` names."""
    place = os.environ.get("ENTROPIC_DATA")
    if not place:
        raise BenchError("arrivals: set ENTROPIC_DATA to the public data, or name a file")
    return Path(place) / CONV


def device() -> str:
    """Return the processor's own name and how many cores there are."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    named = next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith("model name")), None)
    return f"{named or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def run(
    arrivals: Path,
    *,
    names: Sequence[str],
    repeats: int,
    quick: bool = False,
    vidur: Vidur | None = None,
    note: Any = lambda _: None,
) -> Iterator[Measure]:
    """Check the settings, run every case in turn, and yield what was measured."""
    if repeats < FEWEST_REPEATS:
        raise BenchError(f"repeats must be >= {FEWEST_REPEATS}; got {repeats}")
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        raise BenchError(f"rows must be of {', '.join(ROWS)}; got {', '.join(unknown) or 'none'}")
    if not arrivals.is_file():
        raise BenchError(f"arrivals: no file {arrivals}; give one, or set ENTROPIC_DATA")
    cases = {name: _case(name, arrivals, quick=quick) for name in names}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    if vidur is not None:
        found[VIDUR] = []
    for turn in range(repeats + 1):
        for name, case in cases.items():
            if ROWS[name].once and turn != 1:
                continue
            note(f"simulator: turn {turn} of {repeats}, {name}")
            result = in_process(case)
            if turn:
                found[name].append(result)
        if vidur is not None:
            note(f"simulator: turn {turn} of {repeats}, vidur")
            result = vidur.run(FEW if quick else FULL)
            if turn:
                found[VIDUR].append(result)
    for name, results in found.items():
        shape = _shape(cases[name]) if name in cases else shape_of(requests=results[0]["requests"])
        yield from _measures(name, shape, results)
    if not quick:  # whose runs are shorter than what is held at once
        yield from _memory(cases, found)


def in_process(case: Case) -> dict[str, float]:
    """Run one case in a fresh interpreter; return its numbers, ``process_s`` among them."""
    command = [sys.executable, "-m", "reports.bench.simulator_run", json.dumps(asdict(case))]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    elapsed = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"simulator: the {case.mode} process failed: {last}")
    found = json.loads(done.stdout)
    if found["completed"] != case.requests:
        raise BenchError(f"simulator: {case.requests} requests, {found['completed']} completed")
    return {**found, "requests": case.requests, "process_s": elapsed}


def _case(name: str, arrivals: Path, *, quick: bool) -> Case:
    case = replace(Case(arrivals=str(arrivals)), **ROWS[name].case)
    if not quick:
        return case
    return replace(case, requests=max(FEW, case.requests // 10) if ROWS[name].once else FEW)


def _shape(case: Case) -> str:
    return shape_of(
        requests=case.requests,
        rate=f"{case.rate_per_s:g}",
        replicas=case.replicas,
        pages=case.pages,
        preset=case.preset,
    )


def _measures(name: str, shape: str, results: Sequence[Mapping[str, float]]) -> Iterator[Measure]:
    def one(metric: str, unit: str, values: Sequence[float]) -> Measure:
        return measure(NAME, name, shape, metric, unit, values)

    rates = [result["requests"] / result["serve_s"] for result in results]
    yield one("requests_per_wall_s", "1/s", rates)
    if all("serve_cpu_s" in result for result in results):
        rates = [result["requests"] / result["serve_cpu_s"] for result in results]
        yield one("requests_per_cpu_s", "1/s", rates)
    for metric, unit in (
        ("serve_s", "s"),
        ("scan_s", "s"),
        ("scan_cpu_s", "s"),
        ("process_s", "s"),
        ("peak_rss_mb", "MB"),
        ("steps", "1"),
        ("output_tokens", "1"),
        ("simulated_s", "s"),
        ("preemptions", "1"),
        ("asked_share", "1"),
    ):
        values = [result[metric] for result in results if metric in result]
        if values and all(map(math.isfinite, values)):
            yield one(metric, unit, values)


def _memory(
    cases: Mapping[str, Case], found: Mapping[str, Sequence[Mapping[str, float]]]
) -> Iterator[Measure]:
    """Yield the memory of 1,000 further requests, from two runs that differ in length alone."""
    if not all(name in cases for name in LONGEST):
        return
    short, long = (found[name][0] for name in LONGEST)
    further = (long["requests"] - short["requests"]) / 1000.0
    slope = (long["peak_rss_mb"] - short["peak_rss_mb"]) / further
    if math.isfinite(slope):
        shape = shape_of(**{"from": int(short["requests"]), "to": int(long["requests"])})
        yield measure(NAME, MEMORY, shape, "mb_per_1000_requests", "MB", [slope])


def text(rows: Sequence[BenchRow]) -> str:
    """Return a table of the cases, then a line per bar that says whether it was reached."""
    header = ("case", "requests", "per wall s", "range", "per CPU s", "scan, s", "process, s")
    header += ("peak MB", "steps", "asked")
    variants = dict.fromkeys(row.variant for row in rows)
    values = {v: {row.metric: row for row in rows if row.variant == v} for v in variants}
    lines = []
    for variant, known in values.items():
        if "requests_per_wall_s" in known:
            rate = known["requests_per_wall_s"]
            others = ("requests_per_cpu_s", "scan_s", "process_s", "peak_rss_mb")
            others += ("steps", "asked_share")
            cells = [number(known[m].median) if m in known else "-" for m in others]
            spread = f"{rate.low:,.0f}-{rate.high:,.0f}"
            size = f"{size_in(rate.shape, 'requests'):,.0f}"
            lines.append((variant, size, f"{rate.median:,.0f}", spread, *cells))
    return table(header, lines) + "\n" + "".join(f"{line}\n" for line in _verdicts(values))


def _verdicts(values: Mapping[str, Mapping[str, BenchRow]]) -> Iterator[str]:
    for variant, known in values.items():
        rate = known.get("requests_per_wall_s")
        if variant not in ROWS or rate is None:
            continue
        full = ROWS[variant].case.get("requests", FULL)
        bar = asdict(ROWS[variant].bar) if size_in(rate.shape, "requests") == full else {}
        for metric, limit in bar.items():
            if metric in known and 0.0 < limit < math.inf:
                reached = known[metric].median
                good = reached >= limit if metric == "requests_per_wall_s" else reached < limit
                sign = ">=" if metric == "requests_per_wall_s" else "<"
                word = "reached" if good else "MISSED"
                yield f"{variant}: {metric} {sign} {limit:g}: {word}, {number(reached)}"
    slope = values.get(MEMORY, {}).get("mb_per_1000_requests")
    if slope is not None:
        word = "reached" if slope.median <= MEMORY_BAR_MB else "MISSED"
        yield f"memory of 1,000 further requests <= {MEMORY_BAR_MB} MB: {word}, {slope.median:.3f}"
