"""Triton page scoring and selection against their definitions, over a table of shapes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kernels.page_select import fused, naive
from kernels.page_select.naive import Pins
from kernels.page_stats import Bounds, Moments, PageStats
from tests.kernels.guards import Guarded, device

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
NAN = math.nan
JUNK = 2**31 - 1  # a page id no pool has

SHAPES = [
    # rows, heads, group, head size, page, listed pages, type
    (1, 1, 1, 16, 16, 1, FP32),
    (3, 2, 3, 24, 16, 40, FP32),
    (2, 1, 17, 64, 12, 33, FP32),
    (2, 1, 4, 128, 16, 300, FP16),
    (1, 2, 5, 80, 128, 70, BF16),
]


class Scored:
    """Random statistics in a pool whose unlisted pages are NaN; the last row has no pages."""

    def __init__(self, shape: tuple, kind: type[PageStats]) -> None:
        rows, heads, group, dim, self.page_tokens, n, dtype = shape
        generator = torch.Generator().manual_seed(n)
        pool = 2 * n + 3
        self.q = torch.randn(rows, heads, group, dim, generator=generator).to(dtype)
        first = torch.randn(heads, pool, dim, generator=generator)
        second = torch.rand(heads, pool, dim, generator=generator)
        if kind is Bounds:
            second = first + second
        self.table = torch.randint(0, pool, (rows, n), generator=generator).int()
        self.n_pages = torch.randint(1, n + 1, (rows,), generator=generator).int()
        self.n_pages[0] = n
        if rows > 1:
            self.n_pages[-1] = 0
        self.tails = torch.randint(1, self.page_tokens + 1, (rows,), generator=generator).int()
        unlisted = torch.ones(pool, dtype=torch.bool)
        for row, count in enumerate(self.n_pages.tolist()):
            unlisted[self.table[row, :count].long()] = False
            self.table[row, count:] = JUNK
        first[:, unlisted] = second[:, unlisted] = NAN
        self.stats = kind(first.to(dtype), second.to(dtype))

    def naive(self) -> Tensor:
        args = (self.q, self.stats, self.table, self.n_pages, self.tails)
        return naive.estimate_mass(*args, self.q.shape[-1] ** -0.5, page_tokens=self.page_tokens)

    def fused(self) -> Tensor:
        guarded, place = Guarded(), device()
        stats = type(self.stats)(*(part.to(place) for part in self.stats))
        lists = (part.to(place) for part in (self.table, self.n_pages, self.tails))
        mass = fused.estimate_mass(
            self.q.to(place),
            stats,
            *lists,
            self.q.shape[-1] ** -0.5,
            page_tokens=self.page_tokens,
            workspace=guarded,
        )
        guarded.check()
        return mass.cpu()


def listed(mass: Tensor, n_pages: Tensor) -> Tensor:
    """Return a table of physical pages, junk beyond each row's own."""
    n = mass.shape[-1]
    table = torch.arange(n, dtype=torch.int32).flip(0).repeat(len(n_pages), 1) + 100
    return table.masked_fill(torch.arange(n) >= n_pages[:, None], JUNK)


def selected(mass: Tensor, n_pages: Tensor, coverage: Tensor, pins: Pins) -> tuple[Tensor, Tensor]:
    guarded, place = Guarded(), device()
    args = (part.to(place) for part in (mass, listed(mass, n_pages), n_pages, coverage))
    pages, kept = fused.select_pages(*args, pins, workspace=guarded)
    guarded.check()
    return pages.cpu(), kept.cpu()


def masses(seed: int, n: int, sharpness: float = 3.0, shape: tuple[int, int] = (3, 1)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, n, generator=generator) * sharpness).softmax(-1)


