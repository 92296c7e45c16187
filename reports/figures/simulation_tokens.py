"""What the laws did along the text: entropy, temperature and coverage by generated token."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controllers.serving.ledger import Ledger
from reports.simulation_parts import Shown, SimulationEvidence, line_widths
from reports.style import INK, PAPER, new_figure, styled

GROUPS = 60  # of neighbouring positions, each one point of a line
FEWEST = 0.05  # of the requests must have got so far
_SHARES = (25.0, 50.0, 75.0)


def along_the_text(found: SimulationEvidence) -> Figure | None:
    """Draw medians and quartiles, and mean coverage, by position; None without token rows."""
    shown = [one for one in found.shown if len(one.ledger.tokens)]
    if not shown:
        return None
    columns = ("h_applied", "command", "coverage")
    titles = ("Entropy at the applied T", "Temperature", "Mean coverage asked")
    units = ("nats", "T", "share of attention mass")
    with styled():
        figure = new_figure(9.6, 3.4, found.footer)
        axes = figure.subplots(1, 3)
        for axis, column, title, unit in zip(axes, columns, titles, units, strict=True):
            for one, width in zip(shown, line_widths(len(shown)), strict=True):
                _line(axis, one, column, width, quartiles=len(shown) <= 2)
            axis.set_title(title)
            axis.set_ylabel(unit)
            axis.set_xlabel("generated tokens")
            axis.set_xlim(left=0.0)
        axes[0].set_ylim(bottom=0.0)
        axes[1].set_ylim(bottom=0.0)
        axes[2].set_ylim(min(0.9, axes[2].get_ylim()[0]), 1.005)
        if found.target_nats is not None:
            axes[0].axhline(found.target_nats, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
            axes[0].annotate(
                "set-point H*", (1.0, found.target_nats), xycoords=("axes fraction", "data"),
                ha="right", va="bottom", xytext=(-2, 2), textcoords="offset points", fontsize=8,
                color=INK, bbox=dict(PAPER),
            )  # fmt: skip
        if len(shown) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=7)
        return figure


def by_position(ledger: Ledger, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return positions ``[g]``, and quartiles and mean ``[4, g]`` over the tokens of each group.

    A group with too few tokens is left out: its figures would be those of a few long requests.
    """
    positions = ledger.tokens["position"]
    values = ledger.tokens[column].astype(np.float64)
    values = np.exp(values) if column == "command" else values
    width = max(1, -(-int(positions.max() + 1) // GROUPS))
    group = positions // width
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(group.max() + 2))
    enough = max(1.0, FEWEST * len(ledger.requests)) * width
    middles, figures = [], []
    for index, (start, end) in enumerate(pairwise(ends.tolist())):
        found = values[order[start:end]]
        found = found[np.isfinite(found)]
        if len(found) >= enough:
            middles.append((index + 0.5) * width)
            figures.append([*np.percentile(found, _SHARES), found.mean()])
    return np.array(middles), np.array(figures).reshape(-1, 4).T


def _line(axis: Axes, one: Shown, column: str, width: float, *, quartiles: bool) -> None:
    where, (low, median, high, mean) = by_position(one.ledger, column)
    averaged = column == "coverage"  # most rows are dense, and a median would hide the others
    if quartiles and not averaged:
        axis.fill_between(where, low, high, color=one.colour, alpha=0.18, linewidth=0)
    values = mean if averaged else median
    axis.plot(where, values, color=one.colour, label=one.name, linewidth=width)
