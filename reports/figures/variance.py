"""Variance of entropy at matched mean: each law against the fixed temperature of its own mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.style import COLOURS, INK, new_figure, styled

LAW_COLOURS = (COLOURS["full"], COLOURS["sampling"], COLOURS["best"], COLOURS["seed"])


def variance(
    recorded: Sequence[Mapping[str, Any]], live: Sequence[Mapping[str, Any]], *, footer: str
) -> Figure:
    """Draw Var(H) over that of the matched fixed T, with 95 % intervals; below 1 is steadier.

    Left: on recorded logits, against the set-point. Right: live, one point per law, and the ratio
    1 of a fixed temperature. ``live`` may be empty.
    """
    laws = list(dict.fromkeys(row["law"] for row in recorded))
    with styled():
        figure = new_figure(9.6, 4.0, footer)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for index, law in enumerate(laws):
            rows = [row for row in recorded if row["law"] == law]
            targets = np.array([row["target_nats"] for row in rows])
            shift = 0.02 * (index - (len(laws) - 1) / 2)
            _points(left, targets + shift, rows, LAW_COLOURS[index % len(LAW_COLOURS)], law)
        left.set_xlabel("set-point H*, nats")
        left.set_ylabel("Var(H) over that of the\nfixed T with the same mean H")
        left.set_title("recorded logits")
        left.legend(loc="upper right", fontsize=8)
        judged = [row for row in live if "ratio" in row]
        for index, row in enumerate(judged):
            colour = LAW_COLOURS[laws.index(row["law"]) % len(LAW_COLOURS)]
            _points(right, np.array([index]), [row], colour, None)
        right.set_xticks(range(len(judged)), [row["law"] for row in judged])
        right.set_xlim(-0.6, max(len(judged), 1) - 0.4)
        target = f"live, H* = {judged[0]['target_nats']:g} nat" if judged else "live: not run"
        right.set_title(target)
        for axis in (left, right):
            axis.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
            axis.set_ylim(bottom=0.0)
        return figure


def _points(
    axis: Axes, x: np.ndarray, rows: Sequence[Mapping[str, Any]], colour: str, label: str | None
) -> None:
    mean = [row["ratio"]["mean"] for row in rows]
    half = [row["ratio"]["ci95"] or 0.0 for row in rows]
    axis.errorbar(
        x, mean, yerr=half, color=colour, marker="o", markersize=5, capsize=3, label=label
    )