def counts(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def as_sets(pages: Tensor, kept: Tensor) -> list[set[int]]:
    rows = zip(pages.flatten(0, 1).tolist(), kept.flatten().tolist(), strict=True)
    return [set(row[:count]) for row, count in rows]


@pytest.mark.parametrize("kind", [Moments, Bounds])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_estimated_mass_is_that_of_the_definition(shape, kind):
    case = Scored(shape, kind)
    got = case.fused()
    torch.testing.assert_close(got, case.naive(), rtol=2e-5, atol=1e-7)
    assert not got[case.n_pages == 0].any()


def test_a_peak_past_the_first_partial_sums_outweighs_them():
    case = Scored((1, 1, 2, 16, 16, 300, FP32), Moments)
    late = case.table[0, 290].long()
    case.stats.mean[0, late] = case.q[0, 0, 0] * 2.0
    want = case.naive()
    assert 0.1 < float(want[0, 0, 290]) < 0.99
    torch.testing.assert_close(case.fused(), want, rtol=2e-5, atol=1e-7)


def test_estimates_of_a_row_do_not_depend_on_the_width_of_the_table():
    case = Scored(SHAPES[1], Moments)
    before = case.fused()
    case.table = torch.cat([case.table, torch.full((3, 600), JUNK, dtype=torch.int32)], dim=1)
    assert torch.equal(case.fused()[..., :40], before)


def test_a_nan_query_spoils_the_estimates_of_its_head_alone():
    case = Scored(SHAPES[1], Moments)
    before = case.fused()
    case.q[0, 1, 0, 3] = NAN
    after = case.fused()
    assert after[0, 1].isnan().all()
    after[0, 1] = before[0, 1]
    assert torch.equal(after, before)


MASSES = {
    "smooth": masses(0, 40),
    "peaked": masses(1, 40, sharpness=12.0),
    "flat, all tied": torch.full((3, 1, 40), 1 / 40),
    "ties": (masses(2, 40, sharpness=1.0) * 50).round() / 50,
    "mostly zero": masses(3, 40, sharpness=200.0),
    "one page": masses(4, 1),
    "a row of NaN": masses(5, 40).index_fill_(0, torch.tensor([1]), NAN),
}
OTHER_PINS = [Pins(first=2, recent=3, min_pages=9), Pins(first=1, recent=1, min_pages=1)]
SELECTIONS = [
    *((name, Pins(), (0.5, 0.9, 0.99)) for name in MASSES),
    *(("ties", pins, (0.7, 0.9, 0.3)) for pins in OTHER_PINS),
    ("smooth", Pins(), (1.0, 1e-6, 0.9999999)),
    ("mostly zero", Pins(), (1.0, 1.0, 1.0)),  # a few pages hold all the mass; still read all
]


@pytest.mark.parametrize(("name", "pins", "coverages"), SELECTIONS)
def test_selection_is_the_definition_to_the_page(name, pins, coverages):
    mass, coverage = MASSES[name], torch.tensor(coverages)
    n = mass.shape[-1]
    n_pages = counts(n, (n + 1) // 2, min(n, 3))
    mass = mass.masked_fill((torch.arange(n) >= n_pages[:, None])[:, None], 0.0)
    pages, kept = selected(mass, n_pages, coverage, pins)
    want = naive.select_pages(mass, listed(mass, n_pages), n_pages, coverage, pins)
    assert torch.equal(kept, want[1])
    assert torch.equal(pages, want[0])


@pytest.mark.parametrize("n", [513, 33_001])
def test_long_lists_are_selected_as_the_definition_does(n):
    mass, n_pages, coverage = masses(n, n, shape=(1, 1)), counts(n), torch.tensor([0.9])
    pages, kept = selected(mass, n_pages, coverage, Pins())
    want = naive.select_pages(mass, listed(mass, n_pages), n_pages, coverage, Pins())
    assert torch.equal(kept, want[1])
    assert torch.equal(pages, want[0])


def test_more_coverage_keeps_a_superset():
    mass = masses(7, 60, shape=(1, 2)).expand(4, 2, 60)
    coverage = torch.tensor([0.3, 0.7, 0.70001, 0.97])
    sets = as_sets(*selected(mass, counts(60, 60, 60, 60), coverage, Pins()))
    for head in (0, 1):
        nested = sets[head::2]
        assert all(small <= large for small, large in pairwise(nested))
        assert len(nested[0]) < len(nested[-1])


def test_company_and_padding_change_no_selection():
    mass, coverage = masses(8, 40, shape=(3, 2)), torch.tensor([0.9, 0.5, 0.8])
    pages, kept = selected(mass, counts(40, 40, 40), coverage, Pins())
    wide = torch.cat([mass[1:2], torch.full((1, 2, 900), NAN)], dim=-1)
    alone, count = selected(wide, counts(40), coverage[1:2], Pins())
    assert torch.equal(count[0], kept[1])
    for head, m in enumerate(count[0].tolist()):
        # Both tables count down from their own width.
        assert torch.equal(alone[0, head, :m] - 900, pages[1, head, :m])


def test_a_row_without_pages_keeps_none():
    mass, n_pages, coverage = masses(9, 5, shape=(2, 1)), counts(5, 0), torch.tensor([0.9, 1.0])
    pages, kept = selected(mass, n_pages, coverage, Pins())
    want = naive.select_pages(mass, listed(mass, n_pages), n_pages, coverage, Pins())
    assert kept[1].item() == 0
    assert torch.equal(kept, want[1])
    assert torch.equal(pages, want[0])


def test_lists_beyond_the_limit_are_refused():
    with pytest.raises(ValueError, match=r"mass: a row may list 65536 pages on GPU; got 65537"):
        selected(torch.zeros(1, 1, 65_537), counts(1), torch.tensor([0.9]), Pins())
