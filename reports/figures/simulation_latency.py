"""How latencies are distributed: cumulative shares, a line per run."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from controllers.serving.ledger import COMPLETED, NEVER, Ledger
from reports.simulation_parts import Shown, SimulationEvidence, line_widths
from reports.style import INK, PAPER, new_figure, styled

POINTS = 400  # of each line, evenly spaced in share, and the slowest ones besides
_NS_PER_S = 1e9


def latency_shares(found: SimulationEvidence) -> Figure:
    """Draw the share of requests (or tokens) at most so slow, on a logarithmic axis of time."""
    limits = {"ttft_s": found.ttft_slo_s, "tpot_s": found.tpot_slo_s}
    with styled():
        figure = new_figure(9.6, 5.4, found.footer)
        axes = figure.subplots(2, 2, sharey=True).ravel()
        for axis, (name, (title, of)) in zip(axes, MEASURES.items(), strict=True):
            for one, width in zip(found.shown, line_widths(len(found.shown)), strict=True):
                _line(axis, of(one.ledger), one, width)
            _dress(axis, title, limits.get(name))
        axes[0].set_ylabel("share, %")
        axes[2].set_ylabel("share, %")
        if len(found.shown) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=7)
        return figure


def _line(axis: Axes, values: np.ndarray, one: Shown, width: float) -> None:
    ordered = np.sort(values[values > 0.0])
    n = len(ordered)
    if n == 0:
        axis.plot([], [], color=one.colour, label=one.name)
        return
    picked = np.unique(np.linspace(0, n - 1, POINTS).round().astype(np.int64))
    picked = np.union1d(picked, np.arange(max(0, n - POINTS // 4), n))
    shares = 100.0 * (picked + 1) / n
    axis.plot(ordered[picked], shares, color=one.colour, label=one.name, linewidth=width)


def _dress(axis: Axes, title: str, limit_s: float | None) -> None:
    axis.set_title(title)
    axis.set_xlabel("seconds")
    if any(np.size(line.get_xdata()) for line in axis.lines):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xticks([])
        axis.annotate("not recorded", (0.5, 0.5), xycoords="axes fraction", ha="center")
    axis.set_ylim(0.0, 102.0)
    if limit_s is not None:
        axis.axvline(limit_s, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        axis.annotate(
            f"limit {limit_s:.3g} s", (limit_s, 4.0), xytext=(-4, 0), textcoords="offset points",
            ha="right", fontsize=8, color=INK, bbox=dict(PAPER),
        )  # fmt: skip


def _ttft(ledger: Ledger) -> np.ndarray:
    first = ledger.requests["first_token_ns"]
    return (first - ledger.requests["arrival_ns"])[first != NEVER] / _NS_PER_S


def _completed(ledger: Ledger) -> np.ndarray:
    return np.array([reason in COMPLETED for reason in ledger.reasons], dtype=bool)


def _tpot(ledger: Ledger) -> np.ndarray:
    requests = ledger.requests
    several = _completed(ledger) & (requests["tokens"] > 1)
    spent = requests["finish_ns"] - requests["first_token_ns"]
    return (spent / np.maximum(requests["tokens"] - 1, 1))[several] / _NS_PER_S


def _itl(ledger: Ledger) -> np.ndarray:
    ids, times = ledger.tokens["request_id"], ledger.tokens["now_ns"]
    order = np.argsort(ids, kind="stable")
    return np.diff(times[order])[np.diff(ids[order]) == 0] / _NS_PER_S


def _e2e(ledger: Ledger) -> np.ndarray:
    spent = ledger.requests["finish_ns"] - ledger.requests["arrival_ns"]
    return spent[_completed(ledger)] / _NS_PER_S


Measure = tuple[str, Callable[[Ledger], np.ndarray]]
MEASURES: MappingProxyType[str, Measure] = MappingProxyType(
    {
        "ttft_s": ("Time to first token", _ttft),
        "tpot_s": ("Time per output token, first one left out", _tpot),
        "itl_s": ("Gap between tokens, share of gaps", _itl),
        "e2e_s": ("End to end, completed requests", _e2e),
    }
)
