"""Sections of what was measured before and committed: parity and stability on the live model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reports.figures.stability import stability as draw_stability
from reports.live_commands import figure_footer
from reports.parts import Evidence, Part
from reports.results_html import result_html
from reports.statistics import interval
from reports.tables import Cell, Grid, html_table, plus_minus

STABILITY_COLUMNS = (  # head, unit, field of a seed's summary, scale
    ("T on a clip", "% of tokens", "clip_share", 100.0),
    ("mean T", "", "mean_temperature", 1.0),
    ("mean H", "nats", "mean_entropy_nats", 1.0),
    ("sd of H", "nats, within requests", "sd_entropy_nats", 1.0),
    ("mean H", "where H* is reachable", "reachable_mean_entropy_nats", 1.0),
    ("reachable", "% of requests", "reachable_share", 100.0),
    ("NLL", "nat/token", "nll_nats", 1.0),
)


def parity(found: Evidence) -> Part | None:
    """Show the committed comparison of simulation and live run."""
    if "parity" not in found.results:
        return None
    intro = (
        "<p>Committed measurement: a live run's log, every plan and every temperature command "
        "recomputed on the simulator's side, and H at the applied temperature read off the "
        "recorded curves.</p>"
    )
    document = found.results["parity"]
    table = parity_table(document["metrics"]) if "metrics" in document else ""
    return Part(
        name="parity",
        title="Simulation against the live engine",
        html=intro + table + result_html(document),
    )


def parity_table(metrics: Mapping[str, Any]) -> str:
    """Return what was compared and what differed, one line each."""
    curves, events = metrics["curves"], metrics["events"]
    rows = (
        ("plans", f"{metrics['plans_compared']:,}", f"{metrics['plans_differing']} differ"),
        (
            "commands",
            f"{metrics['commands_compared']:,}",
            f"{metrics['commands_differing']} differ",
        ),
        (
            "H read off the curves",
            f"{curves['tokens']:,} tokens",
            f"mean {curves['mean_abs_nats']:.4f}, max {curves['max_abs_nats']:.4f} nat off",
        ),
        ("law fed by curves alone", "", f"ln T at most {curves['loop_max_abs_x']:.1g} off"),
    )
    caption = (
        f"A live run of {events['requests']} requests and {events['steps']:,} steps, "
        f"{events['preemptions']} preemptions, {events['sparse_rows']:,} sparse rows."
    )
    grid = Grid(
        head=("", "compared", "found"),
        units=("", "", ""),
        rows=tuple(tuple(Cell(text) for text in row) for row in rows),
    )
    return html_table(grid, caption)


def stability(found: Evidence) -> Part | None:
    """Show the sign error on the live model, where the text answers to the temperature."""
    document = found.results.get("stability")
    if document is None:
        return None
    target = document["rows"][0]["target_nats"]
    sources = {name: document.get(name) for name in ("command", "device", "commit", "model")}
    lines = "".join(
        f"<li>{escape(name)}: {escape(str(value))}</li>" for name, value in sources.items()
    )
    table = html_table(
        stability_grid(document["rows"]),
        f"Means over seeds ± 95 % half-width; set-point H* = {target:g} nat.",
    )
    return Part(
        name="stability",
        title="The sign error on the live model",
        html=f"<p>Committed measurement, not run for this page.</p>{table}"
        f"<ul class=notes>{lines}</ul>",
        figure=draw_stability(document["rows"], footer=figure_footer(document)),
        caption=(
            "Here the text itself answers to the temperature. Bands over requests: 5-95 % and "
            "quartiles; line: median. Lengths are fixed and stop tokens ignored, so late tokens "
            "are partly text the model would not have written. Not shown: whether any of these "
            "texts is better."
        ),
    )


def stability_grid(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """Return a row per preset of the stability study, means over its seeds."""
    return Grid(
        head=("preset", *(head for head, _, _, _ in STABILITY_COLUMNS)),
        units=("", *(unit for _, unit, _, _ in STABILITY_COLUMNS)),
        rows=tuple(
            (
                Cell(row["preset"]),
                *(
                    Cell(*plus_minus(interval([seed[name] for seed in row["seeds"]]), scale))
                    for _, _, name, scale in STABILITY_COLUMNS
                ),
            )
            for row in rows
        ),
    )
