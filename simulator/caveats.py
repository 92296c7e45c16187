"""What a simulated number rests on: the sentences a reader must see before quoting it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from controllers.serving.ledger import Ledger
from controllers.steplaw import chunk_squares
from traces.text import number

if TYPE_CHECKING:
    from simulator.scenario import Run, Scenario

IDEAL_KERNEL = (
    "sparse speed-ups here are those of an ideal kernel: a pruned row costs its kept share of the "
    "KV price, and choosing and gathering its pages costs no time; this repository's CPU reference "
    "path is slower than that"
)
COUNTED = {
    "bootstrapped_tokens": "tokens beyond a recording's end, from its own blocks",
    "recordings_cut_short": "recordings ended at the recorder's limit",
    "recordings_reused": "requests reuse a recording",
    "steps_outside_profile": "steps lie outside what the step law was fitted on",
    "prompt_squares_beyond_profile": "prompt_squares, those of the longest prompt's last chunk, "
    "lie outside what the step law was fitted on",
    "rows_below_lowest_coverage": "decode rows wanted less than the lowest recorded coverage",
    "pages_evicted": "pages were given up, oldest first, with no effect on entropies: a recording "
    "knows no page by its mass",
}


def caveat_lines(scenario: Scenario, done: Run) -> list[str]:
    """Return one line per thing a reader must know before quoting a run's numbers."""
    found = done.caveats
    traced, planned = str(scenario.trace.metadata["model"]), scenario.profile.model
    lines = [
        f"trace {scenario.trace.path.name} (sha256 {scenario.trace.sha256[:12]}), device "
        f"{scenario.profile.device}",
        "output lengths are the recording's, whatever the temperature",
        "NLL is that of dense attention, whatever the coverage",
        f"goodput: first token within {number(scenario.ttft_slo_s)} s and "
        f"{number(scenario.tpot_slo_s)} s per token",
        f"p99 rests on the slowest {-(-scenario.n_requests // 100)} of {scenario.n_requests} "
        "requests",
    ]
    if traced != planned:
        lines.append(f"the traced model ({traced}) is not the planned model ({planned})")
    lines += [f"{found[name]} {text}" for name, text in COUNTED.items() if found.get(name)]
    return [*lines, shift_line(scenario), IDEAL_KERNEL]


def caveat_json(scenario: Scenario, counted: Mapping[str, int]) -> dict[str, object]:
    """Return a run's caveats as JSON values: its counts, and what holds for every run."""
    return {
        **counted,
        "entropy_shift_not_applied_nats": unapplied_shift_nats(scenario),
        "sparse_speed": IDEAL_KERNEL,
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


def beyond_profile(scenario: Scenario, ledger: Ledger) -> dict[str, int]:
    """Count what lies outside the ranges that the step law was fitted on.

    ``steps_outside_profile`` looks at each step's decode rows, prompt tokens and KV tokens (in
    whole pages); a step with none of a feature is inside. Prompt squares are not in the ledger:
    ``prompt_squares_beyond_profile`` is the value of the longest prompt's largest last chunk, 0
    where that was fitted. A feature that the profile gives no range for is not checked.
    """
    units = scenario.model.layers * scenario.model.kv_heads
    features = {
        "n_decode": ledger.steps["n_decode"],
        "kv_tokens_read": ledger.steps["page_units_read"] / units * scenario.limits.page_tokens,
        "prompt_tokens": ledger.steps["prompt_tokens"],
    }
    outside = np.zeros(len(ledger.steps), bool)
    for name, values in features.items():
        if name in scenario.profile.ranges:
            low, high = scenario.profile.ranges[name]
            outside |= (values > 0) & ((values < low) | (values > high))
    longest = max(r.prompt_tokens for r in scenario.trace.requests)
    chunk = min(longest, scenario.limits.token_budget)
    squares = chunk_squares(longest - chunk, chunk)
    fitted = not scenario.profile.outside(prompt_squares=squares)
    return {
        "steps_outside_profile": int(outside.sum()),
        "prompt_squares_beyond_profile": 0 if fitted else squares,
    }
