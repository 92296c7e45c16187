"""Live validation on the report page: the table, and measured against simulated as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reports.figures.live_validation import curves, latencies, queues
from reports.parts import Evidence, Part
from reports.tables import Cell, Grid, html_table
from reports.validation.live_text import aside_lines, shown_load

Document = Mapping[str, Any]
STATS = ("mean", "p50", "p95", "p99")
METRICS = ("ttft_s", "tpot_s", "e2e_s")


def live_footer(document: Document) -> str:
    """Return what every figure of a live validation rests on."""
    rescaled = document["rescaled_by"]
    note = "" if rescaled is None else f", profile rescaled by {rescaled:.3f}"
    return (
        f"{document['model']} on {document['device']}, commit {document['commit']}; profile of "
        f"commit {document['profile']['commit']}{note}; nothing tuned on the runs"
    )


def live(found: Evidence) -> Part | None:
    """Show the committed comparison with our own backend."""
    document = found.results.get("live_validation")
    if document is None:
        return None
    verdicts, parity = document["verdicts"], document["parity"]
    judged = ", ".join(f"{n} {name}" for name, n in verdicts.items())
    cells = [cell for cell in document["cells"] if cell["load"] > 0.0]
    html = (
        "<p>Committed measurement: a window of a real arrival trace played in wall time against "
        "the live engine, and the same requests simulated from the profile and from open-loop "
        f"recordings. Statistics judged: {escape(judged)}. Recomputed from the logs, "
        f"{parity['plans_differing']} of {parity['plans']:,} plans and "
        f"{parity['commands_differing']} of {parity['commands']:,} commands differ.</p>"
        + "".join(html_table(live_grid(cell), escape(_caption(cell))) for cell in cells)
        + _notes(aside_lines(document))
    )
    return Part(
        name="live_validation",
        title="Simulation against our own backend",
        html=html,
        figure=latencies(document, footer=live_footer(document)),
        caption="Share of requests by latency: every repeat in grey, the simulation in blue.",
    )


def live_trajectories(found: Evidence) -> Part | None:
    """Show what the laws did live beside what open-loop recordings said they would do."""
    document = found.results.get("live_validation")
    if document is None:
        return None
    lines = [
        f"{cell['preset']} at {shown_load(cell['load'])}: {cell['causes']}"
        for cell in document["cells"]
        if cell["load"] > 0.0
    ]
    return Part(
        name="live_trajectories",
        title="Closed loop predicted from open-loop recordings",
        html=_notes(lines),
        figure=curves(document, footer=live_footer(document)),
        caption="Share of tokens by temperature, coverage and entropy.",
    )


def live_growth(found: Evidence) -> Part | None:
    """Show the queue above capacity, measured and simulated; of a campaign of its own, if any."""
    document = found.results.get("live_overload") or found.results.get("live_validation")
    if document is None or not document["growth"]:
        return None
    lines = [line for growth in document["growth"] for line in growth["lines"]]
    return Part(
        name="live_growth",
        title="Above capacity",
        html=_notes(lines),
        figure=queues(document, footer=live_footer(document)),
        caption="Requests in the system; each run had a window of arrivals of its own.",
    )


def _notes(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul class=notes>{items}</ul>" if items else ""


def live_grid(cell: Mapping[str, Any]) -> Grid:
    """Return a row per latency of one preset at one load."""
    rows = {(row["metric"], row["stat"]): row for row in cell["rows"]}
    return Grid(
        head=("metric", *STATS),
        units=("", *("measured, simulated, difference, verdict" for _ in STATS)),
        rows=tuple(
            (Cell(metric), *(_cell(rows[metric, stat]) for stat in STATS)) for metric in METRICS
        ),
    )


def _cell(row: Mapping[str, Any]) -> Cell:
    half = "" if row["half"] is None else f" ± {row['half']:.2g}"
    return Cell(
        f"{row['measured']:.4g}{half}, {row['simulated']:.4g}, {row['diff_pct']:+.1f} %, "
        f"{row['verdict']}"
    )


def _caption(cell: Mapping[str, Any]) -> str:
    return (
        f"{cell['preset']} at {shown_load(cell['load'])} of capacity: {cell['requests']} requests, "
        f"{cell['repeats']} repeats"
    )
