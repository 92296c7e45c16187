"""What the rows of an evaluation say: means with 95 % intervals, clustered by document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from reports.evaluation.clustered import as_json, ratio
from reports.evaluation.diversity import self_bleu

Row = Mapping[str, Any]
JUDGED_FROM = 0.6  # task accuracy of the dense baseline at which a comparison means something
PAIRED_FROM = 500  # examples that a verdict on accuracy needs
KL_BAR_NATS, AGREEMENT_BAR, BYTES_BAR, TOKENS_BAR, CONTEXT_BAR = 0.01, 0.95, 0.4, 1000, 3000
FREE_METRICS = (
    "score", "distinct_2", "distinct_3", "repeated_share", "tokens", "temperature", "coverage",
    "entropy_nats", "nll_nats",
)  # fmt: skip


def forced_summary(rows: Sequence[Row], prices: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return one entry per kind of text and setting.

    ``prices`` holds by setting what scoring a page reads, over what reading the page does.
    """
    found = []
    for text in dict.fromkeys(row["text"] for row in rows):
        there = [row for row in rows if row["text"] == text and _scored(row)]
        for name in dict.fromkeys(name for row in there for name in row["settings"]):
            entry = {"text": text, "setting": name, "practical": prices[name] > 0.0}
            found.append(entry | _setting(there, name, prices[name]))
    return found


def meets_bar(entry: Mapping[str, Any]) -> str:
    """Return the verdict on the bar for sparse attention: met, missed, too little, or bound.

    60 % fewer KV bytes with metadata, mean KL at most .01 nat, top-1 agreement at least 95 %, on at
    least 1,000 tokens at contexts of 3,000 and more. Judged on means; the intervals stand beside.
    The oracle is a bound, whatever it reaches.
    """
    if not entry["practical"]:
        return "bound"
    if entry["tokens"] < TOKENS_BAR or entry["shortest_prompt_tokens"] < CONTEXT_BAR:
        return "too little"
    good = (
        entry["kv_bytes_share"]["mean"] <= BYTES_BAR
        and entry["kl_nats"]["mean"] <= KL_BAR_NATS
        and entry["top1_agreement"]["mean"] >= AGREEMENT_BAR
    )
    return "met" if good else "missed"


def free_summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one entry per task and arm: score, repetition, diversity, and what control did."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        for arm in dict.fromkeys(row["arm"] for row in of_task):
            there = [row for row in of_task if row["arm"] == arm]
            entry: dict[str, Any] = {"task": task, "arm": arm, "replies": len(there)}
            entry["documents"] = len({row["document"] for row in there})
            entry |= {name: as_json(_mean(there, name)) for name in FREE_METRICS}
            entry["self_bleu"] = as_json(_self_bleu(there))
            entry["stopped_share"] = sum(row["reason"] == "stop" for row in there) / len(there)
            found.append(entry)
    return found


def paired_scores(rows: Sequence[Row], baseline: str, preset: str) -> list[dict[str, Any]]:
    """Return per task the score of ``preset`` minus ``baseline``, by pairs of document and seed.

    ``judged`` is False where the baseline scores under 60 %: then a difference says little about
    pruning, whatever its interval.
    """
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        scores: dict[tuple[str, int], dict[str, float]] = {}
        for row in rows:
            if row["task"] == task and row["score"] is not None:
                scores.setdefault((row["document"], row["seed"]), {})[row["arm"]] = row["score"]
        pairs = {key: arms for key, arms in scores.items() if {baseline, preset} <= set(arms)}
        if not pairs:
            continue
        documents = [document for document, _ in pairs]
        level = float(np.mean([arms[baseline] for arms in pairs.values()]))
        change = [arms[preset] - arms[baseline] for arms in pairs.values()]
        found.append(
            {
                "task": task,
                "pairs": len(pairs),
                "documents": len(set(documents)),
                "baseline_score": level,
                "change": as_json(ratio(documents, change)),
                "judged": level >= JUDGED_FROM,
                "enough": len(set(documents)) >= PAIRED_FROM,
            }
        )
    return found


def _scored(row: Row) -> bool:
    return any(numbers["kl_nats"] for numbers in row["settings"].values())


def _setting(rows: Sequence[Row], name: str, price: float) -> dict[str, Any]:
    documents = [row["document"] for row in rows]
    numbers = [row["settings"][name] for row in rows]
    tokens = [len(n["kl_nats"]) for n in numbers]
    kl = np.concatenate([np.asarray(n["kl_nats"], np.float64) for n in numbers])
    dense = [n["units_dense"] for n in numbers]
    read = [n["units_read"] + price * n["units_scored"] for n in numbers]

    def per_token(values: Sequence[float]) -> dict[str, Any]:
        return as_json(ratio(documents, values, tokens))

    def where_looked(name: str) -> dict[str, Any]:
        kept = [n["looked_at"] - n[name] for n in numbers]
        return as_json(ratio(documents, kept, [n["looked_at"] for n in numbers]))

    return {
        "documents": len(set(documents)),
        "tokens": int(sum(tokens)),
        "pruned_tokens": int(sum(n["pruned_tokens"] for n in numbers)),
        "shortest_prompt_tokens": min(row["prompt_tokens"] for row in rows),
        "kl_nats": per_token([sum(n["kl_nats"]) for n in numbers])
        | {"p50": float(np.quantile(kl, 0.5)), "p95": float(np.quantile(kl, 0.95))}
        | {"max": float(kl.max())},
        "top1_agreement": per_token([n["agreed"] for n in numbers]),
        "nll_change_nats": per_token([n["nll_nats"] - n["dense_nll_nats"] for n in numbers]),
        "dense_nll_nats": per_token([n["dense_nll_nats"] for n in numbers]),
        "kv_pages_kept_share": as_json(ratio(documents, [n["units_read"] for n in numbers], dense)),
        "kv_bytes_share": as_json(ratio(documents, read, dense)),
        "coverage_asked": where_looked("asked_dropped"),
        "coverage_true": where_looked("dropped"),
    }


def _mean(rows: Sequence[Row], name: str) -> Any:
    known = [row for row in rows if row[name] is not None]
    return ratio([row["document"] for row in known], [row[name] for row in known])


def _self_bleu(rows: Sequence[Row]) -> Any:
    """Return the interval of self-BLEU among the seeds of one prompt."""
    documents, values = [], []
    ordered = sorted(rows, key=lambda row: row["document"])
    for document, group in groupby(ordered, key=lambda row: row["document"]):
        value = self_bleu([row["text"] for row in group])
        if value is not None:
            documents.append(document)
            values.append(value)
    return ratio(documents, values)
