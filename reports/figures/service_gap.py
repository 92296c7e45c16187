"""Starvation: how long one request waits among fresh arrivals, with the bound of the aged law."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.studies.theory_limits import ServiceGap, Wait
from reports.style import COLOURS, INK, new_figure, styled

LAWS = {"printed": COLOURS["seed"], "aged": COLOURS["full"], "arrival order": COLOURS["baseline"]}

NAMES = {"printed": "as printed", "aged": "with aging", "arrival order": "arrival order"}


def service_gap(table: ServiceGap, *, footer: str) -> Figure:
    """Draw the victim's wait and its longest wait so far by step, a line per law."""
    with styled():
        figure = new_figure(9.6, 4.4, footer)
        axis = figure.subplots()
        for wait in table.waits:
            _line(axis, wait)
        for bound in (wait.bound for wait in table.waits if wait.law == "aged"):
            axis.axhline(bound, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
            axis.annotate(
                f"bound of the aged law: {bound:.0f} steps", (1.0, bound),
                xycoords=("axes fraction", "data"), xytext=(-2, 4), textcoords="offset points",
                ha="right", fontsize=8.5, color=INK,
            )  # fmt: skip
        axis.set_xlabel("serving steps")
        axis.set_ylabel("steps without service")
        axis.set_xlim(0, table.steps)
        axis.set_ylim(bottom=0)
        axis.legend(loc="upper left", fontsize=8.5)
        return figure


def _line(axis: Axes, wait: Wait) -> None:
    step, colour = np.arange(len(wait.now)), LAWS[wait.law]
    if (wait.now < wait.longest).any():  # else both lines are one
        axis.fill_between(step, wait.now, color=colour, alpha=0.15, linewidth=0)
        axis.plot(step, wait.now, color=colour, linewidth=0.8)
    axis.plot(step, wait.longest, color=colour, label=_label(wait))
    if wait.finished:
        axis.plot(step[-1], wait.longest[-1], color=colour, marker="o", clip_on=False)


def _label(wait: Wait) -> str:
    end = "finished" if wait.finished else "unfinished"
    return f"{NAMES[wait.law]}: longest gap {wait.longest[-1]}, {end} at step {len(wait.now)}"
