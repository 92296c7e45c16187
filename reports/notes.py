"""What the tables and figures rest on, in sentences made from the numbers they speak of."""

from __future__ import annotations

from controllers.presets import get_preset
from reports.statistics import Interval
from reports.studies.ablation import REFERENCE, Ablation
from reports.studies.matched import Matched
from simulator.caveats import shift_line, sparse_line

INTERVALS = (
    "times: over arrival seeds; per-token metrics (KV, tau, T, H, NLL, clip): bootstrap over "
    "prompts"
)


def footer(ablation: Ablation) -> list[str]:
    """Return what a reader must know before quoting the table, one sentence a line."""
    scenario = ablation.scenario
    traced, planned = str(scenario.trace.metadata["model"]), scenario.profile.model
    models = f"the traced model ({traced}) is NOT the planned model ({planned})"
    if traced == planned:
        models = f"the traced model is the planned model ({planned})"
    seeds = ablation.seeds
    cut, reused, outside, squares = (
        ablation.caveats[name]
        for name in (
            "recordings_cut_short",
            "recordings_reused",
            "steps_outside_profile",
            "prompt_squares_beyond_profile",
        )
    )
    prompts = len({record.prompt_id for record in scenario.trace.requests})
    beyond = " and the longest prompt's last chunk" if squares else ""
    return [
        f"seeds {seeds[0]}-{seeds[-1]} ({len(seeds)}), {scenario.n_requests} requests each at "
        f"{scenario.rate_per_s:.3g}/s, {scenario.replicas} replica(s); mean ± 95 % half-width; "
        f"* the paired difference to {REFERENCE} excludes 0.",
        f"Intervals: {INTERVALS} ({prompts}, each with all its temperatures).",
        f"Trace {scenario.trace.path.name}, sha256 {scenario.trace.sha256[:12]}; device "
        f"{scenario.profile.device}; H* = {scenario.asking.target_nats:g} nat.",
        f"Goodput: first token within {scenario.ttft_slo_s:.3g} s and {scenario.tpot_slo_s:.3g} s "
        "per output token.",
        f"Output lengths are exogenous: the recording's, whatever T; {models}; "
        f"{cut} recordings ended at the recorder's limit, {reused} requests reuse one; {outside} "
        f"steps of {REFERENCE}{beyond} lie outside what the step law was fitted on.",
        f"{_sentence(sparse_line(scenario))}. {_device_reads(ablation)}Decode KV counts the page "
        "score's own bytes.",
        f"{_sentence(shift_line(scenario))}.",
        "NLL is that of dense attention: what pruning does to it is not simulated (KL: entropic "
        "trace info).",
        "Presets that change priority can differ only where requests queue; EntropyPriority at its "
        "default kappa lets aging dominate, so its order is close to arrival order. Requests that "
        f"overtook an earlier one, per run: {_overtakes(ablation)}.",
    ]


def _device_reads(ablation: Ablation) -> str:
    """Say which requests the device's own threshold leaves dense; empty without one."""
    trace, least = ablation.scenario.trace, ablation.scenario.profile.sparse_from_tokens
    if least is None:
        return ""
    reach = sum(r.prompt_tokens + r.output_tokens >= least for r in trace.requests)
    return (
        f"On this device rows under {least:,} tokens are read densely; {reach} of "
        f"{len(trace.requests)} recorded requests reach that. "
    )


def matched_verdict(ablation: Ablation) -> str:
    """Say whether the laws are better or worse than a constant T at equal mean entropy."""
    parts = []
    for preset, found, on_clip in _steering(ablation):
        nll, sd = found.nll_difference, found.sd_difference
        share = f", {100 * sd.mean / found.fixed_sd_nats:+.0f} %" if found.fixed_sd_nats else ""
        stuck = f"; T sits on a clip for {100 * on_clip:.0f} % of tokens" if on_clip > 0.5 else ""
        parts.append(
            f"{preset} {_against(nll, 'likelihood')} (NLL {_nats(nll)}) and "
            f"{_against(sd, 'steadiness')} within a sequence (sd of H {_nats(sd)}{share}{stuck})"
        )
    if not parts:
        return "No preset steers temperature here."
    return (
        "At equal mean entropy, against one constant temperature: "
        + "; ".join(parts)
        + ". On given logits a constant T has the lowest mean NLL of all temperatures of equal "
        "mean entropy, so no law can win there; what a law can buy is steadier entropy."
    )


def _steering(ablation: Ablation) -> list[tuple[str, Matched, float]]:
    """Return each temperature law but the reference's: first preset, comparison, clip share."""
    seen, found = {_law(REFERENCE)}, []
    for row in ablation.rows:
        if row.matched is not None and _law(row.preset) not in seen:
            on_clip = row.metrics["clip_share"]
            found.append((row.preset, row.matched, 0.0 if on_clip is None else on_clip.mean))
            seen.add(_law(row.preset))
    return found


def _law(preset: str) -> str:
    return get_preset(preset).fingerprints()["temperature"]


def _against(difference: Interval, good: str) -> str:
    if not difference.excludes_zero:
        return f"is not told apart in {good}"
    return f"is {'worse' if difference.mean > 0 else 'better'} in {good}"


def _nats(difference: Interval) -> str:
    half = "" if difference.half is None else f" ± {difference.half:.3f}"
    return f"{difference.mean:+.3f}{half}"


def _overtakes(ablation: Ablation) -> str:
    found = [(row.preset, row.metrics.get("overtakes")) for row in ablation.rows]
    of = ablation.scenario.n_requests
    counts = ", ".join(f"{name} {one.mean:.3g}" for name, one in found if one is not None)
    return f"{counts} of {of}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
