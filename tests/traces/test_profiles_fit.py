"""Fitting a step law: what a law priced gives that law back, and errors are of unseen steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.steplaw import StepLaw
from traces.profiles_fit import StepTable, errors, fit_law, joined, predicted

BATCHES, CONTEXTS = (1, 4, 16, 64, 256), (64, 512, 4096)
PROMPTS = (16, 64, 256, 512, 1024, 2048, 4096, 8192)


def steps(law: StepLaw, *, mixed: bool = True) -> StepTable:
    decode = [(b, b * c, 0, 0) for b in BATCHES for c in CONTEXTS]
    prefill = [(0, 0, p * n, p * p * n) for p in PROMPTS for n in (1, 2)]
    pairs = [(b, b * c) for b in BATCHES for c in CONTEXTS] if mixed else []
    both = [(b, kv, p, p * p) for b, kv in pairs for p in PROMPTS]
    columns = np.array(decode + prefill + both, float).T
    return StepTable(*columns, law.step_s(*columns))


@settings(max_examples=20)  # a fit is some fifty least-squares problems
@given(
    st.builds(
        dict,
        base_s=st.floats(1e-3, 2e-2),
        per_decode_s=st.floats(1e-6, 1e-4),
        per_kv_token_s=st.floats(1e-9, 1e-7),
        per_prompt_token_s=st.floats(1e-6, 1e-4),
        per_prompt_square_s=st.floats(1e-10, 1e-8),
    ),
    st.floats(0.0, 1.0),
    st.floats(1.0, 3.0),
)
def test_what_a_law_priced_gives_that_law_back(coefficients, hidden, above):
    base = coefficients["base_s"]
    law = StepLaw(**coefficients, floor_s=above * base, prompt_overlap_s=hidden * base)
    table = steps(law)
    fitted = fit_law(table)
    assert predicted(fitted.law, table) == pytest.approx(table.seconds, rel=1e-3)
    assert fitted.law.per_kv_token_s == pytest.approx(law.per_kv_token_s, rel=1e-3)


LAW = StepLaw(
    base_s=6e-3,
    per_decode_s=1e-5,
    per_kv_token_s=4e-8,
    per_prompt_token_s=2e-5,
    per_prompt_square_s=1e-9,
    floor_s=7e-3,
)


def test_the_error_stated_is_of_steps_held_out():
    table = steps(LAW)
    noise = np.exp(np.random.default_rng(0).normal(0.0, 0.1, len(table)))
    noisy = replace(table, seconds=table.seconds * noise)
    fitted = fit_law(noisy)
    assert 4.0 < fitted.fit_error["held_out_mean_abs_pct"] < 16.0
    assert set(fitted.fit_error) > {
        "decode_mean_abs_pct",
        "prefill_max_abs_pct",
        "mixed_max_abs_pct",
    }
    assert fit_law(noisy) == fitted
    assert fit_law(noisy, seed=1).fit_error != fitted.fit_error
    assert fit_law(noisy, seed=1).law == fitted.law


def test_mixed_steps_do_not_bend_the_price_of_kv():
    table = steps(LAW)
    dear = np.where(table.kinds()["mixed"], 2.0, 1.0) * table.seconds
    fitted = fit_law(replace(table, seconds=dear))
    assert fitted.law.per_kv_token_s == pytest.approx(LAW.per_kv_token_s, rel=1e-3)
    assert fitted.law.per_mixed_decode_s > 0.0
    assert fitted.fit_error["decode_max_abs_pct"] < 0.1 < fitted.fit_error["mixed_mean_abs_pct"]


def test_what_mixed_steps_take_more_comes_back():
    law = replace(LAW, per_mixed_decode_s=3e-5, per_mixed_kv_token_s=2e-8)
    found = fit_law(steps(law)).law
    assert found.per_mixed_decode_s == pytest.approx(3e-5, rel=1e-3)
    assert found.per_mixed_kv_token_s == pytest.approx(2e-8, rel=1e-3)


def test_ranges_leave_out_steps_without_the_feature():
    ranges = fit_law(steps(LAW)).ranges
    assert ranges["n_decode"] == (1.0, 256.0)
    assert ranges["prompt_tokens"] == (16.0, 16384.0)


def test_decode_steps_alone_can_be_fitted():
    table = steps(LAW, mixed=False)
    decode = table.take(table.kinds()["decode"])
    law = fit_law(decode).law
    assert law.base_s == pytest.approx(6e-3, rel=1e-6)
    assert law.per_prompt_token_s == law.floor_s == law.prompt_overlap_s == 0.0


def test_a_skew_price_is_handed_through_and_moves_nothing_else():
    table = steps(LAW)
    skewed = fit_law(table, per_skewed_kv_token_s=1e-9).law
    assert skewed.per_skewed_kv_token_s == 1e-9
    assert errors(skewed, table) == errors(fit_law(table).law, table)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([[1.0], [1.0], [0.0], [0.0], [0.0]], "step times must be > 0"),
        ([[], [], [], [], []], "step times must be > 0"),
        ([[1.0, 2.0], [1.0], [0.0], [0.0], [1.0]], "must be of one length"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        StepTable(*(np.array(column) for column in columns))


def test_joined_tables_keep_their_order():
    table = steps(LAW)
    both = joined((table, table.take(np.arange(3))))
    assert both.seconds.tolist() == [*table.seconds.tolist(), *table.seconds[:3].tolist()]
