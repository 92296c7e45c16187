"""The step law and the limits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw, chunk_squares
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
