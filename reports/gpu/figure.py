"""Stage ``figure``: rooflines and step times, drawn from the records; needs no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.gpu.bandwidth import best_copy
from reports.gpu.place import Place
from reports.gpu.record import Record, read_rows
from reports.style import COLOURS, INK, MUTED, new_figure, styled
from traces.atomic import atomic_path

NAME = "roofline.png"
SHARES = {1.0: "o", 0.5: "s", 0.25: "^", 0.1: "v"}
STEPS = ("dense", "control", "attention 0.25", "attention 0.1", "full 0.99")
WANTED = 0.8  # of the copy bandwidth, where the kernel fills the chip


def figure(place: Place, record: Record) -> None:
    """Draw what the folder's records hold; say so where one is missing."""
    folder = record.path.parent
    copies, decode = read_rows(folder, "bandwidth"), read_rows(folder, "kernels", "paged_decode")
    steps = read_rows(folder, "loop", "step")
    copy_rate = best_copy(copies)
    if copy_rate is None or not decode:
        record.add("figure", drawn=False, note="run the stages bandwidth and kernels first")
        return
    drawn = roofline(copies, decode, steps, device=place.name() if place.cuda else _device(folder))
    with atomic_path(folder / NAME) as part:
        drawn.savefig(part, format="png", dpi=150)
    record.add("figure", drawn=True, file=NAME, points=len(decode), steps=len(steps))


def roofline(
    copies: list[dict[str, Any]],
    decode: list[dict[str, Any]],
    steps: list[dict[str, Any]],
    *,
    device: str,
) -> Figure:
    """Draw bytes per second of paged decode over the bytes it reads, and step times by context."""
    rate = best_copy(copies)
    assert rate is not None, "the caller has looked"
    footer = f"{device}. Left: K and V of one layer's pages, bf16; dashed: {WANTED:g} of the copy."
    with styled():
        drawn = new_figure(10.0, 4.4, footer)
        left, right = drawn.subplots(1, 2)
        _decode_panel(left, decode, rate)
        _step_panel(right, steps)
        return drawn


def _decode_panel(axis: Axes, decode: list[dict[str, Any]], rate: float) -> None:
    rows = [row for row in decode if "bytes_per_s" in row and not row["masses"]]
    for kept, marker in SHARES.items():
        these = [row for row in rows if row["kept"] == kept]
        xs = [row["kv_bytes"] / 1e6 for row in these]
        ys = [row["bytes_per_s"] / 1e12 for row in these]
        axis.scatter(xs, ys, marker=marker, s=18, label=f"kept {kept:g}", alpha=0.8)
    axis.axhline(rate / 1e12, color=INK, linewidth=1.2)
    axis.axhline(WANTED * rate / 1e12, color=MUTED, linewidth=1.0, linestyle="--")
    axis.annotate(
        "device copy", (0.01, rate / 1e12), xycoords=("axes fraction", "data"), va="bottom"
    )
    axis.set_xscale("log")
    axis.set_xlabel("K and V read in one call, MB")
    axis.set_ylabel("TB/s")
    axis.set_title("paged decode")
    axis.legend(frameon=False, fontsize=8)


def _step_panel(axis: Axes, steps: list[dict[str, Any]]) -> None:
    least = min((row["batch"] for row in steps), default=1)
    rows = [row for row in steps if row["batch"] == least and "median_s" in row]
    models = sorted({row["model"] for row in rows})
    colours = list(COLOURS.values())
    for name, colour in zip(STEPS, colours, strict=False):
        these = [row for row in rows if row["variant"] == name and row["model"] == models[0]]
        these.sort(key=lambda row: row["context"])
        xs = [row["context"] / 1024 for row in these]
        axis.plot(
            xs, [1e3 * row["median_s"] for row in these], color=colour, marker="o", label=name
        )
    axis.set_xlabel("context, thousand tokens (1,024)")
    axis.set_ylabel("ms per step")
    axis.set_title(
        f"decode step, batch {least}, {models[0]}" if models else "decode step: not measured"
    )
    if rows:
        axis.legend(frameon=False, fontsize=8)


def _device(folder: Path) -> str:
    import json

    return str(json.loads((folder / "bandwidth.json").read_text(encoding="utf-8"))["device"])
