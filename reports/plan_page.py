"""The page of a capacity plan, made from its JSON document alone: one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from reports.figures.plan import GPU_HOURS, USD, cost_against_quality, knees, level_held
from reports.page import inside, render
from reports.parts import Part
from reports.simulation_page import check_page_target
from reports.simulation_tables import settings_of, text_table
from reports.tables import Cell, Grid, html_table
from traces.atomic import atomic_path
from traces.provenance import KEY, told
from traces.text import number

Document = Mapping[str, Any]

LEAD = (
    "How many servers a service level takes under each control preset, what they cost, and what "
    "the saving does to quality. Simulated on recorded traffic and on resamples of it; read "
    "what the plan rests on before buying anything."
)
OBJECTIVES = {
    GPU_HOURS: ("cost", "GPU h/M tokens"),
    "ttft_s.p99": ("TTFT p99", "s"),
    "nll_per_token_nats": ("NLL", "nat/token"),
    "pruning_kl_nats": ("pruning's KL to dense", "nat/token, quoted"),
}
COMPARED = {
    "ttft_s.p99": ("TTFT p99", "%"),
    "tpot_s.p95": ("TPOT p95", "%"),
    "e2e_s.mean": ("e2e mean", "%"),
    "busy_s": ("GPU busy", "%"),
    "kv_pages_kept_share": ("KV pages kept", "%"),
    "nll_per_token_nats": ("NLL", "nat/token"),
    "tau_per_token_nats": ("tau", "nat/token"),
}


def write_plan_page(path: Path, plan: Document) -> Path:
    """Write the page of a plan document to ``path``, whole or not at all; return the path."""
    check_page_target(path)
    text = plan_page(plan)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def plan_page(plan: Document) -> str:
    """Return the page as HTML; equal documents give equal text."""
    sections = (answer, level, knee, cost, quality, differences, notes, settings)
    parts = [part for section in sections if (part := section(plan)) is not None]
    config = plan["config"]
    title = f"Capacity plan: {config['planned_model']} on {config['profile_device']}"
    known = {name: str(plan[name]) for name in ("version", "seed") if plan.get(name) is not None}
    sources = {
        **known,
        **told(plan.get(KEY, {})),
        "traffic": str(config["arrivals"]),
        "entropies": f"{config['trace']}, sha256 {config['trace_sha256']}",
        "device profile": f"{config['profile_device']}, {config['profile_created']}",
    }
    return render(parts, sources, headline=title, lead=LEAD, picture=inside)


def answer(plan: Document) -> Part:
    """Give the number of servers and the cost, per preset."""
    config = plan["config"]
    money = config["usd_per_gpu_hour"] is not None
    cost = USD if money else GPU_HOURS
    unit = "USD/M tokens" if money else "GPU h/M tokens"
    rows = []
    for row in plan["rows"]:
        fewest, knee_at = row["fewest"], row["knee"]
        servers = str(row["replicas"]) if row["met"] else f"not with {fewest['replicas']}"
        rows.append(
            (
                Cell(row["preset"]),
                Cell(servers),
                Cell(_binding(row["one_less"] or fewest)),
                _share(row.get("load_of_knee")),
                _spread(fewest, "utilisation", 100.0),
                _spread(fewest, cost),
                Cell("-" if knee_at is None else number(knee_at["rate_per_s"])),
                Cell("-") if knee_at is None else _spread(knee_at, cost),
            )
        )
    grid = Grid(
        head=("preset", "servers", "what binds", "load", "busy", "cost", "knee", "cost at knee"),
        units=("", "", "", "% of knee", "% of time", unit, "requests/s, one server", unit),
        rows=tuple(rows),
    )
    caption = (
        f"Fewest servers that meet {config['slo']} at {config['rate_per_s']:.4g} requests/s, "
        f"{config['gpus_per_replica']} GPU(s) each. In brackets: where another recording of "
        "this traffic falls with 95 %. Load is per server, as a share of the knee of one."
    )
    return Part(name="answer", title="Answer", html=html_table(grid, caption))


def level(plan: Document) -> Part:
    """Draw how far inside the level each answer is."""
    return Part(
        name="level",
        title="Does the level hold?",
        figure=level_held(plan),
        caption=(
            "Each preset on its fewest servers, and below it, hollow, on one less. An answer holds "
            "where the recording and the far end of its resamples lie left of the bound (for "
            "a share: right of it). Axes end at four times the bound."
        ),
    )


def knee(plan: Document) -> Part | None:
    """Draw the knees."""
    figure = knees(plan)
    if figure is None:
        return None
    step = 100.0 * plan["config"]["knee_resolution"]
    caption = (
        "Traffic is stretched or squeezed in time, its shape kept, and the level is held against "
        f"the recording and its resamples; rates are tried on a ladder of {step:.0f} % steps."
    )
    return Part(name="knee", title="The knee of load", figure=figure, caption=caption)


def cost(plan: Document) -> Part:
    """Draw cost beside latency and likelihood, and name what dominates what."""
    points = plan["pareto"]["points"]
    shown = list(points[0]["values"] if points else plan["pareto"]["objectives"])
    rows = [
        (
            Cell(point["name"]),
            Cell(str(point["replicas"])),
            Cell(f"{point['rate_per_s']:.3g}"),
            *(Cell(number(point["values"][name])) for name in shown),
            Cell(point["dominated_by"] or "nobody"),
        )
        for point in plan["pareto"]["points"]
    ]
    heads, units = zip(*(OBJECTIVES.get(name, (name, "")) for name in shown), strict=True)
    grid = Grid(
        head=("operating point", "servers", "load", *heads, "dominated by"),
        units=("", "", "requests/s", *units, ""),
        rows=tuple(rows),
    )
    caption = (
        "A point is dominated by one that is told apart as better in cost, waiting or distance to "
        "dense attention and as worse in none; compared on the same traffic, beyond chance. NLL is "
        "shown, not ranked: a lower temperature lowers it, and that is not better text."
    )
    table = html_table(grid, caption)
    return Part(
        name="cost",
        title="Cost beside waiting and quality",
        html=table,
        figure=cost_against_quality(plan),
        caption=(
            "Filled: on the front, dominated by nobody. Where points coincide the later preset is "
            "the smaller mark. The likelihood drawn is that of dense attention; what pruning adds "
            "to it was measured on a model and is quoted in the table, not simulated."
        ),
    )


def quality(plan: Document) -> Part:
    """Show quality beside every saving."""
    rows = []
    for row in plan["rows"]:
        fewest, quote = row["fewest"], row["pruning_measured"]
        rows.append(
            (
                Cell(row["preset"]),
                _spread(fewest, "nll_per_token_nats"),
                _spread(fewest, "tau_per_token_nats"),
                _spread(fewest, "kv_pages_kept_share", 100.0),
                _spread(fewest, "coverage_mean"),
                Cell("no pruning" if quote is None else _quote(quote)),
            )
        )
    grid = Grid(
        head=("preset", "NLL", "tau", "KV pages kept", "coverage", "pruning's NLL"),
        units=("", "nat/token", "nat/token", "%", "mean", "nat/token, quoted"),
        rows=tuple(rows),
    )
    lines = "".join(
        f"<li>{escape(row['preset'])}: measured on {escape(quote['model'])}, "
        f"{escape(quote['setting'])}: KL to dense {quote['kl_nats']:.3g} nat, top-1 agreement "
        f"{100 * quote['top1_agreement']:.1f} %</li>"
        for row in plan["rows"]
        if (quote := row["pruning_measured"]) is not None
    )
    table = html_table(grid, "At the planned size; in brackets 95 % of resamples.")
    return Part(
        name="quality",
        title="Quality at that size",
        html=f"{table}<ul class=notes>{lines}</ul>" if lines else table,
    )


def differences(plan: Document) -> Part | None:
    """Show each preset against the reference on the same traffic and servers."""
    reference = plan["config"]["reference"]
    others = [row for row in plan["rows"] if row["preset"] != reference]
    if not others:
        return None
    shown = [n for n in COMPARED if any(_known(row["against_reference"].get(n)) for row in others)]
    rows = tuple(
        (Cell(row["preset"]), *(_difference(row["against_reference"].get(n), n) for n in shown))
        for row in others
    )
    grid = Grid(
        head=("preset", *(COMPARED[name][0] for name in shown)),
        units=("", *(COMPARED[name][1] for name in shown)),
        rows=rows,
    )
    servers = others[0]["alike"]["replicas"]
    caption = (
        f"Against {reference} on {servers} server(s), the same traffic for both; in brackets 95 % "
        "of resamples; * the interval excludes 0."
    )
    return Part(name="differences", title=f"Against {reference}", html=html_table(grid, caption))


def notes(plan: Document) -> Part:
    """List what the plan rests on."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in plan["notes"])
    return Part(name="notes", title="What this plan rests on", html=f"<ul class=notes>{lines}</ul>")


