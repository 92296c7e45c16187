"""The ablation as a forest: paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.statistics import Interval
from reports.studies.ablation import Ablation, Row
from reports.style import COLOURS, INK, MUTED, PAPER, new_figure, styled


@dataclass(frozen=True, slots=True)
class Panel:
    """One column of the figure."""

    title: str
    label: str
    difference: Callable[[Row], Interval | None]
    decimals: int


def _pct(metric: str) -> Callable[[Row], Interval | None]:
    return lambda row: row.difference_pct.get(metric)


TO_BASELINE = "difference to baseline, %"
PANELS = (
    Panel("time per output token", TO_BASELINE, _pct("tpot_s.mean"), 1),
    Panel("end-to-end time", TO_BASELINE, _pct("e2e_s.mean"), 1),
    Panel("decode KV read\nper token", TO_BASELINE, _pct("kv_bytes_read_per_token"), 1),
    Panel(
        "NLL against a fixed T\nof equal mean entropy",
        "difference, nats per token",
        lambda row: None if row.matched is None else row.matched.nll_difference,
        3,
    ),
)


def forest(ablation: Ablation, *, footer: str) -> Figure:
    """Draw each preset's difference, a panel per metric.

    Three panels compare with baseline; the last with the fixed T of the preset's mean entropy.
    """
    rows = ablation.rows[1:]
    names = [row.preset for row in rows]
    with styled():
        figure = new_figure(9.6, 1.1 + 0.38 * len(names) + 0.7, footer)
        axes = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, PANELS, strict=True):
            _panel(axis, names, [panel.difference(row) for row in rows], panel.decimals)
            axis.set_title(panel.title)
            axis.set_xlabel(panel.label)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.4, -0.7)
        return figure


def _panel(
    axis: Axes, names: Sequence[str], found: Sequence[Interval | None], decimals: int
) -> None:
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
        digits = 0 if abs(difference.mean) >= 99.5 else decimals
        text = "0"
        if round(difference.mean, digits):
            text = f"{difference.mean:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
        axis.annotate(
            text, (difference.mean, height), xytext=(0, 5), textcoords="offset points",
            ha="center", fontsize=7.5, color=INK, bbox=dict(PAPER),
        )  # fmt: skip
    axis.margins(x=0.18)
