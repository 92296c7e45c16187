"""Summaries of an evaluation as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.evaluation.summary import JUDGED_FROM, PAIRED_FROM, meets_bar
from traces.text import number, table

Entry = Mapping[str, Any]


def forced_text(entries: Sequence[Entry]) -> str:
    """Return a table per kind of text: what each setting kept, and how far it is from dense."""
    head = ("setting", "tokens", "KL, nat", "p95", "top-1 agrees", "NLL change", "pages kept",
            "KV bytes", "coverage asked", "true")  # fmt: skip
    parts = []
    for text in dict.fromkeys(entry["text"] for entry in entries):
        there = [entry for entry in entries if entry["text"] == text]
        rows = [
            (
                entry["setting"],
                f"{entry['tokens']:,}",
                interval(entry["kl_nats"], 4),
                number(entry["kl_nats"]["p95"]),
                interval(entry["top1_agreement"]),
                interval(entry["nll_change_nats"], 4, sign=True),
                interval(entry["kv_pages_kept_share"]),
                interval(entry["kv_bytes_share"]),
                interval(entry["coverage_asked"]),
                interval(entry["coverage_true"]),
            )
            for entry in there
        ]
        what = "the correct reply" if text == "reply" else "what the dense model says"
        documents = max(entry["documents"] for entry in there)
        parts.append(
            f"Along {what}: {documents} documents, prompts from "
            f"{min(entry['shortest_prompt_tokens'] for entry in there):,} tokens; "
            f"± 95 % over documents\n{table(head, rows)}"
        )
    return "\n".join(parts)


def bar_text(entries: Sequence[Entry]) -> str:
    """Return one line: which settings meet the bar for sparse attention."""
    verdicts = {e["setting"]: meets_bar(e) for e in entries if e["text"] == "sampled"}
    met = [name for name, verdict in verdicts.items() if verdict == "met"]
    if met:
        return f"bar met (60 % fewer KV bytes, KL <= .01, top-1 >= 95 %): {', '.join(met)}\n"
    little = sum(verdict == "too little" for verdict in verdicts.values())
    why = "needs 1,000 tokens at 3,000 of context" if little else "no setting meets it"
    return f"bar for sparse attention: {why}\n"


def free_text(entries: Sequence[Entry], pairs: Sequence[Entry]) -> str:
    """Return free generation as two tables: measures by arm, and paired scores."""
    head = ("task", "arm", "replies", "score", "distinct-2", "distinct-3", "repeated", "self-BLEU",
            "tokens", "stopped", "mean T", "coverage", "mean H")  # fmt: skip
    rows = [
        (
            entry["task"],
            entry["arm"],
            str(entry["replies"]),
            *(
                interval(entry[name])
                for name in ("score", "distinct_2", "distinct_3", "repeated_share", "self_bleu")
            ),
            interval(entry["tokens"], 0),
            f"{entry['stopped_share']:.2f}",
            *(interval(entry[name], 2) for name in ("temperature", "coverage", "entropy_nats")),
        )
        for entry in entries
    ]
    lines = [_verdict(pair) for pair in pairs]
    return "Free generation; ± 95 % over documents\n" + table(head, rows) + "\n".join(lines) + "\n"


def interval(found: Mapping[str, float | None], digits: int = 3, *, sign: bool = False) -> str:
    """Return ``mean ±half``, or a dash."""
    mean, half = found["mean"], found["ci95"]
    if mean is None:
        return "-"
    shown = f"{mean:+.{digits}f}" if sign else f"{mean:.{digits}f}"
    return shown if half is None else f"{shown} ±{half:.{digits}f}"


def _verdict(pair: Entry) -> str:
    level = f"{pair['task']}: baseline scores {pair['baseline_score']:.2f}"
    if not pair["judged"]:
        return f"{level}, under {JUDGED_FROM:g}: not judged"
    change = f"{level}, change {interval(pair['change'], sign=True)}"
    few = f" (an indication: fewer than {PAIRED_FROM} examples)"
    return change + ("" if pair["enough"] else few)
