"""Tables beside a simulated run: its tenants, and the means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from traces.text import number, table

if TYPE_CHECKING:
    from controllers.serving.metrics import Metric
    from simulator.scenario import Run


def tenants_table(tenants: Mapping[str, Mapping[str, Metric]]) -> str:
    """Return what each tenant got, a row each; nothing where there is one tenant alone."""
    if len(tenants) < 2:
        return ""
    rows = []
    for name, found in tenants.items():
        cells = [found["completed"], found["tokens"]]
        for latency in ("ttft_s", "tpot_s", "e2e_s"):
            one = found[latency]
            cells += [one[at] if isinstance(one, dict) else None for at in ("mean", "p99")]
        cells.append(found["nll_nats_per_token"])
        rows.append([name, *(number(None if isinstance(c, dict) else c) for c in cells)])
    header = (
        "tenant", "completed", "tokens", "TTFT, s", "p99", "TPOT, s", "p99", "e2e, s", "p99",
        "NLL, nat/token",
    )  # fmt: skip
    return "\n" + table(header, rows)


def over_seeds(runs: Sequence[Run]) -> dict[str, Any]:
    """Return every metric's mean and 95 % half-width over the runs' seeds."""
    from simulator.analysis import across, flatten, nested

    return nested(across([flatten(run.metrics) for run in runs]))


def seeds_table(runs: Sequence[Run]) -> str:
    """Return the means over seeds with their 95 % half-widths."""
    from simulator.analysis import across, flatten

    rows = []
    for name, found in across([flatten(run.metrics) for run in runs]).items():
        if found is not None and (found.half or found.mean):
            rows.append([name, number(found.mean, 4), number(found.half, 2)])
    first, last = runs[0].seed, runs[-1].seed
    header = ("metric", "mean", "± 95 %")
    return f"over seeds {first} to {last}\n" + table(header, rows)
