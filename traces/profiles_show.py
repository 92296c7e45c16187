"""A profile as text: its law, how far to trust it, what steps cost, what pruning would save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from traces.profile import Profile
from traces.profiles import describe, shipped
from traces.text import number, table

BATCHES = (1, 8, 32, 128)
CONTEXTS = (1024, 4096, 16384)
PRUNED_TOKENS = 1000  # KV tokens dropped per sequence
PRUNED_BATCHES = (1, 4, 8, 32, 128)
MS = 1e3


def step_times(profile: Profile) -> list[dict[str, Any]]:
    """Return one row per batch and context: seconds of a decode step, and what it lies outside."""
    rows = []
    for batch in BATCHES:
        for context in CONTEXTS:
            kv = batch * context
            outside = profile.outside(n_decode=batch, kv_tokens_read=kv)
            rows.append(
                {
                    "n_decode": batch,
                    "context_tokens": context,
                    "step_s": profile.law.step_s(batch, kv, 0, 0),
                    "outside": sorted(outside),
                    "fits_pool": _fits(profile, kv),
                }
            )
    return rows


def pruning(profile: Profile) -> list[dict[str, Any]]:
    """Return by batch what dropping ``PRUNED_TOKENS`` per sequence saves of a decode step."""
    rows = []
    context = CONTEXTS[1]
    for batch in PRUNED_BATCHES:
        dense = profile.law.step_s(batch, batch * context, 0, 0)
        saved = dense - profile.law.step_s(batch, batch * (context - PRUNED_TOKENS), 0, 0)
        rows.append({"n_decode": batch, "saved_s": saved, "saved_share": saved / dense})
    return rows


def report(profile: Profile) -> str:
    """Return everything a reader of a profile needs, as text tables."""
    return "\n".join(
        (
            f"{describe(profile)} ({profile.dtype}, {profile.backend}): {profile.kind}\n",
            law_text(profile),
            _errors(profile),
            _ranges(profile),
            _steps(profile),
            _pruning(profile),
            *provenance(profile),
            "",
        )
    )


def law_text(profile: Profile) -> str:
    """Return the law's terms with their coefficients, milliseconds."""
    law = profile.law
    rows = [
        ["base, any step", "1", _ms(law.base_s)],
        ["decode row", "B", _ms(law.per_decode_s)],
        ["KV token read", "KV", _ms(law.per_kv_token_s)],
        ["KV token short of the longest row", "B*longest - KV", _ms(law.per_skewed_kv_token_s)],
        ["prompt token", "P", _ms(law.per_prompt_token_s)],
        ["prompt pair, twice the attended", "Q", _ms(law.per_prompt_square_s)],
        ["floor of a step with a prompt", "", _ms(law.floor_s)],
        ["base that a prompt hides", "", _ms(law.prompt_overlap_s)],
        ["decode row beside a prompt, more", "B", _ms(law.per_mixed_decode_s)],
        ["KV token beside a prompt, more", "KV", _ms(law.per_mixed_kv_token_s)],
        ["page scored, of a layer and KV head", "S", _ms(law.per_scored_unit_s)],
        ["step that scores pages", "", _ms(law.pruned_step_s)],
        ["step that holds prompt tokens", "", _ms(law.prompt_step_s)],
        ["prompt pair over prompt tokens", "Q/P", _ms(law.per_prompt_context_s)],
        [f"decode row beyond {law.decode_knee:g}", "B", _ms(law.per_knee_decode_s)],
    ]
    return table(("step law", "per", "ms"), rows)


def provenance(profile: Profile) -> list[str]:
    """Return where the numbers come from and what they leave open, a line each."""
    limits = ", ".join(f"{name} {value:,}" for name, value in profile.limits.items())
    estimated = "estimated, not resolved from an engine" if profile.limits_estimated else "resolved"
    lines = [
        f"limits ({estimated}): {limits}",
        f"source: {profile.source}",
        f"commit {profile.commit}, created {profile.created}",
    ]
    if profile.sparse_from_tokens is not None:
        lines.append(f"contexts under {profile.sparse_from_tokens:,} tokens are read densely")
    if profile.kv_bytes_per_token is not None:
        lines.append(f"KV: {profile.kv_bytes_per_token:,} bytes per token")
    if profile.watts is not None:
        lines.append(f"power: {number(profile.watts)} W per GPU, its limit where not measured")
    if profile.usd_per_hour is not None:
        lines.append(f"price: {number(profile.usd_per_hour)} USD per GPU-hour")
    if profile.kind == "roofline":
        lines.append("note: a roofline from datasheet numbers; nothing here was measured")
    return lines


def listing(folder: Path) -> str:
    """Return a table of the shipped profiles."""
    rows = []
    for path, profile in shipped(folder):
        error = profile.fit_error.get("held_out_mean_abs_pct")
        pool_tokens = profile.limits["n_pages"] * profile.limits["page_tokens"]
        row = [path.stem, profile.model, profile.device, str(profile.gpus), profile.kind]
        rows.append([*row, number(error), f"{pool_tokens:,}"])
    header = ("profile", "model", "device", "tp", "kind", "error %", "KV tokens")
    return table(header, rows)


def _errors(profile: Profile) -> str:
    rows = [[name, number(value)] for name, value in profile.fit_error.items()]
    return table(("error on held-out steps", "%"), rows or [["none stated", "-"]])


def _ranges(profile: Profile) -> str:
    rows = [[name, f"{low:,.0f}", f"{high:,.0f}"] for name, (low, high) in profile.ranges.items()]
    return table(("fitted over", "from", "to"), rows or [["none stated", "-", "-"]])


def _steps(profile: Profile) -> str:
    rows = []
    times = {(row["n_decode"], row["context_tokens"]): row for row in step_times(profile)}
    for batch in BATCHES:
        cells = []
        for context in CONTEXTS:
            row = times[batch, context]
            mark = "*" if row["outside"] else "+" if not row["fits_pool"] else ""
            cells.append(f"{_ms(row['step_s'], 4)}{mark}")
        rows.append([f"decode rows: {batch}", *cells])
    header = ("step, ms; context:", *(f"{c // 1024}k" for c in CONTEXTS))
    marks = "* outside the fitted range   + more KV than the pool holds\n"
    return table(header, rows) + marks


def _pruning(profile: Profile) -> str:
    rows = [
        [f"decode rows: {row['n_decode']}", _ms(row["saved_s"]), f"{row['saved_share']:.1%}"]
        for row in pruning(profile)
    ]
    context = f"at {CONTEXTS[1] // 1024}k context"
    header = (f"{PRUNED_TOKENS:,} KV tokens fewer per row save", "ms", f"of the step {context}")
    return table(header, rows)


def _fits(profile: Profile, kv_tokens: int) -> bool:
    limits = profile.limits
    if "n_pages" not in limits or "page_tokens" not in limits:
        return True
    return kv_tokens <= limits["n_pages"] * limits["page_tokens"]


def _ms(seconds: float, digits: int = 3) -> str:
    return number(MS * seconds, digits)
