"""Head-room of sparse attention: pages kept against the attention mass asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from reports.style import label_ends, new_figure, styled

TITLES = {"mean_std": "practical: page mean + std", "oracle": "oracle: the true masses"}


def pages_kept(kept_share: list[dict[str, Any]], *, footer: str) -> Figure:
    """Draw the share of pages kept by coverage, a line per context length, a panel per scorer.

    ``kept_share`` holds the rows of ``traces.info.describe``.
    """
    contexts = sorted({(row["context_from"], row["context_below"]) for row in kept_share})
    tints = colormaps["viridis_r"](np.linspace(0.35, 0.95, len(contexts)))
    with styled():
        figure = new_figure(9.6, 3.7, footer)
        axes = figure.subplots(1, len(TITLES), sharey=True)
        for axis, (scorer, title) in zip(axes, TITLES.items(), strict=True):
            ends = []
            for context, tint in zip(contexts, tints, strict=True):
                rows = [
                    row
                    for row in kept_share
                    if row["scorer"] == scorer
                    and (row["context_from"], row["context_below"]) == context
                ]
                coverage = [row["coverage"] for row in rows]
                share = [100.0 * row["kept_mean"] for row in rows]
                axis.plot(_spread(coverage), share, color=tint, marker="o")
                low, high = context
                ends.append((f"{max(low, 1)}-{high - 1}", _spread(coverage)[-1], share[-1], tint))
            axis.set_xticks(_spread(coverage), [f"{c:g}" for c in coverage])
            axis.set_title(title)
            axis.set_xlabel("attention mass asked for (coverage)")
            axis.set_ylim(0.0, 102.0)
            axis.margins(x=0.2)
            label_ends(axis, ends)
        axes[0].set_ylabel("pages kept, %")
        return figure


def _spread(coverage: list[float]) -> np.ndarray:
    """Space coverages by the mass they leave out, on a log scale."""
    return -np.log10(1.0 - np.array(coverage))
