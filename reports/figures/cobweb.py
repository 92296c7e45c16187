"""Cobwebs of the printed and the corrected temperature law on the same logits."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.studies.theory import Cobweb, Web
from reports.style import COLOURS, INK, MUTED, new_figure, styled

TICKS_T = (0.3, 0.5, 1.0, 1.8)
ROWS = {"printed": COLOURS["seed"], "corrected": COLOURS["full"]}
SIGNS = {"printed": "+", "corrected": "−"}
STILL = 1e-3  # ln T
CYCLE = 0.05  # ln T between two late steps


def cobweb(table: Cobweb, *, footer: str) -> Figure:
    """Draw x+ over x as T, the diagonal, and the steps from one start; a column per gain."""
    multiples = list(dict.fromkeys(web.multiple for web in table.webs))
    with styled():
        figure = new_figure(11.0, 6.6, footer)
        axes = figure.subplots(len(ROWS), len(multiples), sharex=True, sharey=True, squeeze=False)
        for web in table.webs:
            row, column = list(ROWS).index(web.law), multiples.index(web.multiple)
            _panel(axes[row, column], web, table.x_star)
        for axis in axes[:, 0]:
            axis.set_ylabel("next temperature")
        for axis in axes[-1]:
            axis.set_xlabel("temperature T")
        ticks = np.log(TICKS_T), [f"{t:g}" for t in TICKS_T]
        axes[0, 0].set_xticks(*ticks)
        axes[0, 0].set_yticks(*ticks)
        return figure


def _panel(axis: Axes, web: Web, x_star: float) -> None:
    axis.plot(web.x, web.x, color=MUTED, linewidth=0.9)
    axis.plot(web.x, web.after, color=ROWS[web.law], linewidth=2.0)
    x, y = _stairs(web.path)
    axis.plot(x, y, color=INK, linewidth=0.8)
    axis.plot(web.path[0], web.path[0], color=INK, marker="s", markersize=4)
    axis.plot(x_star, x_star, color=INK, marker="o", markersize=6, markerfacecolor="white")
    axis.set_aspect("equal")
    times = f"{web.multiple:g}/Nₙ" if web.multiple != 1.0 else "1/Nₙ"
    axis.set_title(f"{web.law}, {SIGNS[web.law]}{times}", fontsize=9.5)
    axis.annotate(
        f"gain {web.gain:.3f}\n{ending(web, x_star)}", (0.04, 0.96),
        xycoords="axes fraction", va="top", fontsize=8, color=INK,
    )  # fmt: skip


def _stairs(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cobweb's corners: up to the map, across to the diagonal."""
    x = np.repeat(path, 2)
    return x[:-1], np.concatenate([path[:1], np.repeat(path[1:], 2)])[: len(x) - 1]


def ending(web: Web, x_star: float) -> str:
    """Say where the steps end, from their last two."""
    before, last = web.path[-2:]
    if abs(last - before) > CYCLE:
        return f"cycles, T {np.exp(min(before, last)):.2f} to {np.exp(max(before, last)):.2f}"
    if np.isclose(last, [web.x[0], web.x[-1]]).any():
        return f"runs to the clip, T {np.exp(last):.2f}"
    return "settles" if abs(last - x_star) < STILL else "still settling"
