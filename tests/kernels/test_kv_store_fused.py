"""The Triton KV store against its definition: what it writes, and what it leaves alone."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kernels.kv_store import fused, naive
from kernels.page_stats import Bounds, Moments, PageStats
from tests.kernels.guards import device

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
POOL = 9
ROUNDING = {FP32: 1e-6, FP16: 1e-3, BF16: 1.6e-2}

LAYOUTS = [
    # heads, head size, page, type of k and v, type of the cache
    (2, 16, 16, FP32, FP32),
    (1, 20, 12, FP32, FP32),
    (2, 64, 16, FP16, FP16),
    (1, 33, 4, BF16, BF16),
    (1, 16, 16, FP32, FP16),
]


def writes(size: int) -> dict[str, list[int]]:
    """Slots of one step, by what the step does."""
    return {
        "the first token of a page": [3 * size],
        "a token into a page begun": [3 * size + size // 2],
        "a token into page 0, nothing after it": [1],
        "one token each of three rows": [5 * size + 1, 2 * size, 7 * size + size - 1],
        "a prompt chunk over three pages": list(range(3 * size - 1, 4 * size + 2)),
        "a chunk and a row, pages out of order": [*range(6 * size, 6 * size + 3), size + 2],
    }


def pool(heads: int, size: int, dim: int, dtype: torch.dtype) -> list[Tensor]:
    """Return K, V and two statistics of a used pool; what lies there is finite but for one page."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(heads, POOL, size, dim)] * 2 + [(heads, POOL, dim)] * 2
    stores = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    stores[0][:, 8] = math.nan  # a page nobody writes
    return stores


def run(store, place: torch.device | str, layout: tuple, kind, slots: list[int]) -> list[Tensor]:
    heads, dim, size, given, kept = layout
    generator = torch.Generator().manual_seed(len(slots))
    stores = [part.to(place) for part in pool(heads, size, dim, kept)]
    # The projections of a model come as views with the token axis first, or last.
    k = torch.randn(len(slots), heads, dim, generator=generator).to(given).to(place)
    v = torch.randn(heads, dim, len(slots), generator=generator).to(given).to(place)
    where = torch.tensor(slots, device=place)
    stats = None if kind is None else kind(*stores[2:])
    store(k.transpose(0, 1), v.transpose(1, 2), where, stores[0], stores[1], stats)
    return [part.cpu() for part in stores]


@pytest.mark.parametrize("kind", [Moments, Bounds])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_pool_afterwards_is_that_of_the_definition(layout, kind):
    rounding = ROUNDING[layout[4]]
    for name, slots in writes(layout[2]).items():
        got = run(fused.store, device(), layout, kind, slots)
        want = run(naive.store, "cpu", layout, kind, slots)
        for part, mine, theirs in zip(("k", "v", "first", "second"), got, want, strict=True):
            torch.testing.assert_close(
                mine, theirs, rtol=rounding, atol=rounding, equal_nan=True, msg=f"{name}: {part}"
            )


@pytest.mark.parametrize("kind", [Moments, Bounds, None])
def test_nothing_else_is_written(kind):
    layout = LAYOUTS[0]
    size = layout[2]
    slots = writes(size)["a prompt chunk over three pages"]
    before = pool(layout[0], size, layout[1], layout[4])
    after = run(fused.store, device(), layout, kind, slots)
    touched = sorted({slot // size for slot in slots}) if kind is not None else []
    for old, new, written in zip(before, after, (slots, slots, touched, touched), strict=True):
        old, new = (part.reshape(layout[0], -1, layout[1]) for part in (old, new))
        spared = torch.ones(old.shape[1], dtype=torch.bool)
        spared[written] = False
        assert torch.equal(old[:, spared].nan_to_num(7.0), new[:, spared].nan_to_num(7.0))
        assert not torch.equal(old[:, ~spared], new[:, ~spared]) or not written


def test_statistics_do_not_depend_on_how_a_prompt_was_cut():
    heads, dim, size = 1, 16, 8
    k, v = (torch.randn(heads, 20, dim, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    place = device()

    def stored(cuts: list[int]) -> PageStats:
        stores = [torch.full((heads, 4, size, dim), math.nan, device=place) for _ in range(2)]
        stats = Moments(*(torch.full((heads, 4, dim), math.nan, device=place) for _ in range(2)))
        for begin, end in pairwise(cuts):
            where = torch.arange(begin, end, device=place) + size
            part = (k[:, begin:end].to(place), v[:, begin:end].to(place))
            fused.store(*part, where, *stores, stats)
        return Moments(*(part[:, 1:].cpu() for part in stats))

    whole = stored([0, 20])
    for cuts in ([0, 3, 20], list(range(21))):
        for mine, theirs in zip(stored(cuts), whole, strict=True):
            assert torch.equal(mine[:, :2], theirs[:, :2])
            assert torch.equal(mine[:, 2], theirs[:, 2])


def test_a_step_without_tokens_writes_nothing():
    empty = torch.zeros(1, 0, 16)
    stores = [torch.ones(1, 2, 4, 16) for _ in range(2)]
    fused.store(empty, empty, torch.zeros(0, dtype=torch.int64), *stores, None)
    assert bool((stores[0] == 1).all())


def test_a_cache_of_another_type_is_refused():
    cache = torch.zeros(1, 2, 4, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"k_pages: must be float16, bfloat16 or float32"):
        token = torch.zeros(1, 1, 16)
        fused.store(token, token, torch.tensor([0]), cache, cache, None)
