"""A run over time: who waits, who is in, how full the KV pool is, how large the steps are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controllers.serving.ledger import Ledger
from reports.simulation_parts import Shown, SimulationEvidence, line_widths
from reports.style import new_figure, styled
from simulator.perfetto_phases import end_of, occupancy, phases_of

BINS = 300  # of the whole span; each shows the mean over its time
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    unit: str
    draw: Callable[[Shown, np.ndarray], np.ndarray | None]


def over_time(found: SimulationEvidence) -> Figure:
    """Draw the panels over one time axis; means over equal bins of time, summed over servers."""
    end_ns = max(end_of(ledger) for one in found.shown for ledger in one.ledgers)
    edges = np.linspace(0.0, max(end_ns, 1), BINS + 1)
    held = _HELD_SHARE if all(one.pages is not None for one in found.shown) else _HELD_PAGES
    panels = (*_PEOPLE, held, *_STEPS)
    with styled():
        drawn = [(panel, _curves(panel, found, edges)) for panel in panels]
        drawn = [(panel, curves) for panel, curves in drawn if curves]
        figure = new_figure(9.6, 0.7 + 1.55 * len(drawn), found.footer)
        axes = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (panel, curves) in zip(axes, drawn, strict=True):
            _draw(axis, panel, curves, edges)
        axes[-1].set_xlabel("simulated time, s")
        axes[-1].set_xlim(0.0, edges[-1] / _NS_PER_S)
        if len(found.shown) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=7)
        return figure


def binned_mean(times: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the mean over each bin ``[n]`` of a step function that is 0 before ``times[0]``.

    It takes ``values[i]`` from ``times[i]`` on, ``[k]``, ascending; ``edges`` is ``[n + 1]``.
    """
    if len(times) == 0:
        return np.zeros(len(edges) - 1)
    moments = np.append(times, max(edges[-1], times[-1])).astype(np.float64)
    area = np.concatenate([[0.0], np.cumsum(np.diff(moments) * values)])
    return np.diff(np.interp(edges, moments, area)) / np.diff(edges)


def _curves(
    panel: _Panel, found: SimulationEvidence, edges: np.ndarray
) -> list[tuple[Shown, np.ndarray]]:
    curves = [(one, panel.draw(one, edges)) for one in found.shown]
    return [(one, values) for one, values in curves if values is not None]


def _draw(
    axis: Axes, panel: _Panel, curves: list[tuple[Shown, np.ndarray]], edges: np.ndarray
) -> None:
    top = 0.0
    seconds = edges / _NS_PER_S
    for (one, values), width in zip(curves, line_widths(len(curves)), strict=True):
        look = {"color": one.colour, "linewidth": width, "label": one.name}
        axis.stairs(values, seconds, baseline=None, **look)
        top = max(top, float(np.nanmax(values, initial=0.0)))
    axis.set_title(panel.title)
    axis.set_ylabel(panel.unit)
    axis.set_ylim(0.0, 1.08 * top if top > 0.0 else 1.0)


def _people(one: Shown, edges: np.ndarray, which: int) -> np.ndarray:
    total = np.zeros(len(edges) - 1)
    for ledger in one.ledgers:
        times, *counts = occupancy(phases_of(ledger))
        total += binned_mean(times, counts[which], edges)
    return total


def _waiting(one: Shown, edges: np.ndarray) -> np.ndarray:
    return _people(one, edges, 0)


def _inside(one: Shown, edges: np.ndarray) -> np.ndarray:
    return _people(one, edges, 1)


def _held(one: Shown, edges: np.ndarray) -> np.ndarray | None:
    return _of_steps(one, edges, "pages_held")


def _held_share(one: Shown, edges: np.ndarray) -> np.ndarray | None:
    held = _held(one, edges)
    assert one.pages is not None, "a share needs a whole"
    return None if held is None else 100.0 / one.pages * held


def _rows(one: Shown, edges: np.ndarray) -> np.ndarray | None:
    return _of_steps(one, edges, "n_decode")


def _of_steps(one: Shown, edges: np.ndarray, name: str) -> np.ndarray | None:
    """Mean of a step column over time, 0 while no step runs; None without step rows."""
    if not all(ledger.record_steps for ledger in one.ledgers):
        return None
    return sum(
        (binned_mean(*_while_running(ledger, name), edges) for ledger in one.ledgers),
        start=np.zeros(len(edges) - 1),
    )


def _while_running(ledger: Ledger, name: str) -> tuple[np.ndarray, np.ndarray]:
    begin, values = ledger.steps["now_ns"], ledger.steps[name]
    end = begin + ledger.steps["duration_ns"]
    idle = np.append(end[:-1] < begin[1:], True)[: len(end)]
    times = np.concatenate([begin, end[idle]])
    order = np.argsort(times, kind="stable")
    return times[order], np.concatenate([values, np.zeros(int(idle.sum()))])[order]


def _kept(one: Shown, edges: np.ndarray) -> np.ndarray | None:
    """Share of pages that decode reads, by bin; gaps where nothing was decoded."""
    if not all(ledger.record_steps for ledger in one.ledgers):
        return None
    read, dense = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for ledger in one.ledgers:
        steps = ledger.steps
        place = np.minimum(np.searchsorted(edges, steps["now_ns"], "right") - 1, len(read) - 1)
        np.add.at(read, place, steps["page_units_read"])
        np.add.at(dense, place, steps["page_units_dense"])
    return 100.0 * np.divide(read, dense, out=np.full_like(read, np.nan), where=dense > 0)


_PEOPLE = (
    _Panel("Requests waiting for their first step", "requests", _waiting),
    _Panel("Requests in service", "requests", _inside),
)
_HELD_SHARE = _Panel("KV pages held", "% of the pool", _held_share)
_HELD_PAGES = _Panel("KV pages held", "pages", _held)  # where pools are of several kinds
_STEPS = (
    _Panel("Decode rows per step", "rows", _rows),
    _Panel("KV pages that decode reads", "% of dense", _kept),
)