def settings(plan: Document) -> Part:
    """Show the whole configuration."""
    table = text_table(settings_of(plan["config"]), ("setting", "value"), "Every setting.")
    return Part(name="settings", title="Configuration", html=table)


def _binding(load: Document) -> str:
    """Return the clause with the least slack: of one server less, where there is one."""
    known = [clause for clause in load["clauses"] if clause["slack_share"] is not None]
    if not known:
        return "nothing was measured"
    least = min(known, key=lambda clause: clause["slack_share"])
    return str(least["clause"])


def _spread(load: Document, name: str, scale: float = 1.0) -> Cell:
    found = load["figures"].get(name)
    hours = None if found is None else found["other_hours"]
    if hours is None:
        return Cell("-")
    return Cell(number(scale * hours["centre"]), _brackets(hours, scale))


def _share(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{100 * value:.0f}")


def _brackets(hours: Document, scale: float) -> str:
    low, high = hours["low"], hours["high"]
    if low is None or high is None or low == high:
        return ""
    return f"[{number(scale * low)}, {number(scale * high)}]"


def _known(found: Document | None) -> bool:
    return found is not None and found["difference"] is not None


def _difference(found: Document | None, name: str) -> Cell:
    if found is None or found["difference"] is None:
        return Cell("-")
    hours, scale = found["difference"], 1.0
    if COMPARED[name][1] == "%":
        if found["share"] is None or hours["centre"] == 0.0:
            return Cell("0" if hours["centre"] == 0.0 else "-")
        scale = 100.0 * found["share"] / hours["centre"]  # into per cent of the reference
    low, high = (None if hours[k] is None else scale * hours[k] for k in ("low", "high"))
    half = "" if low is None or high is None or low == high else f"[{low:+.3g}, {high:+.3g}]"
    centre = scale * hours["centre"]
    return Cell(f"{centre:+.3g}" if centre else "0", half, found["told_apart"])


def _quote(quote: Document) -> str:
    return f"{quote['nll_change_nats']:+.3f} ± {quote['nll_change_ci95']:.3f}"
