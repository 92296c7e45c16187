"""Sections of committed measurements about the laws: variance at matched mean, and estimators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from reports.estimator_commands import calibration_line
from reports.figures.variance import variance as draw_variance
from reports.parts import Evidence, Part
from reports.statistics import Interval
from reports.tables import Cell, Grid, html_table
from reports.variance_commands import footer as variance_footer

Read = Callable[[Mapping[str, Any]], Cell]
SOURCES = ("command", "device", "commit", "model")


def variance(found: Evidence) -> Part | None:
    """Show whether laws steady the entropy, beside the fixed temperature of equal mean."""
    document = found.results.get("variance")
    if document is None:
        return None
    columns: tuple[tuple[str, str, Read], ...] = (
        ("law", "", lambda row: Cell(row["law"])),
        ("H*", "nats", lambda row: Cell(f"{row['target_nats']:g}")),
        ("mean H", "nats", lambda row: Cell(f"{row['mean_entropy_nats']:.3f}")),
        ("matched T", "", lambda row: Cell(f"{row['fixed_temperature']:.3f}")),
        ("Var(H) ratio", "law / fixed T", lambda row: _cell(row["ratio"])),
        ("lag-1 correlation", "of H, fixed T", lambda row: Cell(f"{row['lag1_correlation']:.2f}")),
    )
    recorded = html_table(
        _grid(document["recorded"], columns), "Recorded logits: mean ± 95 % over prompts."
    )
    live = [row for row in document["live"] if "ratio" in row]
    lived = html_table(_grid(live, (*columns[:2], columns[4])), "Live: mean ± 95 % over seeds.")
    return Part(
        name="variance",
        title="What the temperature laws do to the variance of entropy",
        html=f"<p>Committed measurement, not run for this page.</p>{recorded}"
        f"{lived if live else ''}{_sources(document)}",
        figure=draw_variance(
            document["recorded"], document["live"], footer=variance_footer(document)
        ),
        caption=(
            "Below 1: steadier than the one fixed T with the same mean entropy. Feedback barely "
            "helps, because entropy hardly remembers the token before; a damped same-step step "
            "does; a full one overshoots. A steadier entropy is not a better text."
        ),
    )


def estimators(found: Evidence) -> Part | None:
    """Show what entropy estimators get wrong, and what they cost beside the exact pass."""
    document = found.results.get("estimators")
    if document is None:
        return None
    fidelity: tuple[tuple[str, str, Read], ...] = (
        ("estimator", "", lambda row: Cell(row["estimator"])),
        ("k", "", lambda row: Cell(str(row["k"]))),
        ("bias", "nats", lambda row: _cell(row["bias_nats"])),
        ("worst", "nats", lambda row: Cell(f"{row['worst_nats']:.2f}")),
        ("correlation", "with exact H", lambda row: Cell(f"{row['correlation']:.3f}")),
        ("coverage off", "share of tokens", lambda row: _cell(row["coverage_differs_share"])),
        ("drift", "ln T, in the loop", lambda row: _cell(row["ln_t_drift"])),
    )
    costs: tuple[tuple[str, str, Read], ...] = (
        ("rows", "", lambda row: Cell(str(row["rows"]))),
        ("k", "", lambda row: Cell(str(row["k"]))),
        ("exact H and V", "µs/row", lambda row: Cell(f"{row['exact_us_per_row']:.0f}")),
        ("top-k estimate", "µs/row", lambda row: Cell(f"{row['top_k_us_per_row']:.0f}")),
        ("exact / top-k", "", lambda row: Cell(f"{row['exact_over_top_k']:.2f}")),
    )
    caption = (
        f"{document['rows']:,} rows of {document['model']}, n = {document['vocabulary']:,}; "
        f"mean ± 95 % over {document['prompts']} prompts. Coverage off: by more than .005."
    )
    return Part(
        name="estimators",
        title="Entropy estimators against exact entropy",
        html="<p>Committed measurement, not run for this page.</p>"
        + html_table(_grid(document["estimators"], fidelity), caption)
        + html_table(_grid(document["costs"], costs), "Cost on CPU, medians of one run.")
        + f"<p>{escape(calibration_line(document['calibration']))}</p>{_sources(document)}",
    )


def _grid(rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, Read]]) -> Grid:
    return Grid(
        head=tuple(head for head, _, _ in columns),
        units=tuple(unit for _, unit, _ in columns),
        rows=tuple(tuple(read(row) for _, _, read in columns) for row in rows),
    )


def _cell(pair: Mapping[str, float | None]) -> Cell:
    found = Interval(pair["mean"] or 0.0, pair["ci95"])
    return Cell(f"{found.mean:.3f}", "" if found.half is None else f"±{found.half:.3f}")


def _sources(document: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<li>{name}: {escape(str(document[name]))}</li>" for name in SOURCES if name in document
    )
    return f"<ul class=notes>{lines}</ul>"
