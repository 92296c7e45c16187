"""Keys, values and page statistics after tokens were written in any pieces; both twins."""

from __future__ import annotations

import math

import pytest
import torch

from kernels.kv_store import naive, native
from kernels.page_stats import Bounds, Moments, PageStats

TWINS = pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])
KINDS = pytest.mark.parametrize("kind", [Moments, Bounds])
H, D, P, POOL = 2, 20, 4, 9
TABLE = torch.tensor([5, 2, 7])  # pages of one sequence of 10 tokens
SLOTS = (TABLE[:, None] * P + torch.arange(P)).flatten()[:10]


class Store:
    """An empty layer whose memory holds poison."""

    def __init__(self, kind: type[PageStats], poison: float = math.nan) -> None:
        self.k = torch.full((H, POOL, P, D), poison)
        self.v = self.k.clone()
        self.stats = kind(*(torch.full((H, POOL, D), poison) for _ in range(2)))

    def write(self, twin, k, v, slots) -> None:
        twin.store(k, v, slots, self.k, self.v, self.stats)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Store)
        pairs = zip((self.k, self.v, *self.stats), (other.k, other.v, *other.stats), strict=True)
        return all(torch.equal(a.nan_to_num(9.0), b.nan_to_num(9.0)) for a, b in pairs)

    __hash__ = None


def tokens(n: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Return K and V as a model gives them: heads before tokens, tokens before heads in memory."""
    generator = torch.Generator().manual_seed(n)
    k, v = (torch.randn(n, H, D, generator=generator).transpose(0, 1) for _ in range(2))
    return k, v


@TWINS
@KINDS
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_statistics_are_those_of_the_keys_written(twin, kind, poison):
    (k, v), store = tokens(), Store(kind, poison)
    store.write(twin, k, v, SLOTS)
    assert torch.equal(store.k.flatten(1, 2)[:, SLOTS], k)
    assert torch.equal(store.v.flatten(1, 2)[:, SLOTS], v)
    for index, page in enumerate(TABLE):
        keys = k[:, index * P : index * P + P]
        expected = (keys.mean(1), keys.var(1, correction=0))
        if kind is Bounds:
            expected = (keys.amin(1), keys.amax(1))
        for part, want in zip(store.stats, expected, strict=True):
            torch.testing.assert_close(part[:, page], want, rtol=1e-5, atol=1e-6)


@TWINS
@KINDS
def test_tokens_one_by_one_or_in_chunks_leave_the_same_bits(twin, kind):
    k, v = tokens()
    whole, pieces, single = Store(kind), Store(kind), Store(kind)
    whole.write(twin, k, v, SLOTS)
    for cut in (slice(0, 3), slice(3, 4), slice(4, 9), slice(9, 10)):
        pieces.write(twin, k[:, cut], v[:, cut], SLOTS[cut])
    for t in range(10):
        single.write(twin, k[:, t : t + 1], v[:, t : t + 1], SLOTS[t : t + 1])
    assert whole == pieces
    assert whole == single


@TWINS
@KINDS
def test_writing_a_token_again_changes_nothing(twin, kind):
    (k, v), store, once = tokens(), Store(kind), Store(kind)
    once.write(twin, k, v, SLOTS)
    store.write(twin, k, v, SLOTS)
    store.write(twin, k[:, 9:], v[:, 9:], SLOTS[9:])
    assert store == once


@TWINS
@KINDS
def test_a_page_in_new_hands_forgets_what_it_held(twin, kind):
    (k, v), (other, _), store, fresh = tokens(), tokens(8), Store(kind), Store(kind)
    store.write(twin, other, other, SLOTS[:8])
    store.write(twin, k[:, :2], v[:, :2], SLOTS[:2])
    fresh.write(twin, k[:, :2], v[:, :2], SLOTS[:2])
    for ours, theirs in zip(store.stats, fresh.stats, strict=True):
        assert torch.equal(ours[:, TABLE[0]], theirs[:, TABLE[0]])


@KINDS
@pytest.mark.parametrize("n", [1, 10, 200])
def test_the_compiled_twin_is_the_naive_one(kind, n):
    generator = torch.Generator().manual_seed(n)
    pages = -(-n // P)
    order = torch.randperm(pages, generator=generator)
    slots = (order[:, None] * P + torch.arange(P)).flatten()[:n]
    k, v = tokens(n)
    found = []
    for twin in (naive, native):
        stats = kind(*(torch.zeros(H, pages, D) for _ in range(2)))
        k_pages, v_pages = torch.zeros(H, pages, P, D), torch.zeros(H, pages, P, D)
        twin.store(k, v, slots, k_pages, v_pages, stats)
        found.append((k_pages, v_pages, *stats))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@TWINS
def test_without_statistics_only_keys_and_values_are_written(twin):
    (k, v), store = tokens(), Store(Moments)
    twin.store(k, v, SLOTS, store.k, store.v, None)
    assert torch.equal(store.v.flatten(1, 2)[:, SLOTS], v)
    assert store.stats[0].isnan().all()
