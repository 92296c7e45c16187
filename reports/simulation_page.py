"""A page about one simulation, or several of one workload: one HTML file with everything inside."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from controllers.serving.ledger import NEVER
from reports.figures.simulation_latency import latency_shares
from reports.figures.simulation_time import over_time
from reports.figures.simulation_tokens import along_the_text
from reports.page import inside, render
from reports.parts import Part
from reports.simulation_parts import Shown, SimulationEvidence
from reports.simulation_tables import group_grid, headline_table, settings_of, text_table
from reports.tables import html_table
from simulator.decisions_story import explain
from traces.atomic import atomic_path
from traces.console import check_target

LEAD = (
    "Simulated, not measured: recorded token entropies answer for the model, a fitted cost law "
    "gives the time of each step, and the scheduler, the page pool and the control laws are those "
    "of the live server. Read the caveats before quoting a number."
)
STORY_LINES = 60  # of the worst request; a longer story loses its middle
SUFFIXES = (".html", ".htm")


def write_simulation_page(path: Path, found: SimulationEvidence) -> Path:
    """Write the page to ``path``, whole or not at all; return the path."""
    check_page_target(path)
    text = simulation_page(found)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def check_page_target(path: Path) -> None:
    """Raise where a page cannot be written, before the runs that would fill it."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"a page must end in one of {SUFFIXES}; got {path}")
    check_target("a page", path)


def simulation_page(found: SimulationEvidence) -> str:
    """Return the page as HTML; equal evidence gives equal text."""
    sections = (headline, verdicts, timeline, latencies, text, groups, caveats, worst, settings)
    parts = [part for section in sections if (part := section(found)) is not None]
    return render(parts, found.provenance, headline=found.title, lead=LEAD, picture=inside)


def headline(found: SimulationEvidence) -> Part:
    """Show time, quality, resources and fairness, a column per run."""
    level = [
        f"{name} within {limit:.3g} s"
        for name, limit in (
            ("first token", found.ttft_slo_s),
            ("time per output token", found.tpot_slo_s),
        )
        if limit is not None
    ]
    caption = f"Service level: {' and '.join(level)}." if level else "No service level was set."
    note = "One run each: these are figures of one draw of arrivals, without intervals."
    if len(found.shown) > 1:
        note += (
            f" Small figures: the difference to {found.shown[0].name}, on the same requests at the "
            "same times; it may still be chance."
        )
    table = headline_table(found.shown, caption)
    html = f"{table}<p><small>{escape(note)}</small></p>"
    return Part(name="headline", title="Time and quality", html=html)


def verdicts(found: SimulationEvidence) -> Part | None:
    """Say whether the queue was stable and whether anybody starved."""
    rows = [
        (one.name if i == 0 else "", what, line)
        for one in found.shown
        for i, (what, line) in enumerate(one.verdicts.items())
    ]
    if not rows:
        return None
    table = text_table(rows, ("run", "question", "verdict"), "Stable or not, starved or not.")
    return Part(name="verdicts", title="Verdicts", html=table)


def timeline(found: SimulationEvidence) -> Part:
    """Draw queue, residents, memory and batch over time."""
    return Part(
        name="timeline",
        title="Queue, memory and batch over time",
        figure=over_time(found),
        caption=(
            "Means over equal slices of simulated time, all servers together; decode rows are "
            "summed over servers that step at the same time. A queue that grows from left to right "
            "is overload. Where lines coincide the later run is drawn thinner, over the earlier "
            "one. A preempted request counts as in service, for a ledger does not date "
            "preemptions; a decision log and the Perfetto trace made with one do."
        ),
    )


def latencies(found: SimulationEvidence) -> Part:
    """Draw the latency distributions."""
    return Part(
        name="latencies",
        title="Latency distributions",
        figure=latency_shares(found),
        caption=(
            "Share of requests that were at most so slow; the time axis is logarithmic. The right "
            "end of a line is the slowest request. Requests that never got a token, or did not "
            "complete, are not in these lines: their number is in the table above."
        ),
    )


def text(found: SimulationEvidence) -> Part | None:
    """Draw what the laws did along the text."""
    figure = along_the_text(found)
    if figure is None:
        return None
    return Part(
        name="text",
        title="Entropy, temperature and coverage along the text",
        figure=figure,
        caption=(
            "By generated token, over requests: median of entropy and of temperature, with "
            "quartiles where at most two runs are shown, and mean of coverage. A line ends where "
            "fewer than one request in twenty is left; those left are the long ones. Greedy "
            "requests count with T = 1. Nothing here depends on load: the same request gets the "
            "same values however crowded the server is."
        ),
    )


def groups(found: SimulationEvidence) -> Part | None:
    """Show classes, and tenants where they are not the classes."""
    tables = []
    for kind in ("class", "tenant"):
        if not all(kind in one.groups for one in found.shown):
            continue
        grid, left_out = group_grid(found.shown, kind)
        more = f"; {left_out} smaller ones are not shown" if left_out else ""
        tables.append(html_table(grid, f"By {kind}{more}."))
    if not tables:
        return None
    return Part(name="groups", title="Classes and tenants", html="".join(tables))


def caveats(found: SimulationEvidence) -> Part | None:
    """List what a reader must know before quoting a number."""
    if not any(one.caveats for one in found.shown):
        return None
    common = [
        line for line in found.shown[0].caveats if all(line in one.caveats for one in found.shown)
    ]
    own = [
        f"{one.name}: {line}" for one in found.shown for line in one.caveats if line not in common
    ]
    html = "".join(f"<li>{escape(line)}</li>" for line in (*common, *own))
    return Part(
        name="caveats", title="What these numbers rest on", html=f"<ul class=notes>{html}</ul>"
    )


def worst(found: SimulationEvidence) -> Part | None:
    """Tell the story of the request that waited longest for its first token."""
    stories = []
    for one in found.shown:
        if not one.decisions or (request_id := worst_request(one)) is None:
            continue
        lines = explain(one.decisions, request_id).splitlines()
        if len(lines) > STORY_LINES:
            half = STORY_LINES // 2
            lines[half:-half] = [f"... {len(lines) - 2 * half} lines left out ..."]
        told = "".join(f"<li>{escape(line)}</li>" for line in lines)
        stories.append(f"<h3>{escape(one.name)}</h3><ul class=story>{told}</ul>")
    if not stories:
        return None
    intro = (
        "<p>The request that waited longest for its first token, told from the decision log: each "
        "line is a stretch of plans in which one rule applied to it.</p>"
    )
    return Part(
        name="worst", title="Why the slowest request was slow", html=intro + "".join(stories)
    )


def worst_request(one: Shown) -> int | None:
    """Return the id of the request with the longest time to first token; None without tokens."""
    requests = one.ledger.requests
    first, arrival = requests["first_token_ns"], requests["arrival_ns"]
    waits = np.where(first == NEVER, -1, first - arrival)
    if len(waits) == 0 or waits.max() < 0:
        return None
    return int(requests["request_id"][waits.argmax()])


def settings(found: SimulationEvidence) -> Part:
    """Show the whole configuration."""
    modes = {f"{one.name}.mode": one.mode for one in found.shown if one.mode}
    table = text_table(
        settings_of({**found.config, **modes}), ("setting", "value"), "Every setting."
    )
    return Part(name="settings", title="Configuration", html=table)
