"""A live validation as text: one table, and what stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]
UNEVEN = 0.1  # by which prompts may drift more or less than decode steps
STATS = ("mean", "p50", "p95", "p99", "total")


def live_text(document: Document) -> str:
    """Return the table of every preset and load, trajectories, growth and drift."""
    limits, capacity = document["limits"], document["capacity_per_s"]
    lines = [
        f"{document['model']} on {document['device']}; arrivals: {document['arrivals']}",
        f"limits: {limits['n_pages']:,} pages of {limits['page_tokens']} tokens, "
        f"{limits['max_seqs']} sequences, {limits['token_budget']:,} tokens a step; "
        f"capacity {capacity['below']:.3g} requests/s, simulated",
        f"{'preset':<11}{'load':<7}{'metric':<26}{'stat':<7}{'measured':>11}{'+- 95 %':>10}"
        f"{'simulated':>11}{'diff':>9}  verdict",
    ]
    for cell in document["cells"]:
        lines += [_line(cell, row) for row in cell["rows"] if row["stat"] in STATS]
    lines += aside_lines(document)
    lines += ["", _head()]
    for cell in document["cells"]:
        lines += [_trajectory(cell, row) for row in cell["trajectories"]]
    for cell in document["cells"]:
        lines.append(f"{cell['preset']} at {shown_load(cell['load'])}: {cell['causes']}")
    for found in document["growth"]:
        lines += _growth(found)
    lines += _beside(document)
    return "\n".join(lines) + "\n"


def shown_load(load: float) -> str:
    """Return a load as a reader wants it; 0 is a batch that is there at once."""
    return "once" if load == 0.0 else f"{load:.0%}"


def _line(cell: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return (
        f"{cell['preset']:<11}{shown_load(cell['load']):<7}{row['metric']:<26}{row['stat']:<7}"
        f"{_number(row['measured']):>11}{_number(row['half']):>10}{_number(row['simulated']):>11}"
        f"{_percent(row['diff_pct']):>9}  {row['verdict']}"
    )


def aside_lines(document: Document) -> list[str]:
    """Say how many repeats count, how many were set aside, and what the means were with them."""
    lines: list[str] = []
    if "set_aside" not in document:  # of before there was a rule
        return lines
    for cell in document["cells"]:
        where = f"{cell['preset']} at {shown_load(cell['load'])}"
        lines.append(f"{where}: {cell['repeats']} repeats, {cell['set_aside']} runs set aside")
        if cell["set_aside"]:
            means = ", ".join(
                f"{row['metric']} {_number(row['measured_with_set_aside'])} "
                f"(without {_number(row['measured'])})"
                for row in cell["rows"]
                if row["stat"] == "mean" and row["metric"] in ("ttft_s", "tpot_s", "e2e_s")
            )
            lines.append(f"{where}, means with what was set aside: {means}")
    kept = [run for run in document["runs"] if run["counts"] and run["disturbed"]]
    lines += [
        f"{run['preset']} at {shown_load(run['load'])}, repeat {run['repeat']}: disturbed at every "
        "try, the last one counts"
        for run in kept
    ]
    return lines


def _head() -> str:
    stats = "".join(f"{name:>8}" for name in ("mean", "p10", "p50", "p90"))
    return (
        f"{'preset':<11}{'load':<7}{'per token':<16}{'':<11}{stats}"
        f"{'distance':>10}{'floor':>8}{'by request':>12}{'floor':>8}"
    )


def _trajectory(cell: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    before = f"{cell['preset']:<11}{shown_load(cell['load']):<7}{row['quantity']:<16}"
    parts = []
    for name in ("measured", "predicted"):
        values = [row[name][stat] for stat in ("mean", "p10", "p50", "p90")]
        parts.append(before + f"{name:<11}" + "".join(f"{value:>8.3f}" for value in values))
    tail = (
        f"{row['distance']:>10.4f}{_number(row['floor']):>8}"
        f"{row['by_request']:>12.4f}{_number(row['by_request_floor']):>8}"
    )
    return f"{parts[0]}\n{parts[1]}{tail}"


def _growth(found: Mapping[str, Any]) -> list[str]:
    measured, simulated = (
        _interval(found[f"growth_{name}_per_s"]) for name in ("measured", "simulated")
    )
    load = shown_load(found["load"])
    return [
        f"{found['preset']} at {load}, measured: {found['lines'][0]}",
        f"{found['preset']} at {load}, simulated: {found['lines'][1]}",
        f"{found['preset']} at {load}: the queue grows by {measured} requests/s measured, "
        f"{simulated} simulated, difference {_interval(found['growth_difference_per_s'])}; "
        f"verdicts {'agree' if found['agree'] else 'DIFFER'}",
    ]


def _beside(document: Document) -> list[str]:
    parity, drift, verdicts = document["parity"], document["drift"], document["verdicts"]
    factor = document["rescaled_by"]
    late = max(run["late_s"] for run in document["runs"])
    ranges = ", ".join(
        f"{kind} {100 * (v['median'] - 1):+.1f} % ({100 * (v['min'] - 1):+.1f} to "
        f"{100 * (v['max'] - 1):+.1f})"
        for kind, v in drift.items()
    )
    return [
        f"verdicts: {', '.join(f'{n} {name}' for name, n in verdicts.items())}",
        f"decision parity: {parity['plans_differing']} of {parity['plans']:,} plans and "
        f"{parity['commands_differing']} of {parity['commands']:,} commands differ",
        f"reference steps against the profile, median (range) over runs: {ranges}; "
        + ("not corrected" if factor is None else f"profile multiplied by {factor:.4f}"),
        f"the client was late by {1e3 * late:.0f} ms at most",
        *([] if document["options"].get("profile_passes") else _doubt(drift)),
    ]


def _doubt(drift: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say so where the reference steps did not all drift alike, as those of a slow machine do."""
    apart = drift["prefill"]["median"] / drift["decode"]["median"]
    if abs(apart - 1.0) <= UNEVEN:
        return []
    return [
        "warning: prompts and decode steps drift apart: the profile is of another engine, not of "
        "a slower hour; make it again"
    ]


def _interval(found: Mapping[str, float | None] | None) -> str:
    if found is None:
        return "-"
    half = "" if found["half"] is None else f" +- {found['half']:.3g}"
    return f"{found['mean']:.3g}{half}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} %"
