"""Judges of estimators and steadiness: committed results, bias, and a closed form against a run."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from controllers.estimators import interval
from reports.claims import calibration, estimators, steadiness
from reports.claims.claim import Ruling
from reports.claims.context import Context
from simulator.defaults import PROFILE, TRACE
from simulator.scenario import build
from traces.profile import read_profile
from traces.store import read_trace

HOLDS, CORRECTED, REFUTED, UNTESTABLE = Ruling


@functools.cache
def context() -> Context:
    return Context(scenario=build(read_trace(TRACE), read_profile(PROFILE)), seeds=(0,))


def estimator_results(*, exact_us: float, differs: float) -> dict:
    share = {"mean": differs, "ci95": 0.0}
    row = {"k": 64, "coverage_differs_share": share, "ln_t_drift": share, "bias_nats": share}
    return {
        "estimators": {
            "device": "a machine",
            "model": "a model",
            "rows": 10,
            "costs": [
                {"lse_us_per_row": 10.0, "exact_us_per_row": exact_us, "top_k_us_per_row": 20.0}
            ],
            "estimators": [
                {**row, "estimator": "tail_corrected"},
                {**row, "estimator": "midpoint", "coverage_differs_share": {"mean": 0.0}}
                | {"ln_t_drift": {"mean": 0.0}},
            ],
            "calibration": {
                "held_out_tokens": 10,
                "entropy_error_before_nats": 0.1,
                "entropy_error_after_nats": differs,
            },
        }
    }


@pytest.mark.parametrize(
    ("exact_us", "differs", "rulings"),
    [(40.0, 0.0, (HOLDS, HOLDS, HOLDS)), (15.0, 0.5, (REFUTED, CORRECTED, REFUTED))],
)
def test_committed_estimator_results_decide_cost_fidelity_and_calibration(
    exact_us, differs, rulings
):
    results = estimator_results(exact_us=exact_us, differs=differs)
    doctored = dataclasses.replace(context(), results=results)
    judges = (estimators.overhead, estimators.fidelity, calibration.calibrated_entropy)
    assert tuple(judge(doctored).ruling for judge in judges) == rulings


def test_cost_is_untestable_without_a_committed_timing():
    assert estimators.overhead(context()).ruling is UNTESTABLE


def test_the_one_sided_bias_is_found_and_a_sound_estimate_passes():
    found = estimators.unbiased(context())
    narrow = estimators.unbiased(context(), estimate=lambda top: interval(top).middle)
    whole = estimators.unbiased(context(), k=estimators.OUTCOMES)
    assert found.ruling is CORRECTED
    assert abs(narrow.numbers["bias_hot_nats"]) < 0.3 * found.numbers["bias_hot_nats"]
    assert whole.ruling is HOLDS


def test_the_collapse_formula_agrees_with_a_simulated_loop():
    seen = steadiness._simulated(np.random.default_rng(1), 0.3, 0.5)
    assert seen[1] == pytest.approx(steadiness.collapse_ratio(0.3, 0.5), rel=0.01)
