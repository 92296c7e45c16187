"""Page selection against brute force: mass, pins, floors, coverage, order; both twins."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.kv_store import naive as kv_store
from kernels.page_select import naive, native
from kernels.page_select.blocks import select_blocks
from kernels.page_select.naive import Pins, pages_to_keep, rank_pages
from kernels.page_stats import Bounds, Moments, PageStats
from tests.kernels.pages import Layer, Shape, attend

HEADS = 2
TWINS = pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])
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


def selected(mass: Tensor, coverage: float, pinned: Pins, twin=native) -> tuple[Tensor, Tensor]:
    """Select from one row's mass ``[Hkv, n]`` in a table that runs backwards."""
    n = mass.shape[1]
    table = torch.arange(n - 1, -1, -1, dtype=torch.int32)[None]
    count, wanted = torch.tensor([n], dtype=torch.int32), torch.tensor([coverage])
    pages, kept = twin.select_pages(mass[None], table, count, wanted, pinned)
    return n - 1 - pages[0], kept[0]  # positions again


def chosen(mass: Tensor, coverage: float, pinned: Pins, twin=native) -> list[list[int]]:
    pages, kept = selected(mass, coverage, pinned, twin)
    return [row[:count].tolist() for row, count in zip(pages, kept.tolist(), strict=True)]


def pinned_pages(n: int, pinned: Pins) -> set[int]:
    return set(range(min(n, pinned.first))) | set(range(max(0, n - pinned.recent), n))


def statistics(layer: Layer, kind: type[PageStats]) -> PageStats:
    """Fill the statistics of every page that holds tokens."""
    s = layer.shape
    stats = kind(*(torch.full((s.H, layer.pool, s.D), math.nan) for _ in range(2)))
    for b in range(s.B):
        n, tail = int(layer.n_pages[b]), int(layer.tails[b])
        pages = layer.table[b, :n].long()
        slots = (pages[:, None] * s.P + torch.arange(s.P)).flatten()[: (n - 1) * s.P + tail]
        k, v = layer.k.flatten(1, 2)[:, slots], layer.v.flatten(1, 2)[:, slots]
        kv_store.store(k, v, slots, layer.k, layer.v, stats)
    return stats


def estimate(twin, layer: Layer, stats: PageStats) -> Tensor:
    return twin.estimate_mass(
        layer.q,
        stats,
        layer.table,
        layer.n_pages,
        layer.tails,
        layer.scaling,
        page_tokens=layer.shape.P,
    )


@TWINS
@given(mass=masses(), coverage=st.floats(0.05, 0.999), pinned=pins)
def test_pinned_pages_and_the_floor_are_always_kept(twin, mass, coverage, pinned):
    n = mass.shape[1]
    for row in chosen(mass, coverage, pinned, twin):
        assert pinned_pages(n, pinned) <= set(row)
        assert len(row) >= min(n, pinned.min_pages)


@TWINS
@given(mass=masses(), coverage=st.floats(0.05, 0.999), pinned=pins)
def test_kept_pages_ascend_without_repeats_and_end_with_the_last_page(twin, mass, coverage, pinned):
    pages, kept = selected(mass, coverage, pinned, twin)
    last = mass.shape[1] - 1
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


@TWINS
@given(
    mass=masses(),
    coverages=st.lists(st.floats(0.05, 0.999), min_size=2, max_size=2),
    pinned=pins,
)
def test_more_coverage_keeps_a_superset(twin, mass, coverages, pinned):
    low, high = (chosen(mass, coverage, pinned, twin) for coverage in sorted(coverages))
    for small, large in zip(low, high, strict=True):
        assert set(small) <= set(large)


@given(masses(), st.floats(0.05, 1.0), pins)
def test_the_compiled_selection_is_the_naive_one(mass, coverage, pinned):
    ours, theirs = (selected(mass, coverage, pinned, twin) for twin in (native, naive))
    assert all(map(torch.equal, ours, theirs))


@given(masses(), pins)
def test_coverages_counted_together_are_those_counted_one_by_one(mass, pinned):
    coverages = torch.tensor([0.5, 0.8, 0.9, 0.95, 0.99])
    count = torch.tensor([mass.shape[1]])
    order = rank_pages(mass[None], count, pinned)
    together = pages_to_keep(mass[None].gather(-1, order), count, coverages[None], pinned)[0]
    for column, coverage in enumerate(coverages.tolist()):
        assert together[:, column].tolist() == [len(r) for r in chosen(mass, coverage, pinned)]


