"""Judges of pruning rule by the evidence: other laws, scores and recordings, other rulings."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.coverage import EntropyCoverage, SeedCoverage
from controllers.selection import CoverageSelection
from reports.claims import attention, feedback, meso
from reports.claims.claim import Ruling
from reports.claims.serve import ATTENTION, BASELINE
from tests.claims.doctored import (
    ledger,
    recorded,
    served,
    with_columns,
    with_entropy,
    with_served,
)
from traces.schema import PRUNED_NODES, SCORERS

HOLDS, CORRECTED, REFUTED, UNTESTABLE = Ruling
COLUMNS = recorded().trace.columns
CAREFUL = EntropyCoverage()
KV = "kv_bytes_read_per_token"


def test_a_floor_that_errs_upward_holds_and_the_printed_one_needs_correcting():
    assert feedback.floor(recorded()).ruling is CORRECTED
    assert feedback.floor(recorded(), printed=CAREFUL).ruling is HOLDS
    assert feedback.floor(recorded(), repaired=SeedCoverage()).ruling is REFUTED


def test_a_steep_answer_of_entropy_to_pruning_has_several_solutions():
    assert feedback.simultaneous(recorded()).ruling is HOLDS
    known = np.isfinite(COLUMNS["h_pruned"])
    jump = np.where(np.arange(known.shape[1]) < 2, 0.3, 2.9)[:, None]
    steep = np.where(known, jump, np.nan)
    assert feedback.simultaneous(with_columns(h_pruned=steep)).ruling is CORRECTED
    assert feedback.simultaneous(with_columns(h_pruned=steep * np.nan)).ruling is UNTESTABLE


def test_pruning_that_always_raises_entropy_is_restoring_and_a_steep_law_is_not_saved():
    assert feedback.feedback(recorded()).ruling is CORRECTED
    steep = EntropyCoverage(p_min=0.1, h_low=1.0, h_high=1.05)
    assert feedback.feedback(recorded(), steep).ruling is REFUTED
    dense = COLUMNS["h"][:, None, list(PRUNED_NODES)]
    raised = np.where(np.isfinite(COLUMNS["h_pruned"]), dense + 0.1, np.nan)
    assert feedback.feedback(with_columns(h_pruned=raised)).ruling is HOLDS


def test_guards_hold_for_a_rule_that_counts_mass_and_fail_with_a_low_floor():
    assert feedback.guards(recorded()).ruling is CORRECTED
    assert feedback.guards(recorded(), printed=CoverageSelection(coverage=0.9)).ruling is HOLDS
    reckless = EntropyCoverage(p_min=0.05, rate=1.0, dwell=1)
    assert feedback.guards(recorded(), repaired=reckless).ruling is REFUTED


def test_a_score_without_units_holds_and_a_density_does_not():
    assert meso.surprisal(recorded()).ruling is CORRECTED
    assert meso.surprisal(recorded(), meso.mass_score).ruling is HOLDS


def test_a_score_that_sees_the_sink_holds():
    assert meso.redundant(recorded()).ruling is CORRECTED
    assert meso.redundant(recorded(), meso.mass_score).ruling is HOLDS


def test_a_threshold_that_shrinks_with_the_context_holds():
    assert meso.threshold(recorded()).ruling is CORRECTED
    assert meso.threshold(recorded(), lambda pages: 0.5 / pages).ruling is HOLDS


def test_exact_weights_hold_where_estimates_keep_everything():
    assert meso.order(recorded()).ruling is CORRECTED
    kept = COLUMNS["kept_mean"].copy()
    kept[:, SCORERS.index("mean_std")] = 1.0
    assert meso.order(with_columns(kept_mean=kept)).ruling is HOLDS


def test_one_set_of_blocks_holds_where_all_heads_want_the_same():
    assert attention.heads(recorded()).ruling is CORRECTED
    same = with_columns(kept_max=COLUMNS["kept_mean"])
    assert attention.heads(same).ruling is HOLDS


def test_entropy_that_runs_against_the_pages_refutes_the_premise():
    assert attention.premise(recorded()).ruling is HOLDS
    assert attention.premise(with_entropy(-recorded().model.h_cal)).ruling is REFUTED


def test_entropy_that_falls_along_every_text_collapses():
    assert attention.collapse(recorded()).ruling is REFUTED
    falling = with_entropy(5.0 - 0.01 * COLUMNS["position"])
    assert attention.collapse(falling).ruling is HOLDS


@pytest.mark.parametrize(
    ("pages", "read", "ruling"), [(10, -50.0, CORRECTED), (10, 0.0, REFUTED), (5, -50.0, HOLDS)]
)
def test_only_fewer_held_pages_relieve_memory(pages: int, read: float, ruling: Ruling):
    table = {
        BASELINE: served(ledger=ledger([1.0])),
        ATTENTION: served({KV: read}, ledger([1.0], pages)),
    }
    assert attention.footprint(with_served(table=table)).ruling is ruling


def test_a_dropped_page_comes_back_only_where_all_are_read_again():
    assert attention.dropped(recorded()).ruling is CORRECTED
    assert attention.dropped(recorded(), refresh=8).ruling is HOLDS
    assert attention.steps_until_back(8) == 8
