"""Above capacity: is it called unstable, and does the queue grow as fast as simulated?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.validation.live_observed import Observed
from simulator.analysis import Interval, interval
from simulator.verdict import Run, stability

WARMUP_SHARE = 0.25  # of the arrivals' span, in which the batch fills


def growth_of(runs: Sequence[Observed], simulated: Sequence[Observed]) -> dict[str, Any]:
    """Compare verdicts and growth of the queue; ``simulated[i]`` saw the arrivals of ``runs[i]``.

    The growth is that of the number in the system, requests per second, from a quarter of the
    arrivals' span to the last arrival. Its difference is paired run by run, and its interval is
    Student's over runs.
    """
    live, ours = [run.watched() for run in runs], [run.watched() for run in simulated]
    measured = [growth_per_s(run) for run in live]
    predicted = [growth_per_s(run) for run in ours]
    gap = interval([b - a for a, b in zip(measured, predicted, strict=True)])
    verdicts = [stability(watched, warmup_share=WARMUP_SHARE) for watched in (live, ours)]
    return {
        "verdict_measured": verdicts[0].to_json(),
        "verdict_simulated": verdicts[1].to_json(),
        "lines": [verdict.line() for verdict in verdicts],
        "agree": verdicts[0].verdict == verdicts[1].verdict,
        "growth_measured_per_s": _shown(interval(measured)),
        "growth_simulated_per_s": _shown(interval(predicted)),
        "growth_difference_per_s": _shown(gap),
        "runs": [{"measured": a, "simulated": b} for a, b in zip(measured, predicted, strict=True)],
    }


def growth_per_s(run: Run) -> float:
    """Return how fast the number in the system grew, requests per second."""
    first, last = float(run.arrival_s.min()), float(run.arrival_s.max())
    begin = first + WARMUP_SHARE * (last - first)
    inside = [
        int((run.arrival_s <= at).sum()) - int((run.finish_s <= at).sum()) for at in (begin, last)
    ]
    return (inside[1] - inside[0]) / (last - begin)


def queue_series(run: Run, points: int = 80) -> dict[str, list[float]]:
    """Return the number in the system at equal steps from first arrival to last, for a figure."""
    at = np.linspace(float(run.arrival_s.min()), float(run.arrival_s.max()), points)
    came = np.searchsorted(np.sort(run.arrival_s), at, side="right")
    gone = np.searchsorted(np.sort(run.finish_s), at, side="right")
    return {"t_s": (at - at[0]).round(3).tolist(), "inside": (came - gone).tolist()}


def _shown(found: Interval | None) -> dict[str, float | None] | None:
    return None if found is None else {"mean": found.mean, "half": found.half}
