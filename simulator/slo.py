"""Service levels: ``ttft_p99<1.5s,tpot_p95<40ms`` as clauses that a measured run is held against.

A clause is ``<latency>_<stat><value><unit>`` or ``goodput>share``. Latencies: ``ttft`` (arrival to
first token), ``tpot`` (time per further token, first excluded), ``itl`` (gap between successive
tokens, every gap counts alike), ``e2e`` (arrival to last token). Goodput is the share of all
requests that complete within the thresholds that the ttft and tpot clauses name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LATENCIES = ("ttft", "tpot", "itl", "e2e")
STATS = ("mean", "p50", "p90", "p95", "p99")
UNITS = {"s": 1.0, "ms": 1e-3}
GOODPUT = "goodput_share"

_NAME = re.compile(r"\s*([a-z0-9]+)_([a-z0-9]+)\s*(<=?)\s*([^\s<>]+?)\s*", re.IGNORECASE)
_SHARE = re.compile(r"\s*goodput\s*(>=?)\s*([^\s<>%]+)\s*(%?)\s*", re.IGNORECASE)
_VALUE = re.compile(r"([0-9.eE+-]+)(ms|s)")
EXAMPLE = "an SLO reads ttft_p99<1.5s,tpot_p95<40ms,goodput>0.99"


class SloError(ValueError):
    """A service level that cannot be parsed; one line that names the clause."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One bound on one figure of a run."""

    text: str  # as the user wrote it
    metric: str  # as ``figures.figures`` names it: "ttft_s.p99" or "goodput_share"
    bound: float  # seconds, or a share
    upper: bool  # whether the figure must stay below the bound

    def slack(self, value: float) -> float:
        """Return how far ``value`` is inside the bound, as a share of it; negative outside."""
        inside = self.bound - value if self.upper else value - self.bound
        return inside / self.bound

    def shown(self, value: float) -> str:
        """Return ``value`` in the unit of the clause."""
        if not self.upper:
            return f"{value:.4g}"
        return f"{1e3 * value:.4g} ms" if "ms" in self.text else f"{value:.4g} s"


@dataclass(frozen=True, slots=True)
class Slo:
    """All clauses; every one must hold."""

    clauses: tuple[Clause, ...]

    @property
    def text(self) -> str:
        """The service level as it was written, without blanks."""
        return ",".join(clause.text for clause in self.clauses)

    def threshold_s(self, latency: str) -> float | None:
        """Return the tightest bound on any statistic of ``latency``, seconds: goodput's measure."""
        wanted = [c.bound for c in self.clauses if c.metric.startswith(f"{latency}_s.")]
        return min(wanted) if wanted else None


def parse_slo(text: str) -> Slo:
    """Return the service level written in ``text``; ``SloError`` names the clause that is wrong."""
    parts = [part for part in text.split(",") if part.strip()]
    if not parts:
        raise SloError(f"slo must hold a clause; got {text!r} ({EXAMPLE})")
    clauses = tuple(_clause(part) for part in parts)
    names = [clause.metric for clause in clauses]
    for clause in clauses:
        if names.count(clause.metric) > 1:
            raise SloError(f"slo: {clause.text!r}: {clause.metric} is bound twice")
    slo = Slo(clauses)
    thresholds = slo.threshold_s("ttft"), slo.threshold_s("tpot")
    if GOODPUT in names and thresholds == (None, None):
        raise SloError("slo: 'goodput' needs a ttft or a tpot clause to say what is good")
    return slo


def _clause(part: str) -> Clause:
    text = "".join(part.split())
    share = _SHARE.fullmatch(part)
    if share is not None:
        return Clause(text, GOODPUT, _share(text, share[2], in_percent=bool(share[3])), upper=False)
    found = _NAME.fullmatch(part)
    if found is None:
        raise SloError(f"slo: {text!r} is not metric_stat<value unit ({EXAMPLE})")
    latency, stat = found[1].lower(), found[2].lower()
    if latency not in LATENCIES:
        raise SloError(f"slo: {text!r}: metric must be one of {', '.join(LATENCIES)}, or goodput")
    if stat not in STATS:
        raise SloError(f"slo: {text!r}: statistic must be one of {', '.join(STATS)}")
    if (latency, stat) == ("itl", "p90"):
        raise SloError(f"slo: {text!r}: itl has mean, p50, p95 and p99")
    return Clause(text, f"{latency}_s.{stat}", _seconds(text, found[4]), upper=True)


def _seconds(text: str, written: str) -> float:
    found = _VALUE.fullmatch(written)
    if found is None:
        raise SloError(f"slo: {text!r}: value must be a number with unit s or ms; got {written!r}")
    value = _number(text, found[1]) * UNITS[found[2]]
    if not (math.isfinite(value) and value > 0.0):
        raise SloError(f"slo: {text!r}: value must be finite and > 0")
    return value


def _share(text: str, written: str, *, in_percent: bool) -> float:
    value = _number(text, written) * (0.01 if in_percent else 1.0)
    if not 0.0 < value <= 1.0:
        raise SloError(f"slo: {text!r}: a share must lie in (0, 1]")
    return value


def _number(text: str, written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise SloError(f"slo: {text!r}: {written!r} is not a number") from None
