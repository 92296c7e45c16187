"""Paged attention against a masked softmax in float64, and what dropping mass may cost."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.page_select.naive import Pins, select_pages
from kernels.paged_decode.naive import decode_dense, decode_pages, prefill

HEADS, GROUP, DIM, SIZE, POOL = 2, 3, 8, 4, 16  # KV heads, queries each, head, page, pages
SCALE = DIM**-0.5
seeds = st.integers(0, 2**31 - 1)
lengths = st.integers(1, SIZE * 10)


class Cache:
    """One layer of random K and V behind a shuffled page table."""

    def __init__(self, seed: int, length: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.n = -(-length // SIZE)
        self.tail = length - (self.n - 1) * SIZE
        self.k_pages = normal(HEADS, POOL, SIZE, DIM)
        self.v_pages = normal(HEADS, POOL, SIZE, DIM)
        self.q = normal(HEADS, GROUP, DIM) * 2.0
        self.table = torch.randperm(POOL, generator=generator)[: self.n]
        self.k = self.k_pages[:, self.table].flatten(1, 2)[:, :length]
        self.v = self.v_pages[:, self.table].flatten(1, 2)[:, :length]

    def sparse(self, pages: Tensor, kept: Tensor) -> Tensor:
        table = self.table[pages]
        return decode_pages(self.q, self.k_pages, self.v_pages, table, kept, self.tail, SCALE)

    def masked(self, visible: Tensor) -> Tensor:
        """Attend in float64 to the tokens ``visible [HEADS, L]`` alone."""
        scores = self.q.double() @ self.k.double().transpose(1, 2) * SCALE
        hidden = scores.masked_fill(~visible[:, None], float("-inf"))
        return (hidden.softmax(-1) @ self.v.double()).float()


def random_selection(seed: int, n: int) -> tuple[Tensor, Tensor]:
    mass = torch.rand(HEADS, n, generator=torch.Generator().manual_seed(seed))
    return select_pages(mass / mass.sum(-1, keepdim=True), 0.6, Pins(recent=1, min_pages=1))


def visible_tokens(pages: Tensor, kept: Tensor, length: int) -> Tensor:
    visible = torch.zeros(HEADS, length, dtype=torch.bool)
    for head, count in enumerate(kept.tolist()):
        for page in pages[head, :count].tolist():
            visible[head, page * SIZE : (page + 1) * SIZE] = True
    return visible


@given(seeds, lengths)
def test_sparse_decode_is_softmax_over_the_kept_tokens(seed, length):
    cache = Cache(seed, length)
    pages, kept = random_selection(seed, cache.n)
    expected = cache.masked(visible_tokens(pages, kept, length))
    torch.testing.assert_close(cache.sparse(pages, kept), expected, rtol=1e-4, atol=1e-5)


@given(seeds, lengths)
def test_sparse_decode_of_every_page_is_dense_decode(seed, length):
    cache = Cache(seed, length)
    every = torch.arange(cache.n).expand(HEADS, -1)
    out = cache.sparse(every, torch.full((HEADS,), cache.n))
    dense, weights = decode_dense(cache.q, cache.k, cache.v, SCALE)
    torch.testing.assert_close(out, dense, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(HEADS, GROUP))


@given(seeds, lengths)
def test_sparse_decode_does_not_depend_on_where_pages_lie(seed, length):
    cache = Cache(seed, length)
    pages, kept = random_selection(seed, cache.n)
    out = cache.sparse(pages, kept)
    moved = torch.randperm(POOL, generator=torch.Generator().manual_seed(seed + 1))
    place = moved.argsort()  # page p now lies at place[p]
    cache.k_pages, cache.v_pages = cache.k_pages[:, moved], cache.v_pages[:, moved]
    cache.table = place[cache.table]
    assert torch.equal(cache.sparse(pages, kept), out)


@given(seeds, lengths)
def test_dropping_mass_moves_the_output_by_at_most_that_mass_times_the_spread_of_values(
    seed, length
):
    cache = Cache(seed, length)
    pages, kept = random_selection(seed, cache.n)
    visible = visible_tokens(pages, kept, length)
    dense, weights = decode_dense(cache.q, cache.k, cache.v, SCALE)
    moved = (cache.sparse(pages, kept) - dense).norm(dim=-1)  # [HEADS, GROUP]
    dropped = weights.masked_fill(visible[:, None], 0.0).sum(-1)
    diameter = torch.cdist(cache.v, cache.v).amax((1, 2))
    assert torch.all(moved <= dropped * diameter[:, None] * (1 + 1e-4) + 1e-5)


@given(seeds, st.integers(1, 12), st.integers(0, 20))
def test_a_prompt_chunk_attends_causally_to_all_before_it(seed, n, start):
    generator = torch.Generator().manual_seed(seed)
    k, v = (torch.randn(HEADS, start + n, DIM, generator=generator) for _ in range(2))
    q = torch.randn(HEADS * GROUP, n, DIM, generator=generator)
    out = prefill(q, k, v, SCALE)
    for i in range(n):
        seen = start + i + 1
        grouped = q[:, i].reshape(HEADS, GROUP, DIM)
        alone, _ = decode_dense(grouped, k[:, :seen], v[:, :seen], SCALE)
        torch.testing.assert_close(
            out[:, i], alone.flatten(0, 1), rtol=1e-5, atol=1e-5, msg=f"query {i}"
        )
