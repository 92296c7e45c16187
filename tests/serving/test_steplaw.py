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
