"""Gain against slope: where theory puts the edge of stability, and where the law diverged."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.studies.theory_limits import Region
from reports.style import COLOURS, INK, new_figure, styled

GAIN_TICKS = (0.01, 0.03, 0.1, 0.3)
V_TICKS = (1, 3, 10, 30)
TOP_V = 90.0
LATE = ("sensor on time", "one token late", "two tokens late")
HELD, DIVERGED, DEFAULT = COLOURS["scheduling"], COLOURS["seed"], COLOURS["attention"]


def stability_region(table: Region, *, footer: str) -> Figure:
    """Draw gain V = 2 sin(pi/(4m + 2)) for each delay m, with the points that were run."""
    with styled():
        figure = new_figure(11.0, 4.6, footer)
        axes = figure.subplots(1, len(table.limits), sharex=True, sharey=True, squeeze=False)[0]
        for index, (axis, (delay, limit)) in enumerate(zip(axes, table.limits, strict=True)):
            _points(axis, table, delay)
            gain = np.geomspace(table.gain.min(), table.gain.max(), 50)
            axis.plot(gain, limit / gain, color=INK, linewidth=1.6)
            _bounds(axis, table, named=index == 0)
            _default(axis, table, index)
            axis.set_title(f"{LATE[delay]}: gain·V < {limit:.3g}")
            axis.set_xlabel("gain, ln T per nat")
        axes[0].set_xscale("log")
        axes[0].set_yscale("log")
        axes[0].set_xlim(0.9 * table.gain.min(), 1.05 * table.gain.max())
        axes[0].set_ylim(0.9 * table.v.min(), TOP_V)
        axes[0].set_xticks(GAIN_TICKS, [f"{tick:g}" for tick in GAIN_TICKS])
        axes[0].set_yticks(V_TICKS, [f"{tick:g}" for tick in V_TICKS])
        axes[0].minorticks_off()
        axes[0].set_ylabel("slope V at the equilibrium, nats²")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4, fontsize=8.5)
        return figure


def _points(axis: Axes, table: Region, delay: int) -> None:
    here = table.delay == delay
    for kind, colour, marker, name in (
        (~table.diverged, HELD, "o", "plain law: small error shrank"),
        (table.diverged, DIVERGED, "x", "plain law: it grew"),
    ):
        some = here & kind
        axis.plot(
            table.gain[some], table.v[some], color=colour, marker=marker, linestyle="none",
            markersize=3.2, markeredgewidth=1.0, label=name,
        )  # fmt: skip


def _bounds(axis: Axes, table: Region, *, named: bool) -> None:
    for _, n_max in table.n_max:
        axis.axhline(n_max, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    if named:
        each = (f"{n_max:.1f}, n = {outcomes:,}" for outcomes, n_max in reversed(table.n_max))
        axis.annotate(
            "Nₙ = " + "\nNₙ = ".join(each), (0.99, 0.99), xycoords="axes fraction", ha="right",
            va="top", fontsize=8, color=INK,
        )  # fmt: skip


def _default(axis: Axes, table: Region, index: int) -> None:
    """Draw the default law: its gain falls with V, so it bends away from the edge."""
    v = np.geomspace(table.default_v[0], table.default_v[-1], 200)
    g = np.interp(v, table.default_v, table.default_g)
    axis.axvline(table.default_gain, color=DEFAULT, linewidth=0.9, linestyle=(0, (1, 2)))
    axis.plot(
        g,
        v,
        color=DEFAULT,
        linewidth=2.0,
        label="default law, min(gain, c/(V + v0)): runs on the line",
    )
    grew = table.default_diverged[index]
    for some, marker in ((~grew, "o"), (grew, "x")):
        axis.plot(
            table.default_g[some], table.default_v[some], color=DEFAULT, marker=marker,
            linestyle="none", markersize=3.5,
        )  # fmt: skip
