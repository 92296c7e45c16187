"""How figures look: one style file, one colour per preset, a footer saying what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from traces.atomic import atomic_path

STYLE = Path(__file__).parent / "entropic.mplstyle"
INK, MUTED = "#222222", "#777777"
PAPER = MappingProxyType({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0})

# Okabe and Ito's palette, told apart under every common colour blindness.
COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "baseline": "#555555",
        "sampling": "#E69F00",
        "scheduling": "#56B4E9",
        "attention": "#009E73",
        "full": "#0072B2",
        "seed": "#D55E00",
        "best": "#CC79A7",
    }
)


def styled() -> mpl.rc_context:  # type: ignore[name-defined]
    """Return the context every figure is drawn and saved in."""
    return mpl.rc_context(fname=STYLE)


def new_figure(width_in: float, height_in: float, footer: str) -> Figure:
    """Return a figure with ``footer`` below its axes; call within ``styled``."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    figure.supxlabel(footer, x=0.01, ha="left", fontsize=7.5, color=MUTED)
    return figure


def label_ends(axis: Axes, ends: Sequence[tuple[str, float, float, object]]) -> None:
    """Name lines at their right ends ``(text, x, y, colour)``, moved apart where they meet.

    Call it when the limits of ``axis`` are final.
    """
    bottom, top = axis.get_ylim()
    gap = 0.065 * (top - bottom)
    ordered = sorted(ends, key=lambda end: end[2])
    heights = [end[2] for end in ordered]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    shift = np.mean([end[2] for end in ordered]) - np.mean(heights) if ends else 0.0
    for (text, x, y, colour), height in zip(ordered, heights, strict=True):
        points = (height + shift - y) / (top - bottom) * axis.bbox.height * 72 / axis.figure.dpi
        axis.annotate(
            text, (x, y), xytext=(7, points), textcoords="offset points", fontsize=8,
            va="center", color=colour, annotation_clip=False,
        )  # fmt: skip


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as PNG, completely or not at all; equal figures give equal bytes."""
    with styled(), atomic_path(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
    return path
