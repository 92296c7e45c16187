"""Measured against simulated on our own backend: latencies, what the laws did, the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.style import COLOURS, MUTED, new_figure, styled

MEASURED, SIMULATED = COLOURS["baseline"], COLOURS["full"]
LATENCIES = (("ttft_s", "time to first token, s"), ("tpot_s", "time per output token, s"))
CURVES = (
    ("temperature", "T"),
    ("coverage", "coverage"),
    ("h_applied_nats", "H at applied T, nats"),
)
Document = Mapping[str, Any]


def latencies(document: Document, *, footer: str) -> Figure:
    """Draw the distribution of TTFT and TPOT of every preset and load, a column each."""
    cells = _cells(document)
    with styled():
        figure = new_figure(max(9.6, 2.3 * len(cells)), 5.4, footer)
        axes = figure.subplots(2, len(cells), squeeze=False, sharey=True)
        for column, cell in enumerate(cells):
            for line, (name, label) in enumerate(LATENCIES):
                axis, drawn = axes[line][column], cell["drawn"][name]
                for repeat in drawn["measured"]:
                    _steps(axis, repeat, MEASURED, 0.7)
                _steps(axis, drawn["simulated"], SIMULATED, 1.6)
                axis.set_xlabel(label)
                axis.set_ylim(0.0, 1.0)
            axes[0][column].set_title(_title(cell), loc="left")
        axes[0][0].set_ylabel("share of requests")
        axes[1][0].set_ylabel("share of requests")
        _legend(figure)
        return figure


def curves(document: Document, *, footer: str) -> Figure | None:
    """Draw temperature, coverage and entropy per token of every preset, at its highest load."""
    last = {cell["preset"]: cell for cell in _cells(document)}
    if not last:
        return None
    with styled():
        figure = new_figure(9.6, 0.5 + 2.1 * len(last), footer)
        axes = figure.subplots(len(last), len(CURVES), squeeze=False, sharey=True)
        for row, (preset, cell) in zip(axes, last.items(), strict=True):
            for axis, (name, label) in zip(row, CURVES, strict=True):
                for side, colour, width in (
                    ("measured", MEASURED, 2.2),
                    ("simulated", SIMULATED, 1.2),
                ):
                    values = cell["drawn"][name][side]
                    axis.plot(values, np.linspace(0.0, 1.0, len(values)), color=colour, lw=width)
                axis.set_xlabel(label)
            row[0].set_ylabel(f"{preset}\nshare of tokens")
        _legend(figure)
        return figure


def queues(document: Document, *, footer: str) -> Figure | None:
    """Draw requests in the system above capacity, a panel per run."""
    every = [(found, run) for found in document["growth"] for run in found["drawn"]]
    if not every:
        return None
    with styled():
        figure = new_figure(9.6, 3.2, footer)
        axes = figure.subplots(1, len(every), squeeze=False, sharey=True)[0]
        for axis, (found, run) in zip(axes, every, strict=True):
            for side, colour in (("measured", MEASURED), ("simulated", SIMULATED)):
                axis.plot(run[side]["t_s"], run[side]["inside"], color=colour)
            axis.set_title(f"{found['preset']}, {found['load']:.0%}", loc="left")
            axis.set_xlabel("seconds from the first arrival")
        axes[0].set_ylabel("requests in the system")
        _legend(figure)
        return figure


def _title(cell: Mapping[str, Any]) -> str:
    """Name preset, load, repeats, and how many runs were set aside where that is known."""
    aside = f", {cell['set_aside']} set aside" if cell.get("set_aside") else ""
    return f"{cell['preset']}, {cell['load']:.0%}\n{cell['repeats']} repeats{aside}"


def _cells(document: Document) -> list[Mapping[str, Any]]:
    return [cell for cell in document["cells"] if cell["drawn"]]


def _steps(axis: Axes, values: Sequence[float], colour: str, width: float) -> None:
    share = (np.arange(len(values)) + 1.0) / len(values)
    axis.step(values, share, where="post", color=colour, linewidth=width)


def _legend(figure: Figure) -> None:
    axis = figure.axes[0]
    lines = [
        axis.plot([], [], color=colour, label=label)[0]
        for colour, label in ((MEASURED, "measured"), (SIMULATED, "simulated"))
    ]
    figure.legend(handles=lines, loc="outside upper right", ncols=2, fontsize=8, labelcolor=MUTED)
