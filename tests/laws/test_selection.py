"""Page scores and selections: floors, pins, the error bound, and the literal rule's defects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.coverage import EntropyCoverage
from controllers.scores import (
    drop_bound,
    lagged,
    page_entropy,
    page_mass,
    page_surprisal,
    page_value,
)
from controllers.selection import (
    BudgetSelection,
    CoverageSelection,
    Pins,
    ThresholdSelection,
    pages_to_evict,
)
from tests.strategies import Float64, token_signal

PINS = Pins()


@st.composite
def attention(draw: st.DrawFn) -> Float64:
    """Draw the attention weights of two heads over up to 400 tokens, sharp or flat."""
    n = draw(st.integers(1, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = rng.normal(0.0, draw(st.floats(0.0, 6.0)), (2, n))
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


@given(attention(), st.floats(0.05, 0.99), st.integers(1, 9))
def test_p5_floors_and_pins_hold_and_the_output_moves_within_its_bound(
    weights: Float64, coverage: float, min_pages: int
) -> None:
    pins = Pins(min_pages=min_pages)
    mass = page_mass(weights, 16)
    pages = mass.shape[1]
    kept = CoverageSelection(coverage=coverage).keep(mass, pins)
    assert (kept.sum(axis=1) >= min(min_pages, pages)).all()
    assert kept[:, pins.mask(pages)].all()
    dropped = np.where(kept, 0.0, mass).sum(axis=1)
    assert (dropped <= 1.0 - coverage + 1e-9).all()
    values = np.random.default_rng(0).normal(size=(weights.shape[1], 3))
    token = np.repeat(kept, 16, axis=1)[:, : weights.shape[1]]
    sparse = np.where(token, weights, 0.0)
    moved = weights @ values - (sparse / sparse.sum(axis=1, keepdims=True)) @ values
    bound = drop_bound(dropped, values)
    assert (np.linalg.norm(moved, axis=1) <= bound + 1e-9).all()


@given(attention(), st.floats(0.0, 6.0), st.floats(0.0, 6.0))
def test_p6_more_entropy_never_keeps_fewer_pages(weights: Float64, a: float, b: float) -> None:
    law = EntropyCoverage(dwell=1, rate=1.0)
    signal = token_signal(2, h_cal=sorted((a, b)))
    _, coverage = law.update(law.init(signal), signal)
    mass = page_mass(weights, 16)
    unsure, sure = (CoverageSelection(coverage=float(p)).keep(mass, PINS) for p in coverage[::-1])
    assert (unsure >= sure).all()


@given(attention(), st.floats(0.1, 0.98))
def test_the_selection_is_the_smallest_that_reaches_its_coverage(
    weights: Float64, coverage: float
) -> None:
    pins = Pins(first=1, recent=1, min_pages=1)
    mass = page_mass(weights, 16)
    for head, kept in zip(mass, CoverageSelection(coverage=coverage).keep(mass, pins), strict=True):
        free = kept & ~pins.mask(len(head))
        if free.any():
            without = kept.copy()
            without[np.flatnonzero(free)[head[free].argmin()]] = False
            assert head[without].sum() < coverage + 1e-12


@given(attention(), st.integers(1, 30))
def test_a_budget_reads_the_same_count_whatever_the_scores(weights: Float64, pages: int) -> None:
    mass = page_mass(weights, 16)
    kept = BudgetSelection(pages=pages).keep(mass, PINS)
    assert (kept.sum(axis=1) == min(mass.shape[1], max(pages, 4))).all()
    assert kept[:, PINS.mask(mass.shape[1])].all()


def test_coverage_one_reads_everything() -> None:
    scores = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert CoverageSelection(coverage=1.0).keep(scores, PINS).all()


def test_one_absolute_threshold_prunes_nothing_short_and_everything_long() -> None:
    rule = ThresholdSelection(theta=0.02)
    for pages, share in ((16, 1.0), (1024, 1 / 1024)):
        flat = np.full(pages * 16, 1.0 / (pages * 16))
        assert rule.keep(page_mass(flat, 16), PINS).mean() == pytest.approx(share)


def test_the_literal_score_drops_the_sink_and_ours_pins_it() -> None:
    # Half of all attention on the first token, which has no surprisal.
    n = 160
    weights = np.full(n, 0.5 / (n - 1))
    weights[0] = 0.5
    surprisal, valid = np.full(n, 2.0), np.arange(n) > 0
    scores = page_surprisal(weights, surprisal, valid, 16)
    assert scores.argmin() == 0
    literal = ThresholdSelection(theta=float(np.sort(scores)[1]))
    assert not literal.keep(scores, PINS)[0]
    assert CoverageSelection(coverage=0.5).keep(scores, PINS)[0]


def test_scores_add_up_over_pages_with_a_partial_last_one() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(37))
    assert page_mass(weights, 16).shape == (3,)
    assert page_mass(weights, 16).sum() == pytest.approx(1.0)
    assert page_entropy(weights, 16).sum() == pytest.approx(-(weights * np.log(weights)).sum())
    norms = np.arange(37.0)
    assert page_value(weights, norms, 16).sum() == pytest.approx(((weights + 1e-4) * norms).sum())
    assert page_mass(weights, 16)[2] == pytest.approx(weights[32:].sum())


@pytest.mark.parametrize(("refresh", "returns"), [(8, True), (0, False)])
def test_a_dropped_page_comes_back_within_one_refresh_and_without_refresh_never(
    refresh: int,
    returns: bool,  # noqa: FBT001 - a parametrised case
) -> None:
    pages, hot, rule = 12, 5, CoverageSelection(coverage=0.8)
    cold = np.full(pages, 0.5 / (pages - 1))
    cold[0], cold[hot] = 0.5, 1e-6
    estimate = cold.copy()
    later = np.full(pages, 0.3 / (pages - 1))
    later[hot] = 0.7
    back = None
    for step in range(1, 65):
        dense = refresh > 0 and step % refresh == 0
        kept = np.ones(pages, bool) if dense else rule.keep(estimate, PINS)
        if kept[hot] and not dense and back is None:
            back = step
        estimate = lagged(estimate, later, kept, beta=0.5)
    assert (back is not None) == returns
    assert back is None or back <= refresh + 1


def test_eviction_takes_the_lowest_pages_and_never_a_shared_or_pinned_one() -> None:
    scores = np.array([0.0, 0.1, 0.9, 0.2, 0.3, 0.8, 0.0, 0.0])
    references = np.array([1, 2, 1, 1, 1, 1, 1, 1])
    assert pages_to_evict(scores, references, 2, PINS) == [3, 4]
    assert pages_to_evict(scores, references, 9, PINS) == [3, 4, 5, 2]
    assert pages_to_evict(scores[:4], references[:4], 4, PINS) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CoverageSelection(coverage=0.0), r"coverage must lie in \(0, 1\]; got"),
        (lambda: CoverageSelection(coverage=1.5), "coverage=1.5"),
        (lambda: BudgetSelection(pages=0), "pages must be >= 1; got pages=0"),
        (lambda: ThresholdSelection(theta=float("nan")), "theta must be >= 0"),
        (lambda: Pins(first=0), "first must be >= 1; got first=0"),
        (lambda: lagged([0.0], [0.0], [True], beta=0.0), "beta must lie"),
        (lambda: BudgetSelection(pages=1).keep([np.nan], PINS), "not NaN"),
    ],
)
def test_bad_selections_are_refused_by_name(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
