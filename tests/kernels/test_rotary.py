"""Rotary embedding: both twins turn pairs by their angle, and touch nothing else."""

from __future__ import annotations

import pytest
import torch

from kernels.rotary import naive, native

TWINS = pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])


def angles(n: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    half = torch.rand(n, dim // 2, generator=torch.Generator().manual_seed(1)) * 6.3
    whole = half.repeat(1, 2)
    return whole.cos(), whole.sin()


def rows(n: int, heads: int, dim: int) -> torch.Tensor:
    return torch.randn(n, heads, dim, generator=torch.Generator().manual_seed(2))


@TWINS
@pytest.mark.parametrize(
    ("n", "heads", "turned", "dim"), [(1, 1, 1, 2), (5, 4, 3, 64), (70, 15, 12, 20)]
)
def test_pairs_turn_by_their_angle_and_the_heads_behind_stay(twin, n, heads, turned, dim):
    x, (cos, sin) = rows(n, heads, dim), angles(n, dim)
    exact, half = x.double().clone(), dim // 2
    a, b = x[:, :turned, :half].double(), x[:, :turned, half:].double()
    c, s = cos[:, None, :half].double(), sin[:, None, :half].double()
    exact[:, :turned, :half], exact[:, :turned, half:] = a * c - b * s, b * c + a * s
    twin.rotate(x, cos, sin, turned)
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=2e-6)
    assert torch.equal(x[:, turned:].double(), exact[:, turned:])


@TWINS
def test_a_turn_and_its_opposite_give_back_what_was(twin):
    x, (cos, sin) = rows(9, 5, 32), angles(9, 32)
    before = x.clone()
    twin.rotate(x, cos, sin, 5)
    assert not torch.allclose(x, before)
    twin.rotate(x, cos, -sin, 5)
    torch.testing.assert_close(x, before, rtol=0, atol=2e-6)


def test_a_row_does_not_depend_on_the_others():
    x, (cos, sin) = rows(600, 9, 64), angles(600, 64)
    alone = x[300:301].clone()
    native.rotate(x, cos, sin, 7)
    native.rotate(alone, cos[300:301], sin[300:301], 7)
    assert torch.equal(x[300:301], alone)


def test_rows_that_lie_apart_are_turned_where_they_lie():
    wide, (cos, sin) = rows(6, 8, 16), angles(6, 16)
    expected = wide[:, 2:6].clone()
    naive.rotate(expected, cos, sin, 4)
    native.rotate(wide[:, 2:6], cos, sin, 4)
    torch.testing.assert_close(wide[:, 2:6], expected, rtol=0, atol=2e-6)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="x, cos, sin must be"):
        native.rotate(rows(3, 2, 16), *angles(2, 16), 2)
