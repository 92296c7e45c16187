"""Golden runs on the report page: the table, measured against simulated, and what moves it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from reports.figures.golden import golden as draw
from reports.figures.golden import tornado as draw_tornado
from reports.parts import Evidence, Part
from reports.tables import Cell, Grid, html_table

Document = Mapping[str, Any]


def golden_footer(document: Document) -> str:
    """Return what every figure of golden runs rests on."""
    engines = ", ".join(sorted({run["engine"] for run in document["runs"]}))
    return (
        f"measured by others ({engines}); simulated at commit {document['commit']}, nothing tuned "
        "on the runs"
    )


def golden(found: Evidence) -> Part | None:
    """Show the committed comparison with runs of a real engine."""
    document = found.results.get("golden")
    if document is None:
        return None
    notes = "".join(
        f"<li>{escape(run['run'])}: {escape(line)}</li>"
        for run in document["runs"]
        for line in run["notes"]
    )
    html = (
        "<p>Committed measurement, by others (casys-kaist/LLMServingSim @ 5daddb2, MIT): vLLM "
        "served the same arrivals and lengths. The simulator had its resolved limits and kernel "
        "times profiled apart from the run.</p>"
        + "".join(html_table(golden_grid(run), escape(_caption(run))) for run in document["runs"])
        + f"<ul class=notes>{notes}</ul>"
    )
    return Part(
        name="golden",
        title="Simulation against a real engine",
        html=html,
        figure=draw(document["runs"], footer=golden_footer(document)),
        caption=(
            "Each dot is a request; on the line the simulation is right. Right: requests that "
            "wait and run, as the engine counted them once a second."
        ),
    )


def golden_sensitivity(found: Evidence) -> Part | None:
    """Show which inputs the agreement rests on."""
    document = found.results.get("golden")
    if document is None or not all(run["sensitivity"] for run in document["runs"]):
        return None
    return Part(
        name="golden_sensitivity",
        title="What the agreement rests on",
        figure=draw_tornado(document["runs"], footer=golden_footer(document)),
        caption=(
            "One input changed at a time, against the simulation above. A wrong engine limit "
            "costs more than any detail of the step law."
        ),
    )


def golden_grid(run: Mapping[str, Any]) -> Grid:
    """Return a row per metric of one run: measured, simulated and difference of each statistic."""
    rows = {(row["metric"], row["stat"]): row for row in run["rows"]}
    stats = ("mean", "p50", "p95", "p99")
    return Grid(
        head=("metric", *stats),
        units=("", *("measured, simulated, difference" for _ in stats)),
        rows=tuple(
            (Cell(metric), *(_cell(rows[metric, stat]) for stat in stats))
            for metric in ("ttft_s", "tpot_s", "e2e_s")
        ),
    )


def _cell(row: Mapping[str, Any]) -> Cell:
    text = f"{row['measured']:.4g}, {row['simulated']:.4g}, {row['diff_pct']:+.1f} %"
    return Cell(text)


def _caption(run: Mapping[str, Any]) -> str:
    limits = run["limits"]
    return (
        f"{run['run']} on {run['device']}: {run['requests']} requests, {limits['n_pages']:,} KV "
        f"pages, {limits['max_seqs']} sequences, {limits['token_budget']:,} tokens a step."
    )
