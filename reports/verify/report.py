"""The verifier's report: a table per part, the story of every violation, one line of summary."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reports.verify.case_line import case_line
from reports.verify.finding import Finding, Verdict
from reports.verify.replay import file_name, write_json

STORY_LINES = 30
PLAIN_WIDTH = 132  # columns where stdout is no terminal
_STYLES: Mapping[Verdict, str] = {
    Verdict.CERTIFIED: "green",
    Verdict.SEARCHED: "cyan",
    Verdict.VIOLATED: "bold red",
    Verdict.UNFIT: "dim",
}


def print_report(findings: list[Finding], files: Mapping[int, Path]) -> None:
    """Print the whole report; ``files`` maps the index of a violation to its counterexample."""
    console = _console()
    for (role, subject), rows in groupby(findings, key=lambda row: (row.role, row.subject)):
        console.print(_table(f"{role}: {subject}", rows))
    for index, row in enumerate(findings):
        if row.verdict is Verdict.VIOLATED:
            _print_violation(console, row, files.get(index))
    console.print(summary(findings), highlight=False, soft_wrap=True)


def summary(findings: list[Finding]) -> str:
    """Return one line: how many rows of each verdict, and how many cases."""
    counts = ", ".join(
        f"{sum(row.verdict is verdict for row in findings)} {verdict.value}" for verdict in Verdict
    )
    return f"{len(findings)} rows: {counts}; {sum(row.cases for row in findings):,} cases"


def write_counterexamples(findings: list[Finding], subject: str, folder: Path) -> dict[int, Path]:
    """Write one file per violation that has a case; return where, by the finding's index."""
    return {
        index: write_json(folder / file_name(subject, row.role, row.name), row.counterexample)
        for index, row in enumerate(findings)
        if row.counterexample is not None
    }


def write_certificates(findings: list[Finding], subject: str, folder: Path) -> list[Path]:
    """Write each certificate as a JSON file of its own, holding or not; return where."""
    return [
        write_json(folder / file_name(subject, row.role, row.name), row.certificate.to_json())
        for row in findings
        if row.certificate is not None
    ]


def figure(value: float, digits: int = 4) -> str:
    """Return ``value`` to ``digits`` significant digits."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.{digits}g}"


def figures(value: float, bound: float) -> str:
    """Return ``value > bound`` with as many digits as it takes to see it."""
    if math.isnan(value):
        return "no number"
    for digits in range(4, 17):
        texts = figure(value, digits), figure(bound, digits)
        if texts[0] != texts[1]:
            return " > ".join(texts)
    return f"{value!r} > {bound!r}"


def print_story(title: str, story: Iterable[str]) -> None:
    """Print a counterexample's story, cut to a screen."""
    _print_story(_console(), title, list(story))


def _console() -> Console:
    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=PLAIN_WIDTH)


def _table(title: str, rows: Iterable[Finding]) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold", expand=False)
    table.add_column("property", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in ("bound", "worst found", "bound/worst", "cases"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in rows:
        style = _STYLES[row.verdict]
        table.add_row(
            row.name, f"[{style}]{row.verdict.value}[/]", *_numbers(row), escape(row.note)
        )
    return table


def _numbers(row: Finding) -> tuple[str, str, str, str]:
    if row.verdict is Verdict.UNFIT or not row.cases:
        return "", "", "", ""
    ratio = row.conservatism
    return (
        "none" if math.isinf(row.bound) else figure(row.bound) if row.bound == row.bound else "",
        figure(row.worst),
        "" if ratio is None else figure(ratio),
        f"{row.cases:,}",
    )


def _print_violation(console: Console, row: Finding, path: Path | None) -> None:
    console.print()
    case = "" if row.counterexample is None else case_line(row.counterexample["case"])
    title = f"VIOLATED {row.name} ({row.role}: {row.subject}): {row.statement}"
    unit = "" if math.isnan(row.worst) else row.unit
    found = f"{figures(row.worst, row.bound)} {unit}".rstrip()
    _print_story(console, title, [found if row.cases else row.note, *case.splitlines(), *row.story])
    if path is not None:
        line = f"replay: entropic verify --replay {path}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_story(console: Console, title: str, story: list[str]) -> None:
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    cut = story if len(story) <= STORY_LINES else [*story[: STORY_LINES - 1], "..."]
    for line in cut:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
