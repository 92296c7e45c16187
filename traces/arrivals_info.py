"""What a file of arrivals holds, in numbers small enough to read: a pure function of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from traces.arrivals import Arrivals
from traces.text import number, table

WINDOW_S = 60.0  # of the peak rate
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def describe_arrivals(arrivals: Arrivals) -> dict[str, Any]:
    """Summarise ``arrivals`` as plain JSON values; times in seconds, lengths in tokens.

    ``gap_cv`` is the standard deviation of the gaps over their mean: 1 for a Poisson process, more
    for bursts. ``peak_rate_per_s`` is the busiest of the windows of ``WINDOW_S`` from the start.
    ``prefix_*`` say what a cache that forgets nothing would find (``Prefixes.reuse``).
    """
    times_s = arrivals.times_s
    gaps = np.diff(times_s)
    span_s = float(times_s[-1])
    windows = np.unique(times_s // WINDOW_S, return_counts=True)[1]  # a long span is mostly idle
    found: dict[str, Any] = {
        "source": arrivals.source,
        "licence": arrivals.licence or None,
        "requests": len(arrivals),
        "dropped": arrivals.dropped,
        "span_s": span_s,
        "rate_per_s": (len(arrivals) - 1) / span_s if span_s > 0 else None,
        "peak_rate_per_s": float(windows.max()) / WINDOW_S if span_s >= WINDOW_S else None,
        "gap_cv": float(gaps.std() / gaps.mean()) if span_s > 0 else None,
        "distinct_times": len(np.unique(times_s)),
        "repeated_rows": _repeated(arrivals),
        "prompt_tokens": _lengths(arrivals.prompt_tokens),
        "output_tokens": _lengths(arrivals.output_tokens),
        "log_length_correlation": _correlation(arrivals),
    }
    if arrivals.prefixes is not None and arrivals.prompt_tokens is not None:
        found["prefix_block_tokens"] = arrivals.prefixes.block_tokens
        found |= arrivals.prefixes.reuse(arrivals.prompt_tokens)
    for name, labels in (("tenants", arrivals.tenants), ("task_classes", arrivals.classes)):
        if labels is not None:
            found[name] = labels.counts()
    ticks = found["distinct_times"]
    coarse = (
        f"{len(arrivals)} arrivals share {ticks} times: bursts are the clock's; see --spread-seed"
    )
    repeated = (
        f"{found['repeated_rows']} of {len(arrivals)} arrivals have the time and lengths of another"
    )
    said = [coarse] if 2 * ticks < len(arrivals) else []
    said += [repeated] if found["repeated_rows"] else []
    return found | {"notes": [*arrivals.notes, *said]}


def arrivals_report(found: dict[str, Any]) -> str:
    """Return ``describe_arrivals`` as text."""
    plain = {k: v for k, v in found.items() if isinstance(v, int | float) or v is None}
    rate_of = "peak_rate_per_s"
    plain[f"{rate_of} of {WINDOW_S:g} s"] = plain.pop(rate_of)
    width = max(map(len, plain))
    lines = [
        f"{name:{width}}  {number(value, 4)}\n"
        for name, value in plain.items()
        if name != "licence"
    ]
    parts = [f"{found['source']}\n", *lines]
    rows = [
        [name, *(number(value) for value in found[name].values())]
        for name in ("prompt_tokens", "output_tokens")
        if found[name] is not None
    ]
    if rows:
        parts.append("\n" + table(("lengths", "mean", "min", *QUANTILES, "max"), rows))
    for name in ("tenants", "task_classes"):
        if name in found:
            counts = sorted(found[name].items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{label} {count}" for label, count in counts[:10])
            more = f", and {len(counts) - 10} more" if len(counts) > 10 else ""
            parts.append(f"{name}: {shown}{more}\n")
    parts += [f"note: {note}\n" for note in found["notes"]]
    parts.append(f"licence: {found['licence'] or 'not known'}\n")
    return "".join(parts)


def _lengths(tokens: np.ndarray | None) -> dict[str, float] | None:
    if tokens is None:
        return None
    return {
        "mean": float(tokens.mean()),
        "min": int(tokens.min()),
        **{name: float(np.quantile(tokens, q)) for name, q in QUANTILES.items()},
        "max": int(tokens.max()),
    }


def _repeated(arrivals: Arrivals) -> int | None:
    """Return how many rows have the time and both lengths of an earlier one; None unless known.

    A few come about by chance where a clock is coarse; many are a file put together twice.
    """
    if arrivals.prompt_tokens is None or arrivals.output_tokens is None:
        return None
    order = np.lexsort((arrivals.output_tokens, arrivals.prompt_tokens, arrivals.times_s))
    columns = (arrivals.times_s, arrivals.prompt_tokens, arrivals.output_tokens)
    return int(np.all([np.diff(column[order]) == 0 for column in columns], axis=0).sum())


def _correlation(arrivals: Arrivals) -> float | None:
    """Return the correlation of ln prompt and ln output; None where one of them never varies."""
    if arrivals.prompt_tokens is None or arrivals.output_tokens is None:
        return None
    logs = np.log([arrivals.prompt_tokens, arrivals.output_tokens])
    if (np.ptp(logs, axis=1) == 0.0).any():
        return None
    return float(np.corrcoef(logs)[0, 1])
