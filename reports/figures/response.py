"""How entropy answers temperature: H(T) of recorded logits, by task class."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from reports.style import COLOURS, INK, new_figure, styled
from traces.schema import T_NODES
from traces.store import Trace


def entropy_response(trace: Trace, *, target_nats: float, footer: str) -> Figure:
    """Draw the median and quartiles of H over tokens against T, a panel per task class."""
    classes = sorted({request.task_class for request in trace.requests})
    class_of = np.array([classes.index(request.task_class) for request in trace.requests])
    of_row = class_of[trace.columns["request"]]
    with styled():
        figure = new_figure(9.6, 3.2, footer)
        axes = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
        for index, (axis, name) in enumerate(zip(axes, classes, strict=True)):
            h = trace.columns["h"][of_row == index]
            low, middle, high = np.percentile(h, [25, 50, 75], axis=0)
            axis.fill_between(T_NODES, low, high, color=COLOURS["full"], alpha=0.22, linewidth=0)
            axis.plot(T_NODES, middle, color=COLOURS["full"], marker="o", markersize=3)
            axis.axhline(target_nats, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
            axis.set_title(name)
            axis.set_xlabel(f"temperature T\n(n = {len(h):,} tokens)")
        axes[0].annotate(
            "set-point H*", (T_NODES[0], target_nats), fontsize=8, color=INK,
            xytext=(0, 3), textcoords="offset points",
        )  # fmt: skip
        axes[0].set_ylabel("entropy H(T), nats")
        axes[0].set_ylim(bottom=0.0)
        return figure
