"""A validation against golden runs as a JSON document and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from reports.validation.golden import Comparison, Row, series_of
from reports.validation.sensitivity import Change

HEADLINE = ("ttft_s", "tpot_s", "e2e_s")  # whose means are the bar
DIGITS = 5  # of what is only drawn


def run_document(found: Comparison, changes: Sequence[Change]) -> dict[str, Any]:
    """Return one run: what it is, what it went by, its table and how it moves."""
    setup, run = found.setup, found.setup.run
    return {
        "run": run_name(found),
        "device": setup.profile.device,
        "model": run.model,
        "engine": run.engine,
        "tensor_parallel": run.tensor_parallel,
        "requests": len(run.arrival_s),
        "profiled": setup.profile.measured,
        "limits": setup.limits.to_json(),
        "pages_estimated": setup.pages_estimated,
        "steps": found.simulated.steps,
        "recomputed_tokens": found.simulated.recomputed_tokens,
        "found_again_tokens": found.simulated.kept_tokens,
        "rows": found.rows,
        "request_mape_pct": found.request_mape_pct,
        "series_mean_abs_error": found.series_mae,
        "sensitivity": [asdict(change) for change in changes],
        "notes": list(found.notes),
    }


def drawn(found: Comparison) -> dict[str, Any]:
    """Return what figures draw of a run: every request, and the series."""
    run, simulated = found.setup.run, found.simulated
    series = series_of(found.setup, simulated)
    return {
        "ttft_s": {"measured": _short(run.ttft_s), "simulated": _short(simulated.ttft_s)},
        "e2e_s": {"measured": _short(run.e2e_s), "simulated": _short(simulated.e2e_s)},
        "t_s": _short(run.series["t"]),
        **{
            name: {"measured": _short(a), "simulated": _short(b)} for name, (a, b) in series.items()
        },
    }


def run_name(found: Comparison) -> str:
    """Return the folder's last two names: device and model, as they are laid out."""
    return "/".join(found.setup.run.path.resolve().parts[-2:])


def worst_mean_pct(found: Comparison) -> float:
    """Return the largest absolute difference among the means of TTFT, TPOT and end to end."""
    means = [row for row in found.rows if row["stat"] == "mean" and row["metric"] in HEADLINE]
    return max(abs(row["diff_pct"]) for row in means)  # type: ignore[arg-type]


def text(found: Comparison, changes: Sequence[Change]) -> str:
    """Return one run as a table."""
    setup, run, limits = found.setup, found.setup.run, found.setup.limits
    pool = f"{limits.n_pages:,} pages of {limits.page_tokens} tokens"
    lines = [
        f"{run_name(found)}: {run.engine}, {setup.profile.device}, tp {run.tensor_parallel}",
        f"limits: {pool}{' (estimated)' if setup.pages_estimated else ''}, "
        f"{limits.max_seqs} sequences, {limits.token_budget:,} tokens a step",
        f"{'metric':<26}{'stat':<8}{'measured':>12}{'simulated':>12}{'diff':>9}",
        *(_line(row) for row in found.rows),
        "mean absolute error per request: "
        + ", ".join(f"{name} {value:.1f} %" for name, value in found.request_mape_pct.items()),
        "mean absolute error per sample: "
        + ", ".join(f"{name} {value:.1f}" for name, value in found.series_mae.items()),
    ]
    if changes:
        lines.append(f"{'one input changed':<44}{'TTFT':>9}{'TPOT':>9}{'E2E':>9}{'preempt.':>10}")
        lines += [
            f"{c.name:<44}{c.ttft_pct:>+8.1f}%{c.tpot_pct:>+8.1f}%{c.e2e_pct:>+8.1f}%{c.preemptions:>10}"
            for c in changes
        ]
    lines += [f"note: {line}" for line in found.notes]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    measured, diff = row["measured"], row["diff_pct"]
    shown = "-" if measured is None else f"{measured:.4g}"
    off = "-" if diff is None else f"{diff:+.1f} %"
    return f"{row['metric']:<26}{row['stat']:<8}{shown:>12}{row['simulated']:>12.4g}{off:>9}"


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
