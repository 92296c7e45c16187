"""The compiled 4-bit page mass is the defined one, whatever the shape and wherever pages lie."""

from __future__ import annotations

import pytest
import torch

from kernels.low_bit_keys import naive, native
from kernels.low_bit_keys.naive import KeyCodes, encode
from kernels.native.build import find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@needs_compiler
@pytest.mark.parametrize(
    ("rows", "heads", "group", "dim", "size", "lengths"),
    [
        (1, 1, 1, 32, 16, [1]),
        (3, 2, 3, 64, 16, [40, 16, 33]),
        (2, 3, 4, 128, 16, [200, 7]),
        (2, 1, 8, 64, 5, [23, 50]),
        (4, 3, 3, 64, 32, [64, 65, 1, 300]),
    ],
)
def test_compiled_mass_is_the_defined_mass(rows, heads, group, dim, size, lengths):
    counts = [-(-length // size) for length in lengths]
    n, pool = max(counts), sum(counts) + 3
    order = torch.randperm(pool, generator=torch.Generator().manual_seed(1)).tolist()
    table = torch.zeros(rows, n, dtype=torch.int32)
    for row, count in enumerate(counts):
        table[row, :count] = torch.tensor([order.pop() for _ in range(count)])
    coded = encode(3.0 * random(heads, pool, size, dim, seed=2))
    coded.scale[:, order] = torch.nan  # in no row's list
    n_pages = torch.tensor(counts, dtype=torch.int32)
    tails = torch.tensor([(length - 1) % size + 1 for length in lengths], dtype=torch.int32)
    given = (random(rows, heads, group, dim, seed=3), coded, table, n_pages, tails, dim**-0.5)
    made, wanted = native.estimate_mass(*given), naive.estimate_mass(*given)
    torch.testing.assert_close(made, wanted, atol=2e-6, rtol=2e-5)
    torch.testing.assert_close(made.sum(-1), torch.ones(rows, heads))


@needs_compiler
def test_compiled_mass_does_not_depend_on_threads_batch_or_place():
    coded = encode(random(2, 40, 16, 64, seed=4))
    q, n_pages = random(5, 2, 3, 64, seed=5), torch.full((5,), 8, dtype=torch.int32)
    tails = torch.tensor([16, 3, 1, 9, 16], dtype=torch.int32)
    table = torch.arange(40, dtype=torch.int32).view(5, 8)
    whole = native.estimate_mass(q, coded, table, n_pages, tails, 0.125)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again = native.estimate_mass(q, coded, table, n_pages, tails, 0.125)
    finally:
        torch.set_num_threads(threads)
    alone = native.estimate_mass(q[2:3], coded, table[2:3], n_pages[2:3], tails[2:3], 0.125)
    moved = torch.randperm(40, generator=torch.Generator().manual_seed(6))
    elsewhere = KeyCodes(*(part[:, moved.argsort()] for part in coded))
    placed = native.estimate_mass(q, elsewhere, moved[table.long()].int(), n_pages, tails, 0.125)
    assert torch.equal(whole, again)
    assert torch.equal(whole[2:3], alone)
    assert torch.equal(whole, placed.clone()) or torch.allclose(whole, placed, atol=0)


@needs_compiler
def test_subnormal_scales_are_read_as_they_are():
    coded = encode(1e-6 * random(1, 4, 16, 32, seed=7))
    q, one = 1e6 * random(1, 1, 2, 32, seed=8), torch.tensor([4], dtype=torch.int32)
    table, tails = torch.arange(4, dtype=torch.int32)[None], torch.tensor([16], dtype=torch.int32)
    made = native.estimate_mass(q, coded, table, one, tails, 1.0)
    torch.testing.assert_close(made, naive.estimate_mass(q, coded, table, one, tails, 1.0))
