"""Is it stable? The drift of the number in the system, with an interval, and a plain verdict.

The number in the system is N(t): arrivals so far less those that have left, whatever way. A stable
server brings it back to its level, an overloaded one lets it grow by (arrival rate - service rate)
a second. The drift over a window is the mean of N's increments over equal batches of it, so its
estimate is (N(end) - N(begin)) / window. Under overload increments are close to independent; under
a stable load successive ones undo each other, so that the interval, which takes them as
independent, is too wide and never too narrow. Batches of all seeds count together: method of batch
means, Law and Kelton, Simulation Modeling and Analysis, section 9.5.

Arrivals must be stationary over the window: a rising rate looks like a growing queue. Requests that
admission turns away count as left, so a server that sheds its excess is stable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from controllers.core import require
from controllers.serving.ledger import NEVER, Ledger
from controllers.serving.sensors import NS_PER_S
from simulator.analysis import Interval, t_half

Stability = Literal["stable", "unstable", "undecided"]
FEWEST_REQUESTS = 200  # arrivals after the warm-up, over all seeds
LONGEST_SERVICE_SHARE = 0.1  # of the window: the mean time in service


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """When requests came, were first served and left; seconds ``[R]``, NaN for never."""

    arrival_s: np.ndarray
    first_s: np.ndarray
    finish_s: np.ndarray
    end_s: float  # of what was observed

    @classmethod
    def of(cls, ledger: Ledger, end_s: float | None = None) -> Run:
        """Read a ledger; it was watched to its last finish unless ``end_s`` says otherwise."""
        columns = [ledger.requests[f"{name}_ns"] for name in ("arrival", "first_scheduled")]
        columns.append(ledger.requests["finish_ns"])
        require(len(columns[0]) >= 1, "a verdict needs a request", requests=len(columns[0]))
        arrival, first, finish = (
            np.where(column == NEVER, np.nan, column / NS_PER_S) for column in columns
        )
        last_s = float(np.nanmax(np.concatenate([arrival, finish])))
        return cls(
            arrival_s=arrival,
            first_s=first,
            finish_s=finish,
            end_s=last_s if end_s is None else end_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityVerdict:
    """``stable``: the drift is surely below ``tolerance`` of the arrival rate; ``unstable``: it is
    surely positive; ``undecided``: neither, and ``why`` says what is missing.
    """

    verdict: Stability
    drift_share: Interval | None  # of the arrival rate; None without enough to see
    tolerance: float
    arrivals_per_s: float
    drift_per_s: float | None  # requests per second
    requests: int  # that arrived in the windows
    window_s: float  # of one run, the shortest
    runs: int
    batches: int  # over all runs
    why: str

    def line(self) -> str:
        """Say the verdict in one line."""
        if self.drift_share is None or self.drift_share.half is None:
            return f"{self.verdict}: {self.why}"
        drift, half = 100 * self.drift_share.mean, 100 * self.drift_share.half
        text = f"{self.verdict}: the queue drifts by {drift:+.2f} +- {half:.2f} % of the arrivals"
        return f"{text} over {self.requests} requests in {self.runs} run(s); {self.why}"

    def to_json(self) -> dict[str, object]:
        """Return every field."""
        return asdict(self)


def stability(
    runs: Sequence[Run],
    *,
    warmup_share: float = 0.25,
    tolerance: float = 0.02,
    batches: int = 20,
) -> StabilityVerdict:
    """Judge runs of one system, one per seed, by the drift of their number in the system.

    Each window begins after ``warmup_share`` of the arrivals' span and ends with the last arrival
    (after it a queue only drains) or where the run was cut. ``tolerance`` is the drift, as a share
    of the arrival rate, that counts as none: a load 2 % above capacity drifts by .0196.
    """
    require(len(runs) >= 1, "a verdict needs a run", runs=len(runs))
    require(0.0 <= warmup_share < 1.0, "warmup_share must lie in [0, 1)", warmup_share=warmup_share)
    require(0.0 < tolerance < 1.0, "tolerance must lie in (0, 1)", tolerance=tolerance)
    require(batches >= 5, "batches must be >= 5", batches=batches)
    windows = [_window(run, warmup_share) for run in runs]
    spans = [end - begin for begin, end in windows]
    came = [_between(run.arrival_s, *window) for run, window in zip(runs, windows, strict=True)]
    rate = sum(came) / sum(spans) if min(spans) > 0.0 else 0.0
    why = _too_short(runs, windows, sum(came))
    steps = [] if why else [_increments(r, *w, batches) for r, w in zip(runs, windows, strict=True)]
    per_s = np.concatenate([*steps, np.zeros(0)])
    share = None
    verdict: Stability = "undecided"
    if not why:
        half = t_half(float(per_s.std(ddof=1)) / math.sqrt(len(per_s)), len(per_s))
        share = Interval(float(per_s.mean()) / rate, half / rate)
        verdict, why = _judge(share.mean, half / rate, tolerance)
    return StabilityVerdict(
        verdict=verdict,
        drift_share=share,
        tolerance=tolerance,
        arrivals_per_s=rate,
        drift_per_s=None if share is None else share.mean * rate,
        requests=sum(came),
        window_s=min(spans),
        runs=len(runs),
        batches=len(per_s),
        why=why,
    )


def _judge(mean: float, half: float, tolerance: float) -> tuple[Stability, str]:
    if mean - half > 0.0:
        return "unstable", "the interval lies above zero"
    if mean + half < tolerance:
        return "stable", f"the interval lies below {tolerance:.3g}"
    needed = (half / tolerance) ** 2
    return "undecided", f"a longer run is needed, some {max(2.0, needed):.0f} times as long"


def _window(run: Run, warmup_share: float) -> tuple[float, float]:
    first, last = float(run.arrival_s.min()), float(run.arrival_s.max())
    return first + warmup_share * (last - first), min(last, run.end_s)


def _too_short(runs: Sequence[Run], windows: list[tuple[float, float]], came: int) -> str:
    """Return why the runs are too short for any verdict; "" if they are not."""
    if came < FEWEST_REQUESTS:
        return f"{came} requests arrived after the warm-up, {FEWEST_REQUESTS} are needed"
    for run, (begin, end) in zip(runs, windows, strict=True):
        service = run.finish_s - run.first_s
        inside = service[(run.first_s >= begin) & (run.first_s <= end) & np.isfinite(service)]
        if len(inside) == 0:
            return "no request began and ended after the warm-up"
        if inside.mean() > LONGEST_SERVICE_SHARE * (end - begin):
            share = inside.mean() / (end - begin)
            most = f"{LONGEST_SERVICE_SHARE} is the most"
            return f"a request is in service for {share:.2f} of the window, {most}"
    return ""


def _increments(run: Run, begin: float, end: float, batches: int) -> np.ndarray:
    """Return the growth of the number in the system over each batch, requests per second."""
    edges = np.linspace(begin, end, batches + 1)
    came = np.searchsorted(np.sort(run.arrival_s), edges, side="right")
    gone = np.sort(run.finish_s[np.isfinite(run.finish_s)])
    inside = came - np.searchsorted(gone, edges, side="right")
    return np.diff(inside) / np.diff(edges)


def _between(times: np.ndarray, begin: float, end: float) -> int:
    return int(((times > begin) & (times <= end)).sum())
