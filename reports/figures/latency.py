"""Latency against load for the presets whose step time differs."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.studies.load import LoadSweep
from reports.style import COLOURS, INK, label_ends, new_figure, styled
from simulator.defaults import UTILISATION

# A line under another shows at its sides: attention and full share their step times.
WIDTHS = MappingProxyType({"attention": 3.6})
PANELS = (("ttft_s.mean", "mean time to first token, s"), ("e2e_s.mean", "mean end-to-end time, s"))


def latency_against_load(found: LoadSweep, *, footer: str) -> Figure:
    """Draw mean TTFT and end-to-end time against the arrival rate, with 95 % bands over seeds."""
    with styled():
        figure = new_figure(9.6, 3.6, footer)
        axes = figure.subplots(1, len(PANELS))
        for axis, (metric, label) in zip(axes, PANELS, strict=True):
            ends = [_line(axis, found, name, metric) for name in _presets(found)]
            axis.axvline(UTILISATION, color=INK, linewidth=1.0, linestyle=(0, (1, 2)))
            axis.set_title(label)
            axis.set_xlabel("arrival rate, share of full-batch dense capacity")
            axis.set_xlim(0.0, 1.18 * max(row.load for row in found.rows))
            axis.set_ylim(bottom=0.0)
            label_ends(axis, [end for end in ends if end is not None])
        axes[0].annotate(
            " ablation's load", (UTILISATION, 1.0), xycoords=("data", "axes fraction"),
            fontsize=8, color=INK, va="top",
        )  # fmt: skip
        return figure


def _presets(found: LoadSweep) -> list[str]:
    return list(dict.fromkeys(row.preset for row in found.rows))


def _line(
    axis: Axes, found: LoadSweep, name: str, metric: str
) -> tuple[str, float, float, str] | None:
    points = [
        (row.load, one.mean, one.half or 0.0)
        for row in found.rows
        if row.preset == name and (one := row.metrics[metric]) is not None
    ]
    if not points:
        return None
    load, mean, half = np.array(points).T
    colour, wide = COLOURS[name], WIDTHS.get(name, 1.8)
    axis.fill_between(load, mean - half, mean + half, color=colour, alpha=0.14, linewidth=0)
    axis.plot(load, mean, color=colour, marker="o", linewidth=wide, markersize=2.6 + wide)
    return name, float(load[-1]), float(mean[-1]), colour
