"""A plan in pictures: does the level hold, where is the knee, what does each preset cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.simulation_parts import colours
from reports.style import INK, MUTED, PAPER, new_figure, styled

Document = Mapping[str, Any]

GPU_HOURS = "gpu_hours_per_million_tokens"
USD = "usd_per_million_tokens"
MS = 1e3  # latencies below a second are shown in milliseconds


def footer(plan: Document) -> str:
    """Return what every figure of a plan rests on."""
    config = plan["config"]
    return (
        f"simulated: {config['requests']:,} requests, the recording and "
        f"{config['resampled_hours']} resamples; {config['planned_model']} on "
        f"{config['profile_device']}"
    )


def level_held(plan: Document) -> Figure:
    """Draw every clause of the level: the recording, resamples, and the bound."""
    rows = plan["rows"]
    colour = colours(tuple(row["preset"] for row in rows))
    clauses = [clause["clause"] for clause in rows[0]["fewest"]["clauses"]]
    with styled():
        height = 1.5 + 0.62 * len(rows)
        figure = new_figure(9.6, height, footer(plan))
        axes = figure.subplots(1, len(clauses), squeeze=False)[0]
        for index, (axis, clause) in enumerate(zip(axes, clauses, strict=True)):
            for line, row in enumerate(rows):
                _held(axis, row, index, line, colour[row["preset"]])
            _bound(axis, rows[0]["fewest"]["clauses"][index], clause)
            axis.set_yticks(range(len(rows)), [row["preset"] for row in rows])
            axis.tick_params(axis="y", labelleft=index == 0)
            axis.set_ylim(len(rows) - 0.4, -0.6)
        shown = [("recording", "D", True), ("resamples, 95 %", "line", True)]
        if any(row["one_less"] is not None for row in rows):
            shown.append(("the same with one server less", "D", False))
        _key(figure, shown)
        return figure


def knees(plan: Document) -> Figure | None:
    """Draw how much load one server takes: the knee, and the first rung that fails."""
    rows = [row for row in plan["rows"] if row["knee"] is not None]
    if not rows:
        return None
    colour = colours(tuple(row["preset"] for row in plan["rows"]))
    with styled():
        figure = new_figure(9.6, 1.5 + 0.45 * len(rows), footer(plan))
        axis = figure.subplots()
        for line, row in enumerate(rows):
            rate, above = row["knee"]["rate_per_s"], row["knee_fails_at_per_s"]
            tint = colour[row["preset"]]
            axis.plot([0.0, rate], [line, line], color=tint, linewidth=6, solid_capstyle="butt")
            axis.annotate(
                f"{rate:.3g}", (rate, line), xytext=(-5, 9), textcoords="offset points",
                ha="right", fontsize=8, color=INK,
            )  # fmt: skip
            if above is not None:
                axis.plot([above], [line], marker="x", color=INK, markersize=7, markeredgewidth=1.6)
        axis.set_yticks(range(len(rows)), [row["preset"] for row in rows])
        axis.set_ylim(len(rows) - 0.4, -0.7)
        axis.set_xlim(left=0.0)
        axis.set_xlabel("requests per second of one server")
        axis.set_title("Largest load that one server meets the level at")
        axis.grid(visible=False, axis="y")
        _key(figure, [("meets the level up to here", "bar", True), ("fails here", "x", True)])
        return figure


def cost_against_quality(plan: Document) -> Figure:
    """Draw every operating point: cost against latency, and cost against likelihood."""
    points = plan["pareto"]["points"]
    colour = colours(tuple(row["preset"] for row in plan["rows"]))
    price = plan["config"]["usd_per_gpu_hour"]
    unit = "GPU hours" if price is None else "USD"
    names = list(colour)
    sizes = {name: 11.0 - 5.0 * i / max(1, len(names) - 1) for i, name in enumerate(names)}
    with styled():
        figure = new_figure(9.6, 4.0, footer(plan))
        axes = figure.subplots(1, 2)
        panels = (
            ("ttft_s.p99", "time to first token, p99, s", "Cost against waiting"),
            ("nll_per_token_nats", "NLL, nat per token", "Cost against likelihood"),
        )
        for axis, (name, label, title) in zip(axes, panels, strict=True):
            for point in points:
                size = sizes[point["preset"]]
                scale = 1.0 if price is None else price
                _point(axis, point, name, colour[point["preset"]], scale, size)
            axis.set_xlabel(f"{unit} per million output tokens")
            axis.set_ylabel(label)
            axis.set_title(title)
            axis.set_xlim(left=0.0, right=1.15 * axis.get_xlim()[1])
            axis.set_ylim(bottom=0.0, top=1.15 * axis.get_ylim()[1])
        figure.legend(
            handles=[
                *(_dot(tint, "o", name) for name, tint in colour.items()),
                _dot(INK, "o", "as planned"),
                _dot(INK, "^", "at the knee"),
                _dot(INK, "o", "dominated", filled=False),
            ],
            loc="outside upper center",
            ncols=min(len(names) + 3, 7),
        )
        return figure


def _held(axis: Axes, row: Document, index: int, line: int, tint: str) -> None:
    for load, filled, shift in ((row["fewest"], True, 0.0), (row["one_less"], False, 0.26)):
        if load is None:
            continue
        found = load["clauses"][index]
        scale = _scale(found)
        hours, at = found["other_hours"], line + shift
        if hours is not None and hours["low"] is not None:
            axis.plot(
                [scale * hours["low"], scale * hours["high"]], [at, at], color=tint,
                linewidth=2.4 if filled else 1.1,
            )  # fmt: skip
        if found["recorded"] is not None:
            axis.plot(
                [scale * found["recorded"]], [at], marker="D", markersize=5.5, color=tint,
                markerfacecolor=tint if filled else "white",
            )  # fmt: skip


def _scale(clause: Document) -> float:
    return MS if _in_ms(clause) else 1.0


def _in_ms(clause: Document) -> bool:
    return clause["metric"].split(".")[0].endswith("_s") and clause["bound"] < 1.0


def _bound(axis: Axes, clause: Document, title: str) -> None:
    unit = "milliseconds" if _in_ms(clause) else "seconds"
    if not clause["metric"].split(".")[0].endswith("_s"):
        unit = "share"
    bound = _scale(clause) * clause["bound"]
    axis.axvline(bound, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
    axis.annotate(
        "bound", (bound, 1.0), xycoords=("data", "axes fraction"), xytext=(-3, -2),
        textcoords="offset points", ha="right", va="top", fontsize=8, color=INK, bbox=dict(PAPER),
    )  # fmt: skip
    axis.set_xlabel(unit)
    axis.set_title(title)
    axis.set_xlim(left=0.0, right=max(1.1 * bound, min(axis.get_xlim()[1], 4.0 * bound)))
    axis.grid(visible=False, axis="y")


def _point(axis: Axes, point: Document, name: str, tint: str, price: float, size: float) -> None:
    cost, value = point["values"][GPU_HOURS], point["values"][name]
    if cost is None or value is None:
        return
    marker = "^" if point["name"].endswith("knee") else "o"
    best = point["dominated_by"] is None
    axis.plot(
        [price * cost], [value], marker=marker, markersize=size, linestyle="none", color=tint,
        markerfacecolor=tint if best else "white", markeredgewidth=1.6,
    )  # fmt: skip


def _dot(tint: str, marker: str, label: str, *, filled: bool = True) -> Line2D:
    face = tint if filled else "white"
    return Line2D(
        [], [], marker=marker, linestyle="none", color=tint, markerfacecolor=face, label=label
    )


def _key(figure: Figure, entries: Sequence[tuple[str, str, bool]]) -> None:
    handles = []
    for label, marker, filled in entries:
        if marker in ("line", "bar"):
            wide = 2.4 if marker == "line" else 6.0
            handles.append(Line2D([], [], color=MUTED, linewidth=wide, label=label))
        else:
            tint = INK if marker == "x" else MUTED
            handles.append(_dot(tint, marker, label, filled=filled))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
