"""What a simulated number rests on: the sentences a reader must see before quoting it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require
from controllers.serving.ledger import Ledger
from controllers.serving.summary import NS_PER_S
from controllers.steplaw import chunk_squares
from simulator.join import join_line
from traces.text import number

if TYPE_CHECKING:
    from simulator.scenario import Run, Scenario

IDEAL_KERNEL = (
    "sparse speed-ups here are those of an ideal kernel: a pruned row costs its kept share of the "
    "KV price, and choosing and gathering its pages costs no time; this repository's CPU reference "
    "path is slower than that"
)
PRICED_KERNEL = (
    "sparse speed-ups here are those of the profile's device: a pruned row costs its kept share of "
    "the KV price, and scoring its pages costs what was measured there"
)
COUNTED = {
    "bootstrapped_tokens": "tokens beyond a recording's end, from its own blocks",
    "recordings_cut_short": "recordings ended at the recorder's limit",
    "recordings_reused": "requests reuse a recording",
    "requests_in_warmup": "requests arrived in the warm-up and count in no latency or rate",
    "steps_outside_profile": "steps lie outside what the step law was fitted on",
    "steps_unchecked": "steps were not recorded, and the limits allow some to lie outside what the "
    "step law was fitted on",
    "prompt_squares_beyond_profile": "prompt_squares, those of the longest prompt's last chunk, "
    "lie outside what the step law was fitted on",
    "rows_below_lowest_coverage": "decode rows wanted less than the lowest recorded coverage",
    "pages_evicted": "pages were given up, oldest first, with no effect on entropies: a recording "
    "knows no page by its mass",
}


def caveat_lines(scenario: Scenario, done: Run) -> list[str]:
    """Return one line per thing a reader must know before quoting a run's numbers."""
    found = done.caveats
    counted = scenario.n_requests - found.get("requests_in_warmup", 0)
    joined = "join_tokens" in found
    lengths = "sessions'" if scenario.sessions else "arrival trace's" if joined else "recording's"
    lines = [
        f"trace {scenario.trace.path.name} (sha256 {scenario.trace.sha256[:12]}), device "
        f"{scenario.profile.device}",
        f"output lengths are the {lengths}, whatever the temperature",
        "NLL is that of dense attention, whatever the coverage",
        f"goodput: first token within {number(scenario.ttft_slo_s)} s and "
        f"{number(scenario.tpot_slo_s)} s per token",
        f"p99 rests on the slowest {-(-counted // 100)} of {counted} requests",
    ]
    lines += profile_lines(scenario)
    if scenario.arrivals is not None:
        lines += [f"arrivals: {note}" for note in scenario.arrivals.notes]
    lines += [join_line(found)] if "join_tokens" in found else []
    lines += [f"{found[name]} {text}" for name, text in COUNTED.items() if found.get(name)]
    lines += range_lines(scenario, done.result.ledger)
    return [*lines, shift_line(scenario), sparse_line(scenario)]


def caveat_json(scenario: Scenario, counted: Mapping[str, int]) -> dict[str, object]:
    """Return a run's caveats as JSON values: its counts, and what holds for every run."""
    return {
        **counted,
        "entropy_shift_not_applied_nats": unapplied_shift_nats(scenario),
        "sparse_speed": sparse_line(scenario),
    }


def unapplied_shift_nats(scenario: Scenario) -> dict[str, float]:
    """Return by coverage how far pruning moved mean H on the subsample; empty without one."""
    residual = scenario.residual
    if residual.samples == 0:
        return {}
    pairs = zip(residual.coverages, residual.bias_nats, strict=True)
    return {f"{coverage:g}": float(bias) for coverage, bias in pairs}


def evictions(ledger: Ledger) -> dict[str, int]:
    """Count the pages that requests gave up; empty where none did."""
    pages = int(ledger.requests["pages_evicted"].sum())
    return {"pages_evicted": pages} if pages else {}


def warmed_up(scenario: Scenario, ledger: Ledger) -> dict[str, int]:
    """Count the requests that the warm-up leaves out, of which there must be fewer than all."""
    if scenario.warmup_s == 0.0:
        return {}
    arrived_s = ledger.requests["arrival_ns"] / NS_PER_S
    early = int((arrived_s < scenario.warmup_s).sum())
    last = float(arrived_s.max())
    require(
        early < len(arrived_s),
        f"warmup must be under {last:.4g} s, when the last request arrives",
        warmup=scenario.warmup_s,
    )
    return {"requests_in_warmup": early}


def shift_line(scenario: Scenario) -> str:
    """Say what the residual leaves out of a pruned row's entropy."""
    shifts = unapplied_shift_nats(scenario)
    if not shifts:
        return "the trace has no pruned subsample: pruning leaves entropy unmoved here"
    moved = ", ".join(f"{shift:+.3f} at {coverage}" for coverage, shift in shifts.items())
    return (
        "the effect of pruning on H is drawn with mean zero; on the recorded subsample it also "
        f"moved the mean, by coverage: {moved} nat, which is not applied"
    )


