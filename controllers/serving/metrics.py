"""Metrics: a pure function of the ledger, under the names of DESIGN section 8."""

from __future__ import annotations

import numpy as np

from controllers.serving.ledger import COMPLETED, NEVER, Ledger
from controllers.serving.sensors import NS_PER_S
from controllers.steplaw import StepLaw

Summary = dict[str, float] | None
Metric = float | int | Summary

_CLIP_TOLERANCE = 1e-6  # nats of ln T


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
) -> dict[str, Metric]:
    """Return the metrics of a run; what nothing was measured for is None, never NaN.

    TTFT counts every request that got a token; TPOT (first token excluded), end-to-end and Jain
    count completed ones; ITL, entropies and ``nll_nats`` count every token, as totals over the run.
    Rates are over the span from the first arrival to the end of the last step. A page unit is one
    page of one layer and KV head. ``kv_bytes_read`` is what decode rows read, the page score's own
    bytes included: mean and variance of a page's keys weigh as much as one of its tokens. Goodput
    counts completed requests within both thresholds (one that is None does not bind).
    ``clip_share`` is the share of commands on a bound of ln T. ``prefix_hit_tokens`` are tokens
    whose KV was found instead of computed, at first admissions and at those after a preemption.
    """
    requests, steps = ledger.requests, ledger.steps
    arrival, first = requests["arrival_ns"], requests["first_token_ns"]
    finish, tokens = requests["finish_ns"], requests["tokens"]
    completed = np.array([reason in COMPLETED for reason in ledger.reasons], dtype=bool)
    served = first != NEVER
    ttft_s = (first - arrival) / NS_PER_S
    tpot_s = (finish - first) / NS_PER_S / np.maximum(tokens - 1, 1)
    e2e_s = (finish - arrival) / NS_PER_S
    several = completed & (tokens > 1)
    good = completed & (ttft_s <= _or_inf(ttft_slo_s))
    good &= ~several | (tpot_s <= _or_inf(tpot_slo_s))
    has_slo = ttft_slo_s is not None or tpot_slo_s is not None
    span_s = _span_s(ledger)
    read, dense = int(steps["page_units_read"].sum()), int(steps["page_units_dense"].sum())
    scored = int(steps["pages_scored"].sum())
    alone_s = _alone_s(step_law, requests["prompt_tokens"], tokens)
    return {
        "ttft_s": _summary(ttft_s[served]),
        "tpot_s": _summary(tpot_s[several]),
        "itl_s": _summary(_within_requests(ledger, "now_ns") / NS_PER_S),
        "e2e_s": _summary(e2e_s[completed]),
        "throughput_tokens_per_s": _ratio(float(tokens.sum()), span_s),
        "throughput_requests_per_s": _ratio(float(completed.sum()), span_s),
        "goodput_requests_per_s": _ratio(float(good.sum()), span_s) if has_slo else None,
        "kv_bytes_read": read * bytes_per_page_unit + scored * bytes_per_page_unit // page_tokens,
        "kv_pages_kept_share": _ratio(read, dense),
        "preemptions": int(requests["preemptions"].sum()),
        "prefix_hit_tokens": int((requests["prefix_hit_tokens"] + requests["rehit_tokens"]).sum()),
        "pages_evicted": int(requests["pages_evicted"].sum()),
        **_entropies(ledger),
        "cost_s": float(steps["duration_ns"].sum()) / NS_PER_S,
        "max_service_gap_steps": _max_service_gap(ledger),
        "jain": _jain(alone_s[completed] / np.maximum(e2e_s[completed], 1 / NS_PER_S)),
        "clip_share": _clip_share(ledger, [x for x in (x_min, x_max) if x is not None]),
        **ledger.counts(),
    }


def _summary(values: np.ndarray) -> Summary:
    if len(values) == 0:
        return None
    p50, p95, p99 = np.percentile(values, (50, 95, 99)).tolist()
    return {"mean": float(values.mean()), "p50": p50, "p95": p95, "p99": p99}


def _ratio(part: float, whole: float | None) -> float | None:
    return part / whole if whole else None


def _or_inf(threshold: float | None) -> float:
    return float("inf") if threshold is None else threshold


def _span_s(ledger: Ledger) -> float | None:
    if len(ledger.steps) == 0:
        return None
    end_ns = (ledger.steps["now_ns"] + ledger.steps["duration_ns"]).max()
    return float(end_ns - ledger.requests["arrival_ns"].min()) / NS_PER_S


def _by_request(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of token rows by request then time, and which of them continue a request."""
    ids = ledger.tokens["request_id"]
    order = np.argsort(ids, kind="stable")
    return order, np.diff(ids[order]) == 0


def _within_requests(ledger: Ledger, column: str) -> np.ndarray:
    """Return the differences of a token column between successive tokens of one request."""
    order, same = _by_request(ledger)
    return np.diff(ledger.tokens[column][order])[same]


def _entropies(ledger: Ledger) -> dict[str, Metric]:
    names = ("tau_nats", "tau_cal_nats", "entropy_net_nats", "nll_nats")
    if len(ledger.tokens) == 0:
        return dict.fromkeys(names)
    changes = {name: _within_requests(ledger, name) for name in ("h_applied", "h_cal")}
    sums = (
        -np.minimum(changes["h_applied"], 0.0),  # the paper's tau, which temperature inflates
        -np.minimum(changes["h_cal"], 0.0),
        -changes["h_cal"],  # H_0 - H_last, telescoped
        ledger.tokens["surprisal"],
    )
    return {
        name: float(values[np.isfinite(values)].sum(dtype=np.float64)) + 0.0
        for name, values in zip(names, sums, strict=True)
    }


def _max_service_gap(ledger: Ledger) -> int | None:
    """Return the most steps any request went without taking part, waiting ones up to now."""
    if len(ledger.requests) == 0:
        return None
    waiting = np.array([reason is None for reason in ledger.reasons], dtype=bool)
    open_gap = np.where(waiting, ledger.step_count - ledger.requests["last_service_step"], 0)
    return int(np.maximum(ledger.requests["max_service_gap_steps"], open_gap).max())


def _alone_s(step_law: StepLaw, prompt: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Modelled seconds each request would take on an idle server, float64 ``[R]``."""
    none = np.zeros_like(prompt)
    later = np.maximum(tokens - 1, 0)
    kv_read = later * prompt + later * (later + 1) // 2
    decode = later * (step_law.base_s + step_law.per_decode_s) + step_law.per_kv_token_s * kv_read
    return step_law.step_s(none, none, prompt, prompt * prompt) + decode


def _jain(rates: np.ndarray) -> float | None:
    """Jain's index of service rates, each normalised by what the request gets alone, in (0, 1]."""
    squares = float((rates * rates).sum())
    return float(rates.sum()) ** 2 / (len(rates) * squares) if squares > 0.0 else None


def _clip_share(ledger: Ledger, bounds: list[float]) -> float | None:
    commands = ledger.tokens["command"]
    if len(commands) == 0 or not bounds:
        return None
    on_a_bound = [np.abs(commands - bound) <= _CLIP_TOLERANCE for bound in bounds]
    return float(np.any(on_a_bound, axis=0).mean())
