"""The bar: runs of vLLM that others measured, nothing tuned on them (DESIGN section 9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.validation.golden import Comparison, compare, prepare, simulate_run

BARS = {  # percent, of the means
    "RTX4090": {"ttft_s": 3.0, "tpot_s": 3.0, "e2e_s": 3.0},
    "RTXPRO6000": {"ttft_s": 8.0, "tpot_s": 5.0, "e2e_s": 5.0},
}


@pytest.fixture(scope="module")
def runs(data_dir: Path) -> dict[str, Comparison]:
    folder = data_dir / "golden"
    if not folder.is_dir():
        pytest.skip("the golden runs are not here")
    return {name: compare(prepare(folder / name / "Llama-3.1-8B")) for name in BARS}


@pytest.mark.parametrize("name", BARS)
def test_means_lie_within_the_bar(name: str, runs: dict[str, Comparison]):
    means = {row["metric"]: row["diff_pct"] for row in runs[name].rows if row["stat"] == "mean"}
    for metric, bar in BARS[name].items():
        off = means[metric]
        assert isinstance(off, float)
        assert abs(off) <= bar, f"{name} {metric} is off by {off:.1f} %"


def test_requests_one_by_one_end_when_they_did(runs: dict[str, Comparison]):
    for found in runs.values():
        assert found.request_mape_pct["e2e_s"] < 3.0
        assert found.series_mae["running"] < 3.0
        assert found.series_mae["waiting"] < 4.0


def test_a_wrong_pool_moves_the_first_token_by_a_fifth(runs: dict[str, Comparison]):
    found = runs["RTX4090"]
    wrong = simulate_run(found.setup.with_(n_pages=3400))
    moved = wrong.ttft_s.mean() / found.simulated.ttft_s.mean() - 1.0
    assert -0.24 < moved < -0.17
    assert wrong.tpot_s.mean() > 1.08 * found.simulated.tpot_s.mean()


def test_the_missing_pool_of_the_larger_card_does_not_bind(runs: dict[str, Comparison]):
    found = runs["RTXPRO6000"]
    assert found.setup.pages_estimated
    half = simulate_run(found.setup.with_(n_pages=found.setup.limits.n_pages // 2))
    assert half.e2e_s.tolist() == found.simulated.e2e_s.tolist()
