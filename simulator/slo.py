"""Service levels: ``ttft_p99<1.5s,tpot_p95<=40ms`` as clauses that a measured run is held against.

A clause is ``<latency>_<stat><op><value><unit>`` or ``goodput>share``. Latencies: ``ttft`` (arrival
to first token), ``tpot`` (time per further token, first excluded), ``itl`` (gap between successive
tokens, every gap counts alike), ``e2e`` (arrival to last token). A statistic is ``mean`` or a
percentile, ``p50`` to ``p99.9`` and beyond; units are s, ms and us. ``<`` excludes the bound and
``<=`` allows it. Goodput is the share of all requests that complete within the thresholds that the
ttft and tpot clauses name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from traces.text import number

LATENCIES = ("ttft", "tpot", "itl", "e2e")
PERCENTILES = (50.0, 90.0, 95.0, 99.0)  # always measured; a clause may add others
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
GOODPUT = "goodput_share"

_CLAUSE = re.compile(r"([^<>=]*)(<=|>=|<|>|=)?(.*)")
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")
_VALUE = re.compile(r"(.*?)([a-z%µ]*)", re.IGNORECASE)
EXAMPLE = "an SLO reads ttft_p99<1.5s,tpot_p95<=40ms,goodput>0.99"


class SloError(ValueError):
    """A service level that cannot be parsed; one line that names the clause and its wrong part."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One bound on one figure of a run."""

    text: str  # as the user wrote it, without blanks
    metric: str  # as ``plan_figures.figures`` names it: "ttft_s.p99" or "goodput_share"
    bound: float  # seconds, or a share
    upper: bool  # whether the figure must stay below the bound
    strict: bool = True  # whether the bound itself is outside
    unit: str = "s"  # in which times are shown
    percentile: float | None = None  # None: a mean or a share

    def slack(self, value: float) -> float:
        """Return how far ``value`` is inside the bound, as a share of it; negative outside."""
        inside = self.bound - value if self.upper else value - self.bound
        return inside / self.bound

    def holds(self, value: float) -> bool:
        """Return whether ``value`` keeps the bound."""
        slack = self.slack(value)
        return slack > 0.0 or (slack == 0.0 and not self.strict)

    def shown(self, value: float) -> str:
        """Return ``value`` in the unit of the clause."""
        return (
            f"{number(value / UNITS[self.unit], 4)} {self.unit}" if self.upper else f"{value:.4g}"
        )


@dataclass(frozen=True, slots=True)
class Slo:
    """All clauses; every one must hold."""

    clauses: tuple[Clause, ...]

    @property
    def text(self) -> str:
        """The service level as it was written, without blanks."""
        return ",".join(clause.text for clause in self.clauses)

    @property
    def percentiles(self) -> tuple[float, ...]:
        """The percentiles that the clauses name, ascending."""
        return tuple(sorted({c.percentile for c in self.clauses if c.percentile is not None}))

    def threshold_s(self, latency: str) -> float | None:
        """Return the tightest bound on any statistic of ``latency``, seconds: goodput's measure."""
        wanted = [c.bound for c in self.clauses if c.metric.startswith(f"{latency}_s.")]
        return min(wanted) if wanted else None


def parse_slo(text: str) -> Slo:
    """Return the service level in ``text``; ``SloError`` names the clause and its wrong part."""
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


def stat_name(percentile: float) -> str:
    """Return the name of a percentile as a statistic: p99, p99.9."""
    return f"p{percentile:g}"


def _clause(part: str) -> Clause:
    text = "".join(part.split())
    found = _CLAUSE.fullmatch(text)
    assert found is not None, "the pattern takes any text"
    name, sign, value = found[1].lower(), found[2], found[3]
    if sign is None:
        raise SloError(f"slo: {text!r}: a bound is missing ({EXAMPLE})")
    goodput = name == "goodput"
    wanted = (">", ">=") if goodput else ("<", "<=")
    stat, percentile = ("", None) if goodput else _statistic(text, name)
    if sign not in wanted:
        raise SloError(
            f"slo: {text!r}: {name} is bounded by {wanted[0]} or {wanted[1]}; got {sign!r}"
        )
    if goodput:
        bound = _share(text, value, strict=sign == ">")
        return Clause(text, GOODPUT, bound, upper=False, strict=sign == ">")
    bound, unit = _seconds(text, value)
    return Clause(
        text, stat, bound, upper=True, strict=sign == "<", unit=unit, percentile=percentile
    )


def _statistic(text: str, name: str) -> tuple[str, float | None]:
    """Return the metric that ``latency_stat`` names, and its percentile."""
    latency, underscore, stat = name.partition("_")
    if latency not in LATENCIES:
        known = ", ".join(LATENCIES)
        raise SloError(f"slo: {text!r}: metric must be one of {known}, or goodput; got {latency!r}")
    if not underscore:
        raise SloError(f"slo: {text!r}: a statistic is missing: {latency}_p99 or {latency}_mean")
    if stat == "mean":
        return f"{latency}_s.mean", None
    found = _PERCENTILE.fullmatch(stat)
    if found is None or not 0.0 < float(found[1]) < 100.0:
        rule = "statistic must be mean or a percentile between p0 and p100, like p99 or p99.9"
        raise SloError(f"slo: {text!r}: {rule}; got {stat!r}")
    return f"{latency}_s.{stat_name(float(found[1]))}", float(found[1])


def _seconds(text: str, written: str) -> tuple[float, str]:
    found = _VALUE.fullmatch(written)
    assert found is not None, "the pattern takes any text"
    unit = found[2].lower()
    if unit not in UNITS:
        got = f"got {found[2]!r}" if unit else f"{written!r} has none"
        raise SloError(f"slo: {text!r}: unit must be s, ms or us; {got}")
    value = _number(text, found[1]) * UNITS[unit]
    if not (math.isfinite(value) and value > 0.0):
        raise SloError(f"slo: {text!r}: value must be finite and > 0; got {found[1]!r}")
    return value, unit


def _share(text: str, written: str, *, strict: bool) -> float:
    in_percent = written.endswith("%")
    value = _number(text, written.removesuffix("%")) * (0.01 if in_percent else 1.0)
    if not 0.0 < value <= 1.0:
        raise SloError(f"slo: {text!r}: a share must lie in (0, 1]; got {written!r}")
    if strict and value == 1.0:
        raise SloError(f"slo: {text!r}: no share exceeds 1: write goodput>=1")
    return value


def _number(text: str, written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise SloError(f"slo: {text!r}: {written!r} is not a number") from None
