"""Tables: pure functions of studies; cells are text, so that terminal and page show the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    Column("decode KV", "MB/tok", "kv_bytes_read_per_token", 1e-6),  # by decode rows
    Column("tau", "nat/tok", "tau_nats_per_token"),
    Column("mean T", "", "mean_temperature"),
    Column("mean H", "nat", "mean_entropy_nats"),
    Column("NLL", "nat/tok", "nll_nats_per_token"),
    Column("T clip", "% tok", "clip_share", 100.0),
)
PAGE_COLUMNS = (  # a page is wider than a terminal
    *ABLATION_COLUMNS,
    Column("tau_cal", "nat/tok", "tau_cal_nats_per_token"),
    Column("cost", "s", "cost_s"),
    Column("overtakes", "requests", "overtakes"),
)
MATCHED_HEADS = (
    ("preset", ""),
    ("mean H", "nat"),
    ("mean T", "of the law"),
    ("fixed T", "of equal H"),
    ("NLL", "law"),
    ("NLL", "fixed T"),
    ("NLL", "difference"),
    ("sd of H", "law"),
    ("sd of H", "fixed T"),
    ("sd of H", "difference"),
)


def ablation_grid(ablation: Ablation, columns: Sequence[Column] = ABLATION_COLUMNS) -> Grid:
    """Return the ablation as means ± 95 % half-widths, marked where the pairs differ."""
    return Grid(
        head=("preset", *(column.head for column in columns)),
        units=("", *(column.unit for column in columns)),
        rows=tuple(
            (Cell(row.preset), *(_cell(row, column) for column in columns)) for row in ablation.rows
        ),
    )


def matched_grid(ablation: Ablation) -> Grid:
    """Return each preset beside the fixed T of its mean entropy; marked where the pair differs."""
    rows = []
    for row in ablation.rows:
        found = row.matched
        if found is None:
            rows.append((Cell(row.preset), *(Cell("-") for _ in MATCHED_HEADS[1:])))
            continue
        nll, sd = found.nll_difference, found.sd_difference
        rows.append(
            (
                Cell(row.preset),
                Cell(f"{found.entropy_nats:.3f}"),
                Cell(f"{found.mean_temperature:.3f}"),
                Cell(f"{found.fixed_temperature:.3f}"),
                Cell(f"{found.nll_nats:.3f}"),
                Cell(f"{found.fixed_nll_nats:.3f}"),
                Cell(*signed(nll), nll.excludes_zero),
                Cell(f"{found.sd_nats:.3f}"),
                Cell(f"{found.fixed_sd_nats:.3f}"),
                Cell(*signed(sd), sd.excludes_zero),
            )
        )
    heads, units = zip(*MATCHED_HEADS, strict=True)
    return Grid(head=heads, units=units, rows=tuple(rows))


def difference_grid(ablation: Ablation) -> Grid:
    """Return every preset's paired difference to the reference, per cent ± 95 % half-width."""
    rows = []
    for row in ablation.rows[1:]:
        cells = [Cell(row.preset)]
        for column in PAGE_COLUMNS:
            found = row.difference_pct.get(column.metric)
            differs = found is not None and found.excludes_zero
            cells.append(Cell(*pct(found), differs))
        rows.append(tuple(cells))
    units = ("", *("%" for _ in PAGE_COLUMNS))
    return Grid(head=("preset", *(c.head for c in PAGE_COLUMNS)), units=units, rows=tuple(rows))


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


def signed(found: Interval) -> tuple[str, str]:
    """Return a signed difference in nats and its half-width, three decimals."""
    mean = f"{found.mean:+.3f}" if round(found.mean, 3) else f"{0:.3f}"
    return mean, "" if found.half is None else f"±{found.half:.3f}"


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
