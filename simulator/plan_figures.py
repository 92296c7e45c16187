"""The figures of one simulation that a plan keeps, and what several of them say together.

Draws are other hours of the same traffic (``simulator.bootstrap``), so their spread is the answer's
uncertainty, and more draws do not shrink it: the interval here is where the figure of one more hour
falls in 95 % of cases (Student's prediction interval), not the error of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from controllers.serving.ledger import COMPLETED, NEVER, Ledger
from controllers.serving.token_metrics import TokenSums
from simulator.slo import GOODPUT, PERCENTILES, stat_name

if TYPE_CHECKING:
    from simulator.scenario import Run

NS_PER_S = 1e9
CONFIDENCE = 0.95
LARGEST = 700.0  # exp of more is no number

Figures = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Spread:
    """The centre of a figure over draws, and where another hour falls with 95 %."""

    centre: float
    low: float | None  # None: one draw cannot tell
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the figure and its interval by name."""
        return {"centre": self.centre, "low": self.low, "high": self.high}


def figures(run: Run, percentiles: Sequence[float] = ()) -> dict[str, float | None]:
    """Return a run's figures by dotted name; what nothing was measured for is None.

    Latencies follow ``controllers.serving.metrics``; ``percentiles`` are given besides the usual
    ones. ``goodput_share`` is of all requests, refused ones included. Per-token figures divide by
    the tokens that were generated.
    """
    ledger, metrics = run.result.ledger, run.metrics
    rows = ledger.requests
    asked = sorted({*PERCENTILES, *percentiles})
    arrival, first, finish = (rows[f"{name}_ns"] for name in ("arrival", "first_token", "finish"))
    tokens = rows["tokens"]
    completed = np.array([reason in COMPLETED for reason in ledger.reasons], bool)
    several = completed & (tokens > 1)
    found = {
        **_stats("ttft_s", (first - arrival)[first != NEVER] / NS_PER_S, asked),
        **_stats(
            "tpot_s", ((finish - first) / NS_PER_S / np.maximum(tokens - 1, 1))[several], asked
        ),
        **_stats("e2e_s", (finish - arrival)[completed] / NS_PER_S, asked),
        **_gaps(ledger, asked),
    }
    generated = int(tokens.sum())
    span_s = _span_s(metrics, generated)
    sparse = int(rows["coverage_rows"].sum())
    return found | {
        GOODPUT: _value(metrics, "slo_attainment"),
        "requests": float(len(rows)),
        "requests_not_completed": float(len(rows) - int(completed.sum())),
        "generated_tokens": float(generated),
        "span_s": span_s,
        "throughput_tokens_per_s": _value(metrics, "throughput_tokens_per_s"),
        "nll_per_token_nats": _per_token(metrics, "nll_nats", generated),
        "tau_per_token_nats": _per_token(metrics, "tau_nats", generated),
        "kv_pages_kept_share": _value(metrics, "kv_pages_kept_share"),
        "coverage_mean": float(rows["coverage_sum"].sum()) / sparse if sparse else None,
        "preemptions": float(rows["preemptions"].sum()),
        "busy_s": _value(metrics, "cost_s"),
        **{f"caveat.{name}": float(count) for name, count in run.caveats.items()},
    }


def another_hour(
    values: Sequence[float | None],
    *,
    in_log: bool,
    least: float = -math.inf,
    most: float = math.inf,
) -> Spread | None:
    """Return the spread of a figure over draws; None where one of them has none.

    ``in_log`` works on ln of positive values: latencies near saturation have long upper tails, and
    a bound below zero would be none. The centre is then the geometric mean. Edges beyond what the
    figure can be, ``least`` to ``most``, are cut there.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    sample = np.array(known, np.float64)
    if in_log and float(sample.min()) > 0.0:
        inner = _prediction(np.log(sample))
        low, high = (
            None if edge is None else math.exp(min(edge, LARGEST))
            for edge in (inner.low, inner.high)
        )
        return Spread(math.exp(inner.centre), low, high)
    found = _prediction(sample)
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, least), high=min(found.high, most))


def _prediction(sample: np.ndarray) -> Spread:
    n, centre = len(sample), float(sample.mean())
    if n == 1:
        return Spread(centre, None, None)
    from scipy.special import stdtrit  # slow to import, and only a plan needs it

    quantile = float(stdtrit(n - 1, (1.0 + CONFIDENCE) / 2.0))
    half = quantile * float(sample.std(ddof=1)) * math.sqrt(1.0 + 1.0 / n)
    return Spread(centre, centre - half, centre + half)


def _stats(name: str, values: np.ndarray, percentiles: Sequence[float]) -> dict[str, float | None]:
    if len(values) == 0:
        return {f"{name}.{stat}": None for stat in ("mean", *map(stat_name, percentiles))}
    quantiles = np.percentile(values, percentiles).tolist()
    pairs = zip(percentiles, quantiles, strict=True)
    return {f"{name}.mean": float(values.mean())} | {f"{name}.{stat_name(p)}": v for p, v in pairs}


def _gaps(ledger: Ledger, percentiles: Sequence[float]) -> dict[str, float | None]:
    """Return statistics of the gaps between tokens; to half a bin where no token has a row."""
    if ledger.record_tokens:
        return _stats("itl_s", TokenSums.of(ledger, []).gaps_ns / NS_PER_S, percentiles)
    gaps = ledger.totals.gaps
    if gaps.n == 0:
        return _stats("itl_s", np.zeros(0), percentiles)
    quantiles = {
        f"itl_s.{stat_name(p)}": gaps.quantile_ns(p / 100.0) / NS_PER_S for p in percentiles
    }
    return {"itl_s.mean": gaps.sum_ns / gaps.n / NS_PER_S, **quantiles}


def _span_s(metrics: Mapping[str, object], generated: int) -> float:
    """Return first arrival to last step's end, seconds, as the throughput is defined over it."""
    throughput = _value(metrics, "throughput_tokens_per_s")
    return generated / throughput if throughput else 0.0


def _per_token(metrics: Mapping[str, object], name: str, generated: int) -> float | None:
    total = _value(metrics, name)
    return None if total is None or generated == 0 else total / generated


def _value(metrics: Mapping[str, object], name: str) -> float | None:
    value = metrics[name]
    return float(value) if isinstance(value, int | float) else None
