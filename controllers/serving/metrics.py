"""Metrics: a pure function of the ledger, under the names of DESIGN section 8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controllers.core import require
from controllers.serving import order_metrics as order
from controllers.serving.ledger import CANCELLED, COMPLETED, Ledger
from controllers.serving.request_metrics import RequestTimes
from controllers.serving.step_metrics import StepSums
from controllers.serving.summary import (
    NS_PER_S,
    Metric,
    Summary,
    ratio,
    scaled,
    summary,
    weighted_summary,
)
from controllers.serving.token_metrics import TokenSums
from controllers.steplaw import StepLaw

__all__ = ["Metric", "Spending", "Summary", "summarise", "summarise_groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a run used. ``gpu_s`` counts a GPU from when it starts up to when it is given back."""

    gpu_s: float
    up_s: float  # server seconds up, summed; of utilisation
    usd: float | None = None
    joules: float | None = None

    def __post_init__(self) -> None:
        for name in ("gpu_s", "up_s", "usd", "joules"):
            value = getattr(self, name)
            require(value is None or value >= 0.0, f"{name} must be >= 0", **{name: value})


def summarise(
    ledger: Ledger,
    *,
    step_law: StepLaw,
    bytes_per_page_unit: int,
    page_tokens: int = 16,
    ttft_slo_s: float | None = None,
    tpot_slo_s: float | None = None,
    x_min: float | None = None,
    x_max: float | None = None,
    warmup_s: float = 0.0,
    n_pages: int | None = None,
    spent: Spending | None = None,
    tenants: Mapping[int, str] | None = None,
    ranks: Mapping[int, int] | None = None,
) -> dict[str, Metric]:
    """Return the metrics of a run; what nothing was measured for is None, never NaN.

    TTFT counts every request that got a token; TPOT (first token excluded), end-to-end and Jain
    count completed ones; ITL, entropies and ``nll_nats`` count every token, as totals over the run.
    Rates are over the span from the first arrival to the end of the last step. A page unit is one
    page of one layer and KV head. ``kv_bytes_read`` is what decode rows read, the page score's own
    bytes included: mean and variance of a page's keys weigh as much as one of its tokens. Goodput
    counts completed requests within both thresholds (one that is None does not bind);
    ``slo_attainment`` is their share of the requests that ended uncancelled.
    ``clip_share`` is the share of commands on a bound of ln T. ``prefix_hit_tokens`` are tokens
    whose KV was found instead of computed, at first admissions and at those after a preemption.

    ``warmup_s``, on the ledger's own clock, cuts: requests that arrived before count in no
    request metric, steps that began before in no step metric, and rates are over the span after.
    Without token rows ITL counts the whole run and entropies the requests that ended.
    ``kv_pages_held`` is over busy time on one server, and ``kv_occupancy`` the same as a share of
    ``n_pages``. ``batch_mean`` is decode rows per step. Money and energy are over the whole run,
    per delivered token of the whole run. ``overtakes`` and ``inversions``:
    :mod:`controllers.serving.order_metrics`; the latter need ``ranks`` by request id.
    ``jain_tenants`` is over the mean slow-down of each tenant.
    """
    require(warmup_s >= 0.0, "warmup_s must be >= 0", warmup_s=warmup_s)
    from_ns = round(warmup_s * NS_PER_S)
    bounds = [x for x in (x_min, x_max) if x is not None]
    steps = StepSums.of(ledger, from_ns)
    tokens = TokenSums.of(ledger, bounds)
    times = RequestTimes.of(
        ledger, step_law=step_law, ttft_slo_s=ttft_slo_s, tpot_slo_s=tpot_slo_s, from_ns=from_ns
    )
    kept = times.kept
    span_s = _span_s(ledger, steps, from_ns)
    scored_bytes = steps.pages_scored * bytes_per_page_unit // page_tokens
    held = weighted_summary(steps.held_ns)
    overtaken = order.overtakes(ledger)[kept]
    return {
        **times.latencies(kept),
        "itl_s": tokens.itl_s(ledger, kept),
        **times.rates(kept, span_s),
        "kv_bytes_read": steps.page_units_read * bytes_per_page_unit + scored_bytes,
        "kv_pages_kept_share": ratio(steps.page_units_read, steps.page_units_dense),
        "kv_pages_held": held,
        "kv_occupancy": scaled(held, None if n_pages is None else 1.0 / n_pages),
        "preemptions": int(ledger.requests["preemptions"][kept].sum()),
        "prefix_hit_tokens": _found(ledger, kept),
        "pages_evicted": int(ledger.requests["pages_evicted"][kept].sum()),
        **tokens.metrics(kept),
        "cost_s": steps.busy_ns / NS_PER_S,
        "batch_mean": ratio(steps.decode_rows, steps.n),
        "utilisation": _utilisation(steps, span_s, spent, from_ns),
        **_spending(spent, int(times.tokens.sum())),
        "max_service_gap_steps": _largest(order.service_gaps_steps(ledger)[kept]),
        "max_service_gap_s": _largest(order.service_gaps_s(ledger, steps.end_ns)[kept]),
        "overtakes": summary(overtaken),
        "overtakes_max": _largest(overtaken),
        "inversions": _inversions(ledger, kept, ranks),
        "jain": times.jain(kept),
        "jain_tenants": _jain_tenants(ledger, times, tenants),
        "clip_share": tokens.clip_share(kept) if bounds else None,
        **_counts(ledger, kept),
    }