def sparse_line(scenario: Scenario) -> str:
    """Say what a pruned row costs under the profile's law."""
    return PRICED_KERNEL if scenario.profile.law.prices_scoring else IDEAL_KERNEL


def profile_lines(scenario: Scenario) -> list[str]:
    """Say what the profile leaves open: another model, composed or unmeasured steps, limits."""
    profile = scenario.profile
    traced, planned = str(scenario.trace.metadata["model"]), profile.model
    lines = []
    if traced != planned:
        lines.append(f"the traced model ({traced}) is not the planned model ({planned})")
    if profile.kind == "fitted":
        lines.append(f"step times are composed, not measured whole: {profile.source}")
    if profile.kind == "roofline":
        lines.append(
            "the step law is a roofline from datasheet numbers: nothing was measured on this device"
        )
    if profile.sparse_from_tokens is not None:
        lines.append(
            f"contexts under {profile.sparse_from_tokens:,} tokens are read densely: choosing "
            "pages costs what it saves there on this device"
        )
    if profile.limits_estimated:
        lines.append("limits are estimated, not resolved from an engine")
    return lines


def beyond_profile(scenario: Scenario, ledger: Ledger) -> dict[str, int]:
    """Count what lies outside the ranges that the step law was fitted on.

    ``steps_outside_profile`` looks at each step's decode rows, prompt tokens, KV tokens (in whole
    pages) and pages scored; a step with none of a feature is inside. Where steps were not recorded,
    ``steps_unchecked`` counts them, if the limits allow any to lie outside. Prompt squares are not
    in the ledger: ``prompt_squares_beyond_profile`` is the value of the longest prompt's largest
    last chunk, 0 where that was fitted. A feature that the profile gives no range for is not
    checked.
    """
    counts = {
        "steps_outside_profile": int(_outside(scenario, ledger).sum()),
        "prompt_squares_beyond_profile": _squares_beyond(scenario, ledger),
    }
    if not ledger.record_steps and _limits_exceed(scenario):
        counts["steps_unchecked"] = ledger.totals.n_steps
    return counts


def range_lines(scenario: Scenario, ledger: Ledger) -> list[str]:
    """Say by feature how far steps went beyond the fitted range, and in what share of them."""
    lines = []
    for name, values in _features(scenario, ledger).items():
        if name not in scenario.profile.ranges:
            continue
        low, high = scenario.profile.ranges[name]
        for beyond, worst in (
            ((values > 0) & (values < low), np.min),
            (values > high, np.max),
        ):
            if beyond.any():
                lines.append(
                    f"{name} was fitted from {low:,.0f} to {high:,.0f} and reached "
                    f"{worst(values[beyond]):,.0f}: {100.0 * beyond.mean():.2g} % of steps lie "
                    "outside"
                )
    return lines


def _features(scenario: Scenario, ledger: Ledger) -> dict[str, np.ndarray]:
    units = scenario.model.layers * scenario.model.kv_heads
    return {
        "n_decode": ledger.steps["n_decode"],
        "kv_tokens_read": ledger.steps["page_units_read"] / units * scenario.limits.page_tokens,
        "prompt_tokens": ledger.steps["prompt_tokens"],
        "pages_scored": ledger.steps["pages_scored"],
    }


def _outside(scenario: Scenario, ledger: Ledger) -> np.ndarray:
    outside = np.zeros(len(ledger.steps), bool)
    for name, values in _features(scenario, ledger).items():
        if name in scenario.profile.ranges:
            low, high = scenario.profile.ranges[name]
            outside |= (values > 0) & ((values < low) | (values > high))
    return outside


def _limits_exceed(scenario: Scenario) -> bool:
    limits = scenario.limits
    least = scenario.profile.outside(n_decode=1, kv_tokens_read=limits.page_tokens, prompt_tokens=1)
    most = scenario.profile.outside(
        n_decode=limits.max_seqs,
        kv_tokens_read=limits.n_pages * limits.page_tokens,
        prompt_tokens=limits.token_budget,
    )
    return bool(least or most)


def _squares_beyond(scenario: Scenario, ledger: Ledger) -> int:
    longest = max(r.prompt_tokens for r in scenario.trace.requests)
    if scenario.lengths == "arrivals" and scenario.arrivals is not None:
        asked = scenario.arrivals.prompt_tokens
        longest = longest if asked is None else int(np.max(asked[: scenario.n_requests]))
        longest = min(longest, scenario.limits.max_context)
    if scenario.sessions is not None:
        longest = int(ledger.requests["prompt_tokens"].max())
    chunk = min(longest, scenario.limits.token_budget)
    squares = chunk_squares(longest - chunk, chunk)
    return squares if scenario.profile.outside(prompt_squares=squares) else 0
