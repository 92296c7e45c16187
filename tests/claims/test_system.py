"""Judges of scheduling, the system, results and text rule by the evidence they are given."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from controllers.coverage import FixedCoverage
from controllers.presets import get_preset
from controllers.priority import EntropyPriority, SeedPriority
from controllers.temperature import FixedTemperature
from reports.claims import composing, macro, results, system
from reports.claims.claim import Ruling
from reports.claims.decode_row import row_seconds
from reports.claims.printed import CITATIONS, HEADINGS, METRICS, SETUP, TABLE_1
from reports.claims.serve import (
    ATTENTION,
    BASELINE,
    FULL,
    PRINTED,
    SAMPLING,
    SCHEDULING,
    SRPT,
    Served,
    orders,
    serve,
)
from tests.claims.doctored import (
    ledger,
    recorded,
    served,
    with_entropy,
    with_served,
    with_step_law,
)

HOLDS, CORRECTED, REFUTED, UNTESTABLE = Ruling
OURS = EntropyPriority()
KV = "kv_bytes_read_per_token"


def test_urgency_in_the_numerator_holds_and_in_the_denominator_needs_correcting():
    assert macro.urgency(recorded()).ruling is CORRECTED
    assert macro.urgency(recorded(), printed=OURS).ruling is HOLDS
    assert macro.urgency(recorded(), repaired=SeedPriority()).ruling is REFUTED


def test_an_order_with_aging_starves_nobody_and_the_printed_one_does(monkeypatch):
    monkeypatch.setattr(macro, "SIEGE_CASES", 3)
    assert macro.starvation(recorded()).ruling is CORRECTED
    assert macro.starvation(recorded(), printed=OURS).ruling is HOLDS
    assert macro.starvation(recorded(), repaired=SeedPriority()).ruling is REFUTED


def test_past_collapse_that_foretells_a_fall_holds():
    assert macro.signal(recorded()).ruling is REFUTED
    found, h = recorded().sequences, recorded().model.h_cal.copy()
    for s, prompt in enumerate(found.prompt):
        rows = found.rows[s][found.live[s]]
        size, middle = 0.1 * (1 + prompt), len(rows) // 2
        h[rows[:middle]] = size * (np.arange(middle) % 2)
        h[rows[middle:]] = np.linspace(size, 0.0, len(rows) - middle)
    assert macro.signal(with_entropy(h)).ruling is HOLDS


@pytest.mark.parametrize(
    ("printed", "ours", "ruling"),
    [(1.0, 1.0, HOLDS), (1.3, 1.0, CORRECTED), (1.3, 1.2, REFUTED)],
)
def test_an_order_wastes_what_it_computes_twice(printed: float, ours: float, ruling: Ruling):
    def order(cost: float) -> Served:
        return served(cost_s=cost, preemptions=0.0, **{"e2e_s.mean": 1.0, "e2e_s.p99": 2.0})

    costs = {BASELINE: 1.0, PRINTED: printed, SCHEDULING: ours, SRPT: 1.0}
    crowded = {name: order(cost) for name, cost in costs.items()}
    assert macro.waste(with_served(crowded=crowded)).ruling is ruling


def test_a_temperature_that_never_moves_leaves_the_schedulers_signal_alone():
    assert macro.coexistence(recorded()).ruling is CORRECTED
    assert macro.coexistence(recorded(), FixedTemperature()).ruling is HOLDS


def test_the_corrected_loop_damps_and_the_printed_one_sits_on_a_clip(monkeypatch):
    monkeypatch.setattr(system, "CASES", 60)
    seed, full = get_preset("seed"), get_preset("full")
    found = system.fixed_points(recorded())
    assert found.ruling is CORRECTED
    assert found.numbers["railed_share"] > 0.9
    assert system.fixed_points(recorded(), printed=full).ruling is HOLDS
    assert system.fixed_points(recorded(), repaired=seed).ruling is REFUTED


@pytest.mark.parametrize(
    ("by_order", "by_pruning", "ruling"),
    [(1.0, 2.0, CORRECTED), (2.0, 2.0, HOLDS), (1.0, 1.0, REFUTED)],
)
def test_there_is_a_loop_where_the_order_moves_entropies(
    by_order: float, by_pruning: float, ruling: Ruling
):
    quiet = served(ledger=ledger([1.0, 0.5]))
    moved = served(ledger=ledger([by_order, 0.5]))
    crowded = {BASELINE: quiet, SCHEDULING: quiet, SRPT: moved}
    table = {BASELINE: quiet, ATTENTION: served(ledger=ledger([by_pruning, 0.5]))}
    assert system.loop(with_served(crowded=crowded, table=table)).ruling is ruling


@pytest.mark.parametrize(("full", "ruling"), [(2.0, HOLDS), (1.1, REFUTED), (0.9, REFUTED)])
def test_ascent_must_beat_the_baseline_and_a_hot_constant(full: float, ruling: Ruling):
    table = {BASELINE: served(tau_per_cost=1.0), FULL: served(tau_per_cost=full)}
    assert system.gradient(with_served(table=table)).ruling is ruling


def test_overconfidence_prunes_more_under_a_law_that_reads_entropy_only():
    assert system.stress(recorded()).ruling is HOLDS
    assert system.stress(recorded(), FixedCoverage(coverage=0.95)).ruling is REFUTED


def test_pruning_pays_at_long_contexts_unless_scoring_costs_as_much_as_reading():
    assert system.scope(recorded()).ruling is HOLDS
    assert system.scope(recorded(), score_share=1.0).ruling is REFUTED
    assert system.scope(with_step_law(per_scored_unit_s=1e-6)).ruling is REFUTED


def test_choosing_costs_what_the_law_measured_and_else_a_share_of_the_read():
    context = recorded()
    free = with_step_law(per_scored_unit_s=0.0, pruned_step_s=0.0)
    priced, guessed = row_seconds(context), row_seconds(free)
    np.testing.assert_allclose(guessed.choose, guessed.read / 16.0)
    law, at = context.scenario.profile.law, int(np.argmax(priced.read))
    n, pages = 16, -(-int(context.trace.columns["context"][at]) // 16)
    units = n * pages * context.model.layers * context.model.kv_heads
    kv = n * priced.read[at] / law.per_kv_token_s
    step = law.step_s(n, kv, 0, 0, pages_scored=units)
    assert n * (priced.dense[at] + priced.choose[at]) == pytest.approx(step)


def test_a_set_up_that_is_named_can_be_repeated():
    assert results.setup(recorded()).ruling is UNTESTABLE
    assert results.setup(recorded(), dict.fromkeys(SETUP, "named")).ruling is HOLDS


def test_table_1_is_super_additive_only_with_a_better_full_row():
    found = results.printed_interaction(recorded())
    assert found.ruling is REFUTED
    assert found.numbers["throughput log-interaction"] == pytest.approx(
        np.log(1.40 / (1.02 * 1.15 * 1.20))
    )
    better = {**TABLE_1, FULL: (0.60, 1.60, 1.80, 1.00)}
    assert results.printed_interaction(recorded(), better).ruling is HOLDS


@pytest.mark.parametrize(("extra", "ruling"), [(1.0, REFUTED), (1.2, HOLDS), (0.8, REFUTED)])
def test_our_interaction_is_the_full_row_over_the_product(extra: float, ruling: Ruling):
    rows = {BASELINE: 1.0, SAMPLING: 1.1, SCHEDULING: 1.2, ATTENTION: 1.3}
    rows[FULL] = 1.1 * 1.2 * 1.3 * extra
    table = {
        name: served(**{m.ours: value**m.better for m in METRICS}) for name, value in rows.items()
    }
    found = results.our_interaction(with_served(table=table))
    assert found.ruling is ruling
    assert found.numbers["latency log-interaction"] == pytest.approx(np.log(extra), abs=1e-9)


def test_one_seed_has_no_spread_and_tests_nothing():
    table = {
        name: dataclasses.replace(one, metrics=one.metrics[:1])
        for name in (BASELINE, SAMPLING, SCHEDULING, ATTENTION, FULL)
        for one in [served(**{m.ours: 1.0 for m in METRICS})]
    }
    assert results.our_interaction(with_served(table=table)).ruling is UNTESTABLE


@pytest.mark.parametrize(
    ("latency", "throughput", "ruling"),
    [(0.87, 1.15, HOLDS), (0.5, 2.0, HOLDS), (0.97, 1.15, REFUTED)],
)
def test_a_printed_gain_is_met_by_as_much_or_more(
    latency: float, throughput: float, ruling: Ruling
):
    name = "throughput_tokens_per_s"
    crowded = {
        BASELINE: served(**{"e2e_s.mean": 1.0, name: 1.0}),
        SCHEDULING: served(**{"e2e_s.mean": latency, name: throughput}),
    }
    assert results.scheduling(with_served(crowded=crowded)).ruling is ruling


@pytest.mark.parametrize(("per_kv", "ruling"), [(1e-4, HOLDS), (1e-6, CORRECTED), (1e-7, REFUTED)])
def test_less_attention_saves_no_more_than_its_share(per_kv: float, ruling: Ruling):
    context = with_step_law(per_kv_token_s=per_kv)
    table = {
        BASELINE: served(**{"e2e_s.mean": 1.0}),
        ATTENTION: served({KV: -50.0}, **{"e2e_s.mean": 0.9}),
    }
    vars(context)["table"] = table
    assert results.amdahl(context).ruling is ruling


def test_quality_needs_something_to_score():
    table = {FULL: served({"nll_nats_per_token": 5.0})}
    assert results.quality(with_served(table=table)).ruling is UNTESTABLE
    assert results.quality(with_served(table=table), ("summaries",)).ruling is REFUTED


def test_speculation_composes_with_a_temperature_that_does_not_move():
    assert composing.speculative(recorded()).ruling is CORRECTED
    assert composing.speculative(recorded(), FixedTemperature()).ruling is HOLDS


def test_small_batches_load_fewer_experts_and_large_ones_all():
    assert composing.experts(recorded()).ruling is REFUTED
    assert composing.experts(recorded(), batch=2).ruling is HOLDS


def test_references_hold_once_the_number_and_the_heading_are_mended():
    right = [dataclasses.replace(one, printed=one.actual) for one in CITATIONS]
    clean = [h for h in HEADINGS if "Reviewer" not in h]
    assert composing.references(recorded()).ruling is CORRECTED
    assert composing.references(recorded(), right).ruling is REFUTED
    assert composing.references(recorded(), right, clean).ruling is HOLDS


def test_pseudocode_under_a_heading_would_deliver_what_the_abstract_says():
    assert composing.delivered(recorded()).ruling is REFUTED
    assert composing.delivered(recorded(), (*HEADINGS, "Pseudocode")).ruling is HOLDS


def test_processes_do_not_change_what_is_served():
    scenario = dataclasses.replace(recorded().scenario, n_requests=6)
    chosen = {name: orders()[name] for name in (BASELINE, PRINTED)}
    one, two = (serve(scenario, chosen, (0, 1), jobs) for jobs in (1, 2))
    for name in chosen:
        assert one[name].metrics == two[name].metrics
        assert one[name].per_token_pct == two[name].per_token_pct
