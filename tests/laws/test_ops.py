from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from controllers import ops

SCALARS = (0.0, 1.0, -0.5, 0.1, 1e30, math.inf, 2, np.float64(0.1))
LANES = hnp.arrays(np.float32, st.integers(1, 9), elements=st.floats(width=32))


def _bits(x: np.ndarray) -> bytes:
    assert x.dtype == np.float32
    return np.where(np.isnan(x), np.float32(np.nan), x).tobytes()  # which NaN does not matter


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(LANES, st.sampled_from(SCALARS))
def test_a_scalar_counts_as_an_array_of_it(x: np.ndarray, scalar: float) -> None:
    full = np.full_like(x, scalar)
    pairs = (
        (ops.minimum(x, scalar), np.minimum(x, full)),
        (ops.maximum(x, scalar), np.maximum(x, full)),
        (ops.divide(scalar, x), full / x),
        (ops.finite_or(x, scalar), np.where(np.isfinite(x), x, full)),
    )
    for found, expected in pairs:
        assert _bits(found) == _bits(expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(LANES, st.sampled_from(SCALARS))
def test_torch_gives_the_same_bits(x: np.ndarray, scalar: float) -> None:
    torch = pytest.importorskip("torch")
    there = torch.from_numpy(x.copy())
    for here, other in (
        (ops.minimum(x, scalar), ops.minimum(there, scalar)),
        (ops.maximum(x, scalar), ops.maximum(there, scalar)),
        (ops.divide(scalar, x), ops.divide(scalar, there)),
        (ops.finite_or(x, scalar), ops.finite_or(there, scalar)),
        (ops.finite_terms(x), ops.finite_terms(there)),
    ):
        assert np.array_equal(here, other.numpy(), equal_nan=True)


def test_a_scalar_bound_keeps_integers_integers() -> None:
    assert ops.maximum(np.array([-1, 2]), 0).tolist() == [0, 2]
    assert ops.minimum(np.array([1, 7]), 5.0).dtype == np.int64


@given(LANES)
def test_only_terms_may_be_their_own_signal(x: np.ndarray) -> None:
    assert not np.shares_memory(ops.finite_or(x, 0.0), x)
    terms = ops.finite_terms(x)
    assert np.isfinite(terms).all()
    assert np.array_equal(terms, np.where(np.isfinite(x), x, 0.0))
