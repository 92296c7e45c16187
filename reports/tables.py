"""Tables: pure functions of studies; cells are text, so that terminal and page show the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.statistics import Interval
from reports.studies.ablation import Ablation, Row

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 140  # columns of a terminal table when nobody says how wide the paper is


@dataclass(frozen=True, slots=True)
class Column:
    """A metric as a table shows it."""

    head: str
    unit: str
    metric: str  # dotted name
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """A value as text, and whether it differs from the reference beyond the paired interval."""

    text: str
    half: str = ""  # half-width of the interval, "±..."
    differs: bool = False

    @property
    def marked(self) -> str:
        """The value with its mark."""
        return f"{self.text}*" if self.differs else self.text


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text: heads over units, one line per row."""

    head: tuple[str, ...]
    units: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


ABLATION_COLUMNS = (
    Column("TTFT", "s", "ttft_s.mean"),
    Column("TPOT", "ms", "tpot_s.mean", 1e3),
    Column("e2e", "s", "e2e_s.mean"),
    Column("e2e p95", "s", "e2e_s.p95"),
    Column("through", "tok/s", "throughput_tokens_per_s"),
    Column("goodput", "req/min", "goodput_requests_per_s", 60.0),
    Column("pages", "% kept", "kv_pages_kept_share", 100.0),
    Column("KV read", "GB", "kv_bytes_read", 1e-9),
    Column("tau", "nat/tok", "tau_nats_per_token"),
    Column("tau_cal", "nat/tok", "tau_cal_nats_per_token"),
    Column("NLL", "nat/tok", "nll_nats_per_token"),
    Column("T clip", "% tok", "clip_share", 100.0),
    Column("cost", "s", "cost_s"),
)


def ablation_grid(ablation: Ablation) -> Grid:
    """Return the ablation as means ± 95 % half-widths, marked where the pairs differ."""
    return Grid(
        head=("preset", *(column.head for column in ABLATION_COLUMNS)),
        units=("", *(column.unit for column in ABLATION_COLUMNS)),
        rows=tuple(
            (Cell(row.preset), *(_cell(row, column) for column in ABLATION_COLUMNS))
            for row in ablation.rows
        ),
    )


def difference_grid(ablation: Ablation) -> Grid:
    """Return every preset's paired difference to the reference, per cent ± 95 % half-width."""
    rows = []
    for row in ablation.rows[1:]:
        cells = [Cell(row.preset)]
        for column in ABLATION_COLUMNS:
            found = row.difference_pct.get(column.metric)
            differs = found is not None and found.excludes_zero
            cells.append(Cell(*pct(found), differs))
        rows.append(tuple(cells))
    units = ("", *("%" for _ in ABLATION_COLUMNS))
    return Grid(head=("preset", *(c.head for c in ABLATION_COLUMNS)), units=units, rows=tuple(rows))


def footer(ablation: Ablation) -> list[str]:
    """Return what a reader must know before quoting the table, one sentence a line."""
    scenario = ablation.scenario
    traced, planned = str(scenario.trace.metadata["model"]), scenario.profile.model
    models = f"the traced model ({traced}) is NOT the planned model ({planned})"
    if traced == planned:
        models = f"the traced model is the planned model ({planned})"
    seeds = ablation.seeds
    cut, reused, outside = (
        ablation.caveats[name]
        for name in ("recordings_cut_short", "recordings_reused", "steps_outside_profile")
    )
    return [
        f"seeds {seeds[0]}-{seeds[-1]} ({len(seeds)}), {scenario.n_requests} requests each at "
        f"{scenario.rate_per_s:.3g}/s, {scenario.replicas} replica(s); mean ± 95 % half-width over "
        "seeds; * the paired difference to baseline excludes 0.",
        f"Trace {scenario.trace.path.name}, sha256 {scenario.trace.sha256[:12]}; device "
        f"{scenario.profile.device}; H* = {scenario.asking.target_nats:g} nat.",
        f"Goodput: first token within {scenario.ttft_slo_s:.3g} s and {scenario.tpot_slo_s:.3g} s "
        "per output token.",
        f"Output lengths are exogenous: the recording's, whatever T; {models}; "
        f"{cut} recordings ended at the recorder's limit, {reused} requests reuse one; {outside} "
        "steps of baseline lie beyond what the step law was fitted on.",
        "NLL is that of dense attention: what pruning does to it is not simulated (KL: entropic "
        "trace info).",
        "Presets that change priority can differ only where requests queue.",
    ]


def rich_table(grid: Grid, title: str) -> Table:
    """Return ``grid`` for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left")
    for index, (head, unit) in enumerate(zip(grid.head, grid.units, strict=True)):
        justify = "right" if index else "left"
        table.add_column(f"{head}\n{unit}", justify=justify, no_wrap=True)
    for row in grid.rows:
        table.add_row(*(f"{cell.marked}\n{cell.half}" for cell in row))
    return table


def html_table(grid: Grid, caption: str) -> str:
    """Return ``grid`` as an HTML table; cells are escaped."""
    from html import escape

    heads = "".join(
        f"<th>{escape(head)}<br><small>{escape(unit)}</small></th>"
        for head, unit in zip(grid.head, grid.units, strict=True)
    )
    body = []
    for first, *others in grid.rows:
        cells = "".join(
            f"<td{' class=differs' if cell.differs else ''}>{escape(cell.marked)}"
            f"<br><small>{escape(cell.half)}</small></td>"
            for cell in others
        )
        body.append(f"<tr><th>{escape(first.text)}</th>{cells}</tr>")
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def plus_minus(found: Interval | None, scale: float = 1.0) -> tuple[str, str]:
    """Return mean and half-width, three significant digits of the mean; a dash for None."""
    if found is None:
        return "-", ""
    mean = found.mean * scale
    digits = _decimals(mean)
    half = "" if found.half is None else f"±{found.half * scale:.{digits}f}"
    return f"{mean:.{digits}f}", half


def pct(found: Interval | None) -> tuple[str, str]:
    """Return a signed percentage and its half-width; a dash for None."""
    if found is None:
        return "-", ""
    digits = 1 if abs(found.mean) < 100 else 0
    mean = f"{found.mean:+.{digits}f}" if round(found.mean, digits) else f"{0:.{digits}f}"
    return mean, "" if found.half is None else f"±{found.half:.{digits}f}"


def _cell(row: Row, column: Column) -> Cell:
    difference = row.difference.get(column.metric)
    differs = difference is not None and difference.excludes_zero
    return Cell(*plus_minus(row.metrics.get(column.metric), column.scale), differs)


def _decimals(mean: float) -> int:
    if mean == 0:
        return 1
    return max(0, min(3, 2 - math.floor(math.log10(abs(mean)))))
