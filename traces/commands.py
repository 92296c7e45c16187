"""Commands on traces: ``entropic trace info``, ``import``, ``mix``, ``synth``, ``servegen``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traces.console import emit_json, guarded, note
from traces.import_commands import app as import_app
from traces.synth_commands import app as synth_app
from traces.text import number, table

if TYPE_CHECKING:
    from traces.store import Trace

app = typer.Typer(name="trace", no_args_is_help=True)
app.add_typer(import_app)
app.add_typer(synth_app)


@app.callback()
def trace() -> None:
    """Look into traces of entropies and of arrivals; import, mix and draw arrivals."""


@app.command()
@guarded
def info(
    file: Annotated[Path, typer.Argument(help="Entropy trace, arrivals, or entropy intervals.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    sort: Annotated[bool, typer.Option("--sort", help="Arrivals: sort rows out of order.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Intervals: draw them, .svg or .png.")] = None,
) -> None:
    """Say what a trace holds: requests, entropies, page shares, arrivals, lengths, provenance."""
    from traces.import_files import is_parquet
    from traces.import_ledger import is_ledger
    from traces.intervals import is_intervals

    if is_intervals(file):
        _intervals(file, plot, json)
        return
    if plot is not None:
        raise ValueError(f"plot draws entropy intervals; got {file}, which holds none")
    if file.is_file() and (is_ledger(file) if is_parquet(file) else _is_text(file)):
        _arrivals(file, sort, json)
        return
    from traces.info import describe
    from traces.store import read_trace

    found = read_trace(file)
    groups = by_group(found)
    if json:
        metadata = {name: found.metadata[name] for name in sorted(found.metadata)}
        metrics = describe(found) | {"by_class_and_temperature": groups}
        emit_json("trace info", seed=None, config={"trace": file.name} | metadata, metrics=metrics)
    else:
        sys.stdout.write(report(found, describe(found), groups))


def _is_text(file: Path) -> bool:
    """Return whether ``file`` begins as text or gzip: anything else is a damaged trace."""
    with file.open("rb") as raw:
        begin = raw.read(4096)
    return begin.startswith(b"\x1f\x8b") or (b"\0" not in begin and len(begin) > 0)


def _arrivals(file: Path, sort: bool, json: bool) -> None:  # noqa: FBT001 - the command's own flags
    from traces.arrivals_info import arrivals_report, describe_arrivals
    from traces.import_files import read

    found = read(file, None, sort=sort)
    metrics = describe_arrivals(found)
    if json:
        emit_json("trace info", seed=None, config={"arrivals": file.name}, metrics=metrics)
    else:
        sys.stdout.write(arrivals_report(metrics))


def _intervals(file: Path, plot: Path | None, json: bool) -> None:  # noqa: FBT001 - likewise
    from traces.intervals import describe_intervals, intervals_report, read_intervals

    found = read_intervals(file)
    metrics = describe_intervals(found)
    if plot is not None:
        from traces.intervals_plot import plot_intervals

        plot_intervals(plot, found)
        note(f"wrote {plot}")
    if json:
        emit_json("trace info", seed=None, config={"intervals": file.name}, metrics=metrics)
    else:
        sys.stdout.write(intervals_report(metrics))


def by_group(trace: Trace) -> list[dict[str, Any]]:
    """Return one row per task class and recorded temperature; entropies in nats, token means."""
    members: dict[tuple[str, float], list[int]] = {}
    for request in trace.requests:
        members.setdefault((request.task_class, request.temperature), []).append(request.request)
    rows = []
    for (task_class, temperature), indices in sorted(members.items()):
        parts = [trace.of(index) for index in indices]
        requests = [trace.requests[index] for index in indices]
        tokens = sum(len(part["h_cal"]) for part in parts)
        means = {
            name: _mean([part[name] for part in parts], tokens)
            for name in ("h_applied", "h_cal", "v_cal", "surprisal")
        }
        rows.append(
            {
                "task_class": task_class,
                "temperature": round(temperature, 6),  # stored as float32
                "requests": len(indices),
                "stopped": sum(r.finish_reason == "stop" for r in requests),
                "tokens": tokens,
                "prompt_tokens_mean": sum(r.prompt_tokens for r in requests) / len(requests),
                **means,
            }
        )
    return rows


def report(trace: Trace, found: dict[str, Any], groups: list[dict[str, Any]]) -> str:
    """Return a trace's summary as text tables."""
    rho = found["entropy_lag1"]
    return "\n".join(
        (
            f"{trace.path.name}: {found['requests']} requests, {found['tokens']} tokens of "
            f"{found['model']}, T_cal {number(found['t_cal'])}\n",
            _groups(groups),
            _curves(found["entropy"]["by_temperature"]),
            "lag-1 correlation of H at T_cal within sequences: "
            f"{number(rho['value'])} ({rho['sequences']} sequences)\n",
            _shares(found["kept_share"]),
            _pruned(found["pruned"]),
            f"recorded by: {trace.metadata['command']}",
            f"versions: {trace.metadata['versions']}",
            f"weights sha256: {trace.metadata['weights_sha256']}",
            f"file sha256: {trace.sha256}",
            "",
        )
    )


def _mean(parts: list[Any], count: int) -> float | None:
    return sum(float(part.sum(dtype="float64")) for part in parts) / count if count else None


def _groups(groups: list[dict[str, Any]]) -> str:
    header = ("task class", "T", "requests", "stopped", "tokens", "prompt", "H(T)", "H(T_cal)")
    rows = [
        [
            row["task_class"],
            f"{row['temperature']:g}",
            str(row["requests"]),
            str(row["stopped"]),
            str(row["tokens"]),
            number(row["prompt_tokens_mean"]),
            number(row["h_applied"]),
            number(row["h_cal"]),
            number(row["v_cal"]),
            number(row["surprisal"]),
        ]
        for row in groups
    ]
    return table((*header, "V(T_cal)", "-ln p at 1"), rows)


def _curves(nodes: list[dict[str, Any]]) -> str:
    stats = ("mean", "std", "p5", "p50", "p95")
    rows = []
    for node in nodes:
        h, v = node["h_nats"] or {}, node["v_nats2"] or {}
        cells = [number(h.get(stat)) for stat in stats]
        rows.append([f"{node['t']:g}", *cells, number(v.get("mean")), number(v.get("p95"))])
    return table(("entropy at T, nats", *stats, "V mean", "V p95"), rows)


def _shares(kept: list[dict[str, Any]]) -> str:
    coverages = sorted({row["coverage"] for row in kept})
    lines: dict[tuple[int, int, int, str], dict[float, float]] = {}
    for row in kept:
        key = (row["context_from"], row["context_below"], row["tokens"], row["scorer"])
        lines.setdefault(key, {})[row["coverage"]] = row["kept_mean"]
    rows = [
        [f"{low}-{high - 1}, {scorer}", str(tokens), *(number(shares[c]) for c in coverages)]
        for (low, high, tokens, scorer), shares in lines.items()
    ]
    columns = (f"p {coverage:g}" for coverage in coverages)
    return table(("share of pages kept, by context", "tokens", *columns), rows)


def _pruned(pruned: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{row['coverage']:g}",
            str(row["samples"]),
            number(row["residual_mean_nats"]),
            number(row["residual_rms_nats"]),
            number(row["kl_mean_nats"]),
        ]
        for row in pruned
    ]
    header = ("coverage", "samples", "H shift mean", "H shift rms", "KL to dense, nats")
    return table(header, rows)
