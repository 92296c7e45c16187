"""What a page about simulations is drawn from: runs of one workload, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controllers.core import require
from controllers.serving.decisions import DecisionRow
from controllers.serving.ledger import Ledger
from controllers.serving.metrics import Metric
from reports.style import COLOURS

# For names that have no colour of their own; told apart under colour blindness, like the others.
SPARE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One run: what it is called, and what it left behind."""

    name: str  # of the preset, as a rule
    ledgers: tuple[Ledger, ...]  # one per server
    ledger: Ledger  # the whole, one row per request
    metrics: Mapping[str, Metric]
    colour: str
    groups: Mapping[str, Mapping[str, Mapping[str, Metric]]]  # by kind, "class" or "tenant"
    verdicts: Mapping[str, str] = field(default_factory=dict)  # by what was judged, one line each
    caveats: tuple[str, ...] = ()
    pages: int | None = None  # in all pools together
    decisions: tuple[DecisionRow, ...] = ()
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationEvidence:
    """Runs of one workload under one name each, and what a reader needs to judge them."""

    title: str
    shown: tuple[Shown, ...]  # the first is what the others are compared with
    config: Mapping[str, Any]
    provenance: Mapping[str, str]
    target_nats: float | None = None
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None

    def __post_init__(self) -> None:
        require(len(self.shown) >= 1, "a page needs a run", shown=0)
        names = [one.name for one in self.shown]
        require(len(set(names)) == len(names), "names of runs must be distinct", names=names)

    @property
    def footer(self) -> str:
        """What every figure rests on."""
        first = self.shown[0]
        n, servers = len(first.ledger.requests), len(first.ledgers)
        return f"one simulated run each, {n:,} requests, {servers} server(s)"


def colours(names: tuple[str, ...]) -> dict[str, str]:
    """Return a colour for each name: a preset's own, or one that nobody else has."""
    found = {name: COLOURS[name] for name in names if name in COLOURS}
    spare = [one for one in SPARE if one not in found.values()] or list(SPARE)
    others = [name for name in names if name not in found]
    return {**found, **{name: spare[i % len(spare)] for i, name in enumerate(others)}}


def line_widths(n: int) -> list[float]:
    """Return widths of ``n`` lines drawn one over another: where they coincide, all show."""
    return [1.4] if n == 1 else [3.4 - 2.4 * i / (n - 1) for i in range(n)]
