"""The sign error on the live model: quantile bands of temperature and entropy under each preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controllers.temperature import X_MAX, X_MIN
from reports.style import COLOURS, INK, PAPER, new_figure, styled

TITLES = {
    "baseline": "baseline: fixed T",
    "seed": "seed: the sign as printed",
    "full": "full: the sign corrected",
    "best": "best: same-step Newton",
}
LOG_TICKS = (0.3, 0.5, 1.0, 1.8)


def stability(rows: Sequence[Mapping[str, Any]], *, footer: str) -> Figure:
    """Draw T and H at the applied T by generated token, one column per preset.

    ``rows`` are those of ``reports.studies.stability``: quantiles over requests, 5 to 95 %.
    """
    with styled():
        figure = new_figure(11.0, 5.2, footer)
        axes = figure.subplots(2, len(rows), sharex=True, sharey="row", squeeze=False)
        for column, row in enumerate(rows):
            colour = COLOURS[row["preset"]]
            _bands(axes[0, column], np.array(row["temperature_quantiles"]), colour)
            _bands(axes[1, column], np.array(row["entropy_quantiles"]), colour)
            axes[0, column].set_title(TITLES.get(row["preset"], row["preset"]))
            axes[1, column].set_xlabel("generated tokens")
            axes[1, column].axhline(row["target_nats"], color=INK, lw=1.0, linestyle=(0, (4, 3)))
            for bound in (X_MIN, X_MAX):
                axes[0, column].axhline(np.exp(bound), color=INK, lw=1.0, linestyle=(0, (1, 2)))
        axes[0, 0].set_ylabel("temperature T")
        axes[0, 0].set_yscale("log")
        axes[0, 0].set_yticks(LOG_TICKS, [f"{tick:g}" for tick in LOG_TICKS])
        axes[0, 0].minorticks_off()
        axes[1, 0].set_ylabel("entropy at T, nats")
        axes[1, 0].set_ylim(bottom=0.0)
        _note(axes[0, 0], "clips", float(np.exp(X_MAX)), "top")
        _note(axes[1, 0], "set-point H*", rows[0]["target_nats"], "bottom")
        return figure


def _bands(axis: Axes, quantiles: np.ndarray, colour: str) -> None:
    """Draw 5-95 % and 25-75 % bands and the median; ``quantiles`` is ``[5, tokens]``."""
    token = np.arange(quantiles.shape[1])
    axis.fill_between(token, quantiles[0], quantiles[4], color=colour, alpha=0.15, linewidth=0)
    axis.fill_between(token, quantiles[1], quantiles[3], color=colour, alpha=0.30, linewidth=0)
    axis.plot(token, quantiles[2], color=colour, linewidth=1.6)


def _note(axis: Axes, text: str, height: float, va: str) -> None:
    axis.annotate(
        text, (1.0, height), xycoords=("axes fraction", "data"), ha="right", va=va,
        xytext=(-2, -3 if va == "top" else 3), textcoords="offset points", fontsize=8, color=INK,
        bbox=dict(PAPER),
    )  # fmt: skip
