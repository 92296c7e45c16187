"""Measured beside simulated: every statistic with the spread of repeated runs, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from reports.validation.golden import PERCENTILES_FROM, STATS
from reports.validation.live_observed import Observed
from reports.validation.live_store import Measured
from simulator.analysis import interval

BOUND_PCT = 5.0  # of the bar: simulated against measured
WIDEST_PCT = 10.0  # half-width from which repeats cannot tell
FEWEST_REPEATS = 5
BAR = ("ttft_s", "tpot_s", "e2e_s")  # mean, p50 and p95 of these are judged
Verdict = Literal["inside", "outside", "undecided", "not judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One statistic of one preset at one load."""

    metric: str
    stat: str
    measured: float  # mean over repeats
    half: float | None  # of its 95 % interval over repeats; None for one run
    simulated: float | None  # None: only a client sees it
    diff_pct: float | None
    verdict: Verdict

    @property
    def in_bar(self) -> bool:
        """Whether the bar judges it."""
        return self.verdict != "not judged"

    def to_json(self) -> dict[str, Any]:
        """Return every field by name."""
        return asdict(self)


def rows_of(runs: Sequence[Measured], simulated: Observed) -> list[Row]:
    """Return the table of one preset at one load; ``runs`` are its repeats."""
    live = [_statistics(run.seen) for run in runs]
    ours = _statistics(simulated)
    enough = len(simulated.requests["request_id"]) >= PERCENTILES_FROM
    found = []
    for (metric, stat), value in ours.items():
        judged = metric in BAR and (stat != "p99" or enough)
        found.append(_row(metric, stat, [one[metric, stat] for one in live], value, judged=judged))
    for stat, of in STATS.items():
        seen = [of(run.client_ttft_s) for run in runs]
        found.append(_row("client_ttft_s", stat, seen, None, judged=False))
    return found


def judge(measured: float, half: float | None, simulated: float, repeats: int) -> Verdict:
    """Say whether a simulated statistic is right (DESIGN section 9, "fidelity, ours").

    Inside: within 5 %, or within the half-width of five repeats or more, where that is 10 % at
    most. Wider repeats cannot tell, nor can fewer.
    """
    if abs(simulated - measured) <= BOUND_PCT / 100.0 * abs(measured):
        return "inside"
    if half is None or repeats < FEWEST_REPEATS or half > WIDEST_PCT / 100.0 * abs(measured):
        return "undecided"
    return "inside" if abs(simulated - measured) <= half else "outside"


def _row(
    metric: str, stat: str, live: Sequence[float], simulated: float | None, *, judged: bool
) -> Row:
    spread = interval(list(live))
    assert spread is not None, "every run has every statistic"
    diff = None
    if simulated is not None and spread.mean != 0.0:
        diff = 100.0 * (simulated / spread.mean - 1.0)
    verdict: Verdict = "not judged"
    if judged and simulated is not None:
        verdict = judge(spread.mean, spread.half, simulated, len(live))
    return Row(
        metric=metric,
        stat=stat,
        measured=spread.mean,
        half=spread.half,
        simulated=simulated,
        diff_pct=diff,
        verdict=verdict,
    )


def _statistics(seen: Observed) -> dict[tuple[str, str], float]:
    found = {
        (metric, stat): of(values)
        for metric, values in seen.latencies().items()
        for stat, of in STATS.items()
    }
    return found | {(metric, "total"): value for metric, value in seen.totals().items()}


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many judged rows have each verdict."""
    names, n = np.unique([row.verdict for row in rows if row.in_bar], return_counts=True)
    return dict(zip(names.tolist(), n.tolist(), strict=True))
