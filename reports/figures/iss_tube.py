"""Noise and drift: how far a temperature law strays, beside the radius certified for it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.studies.theory import TubeRuns
from reports.style import COLOURS, INK, MUTED, new_figure, styled

LINES = (COLOURS["full"], COLOURS["sampling"], COLOURS["attention"], COLOURS["best"])
ROOM = 1.12


def iss_tube(table: TubeRuns, *, footer: str) -> Figure:
    """Draw one run that enters the moving tube, and the errors of all others against the radius."""
    with styled():
        figure = new_figure(11.0, 4.4, footer)
        left, right = figure.subplots(1, 2)
        _entering(left, table)
        _errors(right, table)
        return figure


def _entering(axis: Axes, table: TubeRuns) -> None:
    step = np.arange(len(table.command))
    low, high = np.exp(table.x_star - table.radius), np.exp(table.x_star + table.radius)
    axis.fill_between(step, low, high, color=COLOURS["scheduling"], alpha=0.3, linewidth=0)
    axis.plot(step, np.exp(table.x_star), color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axis.plot(step, np.exp(table.command), color=COLOURS["full"], linewidth=1.4)
    axis.set_ylim(top=ROOM * max(high.max(), np.exp(table.command.max())))
    axis.set_title("a run that starts too hot")
    axis.set_xlabel("tokens")
    axis.set_ylabel("temperature T")
    axis.legend(
        ["tube: x* ± radius", "equilibrium x*, drifting", f"{table.law}, noisy sensor"],
        loc="upper right", fontsize=8,
    )  # fmt: skip


def _errors(axis: Axes, table: TubeRuns) -> None:
    step = np.arange(len(table.error))
    half = (len(table.labels) - 1) // 2
    for lane, label in enumerate(table.labels[:-1]):
        axis.plot(
            step, np.abs(table.error[:, lane]), color=LINES[lane % len(LINES)], linewidth=1.1,
            linestyle="-" if lane < half else (0, (3, 1.5)), label=label,
        )  # fmt: skip
    axis.axhline(table.radius, color=INK, linewidth=1.4)
    axis.annotate(
        f"certified radius {table.radius:.3f}", (0.0, table.radius), xytext=(2, 4),
        textcoords="offset points", fontsize=8.5, color=INK,
    )  # fmt: skip
    axis.axhline(table.worst, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    axis.annotate(
        f"worst {table.worst:.3f}", (0.0, table.worst), xytext=(2, -3),
        textcoords="offset points", va="top", fontsize=8.5, color=MUTED,
    )  # fmt: skip
    axis.set_ylim(0.0, ROOM * table.radius)
    axis.set_title(f"runs that start on x*: radius/worst = {table.radius / table.worst:.2f}")
    axis.set_xlabel("tokens")
    axis.set_ylabel("|ln T − x*|")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
