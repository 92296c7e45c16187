"""What a run says on the terminal: a table per benchmark, and for pruning a few plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from backend.sparse import SparseAttention
from controllers.presets import get_preset
from reports.bench.rows import BenchRow, size_in
from traces.text import number, table

# metric, heading, scale; the first one is shown with its range.
Column = tuple[str, str, float]
_COPY: Column = ("copy_gb_per_s", "copy GB/s", 1.0)
_SPEED: tuple[Column, ...] = (
    ("speedup_over_transformers", "x transformers", 1.0),
    ("same_next_token_share", "same token", 1.0),
)
COLUMNS: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {
        "copy": (("gb_per_s", "GB/s", 1.0),),
        "decode": (
            ("step_s", "step, ms", 1e3),
            ("tokens_per_s", "tokens/s", 1.0),
            ("weights_bytes", "weights, GB", 1e-9),
            ("kv_bytes", "KV, GB", 1e-9),
            ("gb_per_s", "GB/s", 1.0),
            _COPY,
            ("share_of_copy", "of copy", 1.0),
            ("pages_kept_share", "pages kept", 1.0),
            *_SPEED,
        ),
        "prefill": (("prefill_s", "s", 1.0), ("tokens_per_s", "tokens/s", 1.0), _COPY, *_SPEED),
        "sparse": (
            ("step_s", "step, ms", 1e3),
            ("pages_kept", "pages kept", 1.0),
            ("pages_kept_share", "share kept", 1.0),
            ("kv_bytes", "KV, GB", 1e-9),
            ("time_over_dense", "x dense's time", 1.0),
            _COPY,
        ),
        "overhead": (("share_of_step", "share of step", 1.0), ("part_s", "ms", 1e3)),
        "serve": (
            ("total_s", "s", 1.0),
            ("tokens_per_s", "tokens/s", 1.0),
            ("ttft_mean_s", "TTFT mean, s", 1.0),
            ("ttft_max_s", "max, s", 1.0),
            ("tpot_mean_s", "TPOT, ms", 1e3),
            ("itl_p50_s", "ITL p50, ms", 1e3),
            ("itl_p99_s", "p99, ms", 1e3),
            ("kv_bytes", "KV, GB", 1e-9),
            ("pages_kept_share", "pages kept", 1.0),
            ("probe_share", "probes", 1.0),
            ("speedup_over_transformers", "x generate", 1.0),
            ("same_tokens_as_transformers", "same text", 1.0),
            ("speedup_over_continuous", "x continuous", 1.0),
            ("same_tokens_as_continuous", "same text", 1.0),
        ),
    }
)


def tables(rows: Sequence[BenchRow]) -> str:
    """Return a table per benchmark among ``rows``, then what pruning costs and saves."""
    parts = []
    for name in dict.fromkeys(row.name for row in rows):
        mine = [row for row in rows if row.name == name]
        repeats = max(row.repeats for row in mine)
        text = f"{name} (median, range over {repeats} repeats)\n\n" + _table(mine, COLUMNS[name])
        sentences = (*fits(mine), *crossings(mine))
        parts.append(text + "".join(f"\n{sentence}" for sentence in sentences))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def fits(rows: Sequence[BenchRow]) -> list[str]:
    """Return the line through time against pages kept, at each context that has one."""
    found = []
    for shape, metrics in _by_shape(rows, "fit").items():
        line = {name: row.median for name, row in metrics.items()}
        rate = line.get("page_gb_per_s")
        read = "" if rate is None else f", {rate:.1f} GB/s of KV"
        found.append(
            f"{shape}: step = {1e3 * line['intercept_s']:.1f} ms + "
            f"{1e3 * line['slope_s_per_page']:.3f} ms x pages kept{read} "
            f"(R2 of medians {line['r2_of_medians']:.3f}); attention is "
            f"{100 * line['attention_share']:.0f} % of a dense step; choosing pages costs "
            f"{1e3 * line['choosing_s']:.1f} ms"
        )
    return found


def crossings(rows: Sequence[BenchRow]) -> list[str]:
    """Return for every coverage from which context on it is faster than dense."""
    sparse = [row for row in rows if row.metric == "time_over_dense" and "=" in row.variant]
    found = []
    for variant in dict.fromkeys(row.variant for row in sparse):
        shapes = [row.shape for row in sparse if row.variant == variant]
        crossed = [r for r in rows if r.metric == "crossover_tokens" and r.variant == variant]
        text = f"{variant}, batch {size_in(shapes[0], 'batch'):g}: "
        if crossed:
            one = crossed[-1]
            text += f"slower than dense below about {one.median:,.0f} tokens"
            text += f" ({one.low:,.0f} to {one.high:,.0f} over repeats)" if one.repeats > 1 else ""
        else:
            longest = max(size_in(shape, "context") for shape in shapes)
            text += f"no faster than dense up to {longest:,.0f} tokens, the longest timed"
        found.append(text)
    if found:
        tokens, pages = get_preset("full").sparse_min_context, SparseAttention().min_pages
        found.append(
            f"pruning switches itself off below {tokens} tokens (sparse_min_context of the "
            f"presets) and below {pages} pages (min_pages of the executor)"
        )
    return found


def _by_shape(rows: Sequence[BenchRow], variant: str) -> dict[str, dict[str, BenchRow]]:
    found: dict[str, dict[str, BenchRow]] = {}
    for row in rows:
        if row.variant == variant:
            found.setdefault(row.shape, {})[row.metric] = row
    return found


def _table(rows: Sequence[BenchRow], columns: Sequence[Column]) -> str:
    first = columns[0][0]
    lines: dict[tuple[str, str], dict[str, BenchRow]] = {}
    for row in rows:
        lines.setdefault((row.shape, row.variant), {})[row.metric] = row
    shown = [column for column in columns if any(column[0] in line for line in lines.values())]
    cells = [
        (shape, variant, *(_cell(line.get(metric), scale, metric == first)
                           for metric, _, scale in shown))
        for (shape, variant), line in lines.items()
        if first in line
    ]  # fmt: skip
    return table(("shape", "variant", *(heading for _, heading, _ in shown)), cells)


def _cell(row: BenchRow | None, scale: float, ranged: object) -> str:
    if row is None:
        return "-"
    text = number(float(scale * row.median))
    if not ranged or row.repeats == 1:
        return text
    return f"{text} ({number(float(scale * row.low))}-{number(float(scale * row.high))})"
