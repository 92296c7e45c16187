"""4-bit keys: the error of a channel, the mass of a page, and what is never looked at."""

from __future__ import annotations

import math

import pytest
import torch

from kernels.low_bit_keys.naive import KeyCodes, bytes_share, decode, encode, estimate_mass
from kernels.paged_decode.naive import decode_pages


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_a_channel_comes_back_within_half_a_level(dim):
    k = 10.0 * random(3, 5, dim)
    coded = encode(k)
    assert coded.codes.shape == (3, 5, (dim + 1) // 2)
    error = (decode(coded, dim) - k).abs().amax(-1)
    width = k.amax(-1) - k.amin(-1)
    assert bool((error <= width / 30 * 1.01 + k.abs().amax(-1) * 2e-3).all())


def test_equal_channels_come_back_as_they_are():
    k = torch.full((4, 8), -2.5)
    assert torch.equal(decode(encode(k), 8), k)
    assert torch.equal(decode(encode(torch.zeros(2, 3)), 3), torch.zeros(2, 3))


def test_non_finite_keys_give_finite_codes():
    k = torch.tensor([[math.nan, 1.0], [math.inf, 0.0], [1e30, -1e30], [-math.inf, math.inf]])
    assert bool(decode(encode(k), 2).isfinite().all())


def test_the_estimate_is_close_to_the_true_mass_and_ignores_padding():
    q, k = random(2, 3, 2, 16, seed=1), random(3, 12, 4, 16, seed=2)
    table = torch.tensor([[3, 7, 1, 9, 4], [11, 0, 5, 5, 5]], dtype=torch.int32)
    n_pages, tails = torch.tensor([5, 3], dtype=torch.int32), torch.tensor([4, 2])
    mass = estimate_mass(q, encode(k), table, n_pages, tails, 0.25)
    pages = table[:, None].expand(-1, 3, -1)
    kept = n_pages[:, None].expand(-1, 3)
    true = decode_pages(q, k, k, pages, kept, tails.int(), 0.25, masses=True).page_mass
    assert true is not None
    torch.testing.assert_close(mass, true, atol=0.03, rtol=0.0)
    torch.testing.assert_close(mass.sum(-1), torch.ones(2, 3))
    assert bool((mass[1, :, 3:] == 0.0).all())
    poisoned = k.clone()
    poisoned[:, 5, 2:] = 1e4  # past the tail of the second row's last page
    poisoned[:, [2, 6, 8, 10]] = math.nan  # in no row's list
    again = estimate_mass(q, encode(poisoned), table, n_pages, tails, 0.25)
    assert torch.equal(mass[1], again[1])


def test_bytes_are_counted():
    assert bytes_share(64, 4) == pytest.approx((32 + 4) / 512)
    assert bytes_share(64, 2) == pytest.approx((32 + 4) / 256)
    coded = encode(torch.zeros(16, 64))
    stored = sum(part.numel() * part.element_size() for part in coded)
    assert stored / (16 * 2 * 64 * 4) == pytest.approx(bytes_share(64, 4))
    assert isinstance(coded, KeyCodes)
