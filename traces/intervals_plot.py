"""A figure of an interval trace: the band that mean entropy lies in, by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from controllers.core import require
from traces.atomic import atomic_path
from traces.intervals import IntervalTrace


def plot_intervals(path: Path, trace: IntervalTrace) -> None:
    """Draw ``trace`` to ``path`` (.svg or .png): mean lowest and highest entropy per position.

    The number of requests that reach a position is drawn below: far out, few of them do.
    """
    require(path.suffix in (".svg", ".png"), "a plot must end in .svg or .png", path=str(path))
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    low, high, count = trace.by_position()
    position = np.arange(len(count))
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.fill_between(position, low, high, alpha=0.4, linewidth=0, label="entropy lies in here")
    upper.plot(position, low, linewidth=1.0, label="lowest that top-k allows")
    upper.plot(position, high, linewidth=1.0, label="highest that top-k allows")
    where = "after temperature" if trace.processed else "T = 1"
    upper.set_ylabel(f"mean H, nats ({where})")
    upper.set_title(f"{trace.model or 'unnamed model'}, {len(trace.requests)} requests")
    upper.legend(frameon=False)
    lower.plot(position, count, linewidth=1.0)
    lower.set_ylabel("requests")
    lower.set_xlabel("generated tokens before")
    lower.set_ylim(bottom=0)
    with atomic_path(path) as part, mpl.rc_context({"svg.hashsalt": "entropic"}):
        figure.savefig(part, format=path.suffix[1:], metadata=_metadata(path))


def _metadata(path: Path) -> dict[str, str | None]:
    return {"Date": None} if path.suffix == ".svg" else {"Software": None}
