"""Distance to dense against KV bytes read, one line per way to score pages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from reports.style import COLOURS, INK, MUTED, new_figure, styled

SCORERS: Mapping[str, tuple[str, str]] = MappingProxyType(  # scorer -> label, colour
    {
        "oracle": ("oracle, a bound", COLOURS["baseline"]),
        "mean_std": ("mean + std", COLOURS["full"]),
        "lagged": ("mean + std or lagged mass", COLOURS["seed"]),
        "low_bit": ("4-bit keys", COLOURS["attention"]),
        "quest": ("Quest", COLOURS["sampling"]),
    }
)
BYTES_BAR, KL_BAR_NATS = 0.4, 0.01


def quality(document: Mapping[str, Any]) -> Figure:
    """Draw mean KL(dense || pruned) per token, and NLL change of correct replies, with 95 %.

    ``document`` is what ``entropic quality`` writes: entries by text and setting.
    """
    with styled():
        figure = new_figure(11.0, 4.2, _footer(document))
        left, right = figure.subplots(1, 2)
        _lines(left, document, "sampled", "kl_nats")
        left.set_yscale("log")
        left.axhline(KL_BAR_NATS, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        left.axvline(BYTES_BAR, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        left.annotate("the bar", (BYTES_BAR, KL_BAR_NATS), xytext=(-4, -4),
                      textcoords="offset points", ha="right", va="top", fontsize=8)  # fmt: skip
        left.set_ylabel("KL to dense, nat per token")
        left.set_title("along what the dense model says")
        _lines(right, document, "reply", "nll_change_nats")
        right.axhline(0.0, color=MUTED, linewidth=1.0)
        right.set_ylabel("NLL change, nat per token")
        right.set_title("along correct replies")
        for axis in (left, right):
            axis.set_xlabel("KV bytes read, share of dense (metadata counted)")
            axis.set_xlim(left=0.0)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
        return figure


def _lines(axis: Any, document: Mapping[str, Any], text: str, metric: str) -> None:
    entries = {e["setting"]: e for e in document["entries"] if e["text"] == text}
    families: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for setting in document["config"]["settings"]:
        if setting["name"] in entries:
            families.setdefault(_family(setting["sparse"]), []).append(entries[setting["name"]])
    for (scorer, variant), points in families.items():
        points.sort(key=lambda e: e["kv_bytes_share"]["mean"])
        label, colour = SCORERS[scorer]
        axis.errorbar(
            [e["kv_bytes_share"]["mean"] for e in points],
            [e[metric]["mean"] for e in points],
            yerr=[e[metric]["ci95"] or 0.0 for e in points],
            color=colour,
            marker="s" if variant else "o",
            markersize=4,
            markerfacecolor="white" if variant else colour,
            capsize=2,
            label=", ".join(filter(None, (label, variant))),
        )


def _family(sparse: Mapping[str, Any]) -> tuple[str, str]:
    parts = []
    if sparse["dense_layers"]:
        parts.append(f"first {sparse['dense_layers']} layers dense")
    if sparse["block_pages"] > 1:
        parts.append(f"blocks of {sparse['block_pages']} pages")
    return sparse["scorer"], ", ".join(parts)


def _footer(document: Mapping[str, Any]) -> str:
    entries, config = document["entries"], document["config"]
    documents = max((e["documents"] for e in entries), default=0)
    return (
        f"{document.get('model', 'model')}, prompts of up to {config['context']:,} tokens, "
        f"{documents} documents, same forced tokens for all; bars: 95 % over documents"
    )
