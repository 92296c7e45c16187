"""What a soak found, as numbers by name and as lines for a reader."""

from __future__ import annotations

import sys
from typing import Any

from reports.soak.run import LEVELS, Plan, Soak

_MIB = 2.0**20
POINTS = 20  # of the course of resident memory that are shown: (requests, MiB)


def summary(found: Soak, plan: Plan) -> dict[str, Any]:
    """Return the findings of a soak by name."""
    rss, served = found.samples.column("rss_bytes"), found.samples.column("requests")
    every = max(1, len(rss) // POINTS)
    return {
        "verdict": found.verdict(plan),
        "verdicts": found.verdicts(plan),
        **{
            f"{name}_per_request": found.slopes[name].to_json() if name in found.slopes else None
            for name in LEVELS
        },
        "rss_mib": [
            [int(requests), round(level / _MIB, 3)]
            for requests, level in list(zip(served.tolist(), rss.tolist(), strict=True))[::every]
        ],
        "samples": len(found.samples),
        "leftovers": found.leftovers,
        "requests": found.finished,
        "refused": found.refused,
        "switched_off": found.switched_off,
        "reasons": dict(sorted(found.reasons.items())),
        "steps": found.steps,
        "tokens": found.tokens,
        "preemptions": found.preemptions,
        "sparse_rows": found.sparse_rows,
        "pages_evicted": found.pages_evicted,
        "prefix_hit_tokens": found.tokens_found,
        "wall_s": found.wall_s,
    }


def describe(metrics: dict[str, Any]) -> None:
    """Write the findings to stdout, a line each."""
    for name, value in metrics.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        if isinstance(value, dict):
            shown = ", ".join(
                f"{key} {part:.4g}" if isinstance(part, float) else f"{key} {part}"
                for key, part in value.items()
            )
        sys.stdout.write(f"{name}: {shown}\n")
