"""The tables of a page about simulations: time beside quality, classes, tenants, configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from controllers.serving.metrics import Metric
from reports.simulation_parts import Shown
from reports.statistics import flatten
from reports.tables import Cell, Column, Grid
from traces.text import number

Figures = Mapping[str, float | None]

HEADLINE: tuple[tuple[str, tuple[Column, ...]], ...] = (
    (
        "time",
        (
            Column("time to first token, mean", "s", "ttft_s.mean"),
            Column("time to first token, p95", "s", "ttft_s.p95"),
            Column("time to first token, p99", "s", "ttft_s.p99"),
            Column("time per output token, mean", "ms", "tpot_s.mean", 1e3),
            Column("time per output token, p95", "ms", "tpot_s.p95", 1e3),
            Column("gap between tokens, p99", "ms", "itl_s.p99", 1e3),
            Column("end to end, mean", "s", "e2e_s.mean"),
            Column("end to end, p95", "s", "e2e_s.p95"),
            Column("within the service level", "% of ended", "slo_attainment", 100.0),
            Column("goodput", "requests/s", "goodput_requests_per_s"),
            Column("throughput", "tokens/s", "throughput_tokens_per_s"),
        ),
    ),
    (
        "quality",
        (
            Column("negative log-likelihood at T = 1", "nat/token", "nll_nats_per_token"),
            Column("tau at the applied T", "nat/token", "tau_nats_per_token"),
            Column("tau at T_cal", "nat/token", "tau_cal_nats_per_token"),
            Column("KV pages that decode reads", "% of dense", "kv_pages_kept_share", 100.0),
            Column("pages given up", "pages", "pages_evicted"),
            Column("temperature on a clip", "% of tokens", "clip_share", 100.0),
        ),
    ),
    (
        "resources",
        (
            Column("busy", "% of time up", "utilisation", 100.0),
            Column("decode rows per step, mean", "rows", "batch_mean"),
            Column("KV pool in use while busy, mean", "% of pages", "kv_occupancy.mean", 100.0),
            Column("KV bytes read by decode", "GB", "kv_bytes_read", 1e-9),
            Column("preemptions", "", "preemptions"),
            Column("GPU time paid for", "s", "gpu_seconds"),
            Column("cost", "USD per million tokens", "usd_per_million_tokens"),
            Column("energy", "J/token", "joules_per_token"),
        ),
    ),
    (
        "fairness",
        (
            Column("Jain's index of requests", "1 is even", "jain"),
            Column("Jain's index of tenants", "1 is even", "jain_tenants"),
            Column("longest time unserved", "s", "max_service_gap_s"),
            Column("longest time unserved", "steps", "max_service_gap_steps"),
            Column("overtakes per request, mean", "requests", "overtakes.mean"),
            Column("priority inversions", "", "inversions"),
        ),
    ),
    (
        "requests",
        (
            Column("completed", "", "completed"),
            Column("cancelled", "", "cancelled"),
            Column("failed", "", "failed"),
            Column("unfinished", "", "unfinished"),
            Column("turned away", "", "rejected"),
            Column("retries after a crash", "", "retries"),
        ),
    ),
)
GROUP_COLUMNS = (
    Column("completed", "requests", "completed"),
    Column("TTFT mean", "s", "ttft_s.mean"),
    Column("TTFT p95", "s", "ttft_s.p95"),
    Column("TPOT mean", "ms", "tpot_s.mean", 1e3),
    Column("TPOT p95", "ms", "tpot_s.p95", 1e3),
    Column("e2e mean", "s", "e2e_s.mean"),
    Column("goodput", "requests/s", "goodput_requests_per_s"),
    Column("tokens", "", "tokens"),
    Column("NLL", "nat/token", "nll_nats_per_token"),
    Column("tau", "nat/token", "tau_nats_per_token"),
    Column("preempted", "times", "preemptions"),
)
MOST_GROUPS = 12  # of a kind; the rest are counted in the caption
HIDDEN_AT_ZERO = (
    "pages_evicted", "failed", "unfinished", "cancelled", "rejected", "retries", "preemptions",
)  # fmt: skip


def headline_table(shown: Sequence[Shown], caption: str) -> str:
    """Return ``HEADLINE`` as one table: a line per figure, a column per run.

    Beside every value but the first run's stands its difference to the first, per cent. What no
    run measured, and what is rare and zero everywhere, is left out.
    """
    flat = [_figures(one.metrics) for one in shown]
    room = " <small class=against></small>"  # so that a name stands over its values
    names = "".join(
        f"<th>{escape(one.name)}{room if i else ''}</th>" for i, one in enumerate(shown)
    )
    body = []
    for topic, columns in HEADLINE:
        lines = [line for column in columns if (line := _headline_row(column, flat))]
        if lines:
            heading = f"<tr class=topic><th>{escape(topic)}</th>{names}</tr>"
            body += [heading, *lines]
    return f"<table><caption>{escape(caption)}</caption><tbody>{''.join(body)}</tbody></table>"


def _headline_row(column: Column, flat: Sequence[Figures]) -> str:
    values = [one.get(column.metric) for one in flat]
    seen = [value for value in values if value is not None]
    if not seen or (column.metric in HIDDEN_AT_ZERO and not any(seen)):
        return ""
    unit = f" <small>{escape(column.unit)}</small>" if column.unit else ""
    cells = []
    for i, value in enumerate(values):
        more = f" <small class=against>{_against(value, values[0])}</small>" if i else ""
        cells.append(f"<td>{number(_scaled(value, column.scale))}{more}</td>")
    return f"<tr><th>{escape(column.head)}{unit}</th>{''.join(cells)}</tr>"


def group_grid(shown: Sequence[Shown], kind: str) -> tuple[Grid, int]:
    """Return a line per group of ``kind`` and run, and how many groups were left out.

    The groups with the most requests are shown, in order of name.
    """
    first = shown[0].groups[kind]
    by_size = sorted(first, key=lambda name: (-_count(first[name]), name))
    names = sorted(by_size[:MOST_GROUPS])
    found = [(name, one, _figures(one.groups[kind][name])) for name in names for one in shown]
    columns = [
        column
        for column in GROUP_COLUMNS
        if any(flat.get(column.metric) is not None for _, _, flat in found)
        and (
            column.metric not in HIDDEN_AT_ZERO
            or any(flat.get(column.metric) for *_, flat in found)
        )
    ]
    rows = []
    for name, one, flat in found:
        cells = [Cell(number(_scaled(flat.get(c.metric), c.scale))) for c in columns]
        label = name or "(no name)"
        rows.append((Cell(f"{label} · {one.name}" if len(shown) > 1 else label), *cells))
    grid = Grid(
        head=(kind, *(column.head for column in columns)),
        units=("", *(column.unit for column in columns)),
        rows=tuple(rows),
    )
    return grid, len(by_size) - len(names)


def text_table(rows: Sequence[Sequence[str]], head: Sequence[str], caption: str) -> str:
    """Return a table of words, which wrap."""
    heads = "".join(f"<th class=text>{escape(one)}</th>" for one in head)
    body = "".join(
        f"<tr><th class=text>{escape(first)}</th>"
        + "".join(f"<td class=text>{escape(one)}</td>" for one in others)
        + "</tr>"
        for first, *others in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def settings_of(config: Any, name: str = "") -> list[tuple[str, str]]:
    """Return every setting by dotted name, as words."""
    if isinstance(config, Mapping) and config:
        pairs = [(f"{name}.{key}" if name else str(key), one) for key, one in config.items()]
        return [line for key, one in pairs for line in settings_of(one, key)]
    if isinstance(config, (list, tuple)) and any(isinstance(one, Mapping) for one in config):
        return [line for i, one in enumerate(config) for line in settings_of(one, f"{name}[{i}]")]
    if isinstance(config, (list, tuple)):
        return [(name, ", ".join(str(one) for one in config) or "none")]
    return [(name, "none" if config is None or config == {} else f"{config}")]


def _figures(metrics: Mapping[str, Metric]) -> Figures:
    """Return metrics by dotted name; whole numbers stay whole, so that they are shown in full."""
    whole = {name: value for name, value in metrics.items() if isinstance(value, int)}
    return {**flatten(metrics), **whole}


def _scaled(value: float | None, scale: float) -> float | None:
    return value if value is None or scale == 1.0 else value * scale


def _against(value: float | None, reference: float | None) -> str:
    if value is None or not reference:
        return ""
    share = 100.0 * (value - reference) / abs(reference)
    if value == reference or abs(share) < 0.05:
        return "=" if value == reference else "&lt; 0.1 %"
    return f"{share:+.{1 if abs(share) < 100 else 0}f} %"


def _count(metrics: Mapping[str, Metric]) -> int:
    found = metrics.get("submitted", metrics.get("completed"))
    return found if isinstance(found, int) else 0
