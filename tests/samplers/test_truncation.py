"""Truncations against their definitions, ties, masks, and order in their parameter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.samplers import MinP, Sampler, TopK, TopNSigma, TopP
from tests.samplers.plants import kept
from tests.strategies import Float64, logits

CUTS = [TopK(k=1), TopK(k=7), TopP(p=0.01), TopP(p=0.6), MinP(p_base=1.0), MinP(), TopNSigma()]
shares = st.floats(0.01, 1.0)


def _softmax(row: Float64) -> Float64:
    e = np.exp(row - row.max())
    return e / e.sum()


@given(logits(), st.integers(1, 50))
def test_top_k_keeps_k_tokens_and_what_ties_with_the_last(row: Float64, k: int) -> None:
    finite = np.sort(row[row > -np.inf])[::-1]
    edge = finite[min(k, len(finite)) - 1]
    assert kept(TopK(k=k), row) == np.flatnonzero(row >= edge).tolist()


@given(logits(), shares)
def test_top_p_keeps_the_smallest_set_with_that_mass(row: Float64, p: float) -> None:
    mass = _softmax(row)
    got = kept(TopP(p=p), row)
    assert mass[got].sum() >= p - 1e-12
    last = row[got].min()
    assert mass[row > last].sum() < p + 1e-12  # no value less would do
    assert set(np.flatnonzero(row > last)) < set(got)


@given(logits(), shares)
def test_min_p_keeps_what_is_within_a_factor_of_the_most_likely(row: Float64, p: float) -> None:
    mass = _softmax(row)
    clear = np.abs(mass - p * mass.max()) > 1e-12
    got = np.isin(np.arange(len(row)), kept(MinP(p_base=p), row))
    assert (got == (mass >= p * mass.max()))[clear].all()


@given(logits(), st.floats(0.1, 4.0))
def test_top_n_sigma_keeps_what_is_within_n_deviations_of_the_top(row: Float64, n: float) -> None:
    finite = row[row > -np.inf]
    edge = finite.max() - n * finite.std()
    clear = np.abs(row - edge) > 1e-9
    got = np.isin(np.arange(len(row)), kept(TopNSigma(n=n), row))
    assert (got == (row >= edge))[clear].all()


@given(logits(), st.floats(0.2, 5.0))
def test_top_n_sigma_does_not_depend_on_temperature(row: Float64, t: float) -> None:
    finite = row[row > -np.inf]
    if np.abs(np.abs(row - finite.max()) - finite.std()).min() < 1e-9:
        return
    assert kept(TopNSigma(), row) == kept(TopNSigma(), row / t)


@pytest.mark.parametrize("cut", CUTS, ids=repr)
@given(row=logits())
def test_the_most_likely_tokens_stay_and_masked_ones_stay_out(cut: Sampler, row: Float64) -> None:
    got = set(kept(cut, row))
    assert set(np.flatnonzero(row == row.max())) <= got
    assert not got & set(np.flatnonzero(row == -np.inf))


@given(logits(), st.floats(0.02, 1.0), st.floats(0.02, 1.0))
def test_a_looser_parameter_keeps_a_superset(row: Float64, a: float, b: float) -> None:
    a, b = min(a, b), max(a, b)
    assert set(kept(TopP(p=a), row)) <= set(kept(TopP(p=b), row))
    assert set(kept(MinP(p_base=b), row)) <= set(kept(MinP(p_base=a), row))
    assert set(kept(TopNSigma(n=a), row)) <= set(kept(TopNSigma(n=b), row))
    assert set(kept(TopK(k=int(20 * a) + 1), row)) <= set(kept(TopK(k=int(20 * b) + 1), row))


def test_the_loosest_parameters_keep_everything() -> None:
    row = np.random.default_rng(0).normal(0.0, 3.0, 60)
    for cut in (TopP(p=1.0), TopK(k=60), TopK(k=10**6), MinP(p_base=1e-300)):
        assert len(kept(cut, row)) == 60


@pytest.mark.parametrize("cut", CUTS, ids=repr)
def test_tied_tokens_stay_or_go_together_in_any_order(cut: Sampler) -> None:
    row = np.array([2.0, 1.0, 1.0, 2.0, 0.0, 1.0, 0.0, -1.0])
    order = np.random.default_rng(0).permutation(8)
    moved = {int(order[i]) for i in kept(cut, row[order])}
    assert moved == set(kept(cut, row))


@pytest.mark.parametrize("cut", CUTS, ids=repr)
def test_a_row_of_one_token_is_left_alone(cut: Sampler) -> None:
    assert kept(cut, np.array([3.0])) == [0]


@pytest.mark.parametrize(
    ("cut", "gains", "rule"),
    [
        (TopK, {"k": 0}, "k must be >= 1"),
        (TopP, {"p": 0.0}, "p must lie"),
        (TopP, {"p": 1.01}, "p must lie"),
        (MinP, {"p_base": 0.0}, "p_base"),
        (MinP, {"p_base": float("nan")}, "p_base"),
        (TopNSigma, {"n": 0.0}, "n must be positive"),
        (TopNSigma, {"n": float("inf")}, "n must be positive"),
    ],
)
def test_bad_parameters_are_refused_by_name(cut: type, gains: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        cut(**gains)
