"""Summaries of a trace, against numbers worked out by other means."""

from __future__ import annotations

import json

import numpy as np
import pytest

from traces.info import context_bins, describe, lag1
from traces.schema import PRUNED_NODES
from traces.store import TraceWriter, read_trace


@pytest.fixture
def write(tmp_path, metadata, make_columns, make_request):
    def make(h_cal: list[np.ndarray], prompt_tokens: int = 40):
        path = tmp_path / "t.parquet"
        with TraceWriter(path, metadata) as writer:
            for i, h in enumerate(h_cal):
                writer.add_request(make_request(i, len(h), temperature=(0.6, 1.0)[i % 2]))
                columns = make_columns(i, len(h), prompt_tokens)
                writer.add_tokens(columns | {"h_cal": h.astype(np.float32)})
        return read_trace(path)

    return make


def ar1(rho: float, n: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    x = np.zeros(n)
    for t in range(1, n):
        x[t] = rho * x[t - 1] + rng.standard_normal()
    return mean + 0.1 * x


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.6])
def test_lag1_recovers_the_correlation_within_sequences_whatever_their_means(write, rho):
    rng = np.random.default_rng(0)
    trace = write([ar1(rho, 2000, mean, rng) for mean in (1.0, 5.0, 9.0)])
    assert lag1(trace)["value"] == pytest.approx(rho, abs=5 / np.sqrt(6000))


def test_lag1_of_constant_entropy_is_none(write):
    assert lag1(write([np.ones(5)])) == {"value": None, "sequences": 1}


def test_a_description_counts_and_averages_what_is_there(write):
    rng = np.random.default_rng(0)
    trace = write([rng.random(n) for n in (30, 1, 40)], prompt_tokens=250)
    summary = describe(trace)
    assert summary["requests"] == 3
    assert summary["tokens"] == 71
    assert summary["requests_by_class"] == {"code": 2, "reasoning": 1}
    assert summary["requests_by_temperature"] == {"0.6": 2, "1": 1}
    assert summary["context_tokens"] == {"min": 250, "max": 289}
    kept = [r for r in summary["kept_share"] if r["scorer"] == "oracle" and r["coverage"] == 0.95]
    assert [(r["context_from"], r["tokens"]) for r in kept] == [(0, 13), (256, 58)]
    low = trace.columns["context"] < 256
    assert kept[0]["kept_mean"] == pytest.approx(trace.columns["kept_mean"][low, 1, 2].mean())
    json.dumps(summary, allow_nan=False)


def test_the_pruned_residual_is_counted_on_sampled_rows_only(write):
    trace = write([np.random.default_rng(0).random(30)])
    row = describe(trace)["pruned"][3]
    at = slice(None, None, 3)
    residual = trace.columns["h_pruned"][at, 3] - trace.columns["h"][at][:, list(PRUNED_NODES)]
    assert row["samples"] == row["kl_samples"] == 10
    assert row["residual_rms_nats"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-5)
    assert row["kl_mean_nats"] == pytest.approx(trace.columns["kl_pruned"][at, 3].mean(), rel=1e-5)


def test_a_trace_without_tokens_is_described_too(write):
    summary = describe(write([]))
    assert summary["tokens"] == 0
    assert summary["context_tokens"] is None
    assert summary["pruned"][0]["residual_rms_nats"] is None


def test_context_bins_hold_every_row_once():
    context = np.array([0, 255, 256, 511, 512, 5000])
    bins = context_bins(context)
    assert sum(mask for _, _, mask in bins).tolist() == [1] * 6
    assert [(low, high) for low, high, _ in bins] == [
        (0, 256),
        (256, 512),
        (512, 1024),
        (4096, 8192),
    ]