def summarise_groups(
    ledger: Ledger,
    group_of: Mapping[int, str],
    *,
    step_law: StepLaw,
    ttft_slo_s: float | None = None,
    tpot_slo_s: float | None = None,
    warmup_s: float = 0.0,
) -> dict[str, dict[str, Metric]]:
    """Return latencies, rates, entropies and counts of each group of requests, by its name.

    ``group_of`` names the class or tenant of every request id; groups come in order of name. Rates
    are over the span of the whole run.
    """
    from_ns = round(warmup_s * NS_PER_S)
    steps, tokens = StepSums.of(ledger, from_ns), TokenSums.of(ledger, [])
    times = RequestTimes.of(
        ledger, step_law=step_law, ttft_slo_s=ttft_slo_s, tpot_slo_s=tpot_slo_s, from_ns=from_ns
    )
    span_s = _span_s(ledger, steps, from_ns)
    names, index = _groups(ledger, group_of)
    found: dict[str, dict[str, Metric]] = {}
    for number, name in enumerate(names):
        mine = times.kept & (index == number)
        found[name] = {
            **times.latencies(mine),
            **times.rates(mine, span_s),
            "tokens": int(times.tokens[mine].sum()),
            **tokens.metrics(mine),
            "preemptions": int(ledger.requests["preemptions"][mine].sum()),
            **_counts(ledger, mine),
        }
    return found


def _span_s(ledger: Ledger, steps: StepSums, from_ns: int) -> float | None:
    if steps.n == 0 or len(ledger.requests) == 0:
        return None
    began_ns = max(int(ledger.requests["arrival_ns"].min()), from_ns)
    return (steps.end_ns - began_ns) / NS_PER_S


def _largest(values: np.ndarray) -> float | int | None:
    return values.max().item() if len(values) else None


def _found(ledger: Ledger, kept: np.ndarray) -> int:
    found = ledger.requests["prefix_hit_tokens"] + ledger.requests["rehit_tokens"]
    return int(found[kept].sum())


def _utilisation(
    steps: StepSums, span_s: float | None, spent: Spending | None, from_ns: int
) -> float | None:
    """Busy over up seconds; without a bill, of one server over the span.

    A warm-up takes its share of the up seconds, as if as many servers were up all the time.
    """
    up_s = span_s
    if spent is not None:
        up_s = spent.up_s * (1.0 - min(from_ns / steps.end_ns, 1.0)) if steps.end_ns else None
    return ratio(steps.busy_ns / NS_PER_S, up_s)


def _spending(spent: Spending | None, tokens: int) -> dict[str, Metric]:
    gpu_s, usd, joules = (None,) * 3 if spent is None else (spent.gpu_s, spent.usd, spent.joules)
    return {
        "gpu_seconds": gpu_s,
        "tokens_per_gpu_s": ratio(tokens, gpu_s),
        "usd": usd,
        "usd_per_million_tokens": ratio(None if usd is None else 1e6 * usd, tokens),
        "energy_j": joules,
        "joules_per_token": ratio(joules, tokens),
    }


def _inversions(ledger: Ledger, kept: np.ndarray, ranks: Mapping[int, int] | None) -> int | None:
    if ranks is None:
        return None
    ids = ledger.requests["request_id"].tolist()
    return int(order.inversions(ledger, np.array([ranks[i] for i in ids], np.int64))[kept].sum())


def _jain_tenants(
    ledger: Ledger, times: RequestTimes, tenants: Mapping[int, str] | None
) -> float | None:
    if tenants is None or not len(ledger.requests):
        return None
    return times.jain_groups(times.kept, _groups(ledger, tenants)[1])


def _groups(ledger: Ledger, group_of: Mapping[int, str]) -> tuple[list[str], np.ndarray]:
    """Return the names in order, and the number of each request row's."""
    labels = [group_of[request_id] for request_id in ledger.requests["request_id"].tolist()]
    names = sorted(set(labels))
    number = {name: i for i, name in enumerate(names)}
    return names, np.array([number[label] for label in labels], np.intp)


def _counts(ledger: Ledger, kept: np.ndarray) -> dict[str, Metric]:
    reasons = [ledger.reasons[row] for row in np.flatnonzero(kept)]
    completed = sum(reason in COMPLETED for reason in reasons)
    cancelled, unfinished = reasons.count(CANCELLED), reasons.count(None)
    return {
        "submitted": len(reasons),
        "completed": completed,
        "cancelled": cancelled,
        "failed": len(reasons) - completed - cancelled - unfinished,
        "unfinished": unfinished,
    }