@TWINS
def test_rows_of_a_batch_are_selected_each_at_its_own_coverage_and_length(twin):
    layer = Layer(Shape(B=4, n=12))
    mass = estimate(naive, layer, statistics(layer, Moments))
    coverage = torch.tensor([1.0, 0.5, 0.9, 0.95])
    pages, kept = twin.select_pages(mass, layer.table, layer.n_pages, coverage, Pins())
    assert kept[0].tolist() == [12, 12]
    for b in range(4):
        n, row = int(layer.n_pages[b]), slice(b, b + 1)
        alone, count = twin.select_pages(
            mass[row, :, :n], layer.table[row, :n], layer.n_pages[row], coverage[row], Pins()
        )
        assert torch.equal(count, kept[row])
        assert torch.equal(alone, pages[row, :, :n])


@TWINS
def test_mass_that_is_not_a_number_keeps_every_page(twin):
    mass = torch.full((HEADS, 9), math.nan)
    assert chosen(mass, 0.5, Pins(), twin) == [list(range(9))] * HEADS


@pytest.mark.parametrize("kind", [Moments, Bounds])
@pytest.mark.parametrize("shape", [Shape(B=1, n=1), Shape(B=4, n=40), Shape(D=64, P=16)], ids=str)
def test_estimated_mass_is_a_distribution_over_pages_and_alike_in_both_twins(kind, shape):
    layer = Layer(shape)
    stats = statistics(layer, kind)
    mass = estimate(native, layer, stats)
    torch.testing.assert_close(mass, estimate(naive, layer, stats), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mass.sum(-1), torch.ones(shape.B, shape.H))
    for b in range(shape.B):
        assert not mass[b, :, int(layer.n_pages[b]) :].any()


@TWINS
@pytest.mark.parametrize("kind", [Moments, Bounds])
def test_estimated_mass_is_exact_where_the_keys_of_a_page_are_equal(twin, kind):
    layer = Layer(Shape(B=2, n=6))
    layer.k[:] = layer.k[:, :, :1].clone()
    found = estimate(twin, layer, statistics(layer, kind))
    size = layer.shape.P
    for b in range(2):
        for h in range(layer.shape.H):
            _, weights = attend(layer, b, h, *layer.dense[:2])
            n, share = int(layer.n_pages[b]), weights.mean(0)
            exact = torch.nn.functional.pad(share, (0, n * size - len(share))).view(n, size).sum(1)
            torch.testing.assert_close(found[b, h, :n].double(), exact, rtol=1e-4, atol=1e-6)


@TWINS
def test_quest_scores_bound_every_key_of_their_page(twin):
    layer = Layer(Shape(B=1, H=1, G=1, n=8))
    layer.tails[:] = layer.shape.P
    mass = estimate(twin, layer, statistics(layer, Bounds))[0, 0]
    bound = mass.log() - mass.log()[0]  # scores up to a constant
    q, keys = layer.q[0, 0, 0], layer.k[0, layer.table[0].long()]
    low, high = keys.amin(1), keys.amax(1)
    exact = torch.maximum(q * low, q * high).sum(-1) * layer.scaling
    torch.testing.assert_close(bound, exact - exact[0], rtol=1e-4, atol=1e-4)
    assert (exact >= (keys @ q).amax(1) * layer.scaling - 1e-5).all()


@TWINS
def test_a_row_that_is_not_a_number_touches_no_other(twin):
    layer = Layer(Shape(B=3))
    stats = statistics(layer, Moments)
    clean = estimate(twin, layer, stats)
    layer.q[1] = math.nan
    assert torch.equal(estimate(twin, layer, stats)[[0, 2]], clean[[0, 2]])


@TWINS
@given(mass=masses(), coverage=st.floats(0.05, 0.99), block=st.integers(1, 5))
def test_blocks_are_kept_whole_and_reach_the_coverage(twin, mass, coverage, block):
    n, pinned = mass.shape[1], Pins()
    table = torch.arange(n, dtype=torch.int32)[None]
    count, wanted = torch.tensor([n], dtype=torch.int32), torch.tensor([coverage])
    pages, kept = select_blocks(mass[None], table, count, wanted, pinned, block, twin.select_pages)
    assert pages.shape == (1, HEADS, n)
    for row, amount, heads_mass in zip(pages[0].tolist(), kept[0].tolist(), mass, strict=True):
        listed = row[:amount]
        assert listed == sorted(set(listed))
        assert listed[-1] == n - 1
        assert pinned_pages(n, pinned) <= set(listed)
        assert float(heads_mass[listed].sum()) >= coverage - 1e-6
        for page in listed:
            first = page // block * block
            assert set(range(first, min(first + block, n))) <= set(listed)


@pytest.mark.parametrize("name", ["first", "recent", "min_pages"])
def test_a_pin_below_one_is_refused_by_name_and_value(name):
    with pytest.raises(ValueError, match=rf"{name} must be >= 1; got {name}=0"):
        Pins(**{name: 0})
