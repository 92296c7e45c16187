"""What a trace holds, in numbers small enough to read: a pure function of the trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from traces.columns import Columns
from traces.schema import COVERAGES, PRUNED_NODES, SCORERS, T_NODES
from traces.store import Trace

FIRST_EDGE_TOKENS = 256  # context bins: below it, then doubling


def describe(trace: Trace) -> dict[str, Any]:
    """Summarise a trace as plain JSON values; entropies in nats, shares in [0, 1]."""
    columns = trace.columns
    return {
        "requests": len(trace.requests),
        "tokens": trace.rows,
        "model": trace.metadata["model"],
        "t_cal": trace.metadata["t_cal"],
        "page_tokens": trace.metadata["page_tokens"],
        "sha256": trace.sha256,
        "requests_by_class": _counts([r.task_class for r in trace.requests]),
        "requests_by_temperature": _counts([f"{r.temperature:g}" for r in trace.requests]),
        "requests_by_finish": _counts([r.finish_reason for r in trace.requests]),
        "context_tokens": _range(columns["context"]),
        "entropy": _entropy(columns),
        "entropy_lag1": lag1(trace),
        "kept_share": _kept_share(columns),
        "pruned": _pruned(columns),
    }


def lag1(trace: Trace) -> dict[str, float | int | None]:
    """Return the pooled lag-1 autocorrelation of ``h_cal`` within sequences of >= 3 tokens.

    Deviations are from each sequence's own mean: differences between sequences do not count. This
    biases a sequence of n tokens by about -1/n. None where no entropy varies.
    """
    products = squares = 0.0
    sequences = 0
    for start, stop in trace.slices:
        if stop - start < 3:
            continue
        h = trace.columns["h_cal"][start:stop].astype(np.float64)
        deviation = h - h.mean()
        products += float(deviation[1:] @ deviation[:-1])
        squares += float(deviation @ deviation)
        sequences += 1
    return {"value": products / squares if squares > 0 else None, "sequences": sequences}


def context_bins(context: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Return ``(low, high, mask)`` of each non-empty bin ``[low, high)``, doubling upwards."""
    bins = []
    low, high = 0, FIRST_EDGE_TOKENS
    while low <= int(context.max(initial=-1)):
        mask = (context >= low) & (context < high)
        if mask.any():
            bins.append((low, high, mask))
        low, high = high, high * 2
    return bins


def _counts(names: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _range(values: np.ndarray) -> dict[str, int] | None:
    return {"min": int(values.min()), "max": int(values.max())} if len(values) else None


def _summary(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    wide = values.astype(np.float64)
    p5, p50, p95 = (float(q) for q in np.percentile(wide, [5, 50, 95]))
    return {"mean": float(wide.mean()), "std": float(wide.std()), "p5": p5, "p50": p50, "p95": p95}


def _entropy(columns: Columns) -> dict[str, Any]:
    return {
        "h_cal_nats": _summary(columns["h_cal"]),
        "v_cal_nats2": _summary(columns["v_cal"]),
        "h_applied_nats": _summary(columns["h_applied"]),
        "surprisal_nats": _summary(columns["surprisal"]),
        "by_temperature": [
            {
                "t": float(t),
                "h_nats": _summary(columns["h"][:, i]),
                "v_nats2": _summary(columns["v"][:, i]),
            }
            for i, t in enumerate(T_NODES)
        ],
    }


def _kept_share(columns: Columns) -> list[dict[str, Any]]:
    rows = []
    for low, high, mask in context_bins(columns["context"]):
        parts = {
            name: columns[name][mask].mean(axis=0, dtype=np.float64)
            for name in ("kept_mean", "kept_max", "dropped", "evictable")
        }
        rows += [
            {
                "context_from": low,
                "context_below": high,
                "tokens": int(mask.sum()),
                "scorer": scorer,
                "coverage": float(coverage),
                **{name: float(values[s, c]) for name, values in parts.items()},
            }
            for s, scorer in enumerate(SCORERS)
            for c, coverage in enumerate(COVERAGES)
        ]
    return rows


def _pruned(columns: Columns) -> list[dict[str, Any]]:
    dense = columns["h"][:, None, list(PRUNED_NODES)].astype(np.float64)
    residual = columns["h_pruned"] - dense  # [rows, C, P], NaN where not sampled
    rows = []
    for c, coverage in enumerate(COVERAGES):
        sampled = residual[~np.isnan(residual[:, c]).any(axis=1), c]
        kl = columns["kl_pruned"][:, c].astype(np.float64)
        kl = kl[~np.isnan(kl)]
        rows.append(
            {
                "coverage": float(coverage),
                "samples": len(sampled),
                "residual_mean_nats": float(sampled.mean()) if len(sampled) else None,
                "residual_rms_nats": float(np.sqrt((sampled**2).mean())) if len(sampled) else None,
                "kl_samples": len(kl),
                "kl_mean_nats": float(kl.mean()) if len(kl) else None,
            }
        )
    return rows
