"""How entropy answers temperature on fixed logits, and its slope: the varentropy."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.studies.theory import Response, Responses
from reports.style import COLOURS, INK, MUTED, PAPER, new_figure, styled

TICKS_T = (0.3, 0.5, 0.7, 1.0, 1.4, 1.8)
TANGENT = 0.2  # half its length, ln T
ROOM = 1.28  # above the highest line


def varentropy(table: Responses, *, footer: str) -> Figure:
    """Draw H over ln T with tangents of slope V, and V itself below, beside its maximum N_n."""
    with styled():
        figure = new_figure(9.6, 5.6, footer)
        axes = figure.subplots(
            2, len(table.curves), sharex=True, squeeze=False, height_ratios=(3, 2)
        )
        for column, curve in enumerate(table.curves):
            _entropy(axes[0, column], curve)
            _slope(axes[1, column], curve, table)
        axes[0, 0].set_ylabel("entropy H, nats")
        axes[1, 0].set_ylabel("slope dH/d ln T = V,\nnats²")
        _text(axes[1, 0], table)
        axes[0, 0].legend(loc="upper left", fontsize=8)
        return figure


def _entropy(axis: Axes, curve: Response) -> None:
    axis.plot(curve.x, curve.h, color=COLOURS["full"], label="H")
    for i, label in zip(curve.tangents, ("tangent, slope V", *[None] * 99), strict=False):
        x = curve.x[i] + np.array([-TANGENT, TANGENT])
        y = curve.h[i] + curve.v[i] * (x - curve.x[i])
        axis.plot(x, y, color=COLOURS["seed"], linewidth=1.3, label=label)
        axis.plot(curve.x[i], curve.h[i], color=COLOURS["seed"], marker="o", markersize=3.5)
    axis.set_title(curve.title)
    axis.set_ylim(0.0, 1.1 * curve.h.max())


def _slope(axis: Axes, curve: Response, table: Responses) -> None:
    axis.plot(curve.x, curve.v, color=COLOURS["full"])
    axis.plot(
        curve.x[curve.tangents], curve.v[curve.tangents], color=COLOURS["seed"], marker="o",
        linestyle="none", markersize=3.5,
    )  # fmt: skip
    axis.axhline(table.n_max, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axis.annotate(
        f"Nₙ = {table.n_max:.2f} for n = {table.outcomes:,}", (0.0, table.n_max),
        xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points", fontsize=8,
        color=INK,
    )  # fmt: skip
    axis.set_ylim(0.0, ROOM * table.n_max)
    axis.set_xticks(np.log(TICKS_T), [f"{t:g}" for t in TICKS_T])
    axis.set_xlabel("temperature T")


def _text(axis: Axes, table: Responses) -> None:
    """Mark the largest V of any recorded token."""
    axis.plot(
        np.log(table.text_t), table.text_v, color=MUTED, marker="^", linestyle="none",
        markersize=4.5,
    )  # fmt: skip
    axis.annotate(
        f"largest of {table.text_tokens:,}\nrecorded tokens",
        (np.log(table.text_t[2]), table.text_v[2]), xytext=(-6, 4),
        textcoords="offset points", ha="right", va="bottom", fontsize=8, color=MUTED,
        bbox=dict(PAPER),
    )  # fmt: skip
