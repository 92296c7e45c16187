"""The short table a run ends with: verdicts first, then the figures that the bars are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.gpu.bandwidth import best_copy
from reports.gpu.record import read_rows

CHECKS = ("correctness", "serve")  # stages that say what passed
FILLS = 64e6  # bytes of K and V from which a call is taken to fill the chip


def table(folder: Path, stages: tuple[str, ...]) -> str:
    """Return a few lines per stage that ran, from the records in ``folder``."""
    parts = {"bandwidth": _rates, "kernels": _kernels, "loop": _steps}
    parts |= dict.fromkeys(CHECKS, _checks)
    lines: list[str] = []
    for stage in stages:
        rows = read_rows(folder, stage)
        lines.append(f"{stage}: {len(rows)} rows, {_errors(rows)} errors, {_skipped(rows)} skipped")
        lines += [f"  {line}" for line in parts.get(stage, _profiles)(rows)]
    return "\n".join(lines)


def failed_checks(folder: Path, stage: str) -> list[str]:
    """Return the checks that did not pass; a check that could not run is not among them."""
    rows = read_rows(folder, stage)
    return [row["what"] for row in rows if row.get("passed") is False]


def _errors(rows: list[dict[str, Any]]) -> int:
    return sum("error" in row for row in rows)


def _skipped(rows: list[dict[str, Any]]) -> int:
    return sum(row["what"] == "skipped" for row in rows)


def _checks(rows: list[dict[str, Any]]) -> list[str]:
    said = {True: "passed", False: "FAILED", None: "not run"}
    return [f"{row['what']}: {said[row['passed']]}" for row in rows if "passed" in row]


def _rates(rows: list[dict[str, Any]]) -> list[str]:
    rate = best_copy(rows)
    lines = [] if rate is None else [f"copy {rate / 1e12:.3f} TB/s"]
    products = [row for row in rows if row["what"] == "matmul_bf16"]
    return lines + [f"bf16 product {row['flops_per_s'] / 1e12:.0f} TFLOP/s" for row in products]


def _kernels(rows: list[dict[str, Any]]) -> list[str]:
    decode = [r for r in rows if r["what"] == "paged_decode" and "of_copy" in r]
    lines = []
    for kept in sorted({row["kept"] for row in decode}, reverse=True):
        full = [r["of_copy"] for r in decode if r["kept"] == kept and r["kv_bytes"] >= FILLS]
        if full:
            spread = f"{min(full):.2f} to {max(full):.2f}"
            lines.append(f"paged decode, kept {kept:g}: {spread} of copy where it fills the chip")
    for name in ("row_stats", "draw", "torch_entropy", "compiled_entropy"):
        over = [r["of_floor"] for r in rows if r["what"] == name and "of_floor" in r]
        if over:
            lines.append(f"{name}: {min(over):.2f} to {max(over):.2f} times its bandwidth floor")
    return lines


def _steps(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in (r for r in rows if r["what"] == "step" and "median_s" in r):
        point = f"{row['model']} {row['context']} x {row['batch']}"
        lines.append(f"{point}: {row['variant']}, {1e3 * row['median_s']:.3f} ms")
    shares = [r for r in rows if r["what"] == "control_overhead"]
    for name in sorted({row["variant"] for row in shares}):
        worst = max(row["share_of_step"] for row in shares if row["variant"] == name)
        lines.append(f"{name}: at most {100 * worst:.2f} % of a dense step")
    return lines


def _profiles(rows: list[dict[str, Any]]) -> list[str]:
    found = [row for row in rows if row["what"] == "profile"]
    return [f"{r['file']}: held out {r['held_out_mean_abs_pct']:.1f} %" for r in found]
