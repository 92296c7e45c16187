"""Page selection against brute force: mass, pins, floors, coverage, order."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.page_select.naive import (
    Pins,
    estimate_mass,
    pages_to_keep,
    rank_pages,
    select_pages,
)

HEADS = 2
seeds = st.integers(0, 2**31 - 1)
pins = st.builds(
    Pins, first=st.integers(1, 2), recent=st.integers(1, 3), min_pages=st.integers(1, 6)
)


@st.composite
def masses(draw: st.DrawFn, max_pages: int = 24) -> Tensor:
    """Page masses of two heads, from flat to all on one page, ties included."""
    n = draw(st.integers(1, max_pages))
    generator = torch.Generator().manual_seed(draw(seeds))
    scores = torch.randn(HEADS, n, generator=generator) * draw(st.floats(0.0, 8.0))
    if draw(st.booleans()):
        scores = scores.round()
    return scores.softmax(-1)


def chosen(mass: Tensor, coverage: float, pinned: Pins) -> list[list[int]]:
    pages, kept = select_pages(mass, coverage, pinned)
    return [row[:count].tolist() for row, count in zip(pages, kept.tolist(), strict=True)]


def pinned_pages(n: int, pinned: Pins) -> set[int]:
    return set(range(min(n, pinned.first))) | set(range(max(0, n - pinned.recent), n))


@given(masses(), st.floats(0.05, 0.999), pins)
def test_pinned_pages_and_the_floor_are_always_kept(mass, coverage, pinned):
    n = mass.shape[1]
    for row in chosen(mass, coverage, pinned):
        assert pinned_pages(n, pinned) <= set(row)
        assert len(row) >= min(n, pinned.min_pages)


@given(masses(), st.floats(0.05, 0.999), pins)
def test_kept_pages_ascend_without_repeats_and_end_with_the_last_page(mass, coverage, pinned):
    pages, kept = select_pages(mass, coverage, pinned)
    last = mass.shape[1] - 1
    assert pages.shape[1] == int(kept.max())
    for row, count in zip(pages.tolist(), kept.tolist(), strict=True):
        assert row[:count] == sorted(set(row[:count]))
        assert row[count - 1] == last
        assert all(page == last for page in row[count:])  # padding


@given(masses(max_pages=9), st.floats(0.05, 0.99), pins)
def test_no_smaller_set_with_the_pins_reaches_the_coverage(mass, coverage, pinned):
    n = mass.shape[1]
    must = pinned_pages(n, pinned)
    free = [page for page in range(n) if page not in must]
    floor = min(n, pinned.min_pages)
    for row_mass, row in zip(mass.double(), chosen(mass, coverage, pinned), strict=True):
        reached = float(row_mass[row].sum())
        assert reached >= coverage - 1e-6 or len(row) == n
        if len(row) <= max(floor, pinned.first + pinned.recent):
            continue
        smaller = combinations(free, len(row) - len(must) - 1)
        best = max(float(row_mass[[*must, *extra]].sum()) for extra in smaller)
        assert best < coverage + 1e-6


@given(masses(), st.lists(st.floats(0.05, 0.999), min_size=2, max_size=2), pins)
def test_more_coverage_keeps_a_superset(mass, coverages, pinned):
    low, high = sorted(coverages)
    for small, large in zip(chosen(mass, low, pinned), chosen(mass, high, pinned), strict=True):
        assert set(small) <= set(large)


@given(masses(), pins)
def test_coverages_counted_together_are_those_counted_one_by_one(mass, pinned):
    coverages = torch.tensor([0.5, 0.8, 0.9, 0.95, 0.99])
    order = rank_pages(mass, pinned)
    together = pages_to_keep(mass.gather(1, order), coverages, pinned)
    for column, coverage in enumerate(coverages.tolist()):
        assert together[:, column].tolist() == [len(r) for r in chosen(mass, coverage, pinned)]


@given(seeds, st.integers(1, 20), st.floats(0.0, 5.0))
def test_estimated_mass_is_a_distribution_over_pages(seed, n, spread):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(HEADS, 3, 8, generator=generator) * spread
    mean = torch.randn(HEADS, n, 8, generator=generator)
    var = torch.randn(HEADS, n, 8, generator=generator).square() - 1e-3  # rounding below zero
    counts = torch.full((n,), 16.0)
    counts[-1] = 5.0
    mass = estimate_mass(q, mean, var, counts, 8**-0.5)
    assert mass.shape == (HEADS, n)
    assert torch.all(mass >= 0)
    torch.testing.assert_close(mass.sum(-1), torch.ones(HEADS))


@given(seeds, st.integers(2, 12))
def test_estimated_mass_is_exact_where_the_keys_of_a_page_are_equal(seed, n):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(HEADS, 3, 8, generator=generator)
    mean = torch.randn(HEADS, n, 8, generator=generator)
    counts = torch.randint(1, 17, (n,), generator=generator).float()
    mass = estimate_mass(q, mean, torch.zeros_like(mean), counts, 8**-0.5)
    keys = mean.repeat_interleave(counts.long(), dim=1)
    weights = (q @ keys.transpose(1, 2) * 8**-0.5).softmax(-1).mean(1)
    pieces = weights.split(counts.long().tolist(), dim=1)
    torch.testing.assert_close(mass, torch.stack([p.sum(-1) for p in pieces], dim=1))


def test_a_page_count_weighs_its_mass():
    q, mean = torch.zeros(1, 1, 4), torch.zeros(1, 2, 4)
    mass = estimate_mass(q, mean, torch.zeros_like(mean), torch.tensor([16.0, 4.0]), 0.5)
    torch.testing.assert_close(mass, torch.tensor([[0.8, 0.2]]))


@pytest.mark.parametrize("name", ["first", "recent", "min_pages"])
def test_a_pin_below_one_is_refused_by_name_and_value(name):
    with pytest.raises(ValueError, match=rf"{name} must be >= 1; got {name}=0"):
        Pins(**{name: 0})
