"""Whether a service level is met: by the recording as it is, and by resamples of it.

``meets``: the recording meets every clause, and the far edge of the interval of resamples is
inside it too. ``misses``: the recording breaks a clause, or the whole interval lies outside.
Between the two is ``undecided``, which a plan counts as not met, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from simulator.plan_figures import Figures, Spread, another_hour
from simulator.slo import GOODPUT, Clause, Slo

SHARES = (GOODPUT, "kv_pages_kept_share", "coverage_mean", "utilisation")
Status = Literal["meets", "undecided", "misses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One clause, held against the recording and its resamples."""

    clause: Clause
    recorded: float | None
    spread: Spread | None

    @property
    def status(self) -> Status:
        """How the clause stands; a figure that was not measured misses it."""
        if self.recorded is None or self.spread is None or not self.clause.holds(self.recorded):
            return "misses"
        near, far = self._edges(self.spread)
        if self.clause.holds(far):
            return "meets"
        return "undecided" if self.clause.holds(near) else "misses"

    @property
    def slack(self) -> float | None:
        """How far the worst case is inside the bound, as a share of it; negative outside."""
        if self.recorded is None or self.spread is None:
            return None
        worst = self._edges(self.spread)[1]
        return min(self.clause.slack(self.recorded), self.clause.slack(worst))

    def line(self) -> str:
        """Say how the clause stands and by how much."""
        show = self.clause.shown
        if self.recorded is None or self.spread is None or self.slack is None:
            return f"{self.clause.text}: not measured"
        low, high = self.spread.low, self.spread.high
        over = "" if low is None or high is None else f", resampled {show(low)} to {show(high)}"
        far = f"{abs(100 * self.slack):.3g} % {'inside' if self.slack > 0 else 'outside'}"
        return f"{self.clause.text}: {self.status}; recorded {show(self.recorded)}{over}: {far}"

    def to_json(self) -> dict[str, object]:
        """Return the clause and how it stands."""
        return {
            "clause": self.clause.text,
            "metric": self.clause.metric,
            "bound": self.clause.bound,
            "status": self.status,
            "recorded": self.recorded,
            "other_hours": None if self.spread is None else self.spread.to_json(),
            "slack_share": self.slack,
        }

    def _edges(self, spread: Spread) -> tuple[float, float]:
        """Return the kind and the unkind edge of the interval."""
        low = spread.centre if spread.low is None else spread.low
        high = spread.centre if spread.high is None else spread.high
        return (low, high) if self.clause.upper else (high, low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All clauses at one load on one number of servers."""

    clauses: tuple[Judged, ...]

    @property
    def status(self) -> Status:
        """The worst of the clauses."""
        found = {one.status for one in self.clauses}
        return "misses" if "misses" in found else "undecided" if "undecided" in found else "meets"

    @property
    def met(self) -> bool:
        """Whether a plan may rest on it."""
        return self.status == "meets"

    @property
    def excess(self) -> float:
        """How far the worst clause is beyond its bound, in log of the figure: < 0 inside."""
        slack = self.worst.slack
        if slack is None:
            return math.inf
        found = math.log(max(1.0 - slack, 1e-9))
        return min(found, -1e-12) if self.met else max(found, 0.0)  # a bound may itself be met

    @property
    def worst(self) -> Judged:
        """The clause with the least slack: the one that binds."""
        return min(self.clauses, key=lambda one: -math.inf if one.slack is None else one.slack)

    def to_json(self) -> dict[str, object]:
        """Return the verdict and its clauses."""
        return {"status": self.status, "clauses": [one.to_json() for one in self.clauses]}


def judge(slo: Slo, recorded: Figures, draws: Sequence[Figures]) -> Verdict:
    """Hold a service level against the recording's figures and those of its resamples."""
    return Verdict(
        clauses=tuple(
            Judged(
                clause=clause,
                recorded=recorded.get(clause.metric),
                spread=spread_of(clause.metric, draws),
            )
            for clause in slo.clauses
        )
    )


def spread_of(name: str, draws: Sequence[Figures]) -> Spread | None:
    """Return a figure's spread over draws, within what the figure can be.

    Times, costs and figures per token are taken in log; shares are cut at 1, counts at 0.
    """
    most = 1.0 if name in SHARES else math.inf
    values = [draw.get(name) for draw in draws]
    return another_hour(values, in_log=_in_log(name), least=0.0, most=most)


def spreads(draws: Sequence[Figures]) -> Mapping[str, Spread | None]:
    """Return the spread of every figure over draws."""
    names = dict.fromkeys(name for draw in draws for name in draw)
    return {name: spread_of(name, draws) for name in names}


def _in_log(name: str) -> bool:
    stem = name.split(".")[0]
    return stem.endswith(("_s", "_nats", "_per_million_tokens"))
