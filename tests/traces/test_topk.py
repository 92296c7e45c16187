"""Entropy intervals hold the exact entropy, and no narrower interval could."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.topk import entropy_interval


def entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def distribution(vocabulary: int, sharpness: float, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=vocabulary) * sharpness
    p = np.exp(logits - logits.max())
    return np.sort(p / p.sum())[::-1]


@given(
    vocabulary=st.integers(2, 400),
    sharpness=st.floats(0.0, 8.0),
    seed=st.integers(0, 10_000),
    k=st.integers(1, 20),
    sampled=st.integers(0, 399),
    bounded=st.booleans(),
)
def test_the_interval_holds_the_exact_entropy(vocabulary, sharpness, seed, k, sampled, bounded):
    p = distribution(vocabulary, sharpness, seed)
    k, sampled = min(k, vocabulary), sampled % vocabulary
    known = [*range(k), *([sampled] if sampled >= k else [])]
    bound = np.log(p[k - 1]) if bounded else 0.0
    low, high = entropy_interval(np.log(p[known])[None], np.array([bound]), vocabulary)
    assert low[0] - 1e-9 <= entropy(p) <= high[0] + 1e-9


@given(vocabulary=st.integers(3, 60), seed=st.integers(0, 1000), k=st.integers(1, 10))
def test_both_ends_are_reached_by_distributions_with_the_same_top(vocabulary, seed, k):
    p = distribution(vocabulary, 2.0, seed)
    k = min(k, vocabulary - 1)
    top, rest = p[:k], 1.0 - p[:k].sum()
    low, high = entropy_interval(np.log(top)[None], np.log(top[-1:]), vocabulary)
    flat = np.concatenate([top, np.full(vocabulary - k, rest / (vocabulary - k))])
    packed, left = list(top), rest
    while left > 0.0:
        packed.append(min(left, top[-1]))
        left -= packed[-1]
    assert high[0] == pytest.approx(entropy(flat), abs=1e-9)
    assert low[0] == pytest.approx(entropy(np.array(packed)), abs=1e-6)
    assert len(packed) <= vocabulary + 1  # one more where the last crumb is rounding


def test_more_known_tokens_never_widen_the_interval():
    p = distribution(1000, 3.0, 1)
    widths = []
    for k in (1, 2, 5, 10, 20, 1000):
        low, high = entropy_interval(np.log(p[:k])[None], np.log(p[k - 1 : k]), 1000)
        widths.append(high[0] - low[0])
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(0.0, abs=1e-9)


def test_rows_may_know_different_numbers_of_tokens():
    known = np.log([[0.5, 0.5], [0.9, np.nan]])
    low, high = entropy_interval(known, np.log([0.5, 0.9]), 11)
    assert low[0] == high[0] == pytest.approx(np.log(2))
    assert low[1] == pytest.approx(entropy(np.array([0.9, 0.1])))
    assert high[1] == pytest.approx(entropy(np.array([0.9] + [0.01] * 10)))


@pytest.mark.parametrize(
    ("known", "bound", "vocabulary", "named"),
    [
        ([0.7, 0.6], 0.6, 10, "must not sum past 1"),
        ([0.5, 0.2], 0.2, 3, "cannot hold the rest"),
        ([0.5, 0.2], 0.2, 1, "vocabulary must hold the 2 known"),
    ],
)
def test_numbers_that_no_distribution_has_are_refused(known, bound, vocabulary, named):
    with pytest.raises(ValueError, match=named):
        entropy_interval(np.log([known]), np.log([bound]), vocabulary)
