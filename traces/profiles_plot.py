"""A figure of a measured profile: how far its law is off on steps it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from controllers.core import require
from traces.atomic import atomic_path

KINDS = ("decode", "sparse", "prefill", "mixed")


def plot_residuals(
    path: Path,
    *,
    kinds: Sequence[str],
    measured_s: np.ndarray,
    predicted_s: np.ndarray,
    title: str,
) -> None:
    """Draw ``predicted / measured - 1`` against the prediction to ``path`` (.svg or .png).

    Args:
        kinds: what each step held, among ``KINDS``; colours and legend follow it.
        measured_s: seconds of each step ``[N]``; predicted_s: by laws fitted without it.
    """
    require(path.suffix in (".svg", ".png"), "a plot must end in .svg or .png", path=str(path))
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    off_pct = 100.0 * (predicted_s / measured_s - 1.0)
    of = np.array(kinds)
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axhspan(-4.0, 4.0, alpha=0.12, color="grey", linewidth=0)
    axes.axhline(0.0, color="grey", linewidth=0.8)
    for kind in KINDS:
        chosen = of == kind
        if chosen.any():
            mean = np.abs(off_pct[chosen]).mean()
            axes.plot(
                1e3 * predicted_s[chosen],
                off_pct[chosen],
                ".",
                markersize=5.0,
                alpha=0.75,
                label=f"{kind}: {mean:.1f} % of {chosen.sum()}",
            )
    axes.set_xscale("log")
    axes.set_xlabel("predicted step, ms")
    axes.set_ylabel("predicted over measured, %")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, title="mean |error|, held out", fontsize=8, title_fontsize=8)
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with atomic_path(path) as part, mpl.rc_context({"svg.hashsalt": "entropic"}):
        figure.savefig(part, format=path.suffix[1:], metadata=metadata)
