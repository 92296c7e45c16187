"""The step law and the limits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw, chunk_squares, price_of
from tests.serving.worlds import STEP_LAW, limits


def test_a_decode_step_costs_intercept_rows_and_reads() -> None:
    assert STEP_LAW.step_s(4, 1000, 0, 0) == pytest.approx(5e-3 + 4e-4 + 1e-4)


def test_a_short_prefill_costs_the_floor() -> None:
    assert STEP_LAW.step_s(0, 0, 10, 100) == 6e-3


def test_a_mixed_step_has_one_intercept() -> None:
    prefill, decode = STEP_LAW.step_s(0, 0, 1000, 10**6), STEP_LAW.step_s(3, 500, 0, 0)
    assert STEP_LAW.step_s(3, 500, 1000, 10**6) == pytest.approx(prefill + decode - 5e-3)


def test_arrays_and_scalars_give_the_same_seconds() -> None:
    steps = [(0, 0, 0, 0), (4, 1000, 0, 0), (0, 0, 7, 49), (2, 90, 900, 810_000)]
    columns = [np.array(column) for column in zip(*steps, strict=True)]
    assert STEP_LAW.step_s(*columns).tolist() == [STEP_LAW.step_s(*step) for step in steps]


OVERLAP = StepLaw.from_json({**STEP_LAW.to_json(), "prompt_overlap_s": 4e-3})


def test_a_prompt_hides_the_overlap_and_no_decode_step_does() -> None:
    assert OVERLAP.step_s(4, 1000, 0, 0) == STEP_LAW.step_s(4, 1000, 0, 0)
    long = STEP_LAW.step_s(2, 90, 9000, 81_000_000)
    assert OVERLAP.step_s(2, 90, 9000, 81_000_000) == pytest.approx(long - 4e-3)
    assert OVERLAP.step_s(0, 0, 10, 100) == OVERLAP.floor_s


def test_an_overlap_costs_the_same_in_arrays() -> None:
    steps = [(0, 0, 0, 0), (4, 1000, 0, 0), (0, 0, 7, 49), (2, 90, 9000, 81_000_000)]
    columns = [np.array(column) for column in zip(*steps, strict=True)]
    assert OVERLAP.step_s(*columns).tolist() == [OVERLAP.step_s(*step) for step in steps]


@given(
    st.tuples(st.integers(0, 64), st.integers(0, 9999), st.integers(0, 4096)),
    st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
)
def test_a_law_with_an_overlap_never_falls(step: tuple[int, ...], more: tuple[int, ...]) -> None:
    n, kv, prompt = step
    above = (n + more[0], kv + more[1], prompt + more[2])
    assert OVERLAP.step_s(*above, above[2] ** 2) >= OVERLAP.step_s(n, kv, prompt, prompt**2)


def test_decode_rows_cost_more_beside_a_prompt_only() -> None:
    mixed = {"per_mixed_decode_s": 1e-4, "per_mixed_kv_token_s": 1e-7}
    law = StepLaw.from_json({**STEP_LAW.to_json(), **mixed})
    assert law.step_s(4, 1000, 0, 0) == STEP_LAW.step_s(4, 1000, 0, 0)
    assert law.step_s(0, 0, 90, 8100) == STEP_LAW.step_s(0, 0, 90, 8100)
    more = law.step_s(4, 1000, 90, 8100) - STEP_LAW.step_s(4, 1000, 90, 8100)
    assert more == pytest.approx(4 * 1e-4 + 1000 * 1e-7)
    steps = [(4, 1000, 0, 0), (0, 0, 7, 49), (2, 90, 9000, 81_000_000)]
    columns = [np.array(column) for column in zip(*steps, strict=True)]
    assert law.step_s(*columns).tolist() == [law.step_s(*step) for step in steps]


def test_a_step_that_scores_pages_costs_them_and_a_constant_once() -> None:
    law = StepLaw.from_json(
        {**STEP_LAW.to_json(), "per_scored_unit_s": 1e-6, "pruned_step_s": 2e-3}
    )
    dense = law.step_s(4, 1000, 0, 0)
    assert dense == STEP_LAW.step_s(4, 1000, 0, 0)
    assert law.step_s(4, 1000, 0, 0, 0, 500) - dense == pytest.approx(500e-6 + 2e-3)
    steps = [(4, 900, 0, 0, 0, 0), (4, 900, 0, 0, 0, 70), (2, 90, 7, 49, 0, 9), (0, 0, 9, 81, 0, 0)]
    columns = [np.array(column) for column in zip(*steps, strict=True)]
    assert law.step_s(*columns).tolist() == [law.step_s(*step) for step in steps]
    alone = law.step_s(4, 900, 0, 0, 0, columns[5])  # as macro-steps ask: one batch, many steps
    assert alone.tolist() == [law.step_s(4, 900, 0, 0, 0, scored) for scored in (0, 70, 9, 0)]


def test_decode_rows_beyond_the_knee_cost_more_where_no_prompt_hides_them() -> None:
    law = StepLaw.from_json({**STEP_LAW.to_json(), "per_knee_decode_s": 1e-3, "decode_knee": 6.0})
    assert law.step_s(6, 1000, 0, 0) == STEP_LAW.step_s(6, 1000, 0, 0)
    more = law.step_s(9, 1000, 0, 0) - STEP_LAW.step_s(9, 1000, 0, 0)
    assert more == pytest.approx(3e-3)
    assert law.step_s(9, 1000, 70, 4900) == STEP_LAW.step_s(9, 1000, 70, 4900)
    rows = np.arange(20)
    steps = [law.step_s(n, 500, p, p * p) for n in rows.tolist() for p in (0, 7)]
    columns = (np.repeat(rows, 2), np.full(40, 500), np.tile([0, 7], 20), np.tile([0, 49], 20))
    assert law.step_s(*columns).tolist() == steps
    assert law.step_s(9, np.array([500, 600]), 0, 0).tolist() == [
        law.step_s(9, kv, 0, 0) for kv in (500, 600)
    ]
    assert 9 * law.decode_row_s(9) == pytest.approx(law.step_s(9, 0, 0, 0))


def test_a_step_with_a_prompt_may_cost_a_constant_of_its_own() -> None:
    law = StepLaw.from_json({**STEP_LAW.to_json(), "prompt_step_s": 4e-3})
    assert law.step_s(4, 1000, 0, 0) == STEP_LAW.step_s(4, 1000, 0, 0)
    long = STEP_LAW.step_s(4, 1000, 900, 810_000)
    assert law.step_s(4, 1000, 900, 810_000) == pytest.approx(long + 4e-3)


def test_a_chunk_late_in_its_prompt_may_cost_for_what_lies_before_it() -> None:
    law = StepLaw.from_json({**STEP_LAW.to_json(), "per_prompt_context_s": 1e-5})
    late = chunk_squares(3000, 200)
    more = law.step_s(0, 0, 200, late) - STEP_LAW.step_s(0, 0, 200, late)
    assert more == pytest.approx(6200 * 1e-5)
    steps = [(4, 1000, 0, 0), (0, 0, 200, late), (2, 90, 700, 490_000)]
    columns = [np.array(column) for column in zip(*steps, strict=True)]
    assert law.step_s(*columns).tolist() == [law.step_s(*step) for step in steps]


def test_a_law_that_prices_no_scoring_gives_the_same_bits_whatever_was_scored() -> None:
    assert not STEP_LAW.prices_scoring
    assert STEP_LAW.step_s(4, 1000, 7, 49, 300, 10**6) == STEP_LAW.step_s(4, 1000, 7, 49, 300)


@pytest.mark.parametrize("changes", [{"prompt_overlap_s": 6e-3}, {"floor_s": 1e-3}])
def test_an_overlap_needs_a_base_and_a_floor_above_it(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="prompt_overlap_s <= base_s <= floor_s"):
        StepLaw.from_json({**OVERLAP.to_json(), **changes})


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_chunks_of_a_prompt_add_up_to_its_square(chunks: list[int]) -> None:
    starts = [sum(chunks[:i]) for i in range(len(chunks))]
    total = sum(chunk_squares(a, n) for a, n in zip(starts, chunks, strict=True))
    assert total == sum(chunks) ** 2


def test_a_step_law_survives_json() -> None:
    assert StepLaw.from_json(json.loads(json.dumps(STEP_LAW.to_json()))) == STEP_LAW


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_coefficient_must_be_finite_and_not_negative(bad: float) -> None:
    with pytest.raises(ValueError, match="per_decode_s must be finite and >= 0; got per_decode_s="):
        StepLaw.from_json({**STEP_LAW.to_json(), "per_decode_s": bad})


def test_a_step_law_refuses_unknown_coefficients() -> None:
    with pytest.raises(ValueError, match="exactly its own coefficients"):
        StepLaw.from_json({**STEP_LAW.to_json(), "skew_s": 0.0})


def test_pages_are_rounded_up() -> None:
    assert [limits().pages_for(tokens) for tokens in (0, 1, 4, 5)] == [0, 1, 1, 2]


@pytest.mark.parametrize("name", ["max_seqs", "token_budget", "n_pages", "max_context"])
def test_a_limit_below_one_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer >= 1; got {name}=0"):
        limits(**{name: 0})


def test_the_budget_must_let_every_resident_decode() -> None:
    with pytest.raises(ValueError, match=r"token_budget must be >= max_seqs.*token_budget=3"):
        limits(token_budget=3)


def test_limits_survive_json() -> None:
    assert EngineLimits.from_json(json.loads(json.dumps(limits().to_json()))) == limits()


@given(
    st.tuples(st.integers(0, 64), st.integers(0, 9999), st.integers(0, 4096)),
    st.tuples(st.integers(0, 4096), st.integers(0, 900)),
    st.sampled_from(
        [
            {},
            {"prompt_overlap_s": 4e-3, "prompt_step_s": 1e-4},
            {"per_skewed_kv_token_s": 3e-8},
            {"per_mixed_decode_s": 1e-5},
            {"per_mixed_kv_token_s": 1e-8},
            {"per_scored_unit_s": 1e-7},
            {"pruned_step_s": 1e-4},
            {"per_prompt_context_s": 1e-6},
            {"per_knee_decode_s": 1e-4, "decode_knee": 8.0},
        ]
    ),
)
def test_a_price_is_the_law_to_the_last_bit(
    step: tuple[int, int, int], more: tuple[int, int], terms: dict[str, float]
) -> None:
    law = StepLaw.from_json({**STEP_LAW.to_json(), **terms})
    rows, kv, prompt = step
    args = (rows, kv, prompt, prompt * prompt, *more)
    assert price_of(law)(*args) == law.step_s(*args)
