from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controllers.presets import PRESETS, get_preset
from controllers.serving.ledger import Ledger
from reports.studies.ablation import TOTALS, overtakes
from reports.studies.matched import match, matched_x
from reports.studies.per_token import RATIOS, intervals, n_prompts, prompt_sums, resampled, served
from simulator.scenario import build, run
from traces.synth import SyntheticShape, synthetic_trace


@pytest.fixture(scope="module")
def runs(scenario):
    return {name: [run(scenario, get_preset(name), 0)] for name in ("baseline", "full", "best")}


def test_the_sums_add_up_to_the_runs_own_metrics(scenario, runs):
    for found in runs.values():
        metrics, sums = found[0].metrics, prompt_sums(scenario, found)
        assert metrics["preemptions"] == 0
        for total, name in (
            ("tau_nats", "tau"),
            ("tau_cal_nats", "tau_cal"),
            ("nll_nats", "nll"),
            ("kv_bytes_read", "kv_bytes"),
        ):
            assert sums[name].sum() == pytest.approx(metrics[total], rel=1e-5)
        points = intervals(sums, resampled(scenario))
        for name in ("clip_share", "kv_pages_kept_share"):
            assert points[name].mean == pytest.approx(metrics[name], rel=1e-5)
        tokens = found[0].result.ledger.tokens
        assert points["mean_entropy_nats"].mean == pytest.approx(tokens["h_applied"].mean())
        assert points["mean_temperature"].mean == pytest.approx(np.exp(tokens["command"]).mean())


def test_the_recorded_row_of_every_token_gives_its_entropy(scenario, runs):
    tokens = runs["baseline"][0].result.ledger.tokens
    found = served(scenario, runs["baseline"])
    h, _, nll = scenario.model.curves.outcome(found.row, found.x)
    np.testing.assert_allclose(tokens["h_applied"], h, atol=1e-6)
    np.testing.assert_allclose(tokens["surprisal"], nll, atol=1e-5)


def test_the_temperatures_of_a_prompt_are_drawn_together(scenario):
    trace = synthetic_trace(SyntheticShape(n_requests=6, output_tokens=8), seed=0)
    records = tuple(replace(r, prompt_id=f"made/{r.request // 3}") for r in trace.requests)
    dealt = build(replace(trace, requests=records), scenario.profile)
    assert n_prompts(dealt) == 2
    sums = prompt_sums(dealt, [run(dealt, get_preset("baseline"), 0)])
    lengths = np.array([r.output_tokens for r in records])
    assert sums["tokens"].tolist() == [lengths[:3].sum(), lengths[3:].sum()]


def test_the_bootstrap_has_the_width_of_a_mean_over_prompts():
    rng, n = np.random.default_rng(3), 400
    sums = {name: np.ones(n) for pair in RATIOS.values() for name in pair}
    sums["nll"] = rng.normal(2.0, 1.0, n)
    weights = rng.multinomial(n, np.full(n, 1.0 / n), size=1000).astype(float)
    found = intervals(sums, weights)["nll_nats_per_token"]
    assert found.mean == pytest.approx(sums["nll"].mean())
    assert found.half == pytest.approx(1.966 * sums["nll"].std(ddof=1) / n**0.5, rel=0.1)


def test_pairing_removes_what_prompts_share():
    rng, n = np.random.default_rng(4), 50
    sums = {name: np.ones(n) for pair in RATIOS.values() for name in pair}
    reference = sums | {"nll": rng.normal(2.0, 1.0, n)}
    own = sums | {"nll": reference["nll"] + 0.25}
    weights = rng.multinomial(n, np.full(n, 1.0 / n), size=200).astype(float)
    found = intervals(own, weights, reference)["nll_nats_per_token"]
    assert found.mean == pytest.approx(0.25)
    assert found.half == pytest.approx(0.0, abs=1e-9)
    pct = intervals(own, weights, reference, in_pct=True)["nll_nats_per_token"]
    assert pct.mean == pytest.approx(25.0 / reference["nll"].mean())


def test_what_every_seed_repeats_has_no_interval_over_seeds(ablation):
    for row in ablation.rows:
        assert all(row.metrics[name].half is None for name in TOTALS)
    baseline = ablation.row("baseline")
    assert baseline.metrics["nll_nats_per_token"].half > 0.0
    assert baseline.metrics["ttft_s.mean"].half > 0.0


def test_the_matched_temperature_has_the_presets_mean_entropy(scenario, runs):
    for found in runs.values():
        one = match(scenario, found, resampled(scenario))
        rows = served(scenario, found).row
        x = np.full(len(rows), np.log(one.fixed_temperature))
        h, _, nll = scenario.model.curves.outcome(rows, x)
        assert h.mean() == pytest.approx(one.entropy_nats, abs=1e-9)
        assert nll.mean() == pytest.approx(one.fixed_nll_nats)


def test_a_constant_temperature_is_its_own_match(scenario):
    rows = np.arange(40)
    for t in (0.45, 1.0, 1.7):
        h, _, _ = scenario.model.curves.outcome(rows, np.full(40, np.log(t)))
        assert np.exp(matched_x(scenario, rows, float(h.mean()))) == pytest.approx(t, abs=1e-9)


def test_no_law_has_less_nll_than_the_constant_of_its_mean_entropy(ablation):
    for name in PRESETS:
        gap = ablation.row(name).matched.nll_difference
        assert gap.mean > -1e-3, name  # between nodes the curves are interpolated
    assert ablation.row("seed").matched.nll_difference.mean > 0.01


def test_newton_holds_entropy_steadier_than_a_constant(ablation):
    best = ablation.row("best").matched
    assert best.sd_nats < 0.9 * best.fixed_sd_nats


def ledger_of(*rows: tuple[int, int | None]) -> Ledger:
    ledger = Ledger()
    for request_id, (arrival, _) in enumerate(rows):
        ledger.submitted(request_id, 1, 1, arrival)
    for request_id, (_, first) in enumerate(rows):
        if first is not None:
            ledger.served(request_id, first, None)
    return ledger


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (((0, 5), (1, 6), (2, 7)), 0),
        (((0, 5), (1, 5), (2, 5)), 0),  # one step admits them together
        (((0, 9), (1, 6), (2, 7)), 2),
        (((0, None), (1, 6)), 1),  # the first still waits
        (((0, None), (1, None)), 0),
        ((), 0),
    ],
)
def test_an_overtake_is_a_start_before_an_earlier_arrival(rows, count):
    assert overtakes(ledger_of(*rows)) == count


def test_first_come_first_served_lets_nobody_overtake(ablation):
    assert ablation.row("baseline").metrics["overtakes"].mean == 0.0
    assert ablation.row("attention").metrics["overtakes"].mean == 0.0
