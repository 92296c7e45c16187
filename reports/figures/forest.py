"""The ablation as a forest: paired differences to baseline with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.statistics import Interval
from reports.studies.ablation import Ablation
from reports.style import COLOURS, INK, MUTED, PAPER, new_figure, styled

PANELS = (
    ("tpot_s.mean", "time per output token"),
    ("e2e_s.mean", "end-to-end time"),
    ("kv_bytes_read", "KV bytes read"),
    ("nll_nats", "NLL at T = 1"),
)


def forest(ablation: Ablation, *, footer: str) -> Figure:
    """Draw each preset's paired difference to baseline in per cent, a panel per metric."""
    rows = ablation.rows[1:]
    names = [row.preset for row in rows]
    with styled():
        figure = new_figure(9.6, 0.9 + 0.38 * len(names) + 0.7, footer)
        axes = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
        for axis, (metric, title) in zip(axes, PANELS, strict=True):
            _panel(axis, names, [row.difference_pct.get(metric) for row in rows])
            axis.set_title(title)
            axis.set_xlabel("difference to baseline, %")
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.4, -0.7)
        return figure


def _panel(axis: Axes, names: Sequence[str], found: Sequence[Interval | None]) -> None:
    axis.axvline(0.0, color=INK, linewidth=1.0)
    axis.grid(visible=False, axis="y")
    for height, (name, difference) in enumerate(zip(names, found, strict=True)):
        if difference is None:
            axis.annotate("not measured", (0, height), fontsize=7.5, color=MUTED)
            continue
        axis.errorbar(
            difference.mean,
            height,
            xerr=difference.half,
            fmt="o",
            color=COLOURS[name],
            capsize=3,
            linewidth=1.6,
        )
        digits = 0 if abs(difference.mean) >= 99.5 else 1
        text = (
            f"{difference.mean:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
            if abs(difference.mean) >= 0.05
            else "0"
        )
        axis.annotate(
            text, (difference.mean, height), xytext=(0, 5), textcoords="offset points",
            ha="center", fontsize=7.5, color=INK, bbox=dict(PAPER),
        )  # fmt: skip
    axis.margins(x=0.18)
