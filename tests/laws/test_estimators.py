"""Entropy from the top k: bounds, tightness, and what the paper's estimators miss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.entropy import entropy_varentropy
from controllers.estimators import TopK, interval, tail_corrected, truncated
from tests.strategies import Float64, logits

ROUNDING = 1e-9


def _log_softmax(row: Float64) -> Float64:
    shifted = row - row.max()
    with np.errstate(divide="ignore"):
        return shifted - np.log(np.exp(shifted).sum())


def _top(row: Float64, k: int) -> TopK:
    return TopK.of(np.sort(_log_softmax(row))[::-1][:k], len(row))


def _exact(row: Float64) -> float:
    return float(entropy_varentropy(row, 0.0)[0])


@given(logits(), st.data())
def test_p4_the_interval_holds_the_entropy_and_the_papers_bounds_are_looser(
    row: Float64, data: st.DataObject
) -> None:
    top = _top(row, data.draw(st.integers(1, len(row))))
    exact, found = _exact(row), interval(top)
    assert found.low - ROUNDING <= exact <= found.high + ROUNDING
    assert truncated(top) <= found.low + ROUNDING
    assert tail_corrected(top) >= found.high - ROUNDING


@pytest.mark.parametrize("k", [1, 3, 7])
def test_p4_both_ends_of_the_interval_are_attained(k: int) -> None:
    n, tail = 40, 0.3
    head = np.full(k, 0.7 / k)
    even = np.concatenate([head, np.full(n - k, tail / (n - k))])
    assert _exact(np.log(even)) == pytest.approx(float(interval(_top(np.log(even), k)).high))
    full = int(tail // head[-1])
    rest = tail - full * head[-1]
    packed = np.zeros(n)
    packed[: k + full + 1] = np.concatenate([head, np.full(full, head[-1]), [rest]])
    with np.errstate(divide="ignore"):
        row = np.log(packed)
    assert _exact(row) == pytest.approx(float(interval(_top(row, k)).low))


@given(logits())
def test_with_the_whole_row_every_estimate_is_exact(row: Float64) -> None:
    top, exact = _top(row, len(row)), _exact(row)
    for estimate in (truncated(top), tail_corrected(top), *interval(top)):
        assert float(estimate) == pytest.approx(exact, abs=1e-7)


@given(logits(), st.integers(1, 10))
def test_the_papers_estimate_is_loose_by_the_tail_times_the_truncated_entropy(
    row: Float64, k: int
) -> None:
    top = _top(row, min(k, len(row)))
    loose = tail_corrected(top) - interval(top).high
    assert float(loose) == pytest.approx(float(top.tail * truncated(top)), abs=1e-9)


def test_truncated_is_no_lower_bound_for_a_wrong_top_k() -> None:
    # The four least likely of five, taken for the top four: their entropy exceeds the row's.
    logp = _log_softmax(np.array([6.0, 0.0, 0.0, 0.0, 0.0]))
    wrong = TopK.of(logp[1:], 5)
    assert truncated(wrong) > _exact(np.array([6.0, 0.0, 0.0, 0.0, 0.0])) + 1.0


def test_a_zipf_row_shows_how_wide_the_papers_bounds_are() -> None:
    row = -1.2 * np.log(np.arange(1, 128_257))
    top = _top(row, 100)
    assert _exact(row) == pytest.approx(5.61, abs=0.01)
    assert float(truncated(top)) == pytest.approx(3.22, abs=0.01)
    assert float(tail_corrected(top)) == pytest.approx(7.31, abs=0.01)
    assert [float(end) for end in interval(top)] == pytest.approx([4.63, 6.35], abs=0.01)


def test_rows_are_estimated_side_by_side() -> None:
    rows = np.random.default_rng(0).normal(0.0, 3.0, (5, 50))
    tops = [_top(row, 8) for row in rows]
    batch = TopK.of(np.stack([top.logp for top in tops]), 50)
    np.testing.assert_allclose(interval(batch).middle, [interval(t).middle for t in tops])


@pytest.mark.parametrize(
    ("logp", "n", "message"),
    [
        ([-0.1, -3.0], 1, "the vocabulary must hold the top k; got n=1, k=2"),
        ([-3.0, -0.1], 5, "must not rise"),
        ([-0.1, -0.2], 5, "must not sum past 1"),
        ([-np.inf, -np.inf], 5, "must be positive"),
    ],
)
def test_bad_rows_are_refused_by_name(logp: list[float], n: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TopK.of(logp, n)
