"""A capacity plan in small, as ``entropic plan`` writes it; the numbers are made up."""

from __future__ import annotations

from typing import Any

CLAUSES = (("ttft_p99<1.5s", "ttft_s.p99", 1.5), ("tpot_p95<40ms", "tpot_s.p95", 0.04))


def spread(centre: float, half: float = 0.1) -> dict[str, float]:
    return {"centre": centre, "low": centre * (1 - half), "high": centre * (1 + half)}


def load(replicas: int, rate: float, slower: float, cheaper: float, status: str) -> dict[str, Any]:
    figures = {
        "ttft_s.p99": 0.6 * slower,
        "tpot_s.p95": 0.02 * slower,
        "nll_per_token_nats": 1.5,
        "tau_per_token_nats": 0.5,
        "kv_pages_kept_share": cheaper,
        "coverage_mean": 0.98,
        "gpu_hours_per_million_tokens": 0.1 * cheaper,
        "usd_per_million_tokens": 0.3 * cheaper,
        "utilisation": 0.8,
    }
    return {
        "replicas": replicas,
        "rate_per_s": rate,
        "status": status,
        "clauses": [
            {
                "clause": text,
                "metric": metric,
                "bound": bound,
                "status": status,
                "recorded": figures[metric],
                "other_hours": spread(figures[metric]),
                "slack_share": 1 - 1.1 * figures[metric] / bound,
            }
            for text, metric, bound in CLAUSES
        ],
        "figures": {
            name: {"recorded": value, "other_hours": spread(value)}
            for name, value in figures.items()
        },
    }


def row(preset: str, replicas: int | None, cheaper: float, *, pruned: bool) -> dict[str, Any]:
    quote = {
        "model": "SmolLM2-135M-Instruct",
        "setting": "mean_std p=0.98",
        "coverage": 0.98,
        "nll_change_nats": 0.0127,
        "nll_change_ci95": 0.0138,
        "kl_nats": 0.0123,
        "top1_agreement": 0.96,
        "kv_bytes_share": 0.47,
    }
    met = replicas is not None
    return {
        "preset": preset,
        "met": met,
        "replicas": replicas,
        "fewest": load(replicas or 8, 12.0, 1.0 if met else 5.0, cheaper, "meets"),
        "one_less": load(2, 12.0, 3.0, cheaper, "misses") if met else None,
        "knee": load(1, 4.0 / cheaper, 2.0, cheaper / 2, "meets") if met else None,
        "knee_fails_at_per_s": 4.1 / cheaper if met else None,
        "alike": load(3, 12.0, 1.0, cheaper, "meets"),
        "against_reference": {
            "ttft_s.p99": {
                "difference": {"centre": -0.3, "low": -0.4, "high": -0.2},
                "share": -0.5,
                "told_apart": True,
            },
            "nll_per_token_nats": {
                "difference": {"centre": 0.0, "low": 0.0, "high": 0.0},
                "share": 0.0,
                "told_apart": False,
            },
            "tau_per_token_nats": {"difference": None, "share": None, "told_apart": False},
        },
        "pruning_measured": quote if pruned else None,
    }


def point(name: str, of: dict[str, Any], loaded: dict[str, Any], by: str | None) -> dict[str, Any]:
    objectives = ("gpu_hours_per_million_tokens", "ttft_s.p99", "nll_per_token_nats")
    values = {key: loaded["figures"][key]["other_hours"]["centre"] for key in objectives}
    return {
        "name": name,
        "preset": of["preset"],
        "replicas": loaded["replicas"],
        "rate_per_s": loaded["rate_per_s"],
        "values": {**values, "pruning_kl_nats": 0.0123 if of["pruning_measured"] else 0.0},
        "dominated_by": by,
    }


def plan_of(*, priced: bool = True) -> dict[str, Any]:
    """Three presets: one that takes three servers, one that takes two, one that cannot."""
    rows = [
        row("baseline", 3, 1.0, pruned=False),
        row("attention", 2, 0.5, pruned=True),
        row("seed", None, 0.4, pruned=True),
    ]
    first, second, _ = rows
    return {
        "command": "plan",
        "version": "0.0",
        "seed": 7,
        "config": {
            "trace": "made_up.parquet",
            "trace_sha256": "0" * 64,
            "traced_model": "made up",
            "planned_model": "Llama <8B>",
            "profile_device": "H100",
            "profile_created": "2000-01-01",
            "arrivals": "made up",
            "rate_per_s": 12.0,
            "requests": 600,
            "slo": "ttft_p99<1.5s,tpot_p95<40ms",
            "resampled_hours": 2,
            "gpus_per_replica": 1,
            "usd_per_gpu_hour": 3.0 if priced else None,
            "knee_resolution": 0.02,
            "reference": "baseline",
            "limits": {"n_pages": 100, "max_seqs": 8},
            "presets": {"baseline": {"temperature": "FixedTemperature()"}},
        },
        "rows": rows,
        "pareto": {
            "objectives": [
                "gpu_hours_per_million_tokens",
                "ttft_s.p99",
                "pruning_kl_nats",
            ],
            "points": [
                point("baseline as planned", first, first["fewest"], None),
                point("baseline at its knee", first, first["knee"], None),
                point("attention as planned", second, second["fewest"], "baseline as planned"),
            ],
        },
        "notes": ["the traced model (made up) is not the planned model", "a & b"],
    }
