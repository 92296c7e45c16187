"""Measured against simulated on golden runs, and which inputs move the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.style import COLOURS, INK, MUTED, PAPER, new_figure, styled

MEASURED, SIMULATED = COLOURS["baseline"], COLOURS["full"]
SHOWN = (("ttft_pct", "mean TTFT"), ("tpot_pct", "mean TPOT"), ("e2e_pct", "mean end to end"))


def golden(runs: Sequence[Mapping[str, Any]], *, footer: str) -> Figure:
    """Draw a row per run: every request's TTFT and end-to-end time, and who runs and waits."""
    with styled():
        figure = new_figure(9.6, 0.6 + 2.9 * len(runs), footer)
        grid = figure.subplots(len(runs), 3, squeeze=False)
        for axes, run in zip(grid, runs, strict=True):
            means = {row["metric"]: row["diff_pct"] for row in run["rows"] if row["stat"] == "mean"}
            _against(axes[0], run["drawn"]["ttft_s"], "time to first token, s", means["ttft_s"])
            _against(axes[1], run["drawn"]["e2e_s"], "end to end, s", means["e2e_s"])
            axes[0].set_title(run["run"], loc="left")
            _series(axes[2], run["drawn"])
        return figure


def tornado(runs: Sequence[Mapping[str, Any]], *, footer: str) -> Figure:
    """Draw what each change of one input does to the three means, a column per run."""
    with styled():
        most = max(len(run["sensitivity"]) for run in runs)
        figure = new_figure(9.6, 1.2 + 0.44 * most, footer)
        axes = figure.subplots(1, len(runs), squeeze=False)[0]
        for axis, run in zip(axes, runs, strict=True):
            _bars(axis, run["sensitivity"])
            axis.set_title(run["run"], loc="left")
            axis.set_xlabel("change of the mean, %")
        lines, labels = axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside upper right", ncols=len(labels), fontsize=8)
        return figure


def _against(axis: Axes, pair: Mapping[str, Sequence[float]], what: str, diff: float) -> None:
    measured, simulated = np.array(pair["measured"]), np.array(pair["simulated"])
    top = 1.04 * max(measured.max(), simulated.max())
    axis.plot([0.0, top], [0.0, top], color=MUTED, linewidth=0.8)
    axis.plot(measured, simulated, ".", color=SIMULATED, markersize=3.4, alpha=0.6)
    axis.set_xlim(0.0, top)
    axis.set_ylim(0.0, top)
    axis.set_xlabel(f"measured: {what}")
    axis.set_ylabel("simulated, s")
    axis.annotate(
        f"mean {diff:+.1f} %", (0.04, 0.95), xycoords="axes fraction", fontsize=8.5,
        color=INK, va="top", bbox=dict(PAPER),
    )  # fmt: skip


def _series(axis: Axes, drawn: Mapping[str, Any]) -> None:
    t = drawn["t_s"]
    for name, style in (("waiting", "-"), ("running", "--")):
        axis.plot(t, drawn[name]["measured"], style, color=MEASURED, linewidth=1.6)
        axis.plot(t, drawn[name]["simulated"], style, color=SIMULATED, linewidth=1.2)
    axis.plot([], [], "-", color=INK, label="waiting")
    axis.plot([], [], "--", color=INK, label="running")
    axis.plot([], [], color=MEASURED, label="measured")
    axis.plot([], [], color=SIMULATED, label="simulated")
    axis.set_xlabel("seconds from the first arrival")
    axis.set_ylabel("requests")
    axis.set_ylim(0.0, 1.35 * axis.get_ylim()[1])
    axis.legend(fontsize=7, loc="upper right", ncols=2)


def _bars(axis: Axes, changes: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(changes, key=lambda c: max(abs(c[key]) for key, _ in SHOWN))
    tints = (COLOURS["seed"], COLOURS["scheduling"], COLOURS["full"])
    for index, ((key, label), tint) in enumerate(zip(SHOWN, tints, strict=True)):
        at = [line + 0.26 * (1 - index) for line in range(len(ordered))]
        axis.barh(at, [c[key] for c in ordered], height=0.24, color=tint, label=label)
    axis.axvline(0.0, color=INK, linewidth=0.8)
    axis.set_yticks(range(len(ordered)), [c["name"] for c in ordered], fontsize=7.5)
    axis.grid(visible=False, axis="y")
