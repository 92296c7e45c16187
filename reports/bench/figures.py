"""What the rows look like: decode time against pages kept, and bandwidth against the copy line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.bench.rows import BenchError, BenchRow, size_in
from reports.bench.sparse import SHORT
from reports.style import COLOURS, INK, MUTED, PAPER, label_ends, new_figure, styled

CONTEXT_COLOURS = tuple(COLOURS[name] for name in ("full", "sampling", "attention", "best", "seed"))
MOST_CONTEXTS = len(CONTEXT_COLOURS)  # the longest ones are drawn
VARIANT_COLOURS: Mapping[str, str] = MappingProxyType(
    {"dense": COLOURS["full"], "transformers": COLOURS["baseline"], "sdpa": COLOURS["sampling"]}
)
PRUNED_COLOURS = (COLOURS["attention"], COLOURS["best"], COLOURS["scheduling"])
Points = Mapping[tuple[str, str], Mapping[str, BenchRow]]  # (shape, variant) -> metric -> row


def bench(rows: Sequence[BenchRow]) -> Figure:
    """Draw the last ``sparse`` and the last ``decode`` run among ``rows``."""
    sparse, decode = _last(rows, "sparse"), _last(rows, "decode")
    if not sparse and not decode:
        raise BenchError("the figure needs rows of sparse or decode; got neither")
    newest = (sparse or decode)[-1]
    footer = f"{newest.model}, float32; {newest.device}; commit {newest.commit}, {newest.date[:10]}"
    with styled():
        shapes = len({row.shape for row in decode})
        figure = new_figure(9.8, max(4.3, 1.6 + 0.55 * shapes), footer)
        left, right = figure.subplots(1, 2, width_ratios=(5, 4))
        _time_against_pages(left, _points(sparse))
        _bandwidth(right, _points(decode))
        return figure


def _last(rows: Sequence[BenchRow], name: str) -> list[BenchRow]:
    mine = [row for row in rows if row.name == name]
    return [row for row in mine if row.date == mine[-1].date]


def _points(rows: Sequence[BenchRow]) -> Points:
    found: dict[tuple[str, str], dict[str, BenchRow]] = {}
    for row in rows:
        found.setdefault((row.shape, row.variant), {})[row.metric] = row
    return found


def _time_against_pages(axis: Axes, points: Points) -> None:
    axis.set_title("decode step against pages read")
    axis.set_xlabel("pages kept per row, layer and KV head")
    axis.set_ylabel("step, ms")
    shapes = [shape for shape, variant in points if variant == "fit"]
    ends = []
    chosen = sorted(shapes, key=lambda shape: size_in(shape, "context"))[-MOST_CONTEXTS:]
    for shape, colour in zip(chosen, CONTEXT_COLOURS, strict=False):
        mine = {v: m for (s, v), m in points.items() if s == shape and "pages_kept" in m}
        pruned = [m for v, m in mine.items() if v not in ("dense", SHORT)]
        _errorbars(axis, pruned, colour, filled=True)
        _errorbars(axis, [mine["dense"]], colour, filled=False)
        line = points[shape, "fit"]
        kept = np.array([0.0, mine["dense"]["pages_kept"].median])
        fitted = line["intercept_s"].median + line["slope_s_per_page"].median * kept
        axis.plot(kept, 1e3 * fitted, color=colour, linewidth=1.2)
        text = f"{size_in(shape, 'context'):,.0f} tokens"
        ends.append((text, float(kept[1]), float(1e3 * fitted[1]), colour))
    axis.set_xlim(left=0.0, right=1.25 * max((end[1] for end in ends), default=1.0))
    axis.set_ylim(bottom=0.0)
    label_ends(axis, ends)
    axis.annotate(
        "filled: pruned, with the line through them; hollow: dense", (0.02, 0.03),
        xycoords="axes fraction", fontsize=8, color=MUTED,
    )  # fmt: skip


def _errorbars(
    axis: Axes, found: Sequence[Mapping[str, BenchRow]], colour: str, *, filled: bool
) -> None:
    middle = np.array([1e3 * m["step_s"].median for m in found])
    low = np.array([1e3 * m["step_s"].low for m in found])
    high = np.array([1e3 * m["step_s"].high for m in found])
    axis.errorbar(
        [m["pages_kept"].median for m in found], middle, yerr=(middle - low, high - middle),
        color=colour, marker="o", linestyle="none", elinewidth=1.0,
        markerfacecolor=colour if filled else "white",
    )  # fmt: skip


def _bandwidth(axis: Axes, points: Points) -> None:
    axis.set_title("bytes a step must read, per second")
    axis.set_xlabel("GB/s of weights and KV (sdpa: of KV alone)")
    shapes = list(dict.fromkeys(shape for shape, _ in points))
    variants = list(dict.fromkeys(variant for _, variant in points))
    height = 0.84 / max(len(variants), 1)
    for index, variant in enumerate(variants):
        colour = _colour(variant, variants)
        places, rates = [], []
        for row, shape in enumerate(shapes):
            if (shape, variant) in points:
                places.append(-row - (index - (len(variants) - 1) / 2) * height)
                rates.append(points[shape, variant]["gb_per_s"])
        middle = np.array([rate.median for rate in rates])
        spread = np.array([(r.median - r.low, r.high - r.median) for r in rates]).T
        axis.barh(places, middle, height=0.9 * height, color=colour, label=variant)
        axis.errorbar(middle, places, xerr=spread, color=INK, elinewidth=0.8, linestyle="none")
    sizes = [(size_in(shape, "batch"), size_in(shape, "context")) for shape in shapes]
    names = [f"{batch:g} x {context:,.0f}" for batch, context in sizes]
    axis.set_yticks([-float(row) for row in range(len(names))], names)
    axis.set_ylabel("batch x tokens")
    axis.grid(axis="y", visible=False)
    if points:
        _copy_line(axis, points)
        axis.figure.legend(loc="outside upper right", ncols=len(variants), fontsize=8)


def _copy_line(axis: Axes, points: Points) -> None:
    """Draw what copying reached in the same run: the median over shapes, and its range."""
    copied = [metrics["copy_gb_per_s"] for metrics in points.values()]
    middle = float(np.median([row.median for row in copied]))
    low, high = min(row.low for row in copied), max(row.high for row in copied)
    axis.axvspan(low, high, color=MUTED, alpha=0.15, linewidth=0)
    axis.axvline(middle, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axis.annotate(
        f"copy {middle:.1f} ", (middle, 0.01), xycoords=("data", "axes fraction"), fontsize=8,
        ha="right", va="bottom", color=INK, bbox=dict(PAPER),
    )  # fmt: skip
    axis.set_xlim(0.0, 1.05 * max([high, *(m["gb_per_s"].high for m in points.values())]))


def _colour(variant: str, variants: Sequence[str]) -> str:
    if variant in VARIANT_COLOURS:
        return VARIANT_COLOURS[variant]
    pruned = [name for name in variants if name not in VARIANT_COLOURS]
    return PRUNED_COLOURS[pruned.index(variant) % len(PRUNED_COLOURS)]
